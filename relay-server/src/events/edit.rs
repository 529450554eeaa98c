//! An event's content as somebody changed it, for one more delivery.
//!
//! What comes back as it was shown stays as it came: a masked header keeps its value, a masked target its query, and a
//! value that is no text its bytes. Lines that the relay adds itself are left out, since it adds them again. Nothing
//! here signs or delivers.
//!
//! Invariants: what the door would refuse, or no agent could carry, is refused here and not at each attempt; what an edit
//! leaves out stays.

use std::{borrow::Cow, collections::HashSet};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderName, HeaderValue, Method, header, uri::PathAndQuery};
use relay_program::api::Edit;
use relay_proto::{Framing, HeaderBlock, names};
use relay_schemes::Provider;

use super::shown::Lines;
use crate::{
    delivery::Changed,
    failure::{ApiError, ApiErrorKind},
    mask::shown_url,
    message::{Sent, is_dropped},
    store::Head,
    verify::Rule,
};

/// Longest method of an edit, in bytes, as at the door.
const MAX_METHOD_BYTES: usize = 64;

/// Longest target of an edit, in bytes.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Longest head of an edit, in bytes: the most that the door takes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Most header lines of an edit.
const MAX_LINES: usize = 100;

/// Lines of the framing: the relay writes them anew.
const FRAMING: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// What is to be delivered in an event's place. `whole` is its body; `rule` is its endpoint's, by which parts of it are
/// masked where it is shown.
pub(crate) fn changed(head: &Head, whole: Bytes, edit: Edit, rule: Option<&Rule>) -> Result<Changed, ApiError> {
    let sent = &head.sent;
    let method = edit.method.map(method).transpose()?.unwrap_or_else(|| sent.method.clone());
    let given = edit.target.filter(|given| *given != shown_url(rule, &sent.target));
    let target = given.map(target).transpose()?.unwrap_or_else(|| sent.target.clone());
    let body = match (edit.body_base64, edit.body_text) {
        (None, None) => whole,
        (Some(text), None) => {
            let bytes = BASE64.decode(text.as_bytes());
            bytes.map_err(|why| ApiError::bad_request(format!("`body_base64` is not base64: {why}")))?.into()
        }
        (None, Some(text)) => text.into(),
        (Some(_), Some(_)) => return Err(ApiError::bad_request("give `body_base64` or `body_text`, not both")),
    };
    let hidden = rule.and_then(Rule::provider).map(Provider::credential_headers).unwrap_or_default();
    let shown = Lines { headers: &sent.headers, hidden: &hidden };
    let headers = match edit.headers {
        Some(lines) => headers(lines, &shown)?,
        None => sent.headers.clone(),
    };
    let headers = framed(&headers, body.len());
    let lines: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    if method.len() + target.len() + lines > MAX_HEAD_BYTES {
        return Err(bad(format!("a request's head has at most {} KiB", MAX_HEAD_BYTES / 1024)));
    }
    // The signature may cover the URL, which ends with the target.
    let front = head.arrival.url.strip_suffix(sent.target.as_str());
    let url = front.map_or_else(|| head.arrival.url.clone(), |front| format!("{front}{target}"));
    Ok(Changed { sent: Sent { method, target, headers, framing: Framing::Length, ..sent.clone() }, url, body })
}

/// No request can be made of this.
fn bad(why: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::new(ApiErrorKind::BadEdit, why)
}

fn method(text: String) -> Result<String, ApiError> {
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| text.len() <= MAX_METHOD_BYTES);
    match method {
        Some(Method::CONNECT | Method::TRACE) => Err(bad(format!("no webhook comes by {text}; take another `method`"))),
        Some(_) => Ok(text),
        None => Err(bad("`method` is not a method of HTTP, such as POST")),
    }
}

fn target(text: String) -> Result<String, ApiError> {
    let begins = text.is_empty() || text.starts_with(['/', '?']);
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let rooted = if text.starts_with('/') { text.clone() } else { format!("/{text}") };
    let is_exact = PathAndQuery::try_from(rooted.as_str()).is_ok_and(|read| read.as_str() == rooted);
    if begins && is_plain && is_exact && text.len() <= MAX_TARGET_BYTES {
        return Ok(text);
    }
    let why = "`target` is what follows the endpoint: it begins with / or ?, and other characters than those of a URL are \
               written as %XX";
    Err(bad(why))
}

/// The lines of an edit, with the bytes of those that came back as they were shown.
fn headers(lines: Vec<(String, String)>, shown: &Lines<'_>) -> Result<HeaderBlock, ApiError> {
    if lines.len() > MAX_LINES {
        return Err(bad(format!("a request has at most {MAX_LINES} header lines")));
    }
    let before = shown.shown();
    let (mut used, mut has_host) = (HashSet::new(), false);
    let mut block = HeaderBlock::builder(1024);
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| bad(format!("{name:?} is not the name of a header")))?;
        let is_of_one_hop = names::is_of_one_hop(name.as_str().as_bytes()) && name != header::TE;
        if name == names::TRACEPARENT || is_dropped(name.as_str(), false) || is_of_one_hop {
            continue;
        }
        if name == header::HOST && std::mem::replace(&mut has_host, true) {
            return Err(bad("a request has one `host`"));
        }
        let same = |(nth, (own, text)): &(usize, &(String, String))| {
            !used.contains(nth) && *own == name.as_str() && *text == value
        };
        let original = before.iter().enumerate().find(same).map(|(nth, _)| nth);
        if let Some((_, bytes)) = original.and_then(|nth| shown.headers.iter().nth(nth)) {
            used.extend(original);
            block.push(name.as_str(), bytes);
            continue;
        }
        let text = HeaderValue::from_str(&value).or_else(|_| HeaderValue::from_bytes(value.as_bytes()));
        let bytes = text.map_err(|_| bad(format!("the value of {name} has characters that a header cannot have")))?;
        block.push(name.as_str(), bytes.as_bytes());
    }
    Ok(block.build())
}

/// With the length of the body in place of what said so before.
pub(super) fn framed(headers: &HeaderBlock, len: usize) -> HeaderBlock {
    let is_framing = |name: &[u8]| FRAMING.iter().any(|framing| framing.as_str().as_bytes() == name);
    let had_length = headers.iter().any(|(name, _)| name == header::CONTENT_LENGTH.as_str().as_bytes());
    let mut block = HeaderBlock::builder(headers.as_bytes().len() + 32);
    headers.iter().filter(|(name, _)| !is_framing(name)).for_each(|(name, value)| block.push(name, value));
    if had_length || len > 0 {
        block.push(header::CONTENT_LENGTH.as_str(), len.to_string());
    }
    block.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let mut head = Head::sample("/x?y");
        head.arrival.url = "https://hooks.test/pay/x?y".into();
        let lines: [(&str, &[u8]); 5] = [
            ("authorization", b"Bearer hunter2"),
            ("x-raw", b"\xff"),
            ("content-length", b"4"),
            ("cookie", b"one"),
            ("cookie", b"two"),
        ];
        head.sent.headers = lines.into_iter().collect();
        head
    }

    fn lines(block: &HeaderBlock) -> Vec<(&str, &[u8])> {
        block.iter().map(|(name, value)| (std::str::from_utf8(name).expect("a name"), value)).collect()
    }

    fn edit(lines: &[(&str, &str)]) -> Edit {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Edit { headers: Some(lines.iter().map(own).collect()), ..Edit::default() }
    }

    #[test]
    fn what_comes_back_as_it_was_shown_keeps_its_bytes() {
        let back = [
            ("cookie", "[masked]"),
            ("Authorization", "[masked]"),
            ("cookie", "[masked]"),
            ("x-raw", "\u{fffd}"),
            ("relay-event-id", "hook_1"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("x-new", "grün"),
            ("connection", "x-new"),
            ("te", "trailers"),
        ];
        let changed = changed(&head(), "body".into(), edit(&back), None).expect("an edit");
        let expected: Vec<(&str, &[u8])> = vec![
            ("cookie", b"one"),
            ("authorization", b"Bearer hunter2"),
            ("cookie", b"two"),
            ("x-raw", b"\xff"),
            ("x-new", "grün".as_bytes()),
            ("te", b"trailers"),
            ("content-length", b"4"),
        ];
        assert_eq!(lines(&changed.sent.headers), expected);
        assert_eq!((&changed.body[..], changed.url.as_str()), (&b"body"[..], "https://hooks.test/pay/x?y"));
    }

    #[test]
    fn target_and_body_go_with_their_url_and_their_length() {
        let edit = Edit { target: Some("?z".into()), body_text: Some("longer body".into()), ..Edit::default() };
        let changed = changed(&head(), "body".into(), edit, None).expect("an edit");
        assert_eq!((changed.url.as_str(), changed.sent.target.as_str()), ("https://hooks.test/pay?z", "?z"));
        assert_eq!(lines(&changed.sent.headers).last(), Some(&("content-length", &b"11"[..])));
    }

    #[test]
    fn a_target_that_comes_back_as_it_was_shown_keeps_its_query() {
        let mut head = head();
        head.sent.target = "/x?token=hunter2&y=1".to_owned();
        head.arrival.url = format!("https://hooks.test/pay{}", head.sent.target);
        let back = |target: &str| {
            let edit = Edit { target: Some(target.to_owned()), ..Edit::default() };
            let changed = changed(&head, "body".into(), edit, None).expect("an edit");
            (changed.sent.target, changed.url)
        };
        assert_eq!(back("/x?token=[masked]&y=1"), (head.sent.target.clone(), head.arrival.url.clone()));
        assert_eq!(back("/x?y=1").0, "/x?y=1");
    }

    #[test]
    fn what_no_request_can_carry_is_refused() {
        let bad = [
            Edit { method: Some("A B".into()), ..Edit::default() },
            Edit { target: Some("x".into()), ..Edit::default() },
            Edit { target: Some("/a b".into()), ..Edit::default() },
            Edit { target: Some("/\r\nx: y".into()), ..Edit::default() },
            Edit { body_base64: Some("%".into()), ..Edit::default() },
            Edit { body_base64: Some(String::new()), body_text: Some(String::new()), ..Edit::default() },
            edit(&[("a b", "c")]),
            edit(&[("a", "b\r\nc: d")]),
            edit(&[("a", "b"); MAX_LINES + 1]),
            Edit { method: Some("CONNECT".into()), ..Edit::default() },
            Edit { method: Some("A".repeat(65)), ..Edit::default() },
            Edit { target: Some("/x?a\"b".into()), ..Edit::default() },
            edit(&[("a", &"b".repeat(MAX_HEAD_BYTES))]),
            edit(&[("host", "a"), ("host", "b")]),
        ];
        for edit in bad {
            let text = format!("{edit:?}");
            assert!(changed(&head(), "".into(), edit, None).is_err(), "{text}");
        }
    }
}

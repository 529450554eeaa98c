//! An event as a `.http` file, and what of it was changed. Pure.
//!
//! The first line is method and target, then come the headers in order, an empty line, and the body byte for byte.

use data_encoding::BASE64;
use relay_program::{api::Edit, event::EventDetail};

/// An event as a file to edit.
pub(super) fn of_event(event: &EventDetail, body: &[u8]) -> Vec<u8> {
    let mut file = format!("{} {}\n", event.summary.method, event.summary.target);
    for (name, value) in &event.headers {
        file.push_str(&format!("{name}: {value}\n"));
    }
    file.push('\n');
    let mut file = file.into_bytes();
    file.extend_from_slice(body);
    file
}

/// What an edited file changes in the one that it was. `None`: nothing. The error is for people.
pub(super) fn edit(before: &[u8], after: &[u8]) -> Result<Option<Edit>, String> {
    if before == after {
        return Ok(None);
    }
    let (was, is) = (Parts::read(before)?, Parts::read(after)?);
    let changed = |was: &str, is: &str| (was != is).then(|| is.to_owned());
    let body = (was.body != is.body).then_some(is.body);
    let text = body.and_then(|body| std::str::from_utf8(body).ok());
    Ok(Some(Edit {
        method: changed(&was.method, &is.method),
        target: changed(&was.target, &is.target),
        headers: (was.headers != is.headers).then_some(is.headers),
        body_text: text.map(str::to_owned),
        body_base64: body.filter(|_| text.is_none()).map(|body| BASE64.encode(body)),
    }))
}

struct Parts<'a> {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(file: &'a [u8]) -> Result<Self, String> {
        let mut rest = file;
        let mut line = || {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            let line = std::str::from_utf8(line).map_err(|_| "a line of the head is no text".to_owned())?;
            Ok::<_, String>(line.strip_suffix('\r').unwrap_or(line))
        };
        let first = line()?;
        let (method, target) =
            first.trim().split_once(' ').ok_or("the first line has to be a method and a target, as in POST /hooks")?;
        let mut headers = Vec::new();
        loop {
            let header = line()?;
            if header.is_empty() {
                break;
            }
            let (name, value) =
                header.split_once(':').ok_or_else(|| format!("{header:?} is no header: it has no colon"))?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        Ok(Self { method: method.to_owned(), target: target.trim().to_owned(), headers, body: rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> EventDetail {
        let mut event = EventDetail::default();
        (event.summary.method, event.summary.target) = ("POST".to_owned(), "/x?y=1".to_owned());
        event.headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        event
    }

    #[test]
    fn only_what_was_changed_is_sent() {
        let before = of_event(&event(), b"{\"a\":1}\n\n{}");
        assert_eq!(before, b"POST /x?y=1\ncontent-type: application/json\n\n{\"a\":1}\n\n{}");
        assert!(edit(&before, &before).unwrap().is_none());
        let after = of_event(&event(), b"{\"a\":2}");
        let changed = edit(&before, &after).unwrap().unwrap();
        assert_eq!(changed.body_text.as_deref(), Some("{\"a\":2}"));
        assert_eq!((changed.method, changed.target, changed.headers, changed.body_base64), (None, None, None, None));
        let after = b"PUT /z\ncontent-type: text/plain\r\nx-a: b:c\r\n\r\n\xff";
        let changed = edit(&before, after).unwrap().unwrap();
        assert_eq!((changed.method.as_deref(), changed.target.as_deref()), (Some("PUT"), Some("/z")));
        let headers = vec![("content-type".to_owned(), "text/plain".to_owned()), ("x-a".to_owned(), "b:c".to_owned())];
        assert_eq!((changed.headers, changed.body_base64.as_deref()), (Some(headers), Some("/w==")));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let before = of_event(&event(), b"");
        assert!(edit(&before, b"").unwrap_err().contains("first line"));
        assert!(edit(&before, b"POST /\nnonsense\n\n").unwrap_err().contains("nonsense"));
    }
}

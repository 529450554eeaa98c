//! What is hidden of a request or an answer before anything is kept of it for watchers.
//!
//! It looks at every header of every live webhook, so a name is looked at once, and most names are left for want of a
//! letter. Invariant: what could not be searched for a value that is to be hidden is not kept at all.

use std::{collections::HashMap, ops::Range};

use bytes::Bytes;
use relay_proto::{HeaderBlock, names::FORWARDED_FOR};
use serde_json::value::RawValue;

use super::{MASKED, authenticates, shown_url};
use crate::verify::Rule;

/// What the config hides beside what lets its bearer in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masks {
    /// Header names, lower case.
    pub headers: Vec<String>,
    /// JSON pointers (RFC 6901).
    pub json: Vec<String>,
}

/// What is hidden at one endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blinds {
    headers: Vec<String>,
    json: Vec<String>,
    /// Its provider's credentials may stand in bodies.
    body: bool,
}

impl Blinds {
    pub(crate) fn new(rule: &Rule, masks: &Masks) -> Self {
        let provider = rule.provider();
        let own = provider.map(relay_schemes::Provider::credential_headers).unwrap_or_default();
        let headers = own.into_iter().map(str::to_ascii_lowercase).chain(masks.headers.iter().cloned());
        Self {
            headers: headers.collect(),
            json: masks.json.clone(),
            body: provider.is_some_and(relay_schemes::Provider::hides_in_body),
        }
    }

    #[inline]
    fn hides(&self, name: &[u8]) -> bool {
        self.headers.iter().any(|hidden| hidden.as_bytes() == name)
            || (!is_usual(name) && may_authenticate(name) && std::str::from_utf8(name).is_ok_and(authenticates))
    }

    /// Whether a body may be kept otherwise than it came.
    pub(crate) fn touches_bodies(&self) -> bool {
        self.body || !self.json.is_empty()
    }

    /// The lines of a request that left for an agent, as they may be kept. Behind the sender's stand the relay's own,
    /// of which this one is the first; a sender's never passes. They let nobody in.
    pub(crate) fn request_lines(&self, lines: &HeaderBlock) -> HeaderBlock {
        let mut senders = lines.iter().map(|(name, _)| name).take_while(|name| *name != FORWARDED_FOR.as_bytes());
        if self.headers.is_empty() && !senders.any(|name| self.hides(name)) {
            return lines.clone();
        }
        self.lines(lines)
    }

    /// Header lines as they may be kept.
    pub(crate) fn lines(&self, lines: &HeaderBlock) -> HeaderBlock {
        if !lines.iter().any(|(name, _)| self.hides(name)) {
            return lines.clone();
        }
        let masked = |(name, value)| (name, if self.hides(name) { MASKED.as_bytes() } else { value });
        lines.iter().map(masked).collect()
    }

    /// A target as it may be kept.
    pub(crate) fn target(&self, rule: &Rule, target: &Bytes) -> Bytes {
        match std::str::from_utf8(target) {
            Ok(text) if target.contains(&b'?') => shown_url(Some(rule), text).into(),
            _ => target.clone(),
        }
    }

    /// The beginning of a body as it may be kept. `is_whole` says whether that is all of it.
    pub(crate) fn body(&self, rule: &Rule, kept: &Bytes, is_whole: bool) -> Bytes {
        if !self.touches_bodies() || kept.is_empty() {
            return kept.clone();
        }
        let provider = rule.provider().filter(|_| self.body);
        let mut hidden = provider.map(|provider| provider.credentials_in(kept)).unwrap_or_default();
        if provider.is_some() && !is_whole {
            return Bytes::new();
        }
        if !self.json.is_empty() && looks_like_json(kept) {
            match self.json.iter().map(|pointer| value_at(kept, pointer)).collect::<Option<Vec<_>>>() {
                Some(found) if is_whole => hidden.extend(found.into_iter().flatten()),
                _ => return Bytes::new(),
            }
        }
        if hidden.is_empty() {
            return kept.clone();
        }
        let mut shown = kept.to_vec();
        for part in hidden {
            let end = part.end.min(shown.len());
            shown[part.start.min(end)..end].fill(b'*');
        }
        shown.into()
    }
}

/// Whether this is a name of nearly every request or answer. None of them lets anybody in.
fn is_usual(name: &[u8]) -> bool {
    matches!(name, b"accept" | b"content-length" | b"content-type" | b"date" | b"host" | b"server" | b"user-agent")
}

/// Whether a name may be one of those that [`authenticates`] knows: it has all letters of one of their words. Few others
/// have.
fn may_authenticate(name: &[u8]) -> bool {
    const WORDS: [u32; 6] = [
        letters(b"authorization"),
        letters(b"cookie"),
        letters(b"token"),
        letters(b"secret"),
        letters(b"password"),
        letters(b"key"),
    ];
    let seen = letters(name);
    WORDS.iter().any(|word| seen & word == *word)
}

/// Which letters stand in a text, a bit for each, whatever their case. What is no letter counts as one or another.
const fn letters(text: &[u8]) -> u32 {
    let (mut seen, mut at) = (0, 0);
    while at < text.len() {
        seen |= 1 << (text[at] & 31);
        at += 1;
    }
    seen
}

fn looks_like_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Where the value stands that a pointer names; `None` where the body cannot be read as JSON.
fn value_at(body: &[u8], pointer: &str) -> Option<Option<Range<usize>>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut value: &RawValue = serde_json::from_str(text).ok()?;
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        let inner = match value.get().as_bytes().first() {
            Some(b'{') => serde_json::from_str::<HashMap<std::borrow::Cow<'_, str>, &RawValue>>(value.get())
                .ok()
                .and_then(|fields| fields.get(part.as_str()).copied()),
            Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(value.get())
                .ok()
                .and_then(|items| items.get(part.parse::<usize>().ok()?).copied()),
            _ => None,
        };
        let Some(inner) = inner else { return Some(None) };
        value = inner;
    }
    let start = value.get().as_ptr().addr() - text.as_ptr().addr();
    Some(Some(start..start + value.get().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_lets_its_bearer_in_is_seen_at_a_glance() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-gitlab-token",
            "client-secret",
            "x-password",
            "x-api-key",
            "apikey",
            "x-api_key",
            "key",
        ] {
            for name in [name.to_owned(), name.to_uppercase(), format!("x-{name}-2"), format!("a_{name}")] {
                assert!(may_authenticate(name.as_bytes()), "{name}");
            }
            assert!(authenticates(name), "{name}");
        }
        for name in ["content-type", "x-hub-signature-256", "user-agent", "x-github-hook-id", "webhook-id", "accept"] {
            assert!(!may_authenticate(name.as_bytes()), "{name}");
        }
        for name in ["accept", "content-length", "content-type", "date", "host", "server", "user-agent"] {
            assert!(is_usual(name.as_bytes()) && !authenticates(name), "{name}");
        }
        assert!(!["cookie", "authorization", "key", "token"].iter().any(|name| is_usual(name.as_bytes())));
    }

    #[test]
    fn the_relays_own_lines_let_nobody_in_and_the_config_may_hide_them_as_well() {
        use relay_proto::names::*;

        for name in [
            FORWARDED_FOR,
            FORWARDED_PROTO,
            FORWARDED_HOST,
            TRACEPARENT,
            EVENT_ID,
            ENDPOINT,
            RECEIVED_AT,
            VERIFIED,
            CLIENT_CERTIFICATE,
            ATTEMPT,
            REPLAY_OF,
            REDELIVERED,
            RESIGNED,
        ] {
            assert!(!authenticates(name), "{name}");
        }
        let kept = |headers: &[&str], lines: &[(&str, &str)]| {
            let masks = Masks { headers: headers.iter().map(|name| (*name).to_owned()).collect(), json: Vec::new() };
            let kept = Blinds::new(&Rule::Open, &masks).request_lines(&lines.iter().copied().collect());
            kept.iter().map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>()
        };
        let own = [(FORWARDED_FOR, "192.0.2.1"), (ENDPOINT, "e")];
        assert_eq!(kept(&[], &[&[("cookie", "a=b"), ("accept", "*/*")][..], &own].concat())[..2], [MASKED, "*/*"]);
        assert_eq!(kept(&[], &[&[("accept", "*/*")][..], &own].concat()), ["*/*", "192.0.2.1", "e"]);
        assert_eq!(kept(&[ENDPOINT], &[&[("accept", "*/*")][..], &own].concat()), ["*/*", "192.0.2.1", MASKED]);
    }

    #[test]
    fn what_the_config_names_is_hidden_and_all_else_is_as_it_was() {
        let masks = Masks { headers: vec!["x-who".into()], json: vec!["/data/card".into(), "/list/1".into()] };
        let blinds = Blinds::new(&Rule::Open, &masks);
        let lines: HeaderBlock = [("x-who", "me"), ("cookie", "a=b"), ("accept", "*/*")].into_iter().collect();
        let kept: Vec<_> = blinds.lines(&lines).iter().map(|(_, value)| value.to_vec()).collect();
        assert_eq!(kept, [MASKED.as_bytes(), MASKED.as_bytes(), b"*/*"]);
        let plain: HeaderBlock = [("accept", "*/*")].into_iter().collect();
        assert!(blinds.lines(&plain).as_bytes().as_ptr() == plain.as_bytes().as_ptr(), "nothing was copied");
        let body = Bytes::from_static(br#"{"data": {"card": "4242"}, "list": [1, 22, 3], "x": "card"}"#);
        let shown = blinds.body(&Rule::Open, &body, true);
        assert_eq!(shown, br#"{"data": {"card": ******}, "list": [1, **, 3], "x": "card"}"#[..]);
        assert_eq!(blinds.body(&Rule::Open, &body.slice(..20), false), b""[..], "it cannot be searched");
        assert_eq!(blinds.body(&Rule::Open, &Bytes::from_static(b"a=1"), true), b"a=1"[..]);
        assert_eq!(blinds.target(&Rule::Open, &Bytes::from_static(b"/a?token=1&b=2")), b"/a?token=[masked]&b=2"[..]);
    }
}

//! An export without the values that a sender wrote: the form of a request stays, and nothing of what it says.

use bytes::Bytes;
use serde_json::Value;

use super::{ExportLines, Exported};
use crate::mask::MASKED;

const REDACTED: &str = "redacted";

/// Headers that say only of what form a request is.
const KEPT: [&str; 6] = ["content-type", "content-encoding", "accept", "user-agent", "host", "x-github-event"];

pub(super) fn redacted(event: &mut Exported) {
    let kind = event.content_type().unwrap_or_default();
    event.body = body(&kind, &event.body);
    mask(&mut event.headers);
    for url in [&mut event.url, &mut event.target] {
        if let Some((before, query)) = url.split_once('?') {
            *url = format!("{before}?{}", form(query));
        }
    }
    event.sender_id = None;
    if let Some((answer, headers)) = &mut event.answer {
        let kind = super::content_type(headers).unwrap_or_default();
        answer.body = body(&kind, &answer.body);
        mask(headers);
    }
}

fn mask(headers: &mut ExportLines) {
    headers.retain(|(name, _)| name != "content-length");
    for (name, value) in headers {
        if !KEPT.contains(&name.as_str()) {
            *value = MASKED.into();
        }
    }
}

/// JSON and forms keep their names; of anything else nothing is left.
fn body(kind: &str, body: &Bytes) -> Bytes {
    if kind.starts_with("application/x-www-form-urlencoded") {
        return std::str::from_utf8(body).map(|text| form(text).into()).unwrap_or_default();
    }
    let json = serde_json::from_slice(body).ok().map(without_values);
    json.map(|json| json.to_string().into()).unwrap_or_default()
}

fn form(text: &str) -> String {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if !value.is_empty() => format!("{name}={REDACTED}"),
        _ => pair.to_owned(),
    };
    text.split('&').map(pair).collect::<Vec<_>>().join("&")
}

/// `serde_json` reads no deeper than 128.
fn without_values(json: Value) -> Value {
    match json {
        Value::String(_) => Value::String(REDACTED.to_owned()),
        Value::Number(_) => Value::from(0),
        Value::Array(all) => all.into_iter().map(without_values).collect(),
        Value::Object(all) => all.into_iter().map(|(name, value)| (name, without_values(value))).collect(),
        Value::Bool(_) | Value::Null => json,
    }
}

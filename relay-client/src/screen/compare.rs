//! Two events side by side: JSON by value, text by line, bytes by the first place where they differ. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use relay_program::event::{EventDetail, EventSummary};
use serde_json::Value;

/// Differences that are listed.
const MAX_DIFFERENCES: usize = 500;

/// One of the two.
pub(super) struct Compared<'a> {
    pub row: Option<&'a EventSummary>,
    pub detail: Option<&'a EventDetail>,
    pub body: Option<&'a Bytes>,
}

/// What differs, in lines: the rows, the headers, the bodies.
pub(super) fn lines(left: &Compared<'_>, right: &Compared<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let row = |side: &Compared<'_>| side.row.map(of_row).unwrap_or_default();
    differences(&mut out, "", &row(left), &row(right));
    let headers = |side: &Compared<'_>| side.detail.map(of_headers);
    match (headers(left), headers(right)) {
        (Some(one), Some(other)) => differences(&mut out, "header ", &one, &other),
        _ => out.push("headers: open both events first".to_owned()),
    }
    match (left.body, right.body) {
        (Some(one), Some(other)) => bodies(&mut out, one, other),
        _ => out.push("bodies: open both events first".to_owned()),
    }
    let count = out.len();
    out.truncate(MAX_DIFFERENCES);
    let said = match count {
        0 => "nothing differs".to_owned(),
        1 => "1 difference".to_owned(),
        count => format!("{count} differences"),
    };
    out.insert(0, said);
    out
}

type Values = BTreeMap<String, String>;

fn of_row(event: &EventSummary) -> Values {
    let status = event.status.map_or("none".to_owned(), |status| status.to_string());
    let values = [
        ("endpoint", event.endpoint.clone()),
        ("state", event.state.clone()),
        ("status", status),
        ("method", event.method.clone()),
        ("path", event.target.clone()),
        ("type", event.event_type.clone().unwrap_or_default()),
        ("took", event.took_us.map(super::units::took).unwrap_or_default()),
        ("attempts", event.attempt_count.to_string()),
    ];
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn of_headers(event: &EventDetail) -> Values {
    let mut values = Values::new();
    for (name, value) in &event.headers {
        let all = values.entry(name.to_ascii_lowercase()).or_default();
        if !all.is_empty() {
            all.push_str(", ");
        }
        all.push_str(value);
    }
    values
}

fn bodies(out: &mut Vec<String>, one: &Bytes, other: &Bytes) {
    if one == other {
        return;
    }
    if let (Ok(one), Ok(other)) = (serde_json::from_slice(one), serde_json::from_slice(other)) {
        return differences(out, "", &flat(&one), &flat(&other));
    }
    if let (Ok(one), Ok(other)) = (std::str::from_utf8(one), std::str::from_utf8(other)) {
        let numbered = |text: &str| -> Values {
            text.lines().enumerate().map(|(at, line)| (format!("{:>6}", at + 1), line.to_owned())).collect()
        };
        return differences(out, "line ", &numbered(one), &numbered(other));
    }
    let at = one.iter().zip(other.iter()).take_while(|(one, other)| one == other).count();
    out.push(format!("bodies differ from byte {at} on: {} and {} bytes", one.len(), other.len()));
}

/// Each value of a JSON text by its pointer.
fn flat(value: &Value) -> Values {
    fn walk(value: &Value, path: String, out: &mut Values) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                members.iter().for_each(|(name, value)| walk(value, format!("{path}/{name}"), out));
            }
            Value::Array(items) if !items.is_empty() => {
                items.iter().enumerate().for_each(|(at, value)| walk(value, format!("{path}/{at}"), out));
            }
            _ => drop(out.insert(path, value.to_string())),
        }
    }
    let mut out = Values::new();
    walk(value, String::new(), &mut out);
    out
}

fn differences(out: &mut Vec<String>, what: &str, one: &Values, other: &Values) {
    for (name, value) in one {
        match other.get(name) {
            Some(other) if other == value => {}
            Some(other) => out.push(format!("{what}{name}: {value} | {other}")),
            None => out.push(format!("{what}{name}: {value} | only in the first")),
        }
    }
    for (name, value) in other.iter().filter(|(name, _)| !one.contains_key(*name)) {
        out.push(format!("{what}{name}: {value} | only in the second"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_compared_by_value() {
        let of = |text: &'static str| Bytes::from_static(text.as_bytes());
        let mut out = Vec::new();
        bodies(&mut out, &of(r#"{"a":1,"b":{"c":[1,2]}}"#), &of(r#"{ "b":{"c":[1,3]}, "a":1, "d":null }"#));
        assert_eq!(out, ["/b/c/1: 2 | 3", "/d: null | only in the second"]);
        let mut out = Vec::new();
        bodies(&mut out, &of("a\nb"), &of("a\nc"));
        assert_eq!(out, ["line      2: b | c"]);
        let mut out = Vec::new();
        bodies(&mut out, &Bytes::from_static(&[0, 255, 1]), &Bytes::from_static(&[0, 255, 2]));
        assert_eq!(out, ["bodies differ from byte 2 on: 3 and 3 bytes"]);
    }
}

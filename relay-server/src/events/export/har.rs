//! Events as an HTTP Archive, version 1.2, which browsers and proxies open.
//!
//! The archive has no place for a request's body that is not text: such a one is base64, with `_encoding`, as answers have
//! `encoding`. Source: the HAR 1.2 specification, and what users of Proxyman ask for (ProxymanApp/Proxyman#1614).

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::Exported;

pub(super) fn har(events: &[Exported]) -> Value {
    let creator = json!({ "name": "relay-server", "version": env!("CARGO_PKG_VERSION") });
    json!({ "log": { "version": "1.2", "creator": creator, "entries": events.iter().map(entry).collect::<Vec<_>>() } })
}

fn entry(event: &Exported) -> Value {
    let (before_us, took_us) = event.times.unwrap_or_default();
    let milliseconds = |us: u64| us as f64 / 1000.0;
    json!({
        "startedDateTime": event.received_at.to_string(),
        "time": milliseconds(before_us + took_us),
        "request": request(event),
        "response": response(event),
        "cache": {},
        "timings": { "blocked": milliseconds(before_us), "send": 0, "wait": milliseconds(took_us), "receive": 0 },
        "comment": event.id.to_string(),
    })
}

fn request(event: &Exported) -> Value {
    let query = event.url.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        json!({ "name": name, "value": value })
    };
    let pairs: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
    let mut request = json!({
        "method": event.method,
        "url": event.url,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": headers(&event.headers),
        "queryString": pairs,
        "headersSize": -1,
        "bodySize": event.body.len(),
    });
    if !event.body.is_empty() {
        let (text, encoding) = text(&event.body);
        let mut data = json!({ "mimeType": event.content_type().unwrap_or_default(), "text": text });
        if let Some(encoding) = encoding {
            data["_encoding"] = encoding.into();
        }
        request["postData"] = data;
    }
    request
}

/// An event without an answer has one of status 0, as browsers write it.
fn response(event: &Exported) -> Value {
    let (status, lines, body) = match &event.answer {
        Some((answer, lines)) => (answer.status, lines.as_slice(), answer.body.as_ref()),
        None => (0, &[][..], &[][..]),
    };
    let (text, encoding) = text(body);
    let kind = super::content_type(lines).unwrap_or_default();
    let mut content = json!({ "size": body.len(), "mimeType": kind, "text": text });
    if let Some(encoding) = encoding {
        content["encoding"] = encoding.into();
    }
    json!({
        "status": status,
        "statusText": "",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": headers(lines),
        "content": content,
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": body.len(),
    })
}

fn headers(lines: &[(String, Vec<u8>)]) -> Vec<Value> {
    lines.iter().map(|(name, value)| json!({ "name": name, "value": String::from_utf8_lossy(value) })).collect()
}

fn text(body: &[u8]) -> (String, Option<&'static str>) {
    match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (BASE64.encode(body), Some("base64")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::exported, *};

    #[test]
    fn an_archive_has_what_its_version_asks_for() {
        let mut event = exported(false);
        let of = |event: &Exported| har(std::slice::from_ref(event))["log"]["entries"][0].clone();
        let entry = of(&event);
        assert_eq!(entry["request"]["postData"]["text"], "{\"name\":\"it's $HOME\",\"n\":12}");
        assert_eq!(entry["request"]["queryString"][0], json!({ "name": "token", "value": "[masked]" }));
        assert_eq!((&entry["response"]["status"], &entry["time"]), (&json!(201), &json!(23.0)));
        event.body = b"\xff".to_vec().into();
        event.answer = None;
        let entry = of(&event);
        assert_eq!(entry["request"]["postData"]["_encoding"], "base64");
        assert_eq!(entry["response"]["status"], 0);
    }
}

//! Events as files to keep, to look into elsewhere, and to send again: curl, raw HTTP, HAR, cassette.
//!
//! What lets its bearer in is masked in each of them, as it is wherever an event is shown. Redacted ones have no values of
//! their sender either: names stay, so that their form can be seen. Nothing here reads a store; how much may be exported
//! at a time is for whoever asks.

mod curl;
mod har;
mod redact;

use std::fmt::Write as _;

use bytes::Bytes;
use jiff::Timestamp;
use relay_program::cassette::{Base64Bytes, CassetteAnswer, CassetteBytes, CassetteEvent, CassetteHead};
use relay_proto::{HeaderBlock, names};
use serde::Deserialize;

use self::redact::redacted;
use super::shown::Lines;
use crate::{
    endpoint::{Endpoint, EndpointName},
    hops::Hop,
    journal::{LiveAnswer, LiveEntry},
    mask::{MASKED, shown_url},
    message::is_dropped,
    store::{Answer, Record},
    webhook::EventId,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ExportForm {
    /// A command for a POSIX shell.
    Curl,
    /// A command for PowerShell.
    CurlPs,
    /// The request as HTTP/1.1 has it.
    Http,
    Har,
    Cassette,
}

impl ExportForm {
    /// What its files are called, behind the dot, and their media type.
    pub(crate) const fn file(self) -> (&'static str, &'static str) {
        match self {
            Self::Curl => ("sh", "text/plain; charset=utf-8"),
            Self::CurlPs => ("ps1", "text/plain; charset=utf-8"),
            Self::Http => ("http", "application/octet-stream"),
            Self::Har => ("har", "application/json"),
            Self::Cassette => ("cassette", "application/x-ndjson"),
        }
    }
}

/// Header lines as they are exported.
type ExportLines = Vec<(String, Vec<u8>)>;

/// An event as it is exported: what is hidden is hidden.
pub(crate) struct Exported {
    id: EventId,
    endpoint: EndpointName,
    received_at: Timestamp,
    method: String,
    event_type: Option<String>,
    sender_id: Option<String>,
    provider: Option<String>,
    /// The whole one, under which its sender knows the endpoint.
    url: String,
    target: String,
    headers: ExportLines,
    /// Names of headers that are masked.
    masked: Vec<String>,
    body: Bytes,
    /// Of its last attempt that was answered.
    answer: Option<(Answer, ExportLines)>,
    /// Of the whole exchange: when the attempt began and how long it took, in microseconds.
    times: Option<(u64, u64)>,
}

impl Exported {
    /// `body` is the whole one, as it is shown.
    pub(crate) fn new(record: Record, endpoint: Option<&Endpoint>, body: Bytes, redact: bool) -> Self {
        let Record { summary, head, mut attempts } = record;
        let rule = endpoint.map(|endpoint| &endpoint.verify);
        let provider = rule.and_then(|rule| rule.provider());
        let hidden = provider.map(relay_schemes::Provider::credential_headers).unwrap_or_default();
        let lines = Lines { headers: &head.sent.headers, hidden: &hidden };
        let last = attempts.iter().rposition(|attempt| attempt.answer.is_some()).map(|at| attempts.swap_remove(at));
        let times = last.as_ref().map(|attempt| {
            let began = attempt.started_at.duration_since(summary.received_at).as_micros();
            (u64::try_from(began).unwrap_or_default(), u64::try_from(attempt.duration.as_micros()).unwrap_or_default())
        });
        let answer = last.and_then(|attempt| attempt.answer).map(|answer| {
            let lines = Lines { headers: &answer.headers, hidden: &[] }.bytes();
            (answer, lines)
        });
        let mut exported = Self {
            provider: rule.map(|rule| rule.provider_name().to_owned()).filter(|name| name != "none"),
            url: shown_url(rule, &head.arrival.url),
            target: shown_url(rule, &head.sent.target),
            headers: lines.bytes(),
            masked: lines.masked(),
            body,
            answer,
            times,
            id: summary.id,
            endpoint: summary.endpoint,
            received_at: summary.received_at,
            method: summary.method,
            event_type: summary.event_type,
            sender_id: summary.sender_id,
        };
        if redact {
            redacted(&mut exported);
        }
        exported
    }

    /// A live exchange, as the journal has it: masked already. `url` is its endpoint's, and `body` the whole one.
    pub(crate) fn live(entry: &LiveEntry, url: &str, body: Bytes, redact: bool) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = |headers: &HeaderBlock| -> ExportLines {
            headers.iter().map(|(name, value)| (text(name), value.to_vec())).collect()
        };
        let mut headers = lines(&entry.headers);
        headers.retain(|(name, _)| name != names::TRACEPARENT && !is_dropped(name, false));
        let masked = headers.iter().filter(|(_, value)| value == MASKED.as_bytes()).map(|(name, _)| name.clone());
        let answer = match &entry.answer {
            LiveAnswer::Handler { status, headers, .. } => {
                let (body, size) = (entry.answer_body(), entry.tail.get().map_or(0, |tail| tail.size));
                let truncated = body.len() as u64 != size;
                Some((Answer { status: *status, headers: headers.clone(), body, truncated }, lines(headers)))
            }
            LiveAnswer::Failed { .. } => None,
        };
        let (hops, target) = (&entry.way.hops, text(&entry.target));
        let began = hops.at_us(Hop::Attempt).map(u64::from);
        let ended = hops.at_us(Hop::AnswerHead).or(hops.at_us(Hop::Ended)).map(u64::from);
        let mut exported = Self {
            id: entry.id,
            endpoint: entry.endpoint.name.clone(),
            received_at: entry.at,
            method: text(&entry.method),
            event_type: entry.event.kind.clone(),
            sender_id: entry.event.id.clone(),
            provider: Some(entry.endpoint.verify.provider_name().to_owned()).filter(|name| name != "none"),
            url: format!("{url}{target}"),
            target,
            masked: masked.collect(),
            headers,
            body,
            answer,
            times: began.zip(ended).map(|(began, ended)| (began, ended.saturating_sub(began))),
        };
        if redact {
            redacted(&mut exported);
        }
        exported
    }

    pub(crate) const fn id(&self) -> EventId {
        self.id
    }

    fn content_type(&self) -> Option<String> {
        content_type(&self.headers)
    }
}

fn content_type(headers: &[(String, Vec<u8>)]) -> Option<String> {
    let line = headers.iter().find(|(name, _)| name == "content-type")?;
    Some(String::from_utf8_lossy(&line.1).into_owned())
}

/// One event, or several where the form has room for them.
pub(crate) fn export(form: ExportForm, events: &[Exported], redact: bool, now: Timestamp) -> Vec<u8> {
    match form {
        ExportForm::Curl => joined(events, curl::posix),
        ExportForm::CurlPs => joined(events, curl::powershell),
        ExportForm::Http => events.iter().flat_map(http).collect(),
        ExportForm::Har => format!("{}\n", har::har(events)).into_bytes(),
        ExportForm::Cassette => cassette(events, redact, now).into_bytes(),
    }
}

fn joined(events: &[Exported], one: impl Fn(&Exported) -> String) -> Vec<u8> {
    events.iter().map(one).collect::<Vec<_>>().join("\n").into_bytes()
}

/// The request as a sender could have written it over HTTP/1.1.
fn http(event: &Exported) -> Vec<u8> {
    let (host, target) = host_and_target(&event.url);
    let mut text = format!("{} {target} HTTP/1.1\r\n", event.method).into_bytes();
    if !event.headers.iter().any(|(name, _)| name == "host") {
        text.extend_from_slice(format!("host: {host}\r\n").as_bytes());
    }
    for (name, value) in &event.headers {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&event.body);
    text
}

fn host_and_target(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or((rest, "/"), |at| rest.split_at(at))
}

fn cassette(events: &[Exported], redact: bool, now: Timestamp) -> String {
    let made_by = concat!("relay-server ", env!("CARGO_PKG_VERSION")).to_owned();
    let mut text = CassetteHead::new(now.to_string(), made_by, redact).line();
    let first = events.iter().map(|event| event.received_at).min();
    let mut in_order: Vec<&Exported> = events.iter().collect();
    in_order.sort_by_key(|event| (event.received_at, event.id));
    for event in in_order {
        let after = first.map(|first| event.received_at.duration_since(first).as_micros()).unwrap_or_default();
        let lines = |lines: &[(String, Vec<u8>)]| {
            lines.iter().map(|(name, value)| (name.clone(), CassetteBytes(value.clone()))).collect::<Vec<_>>()
        };
        let expect = event.answer.as_ref().map(|(answer, headers)| CassetteAnswer {
            status: answer.status,
            headers: lines(headers),
            body: Base64Bytes(answer.body.to_vec()),
            truncated: answer.truncated,
        });
        let line = CassetteEvent {
            offset_us: u64::try_from(after).unwrap_or_default(),
            id: event.id.to_string(),
            endpoint: event.endpoint.to_string(),
            provider: event.provider.clone(),
            event_type: event.event_type.clone(),
            sender_id: event.sender_id.clone(),
            received_at: event.received_at.to_string(),
            method: event.method.clone(),
            target: event.target.clone(),
            headers: lines(&event.headers),
            body: Base64Bytes(event.body.to_vec()),
            expect,
        };
        let _infallible = write!(text, "{}", line.line());
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use relay_program::cassette::CassetteReader;

    use super::*;
    use crate::{
        hops::Hops,
        store::{Attempt, Head, Outcome},
    };

    /// A record with what is hard to write down, and its body.
    pub(in super::super) fn hard() -> (Record, Bytes) {
        let mut head = Head::sample("/x?token=hunter2&y='");
        head.arrival.url = "https://hooks.test/pay/x?token=hunter2&y='".into();
        let lines: [(&str, &[u8]); 6] = [
            ("content-type", b"application/json"),
            ("authorization", b"Bearer hunter2"),
            ("x-quote", b"it's \"$HOME\" `id` \\ %PATH%"),
            ("x-raw", b"\xff"),
            ("x-tab", b"a\tb"),
            ("stripe-signature", b"t=1,v1=00"),
        ];
        head.sent.headers = lines.into_iter().collect();
        let body = Bytes::from_static(b"{\"name\":\"it's $HOME\",\"n\":12}");
        let mut summary = crate::journal::tests::event("pay");
        summary.id = EventId::from_bytes([7; 16]);
        summary.received_at = Timestamp::UNIX_EPOCH;
        let attempt = Attempt {
            number: 1,
            fence: 1,
            started_at: Timestamp::from_millisecond(3).expect("a time"),
            duration: std::time::Duration::from_millis(20),
            outcome: Outcome::Answered,
            agent: None,
            answer: Some(Answer {
                status: 201,
                headers: [("set-cookie", "hunter2")].into_iter().collect(),
                body: "ok".into(),
                truncated: false,
            }),
            resigned: false,
            sha256_in: None,
            hops: Hops::default(),
        };
        (Record { summary, head, attempts: vec![attempt] }, body)
    }

    pub(in super::super) fn exported(redact: bool) -> Exported {
        let (record, body) = hard();
        Exported::new(record, None, body, redact)
    }

    const FORMS: [ExportForm; 5] =
        [ExportForm::Curl, ExportForm::CurlPs, ExportForm::Http, ExportForm::Har, ExportForm::Cassette];

    fn text(form: ExportForm, redact: bool) -> String {
        String::from_utf8_lossy(&export(form, &[exported(redact)], redact, Timestamp::UNIX_EPOCH)).into_owned()
    }

    #[test]
    fn no_form_has_what_lets_its_bearer_in() {
        for form in FORMS {
            assert!(!text(form, false).contains("hunter2"), "{form:?}: {}", text(form, false));
        }
    }

    #[test]
    fn a_redacted_export_has_no_values_of_its_sender() {
        for form in FORMS {
            let text = text(form, true);
            assert!(!["$HOME", "v1=00", "hunter2"].iter().any(|value| text.contains(value)), "{form:?}: {text}");
        }
        let (head, event) = {
            let file = text(ExportForm::Cassette, true);
            let mut reader = CassetteReader::open(Cursor::new(file.into_bytes())).expect("a cassette");
            (reader.head.clone(), reader.next().expect("an event").expect("it can be read"))
        };
        assert!(head.redacted);
        let body: serde_json::Value = serde_json::from_slice(&event.body.0).expect("JSON");
        assert_eq!(body, serde_json::json!({ "name": "redacted", "n": 0 }), "its form can be seen");
    }

    #[test]
    fn a_cassette_has_every_byte_and_the_answer() {
        let file = text(ExportForm::Cassette, false);
        let reader = CassetteReader::open(Cursor::new(file.into_bytes())).expect("a cassette");
        let events: Vec<_> = reader.map(|event| event.expect("it can be read")).collect();
        assert_eq!((events.len(), events[0].target.as_str()), (1, "/x?token=[masked]&y='"));
        assert_eq!(events[0].headers[3], ("x-raw".to_owned(), b"\xff"[..].into()));
        assert_eq!(events[0].headers[1].1, MASKED.as_bytes().into());
        assert_eq!(
            events[0].expect.as_ref().map(|answer| (answer.status, answer.body.0.clone())),
            Some((201, b"ok".into()))
        );
    }

    #[test]
    fn raw_http_is_head_and_body() {
        let text = text(ExportForm::Http, false);
        assert!(
            text.starts_with("POST /pay/x?token=[masked]&y=' HTTP/1.1\r\nhost: hooks.test\r\ncontent-type:"),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\n{\"name\":\"it's $HOME\",\"n\":12}"), "{text}");
    }
}

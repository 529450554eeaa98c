//! A kept event as the relay's APIs tell of it, and as both command lines print it. Keys are only ever added.
//!
//! Whatever is missing or of another shape is printed as `-`. Senders, handlers and agents wrote most of it, so every
//! text is escaped before it reaches a terminal.

use std::borrow::Cow;

use relay_proto::printable::escaped;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::list;

/// One event of a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventSummary {
    pub id: String,
    pub endpoint: String,
    pub state: String,
    pub why: String,
    pub received_at: String,
    pub method: String,
    pub target: String,
    pub event_type: Option<String>,
    pub sender_id: Option<String>,
    /// Of its body, in bytes.
    pub size: u64,
    pub attempt_count: u32,
    /// That of the last answer.
    pub status: Option<u16>,
    pub next_try: Option<String>,
    pub settled_at: Option<String>,
    pub conflict_with: Option<String>,
    pub replay_of: Option<String>,
    pub redelivered: bool,
    /// What it is: `event`, `live`, `refused` or `handshake`.
    pub kind: String,
    /// Of the last attempt, in microseconds.
    pub took_us: Option<u64>,
    /// That of the last attempt.
    pub agent: Option<String>,
    /// The part of its sender's deadline after which the sender was answered; 1 is all of it.
    pub patience: Option<f64>,
    /// Let pass although its signature did not hold.
    pub unproven: bool,
    /// Its last attempt was signed afresh.
    pub resigned: bool,
    pub provider: Option<String>,
    /// Rises with each change of it while this relay runs. Of two rows with one id the higher is newer.
    pub rev: u64,
}

/// An event with all that is known of it but its body.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventDetail {
    #[serde(flatten)]
    pub summary: EventSummary,
    pub headers: Vec<(String, String)>,
    pub signature: Value,
    pub verified: String,
    /// Its endpoint's, as the endpoint stands now.
    pub mode: String,
    pub client: String,
    pub attempts: Vec<EventAttempt>,
    /// What to do, where there is something to do. Names commands of the relay, for whoever runs it.
    pub advice: Option<String>,
    /// `headers` as they came, in base64, where one of them is not UTF-8.
    pub headers_base64: Option<Vec<(String, String)>>,
    /// Names of headers whose value is not shown.
    pub masked: Vec<String>,
    pub body: EventBody,
    pub secret: Option<EventSecret>,
    pub order_key: Option<String>,
    /// Until when its sender wants an answer, from its first byte.
    pub deadline_us: Option<u64>,
    /// Why it stands where it does, for a person.
    pub sentence: String,
    pub answered: Option<EventAnswered>,
    /// The way it took, in order of time.
    pub hops: Vec<EventHop>,
    /// How often it came again and was answered without a call.
    pub repeats: Option<u32>,
    /// Whether the handler got the bytes that the sender sent, by the word of its agent. `None`: no agent told, or there is
    /// nothing whole to compare with.
    pub same_at_handler: Option<bool>,
    pub trace_id: Option<String>,
}

/// What is kept of a body.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventBody {
    /// So many of its bytes, from the first.
    pub kept: u64,
    /// Of the whole body, in hexadecimal digits.
    pub sha256: Option<String>,
    pub content_type: Option<String>,
    /// Its content coding, such as `gzip`.
    pub encoding: Option<String>,
    pub charset: Option<String>,
}

/// Which of its endpoint's secrets proved it, from 1.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventSecret {
    pub number: u32,
    pub of: u32,
}

/// What its sender got.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventAnswered {
    /// Whose answer: `handler`, `ack`, `relay`, `recorded` or `nobody`.
    pub whose: String,
    pub status: Option<u16>,
    /// From the first byte of the request.
    pub after_us: u64,
}

/// A place that it passed. Its `what` is one of `received`, `body`, `verified`, `stored`, `attempt`, `opened`,
/// `answer_head`, `answered`, `waits`, `ended`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventHop {
    pub what: String,
    /// From the first byte of the request.
    pub at_us: u64,
    /// Of the attempt that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventAttempt {
    pub number: u32,
    pub started_at: String,
    pub duration_ms: u64,
    pub outcome: String,
    pub agent: Option<String>,
    pub status: Option<u16>,
    /// When it began, from the first byte of the request.
    pub started_us: u64,
    pub duration_us: u64,
    pub answer: Option<EventAnswer>,
    /// SHA-256 of the request's body as the handler got it, in hexadecimal digits, where the agent said so.
    pub sha256_in: Option<String>,
    pub resigned: bool,
    /// Its outcome for a person.
    pub sentence: String,
}

/// What a handler answered.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventAnswer {
    pub headers: Vec<(String, String)>,
    /// Of its body, in bytes; so much of it is kept.
    pub size: u64,
    /// Its body was longer than what is kept.
    pub truncated: bool,
}

/// What came of an action on an event.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventDone {
    pub id: String,
    /// The event that is now on its way in its place.
    pub new_id: Option<String>,
}

/// What came of a replay to one agent.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventReplayed {
    #[serde(flatten)]
    pub done: EventDone,
    pub agent: String,
    pub resigned: bool,
    /// `None` where nobody waited for it.
    pub outcome: Option<String>,
    pub status: Option<u16>,
    pub headers: Option<Vec<(String, String)>>,
    pub duration_ms: u64,
}

impl EventSummary {
    /// As a row of a list.
    pub fn cells(&self) -> Vec<String> {
        vec![
            list::time(shown(&self.received_at)).into_owned(),
            text(&self.id).into_owned(),
            text(&self.state).to_uppercase(),
            text(&self.endpoint).into_owned(),
            self.status.map_or("-".to_owned(), |status| status.to_string()),
            text(&self.method).into_owned(),
            format!("{} B", self.size),
            optional(&self.event_type).into_owned(),
            text(&self.target).into_owned(),
        ]
    }
}

impl EventDetail {
    /// Whether the handler got this event's bytes in an attempt, by the word of its agent.
    pub fn same_in(&self, attempt: &EventAttempt) -> Option<bool> {
        Some(attempt.sha256_in.as_ref()? == self.body.sha256.as_ref()?)
    }

    /// In words. `advice` is what the relay's advice is called.
    pub fn words(&self, advice: &str) -> String {
        let event = &self.summary;
        let mut out = list::row(event.cells());
        let titled = |out: &mut String, title: &str, value: &Option<String>| {
            if value.is_some() {
                out.push_str(&format!("\n{title}: {}", optional(value)));
            }
        };
        titled(&mut out, "sender's id", &event.sender_id);
        titled(&mut out, "replay of", &event.replay_of);
        titled(&mut out, "conflicts with", &event.conflict_with);
        for (name, value) in &self.headers {
            out.push_str(&format!("\n  {}: {}", escaped(name), escaped(value)));
        }
        for attempt in &self.attempts {
            let status = attempt.status.map(|status| format!(" {status}")).unwrap_or_default();
            out.push_str(&format!(
                "\nattempt {}: {} {}{status} after {} ms by {}",
                attempt.number,
                list::time(shown(&attempt.started_at)),
                text(&attempt.outcome),
                attempt.duration_ms,
                optional(&attempt.agent),
            ));
            if let Some(same) = self.same_in(attempt) {
                out.push_str(&format!(", which says that its handler got {}", got(same)));
            }
        }
        if let Some(next) = &event.next_try {
            out.push_str(&format!("\nnext try: {}", list::time(next)));
        }
        if !event.why.is_empty() {
            out.push_str(&format!("\nwhy: {}", text(&event.why)));
        }
        if !self.sentence.is_empty() {
            out.push_str(&format!("\n     {}", escaped(&self.sentence)));
        }
        titled(&mut out, advice, &self.advice);
        out
    }
}

impl EventReplayed {
    pub fn words(&self) -> String {
        let EventDone { id, new_id } = &self.done;
        let (id, new_id) = (text(id), optional(new_id));
        let Some(outcome) = &self.outcome else { return format!("{new_id}  is on its way as a replay of {id}") };
        let status = self.status.map_or("-".to_owned(), |status| status.to_string());
        let resigned = if self.resigned { ", signed afresh" } else { "" };
        format!(
            "{new_id}  {} {status} in {} ms by {}, a replay of {id}{resigned}",
            escaped(outcome),
            self.duration_ms,
            text(&self.agent),
        )
    }
}

/// What a handler got.
pub const fn got(same: bool) -> &'static str {
    if same { "the same bytes" } else { "other bytes than were sent" }
}

fn shown(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn text(text: &str) -> Cow<'_, str> {
    escaped(shown(text))
}

fn optional(value: &Option<String>) -> Cow<'_, str> {
    text(value.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use relay_proto::printable::is_steering;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_senders_wrote_neither_steers_a_terminal_nor_begins_a_line() {
        let evil = "\u{1b}[2J\u{9b}31mPAID\u{202e}\u{feff}\nforged";
        let event = json!({
            "id": evil, "state": evil, "endpoint": evil, "method": evil, "target": evil, "event_type": evil, "size": 3,
            "received_at": evil, "status": 500, "sender_id": evil, "why": evil, "replay_of": evil, "advice": evil,
            "headers": [[evil, evil]], "attempts": [{ "number": 1, "outcome": evil, "agent": evil }],
        });
        let (summary, detail) = (EventSummary::deserialize(&event), EventDetail::deserialize(&event));
        for (words, count) in [(list::row(summary.unwrap().cells()), 1), (detail.unwrap().words("to do"), 7)] {
            assert!(!words.contains(|char| char != '\n' && is_steering(char)), "{words:?}");
            assert_eq!(words.lines().count(), count, "{words}");
        }
    }

    #[test]
    fn an_event_is_told_with_its_attempts() {
        let event = json!({
            "id": "hook_1", "state": "dead", "endpoint": "e", "method": "POST", "target": "/x", "size": 3,
            "received_at": "2026-01-31T08:00:00Z", "status": 500, "event_type": null, "why": "handler_failed",
            "attempts": [{ "number": 1, "outcome": "answered", "status": 500, "duration_ms": 7, "agent": "a" }],
        });
        let line = list::row(EventSummary::deserialize(&event).unwrap().cells());
        assert_eq!(line, "2026-01-31T08:00:00.000Z hook_1 DEAD e 500 POST 3 B - /x");
        let shown = EventDetail::deserialize(&event).unwrap().words("to do");
        assert!(shown.contains("attempt 1: - answered 500 after 7 ms by a"), "{shown}");
        assert!(shown.ends_with("why: handler_failed"), "{shown}");
        assert!(shown.contains("after 7 ms by a\n"), "nothing is said of its bytes: {shown}");
        let mut told = EventDetail::deserialize(&event).unwrap();
        (told.body.sha256, told.attempts[0].sha256_in) = (Some("aa".into()), Some("aa".into()));
        assert!(
            told.words("").contains("by a, which says that its handler got the same bytes\n"),
            "{}",
            told.words("")
        );
        told.attempts[0].sha256_in = Some("bb".into());
        assert!(told.words("").contains("got other bytes than were sent\n"), "{}", told.words(""));
        (told.sentence, told.advice) = ("It failed.".into(), Some("Mend it.".into()));
        assert!(
            told.words("to do").ends_with("why: handler_failed\n     It failed.\nto do: Mend it."),
            "{}",
            told.words("to do")
        );
    }
}

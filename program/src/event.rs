//! A kept event as the relay's APIs tell of it, and as both command lines print it. Keys are only ever added.
//!
//! Whatever is missing or of another shape is printed as `-`. Senders, handlers and agents wrote most of it, so every
//! text is escaped before it reaches a terminal.

use std::borrow::Cow;

use relay_proto::printable::escaped;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::list;

/// One event of a list.
#[derive(Debug, Default, Serialize, Deserialize)]
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
}

/// An event with all that is known of it but its body.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventDetail {
    #[serde(flatten)]
    pub summary: EventSummary,
    pub headers: Vec<(String, String)>,
    pub signature: Value,
    pub verified: String,
    pub client: String,
    pub attempts: Vec<EventAttempt>,
    /// Names commands of the relay, for whoever runs it.
    pub advice: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventAttempt {
    pub number: u32,
    pub started_at: String,
    pub duration_ms: u64,
    pub outcome: String,
    pub agent: Option<String>,
    pub status: Option<u16>,
}

/// What came of an action on an event.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventDone {
    pub id: String,
    /// The event that is now on its way in its place.
    pub new_id: Option<String>,
}

/// What came of a replay to one agent.
#[derive(Debug, Default, Serialize, Deserialize)]
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
        }
        if let Some(next) = &event.next_try {
            out.push_str(&format!("\nnext try: {}", list::time(next)));
        }
        if !event.why.is_empty() {
            out.push_str(&format!("\nwhy: {}", text(&event.why)));
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
    }
}

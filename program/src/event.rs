//! A kept event as the relay's APIs tell of it, and as both command lines print it.
//!
//! Whatever is missing or of another shape is printed as `-`. Senders, handlers and agents wrote most of it, so every
//! text is escaped before it reaches a terminal.

use std::borrow::Cow;

use relay_proto::printable::escaped;
use serde::Deserialize;
use serde_json::Value;

use crate::list;

/// One event of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventSummary {
    id: Option<String>,
    received_at: Option<String>,
    state: Option<String>,
    endpoint: Option<String>,
    /// That of the last answer.
    status: Option<u16>,
    method: Option<String>,
    target: Option<String>,
    event_type: Option<String>,
    /// Of its body, in bytes.
    size: Option<u64>,
}

/// An event with all that is known of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventDetail {
    #[serde(flatten)]
    summary: EventSummary,
    sender_id: Option<String>,
    replay_of: Option<String>,
    conflict_with: Option<String>,
    headers: Vec<(String, String)>,
    attempts: Vec<EventAttempt>,
    next_try: Option<String>,
    why: Option<String>,
    /// Names commands of the relay, for whoever runs it.
    advice: Option<String>,
}

/// One try to deliver it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventAttempt {
    number: u64,
    started_at: Option<String>,
    outcome: Option<String>,
    status: Option<u16>,
    duration_ms: Option<u64>,
    agent: Option<String>,
}

impl EventSummary {
    /// As a row of a list, from what an API answered.
    pub fn cells(value: &Value) -> Vec<String> {
        Self::deserialize(value).unwrap_or_default().row()
    }

    fn row(&self) -> Vec<String> {
        vec![
            moment(&self.received_at).into_owned(),
            text(&self.id).into_owned(),
            text(&self.state).to_uppercase(),
            text(&self.endpoint).into_owned(),
            number(self.status.map(u64::from)),
            text(&self.method).into_owned(),
            format!("{} B", number(self.size)),
            text(&self.event_type).into_owned(),
            text(&self.target).into_owned(),
        ]
    }
}

impl EventDetail {
    /// In words, from what an API answered. `advice` is what the relay's advice is called.
    pub fn words(value: &Value, advice: &str) -> String {
        let event = Self::deserialize(value).unwrap_or_default();
        let mut out = list::row(event.summary.row());
        let titled = |out: &mut String, title: &str, value: &Option<String>| {
            if value.is_some() {
                out.push_str(&format!("\n{title}: {}", text(value)));
            }
        };
        titled(&mut out, "sender's id", &event.sender_id);
        titled(&mut out, "replay of", &event.replay_of);
        titled(&mut out, "conflicts with", &event.conflict_with);
        for (name, value) in &event.headers {
            out.push_str(&format!("\n  {}: {}", escaped(name), escaped(value)));
        }
        for attempt in &event.attempts {
            let status = attempt.status.map(|status| format!(" {status}")).unwrap_or_default();
            out.push_str(&format!(
                "\nattempt {}: {} {}{status} after {} ms by {}",
                attempt.number,
                moment(&attempt.started_at),
                text(&attempt.outcome),
                number(attempt.duration_ms),
                text(&attempt.agent),
            ));
        }
        if event.next_try.is_some() {
            out.push_str(&format!("\nnext try: {}", moment(&event.next_try)));
        }
        titled(&mut out, "why", &event.why);
        titled(&mut out, advice, &event.advice);
        out
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}

fn moment(value: &Option<String>) -> Cow<'_, str> {
    list::time(value.as_deref().unwrap_or("-"))
}

fn text(value: &Option<String>) -> Cow<'_, str> {
    escaped(value.as_deref().unwrap_or("-"))
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
        for (words, count) in [(list::row(EventSummary::cells(&event)), 1), (EventDetail::words(&event, "to do"), 7)] {
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
        let line = list::row(EventSummary::cells(&event));
        assert_eq!(line, "2026-01-31T08:00:00.000Z hook_1 DEAD e 500 POST 3 B - /x");
        let shown = EventDetail::words(&event, "to do");
        assert!(shown.contains("attempt 1: - answered 500 after 7 ms by a"), "{shown}");
        assert!(shown.ends_with("why: handler_failed"), "{shown}");
    }
}

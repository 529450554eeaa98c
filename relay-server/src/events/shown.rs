//! Events as answers show them, in JSON. Keys are only ever added.

use relay_proto::HeaderBlock;
use relay_schemes::Provider;
use serde_json::{Value, json};

use super::word;
use crate::{
    delivery::Replayed,
    endpoint::Endpoint,
    mask::{MASKED, authenticates, shown_url},
    message::shown_headers,
    store::{Attempt, Reason, Record, State, Summary},
};

/// What lists show of an event.
pub(crate) fn summary(event: &Summary, endpoint: Option<&Endpoint>) -> Value {
    json!({
        "id": event.id.to_string(),
        "endpoint": event.endpoint.as_str(),
        "state": word(event.state),
        "why": why(event),
        "received_at": event.received_at.to_string(),
        "method": event.method,
        "target": shown_url(endpoint.map(|endpoint| &endpoint.verify), &event.target),
        "event_type": event.event_type,
        "sender_id": event.sender_id,
        "size": event.size,
        "attempt_count": event.attempts,
        "status": event.status,
        "next_try": event.due_at.filter(|_| event.state == State::Pending).map(|at| at.to_string()),
        "settled_at": event.settled_at.map(|at| at.to_string()),
        "conflict_with": event.conflict_with.map(|id| id.to_string()),
        "replay_of": event.replay_of.map(|id| id.to_string()),
        "redelivered": event.redelivered,
    })
}

/// Why an event stands where it does, as a stable code.
fn why(event: &Summary) -> &'static str {
    match event.state {
        State::Delivered => "delivered",
        State::Running => "attempt_running",
        State::Pending if event.parked => "behind_another",
        State::Pending if event.attempts == 0 => "waits_for_agent",
        State::Pending => "waits_for_retry",
        State::Dead | State::Dropped | State::Damaged => event.reason.map_or("unknown", Reason::code),
    }
}

/// What a person can do about it.
fn advice(event: &Summary) -> Option<&'static str> {
    match event.state {
        State::Pending if event.attempts == 0 && !event.parked => {
            Some("attach an agent to its endpoint, or resume the endpoint if it is paused")
        }
        State::Dead => Some("mend its handler, then `relay-server dead revive ID`"),
        State::Damaged => Some("look at the disk of the store; the sender has to send it again"),
        _ => None,
    }
}

/// All that is known of an event but its body; what lets its bearer in is masked.
pub(crate) fn detail(record: &Record, endpoint: Option<&Endpoint>) -> Value {
    let mut detail = summary(&record.summary, endpoint);
    let own = endpoint.and_then(|endpoint| endpoint.verify.provider()).map(Provider::credential_headers);
    let headers = shown_headers(&record.summary.endpoint, &record.head.sent, &record.head.arrival);
    detail["headers"] = lines(&headers, &own.unwrap_or_default());
    detail["signature"] = json!(record.head.signature);
    detail["verified"] = record.head.arrival.verified.clone().into();
    detail["client"] = record.head.arrival.peer.to_string().into();
    detail["attempts"] = record.attempts.iter().map(attempt).collect();
    detail["advice"] = advice(&record.summary).into();
    detail
}

fn attempt(attempt: &Attempt) -> Value {
    json!({
        "number": attempt.number,
        "started_at": attempt.started_at.to_string(),
        "duration_ms": u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        "outcome": attempt.outcome.code(),
        "agent": attempt.agent,
        "status": attempt.answer.as_ref().map(|answer| answer.status),
    })
}

/// Names and values, what lets its bearer in masked.
fn lines(headers: &HeaderBlock, also: &[&str]) -> Value {
    let line = |(name, value): (&[u8], &[u8])| {
        let name = String::from_utf8_lossy(name);
        let value =
            if authenticates(&name) || also.contains(&&*name) { MASKED.into() } else { String::from_utf8_lossy(value) };
        json!([name, value])
    };
    headers.iter().map(line).collect()
}

/// What came of a replay to one agent.
pub(crate) fn replayed(replayed: &Replayed) -> Value {
    json!({
        "id": replayed.of.to_string(),
        "new_id": replayed.id.to_string(),
        "agent": replayed.agent,
        "resigned": replayed.resigned,
        "outcome": replayed.outcome.code(),
        "status": replayed.answer.as_ref().map(|answer| answer.status),
        "headers": replayed.answer.as_ref().map(|answer| lines(&answer.headers, &[])),
        "duration_ms": u64::try_from(replayed.duration.as_millis()).unwrap_or(u64::MAX),
    })
}

//! Events as answers show them.

use std::time::Duration;

use relay_program::event::{EventAttempt, EventDetail, EventDone, EventReplayed, EventSummary};
use relay_proto::HeaderBlock;
use relay_schemes::Provider;
use serde_json::json;

use super::word;
use crate::{
    delivery::Replayed,
    endpoint::Endpoint,
    mask::{MASKED, authenticates, shown_url},
    message::shown_headers,
    store::{Attempt, Record, State, Summary},
};

pub(crate) fn summary(event: &Summary, endpoint: Option<&Endpoint>) -> EventSummary {
    EventSummary {
        id: event.id.to_string(),
        endpoint: event.endpoint.to_string(),
        state: word(event.state),
        why: event.why().to_owned(),
        received_at: event.received_at.to_string(),
        method: event.method.clone(),
        target: shown_url(endpoint.map(|endpoint| &endpoint.verify), &event.target),
        event_type: event.event_type.clone(),
        sender_id: event.sender_id.clone(),
        size: event.size,
        attempt_count: event.attempts,
        status: event.status,
        next_try: event.due_at.filter(|_| event.state == State::Pending).map(|at| at.to_string()),
        settled_at: event.settled_at.map(|at| at.to_string()),
        conflict_with: event.conflict_with.map(|id| id.to_string()),
        replay_of: event.replay_of.map(|id| id.to_string()),
        redelivered: event.redelivered,
        kind: "event".to_owned(),
        ..EventSummary::default()
    }
}

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
pub(crate) fn detail(record: &Record, endpoint: Option<&Endpoint>) -> EventDetail {
    let Record { summary: event, head, attempts } = record;
    let own = endpoint.and_then(|endpoint| endpoint.verify.provider()).map(Provider::credential_headers);
    EventDetail {
        summary: summary(event, endpoint),
        headers: lines(&shown_headers(&event.endpoint, &head.sent, &head.arrival), &own.unwrap_or_default()),
        signature: json!(head.signature),
        verified: head.arrival.verified.clone(),
        client: head.arrival.peer.to_string(),
        attempts: attempts.iter().map(attempt).collect(),
        advice: advice(event).map(str::to_owned),
        ..EventDetail::default()
    }
}

fn attempt(attempt: &Attempt) -> EventAttempt {
    EventAttempt {
        number: attempt.number,
        started_at: attempt.started_at.to_string(),
        duration_ms: milliseconds(attempt.duration),
        outcome: attempt.outcome.code().to_owned(),
        agent: attempt.agent.clone(),
        status: attempt.answer.as_ref().map(|answer| answer.status),
        duration_us: u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX),
        ..EventAttempt::default()
    }
}

fn lines(headers: &HeaderBlock, also: &[&str]) -> Vec<(String, String)> {
    let line = |(name, value): (&[u8], &[u8])| {
        let name = String::from_utf8_lossy(name).into_owned();
        let masked = authenticates(&name) || also.contains(&&*name);
        let value = if masked { MASKED.into() } else { String::from_utf8_lossy(value) };
        (name, value.into_owned())
    };
    headers.iter().map(line).collect()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn replayed(replayed: &Replayed) -> EventReplayed {
    EventReplayed {
        done: EventDone { id: replayed.of.to_string(), new_id: Some(replayed.id.to_string()) },
        agent: replayed.agent.clone(),
        resigned: replayed.resigned,
        outcome: Some(replayed.outcome.code().to_owned()),
        status: replayed.answer.as_ref().map(|answer| answer.status),
        headers: replayed.answer.as_ref().map(|answer| lines(&answer.headers, &[])),
        duration_ms: milliseconds(replayed.duration),
    }
}

//! What this agent saw of an event itself: for events that the relay does not keep, and while it is away.

use std::sync::Arc;

use bytes::Bytes;
use relay_program::{
    api::AgentExchange,
    event::{EventAnswer, EventAttempt, EventBody, EventDetail, EventHop, EventSummary},
};

use super::known::Part;
use crate::{
    inspect::shown,
    tap::{Tap, TapExchange},
};

/// What the relay tells of an event, where it does, with what this agent knows beside it; else what this agent knows.
pub(super) fn detail(
    tap: &Tap,
    agent: &str,
    id: &str,
    told: Result<EventDetail, String>,
) -> Result<EventDetail, String> {
    let calls = tap.of(id);
    let Some(last) = calls.last() else { return told };
    let Ok(mut told) = told else { return Ok(seen(&calls, last, agent)) };
    let here = shown(last).request.sha256;
    if let (None, Some(here), Some(there)) = (told.same_at_handler, here, &told.body.sha256) {
        told.same_at_handler = Some(here == *there);
    }
    Ok(told)
}

/// A body as this agent saw it, as far as it is kept.
pub(super) fn body(tap: &Tap, id: &str, part: Part) -> Option<Bytes> {
    let calls = tap.of(id);
    let call = match part {
        Part::Request => calls.last(),
        Part::Answer(number) => calls.iter().rev().find(|call| call.attempt == number),
    }?;
    Some(if part == Part::Request { call.request.kept.clone() } else { call.answer.kept.clone() })
}

fn seen(calls: &[Arc<TapExchange>], last: &TapExchange, agent: &str) -> EventDetail {
    let AgentExchange { event_id, replay_of, endpoint, came_at, method, target, headers, masked, request, .. } =
        shown(last);
    let attempts: Vec<EventAttempt> = calls.iter().map(|call| attempt(shown(call), agent)).collect();
    let status = attempts.last().and_then(|attempt| attempt.status);
    let us = attempts.last().map(|attempt| attempt.duration_us);
    let state = match status {
        Some(..300) => "answered",
        Some(_) => "rejected",
        None => "failed",
    };
    let summary = EventSummary {
        id: event_id.unwrap_or_default(),
        endpoint,
        state: state.to_owned(),
        received_at: came_at,
        method,
        target,
        size: request.size,
        attempt_count: u32::try_from(attempts.len()).unwrap_or(u32::MAX),
        status,
        replay_of,
        kind: "event".to_owned(),
        took_us: us,
        agent: Some(agent.to_owned()),
        ..EventSummary::default()
    };
    EventDetail {
        summary,
        headers,
        masked,
        hops: hops(last),
        attempts,
        body: EventBody { kept: request.kept, sha256: request.sha256, ..EventBody::default() },
        sentence: "What this agent saw of it; the relay keeps nothing of it, or is away.".to_owned(),
        ..EventDetail::default()
    }
}

fn attempt(call: AgentExchange, agent: &str) -> EventAttempt {
    let answer = EventAnswer {
        headers: call.answer_headers,
        size: call.answer.size,
        truncated: call.answer.kept < call.answer.size,
    };
    EventAttempt {
        number: call.attempt,
        started_at: call.came_at,
        duration_ms: call.duration_us / 1000,
        outcome: call.error.unwrap_or_else(|| "answered".to_owned()),
        status: call.status,
        agent: Some(agent.to_owned()),
        duration_us: call.duration_us,
        answer: call.status.map(|_| answer),
        sha256_in: call.request.sha256,
        sentence: call.note.unwrap_or_default(),
        ..EventAttempt::default()
    }
}

/// From the request's arrival at this agent on.
fn hops(call: &TapExchange) -> Vec<EventHop> {
    let hop = |what: &str, at_us: u64| EventHop { what: what.to_owned(), at_us, ..EventHop::default() };
    vec![hop("received", 0), EventHop { number: Some(call.attempt), ..hop("attempt", call.called_us) }]
}

//! Kept events as answers show them.
//!
//! What lets its bearer in is masked here, whoever asks. Refused requests and handshakes are shown by [`super::others`], live
//! exchanges by the journal.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use relay_program::event::{
    EventAnswer, EventAttempt, EventBody, EventDetail, EventDone, EventHop, EventReplayed, EventSecret, EventSummary,
};
use relay_proto::HeaderBlock;
use relay_schemes::Provider;
use serde_json::json;

use super::sentences;
use crate::{
    delivery::Replayed,
    endpoint::Endpoint,
    journal::{self, Attempted},
    mask::{MASKED, authenticates, shown_url},
    message::shown_headers,
    store::{Attempt, Head, Record, State, Summary},
    verify::Signer,
};

/// A row. `rev` is the journal's next number as it was before the event was read.
pub(crate) fn summary(event: &Summary, endpoint: Option<&Endpoint>, rev: u64) -> EventSummary {
    let provider = endpoint.map(|endpoint| endpoint.verify.provider_name()).filter(|name| *name != "none");
    EventSummary {
        id: event.id.to_string(),
        endpoint: event.endpoint.to_string(),
        state: event.state.word().to_owned(),
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
        took_us: event.took_us,
        agent: event.agent.clone(),
        patience: endpoint.and_then(|endpoint| part_of(event.answered_us?, endpoint.deadline)),
        unproven: event.unproven,
        resigned: event.resigned,
        provider: provider.map(str::to_owned),
        rev,
    }
}

/// The part of a deadline, to four digits.
fn part_of(after_us: u32, deadline: Duration) -> Option<f64> {
    let part = f64::from(after_us) / deadline.as_micros() as f64;
    (!deadline.is_zero()).then(|| (part * 10_000.0).round() / 10_000.0)
}

/// All that is known of an event but its body; what lets its bearer in is masked.
pub(crate) fn detail(record: &Record, endpoint: Option<&Endpoint>, rev: u64) -> EventDetail {
    let Record { summary: event, head, attempts } = record;
    let provider = endpoint.and_then(|endpoint| endpoint.verify.provider());
    let own = provider.map(Provider::credential_headers);
    let headers = shown_headers(&event.endpoint, &head.sent, &head.arrival);
    let lines = Lines { headers: &headers, hidden: &own.unwrap_or_default() };
    let answered = attempts.iter().find_map(|attempt| journal::answered(&attempt.hops));
    // Where a credential is masked in bodies, a checksum of all of one could tell which it was.
    let shows_sums = endpoint.is_some() && !provider.is_some_and(Provider::hides_in_body);
    EventDetail {
        summary: summary(event, endpoint, rev),
        headers: lines.shown(),
        signature: json!(head.signature),
        verified: head.arrival.verified.clone(),
        mode: endpoint.map(|endpoint| endpoint.mode().to_owned()).unwrap_or_default(),
        client: head.arrival.peer.to_string(),
        attempts: attempts.iter().map(|attempt| self::attempt(event, attempt, shows_sums)).collect(),
        advice: advice(event).map(str::to_owned),
        headers_base64: lines.base64(),
        masked: lines.masked(),
        body: EventBody {
            kept: event.size,
            sha256: shows_sums.then(|| HEXLOWER.encode(&event.body_sha256)),
            ..journal::body(&head.sent.headers, 0)
        },
        secret: endpoint.and_then(|endpoint| secret(head, endpoint)),
        order_key: event.order_key.clone(),
        deadline_us: endpoint.map(|endpoint| microseconds(endpoint.deadline)),
        sentence: sentences::sentence(event, attempts),
        answered,
        hops: hops(event, attempts),
        repeats: None,
        same_at_handler: same_at_handler(event, attempts),
        trace_id: head.arrival.traceparent.split('-').nth(1).map(str::to_owned),
    }
}

/// Whether each attempt of which the agent says so brought the handler what the sender sent.
fn same_at_handler(event: &Summary, attempts: &[Attempt]) -> Option<bool> {
    let mut told = attempts.iter().filter_map(|attempt| attempt.sha256_in).peekable();
    told.peek().is_some().then(|| told.all(|sum| sum == event.body_sha256))
}

/// What to do, where there is something to do.
fn advice(event: &Summary) -> Option<&'static str> {
    let is_quiet = matches!(event.state, State::Delivered | State::Running);
    sentences::of_why(event.why()).filter(|_| !is_quiet).map(|words| words.advice)
}

/// Which secret of its endpoint proved it, while the endpoint has it.
fn secret(head: &Head, endpoint: &Endpoint) -> Option<EventSecret> {
    let tag = HEXLOWER.decode(head.arrival.signer.as_ref()?.as_bytes()).ok()?;
    let (number, of) = endpoint.verify.secret_number(Signer { tag: Some(&tag), event_id: head.arrival.id })?;
    Some(EventSecret { number: u32::try_from(number).ok()?, of: u32::try_from(of).ok()? })
}

/// The way that it took so far, waits between attempts included.
fn hops(event: &Summary, attempts: &[Attempt]) -> Vec<EventHop> {
    let mut hops = Vec::new();
    for (nth, attempt) in attempts.iter().enumerate() {
        let started_us = since(event, attempt.started_at);
        let of = Attempted {
            number: attempt.number,
            agent: attempt.agent.as_deref(),
            status: attempt.answer.as_ref().map(|answer| answer.status),
            bytes: Some(event.size),
        };
        hops.extend(journal::hops(&attempt.hops, started_us, of));
        let next = attempts.get(nth + 1).map(|next| next.started_at);
        let next = next.or(event.due_at.filter(|_| event.state == State::Pending));
        if let Some(until) = next {
            let at_us = started_us + microseconds(attempt.duration);
            hops.push(EventHop {
                what: "waits".to_owned(),
                at_us,
                until: Some(until.to_string()),
                ..EventHop::default()
            });
        }
    }
    hops.sort_by_key(|hop| hop.at_us);
    hops
}

fn since(event: &Summary, at: Timestamp) -> u64 {
    u64::try_from(at.duration_since(event.received_at).as_micros()).unwrap_or_default()
}

fn attempt(event: &Summary, attempt: &Attempt, shows_sums: bool) -> EventAttempt {
    EventAttempt {
        number: attempt.number,
        started_at: attempt.started_at.to_string(),
        duration_ms: milliseconds(attempt.duration),
        outcome: attempt.outcome.code().to_owned(),
        agent: attempt.agent.clone(),
        status: attempt.answer.as_ref().map(|answer| answer.status),
        started_us: since(event, attempt.started_at),
        duration_us: microseconds(attempt.duration),
        answer: attempt.answer.as_ref().map(|answer| EventAnswer {
            headers: Lines { headers: &answer.headers, hidden: &[] }.shown(),
            size: answer.body.len() as u64,
            truncated: answer.truncated,
        }),
        sha256_in: attempt.sha256_in.filter(|_| shows_sums).map(|sum| HEXLOWER.encode(&sum)),
        resigned: attempt.resigned,
        sentence: sentences::of_outcome(attempt.outcome).sentence.to_owned(),
    }
}

/// Header lines, of which some are not shown.
pub(super) struct Lines<'a> {
    pub headers: &'a HeaderBlock,
    /// Names beside those that say by themselves that they let their bearer in.
    pub hidden: &'a [&'a str],
}

impl Lines<'_> {
    fn each<T>(&self, line: impl Fn(String, Option<&[u8]>) -> T) -> Vec<T> {
        let lines = self.headers.iter().map(|(name, value)| {
            let name = String::from_utf8_lossy(name).into_owned();
            let is_hidden = authenticates(&name) || self.hidden.contains(&&*name);
            line(name, (!is_hidden).then_some(value))
        });
        lines.collect()
    }

    pub(super) fn shown(&self) -> Vec<(String, String)> {
        self.each(|name, value| {
            (name, value.map_or(MASKED.into(), |value| String::from_utf8_lossy(value).into_owned()))
        })
    }

    /// In base64, where one that is shown is not UTF-8.
    fn base64(&self) -> Option<Vec<(String, String)>> {
        let is_text = |value: Option<&[u8]>| value.is_none_or(|value| std::str::from_utf8(value).is_ok());
        let is_all_text = self.each(|_, value| is_text(value)).into_iter().all(|is_text| is_text);
        (!is_all_text).then(|| self.each(|name, value| (name, BASE64.encode(value.unwrap_or(MASKED.as_bytes())))))
    }

    /// With the bytes of what is shown.
    pub(super) fn bytes(&self) -> Vec<(String, Vec<u8>)> {
        self.each(|name, value| (name, value.unwrap_or(MASKED.as_bytes()).to_vec()))
    }

    pub(super) fn masked(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.each(|name, value| value.is_none().then_some(name)).into_iter().flatten().collect();
        names.dedup();
        names
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn replayed(replayed: &Replayed) -> EventReplayed {
    EventReplayed {
        done: EventDone { id: replayed.of.to_string(), new_id: Some(replayed.id.to_string()) },
        agent: replayed.agent.clone(),
        resigned: replayed.resigned,
        outcome: Some(replayed.outcome.code().to_owned()),
        status: replayed.answer.as_ref().map(|answer| answer.status),
        headers: replayed.answer.as_ref().map(|answer| Lines { headers: &answer.headers, hidden: &[] }.shown()),
        duration_ms: milliseconds(replayed.duration),
    }
}

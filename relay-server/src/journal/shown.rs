//! Live exchanges as the API tells of them, in the same shapes as kept events. Whoever reads pays for the words.

use data_encoding::{BASE64, HEXLOWER};
use jiff::{SignedDuration, Timestamp};
use relay_program::event::{EventAnswer, EventAnswered, EventAttempt, EventBody, EventDetail, EventHop, EventSummary};
use relay_proto::{HeaderBlock, names};
use sha2::{Digest as _, Sha256};

use super::entry::{LiveAnswer, LiveEntry};
use crate::{
    hops::{Hop, Hops, Whose},
    mask::MASKED,
};

/// Where a live exchange stands.
fn state(entry: &LiveEntry) -> &'static str {
    match entry.answer {
        LiveAnswer::Failed { .. } => "failed",
        LiveAnswer::Handler { status: 400.., .. } => "rejected",
        LiveAnswer::Handler { .. } => "answered",
    }
}

/// The code of what became of it.
fn why(entry: &LiveEntry) -> &'static str {
    match (&entry.answer, entry.tail.get()) {
        (LiveAnswer::Failed { code, .. }, _) => code,
        (LiveAnswer::Handler { .. }, Some(tail)) if !tail.is_whole => "answer_broken",
        (LiveAnswer::Handler { .. }, _) => state(entry),
    }
}

pub(crate) fn summary(entry: &LiveEntry, rev: u64) -> EventSummary {
    let hops = &entry.way.hops;
    let verified = verified(entry);
    EventSummary {
        id: entry.id.to_string(),
        endpoint: entry.endpoint.name.to_string(),
        state: state(entry).to_owned(),
        why: why(entry).to_owned(),
        received_at: entry.at.to_string(),
        method: String::from_utf8_lossy(&entry.method).into_owned(),
        target: String::from_utf8_lossy(&entry.target).into_owned(),
        event_type: entry.event.kind.clone(),
        sender_id: entry.event.id.clone(),
        size: entry.request.size(),
        attempt_count: u32::from(entry.agent.is_some()),
        status: Some(entry.status()),
        settled_at: after(entry.at, hops.at_us(Hop::Answered)),
        kind: "live".to_owned(),
        took_us: took_us(hops),
        agent: entry.agent.as_deref().map(str::to_owned),
        patience: patience(hops, entry.endpoint.deadline),
        unproven: verified.starts_with("failed:"),
        provider: Some(entry.endpoint.verify.provider_name()).filter(|name| *name != "none").map(str::to_owned),
        rev,
        ..EventSummary::default()
    }
}

/// How it proved its sender.
pub(crate) fn verified(entry: &LiveEntry) -> String {
    text(&entry.headers, names::VERIFIED).unwrap_or_default()
}

/// All that is known of it but its body.
pub(crate) fn detail(entry: &LiveEntry, rev: u64) -> EventDetail {
    let (hops, headers) = (&entry.way.hops, &entry.headers);
    let (headers_base64, masked) = (base64(headers), masked(headers));
    let (kept, size) = (entry.body(), entry.request.size());
    let (agent, sha256) = (entry.agent.as_deref(), sha256(entry, &kept));
    let same_at_handler = sha256_in(entry).zip(sha256.as_ref()).map(|(there, here)| there == *here);
    EventDetail {
        summary: summary(entry, rev),
        headers: lines(headers),
        headers_base64,
        masked,
        verified: verified(entry),
        client: entry.client.to_string(),
        attempts: agent.map(|_| attempt(entry)).into_iter().collect(),
        body: EventBody { sha256, ..body(headers, kept.len()) },
        deadline_us: Some(micros(entry.endpoint.deadline)),
        answered: answered(hops),
        hops: self::hops(hops, 0, Attempted { number: 1, agent, status: Some(entry.status()), bytes: Some(size) }),
        same_at_handler,
        trace_id: text(headers, names::TRACEPARENT).and_then(|trace| trace.split('-').nth(1).map(str::to_owned)),
        ..EventDetail::default()
    }
}

fn attempt(entry: &LiveEntry) -> EventAttempt {
    let hops = &entry.way.hops;
    let tail = entry.tail.get();
    let (outcome, status, answer) = match &entry.answer {
        LiveAnswer::Failed { code, .. } => (*code, None, None),
        LiveAnswer::Handler { status, headers, .. } => {
            let size = tail.map_or(0, |tail| tail.size);
            let truncated = tail.is_some_and(|tail| tail.body.len() as u64 != tail.size);
            let outcome = if tail.is_some_and(|tail| !tail.is_whole) { "broken" } else { "answered" };
            (outcome, Some(*status), Some(EventAnswer { headers: lines(headers), size, truncated }))
        }
    };
    let took_us = took_us(hops).unwrap_or_default();
    EventAttempt {
        number: 1,
        started_at: after(entry.at, hops.at_us(Hop::Attempt)).unwrap_or_default(),
        duration_ms: took_us / 1000,
        outcome: outcome.to_owned(),
        agent: entry.agent.as_deref().map(str::to_owned),
        status,
        started_us: hops.at_us(Hop::Attempt).unwrap_or_default().into(),
        duration_us: took_us,
        answer,
        sha256_in: sha256_in(entry),
        ..EventAttempt::default()
    }
}

/// From an attempt's beginning to its answer's head, or to its end without one.
fn took_us(hops: &Hops) -> Option<u64> {
    let end = hops.at_us(Hop::AnswerHead).or(hops.at_us(Hop::Ended))?;
    Some(end.saturating_sub(hops.at_us(Hop::Attempt)?).into())
}

/// The part of its deadline after which a sender was answered.
pub(crate) fn patience(hops: &Hops, deadline: std::time::Duration) -> Option<f64> {
    let after_us = hops.at_us(Hop::Answered)?;
    (!deadline.is_zero()).then(|| (f64::from(after_us) / deadline.as_micros() as f64 * 10_000.0).round() / 10_000.0)
}

pub(crate) fn answered(hops: &Hops) -> Option<EventAnswered> {
    let ((whose, status), after_us) = (hops.answered()?, hops.at_us(Hop::Answered)?);
    let status = if whose == Whose::Nobody { None } else { status };
    Some(EventAnswered { whose: whose.word().to_owned(), status, after_us: after_us.into() })
}

/// What is said of an attempt beside its moments.
#[derive(Clone, Copy, Default)]
pub(crate) struct Attempted<'a> {
    pub number: u32,
    pub agent: Option<&'a str>,
    pub status: Option<u16>,
    /// How long the request's body is.
    pub bytes: Option<u64>,
}

/// The moments of one attempt in their order, in microseconds after the request's first byte.
pub(crate) fn hops(hops: &Hops, started_us: u64, of: Attempted<'_>) -> Vec<EventHop> {
    let base_us = hops.base_us(started_us);
    let hop = |hop: Hop| {
        let at_us = base_us + u64::from(hops.at_us(hop)?);
        let what = match hop {
            Hop::Received => "received",
            Hop::Body => "body",
            Hop::Verified => "verified",
            Hop::Stored => "stored",
            Hop::Attempt => "attempt",
            Hop::Opened => "opened",
            Hop::AnswerHead => "answer_head",
            Hop::Ended => "ended",
            Hop::Answered => "answered",
        };
        let is_of_attempt = matches!(hop, Hop::Attempt | Hop::Opened | Hop::AnswerHead | Hop::Ended);
        Some(EventHop {
            what: what.to_owned(),
            at_us,
            number: is_of_attempt.then_some(of.number),
            agent: of.agent.filter(|_| matches!(hop, Hop::Attempt | Hop::Opened)).map(str::to_owned),
            status: match hop {
                Hop::AnswerHead => of.status,
                Hop::Answered => hops.answered().and_then(|(_, status)| status),
                _ => None,
            },
            bytes: of.bytes.filter(|_| hop == Hop::Body),
            until: None,
        })
    };
    let mut passed: Vec<_> = Hop::ALL.into_iter().filter_map(hop).collect();
    passed.sort_by_key(|hop| hop.at_us);
    passed
}

fn lines(headers: &HeaderBlock) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    headers.iter().map(|(name, value)| (text(name), text(value))).collect()
}

/// The lines in base64, where one of them is not UTF-8.
fn base64(headers: &HeaderBlock) -> Option<Vec<(String, String)>> {
    let is_text = headers.iter().all(|(_, value)| std::str::from_utf8(value).is_ok());
    let line = |(name, value): (&[u8], &[u8])| (String::from_utf8_lossy(name).into_owned(), BASE64.encode(value));
    (!is_text).then(|| headers.iter().map(line).collect())
}

fn masked(headers: &HeaderBlock) -> Vec<String> {
    let masked = headers.iter().filter(|(_, value)| *value == MASKED.as_bytes());
    masked.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
}

fn text(headers: &HeaderBlock, name: &str) -> Option<String> {
    headers.all(name).next().map(|value| String::from_utf8_lossy(value).into_owned())
}

/// What is told of a body of which the beginning is kept.
pub(crate) fn body(headers: &HeaderBlock, kept: usize) -> EventBody {
    let content_type = text(headers, "content-type");
    let charset = content_type.as_deref().and_then(|kind| {
        let mut parameters = kind.split(';').skip(1).filter_map(|parameter| parameter.trim().split_once('='));
        parameters
            .find(|(name, _)| name.eq_ignore_ascii_case("charset"))
            .map(|(_, value)| value.trim_matches('"').into())
    });
    EventBody { kept: kept as u64, sha256: None, content_type, encoding: text(headers, "content-encoding"), charset }
}

/// Of a body that is kept whole and as it came.
fn sha256(entry: &LiveEntry, kept: &[u8]) -> Option<String> {
    let is_as_it_came = entry.has_whole_body() && !entry.endpoint.capture.blinds.touches_bodies();
    (is_as_it_came && !kept.is_empty()).then(|| HEXLOWER.encode(&Sha256::digest(kept)))
}

/// Of a body as the handler got it, as its agent says.
fn sha256_in(entry: &LiveEntry) -> Option<String> {
    match &entry.answer {
        LiveAnswer::Handler { sha256_in, .. } => sha256_in.map(|sum| HEXLOWER.encode(&sum)),
        LiveAnswer::Failed { .. } => None,
    }
}

fn after(at: Timestamp, us: Option<u32>) -> Option<String> {
    at.checked_add(SignedDuration::from_micros(us?.into())).ok().map(|at| at.to_string())
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

//! How an event moves: the rules that every store keeps, as functions of one row.
//!
//! They look at nothing but the row and their arguments. Whoever stores rows sees to the two things that concern
//! other rows: of one order key only the oldest open event is not parked, and a parked one is let go when the
//! event before it ends.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    MAX_ANSWER_BYTES, StoreError,
    model::{
        Acted, Action, Attempt, Dedup, End, Ended, Grant, Holder, Lease, NewEvent, Share, State, Summary, Then, Verdict,
    },
    outcome::{Outcome, Reason},
    reserve_bytes,
};
use crate::{endpoint::EndpointName, hops::Hops, webhook::EventId};

/// Most bytes of a target that a summary shows.
const SHOWN_TARGET_BYTES: usize = 256;

/// A summary, and what only the store needs.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) summary: Summary,
    pub(super) dedup_key: Option<String>,
    pub(super) held: Option<Held>,
    /// Bytes that it takes of the store, with its attempts.
    pub(super) cost: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) holder: Holder,
    /// The append that it was given to; none if it was claimed.
    pub(super) given_to: Option<EventId>,
}

/// What an event is beside an earlier one with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// The earlier one does not count.
    Unrelated,
    /// The same key, another body.
    Conflict,
    /// The same, and no attempt is needed.
    Duplicate,
    /// The same, and it is to be delivered (again).
    Again { redelivery: bool },
}

pub(super) fn compare(earlier: &Summary, body_sha256: &[u8; 32], dedup: &Dedup, now: Timestamp) -> Likeness {
    let ends = earlier.received_at.saturating_add(dedup.window).unwrap_or(Timestamp::MAX);
    if ends <= now || earlier.state == State::Damaged {
        return Likeness::Unrelated;
    }
    if earlier.body_sha256 != *body_sha256 {
        return Likeness::Conflict;
    }
    match earlier.state {
        State::Pending | State::Running | State::Damaged => Likeness::Duplicate,
        State::Dead => Likeness::Again { redelivery: !dedup.sender_retries },
        State::Delivered | State::Dropped if dedup.sender_retries => Likeness::Duplicate,
        State::Delivered | State::Dropped => Likeness::Again { redelivery: true },
    }
}

/// What a request is that was taken before, beside the event that it became.
pub(super) fn repeat(earlier: &Summary, dedup: Option<&Dedup>) -> Likeness {
    match earlier.state {
        State::Dead => Likeness::Again { redelivery: dedup.is_some_and(|dedup| !dedup.sender_retries) },
        _ => Likeness::Duplicate,
    }
}

impl Row {
    /// A new event. It is not due before it was appended, whenever its first byte came.
    pub(super) fn new(event: &NewEvent, body_sha256: [u8; 32], conflict_with: Option<EventId>, now: Timestamp) -> Self {
        let due_at = Some(event.received_at.max(now));
        let summary = Summary { body_sha256, conflict_with, due_at, ..Summary::of(event) };
        Self { summary, dedup_key: event.dedup.as_ref().map(|dedup| dedup.key.clone()), held: None, cost: 0 }
    }

    /// What it takes is for its store to say.
    pub(super) fn costing(self, cost: u64) -> Self {
        Self { cost, ..self }
    }

    /// The event that repeats this one, or the one that this one repeats. It has no key: nothing is a duplicate of a
    /// replay.
    pub(super) fn replay(&self, id: EventId, now: Timestamp) -> Self {
        let mut row = Self { summary: self.summary.clone(), dedup_key: None, held: None, cost: 0 };
        row.summary.id = id;
        row.summary.received_at = now;
        row.summary.replay_of = self.summary.replay_of.or(Some(self.summary.id));
        (row.summary.attempts, row.summary.fence) = (0, 0);
        (row.summary.status, row.summary.conflict_with, row.summary.redelivered) = (None, None, false);
        (row.summary.took_us, row.summary.agent, row.summary.resigned) = (None, None, false);
        row.summary.answered_us = None;
        row.wait(now);
        row
    }

    fn wait(&mut self, at: Timestamp) {
        self.held = None;
        let event = &mut self.summary;
        event.state = State::Pending;
        event.tries = 0;
        (event.reason, event.settled_at) = (None, None);
        (event.due_at, event.parked) = (Some(at), false);
    }

    /// Behind another event of its order key.
    pub(super) fn park(&mut self) {
        (self.summary.due_at, self.summary.parked) = (None, true);
    }

    pub(super) fn unpark(&mut self, now: Timestamp) {
        (self.summary.due_at, self.summary.parked) = (Some(now), false);
    }

    /// Counts an attempt and gives the right to make it, to an append or a claim. If an earlier holder never said how its
    /// attempt ended, that one is returned as lost.
    pub(super) fn lease(
        &mut self,
        grant: Grant,
        given_to: Option<EventId>,
        now: Timestamp,
    ) -> (Lease, Option<Attempt>) {
        let event = &mut self.summary;
        let lost = (event.state == State::Running).then(|| Attempt {
            number: event.attempts,
            fence: event.fence,
            started_at: now,
            duration: Duration::ZERO,
            outcome: Outcome::Lost,
            agent: None,
            answer: None,
            resigned: false,
            sha256_in: None,
            hops: Hops::default(),
        });
        event.state = State::Running;
        event.attempts = event.attempts.saturating_add(1);
        event.tries = event.tries.saturating_add(1);
        event.fence += 1;
        event.due_at = Some(grant.until);
        self.held = Some(Held { holder: grant.holder, given_to });
        (self.leased(), lost)
    }

    fn leased(&self) -> Lease {
        Lease { fence: self.summary.fence, attempt: self.summary.attempts, tries: self.summary.tries }
    }

    /// The lease that an append was given, if it still has it.
    fn given_to(&self, append: EventId) -> Option<Lease> {
        self.held.is_some_and(|held| held.given_to == Some(append)).then(|| self.leased())
    }

    /// What an append is told that was made before with this event's id: its caller may not know that it was kept.
    pub(super) fn accepted_before(&self, body_sha256: &[u8; 32]) -> Result<Verdict, StoreError> {
        if self.summary.body_sha256 != *body_sha256 {
            return Err(there_is_already(self.summary.id));
        }
        Ok(Verdict::Accepted { lease: self.given_to(self.summary.id), conflict: self.summary.conflict_with })
    }

    /// What an append is told that was made before with this id, and had this event delivered again.
    pub(super) fn had_again(&self, append: EventId) -> Option<Verdict> {
        let again =
            |lease| Verdict::Again { of: self.summary.id, lease: Some(lease), redelivery: self.summary.redelivered };
        self.given_to(append).map(again)
    }

    /// Whether this end moves the event: its fence holds it.
    pub(super) fn is_moved_by(&self, end: &End) -> bool {
        let is_held = self.summary.state == State::Running && self.summary.fence == end.attempt.fence;
        is_held && end.then != Then::Record
    }

    /// Whether the event is as this end has left it: its caller may not know that it was kept.
    fn was_moved_by(&self, end: &End) -> bool {
        let event = &self.summary;
        let is_so = match end.then {
            Then::Done => event.state == State::Delivered,
            Then::Dead(reason) => (event.state, event.reason) == (State::Dead, Some(reason)),
            Then::Retry(_) | Then::Release(_) => event.state == State::Pending,
            Then::Record => false,
        };
        is_so && event.fence == end.attempt.fence
    }

    pub(super) fn settle(&mut self, end: &End, now: Timestamp) -> Ended {
        if !self.is_moved_by(end) {
            return if self.was_moved_by(end) { Ended::Settled(self.summary.state) } else { Ended::Recorded };
        }
        self.held = None;
        let event = &mut self.summary;
        if !matches!(end.then, Then::Release(_)) {
            event.attempted(&end.attempt);
        }
        match end.then {
            Then::Done => self.end(State::Delivered, None, now),
            Then::Dead(reason) => self.end(State::Dead, Some(reason), now),
            Then::Retry(at) => (event.state, event.due_at) = (State::Pending, Some(at)),
            Then::Release(at) => {
                (event.state, event.due_at) = (State::Pending, Some(at));
                event.attempts = event.attempts.saturating_sub(1);
                event.tries = event.tries.saturating_sub(1);
            }
            Then::Record => {}
        }
        Ended::Settled(self.summary.state)
    }

    pub(super) fn end(&mut self, state: State, reason: Option<Reason>, now: Timestamp) {
        self.held = None;
        let event = &mut self.summary;
        (event.state, event.reason, event.settled_at) = (state, reason, Some(now));
        (event.due_at, event.parked) = (None, false);
    }

    /// Makes a dead letter of an open event that nobody came for; says whether it did. One that is held is left to
    /// its holder.
    pub(super) fn expire(&mut self, keep: Duration, now: Timestamp) -> bool {
        let event = &self.summary;
        let held = event.state == State::Running && event.due_at.is_some_and(|until| until > now);
        let expires = event.state.is_open() && !held && is_over(event.received_at, keep, now);
        if expires {
            self.end(State::Dead, Some(Reason::AgentAbsent), now);
        }
        expires
    }

    pub(super) fn again(&mut self, redelivery: bool, now: Timestamp) {
        self.summary.redelivered |= redelivery;
        self.wait(now);
    }

    /// Does by hand what can be done in place; a replay makes another row and only asks whether it may.
    pub(super) fn act(&mut self, action: Action, now: Timestamp) -> Acted {
        let state = self.summary.state;
        match (action, state) {
            (Action::Revive, State::Dead | State::Dropped) => self.wait(now),
            (Action::Drop, State::Dead) => self.end(State::Dropped, Some(Reason::Dropped), now),
            (Action::Cancel, State::Pending | State::Running) => {
                self.end(State::Dropped, Some(Reason::Cancelled), now);
            }
            (Action::Skip, State::Pending) => self.end(State::Dropped, Some(Reason::Skipped), now),
            (Action::Replay(..), state) if state != State::Damaged => {}
            (_, state) => return Acted::Not(state),
        }
        Acted::Done
    }
}

pub(super) fn once_each(events: &[NewEvent]) -> Result<(), StoreError> {
    let mut ids = BTreeSet::new();
    match events.iter().find(|event| !ids.insert((&event.endpoint, event.id))) {
        Some(twice) => Err(there_is_already(twice.id)),
        None => Ok(()),
    }
}

pub(super) fn there_is_already(id: EventId) -> StoreError {
    StoreError::Invalid(format!("there is already an event {id}"))
}

/// Whether an attempt leaves a record. One whose handler was not called leaves none: it does not count, and an event
/// that nobody takes would gather them for ever.
pub(super) fn leaves_record(end: &End, ended: Ended) -> bool {
    !matches!((end.then, ended), (Then::Release(_), Ended::Settled(_)))
}

/// What waits: at an endpoint, at all endpoints of its pool, and in all.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingBytes {
    pub(super) own: u64,
    pub(super) pooled: u64,
    pub(super) all: u64,
}

/// Whether what waits leaves room for an event that takes so many bytes.
pub(super) fn fits(share: Share, bytes: u64, waiting: WaitingBytes, max_bytes: u64) -> Result<(), StoreError> {
    let WaitingBytes { own, pooled, all } = waiting;
    if own.saturating_add(bytes) > share.max_bytes {
        return Err(StoreError::AtShare);
    }
    if share.pool.is_some_and(|pool| pooled.saturating_add(bytes) > pool.max_bytes) {
        return Err(StoreError::AtQuota);
    }
    if !share.is_proven && all.saturating_add(bytes) > max_bytes - reserve_bytes(max_bytes) {
        return Err(StoreError::AtReserve);
    }
    Ok(())
}

pub(super) fn is_over(from: Timestamp, keep: Duration, now: Timestamp) -> bool {
    from.saturating_add(keep).is_ok_and(|ends| ends <= now)
}

pub(super) fn shown(target: &str) -> String {
    let mut end = target.len().min(SHOWN_TARGET_BYTES);
    while !target.is_char_boundary(end) {
        end -= 1;
    }
    target[..end].to_owned()
}

/// The seal of what belongs together: checked whenever an event leaves the store.
pub(super) fn checksum(
    endpoint: &EndpointName,
    id: EventId,
    head: &[u8],
    headers: &[u8],
    body_sha256: &[u8; 32],
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(id.as_bytes());
    hash.update((endpoint.as_str().len() as u64).to_be_bytes());
    hash.update(endpoint.as_str());
    hash.update(body_sha256);
    hash.update((head.len() as u64).to_be_bytes());
    hash.update(head);
    hash.update(headers);
    hash.finalize().into()
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Answers are kept up to a size; of a longer one the head is.
pub(super) fn trimmed(mut end: End) -> End {
    if let Some(answer) = &mut end.attempt.answer
        && answer.body.len() > MAX_ANSWER_BYTES
    {
        answer.body = bytes::Bytes::new();
        answer.truncated = true;
    }
    end
}

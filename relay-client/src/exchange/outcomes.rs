//! What became of attempts that may outlive their session.
//!
//! An attempt with a fence belongs to an event that the relay keeps. If the session breaks, the handler is not
//! disturbed, and the agent reports in its next session how the call ended. Answers that were sent just before the
//! break count, too: nobody here knows whether they arrived.
//!
//! An attempt whose fence is not higher than one that was called before is not called: its sender has lost its lease,
//! and the newer attempt may be at work.
//!
//! Invariants: at most [`MAX_KEPT`] attempts are kept, an ended one for [`KEPT_FOR`]; nothing is kept of attempts
//! without a fence.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;
use relay_proto::{Outcome, OutcomeState, RequestHead};
use relay_tunnel::Handle;
use tokio::time::Instant;

use super::fences::Fences;

/// Attempts kept at a time; of those that have ended the oldest go first.
pub(super) const MAX_KEPT: usize = 1024;

pub(super) const KEPT_FOR: Duration = Duration::from_secs(60);

/// One attempt of an event that the relay keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    event_id: [u8; 16],
    number: u32,
    fence: u64,
}

impl Attempt {
    /// The attempt that a request is, if it has a fence.
    pub(crate) fn of(head: &RequestHead) -> Option<Self> {
        head.fence.map(|fence| Self { event_id: head.event_id, number: head.attempt, fence })
    }

    fn outcome(self, state: OutcomeState) -> Outcome {
        Outcome { event_id: self.event_id, attempt: self.number, fence: self.fence, state }
    }
}

/// The outcomes to report in the next session, and what was called before.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fences: Fences,
    /// Attempts that run though their session broke, oldest first.
    running: Vec<Attempt>,
    /// With the time of their end, oldest first.
    ended: VecDeque<(Instant, Outcome)>,
    session: Option<Handle>,
}

impl Outcomes {
    /// Whether the handler may be called for this attempt: no newer one of its event was called here.
    pub(crate) fn may_call(&self, attempt: Attempt) -> bool {
        self.state.lock().fences.raise(attempt.event_id, attempt.fence, Instant::now())
    }

    /// A new session is open: earlier attempts are reported to it.
    pub(crate) fn attach(&self, session: Handle) {
        let mut state = self.state.lock();
        state.forget_old(Instant::now());
        let running = state.running.iter().map(|attempt| attempt.outcome(OutcomeState::Running));
        let ended = state.ended.iter().map(|(_, outcome)| outcome.clone());
        for outcome in running.chain(ended) {
            // A session that takes no more is over, and the next one gets it.
            session.report(outcome);
        }
        state.session = Some(session);
    }

    /// The session broke while the handler is at work.
    pub(crate) fn outlived(&self, attempt: Attempt) {
        let mut state = self.state.lock();
        state.make_room(Instant::now());
        state.running.push(attempt);
    }

    /// The attempt has ended. If it outlived its session, the present one gets its outcome at once.
    pub(crate) fn ended(&self, attempt: Attempt, how: OutcomeState) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let outcome = attempt.outcome(how);
        if let Some(at) = state.running.iter().position(|running| *running == attempt) {
            state.running.remove(at);
            if let Some(session) = &state.session {
                session.report(outcome.clone());
            }
        }
        state.make_room(now);
        state.ended.push_back((now, outcome));
    }

    /// How many attempts run without their session, and how many have ended.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.running.len(), state.ended.len())
    }
}

impl State {
    fn make_room(&mut self, now: Instant) {
        self.forget_old(now);
        if self.running.len() + self.ended.len() >= MAX_KEPT && self.ended.pop_front().is_none() {
            self.running.remove(0);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while self.ended.front().is_some_and(|(at, _)| now.duration_since(*at) >= KEPT_FOR) {
            self.ended.pop_front();
        }
    }
}

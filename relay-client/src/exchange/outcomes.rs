//! What became of attempts that may outlive their session.
//!
//! An attempt with a fence belongs to an event that the relay keeps. If the session breaks, the handler is
//! not disturbed, and the next session hears how it went. Answers that were sent just before the break count,
//! too: nobody here knows whether they arrived.
//!
//! Invariants: at most [`MAX_KEPT`] attempts are kept, an ended one for [`KEPT_FOR`]; nothing is kept of
//! attempts without a fence.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use relay_proto::{Outcome, OutcomeState, RequestHead};
use relay_tunnel::Handle;
use tokio::time::Instant;

/// Attempts kept at a time; the oldest go first.
pub(super) const MAX_KEPT: usize = 1024;

/// How long an ended attempt is kept.
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

/// The outcomes that the next session is to hear.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first; a running attempt has no end yet.
    kept: VecDeque<Kept>,
    session: Option<Handle>,
}

#[derive(Debug)]
struct Kept {
    attempt: Attempt,
    outcome: OutcomeState,
    ended: Option<Instant>,
}

impl Outcomes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session is open: it hears what became of earlier attempts.
    pub(crate) fn attach(&self, session: Handle) {
        let mut state = self.lock();
        state.forget_old();
        for kept in &state.kept {
            // A session that takes no more is over, and the next one hears it.
            let _ = session.report(kept.attempt.outcome(kept.outcome.clone()));
        }
        state.session = Some(session);
    }

    /// The session broke while the handler is at work.
    pub(crate) fn outlived(&self, attempt: Attempt) {
        self.lock().keep(Kept { attempt, outcome: OutcomeState::Running, ended: None });
    }

    /// The attempt has ended. If it outlived its session, the present one hears it at once.
    pub(crate) fn ended(&self, attempt: Attempt, outcome: OutcomeState) {
        let mut state = self.lock();
        let before = state.kept.len();
        state.kept.retain(|kept| kept.attempt != attempt);
        if state.kept.len() < before
            && let Some(session) = &state.session
        {
            let _ = session.report(attempt.outcome(outcome.clone()));
        }
        state.keep(Kept { attempt, outcome, ended: Some(Instant::now()) });
    }
}

impl State {
    fn keep(&mut self, kept: Kept) {
        self.forget_old();
        if self.kept.len() >= MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(kept);
    }

    fn forget_old(&mut self) {
        self.kept.retain(|kept| kept.ended.is_none_or(|ended| ended.elapsed() < KEPT_FOR));
    }
}

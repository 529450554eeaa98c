//! What agents tell of attempts whose session broke, and who waits for it.
//!
//! An attempt that began under a fence is expected here for as long as it runs. What nobody expects any more, after a
//! restart of the relay say, goes to a bounded queue of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use relay_proto::{Outcome, OutcomeState};
use tokio::sync::mpsc;

/// Outcomes of one attempt that wait to be read: it runs, it has ended, and one to spare.
const MAX_WAITING: usize = 3;

/// Outcomes that nobody expects and that wait to be read.
const MAX_STRAY: usize = 1024;

type Attempt = ([u8; 16], u64);

/// Where outcomes arrive.
#[derive(Debug)]
pub struct Outcomes {
    expected: Mutex<HashMap<Attempt, mpsc::Sender<OutcomeState>>>,
    stray: mpsc::Sender<Outcome>,
}

/// An attempt's outcomes, for as long as this lives.
#[derive(Debug)]
pub struct Expected {
    outcomes: Arc<Outcomes>,
    attempt: Attempt,
    queue: mpsc::Receiver<OutcomeState>,
}

impl Outcomes {
    /// None yet, and those that nobody will expect.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Outcome>) {
        let (stray, strays) = mpsc::channel(MAX_STRAY);
        (Arc::new(Self { expected: Mutex::default(), stray }), strays)
    }

    /// Waits for what is told of an attempt.
    #[must_use]
    pub fn expect(self: &Arc<Self>, event_id: [u8; 16], fence: u64) -> Expected {
        let (sender, queue) = mpsc::channel(MAX_WAITING);
        self.lock().insert((event_id, fence), sender);
        Expected { outcomes: Arc::clone(self), attempt: (event_id, fence), queue }
    }

    /// An agent told something.
    pub fn take(&self, outcome: Outcome) {
        let expected = self.lock().get(&(outcome.event_id, outcome.fence)).cloned();
        let lost = match expected {
            Some(queue) => queue.try_send(outcome.state).is_err(),
            None => self.stray.try_send(outcome).is_err(),
        };
        if lost {
            tracing::debug!("an outcome was dropped: too many wait");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Attempt, mpsc::Sender<OutcomeState>>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected {
    /// The next outcome.
    pub async fn next(&mut self) -> Option<OutcomeState> {
        self.queue.recv().await
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.outcomes.lock().remove(&self.attempt);
    }
}

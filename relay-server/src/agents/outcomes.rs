//! What agents tell of attempts whose session broke, and who waits for it.
//!
//! An attempt that began under a fence is expected here for as long as it runs, from the agent that has it and from no
//! other: whoever watches an endpoint knows its events' ids, too. What nobody expects any more, after a restart of the
//! relay say, goes to a bounded queue of its own, with what its agent may serve.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use relay_proto::{Outcome, OutcomeState};
use tokio::sync::mpsc;

use super::registry::Identity;

/// Outcomes of one attempt that wait to be read: it runs, it has ended, and one to spare.
const MAX_WAITING: usize = 3;

/// Outcomes that nobody expects and that wait to be read.
const MAX_STRAY: usize = 1024;

type Attempt = ([u8; 16], u64);

/// An outcome that nobody expects.
#[derive(Debug)]
pub struct Stray {
    /// What was told.
    pub outcome: Outcome,
    /// The endpoints that its agent may serve.
    pub serves: Arc<[String]>,
}

/// Who tells.
#[derive(Clone, Debug)]
pub struct Teller {
    /// The agent.
    pub identity: Identity,
    /// The endpoints that it may serve.
    pub serves: Arc<[String]>,
}

/// Where outcomes arrive.
#[derive(Debug)]
pub struct Outcomes {
    expected: Mutex<HashMap<Attempt, (Identity, mpsc::Sender<OutcomeState>)>>,
    stray: mpsc::Sender<Stray>,
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
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Stray>) {
        let (stray, strays) = mpsc::channel(MAX_STRAY);
        (Arc::new(Self { expected: Mutex::default(), stray }), strays)
    }

    /// Waits for what this agent tells of an attempt.
    #[must_use]
    pub fn expect(self: &Arc<Self>, event_id: [u8; 16], fence: u64, from: Identity) -> Expected {
        let (sender, queue) = mpsc::channel(MAX_WAITING);
        self.lock().insert((event_id, fence), (from, sender));
        Expected { outcomes: Arc::clone(self), attempt: (event_id, fence), queue }
    }

    /// An agent told something.
    pub fn take(&self, outcome: Outcome, teller: &Teller) {
        let expected = self.lock().get(&(outcome.event_id, outcome.fence)).cloned();
        let lost = match expected {
            Some((from, queue)) if from == teller.identity => queue.try_send(outcome.state).is_err(),
            Some(_) => return tracing::warn!(agent = teller.identity.name, "an agent told of another one's attempt"),
            None => self.stray.try_send(Stray { outcome, serves: Arc::clone(&teller.serves) }).is_err(),
        };
        if lost {
            tracing::debug!("an outcome was dropped: too many wait");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Attempt, (Identity, mpsc::Sender<OutcomeState>)>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn teller(name: &str) -> Teller {
        let identity = Identity { token: "t".into(), name: name.to_owned(), instance: [0; 16] };
        Teller { identity, serves: vec!["e".to_owned()].into() }
    }

    fn outcome(event: u8) -> Outcome {
        Outcome { event_id: [event; 16], attempt: 1, fence: 1, state: OutcomeState::Running }
    }

    #[test]
    fn only_the_agent_that_has_an_attempt_tells_of_it() {
        let (outcomes, mut strays) = Outcomes::new();
        let mut expected = outcomes.expect([1; 16], 1, teller("one").identity);
        outcomes.take(outcome(1), &teller("two"));
        assert!(expected.queue.try_recv().is_err() && strays.try_recv().is_err(), "nobody hears another one");
        outcomes.take(outcome(1), &teller("one"));
        assert_eq!(expected.queue.try_recv().ok(), Some(OutcomeState::Running));
        drop(expected);
        outcomes.take(outcome(1), &teller("two"));
        let stray = strays.try_recv().expect("nobody expects it any more");
        assert_eq!((stray.outcome, &stray.serves[..]), (outcome(1), &["e".to_owned()][..]));
    }
}

//! What agents tell of attempts whose session broke, and who waits for it.
//!
//! An attempt that began under a fence is expected here for as long as it runs, from the agent that has it and from no
//! other: whoever watches an endpoint knows its events' ids, too. Beside those there are two kinds of attempts that
//! somebody may tell of, once: those that were given up as lost a moment ago, again from their own agent alone, and
//! those from before a restart of the relay, from any agent that may serve the endpoint. Nothing else is heard: a fence
//! is a small number, and can be guessed.
//!
//! Invariant: what waits to be read takes at most [`MAX_HELD_BYTES`], and of one session [`MAX_SHARE_BYTES`].

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
};

use parking_lot::Mutex;
use relay_proto::{Outcome, OutcomeState};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::registry::AgentIdentity;
use crate::{endpoint::EndpointName, throttle::Throttle};

static NOT_ITS_OWN: Throttle = Throttle::new();

/// Outcomes of one attempt that wait to be read: it runs, it has ended, and one to spare.
const MAX_WAITING: usize = 3;

/// Outcomes that nobody expects and that wait to be read.
const MAX_LATE: usize = 1024;

/// Attempts that were given up as lost and whose agent may still tell of them; the oldest gives way.
const MAX_LOST: usize = 1024;

/// Attempts from before a restart that are remembered. What is beyond that is called again.
const MAX_ORPHANS: usize = 65_536;

/// Memory for outcomes that wait to be read.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;

/// The part of it that those of one session may take.
const MAX_SHARE_BYTES: usize = 4 * 1024 * 1024;

/// What an outcome takes beside its answer's text.
const OVERHEAD_BYTES: usize = 512;

type Attempt = ([u8; 16], u64);

/// An outcome that nobody waits for, and that is heard all the same.
#[derive(Debug)]
pub(crate) struct LateOutcome {
    pub outcome: Outcome,
    _held: Held,
}

/// Whether an agent may serve an endpoint, by what its token allows now.
pub(crate) type Serves = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Who tells: the agent, what it may, and what its session holds of the memory.
#[derive(Clone)]
pub(crate) struct Teller {
    identity: AgentIdentity,
    serves: Serves,
    share: Arc<Semaphore>,
}

impl Teller {
    pub(crate) fn new(identity: AgentIdentity, serves: Serves) -> Self {
        Self { identity, serves, share: Arc::new(Semaphore::new(MAX_SHARE_BYTES)) }
    }
}

pub(crate) struct Outcomes {
    known: Mutex<Known>,
    late: mpsc::Sender<LateOutcome>,
    memory: Arc<Semaphore>,
}

#[derive(Default)]
struct Known {
    expected: HashMap<Attempt, Expectation>,
    /// Given up as lost, oldest first.
    lost: VecDeque<(Attempt, AgentIdentity)>,
    orphans: HashMap<Attempt, EndpointName>,
    /// Report before it was known what ran then.
    early: HashMap<Attempt, Vec<(Outcome, Held, Teller)>>,
    /// That is known now.
    recovered: bool,
}

/// An attempt that runs, and what was said of it and not read yet.
struct Expectation {
    from: AgentIdentity,
    unread: VecDeque<Report>,
    reader: Option<Waker>,
}

/// Room in the memory for what waits to be read.
type Held = (OwnedSemaphorePermit, OwnedSemaphorePermit);

#[derive(Debug)]
struct Report {
    state: OutcomeState,
    _held: Held,
}

/// An attempt's outcomes, for as long as this lives.
pub(crate) struct Expected {
    outcomes: Arc<Outcomes>,
    attempt: Attempt,
}

impl Outcomes {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<LateOutcome>) {
        let (late, late_outcomes) = mpsc::channel(MAX_LATE);
        let memory = Arc::new(Semaphore::new(MAX_HELD_BYTES));
        (Arc::new(Self { known: Mutex::default(), late, memory }), late_outcomes)
    }

    pub(crate) fn expect(self: &Arc<Self>, event_id: [u8; 16], fence: u64, from: AgentIdentity) -> Expected {
        let expectation = Expectation { from, unread: VecDeque::new(), reader: None };
        self.known.lock().expected.insert((event_id, fence), expectation);
        Expected { outcomes: Arc::clone(self), attempt: (event_id, fence) }
    }

    /// An attempt ran when the relay was started: whoever may serve its endpoint may tell of it, once.
    pub(crate) fn adopt(&self, event_id: [u8; 16], fence: u64, endpoint: EndpointName) {
        let mut known = self.known.lock();
        let early = known.early.remove(&(event_id, fence)).unwrap_or_default();
        if known.orphans.len() < MAX_ORPHANS {
            known.orphans.insert((event_id, fence), endpoint);
        }
        drop(known);
        for (outcome, held, teller) in early {
            drop(held);
            self.take(outcome, &teller);
        }
    }

    /// Every attempt that ran when the relay was started was adopted.
    pub(crate) fn recovered(&self) {
        let mut known = self.known.lock();
        known.recovered = true;
        known.early = HashMap::new();
    }

    pub(crate) fn take(&self, outcome: Outcome, teller: &Teller) {
        let attempt = (outcome.event_id, outcome.fence);
        let mut known = self.known.lock();
        if let Some(Expectation { from, unread, reader }) = known.expected.get_mut(&attempt) {
            if *from != teller.identity {
                let AgentIdentity { token, name, .. } = &teller.identity;
                if let Some(held_back) = NOT_ITS_OWN.pass(token) {
                    tracing::warn!(%token, agent = &**name, held_back, "an agent told of another one's attempt");
                }
                return;
            }
            let held = self.hold(&outcome, teller).filter(|_| unread.len() < MAX_WAITING);
            let taken = held.map(|held| unread.push_back(Report { state: outcome.state, _held: held })).is_some();
            if let Some(reader) = reader.take() {
                reader.wake();
            }
            return note(taken);
        }
        if outcome.state == OutcomeState::Running {
            return; // Nobody waits for its end.
        }
        let lost = known.lost.iter().position(|(lost, from)| *lost == attempt && *from == teller.identity);
        let orphan = known.orphans.get(&attempt).is_some_and(|endpoint| (teller.serves)(endpoint.as_str()));
        if lost.is_none() && !orphan && !known.recovered && !known.orphans.contains_key(&attempt) {
            let Some(held) = self.hold(&outcome, teller) else { return note(false) };
            return known.early.entry(attempt).or_default().push((outcome, held, teller.clone()));
        }
        if lost.is_none() && !orphan {
            return tracing::debug!(
                agent = &*teller.identity.name,
                "an agent told of an attempt that is not open to it"
            );
        }
        let Some(held) = self.hold(&outcome, teller) else { return note(false) };
        let taken = self.late.try_send(LateOutcome { outcome, _held: held }).is_ok();
        if taken {
            known.orphans.remove(&attempt);
            lost.and_then(|at| known.lost.remove(at));
        }
        note(taken);
    }

    fn hold(&self, outcome: &Outcome, teller: &Teller) -> Option<Held> {
        let bytes = match &outcome.state {
            OutcomeState::Finished { head, body, .. } => {
                let lines = head.headers.iter().map(|(name, value)| name.len() + value.len() + OVERHEAD_BYTES / 8);
                lines.sum::<usize>() + body.len()
            }
            OutcomeState::Running | OutcomeState::Failed(_) => 0,
        };
        let bytes = u32::try_from(bytes + OVERHEAD_BYTES).ok()?;
        let share = Arc::clone(&teller.share).try_acquire_many_owned(bytes).ok()?;
        Some((share, Arc::clone(&self.memory).try_acquire_many_owned(bytes).ok()?))
    }
}

fn note(taken: bool) {
    if !taken {
        tracing::debug!("an outcome was dropped: too many wait");
    }
}

impl Expected {
    pub(crate) async fn next(&mut self) -> Option<OutcomeState> {
        poll_fn(|cx| {
            let mut known = self.outcomes.known.lock();
            let Some(expectation) = known.expected.get_mut(&self.attempt) else { return Poll::Ready(None) };
            if let Some(report) = expectation.unread.pop_front() {
                return Poll::Ready(Some(report.state));
            }
            expectation.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The attempt was given up as lost: what its agent tells of it later is recorded.
    pub(crate) fn lost(self) {
        let mut known = self.outcomes.known.lock();
        let Some(Expectation { from, .. }) = known.expected.remove(&self.attempt) else { return };
        if known.lost.len() >= MAX_LOST {
            known.lost.pop_front();
        }
        known.lost.push_back((self.attempt, from));
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.outcomes.known.lock().expected.remove(&self.attempt);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use relay_proto::{HeaderBlock, ResetCode, ResponseHead};

    use super::*;

    fn teller(name: &str) -> Teller {
        teller_of(name, "e")
    }

    fn teller_of(name: &str, endpoint: &'static str) -> Teller {
        let identity = AgentIdentity { token: "t".into(), name: name.into(), instance: [0; 16] };
        Teller::new(identity, Arc::new(move |asked: &str| asked == endpoint))
    }

    fn after_recovery() -> (Arc<Outcomes>, mpsc::Receiver<LateOutcome>) {
        let (outcomes, late) = Outcomes::new();
        outcomes.recovered();
        (outcomes, late)
    }

    fn failed(event: u8, fence: u64) -> Outcome {
        Outcome { event_id: [event; 16], attempt: 1, fence, state: OutcomeState::Failed(ResetCode::Broken) }
    }

    #[test]
    fn only_the_agent_that_has_an_attempt_tells_of_it() {
        let (outcomes, mut late) = after_recovery();
        let mut expected = outcomes.expect([1; 16], 1, teller("one").identity);
        outcomes.take(failed(1, 1), &teller("two"));
        assert!(expected.next().now_or_never().is_none() && late.try_recv().is_err(), "nobody hears another one");
        outcomes.take(failed(1, 1), &teller("one"));
        assert_eq!(expected.next().now_or_never().flatten(), Some(failed(1, 1).state));
        drop(expected);
        for name in ["one", "two"] {
            outcomes.take(failed(1, 1), &teller(name));
            outcomes.take(failed(1, 2), &teller(name));
            outcomes.take(failed(2, 1), &teller(name));
        }
        assert!(late.try_recv().is_err(), "the attempt is over, and the others never were");
    }

    #[test]
    fn of_an_attempt_that_was_given_up_its_own_agent_tells_once() {
        let (outcomes, mut late) = after_recovery();
        outcomes.expect([1; 16], 1, teller("one").identity).lost();
        outcomes.take(failed(1, 1), &teller("two"));
        assert!(late.try_recv().is_err());
        outcomes.take(Outcome { state: OutcomeState::Running, ..failed(1, 1) }, &teller("one"));
        assert!(late.try_recv().is_err(), "that is no end");
        for _ in 0..2 {
            outcomes.take(failed(1, 1), &teller("one"));
        }
        assert_eq!(late.try_recv().expect("its late word").outcome, failed(1, 1));
        assert!(late.try_recv().is_err(), "once");
    }

    #[test]
    fn of_an_attempt_from_before_a_restart_whoever_may_serve_its_endpoint_tells_once() {
        let (outcomes, mut late) = after_recovery();
        outcomes.adopt([1; 16], 3, EndpointName::parse("e").expect("a name"));
        outcomes.take(failed(1, 3), &teller_of("one", "other"));
        outcomes.take(failed(1, 2), &teller("one"));
        assert!(late.try_recv().is_err(), "it may not serve it, and this fence does not run");
        for name in ["one", "two"] {
            outcomes.take(failed(1, 3), &teller(name));
        }
        assert_eq!(late.try_recv().expect("somebody's word").outcome, failed(1, 3));
        assert!(late.try_recv().is_err(), "once");
    }

    #[test]
    fn what_is_told_before_it_is_known_what_ran_waits_until_it_is() {
        let (outcomes, mut late) = Outcomes::new();
        for name in ["one", "two"] {
            outcomes.take(failed(1, 3), &teller_of(name, if name == "one" { "other" } else { "e" }));
        }
        outcomes.take(failed(2, 1), &teller("two"));
        assert!(late.try_recv().is_err());
        outcomes.adopt([1; 16], 3, EndpointName::parse("e").expect("a name"));
        outcomes.recovered();
        assert_eq!(late.try_recv().expect("the word of who may serve it").outcome, failed(1, 3));
        assert!(late.try_recv().is_err(), "the other one never ran");
        assert_eq!(outcomes.memory.available_permits(), MAX_HELD_BYTES);
    }

    #[test]
    fn what_waits_is_bounded_for_all_and_for_each() {
        let (outcomes, mut late) = after_recovery();
        let name = EndpointName::parse("e").expect("a name");
        let long = |number: u64| {
            let head = ResponseHead::new(200, HeaderBlock::new());
            let state = OutcomeState::Finished { head, body: Bytes::from(vec![0; 65_000]), truncated: false };
            Outcome { event_id: [1; 16], attempt: 1, fence: number, state }
        };
        let tell = |teller: &Teller, numbers: std::ops::Range<u64>| {
            for number in numbers {
                outcomes.adopt([1; 16], number, name.clone());
                outcomes.take(long(number), teller);
            }
        };
        let (first, second) = (teller("one"), teller("two"));
        tell(&first, 0..200);
        let held = MAX_HELD_BYTES - outcomes.memory.available_permits();
        assert!(held > MAX_SHARE_BYTES / 2 && held <= MAX_SHARE_BYTES, "{held}");
        tell(&second, 200..201);
        assert!(MAX_HELD_BYTES - outcomes.memory.available_permits() > held, "another one has a share of its own");
        while late.try_recv().is_ok() {}
        assert_eq!(outcomes.memory.available_permits(), MAX_HELD_BYTES, "what was read is given back");
        tell(&first, 100..101);
        assert!(late.try_recv().is_ok(), "what was dropped may be told again");
    }
}

//! Places for public connections: so many in all, and so many for each address.
//!
//! Whoever only connects keeps nobody out: when all places are taken, connections that have waited longest for a request
//! give theirs to those that come. One that just came, or was just used, keeps its own for a moment ([`NEW`]).
//!
//! A place is kept as long as the socket, whatever protocol the socket speaks. An agent's socket gives its place back
//! when its session begins, since sessions have a limit of their own. [`address::site`] says which addresses count as
//! one; the caller says which do not count. No more addresses are counted than there are places.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::{Instant, timeout},
};

use crate::{
    address,
    tally::{Tallied, Tally},
    webhook::input::Input,
};

/// How long a connection may wait for its first or next request though all places are taken.
pub(crate) const NEW: Duration = Duration::from_secs(1);

/// How often it is looked whether one has waited so long.
const LOOK: Duration = Duration::from_millis(100);

/// Of all connections, one part in so many ends at a time, or looking at each of them would cost too much for each that
/// comes.
const ENDING_PART: usize = 128;

#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    all: usize,
    per_address: usize,
    taken: Tally<IpAddr>,
    running: Arc<Running>,
}

/// Connections that speak HTTP, or are about to; what goes on after an upgrade is not among them.
#[derive(Debug, Default)]
struct Running {
    last: AtomicU64,
    connections: Mutex<HashMap<u64, (Arc<Input>, AbortHandle)>>,
}

/// Stands for one of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Runs {
    among: Arc<Running>,
    number: u64,
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.among.connections.lock().remove(&self.number);
    }
}

/// One place, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    _counted: Option<Tallied<IpAddr>>,
}

impl Slots {
    pub(crate) fn new(all: usize, per_address: usize) -> Self {
        let (free, taken) = (Arc::new(Semaphore::new(all)), Tally::default());
        Self { free, all, per_address, taken, running: Arc::default() }
    }

    /// Waits for a place for whoever comes next. Fails never, as long as this is there.
    pub(crate) async fn wait(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(permit);
        }
        loop {
            self.end_idle();
            if let Ok(permit) = timeout(LOOK, Arc::clone(&self.free).acquire_owned()).await {
                return permit;
            }
        }
    }

    /// Runs a connection, whose requests `input` knows, and which holds what `run` is given.
    pub(super) fn run(&self, input: Arc<Input>, run: impl FnOnce(Runs) -> AbortHandle) {
        let number = self.running.last.fetch_add(1, Ordering::Relaxed);
        let runs = Runs { among: Arc::clone(&self.running), number };
        // Its task is on this thread, and does not begin before this has returned.
        let task = run(runs);
        self.running.connections.lock().insert(number, (input, task));
    }

    /// Ends connections that have waited longest for a request.
    fn end_idle(&self) {
        let now = Instant::now();
        let mut idle: Vec<_> = {
            let running = self.running.connections.lock();
            let since = |(input, task): &(Arc<Input>, AbortHandle)| Some((input.idle_since()?, task.clone()));
            running.values().filter_map(since).filter(|(since, _)| now.duration_since(*since) >= NEW).collect()
        };
        idle.sort_unstable_by_key(|(since, _)| *since);
        for (_, task) in idle.into_iter().take(self.all.div_ceil(ENDING_PART)) {
            task.abort();
        }
    }

    /// A place as that of who came from there; `None` if as many are taken from there as may be.
    pub(crate) fn count(&self, place: Slot, peer: IpAddr) -> Option<Slot> {
        let counted = self.taken.take(address::site(peer), self.per_address)?;
        Some(Slot { _counted: Some(counted), ..place })
    }
}

impl Slot {
    pub(crate) const fn uncounted(permit: OwnedSemaphorePermit) -> Self {
        Self { _permit: permit, _counted: None }
    }
}

/// A connection's place, for those parts of it that may be the last, and for the one that gives it back before.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSlot(Arc<Mutex<Option<Slot>>>);

impl ConnectionSlot {
    pub(crate) fn new(slot: Slot) -> Self {
        Self(Arc::new(Mutex::new(Some(slot))))
    }

    /// Frees it now: the connection is counted elsewhere.
    pub(crate) fn give_back(&self) {
        drop(self.0.lock().take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn when_all_places_are_taken_who_has_waited_longest_for_a_request_gives_its_own() {
        let slots = Slots::new(3, 3);
        let connect = async || {
            let slot = Slot::uncounted(slots.wait().await.unwrap());
            let input = Arc::<Input>::default();
            let run = async move |runs: Runs| {
                let _held = (slot, runs);
                std::future::pending::<()>().await;
            };
            let mut handle = None;
            slots.run(Arc::clone(&input), |runs| {
                let task = tokio::spawn(run(runs));
                let abort = task.abort_handle();
                handle = Some(task);
                abort
            });
            tokio::time::advance(Duration::from_millis(1)).await;
            (handle.unwrap(), input)
        };
        let (busy, input) = connect().await;
        let request = input.open();
        let ((second, _), (third, _)) = (connect().await, connect().await);
        let began = Instant::now();
        let (fourth, _) = connect().await;
        assert!(
            (NEW - Duration::from_millis(10)..=NEW + 2 * LOOK).contains(&began.elapsed()),
            "the new keep their places"
        );
        assert!(second.is_finished() && !third.is_finished() && !busy.is_finished());
        drop(request);
        let _fifth = connect().await;
        assert!(third.is_finished() && !busy.is_finished() && !fourth.is_finished(), "it was used a moment ago");
        assert_eq!(slots.running.connections.lock().len(), 3, "nothing is remembered of those that have ended");
    }

    #[tokio::test]
    async fn one_address_takes_no_more_than_its_share_and_gives_it_back() {
        let slots = Slots::new(10, 2);
        let host = |text: &str| text.parse::<IpAddr>().unwrap();
        let take = async |peer| slots.count(Slot::uncounted(slots.wait().await.unwrap()), peer);
        let (one, two) = (take(host("2001:db8::1")).await, take(host("2001:db8::2")).await);
        assert!(one.is_some() && two.is_some());
        assert!(take(host("2001:db8::3")).await.is_none(), "all of one /64");
        assert!(take(host("2001:db8:0:1::1")).await.is_some(), "another one");
        let local = Slot::uncounted(slots.wait().await.unwrap());
        assert_eq!(slots.free.available_permits(), 7);
        drop((one, two, local));
        assert_eq!(slots.free.available_permits(), 10);
        assert!(take(host("2001:db8::3")).await.is_some());
    }
}

//! Waiting for an agent that left a moment ago, or for the place that the crowd behind it takes up.
//!
//! Whoever waited for an agent waits for its room, too: all come to it at once when it is back, and its capacity would
//! turn most of them away. Who comes while others still wait does as they do. Where nobody waited, a full agent is busy
//! at once. Waiters are bounded, with a share for each endpoint, and each has an end.

use std::sync::Arc;

use futures_util::future::select_all;
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, timeout_at},
};

use super::{
    super::membership::{RECENTLY, Role},
    ENDPOINT_PART, MAX_WAITERS, Registry, Reservation,
    choose::{ChooseError, Circuits},
};

struct Waiter<'a> {
    _permit: SemaphorePermit<'a>,
    _at_endpoint: Arc<()>,
}

impl Registry {
    /// Like [`Registry::reserve`], but waits until `until` for an agent that left a moment ago, and for its room.
    pub(crate) async fn reserve_or_wait(
        &self,
        endpoint: &str,
        kind: Option<&str>,
        circuits: Circuits,
        until: Instant,
    ) -> Result<Reservation, ChooseError> {
        match self.reserve(endpoint, kind, circuits) {
            Ok(reserved) => Ok(reserved),
            // Whom nobody can help by waiting is answered at once: under overload that is most of all.
            Err(failure @ ChooseError::Limited { .. }) => Err(failure),
            Err(ChooseError::Busy) if !self.is_awaited(endpoint) => Err(ChooseError::Busy),
            // Mostly nobody waits, so that waiting stands in a box.
            Err(_) => Box::pin(self.wait(endpoint, kind, circuits, until)).await,
        }
    }

    async fn wait(
        &self,
        endpoint: &str,
        kind: Option<&str>,
        circuits: Circuits,
        until: Instant,
    ) -> Result<Reservation, ChooseError> {
        let mut waiter = None;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let failure = match self.reserve(endpoint, kind, circuits) {
                Err(failure @ (ChooseError::NoAgent | ChooseError::Unwanted))
                    if self.expects_one(endpoint, failure) =>
                {
                    failure
                }
                Err(ChooseError::Busy) if waiter.is_some() || self.is_awaited(endpoint) => ChooseError::Busy,
                outcome => return outcome.map(|reserved| Reservation { was_awaited: true, ..reserved }),
            };
            if waiter.is_none() {
                waiter = Some(self.waiter(endpoint).ok_or(failure)?);
            }
            let better = async {
                tokio::select! {
                    () = changed => {}
                    () = self.freed(endpoint, kind), if failure == ChooseError::Busy => {}
                }
            };
            timeout_at(until, better).await.map_err(|_| failure)?;
        }
    }

    fn waiter(&self, endpoint: &str) -> Option<Waiter<'_>> {
        let permit = self.waiters.try_acquire().ok()?;
        let mut state = self.lock();
        let at_endpoint = state.awaited.entry(endpoint.to_owned()).or_default();
        // One more reference than there are waiters.
        let has_room = Arc::strong_count(at_endpoint) <= MAX_WAITERS / ENDPOINT_PART;
        has_room.then(|| Waiter { _permit: permit, _at_endpoint: Arc::clone(at_endpoint) })
    }

    fn is_awaited(&self, endpoint: &str) -> bool {
        self.lock().awaited.get(endpoint).is_some_and(|waiters| Arc::strong_count(waiters) > 1)
    }

    /// An exchange of one of the endpoint's agents has ended, perhaps a moment ago.
    async fn freed(&self, endpoint: &str, kind: Option<&str>) {
        let loads: Vec<_> = self.lock().at(endpoint, Role::Active, kind).into_iter().map(|it| it.load).collect();
        if loads.is_empty() {
            return std::future::pending().await;
        }
        select_all(loads.iter().map(|load| Box::pin(load.freed.notified()))).await;
    }

    /// Whether an agent left a moment ago, or may have before this relay was started, or one is there that must
    /// first answer.
    fn expects_one(&self, endpoint: &str, failure: ChooseError) -> bool {
        if self.started.elapsed() < RECENTLY {
            return true;
        }
        let state = self.lock();
        let Some(members) = state.memberships.get(endpoint) else { return false };
        let doubted = || failure == ChooseError::NoAgent && members.epochs(Role::Active).next().is_some();
        members.left_recently(Instant::now()) || doubted()
    }
}

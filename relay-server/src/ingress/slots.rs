//! Places for public connections: so many in all, and so many for each address.
//!
//! A place is kept as long as the socket, whatever protocol the socket speaks. An agent's socket gives its place back
//! when its session begins, since sessions have a limit of their own. [`address::site`] says which addresses count as
//! one; the caller says which do not count. No more addresses are counted than there are places.

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::{
    address,
    tally::{Tallied, Tally},
};

#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    per_address: usize,
    taken: Tally<IpAddr>,
}

/// One place, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    _counted: Option<Tallied<IpAddr>>,
}

impl Slots {
    pub(crate) fn new(all: usize, per_address: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(all)), per_address, taken: Tally::default() }
    }

    /// Waits for a place for whoever comes next. Fails never, as long as this is there.
    pub(crate) async fn wait(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.free).acquire_owned().await
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

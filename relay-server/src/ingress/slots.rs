//! Places for public connections: so many in all, and so many for each address.
//!
//! A place is kept as long as the socket, whatever protocol the socket speaks. An agent's socket gives its place back
//! when its session begins, since sessions have a limit of their own. [`address::site`] says which addresses count as
//! one; the caller says which do not count. The table holds no more entries than there are places.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::address;

/// The places of a listener.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    per_address: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One place, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    counted: Option<(Arc<Slots>, IpAddr)>,
}

impl Slots {
    /// So many places in all, and so many for one address.
    pub(crate) fn new(all: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(all)), per_address, taken: Mutex::default() })
    }

    /// Waits for a place for whoever comes next.
    ///
    /// # Errors
    /// Never, as long as this is there.
    pub(crate) async fn wait(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.free).acquire_owned().await
    }

    /// The place of who came from there; `None` if as many are taken from there as may be.
    pub(crate) fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit, peer: IpAddr) -> Option<Slot> {
        let peer = address::site(peer);
        let mut taken = self.taken.lock();
        let count = taken.entry(peer).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Slot { _permit: permit, counted: Some((Arc::clone(self), peer)) })
    }
}

impl Slot {
    /// A place that counts for no address.
    pub(crate) const fn uncounted(permit: OwnedSemaphorePermit) -> Self {
        Self { _permit: permit, counted: None }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((slots, peer)) = self.counted.take() else { return };
        let mut taken = slots.taken.lock();
        if let Some(count) = taken.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&peer);
            }
        }
    }
}

/// A connection's place, for those parts of it that may be the last, and for the one that gives it back before.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSlot(Arc<Mutex<Option<Slot>>>);

impl ConnectionSlot {
    /// A place that is taken.
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
        let take = async |peer| slots.take(slots.wait().await.unwrap(), peer);
        let (one, two) = (take(host("2001:db8::1")).await, take(host("2001:db8::2")).await);
        assert!(one.is_some() && two.is_some());
        assert!(take(host("2001:db8::3")).await.is_none(), "all of one /64");
        assert!(take(host("2001:db8:0:1::1")).await.is_some(), "another one");
        let local = Slot::uncounted(slots.wait().await.unwrap());
        assert_eq!(slots.free.available_permits(), 7);
        drop((one, two, local));
        assert!(slots.taken.lock().is_empty());
        assert_eq!(slots.free.available_permits(), 10);
        assert!(take(host("2001:db8::3")).await.is_some());
    }
}

//! Memory that requests take: heads that are not whole, heads that wait, collected bodies, and the buffers on both ways
//! of a live exchange.
//!
//! The whole process has one budget, with a share for each endpoint and for each address, so that one that fills its
//! share leaves room for the others. Everything counts as what it costs, when it is there: an announced length takes
//! nothing. Nothing here waits; where no room is left, the request is refused.
//!
//! A second budget of the same kind counts the bytes of files that long bodies come into.
//!
//! Invariants: a share is never below what one whole request of its endpoint takes; dropping a [`Memory`] gives back
//! what it took; nothing is remembered of an endpoint or an address that holds nothing.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::request::Parts;
use parking_lot::Mutex;
use relay_program::EndpointName;

/// What a header line costs beside its text: its place in a header map, with room for what a map keeps free.
const LINE_BYTES: usize = 160;

/// What a request costs beside its head and its body: its task, and a piece of the body that hyper holds.
const REQUEST_BYTES: usize = 16 * 1024;

/// What a live exchange costs on top: pieces that its peers do not take stand between sockets and tunnel. Their bounds
/// together are some times as much, but only where both ways stand still after they went fast.
pub(crate) const LIVE_BYTES: usize = 96 * 1024;

/// The largest head, with all that it costs; shares are at least this and the largest body.
const HEAD_BYTES: usize = 128 * 1024;

/// An endpoint has at least one part in so many of the whole.
pub(crate) const ENDPOINT_PART: usize = 2;

/// An address has at least one part in so many of the whole.
pub(crate) const ADDRESS_PART: usize = 4;

#[derive(Debug)]
pub(crate) struct MemoryBudget {
    bytes: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    endpoints: Shares<EndpointName>,
    addresses: Shares<IpAddr>,
}

/// What each holder has. It is changed under the budget's lock alone.
type Shares<K> = HashMap<K, Arc<AtomicUsize>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// What one request has taken.
#[derive(Debug)]
pub(crate) struct Memory {
    budget: Arc<MemoryBudget>,
    /// Not known yet of a head that is not whole.
    endpoint: Option<Holder<EndpointName>>,
    /// Whose it is; `None` for those that are not counted by address.
    address: Option<Holder<IpAddr>>,
    /// The least that a share may be.
    least: usize,
    bytes: usize,
}

/// Whose share a request's memory counts in.
#[derive(Debug)]
struct Holder<K> {
    key: K,
    /// At hand while the request has a part of it, so that it is looked up once. It is among the shares as long.
    share: Option<Arc<AtomicUsize>>,
}

impl<K: Clone + Eq + Hash> Holder<K> {
    const fn new(key: K) -> Self {
        Self { key, share: None }
    }

    fn held(&self, shares: &Shares<K>) -> usize {
        let share = self.share.as_ref().or_else(|| shares.get(&self.key));
        share.map_or(0, |share| share.load(Ordering::Relaxed))
    }

    fn grow(&mut self, shares: &mut Shares<K>, more: usize) {
        let share = self.share.get_or_insert_with(|| Arc::clone(shares.entry(self.key.clone()).or_default()));
        share.store(share.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    /// Gives so many back, of which the request has `left`. A holder that has none is forgotten.
    fn shrink(&mut self, shares: &mut Shares<K>, less: usize, left: usize) {
        let Some(share) = &self.share else { return };
        let held = share.load(Ordering::Relaxed) - less;
        share.store(held, Ordering::Relaxed);
        if held == 0 {
            shares.remove(&self.key);
        }
        if left == 0 {
            self.share = None;
        }
    }
}

/// What a request's head costs while it is held. Its lines have so many bytes of text.
pub(crate) fn head_bytes(head: &Parts, text_bytes: usize) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    REQUEST_BYTES + 3 * target + text_bytes + LINE_BYTES * head.headers.len()
}

impl MemoryBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes, held: Mutex::default() }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.lock().all
    }

    pub(crate) fn held_by(&self, endpoint: &EndpointName) -> usize {
        Holder::new(endpoint.clone()).held(&self.held.lock().endpoints)
    }

    /// The memory of one request, whose body takes at most `max_body` bytes of it; `address` is whom it is counted for
    /// beside its endpoint.
    pub(crate) fn take(
        self: &Arc<Self>,
        endpoint: &EndpointName,
        max_body: u64,
        address: Option<IpAddr>,
        bytes: usize,
    ) -> Result<Memory, NoRoom> {
        let least = usize::try_from(max_body).unwrap_or(usize::MAX).saturating_add(HEAD_BYTES);
        let (endpoint, address) = (Some(Holder::new(endpoint.clone())), address.map(Holder::new));
        let mut memory = Memory { budget: Arc::clone(self), endpoint, address, least, bytes: 0 };
        memory.grow(bytes)?;
        Ok(memory)
    }

    /// The memory of heads that come on one connection, with nothing taken yet.
    pub(crate) fn of_heads(self: &Arc<Self>, address: Option<IpAddr>) -> Memory {
        let address = address.map(Holder::new);
        Memory { budget: Arc::clone(self), endpoint: None, address, least: HEAD_BYTES, bytes: 0 }
    }
}

impl Memory {
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes so many bytes more. Where there is no room, what was taken before stays.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), NoRoom> {
        if more == 0 {
            return Ok(());
        }
        let whole = self.budget.bytes;
        let mut held = self.budget.held.lock();
        let fits = |now: usize, most: usize| now.saturating_add(more) <= most;
        let of_endpoint = self.endpoint.as_ref().map_or(0, |endpoint| endpoint.held(&held.endpoints));
        let of_address = self.address.as_ref().map(|address| address.held(&held.addresses));
        let fits = fits(held.all, whole)
            && fits(of_endpoint, self.least.max(whole / ENDPOINT_PART))
            && of_address.is_none_or(|held| fits(held, self.least.max(whole / ADDRESS_PART)));
        if !fits {
            return Err(NoRoom);
        }
        held.all += more;
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.grow(&mut held.endpoints, more);
        }
        if let Some(address) = &mut self.address {
            address.grow(&mut held.addresses, more);
        }
        drop(held);
        self.bytes += more;
        Ok(())
    }

    /// Takes what is missing to so many bytes.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes > self.bytes { self.grow(bytes - self.bytes) } else { Ok(()) }
    }

    /// Gives back what is beyond so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less == 0 {
            return;
        }
        self.bytes -= less;
        let mut held = self.budget.held.lock();
        held.all -= less;
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.shrink(&mut held.endpoints, less, self.bytes);
        }
        if let Some(address) = &mut self.address {
            address.shrink(&mut held.addresses, less, self.bytes);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    /// An endpoint's name, and its largest body.
    fn endpoint(name: &str, max_body: usize) -> (EndpointName, u64) {
        (EndpointName::parse(name).expect("a name"), max_body as u64)
    }

    /// How many requests of this size get in before one does not.
    fn fill(
        budget: &Arc<MemoryBudget>,
        endpoint: &(EndpointName, u64),
        address: Option<&str>,
        bytes: usize,
    ) -> Vec<Memory> {
        let address = address.map(|text| text.parse().expect("an address"));
        std::iter::from_fn(|| budget.take(&endpoint.0, endpoint.1, address, bytes).ok()).take(10_000).collect()
    }

    #[test]
    fn an_endpoint_and_an_address_that_take_all_they_can_leave_room_for_others() {
        let budget = Arc::new(MemoryBudget::new(100 * MIB));
        let (one, other) = (endpoint("one", MIB), endpoint("other", MIB));
        let first = fill(&budget, &one, Some("192.0.2.1"), MIB);
        assert_eq!(first.len(), 25, "a quarter for an address");
        let others = fill(&budget, &one, None, MIB);
        assert_eq!(others.len(), 25, "half for an endpoint");
        assert_eq!(fill(&budget, &other, Some("192.0.2.1"), MIB).len(), 0, "an address has one share everywhere");
        assert_eq!(fill(&budget, &other, Some("192.0.2.2"), MIB).len(), 25);
        drop((first, others));
        assert_eq!(budget.held(), 0, "all is given back");
        assert!(
            budget.held.lock().endpoints.is_empty() && budget.held.lock().addresses.is_empty(),
            "nothing is remembered"
        );
    }

    #[test]
    fn memory_is_taken_up_to_its_last_byte_and_not_beyond() {
        const WHOLE: usize = 8 * MIB;
        let budget = Arc::new(MemoryBudget::new(WHOLE));
        let (one, other) = (endpoint("one", WHOLE), endpoint("other", WHOLE));
        let mut most = budget.take(&one.0, one.1, None, WHOLE - 1).expect("room");
        assert!(budget.take(&other.0, other.1, None, 2).is_err(), "one byte is left");
        assert_eq!((most.grow(1), budget.held()), (Ok(()), WHOLE));
        assert_eq!(most.grow(1), Err(NoRoom));
        assert!(budget.take(&other.0, other.1, None, 1).is_err());
        drop(most);
        assert!(budget.take(&other.0, other.1, None, WHOLE + 1).is_err());
        assert!(budget.take(&other.0, other.1, None, WHOLE).is_ok());
    }

    #[test]
    fn who_gave_all_back_counts_again_although_its_share_was_forgotten_meanwhile() {
        let budget = Arc::new(MemoryBudget::new(100 * MIB));
        let (name, most) = endpoint("one", MIB);
        let (mut one, other) = (budget.take(&name, most, None, 5).expect("room"), budget.take(&name, most, None, 7));
        one.shrink_to(0);
        assert_eq!(budget.held_by(&name), 7);
        drop(other);
        assert!(budget.held.lock().endpoints.is_empty());
        assert_eq!((one.grow(3), one.grow(0), budget.held_by(&name)), (Ok(()), Ok(()), 3));
        let none = budget.take(&name, most, None, 0).expect("room");
        drop((one, none));
        assert_eq!((budget.held(), budget.held.lock().endpoints.len()), (0, 0));
    }

    #[test]
    fn a_share_is_never_below_one_whole_request() {
        let budget = Arc::new(MemoryBudget::new(100 * MIB));
        let large = endpoint("large", 90 * MIB);
        let mut memory =
            budget.take(&large.0, large.1, Some("192.0.2.1".parse().expect("an address")), MIB).expect("room");
        assert_eq!(memory.grow(89 * MIB), Ok(()));
        assert_eq!(memory.grow(MIB), Err(NoRoom));
        assert_eq!(fill(&budget, &endpoint("other", MIB), None, MIB).len(), 10, "and never more than the whole");
    }
}

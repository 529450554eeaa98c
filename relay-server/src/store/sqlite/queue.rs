//! Room in the writer's queue: so many calls, so many bytes, and shares of both.
//!
//! Whoever sends decides how many events come, so what takes something in leaves a quarter of the queue to what settles
//! and claims, and one endpoint takes half of the queue at most: the events of another find room, and wait behind a few
//! batches of it. A call that is heavier than its bound by itself may wait alone. Nothing is remembered of an endpoint of
//! which nothing waits.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::endpoint::EndpointName;

/// Calls that wait.
pub(crate) const QUEUE: usize = 4096;

/// Bytes that they hold.
pub(crate) const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// Of either, what takes something in has all but one part in so many.
const RESERVE_PART: usize = 4;

/// One endpoint has at most one part in so many.
pub(crate) const ENDPOINT_PART: usize = 2;

#[derive(Debug, Default)]
pub(super) struct QueueRoom {
    bytes: AtomicUsize,
    intake: Mutex<Intake>,
}

#[derive(Debug, Default)]
struct Intake {
    all: Waiting,
    endpoints: HashMap<EndpointName, Waiting>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    calls: usize,
    bytes: usize,
}

impl Waiting {
    const fn fits(self, bytes: usize, (most_calls, most_bytes): (usize, usize)) -> bool {
        self.calls < most_calls && (self.bytes == 0 || self.bytes.saturating_add(bytes) <= most_bytes)
    }

    const fn add(&mut self, bytes: usize) {
        self.calls += 1;
        self.bytes += bytes;
    }

    const fn give_back(&mut self, bytes: usize) {
        self.calls -= 1;
        self.bytes -= bytes;
    }
}

/// A call's place, until it is answered.
pub(super) struct QueuePlace {
    room: Arc<QueueRoom>,
    bytes: usize,
    /// Of a call that takes something in, and for which endpoint, where that is one.
    intake: Option<Option<EndpointName>>,
}

impl QueueRoom {
    /// A place for a call that takes nothing in.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<QueuePlace> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = QueuePlace { room: Arc::clone(self), bytes, intake: None };
        (before == 0 || before.saturating_add(bytes) <= QUEUE_BYTES).then_some(place)
    }

    /// A place for one that does.
    pub(super) fn take_intake(self: &Arc<Self>, endpoint: Option<&EndpointName>, bytes: usize) -> Option<QueuePlace> {
        let of = |all: usize| all - all / RESERVE_PART;
        let mut place = self.take(bytes)?;
        let mut intake = self.intake.lock();
        let there = endpoint.and_then(|endpoint| intake.endpoints.get(endpoint)).copied().unwrap_or_default();
        let fits = intake.all.fits(bytes, (of(QUEUE), of(QUEUE_BYTES)))
            && there.fits(bytes, (QUEUE / ENDPOINT_PART, QUEUE_BYTES / ENDPOINT_PART));
        if !fits {
            return None;
        }
        intake.all.add(bytes);
        if let Some(endpoint) = endpoint {
            intake.endpoints.entry(endpoint.clone()).or_default().add(bytes);
        }
        drop(intake);
        place.intake = Some(endpoint.cloned());
        Some(place)
    }
}

impl QueuePlace {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        let Some(endpoint) = self.intake.take() else { return };
        let mut intake = self.room.intake.lock();
        intake.all.give_back(self.bytes);
        let Some(endpoint) = endpoint else { return };
        if let Some(waiting) = intake.endpoints.get_mut(&endpoint) {
            waiting.give_back(self.bytes);
            if waiting.calls == 0 {
                intake.endpoints.remove(&endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn fill(room: &Arc<QueueRoom>, endpoint: Option<&EndpointName>, bytes: usize) -> Vec<QueuePlace> {
        std::iter::from_fn(|| room.take_intake(endpoint, bytes)).take(2 * QUEUE).collect()
    }

    #[test]
    fn an_endpoint_has_half_of_the_queue_and_what_settles_has_room_beside_all_of_them() {
        let room = Arc::new(QueueRoom::default());
        let names = ["a", "b", "c"].map(|name| EndpointName::parse(name).expect("a name"));
        let flood = fill(&room, Some(&names[0]), 8);
        assert_eq!(flood.len(), QUEUE / 2);
        assert!(room.take_intake(Some(&names[0]), 8).is_none(), "one past it");
        let others = fill(&room, Some(&names[1]), 8);
        assert_eq!(flood.len() + others.len(), QUEUE / 4 * 3);
        assert!(room.take_intake(Some(&names[2]), 8).is_none() && room.take_intake(None, 8).is_none());
        assert!(room.take(256).is_some(), "a settlement");
        drop(others);
        assert_eq!(fill(&room, Some(&names[2]), 8).len(), QUEUE / 4);
        drop(flood);
        let intake = room.intake.lock();
        assert!(intake.endpoints.is_empty() && intake.all.calls == 0 && room.bytes.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn bytes_have_the_same_shares_and_a_heavy_call_may_wait_alone() {
        let room = Arc::new(QueueRoom::default());
        let (one, other) = (EndpointName::parse("a").expect("a name"), EndpointName::parse("b").expect("a name"));
        let flood = fill(&room, Some(&one), MIB);
        assert_eq!(flood.len(), 32);
        let rest = fill(&room, Some(&other), MIB);
        assert_eq!(rest.len(), 16);
        assert!(room.take(16 * MIB).is_some() && room.take(17 * MIB).is_none());
        drop((flood, rest));
        let heavy = room.take_intake(Some(&one), 100 * MIB);
        assert!(heavy.is_some() && room.take_intake(Some(&other), 1).is_none() && room.take(1).is_none());
    }
}

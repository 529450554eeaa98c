//! The journal's memory: the last records in the order in which they came, bounded in number, bytes and age.
//!
//! Knows no locks, clocks or readers. A record has a number, which rises by one with each; a reader that gives one gets
//! what came from there on. What goes is handed back, so that its memory is freed by whoever holds no lock.

use std::collections::VecDeque;

use super::{MAX_AGE_S, NewsRecord};
use crate::webhook::EventId;

/// Records that are there at a time.
pub(super) const MAX_RECORDS: usize = 65_536;

/// What a record takes beside what its entry counts, in bytes.
const SLOT_BYTES: usize = 64;

pub(super) struct Ring {
    slots: VecDeque<Slot>,
    /// The number of the oldest.
    first: u64,
    bytes: usize,
    budget: usize,
}

struct Slot {
    id: EventId,
    at_s: u32,
    bytes: u32,
    record: NewsRecord,
}

/// What went, and whether more has to.
pub(super) struct GivenWay {
    pub(super) record: NewsRecord,
    /// It went for want of room, not of age.
    pub(super) is_early: bool,
}

impl Ring {
    pub(super) fn new(first: u64, budget: usize) -> Self {
        Self { slots: VecDeque::new(), first, bytes: 0, budget }
    }

    /// The number that the next record gets.
    pub(super) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn push(&mut self, id: EventId, record: NewsRecord, bytes: usize, now_s: u32) -> u64 {
        let number = self.next();
        self.bytes += bytes + SLOT_BYTES;
        self.slots.push_back(Slot { id, at_s: now_s, bytes: u32::try_from(bytes).unwrap_or(u32::MAX), record });
        number
    }

    /// Counts what has come to a record, if that is still there.
    pub(super) fn grow(&mut self, number: u64, more: usize) -> bool {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let Some(slot) = place.and_then(|place| self.slots.get_mut(place)) else { return false };
        slot.bytes = slot.bytes.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        self.bytes += more;
        true
    }

    /// The next one that has to go. The newest stays, however large it is.
    pub(super) fn give_way(&mut self, now_s: u32) -> Option<GivenWay> {
        let oldest = self.slots.front()?;
        let is_old = now_s.saturating_sub(oldest.at_s) > MAX_AGE_S;
        let is_full = (self.bytes > self.budget && self.slots.len() > 1) || self.slots.len() > MAX_RECORDS;
        if !(is_old || is_full) {
            return None;
        }
        let oldest = self.slots.pop_front()?;
        self.first += 1;
        self.bytes = self.bytes.saturating_sub(oldest.bytes as usize + SLOT_BYTES);
        Some(GivenWay { record: oldest.record, is_early: !is_old })
    }

    /// Looks at the records from a number on, so many at most. Gives the number to go on from.
    pub(super) fn look(
        &self,
        from: u64,
        most: usize,
        now_s: u32,
        mut each: impl FnMut(u64, EventId, &NewsRecord),
    ) -> u64 {
        let from = from.max(self.first);
        let place = usize::try_from(from - self.first).unwrap_or(usize::MAX).min(self.slots.len());
        let end = self.slots.len().min(place.saturating_add(most));
        for (slot, number) in self.slots.range(place..end).zip(from..) {
            if now_s.saturating_sub(slot.at_s) <= MAX_AGE_S {
                each(number, slot.id, &slot.record);
            }
        }
        self.first + end as u64
    }

    /// The number of the oldest record that is there.
    pub(super) const fn oldest(&self) -> u64 {
        self.first
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::kept;

    fn numbers(ring: &Ring, from: u64, most: usize, now_s: u32) -> (Vec<u64>, u64) {
        let mut seen = Vec::new();
        let next = ring.look(from, most, now_s, |number, _, _| seen.push(number));
        (seen, next)
    }

    #[test]
    fn the_oldest_gives_way_for_age_and_for_room_and_numbers_go_on() {
        let mut ring = Ring::new(1000, 10_000);
        for second in 0..5 {
            ring.push(EventId::new(), kept(), 1000, second);
        }
        assert!(ring.give_way(4).is_none());
        assert_eq!(numbers(&ring, 1001, 2, 4), (vec![1001, 1002], 1003));
        assert_eq!(numbers(&ring, 0, 9, 4).0.len(), 5);
        assert_eq!(numbers(&ring, 1005, 9, 4), (vec![], 1005));
        let gone = ring.give_way(MAX_AGE_S + 1).expect("one is too old");
        assert!(!gone.is_early && ring.give_way(MAX_AGE_S + 1).is_none());
        assert!(ring.grow(1001, 7000) && !ring.grow(1000, 1), "that one is gone");
        assert!(ring.give_way(4).is_some_and(|gone| gone.is_early));
        assert!(ring.give_way(4).is_none());
        assert_eq!((ring.bytes(), ring.oldest(), ring.next()), (3 * (1000 + SLOT_BYTES), 1002, 1005));
        ring.push(EventId::new(), kept(), 1 << 20, 5);
        while ring.give_way(5).is_some() {}
        assert_eq!((ring.oldest(), ring.next()), (1005, 1006), "the newest stays");
        assert_eq!(numbers(&ring, 0, 9, 5 + MAX_AGE_S + 1), (vec![], 1006), "what is old is not seen");
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let mut ring = Ring::new(0, usize::MAX);
        for _ in 0..=MAX_RECORDS {
            ring.push(EventId::new(), kept(), 0, 0);
            while ring.give_way(0).is_some() {}
        }
        assert_eq!((ring.oldest(), ring.slots.len()), (1, MAX_RECORDS));
    }
}

//! The journal's memory: the last records in the order in which they came, bounded in number, bytes and age.
//!
//! Knows no locks, clocks or readers. A record has a number, which rises by one with each; a reader that gives one gets
//! what came from there on. What goes is handed back, so that its memory is freed by whoever holds no lock; a live
//! exchange that has ended has none of its own ([`packed`](super::packed)).

use std::collections::VecDeque;

use relay_program::EndpointName;
use tokio::time::Instant;

use super::{MAX_AGE_S, NewsRecord, entry::LiveEntry, packed::Packed, pages::Pages};
use crate::webhook::EventId;

/// Records that are there at a time.
pub(super) const MAX_RECORDS: usize = 65_536;

/// What a record takes beside what its entry counts, in bytes.
const SLOT_BYTES: usize = 96;

pub(super) struct Ring {
    slots: VecDeque<Slot>,
    /// The number of the oldest.
    first: u64,
    /// What the slots count, the pages apart.
    loose_bytes: usize,
    budget: usize,
    pages: Pages,
    /// What moments in the pages are counted from.
    began: Instant,
}

struct Slot {
    id: EventId,
    at_s: u32,
    /// What a loose record counts.
    bytes: u32,
    held: Held,
}

enum Held {
    Loose(NewsRecord),
    Packed(Packed),
}

/// What went, and why.
pub(super) struct GivenWay {
    /// What is left to be freed.
    pub(super) record: Option<NewsRecord>,
    /// It went for want of room, not of age.
    pub(super) is_early: bool,
}

/// A record that is there.
pub(super) struct RecordView<'a> {
    pub(super) number: u64,
    pub(super) id: EventId,
    held: &'a Held,
    ring: &'a Ring,
}

impl RecordView<'_> {
    /// The endpoint of a live exchange.
    pub(super) fn live_at(&self) -> Option<&EndpointName> {
        match self.held {
            Held::Packed(packed) => Some(&packed.endpoint.name),
            Held::Loose(NewsRecord::Live(entry)) => Some(&entry.endpoint.name),
            Held::Loose(_) => None,
        }
    }

    /// Whether this is the sender's own id of a live exchange.
    pub(super) fn is_senders(&self, id: &str) -> bool {
        match self.held {
            Held::Loose(NewsRecord::Live(entry)) => entry.event.id.as_deref() == Some(id),
            Held::Loose(_) => false,
            Held::Packed(packed) => packed.sender_id(&self.ring.pages) == Some(id.as_bytes()),
        }
    }

    pub(super) fn record(&self) -> Option<NewsRecord> {
        match self.held {
            Held::Loose(record) => Some(record.clone()),
            Held::Packed(packed) => {
                packed.read(&self.ring.pages, self.id, self.ring.began).map(|entry| NewsRecord::Live(entry.into()))
            }
        }
    }
}

impl Ring {
    pub(super) fn new(first: u64, budget: usize, began: Instant) -> Self {
        Self { slots: VecDeque::new(), first, loose_bytes: 0, budget, pages: Pages::new(budget), began }
    }

    /// The number that the next record gets.
    pub(super) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn push(&mut self, id: EventId, record: NewsRecord, bytes: usize, now_s: u32) -> u64 {
        let number = self.next();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.loose_bytes += bytes as usize + SLOT_BYTES;
        self.slots.push_back(Slot { id, at_s: now_s, bytes, held: Held::Loose(record) });
        number
    }

    /// Keeps a live exchange that has ended.
    pub(super) fn push_packed(&mut self, entry: &LiveEntry, now_s: u32) {
        self.loose_bytes += SLOT_BYTES;
        let held = Held::Packed(Packed::write(&mut self.pages, entry, self.began));
        self.slots.push_back(Slot { id: entry.id, at_s: now_s, bytes: 0, held });
    }

    /// A live exchange has ended: what its record shares with others is let go of, if that is still there.
    pub(super) fn pack(&mut self, number: u64, entry: &LiveEntry) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let Some(slot) = place.and_then(|place| self.slots.get_mut(place)) else { return };
        if matches!(&slot.held, Held::Loose(NewsRecord::Live(_))) {
            self.loose_bytes -= slot.bytes as usize;
            slot.bytes = 0;
            slot.held = Held::Packed(Packed::write(&mut self.pages, entry, self.began));
        }
    }

    /// The next one that has to go. The newest stays, however large it is.
    pub(super) fn give_way(&mut self, now_s: u32) -> Option<GivenWay> {
        let oldest = self.slots.front()?;
        let is_old = now_s.saturating_sub(oldest.at_s) > MAX_AGE_S;
        let is_full = (self.bytes() > self.budget && self.slots.len() > 1) || self.slots.len() > MAX_RECORDS;
        if !(is_old || is_full) {
            return None;
        }
        let oldest = self.slots.pop_front()?;
        self.first += 1;
        self.loose_bytes = self.loose_bytes.saturating_sub(oldest.bytes as usize + SLOT_BYTES);
        let record = match oldest.held {
            Held::Loose(record) => Some(record),
            Held::Packed(packed) => {
                packed.free(&mut self.pages);
                None
            }
        };
        Some(GivenWay { record, is_early: !is_old })
    }

    /// Looks at the records from a number on, so many at most. Gives the number to go on from.
    pub(super) fn look(&self, from: u64, most: usize, now_s: u32, mut each: impl FnMut(RecordView<'_>)) -> u64 {
        let from = from.max(self.first);
        let place = usize::try_from(from - self.first).unwrap_or(usize::MAX).min(self.slots.len());
        let end = self.slots.len().min(place.saturating_add(most));
        for (slot, number) in self.slots.range(place..end).zip(from..) {
            if now_s.saturating_sub(slot.at_s) <= MAX_AGE_S {
                each(RecordView { number, id: slot.id, held: &slot.held, ring: self });
            }
        }
        self.first + end as u64
    }

    /// The number of the oldest record that is there.
    pub(super) const fn oldest(&self) -> u64 {
        self.first
    }

    pub(super) const fn bytes(&self) -> usize {
        self.loose_bytes + self.pages.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::kept;

    fn numbers(ring: &Ring, from: u64, most: usize, now_s: u32) -> (Vec<u64>, u64) {
        let mut seen = Vec::new();
        let next = ring.look(from, most, now_s, |record| seen.push(record.number));
        (seen, next)
    }

    #[test]
    fn the_oldest_gives_way_for_age_and_for_room_and_numbers_go_on() {
        let mut ring = Ring::new(1000, 10_000, Instant::now());
        for second in 0..5 {
            ring.push(EventId::new(), kept(), 1000, second);
        }
        assert!(ring.give_way(4).is_none());
        assert_eq!(numbers(&ring, 1001, 2, 4), (vec![1001, 1002], 1003));
        assert_eq!(numbers(&ring, 0, 9, 4).0.len(), 5);
        assert_eq!(numbers(&ring, 1005, 9, 4), (vec![], 1005));
        let gone = ring.give_way(MAX_AGE_S + 1).expect("one is too old");
        assert!(!gone.is_early && ring.give_way(MAX_AGE_S + 1).is_none());
        ring.push(EventId::new(), kept(), 6000, 4);
        assert!(ring.give_way(4).is_some_and(|gone| gone.is_early && gone.record.is_some()));
        assert!(ring.give_way(4).is_none());
        assert_eq!((ring.bytes(), ring.oldest(), ring.next()), (9000 + 4 * SLOT_BYTES, 1002, 1006));
        ring.push(EventId::new(), kept(), 1 << 20, 5);
        while ring.give_way(5).is_some() {}
        assert_eq!((ring.oldest(), ring.next()), (1006, 1007), "the newest stays");
        assert_eq!(numbers(&ring, 0, 9, 5 + MAX_AGE_S + 1), (vec![], 1007), "what is old is not seen");
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let mut ring = Ring::new(0, usize::MAX, Instant::now());
        for _ in 0..=MAX_RECORDS {
            ring.push(EventId::new(), kept(), 0, 0);
            while ring.give_way(0).is_some() {}
        }
        assert_eq!((ring.oldest(), ring.slots.len()), (1, MAX_RECORDS));
    }
}

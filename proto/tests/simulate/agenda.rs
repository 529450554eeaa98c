//! Who acts next: one due time for each actor. Ties go to the one that was added first, so the order is
//! the seed's alone.

use crate::plan::Side;

/// Whoever can act by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// The sender of a webhook, or the relay that tries it again.
    Webhook(usize),
    /// One side's user of an exchange.
    Exchange(usize, Side),
    /// The handler of an attempt that outlived its session.
    Handler(usize),
    /// The link towards this side.
    Deliver(usize, Side),
    /// This side's socket takes bytes.
    Flush(usize, Side),
    /// This side's timer.
    Timer(usize, Side),
    /// The relay answers a hello.
    Welcome(usize),
    /// The side that drained closes once nothing is in flight.
    CloseIdle(usize, Side),
    Happening,
    Connect,
}

/// A place on the agenda.
pub(crate) type Slot = usize;

/// All due times, as the leaves of a tree in which each node has the earlier of its two children's.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    /// The root at 1, the children of `n` at `2n` and `2n + 1`; each is a due time above its slot's bits.
    earliest: Vec<u64>,
    actors: Vec<Actor>,
}

const NEVER: u64 = u64::MAX;
const SLOT_BITS: u32 = 12;

impl Agenda {
    fn leaf(&self, slot: Slot) -> usize {
        self.earliest.len() / 2 + slot
    }

    pub(crate) fn add(&mut self, actor: Actor) -> Slot {
        let slot = self.actors.len();
        assert!(slot < 1 << SLOT_BITS, "a history of very many actors");
        self.actors.push(actor);
        if self.leaf(slot) == self.earliest.len() {
            let before = self.earliest.split_off(self.earliest.len() / 2);
            self.earliest = vec![NEVER; 4 * before.len().max(32)];
            for (slot, due) in before.into_iter().enumerate() {
                self.put(slot, due);
            }
        }
        slot
    }

    fn put(&mut self, slot: Slot, mut first: u64) {
        let mut node = self.leaf(slot);
        while self.earliest[node] != first {
            self.earliest[node] = first;
            if node == 1 {
                break;
            }
            first = first.min(self.earliest[node ^ 1]);
            node /= 2;
        }
    }

    /// Acts then, and not when it would have before.
    pub(crate) fn set(&mut self, slot: Slot, due: Option<u64>) {
        self.put(slot, due.map_or(NEVER, |due| due << SLOT_BITS | slot as u64));
    }

    /// Acts then or earlier.
    pub(crate) fn by(&mut self, slot: Slot, due: u64) {
        if due < self.earliest[self.leaf(slot)] >> SLOT_BITS {
            self.set(slot, Some(due));
        }
    }

    pub(crate) fn is_set(&self, slot: Slot) -> bool {
        self.earliest[self.leaf(slot)] != NEVER
    }

    /// The next actor, which is taken off.
    pub(crate) fn next(&mut self) -> Option<(u64, Slot, Actor)> {
        let first = self.earliest.get(1).copied().filter(|first| *first != NEVER)?;
        let slot = (first & ((1 << SLOT_BITS) - 1)) as Slot;
        self.set(slot, None);
        Some((first >> SLOT_BITS, slot, self.actors[slot]))
    }
}

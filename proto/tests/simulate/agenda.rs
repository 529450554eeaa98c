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

/// All due times, in blocks of which the earliest is known.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    due: Vec<u64>,
    earliest: Vec<u64>,
    actors: Vec<Actor>,
}

const NEVER: u64 = u64::MAX;
const BLOCK: usize = 16;

impl Agenda {
    pub(crate) fn add(&mut self, actor: Actor) -> Slot {
        self.due.push(NEVER);
        self.actors.push(actor);
        self.earliest.resize(self.due.len().div_ceil(BLOCK), NEVER);
        self.due.len() - 1
    }

    /// Acts then, and not when it would have before.
    pub(crate) fn set(&mut self, slot: Slot, due: Option<u64>) {
        let due = due.unwrap_or(NEVER);
        let before = std::mem::replace(&mut self.due[slot], due);
        let block = slot / BLOCK;
        if due < self.earliest[block] {
            self.earliest[block] = due;
        } else if before == self.earliest[block] {
            let last = self.due.len().min((block + 1) * BLOCK);
            let mut earliest = NEVER;
            for due in &self.due[block * BLOCK..last] {
                earliest = earliest.min(*due);
            }
            self.earliest[block] = earliest;
        }
    }

    /// Acts then or earlier.
    pub(crate) fn by(&mut self, slot: Slot, due: u64) {
        if due < self.due[slot] {
            self.set(slot, Some(due));
        }
    }

    pub(crate) fn is_set(&self, slot: Slot) -> bool {
        self.due[slot] != NEVER
    }

    /// The next actor, which is taken off.
    pub(crate) fn next(&mut self) -> Option<(u64, Slot, Actor)> {
        let (mut first, mut block) = (NEVER, 0);
        for (number, earliest) in self.earliest.iter().enumerate() {
            if *earliest < first {
                (first, block) = (*earliest, number);
            }
        }
        if first == NEVER {
            return None;
        }
        let mut slot = block * BLOCK;
        while self.due[slot] != first {
            slot += 1;
        }
        self.set(slot, None);
        Some((first, slot, self.actors[slot]))
    }
}

//! How many repeats of an event were answered without a call of its handler.
//!
//! In memory, of the events alone that were repeated last: a sender that repeats does so within minutes.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::webhook::EventId;

/// Events whose repeats are counted.
const MAX_EVENTS: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    counts: HashMap<EventId, u32>,
    /// By their first repeat.
    order: VecDeque<EventId>,
}

impl Repeats {
    pub(super) fn count(&self, of: EventId) {
        let mut counted = self.0.lock();
        let Counted { counts, order } = &mut *counted;
        if let Some(count) = counts.get_mut(&of) {
            *count = count.saturating_add(1);
            return;
        }
        if order.len() == MAX_EVENTS
            && let Some(oldest) = order.pop_front()
        {
            counts.remove(&oldest);
        }
        counts.insert(of, 1);
        order.push_back(of);
    }

    /// As far as is known.
    pub(super) fn of(&self, event: EventId) -> Option<u32> {
        self.0.lock().counts.get(&event).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_that_were_repeated_last_are_counted() {
        let repeats = Repeats::default();
        let ids: Vec<_> = (0..=MAX_EVENTS as u128).map(|n| EventId::from_bytes(n.to_be_bytes())).collect();
        for id in ids.iter().chain(&ids[1..3]) {
            repeats.count(*id);
        }
        let of = |at: usize| repeats.of(ids[at]);
        assert_eq!((of(0), of(1), of(2), of(3), of(MAX_EVENTS)), (None, Some(2), Some(2), Some(1), Some(1)));
    }
}

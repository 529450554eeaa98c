//! The highest fence of each event whose handler was called a moment ago.
//!
//! A relay that stood still may send an attempt after its lease has ended and a newer attempt was made. This memory
//! knows the newer one.
//!
//! Invariant: at most [`MAX_CALLS`] calls are remembered, each for [`REMEMBERED_FOR`].

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// Calls that are remembered at a time; the oldest go first.
const MAX_CALLS: usize = 65_536;

/// How long a call is remembered: a little longer than the relay's lease of an event.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(super) struct Fences {
    highest: HashMap<[u8; 16], u64>,
    /// Oldest first.
    calls: VecDeque<(Instant, [u8; 16], u64)>,
}

impl Fences {
    /// Remembers a call under this fence; false, and nothing else, if there was one under it or under a higher one.
    pub(super) fn raise(&mut self, event_id: [u8; 16], fence: u64, now: Instant) -> bool {
        while self.calls.front().is_some_and(|(at, ..)| now.duration_since(*at) >= REMEMBERED_FOR) {
            self.forget_oldest();
        }
        if self.highest.get(&event_id).is_some_and(|highest| fence <= *highest) {
            return false;
        }
        if self.calls.len() >= MAX_CALLS {
            self.forget_oldest();
        }
        self.highest.insert(event_id, fence);
        self.calls.push_back((now, event_id, fence));
        true
    }

    fn forget_oldest(&mut self) {
        if let Some((_, event_id, fence)) = self.calls.pop_front()
            && self.highest.get(&event_id) == Some(&fence)
        {
            self.highest.remove(&event_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_higher_fence_is_called_until_it_is_forgotten() {
        let (mut fences, start) = (Fences::default(), Instant::now());
        let mut raise =
            |event: u8, fence, after_s| fences.raise([event; 16], fence, start + Duration::from_secs(after_s));
        assert!(raise(1, 2, 0) && raise(2, 1, 0), "each event has fences of its own");
        assert!(!raise(1, 2, 1) && !raise(1, 1, 1), "an older attempt, and the same one again");
        assert!(raise(1, 3, 60));
        assert!(!raise(1, 2, 150), "the newest call counts");
        assert!(raise(1, 1, 180), "it was forgotten");
    }

    #[test]
    fn so_many_calls_are_remembered_and_no_more() {
        let (mut fences, now) = (Fences::default(), Instant::now());
        for event in 0..=MAX_CALLS as u128 {
            assert!(fences.raise(event.to_be_bytes(), 1, now));
        }
        assert_eq!((fences.calls.len(), fences.highest.len()), (MAX_CALLS, MAX_CALLS));
        assert!(fences.raise(0_u128.to_be_bytes(), 1, now), "the oldest was forgotten");
        assert!(!fences.raise(2_u128.to_be_bytes(), 1, now));
    }
}

//! Bounds the log lines that an outsider can cause: one in ten seconds for each cause, with the number held back before
//! it.
//!
//! A cause is a place in the code together with its subject, such as an endpoint's name, so that a flood at one
//! endpoint leaves the lines of another alone. Subjects share a fixed number of slots: nothing here grows.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Between two lines of one cause.
const PAUSE: Duration = Duration::from_secs(10);

/// When lines began to be counted; times are milliseconds after it, and 0 is no time.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Lets the lines of one place in the code through, seldom. To be kept in a `static`. It tells `SLOTS` causes apart, and
/// lets `BURST` lines of one through in the time between two.
#[derive(Debug)]
pub(crate) struct Throttle<const SLOTS: usize = 32, const BURST: u64 = 1> {
    slots: [Slot; SLOTS],
}

#[derive(Debug)]
struct Slot {
    next_at_ms: AtomicU64,
    passed: AtomicU64,
    held_back: AtomicU64,
}

impl Slot {
    const fn new() -> Self {
        Self { next_at_ms: AtomicU64::new(0), passed: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }
}

impl<const SLOTS: usize, const BURST: u64> Throttle<SLOTS, BURST> {
    pub(crate) const fn new() -> Self {
        Self { slots: [const { Slot::new() }; SLOTS] }
    }

    /// Whether a line about this may be written now: then how many were held back since the last one.
    pub(crate) fn pass(&self, about: &str) -> Option<u64> {
        let now = u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.pass_at(about, now)
    }

    fn pass_at(&self, about: &str, now_ms: u64) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        about.hash(&mut hasher);
        let slot = &self.slots[usize::try_from(hasher.finish() % SLOTS as u64).unwrap_or(0)];
        let next = slot.next_at_ms.load(Ordering::Relaxed);
        let later = now_ms.saturating_add(u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX));
        let is_due = now_ms >= next
            && slot.next_at_ms.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_due {
            slot.passed.store(1, Ordering::Relaxed);
        }
        if is_due || slot.passed.fetch_add(1, Ordering::Relaxed) < BURST {
            return Some(slot.held_back.swap(0, Ordering::Relaxed));
        }
        slot.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_says_how_many_were_held_back() {
        let throttle: Throttle = Throttle::new();
        assert_eq!(throttle.pass_at("hub", 5), Some(0), "the first one at once");
        let passed = (0..1000).filter(|n| throttle.pass_at("hub", 5 + n).is_some()).count();
        assert_eq!(passed, 0);
        assert_eq!(throttle.pass_at("bills", 700), Some(0), "what is about another endpoint is not held back");
        assert_eq!(throttle.pass_at("hub", 10_004), None);
        assert_eq!(throttle.pass_at("hub", 10_005), Some(1001));
        assert_eq!(throttle.pass_at("hub", 30_000), Some(0));
    }

    #[test]
    fn a_place_may_have_a_burst_of_lines() {
        let throttle: Throttle<32, 3> = Throttle::new();
        let passed = |from: u64| (0..100).filter(|n| throttle.pass_at("laptop", from + n).is_some()).count();
        assert_eq!((passed(5), passed(5_000), passed(10_005)), (3, 0, 3));
        assert_eq!(throttle.pass_at("laptop", 30_000), Some(97));
    }
}

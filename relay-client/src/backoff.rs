//! How long to wait before the next connect: exponential backoff with full jitter.
//!
//! Pure: randomness comes in as a number, nothing here sleeps or reads a clock. It does not decide whether a
//! failure is worth another try; that is the session loop's business.
//!
//! Invariants: the first wait after a healthy session is at most [`FIRST`]; no wait exceeds [`CAP`], except that
//! the relay may ask for up to [`MAX_RETRY_AFTER`]; the doubling is forgotten only after a session lived
//! [`HEALTHY`].

use std::time::Duration;

pub(crate) const FIRST: Duration = Duration::from_secs(1);
/// The ceiling of every wait after five failures in a row.
pub(crate) const CAP: Duration = Duration::from_secs(30);
/// A session that lived this long forgets the failures before it.
pub(crate) const HEALTHY: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is honoured; a longer one counts as this.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Doublings that stay below [`CAP`]: 1, 2, 4, 8 and 16 s.
const DOUBLINGS: u32 = 5;

/// Counts failures in a row and turns them into waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Records one more failure and returns the wait before the next try.
    ///
    /// `random` lies in `0.0..=1.0` (other values are clamped) and chooses a point below the ceiling. A
    /// `retry_after` given by the relay comes first and the jitter on top of it, so that agents which were all
    /// told the same number do not return together.
    pub(crate) fn next(&mut self, random: f64, retry_after: Option<Duration>) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
        let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        asked + ceiling.mul_f64(random)
    }

    /// Tells how long the session that just ended had been welcome; a healthy one resets the count.
    pub(crate) fn session_ended(&mut self, lived: Duration) {
        if lived >= HEALTHY {
            self.failures = 0;
        }
    }

    fn ceiling(&self) -> Duration {
        if self.failures < DOUBLINGS { FIRST * 2_u32.pow(self.failures) } else { CAP }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(count: usize) -> Vec<u64> {
        let mut backoff = Backoff::default();
        (0..count).map(|_| backoff.next(1.0, None).as_secs()).collect()
    }

    #[test]
    fn ceilings_double_and_then_stay_at_the_cap() {
        assert_eq!(ceilings(8), [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(0.0, None), Duration::ZERO);
        assert_eq!(backoff.next(0.5, None), Duration::from_secs(1));
        assert_eq!(backoff.next(0.25, None), Duration::from_secs(1));
    }

    #[test]
    fn randomness_outside_its_range_never_exceeds_the_ceiling() {
        for random in [-1.0, 2.0, f64::NAN, f64::INFINITY] {
            assert!(Backoff::default().next(random, None) <= FIRST, "{random}");
        }
    }

    #[test]
    fn only_a_healthy_session_resets() {
        let mut backoff = Backoff::default();
        for _ in 0..6 {
            backoff.next(1.0, None);
        }
        backoff.session_ended(HEALTHY - Duration::from_millis(1));
        assert_eq!(backoff.next(1.0, None), CAP);
        backoff.session_ended(HEALTHY);
        assert_eq!(backoff.failures, 0);
        assert_eq!(backoff.next(1.0, None), FIRST);
    }

    #[test]
    fn retry_after_is_honoured_and_bounded() {
        let wait = |asked| Backoff::default().next(0.5, Some(Duration::from_secs(asked)));
        assert_eq!(wait(20), Duration::from_millis(20_500));
        assert_eq!(wait(86_400), MAX_RETRY_AFTER + Duration::from_millis(500));
    }

    #[test]
    fn countless_failures_do_not_overflow() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.next(1.0, None), CAP);
    }
}

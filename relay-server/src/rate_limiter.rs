//! The rate limiter: a caller gets a place, or learns how long to wait for one.
//!
//! It stands around governor's GCRA and adds two things: the time is an argument, and a caller can look without taking.
//! It never waits itself. Invariant: [`RateLimiter::room`] never says more than [`RateLimiter::take`] gives at the same
//! moment.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use governor::{
    Quota,
    clock::Clock,
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use parking_lot::{Mutex, MutexGuard};
use relay_proto::Rate;
use tokio::time::Instant;

type Limiter = governor::RateLimiter<NotKeyed, InMemoryState, GivenTime, StateInformationMiddleware>;

/// One rate and what was taken of it. It belongs to the whole process.
pub(crate) struct RateLimiter {
    rate: Rate,
    interval: Duration,
    begun: Instant,
    state: Mutex<LimiterState>,
}

struct LimiterState {
    limiter: Limiter,
    /// What was left at the last look, and when that was.
    left: u32,
    at: Duration,
}

/// The newest time that a caller gave.
#[derive(Default)]
struct GivenTime(AtomicU64);

impl Clock for GivenTime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

impl RateLimiter {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        // Neither is ever 0: a rate's parts are in range.
        let interval = rate.interval().max(Duration::from_nanos(1));
        let burst = NonZeroU32::new(rate.burst()).unwrap_or(NonZeroU32::MIN);
        let one_each = Quota::with_period(interval).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let limiter =
            governor::RateLimiter::new(one_each.allow_burst(burst), InMemoryState::default(), GivenTime::default());
        let state = LimiterState { limiter, left: burst.get(), at: Duration::ZERO };
        Self { rate, interval, begun: now, state: Mutex::new(state) }
    }

    pub(crate) const fn rate(&self) -> Rate {
        self.rate
    }

    pub(crate) fn room(&self, now: Instant) -> Result<u32, Duration> {
        let (state, now) = self.state(now);
        let since = now.saturating_sub(state.at);
        let come = u32::try_from(since.as_nanos() / self.interval.as_nanos()).unwrap_or(u32::MAX);
        match state.left.saturating_add(come).min(self.rate.burst()) {
            0 => Err(self.interval - since),
            room => Ok(room),
        }
    }

    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let (mut state, now) = self.state(now);
        state.limiter.clock().0.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        match state.limiter.check() {
            Ok(snapshot) => {
                (state.left, state.at) = (snapshot.remaining_burst_capacity(), now);
                Ok(())
            }
            Err(until) => Err(until.wait_time_from(state.limiter.clock().now())),
        }
    }

    /// The state, and the time since its beginning, which never goes back.
    fn state(&self, now: Instant) -> (MutexGuard<'_, LimiterState>, Duration) {
        let state = self.state.lock();
        let now = now.saturating_duration_since(self.begun).max(state.at);
        (state, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(rate: &str) -> (RateLimiter, impl Fn(u64) -> Instant) {
        let begun = Instant::now();
        (RateLimiter::new(rate.parse().expect("a rate"), begun), move |ms| begun + Duration::from_millis(ms))
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_goes_at_once_and_then_one_each_interval() {
        let (limiter, at) = limiter("10/s, burst 3");
        assert_eq!(limiter.room(at(0)), Ok(3));
        for _ in 0..3 {
            assert_eq!(limiter.take(at(0)), Ok(()));
        }
        assert_eq!((limiter.room(at(0)), limiter.take(at(0))), (Err(ms(100)), Err(ms(100))));
        assert_eq!((limiter.room(at(60)), limiter.take(at(60))), (Err(ms(40)), Err(ms(40))));
        assert_eq!(
            (limiter.room(at(100)), limiter.take(at(100)), limiter.take(at(100))),
            (Ok(1), Ok(()), Err(ms(100)))
        );
        assert_eq!(limiter.room(at(60_000)), Ok(3), "a long rest brings no more than the burst");
    }

    #[test]
    fn time_that_goes_back_stands_still() {
        let (limiter, at) = limiter("1/s");
        assert_eq!(limiter.take(at(5000)), Ok(()));
        assert_eq!((limiter.take(at(0)), limiter.room(at(0))), (Err(ms(1000)), Err(ms(1000))));
        assert_eq!(limiter.take(at(6000)), Ok(()));
    }

    /// Whoever asks at odd moments gets what the rate says, never what `room` did not promise, and always what it did.
    #[test]
    fn room_promises_nothing_that_is_not_given_and_the_rate_is_kept() {
        for (rate, burst) in [("7/s, burst 5", 5_u64), ("1000/s", 1000), ("90/min", 1), ("100000/s, burst 1", 1)] {
            let (limiter, at) = limiter(rate);
            let (mut now, mut dice, mut given) = (0_u64, 12_345_u64, 0_u64);
            while now < 20_000 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                now += (dice >> 33) % 90;
                match limiter.room(at(now)) {
                    Ok(room) => {
                        for _ in 0..room.min(50) {
                            assert_eq!(limiter.take(at(now)), Ok(()), "{rate} at {now}");
                            given += 1;
                        }
                    }
                    Err(wait) => {
                        assert!(limiter.room(at(now) + wait).is_ok(), "{rate} at {now}: it said {wait:?}");
                    }
                }
            }
            let rate = limiter.rate();
            let most = burst + u64::from(rate.count()) * now / 1000 / u64::from(rate.per_s()) + 1;
            assert!(given <= most && given > 0, "{rate}: {given} of {most}");
        }
    }

    #[test]
    fn a_peers_wildest_rates_are_counted_without_a_panic() {
        for (count, per_s, burst) in [(1, u32::MAX, u32::MAX), (u32::MAX, 1, u32::MAX), (0, 0, 0)] {
            let begun = Instant::now();
            let limiter = RateLimiter::new(Rate::new(count, per_s, Some(burst)), begun);
            let late = begun + Duration::from_secs(10 * 365 * 24 * 3600);
            assert!(limiter.take(late).is_ok() && limiter.room(late).is_ok_and(|room| room > 0) == (burst > 1));
        }
    }
}

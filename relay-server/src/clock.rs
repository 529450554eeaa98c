//! The relay's clock: one for everything that is due, leased, expires or is noted down.
//!
//! It follows the clock of the machine, but never steps backwards in a process: where that one is set back, this one goes
//! on as it went. Only what senders signed is judged by the machine's own clock ([`wall`]), since they signed by theirs;
//! logs and TLS use that one as well.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::Timestamp;
use tokio::time::Instant;

/// A handle to the clock. Its copies tell the same time.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    started: Instant,
    /// How far the time is ahead of what has gone by since `started`, in nanoseconds since 1970. It only grows.
    ahead_ns: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(Hands { started: Instant::now(), ahead_ns: AtomicI64::new(i64::MIN) }))
    }
}

impl Clock {
    /// The time, never before one that was told.
    pub(crate) fn now(&self) -> Timestamp {
        self.read().0
    }

    /// The time, and the moment at which it was read.
    pub(crate) fn read(&self) -> (Timestamp, Instant) {
        // The machine's clock is read first: a pause between the two must not put this clock ahead.
        let wall = wall();
        let now = Instant::now();
        (self.follow(wall, now), now)
    }

    fn follow(&self, wall: Timestamp, now: Instant) -> Timestamp {
        let gone_by = i64::try_from(now.duration_since(self.0.started).as_nanos()).unwrap_or(i64::MAX);
        let wall = i64::try_from(wall.as_nanosecond()).unwrap_or(i64::MAX);
        let ahead = wall.saturating_sub(gone_by);
        let ahead = self.0.ahead_ns.fetch_max(ahead, Ordering::AcqRel).max(ahead);
        Timestamp::from_nanosecond(i128::from(ahead.saturating_add(gone_by))).unwrap_or(Timestamp::MAX)
    }
}

/// What the machine's clock says, by which others judge what is signed. It may step backwards.
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_follows_the_machine_forwards_and_goes_on_when_that_is_set_back() {
        let clock = Clock::default();
        let at = |second| Timestamp::from_second(second).expect("in range");
        assert_eq!(clock.follow(at(1000), Instant::now()), at(1000));
        assert_eq!(clock.clone().follow(at(5000), Instant::now()), at(5000), "set forwards, or awake again");
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.follow(at(60), Instant::now()), at(5007), "set back");
        assert_eq!(clock.follow(at(5007), Instant::now()), at(5007), "and caught up");
        assert_eq!(clock.follow(at(6000), Instant::now()), at(6000));
    }
}

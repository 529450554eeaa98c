//! The relay's clock: one for everything that is due, leased, expires or is noted down.
//!
//! It follows the clock of the machine, but never steps backwards in a process: where that one is set back, this one goes
//! on as it went. Only what senders signed is judged by the machine's own clock ([`wall`]), since they signed by theirs;
//! logs and TLS use that one as well.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
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

thread_local! {
    /// The last second that was written as text, and its text without the `Z`.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// A time as [`Timestamp`] writes it, in RFC 3339. Each webhook has one, and most of it is the same for a second.
pub(crate) fn text_of(time: Timestamp) -> String {
    let Ok(mut nanoseconds) = u32::try_from(time.subsec_nanosecond()) else { return time.to_string() };
    SECOND.with_borrow_mut(|(last, whole)| {
        if *last != time.as_second() {
            *last = time.as_second();
            *whole = Timestamp::from_second(*last).unwrap_or(time).to_string();
            whole.pop();
        }
        let mut text = String::with_capacity(whole.len() + ".123456789Z".len());
        text.push_str(whole);
        if nanoseconds > 0 {
            let mut digits = [b'0'; 9];
            for digit in digits.iter_mut().rev() {
                *digit += (nanoseconds % 10) as u8;
                nanoseconds /= 10;
            }
            text.push('.');
            text.push_str(std::str::from_utf8(&digits).unwrap_or_default().trim_end_matches('0'));
        }
        text.push('Z');
        text
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_written_as_it_writes_itself() {
        for second in [0, 1, 1_790_000_000, 1_790_000_001, 253_402_207_199, -1, -62_135_596_800] {
            for nanosecond in [0, 1, 999_999_999, 120_000_000, 1_000, 123_456_789, 100, -5] {
                let Ok(time) = Timestamp::new(second, nanosecond) else { continue };
                assert_eq!(text_of(time), time.to_string());
                assert_eq!(text_of(time), time.to_string(), "of the same second");
            }
        }
    }

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

//! How often something may happen: so many times in a time, and how many of them at once.
//!
//! A value that people write (`50/s`, `600/min`, `600/min, burst 20`) and peers send; nothing here counts or waits.
//! Invariant: every part is at least 1 and at most its limit, whatever a peer said, so that whoever counts by it can
//! multiply any two parts.

use std::{fmt, str::FromStr, time::Duration};

const MAX_COUNT: u32 = 100_000;

/// Longest time that a rate names, in seconds.
const MAX_PER_S: u32 = 3600;

const UNITS: [(&str, u32); 3] = [("s", 1), ("min", 60), ("h", 3600)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    per_s: u32,
    burst: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a rate; write it like \"50/s\", \"600/min\" or \"600/min, burst 20\", with numbers from 1 to {MAX_COUNT}")]
pub struct NotARate;

impl Rate {
    /// A rate; parts that are out of range are moved into it. Without a burst it is what one second brings, or one.
    pub fn new(count: u32, per_s: u32, burst: Option<u32>) -> Self {
        let (count, per_s) = (count.clamp(1, MAX_COUNT), per_s.clamp(1, MAX_PER_S));
        let burst = burst.unwrap_or(count / per_s).clamp(1, MAX_COUNT);
        Self { count, per_s, burst }
    }

    pub const fn count(&self) -> u32 {
        self.count
    }

    pub const fn per_s(&self) -> u32 {
        self.per_s
    }

    /// How many at once, after a rest.
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.per_s.into()) / self.count
    }
}

impl FromStr for Rate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, NotARate> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|number| digits && (1..=MAX_COUNT).contains(number));
            number.ok_or(NotARate)
        };
        let (rate, burst) = match text.split_once(',') {
            Some((rate, burst)) => {
                let burst = burst.trim().strip_prefix("burst").filter(|rest| rest.starts_with(' ')).ok_or(NotARate)?;
                (rate, Some(number(burst.trim())?))
            }
            None => (text, None),
        };
        let (count, unit) = rate.trim().split_once('/').ok_or(NotARate)?;
        let (_, per_s) = UNITS.into_iter().find(|(name, _)| *name == unit.trim()).ok_or(NotARate)?;
        Ok(Self::new(number(count.trim())?, per_s, burst))
    }
}

impl fmt::Display for Rate {
    /// As it is written; a peer's own times are in seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, per_s, burst } = *self;
        match UNITS.into_iter().find(|(_, seconds)| *seconds == per_s) {
            Some((unit, _)) => write!(f, "{count}/{unit}")?,
            None => write!(f, "{count}/{per_s}s")?,
        }
        if Self::new(count, per_s, None) == *self { Ok(()) } else { write!(f, ", burst {burst}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_printed_again() {
        for (text, count, per_s, burst, interval_ms) in [
            ("50/s", 50, 1, 50, 20),
            ("600/min", 600, 60, 10, 100),
            ("1/min", 1, 60, 1, 60_000),
            ("1/h", 1, 3600, 1, 3_600_000),
            ("600/min, burst 600", 600, 60, 600, 100),
            ("100000/s, burst 1", 100_000, 1, 1, 0),
        ] {
            let rate: Rate = text.parse().expect(text);
            assert_eq!((rate.count(), rate.per_s(), rate.burst()), (count, per_s, burst), "{text}");
            assert_eq!((rate.to_string().as_str(), rate.interval().as_millis()), (text, interval_ms));
        }
        assert_eq!(" 5 / s ,  burst  5 ".parse(), Ok(Rate::new(5, 1, None)));
        for bad in [
            "",
            "50",
            "/s",
            "50/",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "100001/s",
            "5/day",
            "5/s burst 5",
            "5/s,",
            "5/s, burst",
            "5/s, burst 0",
            "5/s, burst5",
            "5/s, 5",
            "99999999999/s",
        ] {
            assert_eq!(bad.parse::<Rate>(), Err(NotARate), "{bad:?}");
        }
    }

    #[test]
    fn what_a_peer_says_is_moved_into_range() {
        for (count, per_s, burst) in [(0, 0, Some(0)), (u32::MAX, u32::MAX, Some(u32::MAX)), (u32::MAX, 0, None)] {
            let rate = Rate::new(count, per_s, burst);
            assert!((1..=MAX_COUNT).contains(&rate.count()) && (1..=MAX_COUNT).contains(&rate.burst()), "{rate}");
            assert!((1..=MAX_PER_S).contains(&rate.per_s()) && !rate.interval().is_zero(), "{rate}");
        }
    }
}

//! When an event is tried again, and what an answer means: pure decisions.
//!
//! Knows no clock, no randomness, no store: attempts, times and a random number come in, a decision goes out.
//! Invariants: a wait is never longer than [`MAX_WAIT`], whatever a handler asks for; an attempt counts before its
//! call is made; an open circuit lets one probe through at a time.

use std::{ops::RangeInclusive, time::Duration};

use jiff::Timestamp;

mod circuit;

pub(crate) use circuit::{Circuit, CircuitRule, Gate};

/// Longest wait between two attempts, also when a handler's Retry-After asks for more.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How far a wait may be from the schedule, in per cent, either way.
pub(crate) const JITTER_PERCENT: u32 = 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// One wait after each failure; after the last the event is dead.
    List(Vec<Duration>),
    /// Each wait is `factor` times the one before.
    Exponential {
        first: Duration,
        /// What a wait is multiplied by; 1 gives even waits.
        factor: u32,
        longest: Duration,
        /// Attempts in all, the first one included.
        attempts: u32,
    },
}

impl Default for Schedule {
    /// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h: what Standard Webhooks recommends.
    fn default() -> Self {
        Self::List([5, 300, 1800, 7200, 18_000, 36_000, 36_000].map(Duration::from_secs).to_vec())
    }
}

impl Schedule {
    /// Attempts in all, the first one included.
    pub(crate) fn attempts(&self) -> u32 {
        match self {
            Self::List(waits) => u32::try_from(waits.len()).unwrap_or(u32::MAX).saturating_add(1),
            Self::Exponential { attempts, .. } => *attempts,
        }
    }

    /// The wait after `made` attempts failed, before jitter; `None` once there is none left.
    pub(crate) fn wait_after(&self, made: u32) -> Option<Duration> {
        let nth = made.checked_sub(1)?;
        match self {
            Self::List(waits) => waits.get(usize::try_from(nth).ok()?).copied(),
            Self::Exponential { attempts, .. } if made >= *attempts => None,
            Self::Exponential { first, factor, longest, .. } => {
                Some(factor.checked_pow(nth).and_then(|times| first.checked_mul(times)).unwrap_or(*longest))
                    .map(|wait| wait.min(*longest))
            }
        }
        .map(|wait| wait.min(MAX_WAIT))
    }

    /// When to try again after `made` attempts failed, the last one at `now`.
    ///
    /// `random` is evenly drawn from all of `u32`. A handler that says how long to wait is heard where that is
    /// longer than the schedule, up to [`MAX_WAIT`].
    pub(crate) fn next(
        &self,
        made: u32,
        retry_after: Option<Duration>,
        random: u32,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let wait = jittered(self.wait_after(made)?, random);
        let wait = retry_after.map_or(wait, |asked| asked.min(MAX_WAIT).max(wait));
        Some(now.saturating_add(wait).unwrap_or(Timestamp::MAX))
    }
}

/// The wait, up to [`JITTER_PERCENT`] shorter or longer.
fn jittered(wait: Duration, random: u32) -> Duration {
    let share = u128::from(random) * 2 * u128::from(JITTER_PERCENT) / u128::from(u32::MAX);
    let nanos = wait.as_nanos() * (u128::from(100 - JITTER_PERCENT) + share) / 100;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A handler's Retry-After value: a wait up to [`MAX_WAIT`].
pub(crate) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    asked_wait(value, now).map(|wait| wait.min(MAX_WAIT))
}

/// A Retry-After value (RFC 9110, section 10.2.3): seconds, or a date. It has no bound.
pub(crate) fn asked_wait(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// A set of statuses, such as 408, 425, 429 and all from 500 to 599.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statuses(pub(crate) Vec<RangeInclusive<u16>>);

impl Statuses {
    fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusRule {
    /// While the sender waits: statuses that are retried instead of passed on.
    pub retry_on: Statuses,
    /// Once the sender has its ack: statuses that end the event at once.
    pub give_up_on: Statuses,
}

impl Default for StatusRule {
    fn default() -> Self {
        Self {
            retry_on: Statuses(vec![408..=408, 425..=425, 429..=429, 500..=599]),
            give_up_on: Statuses(vec![410..=410]),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Success,
    /// The event ends here, not delivered; the sender, if it waits, gets the answer.
    Final,
    /// The event is tried again by the schedule; the sender, if it waits, gets the ack.
    Again,
}

impl StatusRule {
    pub(crate) fn while_waiting(&self, status: u16) -> Judgement {
        match status {
            200..=299 => Judgement::Success,
            _ if self.retry_on.contains(status) => Judgement::Again,
            _ => Judgement::Final,
        }
    }

    pub(crate) fn after_ack(&self, status: u16) -> Judgement {
        match status {
            200..=299 => Judgement::Success,
            _ if self.give_up_on.contains(status) => Judgement::Final,
            _ => Judgement::Again,
        }
    }
}

#[cfg(test)]
mod tests;

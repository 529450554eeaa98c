//! What one session has in flight for one endpoint, and whether it takes more.
//!
//! Counts and decides; which session is asked is for [`super::choose`] to say. Invariants: an exchange counts until its
//! [`Counted`] is dropped, and never more of them than the agent said that it takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};

use super::{super::targets::Target, choose::UNKNOWN_WAIT};
use crate::{rate_limiter::RateLimiter, retry::Gate};

/// Exchanges in flight for one endpoint on one session, how many its agent takes at a time and how often, and how its
/// target does.
pub(super) struct Load {
    pub(super) capacity: i64,
    pub(super) in_flight: AtomicI64,
    /// One of them has ended; whoever waits for that takes its place.
    pub(super) freed: Notify,
    pub(super) limiter: Option<RateLimiter>,
    pub(super) target: Target,
}

impl Load {
    pub(super) fn is_full(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) >= self.capacity
    }

    /// How many exchanges its rate and its circuit allow now, at least one. Circuits are respected as they are at a time.
    pub(super) fn room(&self, respected: Option<Timestamp>) -> Result<u32, Option<Duration>> {
        let gate = respected.map_or(Gate::Pass, |today| self.target.gate(today));
        if let (Gate::Wait(until), Some(today)) = (gate, respected) {
            // Once its time is over it waits for the end of a probe, and nobody knows when that is.
            return Err(Duration::try_from(until.duration_since(today)).ok().filter(|wait| !wait.is_zero()));
        }
        let room = self.limiter.as_ref().map_or(Ok(u32::MAX), |limiter| limiter.room(Instant::now())).map_err(Some)?;
        Ok(if gate == Gate::Probe { 1 } else { room })
    }

    /// Takes one of them; whether it is a probe.
    pub(super) fn take(&self, respected: Option<Timestamp>) -> Result<bool, Duration> {
        if let Some(limiter) = &self.limiter {
            limiter.take(Instant::now())?;
        }
        match respected.map_or(Gate::Pass, |today| self.target.ask(today)) {
            Gate::Pass => Ok(false),
            Gate::Probe => Ok(true),
            Gate::Wait(_) => Err(UNKNOWN_WAIT), // Another one was quicker.
        }
    }
}

pub(super) struct Counted {
    pub(super) load: Arc<Load>,
    /// Nobody is told of its end.
    quiet: bool,
}

impl Counted {
    /// `None` if its agent takes no more at a time.
    pub(super) fn new(load: Arc<Load>) -> Option<Self> {
        let more = |in_flight: i64| (in_flight < load.capacity).then_some(in_flight + 1);
        load.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { load, quiet: false })
    }

    /// There is no exchange after all. Whoever found that would wake itself, and look again without end.
    pub(super) fn withdraw(mut self) {
        self.quiet = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.quiet {
            self.load.freed.notify_one();
        }
    }
}

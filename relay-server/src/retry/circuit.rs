//! A circuit for each target: the relay leaves a target alone that keeps failing, and then tries it with one attempt.
//!
//! Closed: everything passes. Open: nothing passes until the pause is over. Then one probe passes; its success closes
//! the circuit, its failure opens it again for a longer pause, up to the rule's longest.

use std::time::Duration;

use jiff::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CircuitRule {
    pub failures: u32,
    pub pause: Duration,
    /// Pauses double up to this.
    pub longest: Duration,
}

impl Default for CircuitRule {
    fn default() -> Self {
        Self { failures: 10, pause: Duration::from_secs(10), longest: Duration::from_secs(300) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Pass,
    /// Go on, with this attempt alone: its end decides.
    Probe,
    /// Wait until then, or for the end of the probe that is under way.
    Wait(Timestamp),
}

/// The standing of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Circuit {
    failures: u32,
    /// When the pause ends, and how long it is.
    open: Option<(Timestamp, Duration)>,
    probe: bool,
}

impl Circuit {
    /// Whether an attempt may start now. After [`Gate::Probe`] its end must be told.
    pub(crate) fn ask(&mut self, now: Timestamp) -> Gate {
        let gate = self.gate(now);
        self.probe |= gate == Gate::Probe;
        gate
    }

    /// What [`Circuit::ask`] would say.
    pub(crate) fn gate(&self, now: Timestamp) -> Gate {
        match self.open {
            None => Gate::Pass,
            Some((until, _)) if self.probe || now < until => Gate::Wait(until),
            Some(_) => Gate::Probe,
        }
    }

    /// When the pause ends after which an attempt is made again, where attempts are held back.
    pub(crate) fn open_until(&self) -> Option<Timestamp> {
        self.open.map(|(until, _)| until)
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// An attempt failed. Ends of attempts that began before the circuit opened change nothing while it is open.
    pub(crate) fn failed(&mut self, was_probe: bool, rule: &CircuitRule, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let pause = match self.open {
            Some((_, pause)) if was_probe => pause.saturating_mul(2).min(rule.longest),
            None if self.failures >= rule.failures => rule.pause,
            _ => return,
        };
        self.probe = false;
        self.open = Some((now.saturating_add(pause).unwrap_or(Timestamp::MAX), pause));
    }

    /// The probe never reached the target: the next attempt is the probe.
    pub(crate) fn probe_not_made(&mut self) {
        self.probe = false;
    }
}

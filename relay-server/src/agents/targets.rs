//! How the targets behind the agents do: a circuit for each agent's name at each endpoint.
//!
//! The relay does not know targets, but an agent's name at an endpoint stands for one set of them. A circuit outlives
//! its sessions, so that an agent that reconnects is no news of its target. Invariant: there are at most
//! [`MAX_DETACHED`] circuits more than agents are attached.

use std::{collections::HashMap, fmt, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::registry::AgentIdentity;
use crate::retry::{Circuit, CircuitRule, Gate};

/// Circuits that are remembered of agents that are away.
const MAX_DETACHED: usize = 1024;

/// What attempts through one agent's name met at one endpoint.
#[derive(Clone, Default)]
pub(crate) struct Target(Arc<Mutex<Circuit>>);

impl Target {
    /// What an attempt may do now; it changes nothing.
    pub(crate) fn gate(&self, now: Timestamp) -> Gate {
        self.0.lock().gate(now)
    }

    /// Asks for the right to an attempt. After [`Gate::Probe`] its end must be told.
    pub(crate) fn ask(&self, now: Timestamp) -> Gate {
        self.0.lock().ask(now)
    }

    /// When it is tried again, where it failed so often that it is left alone.
    pub(crate) fn open_until(&self) -> Option<Timestamp> {
        self.0.lock().open_until()
    }

    pub(crate) fn succeeded(&self) {
        self.0.lock().succeeded();
    }

    pub(crate) fn failed(&self, was_probe: bool, rule: &CircuitRule, now: Timestamp) {
        self.0.lock().failed(was_probe, rule, now);
    }

    /// The probe never reached the target.
    pub(crate) fn probe_not_made(&self) {
        self.0.lock().probe_not_made();
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0.lock(), f)
    }
}

#[derive(Default)]
pub(super) struct Targets(HashMap<(String, Arc<str>, Arc<str>), Target>);

impl Targets {
    /// The target of an agent at an endpoint, which its token's other agents of this name share.
    pub(super) fn of(&mut self, endpoint: &str, agent: &AgentIdentity) -> Target {
        let detached = |target: &Target| Arc::strong_count(&target.0) == 1;
        if self.0.values().filter(|target| detached(target)).count() >= MAX_DETACHED {
            self.0.retain(|_, target| !detached(target));
        }
        let key = (endpoint.to_owned(), Arc::clone(&agent.token), Arc::clone(&agent.name));
        self.0.entry(key).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_target_is_remembered_while_its_agent_is_away_but_not_without_end() {
        let agent = |name: &str| AgentIdentity { token: "t".into(), name: name.into(), instance: [0; 16] };
        let rule = CircuitRule { failures: 1, pause: Duration::from_secs(10), longest: Duration::from_secs(10) };
        let (mut targets, now) = (Targets::default(), Timestamp::UNIX_EPOCH);
        targets.of("e", &agent("a")).failed(false, &rule, now);
        assert!(matches!(targets.of("e", &agent("a")).gate(now), Gate::Wait(_)), "it comes back");
        assert_eq!(targets.of("e", &agent("b")).gate(now), Gate::Pass, "another agent");
        assert_eq!(targets.of("other", &agent("a")).gate(now), Gate::Pass, "another endpoint");
        let held = targets.of("e", &agent("a"));
        for number in 0..3 * MAX_DETACHED {
            let _ = targets.of("e", &agent(&number.to_string()));
        }
        assert!(targets.0.len() <= MAX_DETACHED + 1, "{}", targets.0.len());
        assert!(matches!(targets.of("e", &agent("a")).gate(now), Gate::Wait(_)), "who is there is not forgotten");
        drop(held);
    }
}

//! Whether every endpoint is attached, for `/readyz`.
//!
//! The supervisor and the current session keep it; what an older session still receives does not count.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use super::offers::EndpointState;
use crate::routes::Table;

/// How the agent stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The endpoints of the settings.
    wanted: Vec<String>,
    /// The state of each by the current session.
    states: BTreeMap<String, EndpointState>,
    /// Which session that is.
    serial: u64,
    stopping: bool,
}

impl Status {
    /// What is not attached, and why; empty when the agent is ready.
    pub(crate) fn missing(&self) -> Vec<(String, String)> {
        let why = |name: &String| match self.states.get(name) {
            _ if self.stopping => Some("stopping".to_owned()),
            None => Some("not connected".to_owned()),
            Some(EndpointState::Refused(code)) => Some(format!("refused: {code}")),
            Some(_) => None,
        };
        let shown = |name: &String| if name.is_empty() { "(the token's only one)".to_owned() } else { name.clone() };
        self.wanted.iter().filter_map(|name| Some((shown(name), why(name)?))).collect()
    }

    /// What the current session is to an endpoint of the settings.
    pub(crate) fn state(&self, name: &str) -> Option<&EndpointState> {
        self.states.get(name)
    }
}

/// Where the status is kept. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatusSender(Arc<watch::Sender<Status>>);

impl StatusSender {
    /// Sees every status from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    pub(super) fn state(&self, name: &str) -> Option<EndpointState> {
        self.0.borrow().state(name).cloned()
    }

    pub(super) fn wanted(&self, table: &Table) {
        let wanted = table.iter().map(|endpoint| endpoint.name.clone()).collect();
        self.0.send_modify(|status| status.wanted = wanted);
    }

    /// A new session is current.
    pub(super) fn opened(&self, serial: u64, states: impl Iterator<Item = (String, EndpointState)>) {
        let states = states.collect();
        self.0.send_modify(|status| (status.serial, status.states) = (serial, states));
    }

    /// A state has changed by the word of a session; false if it is not the current one.
    pub(super) fn changed(&self, serial: u64, name: &str, state: EndpointState) -> bool {
        self.0.send_if_modified(|status| {
            let current = status.serial == serial;
            if current {
                status.states.insert(name.to_owned(), state);
            }
            current
        })
    }

    /// There is no session.
    pub(super) fn disconnected(&self) {
        self.0.send_modify(|status| status.states.clear());
    }

    pub(super) fn stopping(&self) {
        self.0.send_modify(|status| status.stopping = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::AgentRole;

    fn status(states: &[(&str, EndpointState)]) -> StatusSender {
        let sender = StatusSender::default();
        sender.0.send_modify(|status| status.wanted = vec!["a".to_owned(), "b".to_owned()]);
        sender.opened(1, states.iter().map(|(name, state)| ((*name).to_owned(), state.clone())));
        sender
    }

    fn missing(sender: &StatusSender) -> String {
        let missing = sender.0.borrow().missing();
        missing.iter().map(|(name, why)| format!("{name}: {why};")).collect()
    }

    #[test]
    fn all_endpoints_must_be_attached() {
        let attached = EndpointState::Attached;
        let sender = status(&[("a", attached(AgentRole::Active)), ("b", EndpointState::Refused("not_allowed".into()))]);
        assert_eq!(missing(&sender), "b: refused: not_allowed;");
        assert!(sender.changed(1, "b", attached(AgentRole::Standby)));
        assert_eq!(missing(&sender), "", "one that stands by is as it should be");
        assert!(!sender.changed(0, "b", EndpointState::Refused(String::new())), "an older session says so");
        sender.disconnected();
        assert_eq!(missing(&sender), "a: not connected;b: not connected;");
        sender.opened(2, [("a".to_owned(), attached(AgentRole::Copy))].into_iter());
        assert_eq!(missing(&sender), "b: not connected;");
        sender.stopping();
        assert_eq!(missing(&sender), "a: stopping;b: stopping;");
    }
}

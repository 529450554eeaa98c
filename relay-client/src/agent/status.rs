//! Whether every endpoint is attached, for `/readyz`.
//!
//! The supervisor and the current session keep it; what an older session still receives does not count.

use std::{collections::BTreeMap, sync::Arc};

use relay_proto::OfferState;
use tokio::sync::watch;

use crate::routes::Table;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The endpoints of the settings.
    wanted: Vec<String>,
    states: BTreeMap<String, OfferState>,
    serial: u64,
    stopping: bool,
}

impl Status {
    /// What is not attached, and why; empty when the agent is ready.
    pub(crate) fn missing(&self) -> Vec<(String, String)> {
        let why = |name: &String| match self.states.get(name) {
            _ if self.stopping => Some("stopping".to_owned()),
            None => Some("not connected".to_owned()),
            Some(OfferState::Refused { code }) => Some(format!("refused: {code}")),
            Some(_) => None,
        };
        let shown = |name: &String| if name.is_empty() { "(the token's only one)".to_owned() } else { name.clone() };
        self.wanted.iter().filter_map(|name| Some((shown(name), why(name)?))).collect()
    }
}

/// Where the status is kept. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatusSender(Arc<watch::Sender<Status>>);

impl StatusSender {
    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    /// Whether the current session is the active one of an endpoint.
    pub(super) fn is_active(&self, name: &str) -> bool {
        self.0.borrow().states.get(name) == Some(&OfferState::Accepted)
    }

    pub(super) fn wanted(&self, table: &Table) {
        let wanted = table.iter().map(|endpoint| endpoint.offer.endpoint.clone()).collect();
        self.0.send_modify(|status| status.wanted = wanted);
    }

    /// A new session is current, which gets this number.
    pub(super) fn opened(&self, states: BTreeMap<String, OfferState>) -> u64 {
        self.0.send_modify(|status| (status.serial, status.states) = (status.serial + 1, states));
        self.0.borrow().serial
    }

    /// A state has changed by the word of a session; false if it is not the current one.
    pub(super) fn changed(&self, serial: u64, name: &str, state: OfferState) -> bool {
        self.0.send_if_modified(|status| {
            let current = status.serial == serial;
            if current {
                status.states.insert(name.to_owned(), state);
            }
            current
        })
    }

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

    fn states<const N: usize>(states: [(&str, OfferState); N]) -> BTreeMap<String, OfferState> {
        states.into_iter().map(|(name, state)| (name.to_owned(), state)).collect()
    }

    fn missing(sender: &StatusSender) -> String {
        let missing = sender.0.borrow().missing();
        missing.iter().map(|(name, why)| format!("{name}: {why};")).collect()
    }

    #[test]
    fn all_endpoints_must_be_attached() {
        let sender = StatusSender::default();
        sender.0.send_modify(|status| status.wanted = vec!["a".to_owned(), "b".to_owned()]);
        let refused = OfferState::Refused { code: "not_allowed".to_owned() };
        let first = sender.opened(states([("a", OfferState::Accepted), ("b", refused.clone())]));
        assert_eq!(missing(&sender), "b: refused: not_allowed;");
        assert!(sender.changed(first, "b", OfferState::Standby));
        assert_eq!(missing(&sender), "", "one that stands by is as it should be");
        sender.disconnected();
        assert_eq!(missing(&sender), "a: not connected;b: not connected;");
        sender.opened(states([("a", OfferState::Copy)]));
        assert!(!sender.changed(first, "b", OfferState::Standby), "an older session says so");
        assert_eq!(missing(&sender), "b: not connected;");
        sender.stopping();
        assert_eq!(missing(&sender), "a: stopping;b: stopping;");
    }
}

//! How the agent stands with the relay: for `/readyz`, and for the local page.
//!
//! The supervisor and the current session keep it; what an older session still receives does not count.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use relay_proto::OfferState;
use tokio::sync::watch;

use crate::routes::{Endpoint, Table};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The endpoints of the settings.
    wanted: Vec<Wanted>,
    states: BTreeMap<String, OfferState>,
    /// What the relay calls them, and where senders find them.
    names: BTreeMap<String, PublicName>,
    serial: u64,
    stopping: bool,
    link: LinkState,
    since: Timestamp,
}

/// An endpoint of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Empty for the token's only one.
    pub(crate) name: String,
    pub(crate) targets: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PublicName {
    pub(crate) name: String,
    pub(crate) url: String,
}

/// Whether there is a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum LinkState {
    #[default]
    Connecting,
    Open,
    Lost {
        why: String,
        again_at: Timestamp,
    },
    Refused {
        why: String,
    },
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
        self.wanted.iter().filter_map(|Wanted { name, .. }| Some((shown(name), why(name)?))).collect()
    }

    /// Whether there is a session, and since when that is so.
    pub(crate) fn link(&self) -> (&LinkState, Timestamp) {
        (&self.link, self.since)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// The endpoints of the settings, with what the relay made of them.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (&Wanted, Option<&OfferState>, Option<&PublicName>)> {
        self.wanted.iter().map(|wanted| (wanted, self.states.get(&wanted.name), self.names.get(&wanted.name)))
    }

    fn turn(&mut self, link: LinkState) {
        (self.link, self.since) = (link, Timestamp::now());
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
        let wanted =
            |endpoint: &Arc<Endpoint>| Wanted { name: endpoint.offer.endpoint.clone(), targets: endpoint.targets() };
        let wanted = table.iter().map(wanted).collect();
        self.0.send_modify(|status| {
            status.wanted = wanted;
            if status.serial == 0 && status.link == LinkState::Connecting {
                status.turn(LinkState::Connecting);
            }
        });
    }

    /// A new session is current, which gets this number.
    pub(super) fn opened(&self, states: BTreeMap<String, OfferState>, names: BTreeMap<String, PublicName>) -> u64 {
        self.0.send_modify(|status| {
            (status.serial, status.states, status.names) = (status.serial + 1, states, names);
            status.turn(LinkState::Open);
        });
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

    /// There is no session, and the next one is tried for after a while.
    pub(super) fn lost(&self, why: &str, after: Duration) {
        let again_at = Timestamp::now().saturating_add(after).unwrap_or(Timestamp::MAX);
        self.disconnected(LinkState::Lost { why: why.to_owned(), again_at });
    }

    /// There is no session, and the relay wants none.
    pub(super) fn refused(&self, why: &str) {
        self.disconnected(LinkState::Refused { why: why.to_owned() });
    }

    fn disconnected(&self, link: LinkState) {
        self.0.send_modify(|status| {
            status.states.clear();
            status.turn(link);
        });
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
        let wanted = |name: &str| Wanted { name: name.to_owned(), targets: String::new() };
        sender.0.send_modify(|status| status.wanted = vec![wanted("a"), wanted("b")]);
        let refused = OfferState::Refused { code: "not_allowed".to_owned() };
        let first = sender.opened(states([("a", OfferState::Accepted), ("b", refused.clone())]), BTreeMap::new());
        assert_eq!(missing(&sender), "b: refused: not_allowed;");
        assert!(sender.changed(first, "b", OfferState::Standby));
        assert_eq!(missing(&sender), "", "one that stands by is as it should be");
        sender.lost("cut", Duration::from_secs(1));
        assert!(matches!(sender.0.borrow().link(), (LinkState::Lost { why, .. }, _) if why == "cut"));
        assert_eq!(missing(&sender), "a: not connected;b: not connected;");
        sender.opened(states([("a", OfferState::Copy)]), BTreeMap::new());
        assert_eq!(sender.0.borrow().link().0, &LinkState::Open);
        assert!(!sender.changed(first, "b", OfferState::Standby), "an older session says so");
        assert_eq!(missing(&sender), "b: not connected;");
        sender.stopping();
        assert_eq!(missing(&sender), "a: stopping;b: stopping;");
    }
}

//! The challenges that providers sent and what became of them: the last few, for who sets an endpoint up.
//!
//! In memory and bounded. No answer, token or secret is kept; a URL that would have confirmed a subscription is, where
//! the relay may not call it itself, because then a person has to, and so is a code that a provider wants to have back.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;

use crate::webhook::EventId;

/// Challenges that are kept.
pub const MAX_KEPT: usize = 256;

/// A challenge.
#[derive(Debug)]
pub struct Handshake {
    /// The id that its answer carried.
    pub event_id: EventId,
    /// When it came.
    pub at: Timestamp,
    /// The endpoint's name.
    pub endpoint: String,
    /// The endpoint's provider.
    pub provider: String,
    /// Which of the provider's challenges it was.
    pub name: String,
    /// The sender's address, behind trusted proxies.
    pub client: IpAddr,
    /// Whether a secret was learnt.
    pub learnt: bool,
    /// What a person has to take back to the provider.
    pub shown: Option<String>,
    /// What is left for a person to open.
    pub confirm_url: Option<String>,
}

/// The last challenges.
#[derive(Default)]
pub struct Handshakes(Mutex<VecDeque<Arc<Handshake>>>);

impl Handshakes {
    /// Keeps one; the oldest goes when there are too many.
    pub fn record(&self, handshake: Handshake) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::new(handshake));
    }

    /// The last ones of an endpoint or of all, the newest first.
    #[must_use]
    pub fn list(&self, endpoint: Option<&str>, limit: usize) -> Vec<Arc<Handshake>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = kept.iter().rev().filter(|one| endpoint.is_none_or(|name| name == one.endpoint));
        wanted.take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_come_first() {
        let handshakes = Handshakes::default();
        for number in 0..MAX_KEPT + 2 {
            handshakes.record(Handshake {
                event_id: EventId::new(),
                at: Timestamp::UNIX_EPOCH,
                endpoint: if number % 2 == 0 { "even" } else { "odd" }.to_owned(),
                provider: "slack".to_owned(),
                name: number.to_string(),
                client: IpAddr::from([192, 0, 2, 1]),
                learnt: false,
                shown: None,
                confirm_url: None,
            });
        }
        assert_eq!(handshakes.list(None, usize::MAX).len(), MAX_KEPT);
        assert_eq!(handshakes.list(None, 1)[0].name, (MAX_KEPT + 1).to_string());
        assert_eq!(handshakes.list(Some("even"), 1)[0].name, MAX_KEPT.to_string());
    }
}

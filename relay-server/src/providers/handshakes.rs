//! The challenges that providers sent and what became of them: the last few, for who sets an endpoint up.
//!
//! In memory and bounded, in all and for each endpoint. Some challenges prove nothing, so whoever likes can have many
//! answered: of one endpoint's those go first from which nothing came, and of these those of the address that has the
//! most. No answer, token or secret is kept; a URL that would have confirmed a subscription is, where the relay may not
//! call it itself, because then a person has to, and so is a code that a provider wants to have back.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::webhook::EventId;

pub(crate) const MAX_KEPT: usize = 256;

pub(crate) const MAX_OF_ONE: usize = 64;

#[derive(Debug)]
pub(crate) struct Handshake {
    /// The id that its answer carried.
    pub event_id: EventId,
    pub at: Timestamp,
    pub endpoint: String,
    pub provider: String,
    /// Which of the provider's challenges it was.
    pub name: String,
    /// The sender's address, behind trusted proxies.
    pub client: IpAddr,
    pub learnt: bool,
    /// What a person has to take back to the provider.
    pub shown: Option<String>,
    /// What is left for a person to open.
    pub confirm_url: Option<String>,
}

#[derive(Default)]
pub(crate) struct Handshakes(Mutex<VecDeque<Arc<Handshake>>>);

impl Handshakes {
    /// Keeps one. When its endpoint has too many one of these goes, and of too many in all one of the endpoint that has
    /// the most.
    pub(crate) fn record(&self, handshake: Handshake) {
        let mut kept = self.0.lock();
        let endpoint = handshake.endpoint.clone();
        kept.push_back(Arc::new(handshake));
        let own = kept.iter().filter(|one| one.endpoint == endpoint).count();
        let goes = if own > MAX_OF_ONE {
            Some(endpoint)
        } else {
            most(kept.iter().map(|one| &one.endpoint)).filter(|_| kept.len() > MAX_KEPT).cloned()
        };
        if let Some(place) = goes.and_then(|endpoint| least(&kept, &endpoint)) {
            kept.remove(place);
        }
    }

    pub(crate) fn find(&self, event_id: EventId) -> Option<Arc<Handshake>> {
        self.0.lock().iter().rev().find(|one| one.event_id == event_id).cloned()
    }

    /// The last ones of an endpoint or of all, the newest first.
    pub(crate) fn list(&self, endpoint: Option<&str>, limit: usize) -> Vec<Arc<Handshake>> {
        let kept = self.0.lock();
        let wanted = kept.iter().rev().filter(|one| endpoint.is_none_or(|name| name == one.endpoint));
        wanted.take(limit).cloned().collect()
    }
}

/// Which of an endpoint's challenges is missed least.
fn least(kept: &VecDeque<Arc<Handshake>>, endpoint: &str) -> Option<usize> {
    let own = || kept.iter().enumerate().filter(|(_, one)| one.endpoint == endpoint);
    let idle = || own().filter(|(_, one)| !one.learnt && one.shown.is_none() && one.confirm_url.is_none());
    let loudest = most(idle().map(|(_, one)| &one.client));
    let first = idle().find(|(_, one)| Some(&one.client) == loudest).or_else(|| own().next());
    first.map(|(place, _)| place)
}

/// What is there most often.
fn most<'a, T: Eq + Hash>(all: impl Iterator<Item = &'a T>) -> Option<&'a T> {
    let mut counts: HashMap<&T, usize> = HashMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(one, _)| one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(endpoint: &str, number: usize, client: u8) -> Handshake {
        Handshake {
            event_id: EventId::new(),
            at: Timestamp::UNIX_EPOCH,
            endpoint: endpoint.to_owned(),
            provider: "slack".to_owned(),
            name: number.to_string(),
            client: IpAddr::from([192, 0, 2, client]),
            learnt: false,
            shown: None,
            confirm_url: None,
        }
    }

    #[test]
    fn the_newest_are_kept_and_come_first() {
        let handshakes = Handshakes::default();
        for number in 0..MAX_OF_ONE * 3 {
            handshakes.record(handshake(if number % 2 == 0 { "even" } else { "odd" }, number, 1));
        }
        assert_eq!(handshakes.list(None, usize::MAX).len(), 2 * MAX_OF_ONE);
        assert_eq!(handshakes.list(None, 1)[0].name, (MAX_OF_ONE * 3 - 1).to_string());
        let even = handshakes.list(Some("even"), usize::MAX);
        assert_eq!((even[0].name.as_str(), even.len()), (&*(MAX_OF_ONE * 3 - 2).to_string(), MAX_OF_ONE));
    }

    #[test]
    fn a_flood_of_challenges_washes_nothing_else_away() {
        let handshakes = Handshakes::default();
        handshakes.record(handshake("other", 1, 1));
        handshakes.record(Handshake { learnt: true, ..handshake("loud", 2, 1) });
        handshakes.record(Handshake { confirm_url: Some("https://a.test".to_owned()), ..handshake("loud", 3, 1) });
        handshakes.record(handshake("loud", 4, 7));
        for number in 0..1000 {
            handshakes.record(handshake("loud", 100 + number, 66));
        }
        let of = |endpoint: &str| -> Vec<String> {
            handshakes.list(Some(endpoint), usize::MAX).iter().rev().map(|one| one.name.clone()).collect()
        };
        assert_eq!(of("other"), ["1"]);
        assert_eq!(of("loud")[..3], ["2", "3", "4"], "what came of it, and another's");
        assert_eq!(of("loud").len(), MAX_OF_ONE);
        // Many endpoints: the loudest gives way.
        for number in 0..MAX_KEPT {
            handshakes.record(handshake(&format!("e{}", number % 50), number, 1));
        }
        assert!(handshakes.list(None, usize::MAX).len() <= MAX_KEPT);
        assert_eq!(of("other"), ["1"]);
        // Even where all of them matter there are no more.
        let handshakes = Handshakes::default();
        for number in 0..MAX_OF_ONE + 5 {
            handshakes.record(Handshake { learnt: true, ..handshake("all", number, 1) });
        }
        assert_eq!(handshakes.list(Some("all"), usize::MAX).len(), MAX_OF_ONE);
    }
}

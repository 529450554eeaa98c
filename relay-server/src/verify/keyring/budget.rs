//! How often an endpoint's keys may be asked for.
//!
//! A sender can name a key in its request, so each address of a key has its own pauses, and addresses that never worked
//! share what a minute allows: some for each sender, so that one who invents names leaves room for others. An address
//! that worked before does not count there. Pure: the time is an argument. Invariants: an attempt is noted as it
//! begins; at most [`MAX_REMEMBERED`] addresses are remembered.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::FetchEnd;
use crate::address::{is_local, site};

/// Attempts within [`WINDOW`] at addresses that never worked, of all senders together.
pub(super) const MAX_NEW: usize = 30;

/// Such attempts that one sender causes.
pub(super) const MAX_NEW_PER_SENDER: usize = 10;

pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Between two attempts at one address, at first; it doubles with each failure.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest such pause: a provider that is back is noticed within it.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Addresses that are remembered: more than can be new within the longest pause.
const MAX_REMEMBERED: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FetchTurn {
    /// Ask; it is noted.
    Go,
    /// Not ask: the provider said a moment ago that there is no such key.
    Gone,
    /// Ask after this time.
    Wait(Duration),
}

#[derive(Debug, Default)]
pub(super) struct Budget {
    /// The last attempt at each address, the oldest first.
    tried: Vec<Tried>,
    /// Since when attempts at new addresses are counted, and who caused them.
    window: Option<(Instant, Vec<IpAddr>)>,
}

#[derive(Debug)]
struct Tried {
    url: String,
    at: Instant,
    /// Failures since it last worked; one that is under way counts as one.
    failures: u32,
    last: FetchEnd,
    has_worked: bool,
}

impl Budget {
    /// Whether this address ever had a key, as far as that is remembered.
    pub(super) fn has_worked(&self, url: &str) -> bool {
        self.tried.iter().any(|tried| tried.url == url && tried.has_worked)
    }

    /// Whether this address may be asked for a key now. `sender` is whose request names it, unless it is known to be good.
    pub(super) fn take(&mut self, url: &str, sender: Option<IpAddr>, now: Instant) -> FetchTurn {
        let known = self.tried.iter().position(|tried| tried.url == url);
        if let Some(tried) = known.map(|at| &self.tried[at]) {
            let pause = FIRST_PAUSE.saturating_mul(1 << tried.failures.saturating_sub(1).min(8)).min(LONGEST_PAUSE);
            let pause = if tried.last == FetchEnd::Gone { LONGEST_PAUSE } else { pause };
            let left = (tried.at + pause).saturating_duration_since(now);
            if !left.is_zero() {
                return if tried.last == FetchEnd::Gone { FetchTurn::Gone } else { FetchTurn::Wait(left) };
            }
        }
        if let Some(sender) = sender.map(site) {
            let (since, senders) = match &mut self.window {
                Some((since, senders)) if now.saturating_duration_since(*since) < WINDOW => (*since, senders),
                window => {
                    let (since, senders) = window.insert((now, Vec::new()));
                    (*since, senders)
                }
            };
            let own = senders.iter().filter(|other| **other == sender).count();
            // Behind an address of one's own network many come as one.
            if senders.len() >= MAX_NEW || (own >= MAX_NEW_PER_SENDER && !is_local(sender)) {
                return FetchTurn::Wait((since + WINDOW).saturating_duration_since(now));
            }
            senders.push(sender);
        }
        let (failures, has_worked) = known.map_or((0, false), |at| {
            let tried = self.tried.remove(at);
            (tried.failures, tried.has_worked)
        });
        if self.tried.len() >= MAX_REMEMBERED {
            // Inventions go first.
            let oldest = self.tried.iter().position(|tried| !tried.has_worked).unwrap_or(0);
            self.tried.remove(oldest);
        }
        let failures = failures.saturating_add(1);
        self.tried.push(Tried { url: url.to_owned(), at: now, failures, last: FetchEnd::Failed, has_worked });
        FetchTurn::Go
    }

    pub(super) fn ended(&mut self, url: &str, end: FetchEnd) {
        let Some(tried) = self.tried.iter_mut().find(|tried| tried.url == url) else { return };
        tried.last = end;
        if end == FetchEnd::Brought {
            (tried.failures, tried.has_worked) = (0, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_own_pauses() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for (now, turn) in [
            (0, FetchTurn::Go),
            (1, FetchTurn::Wait(Duration::from_secs(4))),
            (5, FetchTurn::Go),
            (14, FetchTurn::Wait(Duration::from_secs(1))),
            (15, FetchTurn::Go),
            (35, FetchTurn::Go),
            (75, FetchTurn::Go),
            (134, FetchTurn::Wait(Duration::from_secs(1))),
            (135, FetchTurn::Go),
        ] {
            assert_eq!(budget.take("a", None, at(now)), turn, "{now}");
        }
        assert_eq!(budget.take("b", None, at(135)), FetchTurn::Go, "another address");
        budget.ended("a", FetchEnd::Brought);
        assert_eq!(budget.take("a", None, at(140)), FetchTurn::Go, "it works again");
        budget.ended("a", FetchEnd::Gone);
        assert_eq!(
            (budget.take("a", None, at(199)), budget.take("a", None, at(200))),
            (FetchTurn::Gone, FetchTurn::Go)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_invents_addresses_leaves_room_for_others_and_for_what_worked() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        assert_eq!(budget.take("good", sender(1), now), FetchTurn::Go);
        budget.ended("good", FetchEnd::Brought);
        let mut invented = 0;
        let mut invent = |budget: &mut Budget, from: Option<IpAddr>| {
            invented += 1;
            budget.take(&format!("invented-{invented}"), from, now) == FetchTurn::Go
        };
        assert_eq!((0..100).filter(|_| invent(&mut budget, sender(2))).count(), MAX_NEW_PER_SENDER);
        assert!(invent(&mut budget, sender(3)), "another sender");
        let six = |last: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]));
        assert_eq!((0..100).filter(|last| invent(&mut budget, six(*last))).count(), MAX_NEW_PER_SENDER);
        assert_eq!(
            (10..110).filter(|last| invent(&mut budget, sender(*last))).count(),
            MAX_NEW - 2 * MAX_NEW_PER_SENDER - 2
        );
        assert_eq!(budget.take("new", sender(9), now), FetchTurn::Wait(WINDOW), "not refused, put off");
        let later = now + FIRST_PAUSE;
        assert!(budget.has_worked("good"));
        assert_eq!(budget.take("good", None, later), FetchTurn::Go);
        assert_eq!(budget.take("new", sender(9), now + WINDOW), FetchTurn::Go);
        assert!(budget.tried.len() <= MAX_REMEMBERED);
    }
}

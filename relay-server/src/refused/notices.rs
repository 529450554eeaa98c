//! Bounds the notices of refused requests to agents: of one endpoint a few in a second, and then how many more there were.
//!
//! Whoever finds an endpoint's address decides how many there are, and each would be a frame to every agent.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Refused requests of one endpoint that have a notice each in a second.
const MAX_NOTICES: u32 = 10;

pub(super) const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoticeTurn {
    /// Send a notice of it now.
    Now,
    /// It was counted. Send the number after a [`SECOND`]: nobody else does yet.
    Later,
    Counted,
}

/// Counts them by endpoint; names come from the config.
#[derive(Debug, Default)]
pub(super) struct NoticeLimiter(Mutex<HashMap<String, Second>>);

#[derive(Debug)]
struct Second {
    began: Instant,
    sent: u32,
    more: u64,
}

impl NoticeLimiter {
    pub(super) fn count(&self, endpoint: &str, now: Instant) -> NoticeTurn {
        let mut all = self.0.lock();
        let new = Second { began: now, sent: 0, more: 0 };
        let Some(second) = all.get_mut(endpoint) else {
            all.insert(endpoint.to_owned(), Second { sent: 1, ..new });
            return NoticeTurn::Now;
        };
        if now.duration_since(second.began) >= SECOND {
            *second = Second { more: second.more, ..new };
        }
        if second.sent < MAX_NOTICES {
            second.sent += 1;
            return NoticeTurn::Now;
        }
        second.more += 1;
        if second.more == 1 { NoticeTurn::Later } else { NoticeTurn::Counted }
    }

    /// How many were counted and had no notice.
    pub(super) fn take(&self, endpoint: &str) -> u64 {
        let mut all = self.0.lock();
        all.get_mut(endpoint).map_or(0, |second| std::mem::take(&mut second.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_told_one_by_one_and_then_a_number() {
        let (limiter, began) = (NoticeLimiter::default(), Instant::now());
        let turns: Vec<NoticeTurn> = (0..1000).map(|_| limiter.count("hub", began)).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == NoticeTurn::Now).count(), MAX_NOTICES as usize);
        assert_eq!(turns.iter().filter(|turn| **turn == NoticeTurn::Later).count(), 1);
        assert_eq!(limiter.count("bills", began), NoticeTurn::Now, "each endpoint has its own second");
        assert_eq!(limiter.take("hub"), 1000 - u64::from(MAX_NOTICES));
        assert_eq!((limiter.take("hub"), limiter.take("nobody")), (0, 0));
        assert_eq!(limiter.count("hub", began + SECOND / 2), NoticeTurn::Later);
        assert_eq!(limiter.count("hub", began + SECOND), NoticeTurn::Now);
        assert_eq!(limiter.take("hub"), 1, "what was counted is not forgotten");
    }
}

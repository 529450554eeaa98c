//! What agents are told of refused requests: of one endpoint a few in a second, and then how many more there were.
//!
//! Whoever finds an endpoint's address decides how many there are, and each would be a frame to every agent.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Refused requests of one endpoint that are told one by one in a second.
const MAX_TOLD: u32 = 10;

/// How long they are counted for.
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// What to do about one more refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// Tell of it now.
    Now,
    /// It was counted. Tell the number after a [`SECOND`]: nobody else does yet.
    Later,
    Counted,
}

/// Counts them by endpoint; names come from the config.
#[derive(Debug, Default)]
pub(crate) struct Telling(Mutex<HashMap<String, Second>>);

#[derive(Debug)]
struct Second {
    began: Instant,
    told: u32,
    more: u64,
}

impl Telling {
    /// One more was refused.
    pub(crate) fn count(&self, endpoint: &str, now: Instant) -> Tell {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Second { began: now, told: 0, more: 0 };
        let Some(second) = all.get_mut(endpoint) else {
            all.insert(endpoint.to_owned(), Second { told: 1, ..new });
            return Tell::Now;
        };
        if now.duration_since(second.began) >= SECOND {
            *second = Second { more: second.more, ..new };
        }
        if second.told < MAX_TOLD {
            second.told += 1;
            return Tell::Now;
        }
        second.more += 1;
        if second.more == 1 { Tell::Later } else { Tell::Counted }
    }

    /// How many were counted and not told.
    pub(crate) fn take(&self, endpoint: &str) -> u64 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(endpoint).map_or(0, |second| std::mem::take(&mut second.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_told_one_by_one_and_then_a_number() {
        let (telling, began) = (Telling::default(), Instant::now());
        let told: Vec<Tell> = (0..1000).map(|_| telling.count("hub", began)).collect();
        assert_eq!(told.iter().filter(|tell| **tell == Tell::Now).count(), MAX_TOLD as usize);
        assert_eq!(told.iter().filter(|tell| **tell == Tell::Later).count(), 1);
        assert_eq!(telling.count("bills", began), Tell::Now, "each endpoint has its own second");
        assert_eq!(telling.take("hub"), 1000 - u64::from(MAX_TOLD));
        assert_eq!((telling.take("hub"), telling.take("nobody")), (0, 0));
        assert_eq!(telling.count("hub", began + SECOND / 2), Tell::Later);
        assert_eq!(telling.count("hub", began + SECOND), Tell::Now);
        assert_eq!(telling.take("hub"), 1, "what was counted is not forgotten");
    }
}

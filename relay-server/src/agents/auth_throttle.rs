//! The auth throttle: an address may try so often in so long, such as twenty wrong tokens in ten seconds.
//!
//! After that it waits until the time is over. What is right is not looked up here and passes, where its caller says so.
//! The table of addresses has a bounded size; when it is full, those with the fewest tries give way, so that nobody is
//! shut out by a crowd. An IPv6 address counts as its /64, since one host owns all of it.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::address;

/// Wrong tokens of one address within [`WINDOW`].
pub(crate) const MAX_WRONG: u32 = 20;

pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// Addresses that are counted at a time.
const MAX_ADDRESSES: usize = 4096;

/// The tries of the last seconds.
pub(crate) struct AuthThrottle {
    windows: Mutex<HashMap<IpAddr, Window>>,
    most: u32,
    within: Duration,
}

struct Window {
    began: Instant,
    wrong: u32,
}

impl AuthThrottle {
    /// So many tries of one address in so long.
    pub(crate) fn new(most: u32, within: Duration) -> Self {
        Self { windows: Mutex::default(), most, within }
    }

    /// How long this address has to wait, if it has tried too often.
    pub(crate) fn wait(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        let windows = self.windows.lock();
        let window = windows.get(&address::site(client)).filter(|window| window.wrong >= self.most)?;
        self.within.checked_sub(now.duration_since(window.began)).filter(|left| !left.is_zero())
    }

    /// Counts a try.
    pub(crate) fn count(&self, client: IpAddr, now: Instant) {
        let mut windows = self.windows.lock();
        let address = address::site(client);
        if !windows.contains_key(&address) && windows.len() >= MAX_ADDRESSES {
            windows.retain(|_, window| now.duration_since(window.began) < self.within);
            if windows.len() >= MAX_ADDRESSES {
                let fewest = windows.values().map(|window| window.wrong).min().unwrap_or(0);
                windows.retain(|_, window| window.wrong > fewest);
            }
        }
        let window = windows.entry(address).or_insert(Window { began: now, wrong: 0 });
        if now.duration_since(window.began) >= self.within {
            *window = Window { began: now, wrong: 0 };
        }
        window.wrong = window.wrong.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_wrong_tokens_close_the_door_to_one_address_for_ten_seconds() {
        let (throttle, now) = (AuthThrottle::new(MAX_WRONG, WINDOW), Instant::now());
        let (bad, good): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        for _ in 0..MAX_WRONG {
            assert_eq!(throttle.wait(bad, now), None);
            throttle.count(bad, now);
        }
        assert_eq!(throttle.wait(bad, now), Some(WINDOW));
        assert!(throttle.wait("2001:db8::2".parse().unwrap(), now).is_some(), "the same host under another address");
        assert_eq!(throttle.wait(good, now), None);
        assert_eq!(throttle.wait(bad, now + WINDOW), None);
        throttle.count(bad, now + WINDOW);
        assert_eq!(throttle.wait(bad, now + WINDOW), None, "the count began anew");
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_worst() {
        let (throttle, now) = (AuthThrottle::new(MAX_WRONG, WINDOW), Instant::now());
        let worst: IpAddr = "192.0.2.1".parse().unwrap();
        (0..MAX_WRONG).for_each(|_| throttle.count(worst, now));
        for number in 0..3 * u32::try_from(MAX_ADDRESSES).unwrap() {
            throttle.count(IpAddr::from(number.to_be_bytes()), now);
            assert!(throttle.windows.lock().len() <= MAX_ADDRESSES);
        }
        assert!(throttle.wait(worst, now).is_some());
    }
}

//! How much of an endpoint is let through to its handlers: so many exchanges in a time, and so many at a time.
//!
//! Counts for the whole process, whichever runtime an exchange is on. What is held back is for the caller to say: it
//! is refused, or waits in the store. Copies for those that watch are not counted. Invariants: nothing here waits; a
//! [`Admitted`] counts until it is dropped, and its end is told to who waits for it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{
    endpoint::{Endpoint, EndpointName},
    failure::{Failure, RelayFault},
    rate_limiter::RateLimiter,
};

/// What limited endpoints have let through. They are as many as the config ever named.
#[derive(Default)]
pub(crate) struct Admission {
    meters: Mutex<HashMap<EndpointName, Meter>>,
    freed: Notify,
}

#[derive(Default)]
struct Meter {
    in_flight: usize,
    limiter: Option<RateLimiter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// For how long; `None` until an exchange ends.
    pub wait: Option<Duration>,
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        RelayFault::Limited { wait: full.wait }.into()
    }
}

pub(crate) struct Admitted {
    admission: Arc<Admission>,
    endpoint: EndpointName,
}

impl Admission {
    /// How many exchanges may begin now, at most `most`, and at least one.
    pub(crate) fn room(&self, endpoint: &Endpoint, most: usize) -> Result<usize, Full> {
        if endpoint.rate.is_none() && endpoint.concurrency.is_none() {
            return Ok(most);
        }
        let now = Instant::now();
        let mut meters = self.meters.lock();
        let meter = meter(&mut meters, endpoint, now);
        let most = most.min(meter.free(endpoint)?);
        let room = meter.limiter.as_ref().map(|limiter| limiter.room(now)).transpose();
        let room = room.map_err(|wait| Full { wait: Some(wait) })?;
        Ok(room.map_or(most, |room| most.min(usize::try_from(room).unwrap_or(usize::MAX))))
    }

    /// The right to begin one; to be kept until it is over.
    pub(crate) fn take(self: &Arc<Self>, endpoint: &Endpoint) -> Result<Option<Admitted>, Full> {
        if endpoint.rate.is_none() && endpoint.concurrency.is_none() {
            return Ok(None);
        }
        let now = Instant::now();
        let mut meters = self.meters.lock();
        let meter = meter(&mut meters, endpoint, now);
        meter.free(endpoint)?;
        if let Some(limiter) = &meter.limiter {
            limiter.take(now).map_err(|wait| Full { wait: Some(wait) })?;
        }
        meter.in_flight += 1;
        Ok(Some(Admitted { admission: Arc::clone(self), endpoint: endpoint.name.clone() }))
    }

    /// Ends when an exchange of a limited endpoint is over. One that ended before is not missed.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }
}

/// An endpoint's meter, by the rate that it has now.
fn meter<'m>(meters: &'m mut HashMap<EndpointName, Meter>, endpoint: &Endpoint, now: Instant) -> &'m mut Meter {
    let meter = meters.entry(endpoint.name.clone()).or_default();
    if meter.limiter.as_ref().map(RateLimiter::rate) != endpoint.rate {
        meter.limiter = endpoint.rate.map(|rate| RateLimiter::new(rate, now));
    }
    meter
}

impl Meter {
    fn free(&self, endpoint: &Endpoint) -> Result<usize, Full> {
        let Some(most) = endpoint.concurrency else { return Ok(usize::MAX) };
        match usize::try_from(most.get()).unwrap_or(usize::MAX).saturating_sub(self.in_flight) {
            0 => Err(Full { wait: None }),
            free => Ok(free),
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(meter) = self.admission.meters.lock().get_mut(&self.endpoint) {
            meter.in_flight -= 1;
        }
        self.admission.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn endpoint(rate: Option<&str>, concurrency: Option<u32>) -> Endpoint {
        Endpoint {
            rate: rate.map(|rate| rate.parse().expect("a rate")),
            concurrency: concurrency.and_then(NonZeroU32::new),
            ..Endpoint::sample()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn exchanges_at_a_time_are_counted_until_they_are_over_and_who_waits_hears_of_it() {
        let (admission, endpoint) = (Arc::new(Admission::default()), endpoint(None, Some(2)));
        assert_eq!(admission.room(&endpoint, 64), Ok(2));
        let (one, two) = (admission.take(&endpoint), admission.take(&endpoint));
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(admission.room(&endpoint, 64), Err(Full { wait: None }));
        assert_eq!(admission.take(&endpoint).err(), Some(Full { wait: None }));
        drop(one);
        admission.freed().await;
        assert_eq!(admission.room(&endpoint, 64), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_keeps_what_was_counted_unless_the_rate_is_another() {
        let admission = Arc::new(Admission::default());
        let taken = admission.take(&endpoint(Some("1/min"), Some(5)));
        assert!(taken.is_ok());
        let minute = Err(Full { wait: Some(Duration::from_secs(60)) });
        assert_eq!(admission.room(&endpoint(Some("1/min"), Some(5)), 64), minute);
        assert_eq!(admission.room(&endpoint(Some("1/min"), None), 64), minute);
        assert_eq!(admission.room(&endpoint(Some("30/s"), Some(5)), 64), Ok(4));
        assert_eq!(admission.room(&endpoint(None, None), 64), Ok(64));
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_all_places_taken_uses_up_none_of_the_rate() {
        let (admission, endpoint) = (Arc::new(Admission::default()), endpoint(Some("2/min, burst 2"), Some(1)));
        let taken = admission.take(&endpoint);
        for _ in 0..5 {
            assert_eq!(admission.take(&endpoint).err(), Some(Full { wait: None }));
        }
        drop(taken);
        assert!(admission.take(&endpoint).is_ok());
    }
}

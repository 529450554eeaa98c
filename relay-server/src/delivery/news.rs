//! What changes of kept events, for those who watch; and the ways of requests whose events wait for their first attempt.
//!
//! Nothing is made where nobody watches. What is lost here is missing on a page, and nowhere else.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Delivery, attempt::Event};
use crate::{
    hops::Way,
    journal::NewsRecord,
    store::{Attempt, Lease, NewEvent, Sight, State, Summary, Then},
    webhook::EventId,
};

/// Requests whose ways are remembered. An event that waits longer than so many others has none on record.
const MAX_ARRIVALS: usize = 4096;

/// How an event came that was acknowledged before its first attempt.
#[derive(Default)]
pub(super) struct Arrivals(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    ways: HashMap<EventId, Way>,
    /// In the order in which they came; some of them may be taken.
    order: VecDeque<EventId>,
}

impl Arrivals {
    pub(super) fn put(&self, id: EventId, way: Way) {
        let mut kept = self.0.lock();
        if kept.ways.insert(id, way).is_none() {
            kept.order.push_back(id);
        }
        while kept.order.len() > MAX_ARRIVALS {
            if let Some(oldest) = kept.order.pop_front() {
                kept.ways.remove(&oldest);
            }
        }
    }

    pub(super) fn take(&self, id: EventId) -> Option<Way> {
        self.0.lock().ways.remove(&id)
    }
}

/// Nobody watched when the event came, so only the store knows it.
pub(super) struct Unknown;

impl Event {
    /// It was kept, and is attempted at once if there is a lease.
    pub(super) fn accepted(&mut self, lease: Option<Lease>, conflict_with: Option<EventId>) {
        let Some(news) = &mut self.news else { return };
        news.conflict_with = conflict_with;
        if let Some(lease) = lease {
            (news.state, news.attempts, news.tries, news.fence) =
                (State::Running, lease.attempt, lease.tries, lease.fence);
        }
    }
}

impl Delivery {
    /// An event that is about to be kept.
    pub(super) fn arrival_news(&self, new: &NewEvent) -> Option<Box<Summary>> {
        // A canary is nobody's news.
        (self.journal.is_watched() && !new.endpoint.is_relays_own()).then(|| Box::new(Summary::of(new)))
    }

    /// An event is attempted that waited.
    pub(super) fn running_news(&self, event: &Summary) -> Option<Box<Summary>> {
        self.journal.is_watched().then(|| Box::new(Summary { state: State::Running, due_at: None, ..event.clone() }))
    }

    /// An attempt has ended, and this is to become of its event.
    pub(super) fn ending_news(
        &self,
        event: &Event,
        attempt: &Attempt,
        then: Then,
    ) -> Result<Option<Box<Summary>>, Unknown> {
        if !self.journal.is_watched() || event.endpoint.name.is_relays_own() {
            return Ok(None);
        }
        let before = event.news.as_ref().ok_or(Unknown)?;
        let (state, reason, due_at) = match then {
            Then::Done => (State::Delivered, None, None),
            Then::Dead(reason) => (State::Dead, Some(reason), None),
            Then::Retry(at) | Then::Release(at) => (State::Pending, None, Some(at)),
            Then::Record => return Err(Unknown),
        };
        let is_called = !matches!(then, Then::Release(_));
        let mut after = before.clone();
        (after.state, after.reason, after.due_at) = (state, reason, due_at);
        after.settled_at = (!state.is_open()).then(|| self.clock.now());
        after.attempts = attempt.number.saturating_sub(u32::from(!is_called));
        if is_called {
            after.attempted(attempt);
        }
        Ok(Some(after))
    }

    pub(super) fn publish(&self, news: Option<&Summary>) {
        self.journal.note(|| news.map(|event| NewsRecord::Kept(Arc::new(event.clone()))));
    }

    /// Tells those who watch how an event stands with which a person did something.
    pub(crate) async fn tell(&self, id: EventId) {
        if self.journal.is_watched()
            && let Ok(Some(record)) = self.store.event(Sight::All, id, self.clock.now()).await
        {
            self.publish(Some(&record.summary));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_ways_are_remembered_and_each_is_given_once() {
        let (arrivals, way) = (Arrivals::default(), Way::from(Instant::now()));
        let ids: Vec<_> = (0..=MAX_ARRIVALS).map(|_| EventId::new()).collect();
        ids.iter().for_each(|id| arrivals.put(*id, way));
        assert!(arrivals.take(ids[0]).is_none() && arrivals.take(ids[1]).is_some() && arrivals.take(ids[1]).is_none());
        let kept = arrivals.0.lock();
        assert_eq!((kept.order.len(), kept.ways.len()), (MAX_ARRIVALS, MAX_ARRIVALS - 1));
    }
}

//! What waits and is wanted by nobody any more: an agent came that asked for only what is new.
//!
//! The store does the work in steps, as a bulk action, and a restart goes on with it. Until it is done nothing that
//! waits at the endpoint is delivered to anybody, so that nothing slips through between two steps; new events whose
//! senders wait for an answer go their way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};

use crate::{
    endpoint::EndpointName,
    store::{Bulk, BulkAction, Filter, State, Store, StoreError},
    webhook::EventId,
};

/// The endpoints at which what waits is being ended.
#[derive(Debug, Default)]
pub(crate) struct Skips {
    held: Mutex<HashMap<EventId, Held>>,
    noted: Notify,
}

#[derive(Debug)]
struct Held {
    endpoint: EndpointName,
    end: Option<oneshot::Sender<u64>>,
}

impl Skips {
    /// Ends what waits at an endpoint from before that time. Whoever asked hears how many there were.
    ///
    /// # Errors
    /// As [`Store::bulk`]; then nothing is held back.
    pub(crate) async fn begin(
        &self,
        store: &Arc<dyn Store>,
        endpoint: EndpointName,
        before: Timestamp,
    ) -> Result<oneshot::Receiver<u64>, StoreError> {
        let (id, (end, ended)) = (EventId::new(), oneshot::channel());
        // Held back first: no round of the pump may find the action not noted and the endpoint open.
        self.lock().insert(id, Held { endpoint: endpoint.clone(), end: Some(end) });
        let filter = Filter { endpoints: vec![endpoint], states: vec![State::Pending], ..Filter::default() };
        if let Err(error) = store.bulk(id, BulkAction::Skip, filter, before).await {
            self.lock().remove(&id);
            return Err(error);
        }
        self.noted.notify_one();
        Ok(ended)
    }

    /// Whether what waits at an endpoint is held back.
    pub(crate) fn hold(&self, endpoint: &EndpointName) -> bool {
        self.lock().values().any(|held| held.endpoint == *endpoint)
    }

    /// Looks at a bulk action: one from before a restart is held to again, one that is finished holds nothing.
    pub(crate) fn see(&self, bulk: &Bulk) {
        if bulk.action != BulkAction::Skip {
            return;
        }
        let mut held = self.lock();
        if bulk.finished {
            if let Some(Held { end: Some(end), .. }) = held.remove(&bulk.id) {
                let _ = end.send(bulk.done); // Its agent may have left.
            }
        } else if let Some(endpoint) = bulk.filter.endpoints.first().filter(|_| !held.contains_key(&bulk.id)) {
            held.insert(bulk.id, Held { endpoint: endpoint.clone(), end: None });
        }
    }

    /// Comes when there is something to do.
    pub(crate) fn noted(&self) -> tokio::sync::futures::Notified<'_> {
        self.noted.notified()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EventId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn an_endpoint_is_held_back_until_the_action_is_finished() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20));
        let (skips, name) = (Skips::default(), EndpointName::parse("a").expect("a name"));
        let ended = skips.begin(&store, name.clone(), Timestamp::now()).await.expect("noted");
        assert!(skips.hold(&name) && !skips.hold(&EndpointName::parse("b").expect("a name")));
        let again = Skips::default();
        let bulk = store.bulks().await.expect("read").remove(0);
        again.see(&bulk);
        assert!(again.hold(&name), "after a restart, too");
        let bulk = store.bulk_step(bulk.id, vec![EventId::new()], Timestamp::now()).await.expect("a step");
        assert!(bulk.finished);
        skips.see(&bulk);
        assert!(!skips.hold(&name));
        assert_eq!(ended.await, Ok(0));
    }
}

//! What waits and is wanted by nobody any more: an agent came that asked for only what is new.
//!
//! The store does the work in steps, as a bulk action, and a restart goes on with it. Until it is done the store gives
//! nothing that waits at the endpoint to anybody, so that nothing slips through between two steps; new events whose
//! senders wait for an answer go their way. Here stands only who is told when it is done.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::{
    endpoint::EndpointName,
    store::{Bulk, BulkAction, BulkPlan, Filter, State, Store, StoreError},
    webhook::EventId,
};

#[derive(Debug, Default)]
pub(crate) struct Skips {
    asked: Mutex<HashMap<EventId, oneshot::Sender<u64>>>,
    /// Comes when there is something to do.
    pub(crate) noted: Notify,
}

impl Skips {
    /// Ends what waits at an endpoint from before that time. Whoever asked learns how many there were. Where the store
    /// fails nothing is skipped.
    pub(crate) async fn begin(
        &self,
        store: &Arc<dyn Store>,
        endpoint: EndpointName,
        before: Timestamp,
    ) -> Result<oneshot::Receiver<u64>, StoreError> {
        let id = EventId::new();
        let filter = Filter { endpoints: vec![endpoint], states: vec![State::Pending], ..Filter::default() };
        let (end, ended) = oneshot::channel();
        self.asked.lock().insert(id, end);
        if let Err(error) = store.bulk(BulkPlan::new(id, BulkAction::Skip, filter), before).await {
            self.end(id);
            return Err(error);
        }
        self.noted.notify_one();
        Ok(ended)
    }

    /// Tells whoever asked for a bulk action if it is finished.
    pub(crate) fn see(&self, bulk: &Bulk) {
        if bulk.finished
            && let Some(end) = self.end(bulk.id)
        {
            let _ = end.send(bulk.done); // Its agent may have left.
        }
    }

    fn end(&self, id: EventId) -> Option<oneshot::Sender<u64>> {
        self.asked.lock().remove(&id)
    }
}

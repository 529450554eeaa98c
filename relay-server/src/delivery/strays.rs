//! What agents tell of attempts that this process did not begin: it was restarted while they ran.

use std::sync::Arc;

use relay_proto::Outcome;
use tokio::sync::mpsc;

use super::{
    Delivery,
    attempt::{Content, Event, stray},
};
use crate::{
    store::{End, Lease},
    webhook::EventId,
};

/// Settles what nobody waited for, until no more can come.
pub async fn settle_strays(delivery: Arc<Delivery>, mut strays: mpsc::Receiver<Outcome>) {
    while let Some(outcome) = strays.recv().await {
        settle(&delivery, outcome).await;
    }
}

/// The newest fence settles; what an older one tells is recorded.
async fn settle(delivery: &Delivery, outcome: Outcome) {
    let id = EventId::from_bytes(outcome.event_id);
    let record = match delivery.store.event(None, id).await {
        Ok(Some(record)) => record,
        Ok(None) => return tracing::debug!(event_id = %id, "an outcome of an event that is not kept"),
        Err(error) => return tracing::warn!(event_id = %id, %error, "an outcome cannot be settled"),
    };
    let endpoints = delivery.endpoints.load();
    let Some(endpoint) = endpoints.get(&record.summary.endpoint) else { return };
    let Some(keeping) = endpoint.keeping.clone() else { return };
    let event = Event {
        endpoint: Arc::clone(endpoint),
        keeping,
        id,
        head: record.head,
        kind: record.summary.event_type,
        sender_id: record.summary.sender_id,
        received_at: record.summary.received_at,
        url: None,
        content: Content::Kept(record.summary.size),
        lease: Lease { fence: outcome.fence, attempt: outcome.attempt, tries: record.summary.tries },
        replay_of: record.summary.replay_of,
        redelivered: record.summary.redelivered,
        probe: false,
    };
    if let Some((attempt, then)) = stray(outcome.state, &event) {
        delivery.settle(End { endpoint: endpoint.name.clone(), id, attempt, then }).await;
    }
}

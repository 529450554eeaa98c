//! What agents tell of attempts that this process did not begin: it was restarted while they ran.
//!
//! Nobody knows any more which agent had the attempt. It may come from any that may serve the event's endpoint.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{
    Delivery,
    attempt::{Event, stray},
};
use crate::{
    agents::outcomes::Stray,
    store::{Attempt, End, Lease, Outcome},
    webhook::EventId,
};

/// Settles what nobody waited for, until no more can come.
pub async fn settle_strays(delivery: Arc<Delivery>, mut strays: mpsc::Receiver<Stray>) {
    while let Some(stray) = strays.recv().await {
        settle(&delivery, stray).await;
    }
}

/// The newest fence settles; what an older one tells is recorded.
async fn settle(delivery: &Delivery, Stray { outcome, serves }: Stray) {
    let id = EventId::from_bytes(outcome.event_id);
    let record = match delivery.store.event(None, id, Timestamp::now()).await {
        Ok(Some(record)) => record,
        Ok(None) => return tracing::debug!(event_id = %id, "an outcome of an event that is not kept"),
        Err(error) => return tracing::warn!(event_id = %id, %error, "an outcome cannot be settled"),
    };
    let (name, tries) = (record.summary.endpoint.clone(), record.summary.tries);
    if !serves.iter().any(|served| **served == *name.as_str()) {
        return tracing::warn!(event_id = %id, "an agent told of an event of an endpoint that it does not serve");
    }
    // Answers that the last session brought are told again, in case they did not arrive.
    let arrived = |attempt: &Attempt| attempt.fence == outcome.fence && attempt.outcome != Outcome::Lost;
    if record.attempts.iter().any(arrived) {
        return;
    }
    let lease = Lease { fence: outcome.fence, attempt: outcome.attempt, tries };
    let endpoints = delivery.endpoints.load();
    let event = endpoints.get(&name).and_then(|endpoint| Event::of(endpoint, record.summary, record.head, None, lease));
    if let Some((attempt, then)) = event.and_then(|event| stray(outcome.state, &event)) {
        delivery.settle(End { endpoint: name, id, attempt, then }).await;
    }
}

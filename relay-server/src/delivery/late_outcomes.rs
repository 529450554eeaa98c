//! What agents tell of attempts that nobody waits for: this process did not begin them, since it was restarted while
//! they ran, or has given them up as lost. Who may tell of which is decided where it arrives.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Delivery, attempt::Event};
use crate::{
    agents::outcomes::LateOutcome,
    log::{self, LogScope},
    store::{Attempt, Lease, Outcome, Sight, State},
    throttle::Throttle,
    webhook::EventId,
};

static NOT_READ: Throttle = Throttle::new();

/// Settles what nobody waited for, until no more can come.
pub(crate) async fn settle_late_outcomes(delivery: Arc<Delivery>, mut late_outcomes: mpsc::Receiver<LateOutcome>) {
    while let Some(late) = late_outcomes.recv().await {
        let id = EventId::from_bytes(late.outcome.event_id);
        let scope = LogScope::late_outcome(id, late.outcome.attempt);
        scope.around(settle(&delivery, id, late.outcome)).await;
    }
}

/// The newest fence settles; what an older one tells is recorded in the place of its loss. Everything else was told
/// before, or never was an attempt.
async fn settle(delivery: &Delivery, id: EventId, outcome: relay_proto::Outcome) {
    let record = match delivery.store.event(Sight::All, id, delivery.clock.now()).await {
        Ok(Some(record)) => record,
        Ok(None) => return tracing::debug!("an outcome of an event that is not kept"),
        Err(error) => {
            if let Some(held_back) = NOT_READ.pass("") {
                tracing::warn!(%error, held_back, "an outcome cannot be settled");
            }
            return;
        }
    };
    let (name, tries) = (record.summary.endpoint.clone(), record.summary.tries);
    log::endpoint_is(&name);
    let runs = record.summary.state == State::Running && record.summary.fence == outcome.fence;
    let own = |attempt: &&Attempt| attempt.fence == outcome.fence;
    let open = match record.attempts.iter().find(own) {
        Some(attempt) => attempt.outcome == Outcome::Lost,
        None => runs,
    };
    if !open {
        return tracing::debug!("an outcome of an attempt that has one");
    }
    let lease = Lease { fence: outcome.fence, attempt: outcome.attempt, tries };
    let endpoints = delivery.endpoints.load();
    let event = endpoints.get(&name).and_then(|endpoint| Event::of(endpoint, record.summary, record.head, None, lease));
    if let Some(event) = event {
        delivery.settle_stray(&event, outcome.state).await;
    }
}

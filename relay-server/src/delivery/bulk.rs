//! Actions on many events, step by step beside everything else. What a crash interrupts goes on after the restart.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Delivery;
use crate::{
    store::{Bulk, BulkAction, StoreError},
    webhook::EventId,
};

const STEP: usize = 100;

/// Between two steps, so that deliveries go on.
const PAUSE: Duration = Duration::from_millis(5);

/// How long until a failed step is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

pub(crate) async fn work_off_bulks(delivery: Arc<Delivery>, stop: CancellationToken) {
    loop {
        let pause = match step(&delivery).await {
            Ok(false) => None,
            Ok(true) => Some(PAUSE),
            Err(error) => {
                tracing::warn!(%error, "an action on many events stopped; it goes on in a moment");
                Some(AFTER_FAILURE)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            () = delivery.bulks.notified(), if pause.is_none() => {}
            () = delivery.skips.noted.notified(), if pause.is_none() => {}
        }
    }
}

impl Delivery {
    /// Tells whoever asked for a bulk action, and those who watch, if it is finished.
    pub(crate) fn ended(&self, bulk: &Bulk) {
        self.skips.see(bulk);
        if bulk.finished {
            self.journal.miss();
        }
    }
}

/// Does the next part of what is noted down; false if there is nothing to do.
async fn step(delivery: &Delivery) -> Result<bool, StoreError> {
    let mut open: Vec<_> = delivery.store.bulks().await?.into_iter().filter(|bulk| !bulk.finished).collect();
    // The store holds an endpoint back for a skip, so that goes before all else.
    open.sort_by_key(|bulk| bulk.action != BulkAction::Skip);
    let mut full = None;
    for next in &open {
        // Replays that find no room come one by one, and hold up no other action: that may be the one which makes room.
        for count in [STEP, 1] {
            let fresh = (0..count).map(|_| EventId::new()).collect();
            match delivery.store.bulk_step(next.id, fresh, delivery.clock.now()).await {
                Err(error) if error.is_full() => full = Some(error),
                stepped => {
                    delivery.ended(&stepped?);
                    delivery.wake();
                    return Ok(true);
                }
            }
        }
    }
    full.map_or(Ok(false), Err)
}

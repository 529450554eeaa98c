//! Actions on many events, step by step beside everything else. What a crash interrupts goes on after the restart.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Delivery;
use crate::{store::BulkAction, webhook::EventId};

/// Events of one step.
const STEP: usize = 100;

/// Between two steps, so that deliveries go on.
const PAUSE: Duration = Duration::from_millis(5);

/// How long until a failed step is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Does what is noted down until `stop`.
pub async fn work_off_bulks(delivery: Arc<Delivery>, stop: CancellationToken) {
    loop {
        let unfinished = match delivery.store.bulks().await {
            Ok(bulks) => {
                let mut open = bulks.into_iter().filter(|bulk| !bulk.finished);
                let first = open.next().map(|bulk| (bulk.action, bulk.id));
                // An endpoint is held back for a skip, so that goes before all else.
                let skip = |first: &(BulkAction, EventId)| first.0 == BulkAction::Skip;
                let other = if first.as_ref().is_some_and(skip) {
                    None
                } else {
                    open.find(|bulk| bulk.action == BulkAction::Skip)
                };
                other.map(|bulk| bulk.id).or(first.map(|(_, id)| id))
            }
            Err(_) => None,
        };
        let pause = match unfinished {
            Some(id) => {
                let fresh = (0..STEP).map(|_| EventId::new()).collect();
                let stepped = delivery.store.bulk_step(id, fresh, Timestamp::now()).await;
                let pause = match stepped {
                    Ok(bulk) => {
                        delivery.skips.see(&bulk);
                        Some(PAUSE)
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an action on many events stopped; it goes on in a moment");
                        Some(AFTER_FAILURE)
                    }
                };
                delivery.wake();
                pause
            }
            None => None,
        };
        let rest = async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => tokio::select! {
                    () = delivery.bulks.notified() => {}
                    () = delivery.skips.noted() => {}
                },
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = rest => {}
        }
    }
}

//! Actions on many events, step by step beside everything else. What a crash interrupts goes on after the restart.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Delivery;
use crate::webhook::EventId;

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
            Ok(bulks) => bulks.into_iter().find(|bulk| !bulk.finished).map(|bulk| bulk.id),
            Err(_) => None,
        };
        let pause = match unfinished {
            Some(id) => {
                let fresh = (0..STEP).map(|_| EventId::new()).collect();
                let stepped = delivery.store.bulk_step(id, fresh, Timestamp::now()).await;
                delivery.wake();
                match stepped {
                    Ok(_) => Some(PAUSE),
                    Err(error) => {
                        tracing::warn!(%error, "an action on many events stopped; it goes on in a moment");
                        Some(AFTER_FAILURE)
                    }
                }
            }
            None => None,
        };
        let rest = async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => delivery.bulks.notified().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = rest => {}
        }
    }
}

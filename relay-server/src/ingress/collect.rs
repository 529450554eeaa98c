//! Collecting a whole body before anything crosses: bounded in size, in time and in memory.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::webhook::{Failure, input::RequestBody};

/// The unit in which memory for bodies is counted.
pub const UNIT_BYTES: usize = 4 * 1024;

/// Reads a body to its end. The permit stands for its memory and is to be kept as long as the body.
///
/// # Errors
/// [`Failure`] when the body is too large, too slow, broken, or no memory is left.
pub async fn collect(
    mut body: RequestBody,
    max_bytes: u64,
    idle: Duration,
    deadline: Instant,
    budget: &Arc<Semaphore>,
) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
    let mut memory = Arc::clone(budget).try_acquire_many_owned(0).map_err(|_| Failure::Overloaded)?;
    let mut whole = BytesMut::new();
    if let Some(len) = body.size_hint().exact().and_then(|len| usize::try_from(len).ok()) {
        grow(&mut memory, len, budget)?;
    }
    loop {
        let patience = (Instant::now() + idle).min(deadline);
        let frame = timeout_at(patience, body.frame()).await.map_err(|_| Failure::BodyTimeout)?;
        let Some(frame) = frame else { return Ok((whole.freeze(), memory)) };
        let Ok(data) = frame.map_err(|_| Failure::BodyBroken)?.into_data() else { continue };
        if (whole.len() + data.len()) as u64 > max_bytes {
            return Err(Failure::BodyTooLarge { limit: max_bytes });
        }
        grow(&mut memory, whole.len() + data.len(), budget)?;
        whole.extend_from_slice(&data);
    }
}

fn grow(memory: &mut OwnedSemaphorePermit, bytes: usize, budget: &Arc<Semaphore>) -> Result<(), Failure> {
    let missing = bytes.div_ceil(UNIT_BYTES).saturating_sub(memory.num_permits());
    if missing > 0 {
        let missing = u32::try_from(missing).map_err(|_| Failure::Overloaded)?;
        memory.merge(Arc::clone(budget).try_acquire_many_owned(missing).map_err(|_| Failure::Overloaded)?);
    }
    Ok(())
}

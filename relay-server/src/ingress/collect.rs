//! Collecting a whole body before anything crosses: bounded in size, in time and in memory.
//!
//! Memory is taken as bytes come and as it is allocated; a length that is only announced takes none, and tells no more
//! than where the growth ends.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::{Instant, timeout_at};

use crate::{
    failure::{Failure, RelayFault, SenderFault},
    memory::{Memory, NoRoom},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CollectError {
    TooLarge {
        limit_bytes: u64,
    },
    /// It stopped coming, or took too long.
    Timeout,
    Broken,
    NoRoom,
}

impl From<CollectError> for Failure {
    fn from(why: CollectError) -> Self {
        match why {
            CollectError::TooLarge { limit_bytes } => SenderFault::BodyTooLarge { limit_bytes }.into(),
            CollectError::Timeout => SenderFault::BodyTimeout.into(),
            CollectError::Broken => SenderFault::BodyBroken.into(),
            CollectError::NoRoom => RelayFault::Overloaded.into(),
        }
    }
}

/// Reads a body to its end, by `until` at the latest and never silent for longer than `idle`. `memory` grows by what it takes, and is to be kept as long as the body.
pub(crate) async fn collect<B>(
    mut body: B,
    max_bytes: u64,
    idle: Duration,
    until: Instant,
    memory: &mut Memory,
) -> Result<Bytes, CollectError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let most = usize::try_from(body.size_hint().exact().unwrap_or(max_bytes)).unwrap_or(usize::MAX);
    let (mut whole, mut moved) = (Vec::new(), Instant::now());
    loop {
        // Frames without a byte are no progress.
        let patience = (moved + idle).min(until);
        let frame = timeout_at(patience, body.frame()).await.map_err(|_| CollectError::Timeout)?;
        let Some(frame) = frame else { return Ok(whole.into()) };
        let Ok(data) = frame.map_err(|_| CollectError::Broken)?.into_data() else { continue };
        if data.is_empty() {
            continue;
        }
        if (whole.len() + data.len()) as u64 > max_bytes {
            return Err(CollectError::TooLarge { limit_bytes: max_bytes });
        }
        make_room(&mut whole, data.len(), most, memory).map_err(|NoRoom| CollectError::NoRoom)?;
        whole.extend_from_slice(&data);
        moved = Instant::now();
    }
}

/// Doubles what is allocated, up to the most that may come, once the memory for it is taken.
fn make_room(whole: &mut Vec<u8>, more: usize, most: usize, memory: &mut Memory) -> Result<(), NoRoom> {
    let needed = whole.len() + more;
    if needed > whole.capacity() {
        let capacity = (2 * whole.capacity()).min(most).max(needed);
        memory.grow(capacity - whole.capacity())?;
        whole.reserve_exact(capacity - whole.len());
    }
    Ok(())
}

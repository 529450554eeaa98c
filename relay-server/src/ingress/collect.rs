//! Collecting a whole body before anything crosses: bounded in size, in time, and in memory or on the disk.
//!
//! Memory is taken as bytes come and as it is allocated, and so is room on the disk; a length that is only announced takes
//! none, and tells no more than where the growth ends.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::{Instant, timeout_at};

use crate::{
    endpoint::Endpoint,
    failure::{Failure, RelayFault, SenderFault},
    memory::{Memory, NoRoom},
    spool::{BodyFile, BodyWriter, IN_MEMORY_BYTES, LONG_BYTES, Spool},
    store::Store,
    throttle::Throttle,
};

static NO_ROOM: Throttle = Throttle::new();

pub(crate) enum Collected {
    /// It came in one piece, which shares the memory of all that was read with it.
    Piece(Bytes),
    Whole(Bytes),
    Long(BodyFile),
}

/// How long a body may take.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// Longest silence.
    pub(crate) idle: Duration,
    /// In all, from when it is waited for first.
    pub(crate) whole: Duration,
}

/// Where a body goes on that is too long for memory.
pub(crate) struct Overflow<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) spool: Spool,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) address: Option<IpAddr>,
}

/// Reads a body to its end. `memory` grows by what it takes, and is to be kept as long as what is in memory of the body.
pub(crate) async fn collect<B>(
    body: B,
    max_bytes: u64,
    patience: Patience,
    memory: &mut Memory,
    overflow: Option<Overflow<'_>>,
) -> Result<Collected, Failure>
where
    B: Body<Data = Bytes> + Unpin,
{
    let before = memory.bytes();
    let most = usize::try_from(body.size_hint().exact().unwrap_or(max_bytes)).unwrap_or(usize::MAX);
    let longest = if overflow.is_some() { most.min(LONG_BYTES) } else { most };
    let (mut pieces, mut whole) = (Pieces { body, left: most as u64, max_bytes, patience, until: None }, Vec::new());
    while let Some(data) = pieces.next().await? {
        match &overflow {
            Some(overflow) if whole.len() + data.len() > LONG_BYTES => {
                // In a box: few bodies are so long, and it would be most of what a request's future takes.
                let long = async move {
                    let mut writer = overflow.begin().await?;
                    overflow.write(&mut writer, &whole, data.len() as u64 + pieces.left).await?;
                    drop(whole);
                    memory.shrink_to(before + IN_MEMORY_BYTES);
                    overflow.write(&mut writer, &data, pieces.left).await?;
                    while let Some(data) = pieces.next().await? {
                        overflow.write(&mut writer, &data, pieces.left).await?;
                    }
                    Ok(Collected::Long(writer.finish().await?))
                };
                return Box::pin(long).await;
            }
            _ if whole.is_empty() && pieces.body.is_end_stream() => {
                memory.grow(data.len()).map_err(|NoRoom| RelayFault::Overloaded)?;
                return Ok(Collected::Piece(data));
            }
            _ => {
                make_room(&mut whole, data.len(), longest, memory).map_err(|NoRoom| RelayFault::Overloaded)?;
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(Collected::Whole(whole.into()))
}

/// A body as it comes.
struct Pieces<B> {
    body: B,
    /// How much more may come.
    left: u64,
    max_bytes: u64,
    patience: Patience,
    /// When it has to be there; `None` until it is waited for.
    until: Option<Instant>,
}

impl<B: Body<Data = Bytes> + Unpin> Pieces<B> {
    async fn next(&mut self) -> Result<Option<Bytes>, SenderFault> {
        if self.body.is_end_stream() {
            return Ok(None);
        }
        // Frames without a byte are no progress.
        let mut patience = None;
        loop {
            // Most bodies are there with their heads: no clock is read for them.
            let frame = match self.body.frame().now_or_never() {
                Some(frame) => frame,
                None => {
                    let until = *patience.get_or_insert_with(|| self.wait_until());
                    timeout_at(until, self.body.frame()).await.map_err(|_| SenderFault::BodyTimeout)?
                }
            };
            let Some(frame) = frame else { return Ok(None) };
            let Ok(data) = frame.map_err(|_| SenderFault::BodyBroken)?.into_data() else { continue };
            if data.is_empty() {
                continue;
            }
            let limit_bytes = self.max_bytes;
            self.left = self.left.checked_sub(data.len() as u64).ok_or(SenderFault::BodyTooLarge { limit_bytes })?;
            return Ok(Some(data));
        }
    }

    /// Until when the next piece is waited for from now on.
    fn wait_until(&mut self) -> Instant {
        let (now, Patience { idle, whole }) = (Instant::now(), self.patience);
        let until = *self.until.get_or_insert(now + whole);
        until.min(now + idle)
    }
}

impl Overflow<'_> {
    async fn begin(&self) -> Result<BodyWriter, Failure> {
        Ok(self.spool.begin(&self.endpoint.name, self.endpoint.max_body, self.address).await?)
    }

    /// Writes what has come; at most `later` bytes follow.
    async fn write(&self, writer: &mut BodyWriter, data: &[u8], later: u64) -> Result<(), Failure> {
        if writer.grow(data.len(), later)? {
            let name = &self.endpoint.name;
            // It is counted already: two that come at once see each other.
            if let Err(error) = self.store.room_for_coming(name.clone()).await {
                if let Some(held_back) = NO_ROOM.pass(name.as_str()) {
                    tracing::warn!(%error, held_back, "a long body found no room");
                }
                return Err(Failure::from(&error));
            }
        }
        Ok(writer.write(data).await?)
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

//! Where a request's body comes from, and its way to the agent: as fast as the agent takes it.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use relay_proto::HeaderBlock;
use relay_tunnel::{
    Sender,
    http::{header_lines, strip_hop_by_hop},
};
use tokio::time::timeout;

use super::upgrade::Upgrade;
use crate::{
    agents::mirror::MirrorWriter,
    clock::Clock,
    endpoint::EndpointName,
    failure::{Failure, RelayFault, SenderFault},
    journal::BodyTap,
    message::names,
    spool::BodyFile,
    store::{Store, StoreError},
    webhook::{EventId, input::RequestBody},
};

/// What is read of a kept body at a time. An exchange holds so much while its handler takes nothing, so it is less than
/// the store would give.
const PART_BYTES: u64 = 256 * 1024;

pub(crate) enum BodySource {
    /// In memory, until it was sent.
    Whole(Option<Bytes>),
    /// On its way from the sender.
    Streaming(Streaming),
    /// In a file, the part that was not read yet.
    File(BodyFile, Range<u64>),
    /// In the store.
    Kept(KeptBody),
    /// None, but raw bytes both ways once the handler has switched protocols.
    Upgrade(Box<Upgrade>),
}

/// At most so many bytes, and never silent for longer than `idle`.
pub(crate) struct Streaming {
    pub(super) body: RequestBody,
    pub(super) sent_bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) idle: Duration,
}

#[derive(Clone)]
pub(crate) struct Bodies {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
}

impl Bodies {
    pub(crate) async fn part(
        &self,
        endpoint: &EndpointName,
        id: EventId,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, StoreError> {
        self.store.body(endpoint.clone(), id, range, self.clock.now()).await
    }
}

pub(crate) struct KeptBody {
    bodies: Bodies,
    endpoint: EndpointName,
    id: EventId,
    /// The part that was not read yet.
    left: Range<u64>,
}

/// Who gets a copy of a body that is sent.
#[derive(Default)]
pub(crate) struct Copies {
    /// Agents that watch.
    pub(super) mirror: Option<MirrorWriter>,
    /// The journal.
    pub(super) tap: Option<Arc<BodyTap>>,
}

enum Part {
    Data(Bytes),
    Trailers(HeaderBlock),
}

impl BodySource {
    pub(crate) fn whole(body: Bytes) -> Self {
        Self::Whole((!body.is_empty()).then_some(body))
    }

    /// The body of an event, so many bytes, as the store has it.
    pub(crate) const fn kept(bodies: Bodies, endpoint: EndpointName, id: EventId, bytes: u64) -> Self {
        Self::Kept(KeptBody { bodies, endpoint, id, left: 0..bytes })
    }

    /// Sends the body, and copies of it. Where neither the agent nor a copy wants more, it ends: the answer, or its
    /// absence, says why.
    pub(super) async fn upload(mut self, mut request: Sender, copies: Copies) -> Result<(), Failure> {
        let Copies { mut mirror, tap } = copies;
        let (mut is_wanted, mut trailers) = (true, HeaderBlock::new());
        while let Some(part) = self.next().await? {
            match part {
                Part::Data(data) => {
                    if let Some(tap) = &tap {
                        tap.data(&data);
                    }
                    if let Some(mirror) = &mut mirror {
                        mirror.data(&data);
                    }
                    is_wanted = is_wanted && request.send(data).await.is_ok();
                    if !is_wanted && mirror.as_ref().is_none_or(MirrorWriter::is_empty) {
                        return Ok(());
                    }
                }
                Part::Trailers(lines) => trailers = lines,
            }
        }
        if let Some(tap) = tap {
            tap.ended();
        }
        if let Some(mirror) = mirror {
            mirror.finish(&trailers);
        }
        request.finish(trailers);
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Part>, Failure> {
        match self {
            Self::Whole(body) => Ok(body.take().map(Part::Data)),
            Self::Streaming(body) => body.next().await.map_err(Failure::from),
            Self::File(body, left) => Ok(body.next(left).await?.map(Part::Data)),
            Self::Kept(body) => body.next().await.map_err(Failure::from),
            Self::Upgrade(_) => Ok(None),
        }
    }
}

impl Streaming {
    async fn next(&mut self) -> Result<Option<Part>, SenderFault> {
        let frame = timeout(self.idle, self.body.frame()).await.map_err(|_| SenderFault::BodyTimeout)?;
        let Some(frame) = frame.transpose().map_err(|_| SenderFault::BodyBroken)? else { return Ok(None) };
        let frame = match frame.into_data() {
            Ok(data) => {
                self.sent_bytes += data.len() as u64;
                if self.sent_bytes > self.max_bytes {
                    return Err(SenderFault::BodyTooLarge { limit_bytes: self.max_bytes });
                }
                return Ok(Some(Part::Data(data)));
            }
            Err(frame) => frame,
        };
        let mut lines = frame.into_trailers().unwrap_or_default();
        strip_hop_by_hop(&mut lines);
        names::strip(&mut lines, false); // No proxy tells of the way behind a body.
        Ok(Some(Part::Trailers(header_lines(&lines))))
    }
}

impl KeptBody {
    async fn next(&mut self) -> Result<Option<Part>, RelayFault> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let range = self.left.start..self.left.end.min(self.left.start + PART_BYTES);
        match self.bodies.part(&self.endpoint, self.id, range).await {
            Ok(Some(part)) if !part.is_empty() => {
                self.left.start += part.len() as u64;
                Ok(Some(Part::Data(part)))
            }
            Ok(_) => Err(RelayFault::StoreFailed),
            Err(error) => {
                tracing::error!(%error, "a kept body cannot be read");
                Err(RelayFault::StoreFailed)
            }
        }
    }
}

//! What frames say: heads of an exchange, reset codes, and their layout on the wire.
//!
//! The control messages (hello, welcome, notice, close) are in [`crate::control`]. Nothing here
//! knows in which order frames may come.

use bytes::{Bytes, BytesMut};

use crate::{
    error::ProtocolError,
    fields::{HeaderBlock, bytes_len, id, int, int_len, next_part, prefixed_len, put_bytes, put_int, take_prefixed},
    limits::{MAX_HEAD_BYTES, MAX_HEADER_LINES, MAX_TEXT_BYTES},
    varint,
};

/// How the sender framed a request's body, so that the agent frames it alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body, or one whose `content-length` line says how long it is.
    #[default]
    Length,
    /// Chunked: of a length that is not known, or not announced.
    Chunked,
}

/// The head of a request, as the handler is to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub endpoint: Bytes,
    /// The event's id (a UUIDv7).
    pub event_id: [u8; 16],
    /// Number of this attempt, from 1.
    pub attempt: u32,
    pub method: Bytes,
    /// What follows the endpoint in the sender's target, byte for byte: a path and a query, or nothing.
    pub target: Bytes,
    pub framing: Framing,
    pub headers: HeaderBlock,
    /// Set for an attempt of a stored event: if the session breaks, the agent lets the handler finish
    /// and reports the attempt with this number ([`crate::Outcome`]). Never 0.
    pub fence: Option<u64>,
    /// What the sender asked to upgrade to, as in its `Upgrade` header; empty if it did not ask. After a
    /// response with status 101 the bodies are raw bytes both ways, and their ends half-closes.
    pub upgrade: Bytes,
    /// Whether the relay asks for [`ResponseHead::sha256_in`].
    pub asks_sha256: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code, 101 or 200 to 999.
    pub status: u16,
    pub headers: HeaderBlock,
    /// How long the handler took for it, in microseconds, where the agent says so.
    pub handler_us: Option<u32>,
    /// SHA-256 of the request's body as it went to the handler, where the agent says so and all of it had gone there.
    pub sha256_in: Option<[u8; 32]>,
}

wire_enum! {
    /// Why a stream was reset.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum ResetCode {
        /// The response is complete; the rest of the request is not wanted.
        NoError = 0,
        /// Nobody waits for the response any more.
        Cancelled = 1,
        /// The handler was not called; this used up no attempt.
        NotCalled = 2,
        Unreachable = 3,
        /// The handler's answer, or the request's body, broke off.
        Broken = 4,
        Timeout = 5,
        /// No agent can make a request of this head: nothing was called, and nothing would be another time.
        NotCarriable = 6,
    }
}

impl ResetCode {
    /// A code that this version does not know becomes [`ResetCode::Broken`].
    pub(crate) fn read(number: u64) -> Self {
        Self::from_wire(number).unwrap_or(Self::Broken)
    }
}

mod tag {
    pub(super) const ENDPOINT: u64 = 1;
    pub(super) const EVENT_ID: u64 = 2;
    pub(super) const ATTEMPT: u64 = 3;
    pub(super) const METHOD: u64 = 4;
    pub(super) const TARGET: u64 = 5;
    pub(super) const FRAMING: u64 = 6;
    pub(super) const FENCE: u64 = 7;
    pub(super) const UPGRADE: u64 = 8;
    pub(super) const ASKS_SHA256: u64 = 9;
    pub(super) const STATUS: u64 = 1;
    pub(super) const HANDLER_US: u64 = 2;
    pub(super) const SHA256_IN: u64 = 3;
}

impl RequestHead {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        varint::put(out, self.fields_len() as u64);
        put_bytes(out, tag::ENDPOINT, &self.endpoint);
        put_bytes(out, tag::EVENT_ID, &self.event_id);
        put_int(out, tag::ATTEMPT, u64::from(self.attempt));
        put_bytes(out, tag::METHOD, &self.method);
        put_bytes(out, tag::TARGET, &self.target);
        if self.framing == Framing::Chunked {
            put_int(out, tag::FRAMING, 1);
        }
        if let Some(fence) = self.fence {
            put_int(out, tag::FENCE, fence);
        }
        if !self.upgrade.is_empty() {
            put_bytes(out, tag::UPGRADE, &self.upgrade);
        }
        if self.asks_sha256 {
            put_int(out, tag::ASKS_SHA256, 1);
        }
        put_headers(out, &self.headers);
    }

    pub(crate) fn encoded_len(&self) -> usize {
        prefixed_len(self.fields_len()) + prefixed_len(self.headers.as_bytes().len())
    }

    fn fields_len(&self) -> usize {
        let framing = if self.framing == Framing::Chunked { int_len(1) } else { 0 };
        bytes_len(&self.endpoint)
            + bytes_len(&self.event_id)
            + int_len(u64::from(self.attempt))
            + bytes_len(&self.method)
            + bytes_len(&self.target)
            + framing
            + self.fence.map_or(0, int_len)
            + if self.upgrade.is_empty() { 0 } else { bytes_len(&self.upgrade) }
            + if self.asks_sha256 { int_len(1) } else { 0 }
    }

    /// Reads the head and leaves the inline body in `payload`.
    pub(crate) fn decode(payload: &mut Bytes) -> Result<Self, ProtocolError> {
        let (fields, headers) = take_head(payload)?;
        let (mut rest, share) = (&fields[..], |part: &[u8]| fields.slice_ref(part));
        let (mut endpoint, mut event_id, mut attempt, mut method) = (None, None, 1, None);
        let (mut target, mut framing) = (Bytes::new(), 0);
        let (mut fence, mut upgrade, mut asks_sha256) = (None, Bytes::new(), false);
        while let Some((tag, value)) = next_part(&mut rest, "request head")? {
            match tag {
                tag::ENDPOINT => endpoint = Some(share(value)),
                tag::EVENT_ID => event_id = Some(id(value, "event id")?),
                tag::ATTEMPT => attempt = u32::try_from(int(value, "attempt")?).unwrap_or(u32::MAX),
                tag::METHOD => method = Some(share(value)),
                tag::TARGET => target = share(value),
                tag::FRAMING => framing = int(value, "framing")?,
                tag::FENCE => fence = Some(int(value, "fence")?).filter(|fence| *fence > 0),
                tag::UPGRADE => upgrade = share(value),
                tag::ASKS_SHA256 => asks_sha256 = int(value, "request head")? == 1,
                _ => {}
            }
        }
        let (Some(endpoint), Some(event_id), Some(method)) = (endpoint, event_id, method) else {
            return Err(ProtocolError::Malformed { what: "request head" });
        };
        if [&endpoint, &method, &upgrade].iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            return Err(ProtocolError::TooLarge { what: "request head" });
        }
        let framing = if framing == 1 { Framing::Chunked } else { Framing::Length };
        Ok(Self { endpoint, event_id, attempt, method, target, framing, headers, fence, upgrade, asks_sha256 })
    }

    pub(crate) fn fits(&self) -> bool {
        // What the peer would end the session for must not be sendable in the first place.
        [&self.endpoint, &self.method, &self.upgrade].iter().all(|text| text.len() <= MAX_TEXT_BYTES)
            && headers_fit(&self.headers, self.fields_len())
    }
}

impl ResponseHead {
    /// One that says nothing of the time that it took, and of what went to the handler.
    pub const fn new(status: u16, headers: HeaderBlock) -> Self {
        Self { status, headers, handler_us: None, sha256_in: None }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        varint::put(out, self.fields_len() as u64);
        put_int(out, tag::STATUS, u64::from(self.status));
        if let Some(handler_us) = self.handler_us {
            put_int(out, tag::HANDLER_US, u64::from(handler_us));
        }
        if let Some(sha256_in) = &self.sha256_in {
            put_bytes(out, tag::SHA256_IN, sha256_in);
        }
        put_headers(out, &self.headers);
    }

    pub(crate) fn encoded_len(&self) -> usize {
        prefixed_len(self.fields_len()) + prefixed_len(self.headers.as_bytes().len())
    }

    fn fields_len(&self) -> usize {
        int_len(u64::from(self.status))
            + self.handler_us.map_or(0, |handler_us| int_len(u64::from(handler_us)))
            + self.sha256_in.map_or(0, |sha256_in| bytes_len(&sha256_in))
    }

    /// Reads the head and leaves the inline body in `payload`.
    pub(crate) fn decode(payload: &mut Bytes) -> Result<Self, ProtocolError> {
        let (fields, headers) = take_head(payload)?;
        let mut rest = &fields[..];
        let (mut status, mut handler_us, mut sha256_in) = (None, None, None);
        while let Some((tag, value)) = next_part(&mut rest, "response head")? {
            match tag {
                tag::STATUS => status = u16::try_from(int(value, "status")?).ok(),
                tag::HANDLER_US => handler_us = u32::try_from(int(value, "time")?).ok(),
                tag::SHA256_IN => {
                    let sum = value.try_into().map_err(|_| ProtocolError::Malformed { what: "checksum" })?;
                    sha256_in = Some(sum);
                }
                _ => {}
            }
        }
        match status {
            Some(status @ (101 | 200..=999)) => Ok(Self { status, headers, handler_us, sha256_in }),
            _ => Err(ProtocolError::Malformed { what: "status" }),
        }
    }

    pub(crate) fn fits(&self) -> bool {
        headers_fit(&self.headers, self.fields_len())
    }
}

fn put_headers(out: &mut BytesMut, headers: &HeaderBlock) {
    varint::put(out, headers.as_bytes().len() as u64);
    out.extend_from_slice(headers.as_bytes());
}

/// `fields length · fields · headers length · headers`: what REQUEST and RESPONSE begin with.
fn take_head(payload: &mut Bytes) -> Result<(Bytes, HeaderBlock), ProtocolError> {
    let fields = take_prefixed(payload, "head")?;
    let headers = take_prefixed(payload, "head")?;
    if fields.len() + headers.len() > MAX_HEAD_BYTES {
        return Err(ProtocolError::TooLarge { what: "head" });
    }
    Ok((fields, HeaderBlock::decode(headers)?))
}

/// Whether headers, next to `fixed` further bytes, keep to the bounds of a head.
pub(crate) fn headers_fit(headers: &HeaderBlock, fixed: usize) -> bool {
    headers.len() <= MAX_HEADER_LINES && headers.as_bytes().len() + fixed <= MAX_HEAD_BYTES
}

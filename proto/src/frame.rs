//! Frames: how the byte stream of a session is cut.
//!
//! A frame is `type u8 · flags u8 · stream varint · length varint · payload`. This module cuts and
//! joins; payloads are read by [`crate::message`] and the session decides what is allowed when.
//!
//! Invariants: memory follows the bytes that arrived, never a length that was claimed; the same
//! bytes give the same frames however they are split.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{error::ProtocolError, limits::MAX_MESSAGE_BYTES, varint};

wire_enum! {
    /// Frame types. Numbers from [`FIRST_SKIPPABLE`] on are for extensions that a peer may not know.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum FrameType {
        Hello = 1,
        Welcome = 2,
        Request = 3,
        Response = 4,
        Data = 5,
        End = 6,
        Reset = 7,
        Credit = 8,
        Ping = 9,
        Pong = 10,
        Outcome = 11,
        Notice = 12,
        Drain = 13,
        Close = 14,
    }
}

/// Frames of this type and above are skipped when they are not known; unknown ones below end the
/// session.
pub(crate) const FIRST_SKIPPABLE: u8 = 64;

/// On REQUEST, RESPONSE and DATA: this direction of the stream ends with the frame, without trailers.
pub(crate) const FLAG_END: u8 = 1;

/// The longest frame header: type, flags, and two varints of eight bytes.
pub(crate) const MAX_HEADER_BYTES: usize = 18;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameType,
    pub(crate) flags: u8,
    pub(crate) stream: u64,
    pub(crate) payload: Bytes,
    /// Whether the payload keeps much more memory alive than its own.
    pub(crate) loose: bool,
}

/// Bytes that a payload may keep alive whatever its own size: a block of the WebSocket's reader.
const PINNED_BYTES: usize = 4 * 1024;

impl Frame {
    /// The payload as something that may be held for long: copied where it would hold a large message.
    pub(crate) fn held_payload(self) -> Bytes {
        if self.loose { Bytes::copy_from_slice(&self.payload) } else { self.payload }
    }
}

/// Appends a frame's header for a payload of `len` bytes, which the caller appends next.
pub(crate) fn put_header(out: &mut BytesMut, kind: FrameType, flags: u8, stream: u64, len: usize) {
    out.put_u8(kind as u8);
    out.put_u8(flags);
    varint::put(out, stream);
    varint::put(out, len as u64);
}

/// Cuts a byte stream, given in pieces of any size, into frames.
///
/// A piece that holds whole frames is sliced, not copied; only an incomplete frame at its end is.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: Buffer,
    /// How long the buffer was when its newest piece came: what a payload from it keeps alive.
    container_len: usize,
}

#[derive(Debug)]
enum Buffer {
    /// What is left of the newest piece.
    Piece(Bytes),
    /// An incomplete frame, grown by each further piece.
    Partial(BytesMut),
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { buffer: Buffer::Piece(Bytes::new()), container_len: 0 }
    }

    /// Takes the next piece. [`Decoder::next`] must have returned `None` before.
    pub(crate) fn push(&mut self, piece: Bytes) {
        match &mut self.buffer {
            Buffer::Piece(rest) if rest.is_empty() => self.buffer = Buffer::Piece(piece),
            Buffer::Piece(rest) => {
                let mut partial = BytesMut::from(&rest[..]);
                partial.extend_from_slice(&piece);
                self.buffer = Buffer::Partial(partial);
            }
            Buffer::Partial(partial) => partial.extend_from_slice(&piece),
        }
        self.container_len = self.bytes().len();
    }

    /// The next whole frame, or `None` when more bytes are needed. Skippable frames are skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, ProtocolError> {
        loop {
            let Some(header) = Header::peek(self.bytes())? else { return Ok(self.wait_for_more()) };
            let Some(end) = header.len.checked_add(header.payload_len) else {
                return Err(ProtocolError::FrameTooLarge { len: header.payload_len as u64 });
            };
            if self.bytes().len() < end {
                return Ok(self.wait_for_more());
            }
            let mut whole = self.take(end);
            whole.advance(header.len);
            match header.kind {
                Some(kind) => {
                    let loose = self.container_len > PINNED_BYTES && 2 * whole.len() < self.container_len;
                    let (flags, stream) = (header.flags, header.stream);
                    return Ok(Some(Frame { kind, flags, stream, payload: whole, loose }));
                }
                None => continue,
            }
        }
    }

    /// What waits for the rest of a frame.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.buffer {
            Buffer::Piece(rest) => rest,
            Buffer::Partial(partial) => partial,
        }
    }

    fn take(&mut self, len: usize) -> Bytes {
        match &mut self.buffer {
            Buffer::Piece(rest) => rest.split_to(len),
            Buffer::Partial(partial) => partial.split_to(len).freeze(),
        }
    }

    /// Lets go of the piece, so that a small rest does not keep a large message alive.
    fn wait_for_more(&mut self) -> Option<Frame> {
        match &self.buffer {
            Buffer::Piece(rest) if !rest.is_empty() => self.buffer = Buffer::Partial(BytesMut::from(&rest[..])),
            Buffer::Partial(partial) if partial.is_empty() => self.buffer = Buffer::Piece(Bytes::new()),
            _ => {}
        }
        None
    }
}

struct Header {
    /// `None` for a type that is unknown and may be skipped.
    kind: Option<FrameType>,
    flags: u8,
    stream: u64,
    len: usize,
    payload_len: usize,
}

impl Header {
    fn peek(input: &[u8]) -> Result<Option<Self>, ProtocolError> {
        let [number, flags, rest @ ..] = input else { return Ok(None) };
        let kind = FrameType::from_wire(u64::from(*number));
        if kind.is_none() && *number < FIRST_SKIPPABLE {
            return Err(ProtocolError::UnknownFrame { number: *number });
        }
        let Some((stream, stream_len)) = varint::peek(rest) else { return Ok(None) };
        let Some((len, len_len)) = varint::peek(&rest[stream_len..]) else { return Ok(None) };
        let header_len = 2 + stream_len + len_len;
        if len > (MAX_MESSAGE_BYTES - MAX_HEADER_BYTES) as u64 {
            return Err(ProtocolError::FrameTooLarge { len });
        }
        Ok(Some(Self { kind, flags: *flags, stream, len: header_len, payload_len: len as usize }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(kind: FrameType, stream: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_header(&mut out, kind, 0, stream, payload.len());
        out.extend_from_slice(payload);
        out.to_vec()
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut decoder = Decoder::new();
        let mut claim = BytesMut::new();
        put_header(&mut claim, FrameType::Data, 0, 1, MAX_MESSAGE_BYTES - MAX_HEADER_BYTES);
        let claimed = claim.len();
        decoder.push(claim.freeze());
        assert_eq!(decoder.next(), Ok(None));
        let Buffer::Partial(partial) = &decoder.buffer else { panic!("an incomplete frame is kept as partial") };
        assert!(partial.capacity() <= 64, "{} bytes for {claimed} received", partial.capacity());
    }

    #[test]
    fn a_length_over_one_message_ends_the_session_before_its_payload_comes() {
        let mut out = BytesMut::new();
        put_header(&mut out, FrameType::Data, 0, 1, MAX_MESSAGE_BYTES);
        let mut decoder = Decoder::new();
        decoder.push(out.freeze());
        assert_eq!(decoder.next(), Err(ProtocolError::FrameTooLarge { len: MAX_MESSAGE_BYTES as u64 }));
    }

    #[test]
    fn unknown_frames_are_skipped_from_64_on_and_refused_below() {
        let mut bytes = vec![FIRST_SKIPPABLE, 0, 0, 3, 1, 2, 3];
        bytes.extend(encode(FrameType::Drain, 0, b""));
        let mut decoder = Decoder::new();
        decoder.push(bytes.into());
        assert_eq!(decoder.next().expect("skips").map(|frame| frame.kind), Some(FrameType::Drain));

        decoder.push(Bytes::from_static(&[FIRST_SKIPPABLE - 1, 0, 0, 0]));
        assert_eq!(decoder.next(), Err(ProtocolError::UnknownFrame { number: FIRST_SKIPPABLE - 1 }));
    }
}

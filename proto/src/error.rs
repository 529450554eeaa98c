//! What a peer can do wrong, and what a caller can.
//!
//! A [`ProtocolError`] is always the peer's fault and always ends the session; the other errors say
//! that a call came too late or over a bound, and change nothing.

use thiserror::Error;

/// The peer broke the protocol. The session is closed with `protocol_error`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A type below the skippable range.
    #[error("frame type {number} is not known")]
    UnknownFrame { number: u8 },
    #[error("a frame of {len} bytes is larger than one message")]
    FrameTooLarge { len: u64 },
    #[error("malformed {what}")]
    Malformed { what: &'static str },
    /// A part over one of the bounds in [`crate::limits`].
    #[error("{what} is over its limit")]
    TooLarge { what: &'static str },
    /// A frame that this role may not send, or not now.
    #[error("{what} is not allowed here")]
    Unexpected { what: &'static str },
    #[error("stream {id} was never opened")]
    UnknownStream { id: u64 },
    #[error("stream id {id} was used before")]
    IdNotRising { id: u64 },
    #[error("more than {max} streams at a time")]
    TooManyStreams { max: u32 },
    /// More body bytes than this side gave credit for, or more credit than a window can hold.
    #[error("stream {id} went past its credit")]
    Credit { id: u64 },
    #[error("protocol version {version} is not supported")]
    Version { version: u64 },
}

/// Why no stream could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    #[error("the session is closed")]
    Closed,
    /// The agent has said that it takes no new streams (found by whoever hands out the right to open them).
    #[error("the agent is draining")]
    Draining,
    #[error("too many streams are open")]
    Busy,
    /// The head does not fit into [`crate::limits::MAX_HEAD_BYTES`] or [`crate::limits::MAX_HEADER_LINES`].
    #[error("the head is too large for one frame")]
    HeadTooLarge,
}

/// Why something could not be sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The stream has ended, was reset, or its session closed; nobody waits for this.
    #[error("the stream has ended")]
    Ended,
    /// The send buffer is full; try again after [`crate::Event::Writable`].
    #[error("the send buffer is full")]
    Full,
    /// A head or trailers over their bounds.
    #[error("the head is too large for one frame")]
    HeadTooLarge,
}

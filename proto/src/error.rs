//! What a peer can do wrong, and what a caller can.
//!
//! A [`ProtocolError`] is always the peer's fault and always ends the session; the other errors say
//! that a call came too late or over a bound, and change nothing.

use thiserror::Error;

/// The peer broke the protocol. The session is closed with `protocol_error`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A frame type below the skippable range that this version does not know.
    #[error("frame type {number} is not known")]
    UnknownFrame {
        /// The type's number.
        number: u8,
    },
    /// A frame whose announced payload does not fit into one message.
    #[error("a frame of {len} bytes is larger than one message")]
    FrameTooLarge {
        /// The announced length in bytes.
        len: u64,
    },
    /// A payload that does not follow its layout.
    #[error("malformed {what}")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// A part over one of the bounds in [`crate::limits`].
    #[error("{what} is over its limit")]
    TooLarge {
        /// Which part.
        what: &'static str,
    },
    /// A frame that this role may not send, or not now.
    #[error("{what} is not allowed here")]
    Unexpected {
        /// Which frame.
        what: &'static str,
    },
    /// A frame for a stream that was never opened.
    #[error("stream {id} was never opened")]
    UnknownStream {
        /// The stream's id.
        id: u64,
    },
    /// A request with an id that does not rise.
    #[error("stream id {id} was used before")]
    IdNotRising {
        /// The stream's id.
        id: u64,
    },
    /// More streams than hello allowed.
    #[error("more than {max} streams at a time")]
    TooManyStreams {
        /// The limit that hello announced.
        max: u32,
    },
    /// More body bytes than this side gave credit for, or more credit than a window can hold.
    #[error("stream {id} went past its credit")]
    Credit {
        /// The stream's id.
        id: u64,
    },
    /// The peer speaks a protocol version that this side does not.
    #[error("protocol version {version} is not supported")]
    Version {
        /// The peer's version.
        version: u64,
    },
}

/// Why no stream could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The session is not open (yet, or any more).
    #[error("the session is closed")]
    Closed,
    /// The agent has said that it takes no new streams (found by whoever hands out the right to open them).
    #[error("the agent is draining")]
    Draining,
    /// As many streams as allowed are open.
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

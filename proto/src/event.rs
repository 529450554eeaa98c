//! The events that a session hands to its driver.

use bytes::Bytes;

use crate::{
    control::{Close, Hello, Notice, Welcome},
    fields::HeaderBlock,
    message::{RequestHead, ResetCode, ResponseHead},
    outcome::Outcome,
    stream::StreamId,
};

/// Something that happened in a session. For one stream the order is head, data, end; a reset may
/// come at any time and is the last.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the other names say it all")]
pub enum Event {
    /// Relay: the agent introduced itself. Answer with [`crate::Session::welcome`].
    Hello(Hello),
    /// Agent: the session is open.
    Welcome(Welcome),
    /// Agent: an exchange begins.
    Request {
        /// The new stream.
        id: StreamId,
        /// The request's head.
        head: RequestHead,
    },
    /// Relay: the response to an exchange begins.
    Response {
        id: StreamId,
        /// The response's head.
        head: ResponseHead,
    },
    /// Body bytes. They count against the window until [`crate::Session::consume`].
    Data {
        id: StreamId,
        /// The bytes, never empty.
        bytes: Bytes,
    },
    /// The peer's direction ended, whole.
    End {
        id: StreamId,
        /// Trailers, mostly none.
        trailers: HeaderBlock,
    },
    /// The peer gave the exchange up. Nothing more comes, and nothing can be sent.
    Reset {
        id: StreamId,
        /// Why.
        code: ResetCode,
    },
    /// A stream whose buffer was full takes body bytes again.
    Writable { id: StreamId },
    /// Relay: what became of an attempt that an earlier session of this agent carried.
    Outcome(Outcome),
    /// The peer has answered [`crate::Session::probe`].
    Answered,
    /// Relay to agent: something for the user to see.
    Notice(Notice),
    /// The peer plans to stop. See [`crate::Session::drain`].
    Draining,
    /// The session is over; every stream that had not ended is broken. Always the last event.
    Closed {
        /// Whether the peer said so (or this side did).
        by_peer: bool,
        /// Why.
        close: Close,
    },
}

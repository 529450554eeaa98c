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
pub enum Event {
    /// Relay: the agent introduced itself. Answer with [`crate::Session::welcome`].
    Hello(Hello),
    /// Agent: the session is open.
    Welcome(Welcome),
    Request {
        id: StreamId,
        head: RequestHead,
    },
    Response {
        id: StreamId,
        head: ResponseHead,
    },
    /// Body bytes, never none. They count against the window until [`crate::Session::consume`].
    Data {
        id: StreamId,
        bytes: Bytes,
    },
    /// The peer's direction ended, whole.
    End {
        id: StreamId,
        trailers: HeaderBlock,
    },
    /// The peer gave the exchange up. Nothing more comes, and nothing can be sent.
    Reset {
        id: StreamId,
        code: ResetCode,
    },
    /// A stream whose buffer was full takes body bytes again.
    Writable {
        id: StreamId,
    },
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
        by_peer: bool,
        close: Close,
    },
}

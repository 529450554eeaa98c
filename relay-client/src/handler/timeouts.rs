//! The limits on waiting for a handler, and their names.
//!
//! Values only; the waits themselves stand where the waiting is done.

use std::time::Duration;

/// How long a call may wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the head of the answer, from the end of the request.
    pub head: Duration,
    /// Between two pieces of a body, in either direction, while the other side is ready for them.
    pub idle: Duration,
    /// For everything, the wait for a free connection included.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(4 * 60 * 60),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Timeout {
    /// [`Timeouts::total`], spent waiting for other calls to end: the handler saw nothing of the request.
    #[error("other calls took all its connections")]
    Queue,
    /// [`Timeouts::connect`]: the handler saw nothing of the request.
    #[error("no connection in time")]
    Connect,
    #[error("no answer in time")]
    Head,
    #[error("fell silent in the middle of a body")]
    Idle,
    #[error("not done in time")]
    Total,
}

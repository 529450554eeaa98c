//! The limits on waiting for a handler, and their names.
//!
//! Values only; the waits themselves stand where the waiting is done.

use std::{fmt, time::Duration};

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

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timeout {
    /// [`Timeouts::total`], spent waiting for other calls to end: the handler saw nothing of the request.
    Queue,
    /// [`Timeouts::connect`]: the handler saw nothing of the request.
    Connect,
    /// [`Timeouts::head`].
    Head,
    /// [`Timeouts::idle`].
    Idle,
    /// [`Timeouts::total`].
    Total,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "other calls took all its connections",
            Self::Connect => "no connection in time",
            Self::Head => "no answer in time",
            Self::Idle => "fell silent in the middle of a body",
            Self::Total => "not done in time",
        })
    }
}

//! Plain nouns of the public side: an event's id, a request as it was received, and why one fails.
//!
//! Nothing here decides. A [`Received`] is unproven: only `verify` turns it into a webhook.

pub(crate) mod input;

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use http::request::Parts;
use jiff::Timestamp;
use relay_schemes::Refusal;
use tokio::time::Instant;
use uuid::Uuid;

/// An event's id: `hook_` and a UUIDv7. Later ones sort after earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// A new id; later ones sort after earlier ones. Its random part comes from a generator of the thread, seeded by the
    /// system: it need not be unguessable.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The UUID's 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl Default for EventId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hook_{}", self.0.as_simple())
    }
}

impl FromStr for EventId {
    type Err = NotAnEventId;

    fn from_str(text: &str) -> Result<Self, NotAnEventId> {
        let digits = text.strip_prefix("hook_").filter(|digits| digits.len() == 32).ok_or(NotAnEventId)?;
        Uuid::try_parse(digits).map(Self).map_err(|_| NotAnEventId)
    }
}

/// A text that is no event's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an event's id; it is hook_ and 32 hexadecimal digits")]
pub struct NotAnEventId;

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A request as it was received, before anything was proven.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// The id that its answer will carry.
    pub event_id: EventId,
    /// When it came, for people.
    pub at: Timestamp,
    /// When it came, for deadlines.
    pub started: Instant,
    /// The address that it came from.
    pub peer: IpAddr,
    /// The sender's address, as trusted proxies tell it.
    pub client: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// What the config says in the place of a proxy in front that nobody trusts to say it.
    pub front: Option<Front>,
    pub head: Parts,
    /// The host that it names, lower case, without a port.
    pub host: String,
    /// The address under which its sender knows it: scheme, host and target.
    pub url: String,
    /// What of its target is for the handler, byte for byte.
    pub rest: String,
}

/// Scheme and host by which senders know the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// Host and port; `None` for the request's own.
    pub host: Option<Arc<str>>,
}

/// Why a request gets no answer from a handler. `ingress::respond` alone turns this into a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The host is missing, doubled or not a host.
    BadHost,
    /// The target or the framing cannot be carried as it is.
    BadRequest,
    /// No endpoint has this path or host.
    UnknownEndpoint,
    /// The method is not one that a webhook may have.
    Method,
    /// The body is larger than the endpoint takes.
    BodyTooLarge {
        /// The endpoint's `max_body`, in bytes.
        limit: u64,
    },
    /// The body stopped coming.
    BodyTimeout,
    /// The body broke off.
    BodyBroken,
    /// The head does not fit into the tunnel.
    HeadTooLarge,
    /// The sender's address is not one that the endpoint allows.
    Address,
    /// The proof failed.
    Refused(Refusal),
    /// A secret of the endpoint could not be read, so nothing can be proven.
    SecretUnavailable,
    /// The provider's key that would prove it cannot be asked for now.
    KeyUnavailable {
        /// When it can be asked for again, in seconds.
        wait_s: u64,
    },
    /// A provider's challenge that proves nothing, or that cannot be answered.
    Challenge {
        /// The status that the provider expects.
        status: u16,
        /// A stable code.
        code: &'static str,
    },
    /// The same signed request came before.
    Replayed,
    /// Its signature was made by this relay, for a handler.
    OwnSignature,
    /// No memory is left for bodies.
    Overloaded,
    /// The store has no room.
    StoreFull,
    StoreFailed,
    /// No agent is attached.
    NoAgent,
    /// Agents are attached, and none of them takes events of this type.
    Unwanted,
    /// Every attached agent has as many exchanges in flight as it takes.
    Busy,
    /// The endpoint, or every agent that would take it, takes no more for a while.
    Limited {
        /// For about how long, in milliseconds.
        wait_ms: u64,
    },
    /// The handler did not answer before the endpoint's deadline.
    Deadline,
    /// The agent could not reach the handler.
    HandlerUnreachable,
    /// The handler's answer broke off or was not HTTP.
    HandlerBroken,
    /// The agent's own limit on waiting for the handler.
    HandlerTimeout,
    /// The tunnel was lost while the handler was at work.
    AgentLost,
    /// The agent gave the request back without calling the handler.
    NotCalled,
    /// No request to a handler can be made of what the sender asked for.
    NotCarriable,
    /// The relay failed.
    Internal,
}

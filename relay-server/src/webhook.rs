//! Plain nouns of the public side: an event's id, and a request as it was received.
//!
//! Nothing here decides. A [`Received`] is unproven: only `verify` turns it into a webhook.

pub(crate) mod input;
pub(crate) mod lines;
pub(crate) mod wakes;

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use bytes::Bytes;
use http::request::Parts;
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use self::lines::LineNotes;
use crate::{client_certificate::ClientCertificate, hops::Way};

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

    /// Its text, without an allocation.
    pub(crate) fn text(&self) -> [u8; 37] {
        let mut text = *b"hook_00000000000000000000000000000000";
        self.0.as_simple().encode_lower(&mut text[5..]);
        text
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
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
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
    pub at: Timestamp,
    /// When it came, for deadlines.
    pub started: Instant,
    /// The moment that was read last. What follows without a wait happens at this one, too: to read the clock for each
    /// place that it passes takes longer than most of what is between them.
    pub read_at: Instant,
    /// The places that it has passed since then.
    pub way: Way,
    pub peer: IpAddr,
    /// The same as text.
    pub address: Bytes,
    /// The sender's address, as trusted proxies tell it.
    pub client: IpAddr,
    pub secure: bool,
    /// The certificate that its sender showed.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// What the config says in the place of a proxy in front that nobody trusts to say it.
    pub front: Option<Front>,
    pub head: Parts,
    /// What was noted of its lines.
    pub lines: LineNotes,
    /// The host that it names, lower case, without a port.
    pub host: String,
    /// The address under which its sender knows it: scheme, host and target.
    pub url: String,
    /// What of its target is for the handler, byte for byte.
    pub rest: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    pub scheme: &'static str,
    /// Host and port; `None` for the request's own.
    pub host: Option<Arc<str>>,
}

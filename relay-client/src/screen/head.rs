//! What the first line says: how the agent stands with the relay, and how much comes. Plain values.

use jiff::Timestamp;

/// How the agent stands with the relay, for the first line.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub endpoints: Vec<String>,
    /// The relay's name.
    pub host: String,
    pub link: LinkNow,
    /// The last heartbeat's way and back.
    pub link_us: Option<u64>,
    pub figures: Option<HeadFigures>,
    /// Since when the relay tells what changes; `Err`: since when not.
    pub live: Option<Result<Timestamp, Timestamp>>,
}

#[derive(Debug, Default)]
pub(super) enum LinkNow {
    #[default]
    Connecting,
    Ready {
        since: Timestamp,
    },
    Lost {
        why: String,
    },
    Draining,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HeadFigures {
    pub per_minute: u64,
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    pub waiting: u64,
}

//! Every bound of a session, in one type.
//!
//! The memory that a session can be made to hold is
//! `max_streams × (initial_window + send_buffer + max_chunk) + window_pool`, plus one message each way. Pieces of a body
//! below 4 KiB are merged wherever they wait, so that bytes cost about twice their number at most.

use core::time::Duration;

use crate::credit::Purse;

/// Largest WebSocket message that either side may send, in bytes.
///
/// Larger messages make a slow socket's write buffer move quadratically many bytes.
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// Largest payload of one DATA frame, in bytes.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;
/// Largest encoded head (fields and headers together, without an inline body), in bytes.
pub const MAX_HEAD_BYTES: usize = 80 * 1024;
/// Most header lines in one head or one block of trailers.
pub const MAX_HEADER_LINES: usize = 256;
/// Most endpoints that one hello may offer, and that one welcome may name.
pub const MAX_OFFERS: usize = 256;
/// Most event patterns in one offer.
pub const MAX_EVENT_PATTERNS: usize = 64;
/// Most OUTCOME frames that one session may carry: two for each of 1,024 attempts.
pub const MAX_OUTCOMES: usize = 2 * 1024;
/// Longest short text (a name, a code, a URL) in a control frame, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;
/// Largest credit that a peer may hold on one stream, in bytes. More ends the session.
pub const MAX_WINDOW_BYTES: u32 = 1 << 30;

/// What one side of a session allows itself and its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams open at a time. The agent announces its own in hello; the relay takes the smaller one.
    pub max_streams: u32,
    /// Bytes that the peer may send on each new stream before any further credit.
    pub initial_window_bytes: u32,
    /// Bytes of credit, over all streams, that this side lends beyond the initial windows.
    pub window_pool_bytes: u32,
    /// What the pools of all sessions of a process lend out of, where they share it.
    pub purse: Option<Purse>,
    /// The most that one stream's window may grow to, in bytes.
    pub max_stream_window_bytes: u32,
    /// Bytes of one stream's outgoing body that wait in the session. One chunk may overshoot it.
    pub send_buffer_bytes: usize,
    /// Notices that wait to be sent; beyond this the oldest is dropped and counted.
    pub max_notices: usize,
    pub ping_after: Duration,
    /// Silence after which the peer is taken for dead.
    pub dead_after: Duration,
}

impl Limits {
    /// The relay's defaults: many agents, so small windows (16 KiB).
    pub const fn relay() -> Self {
        Self {
            max_streams: 1024,
            initial_window_bytes: 16 * 1024,
            window_pool_bytes: 4 * 1024 * 1024,
            purse: None,
            max_stream_window_bytes: 1024 * 1024,
            send_buffer_bytes: 64 * 1024,
            max_notices: 64,
            ping_after: Duration::from_secs(5),
            dead_after: Duration::from_secs(10),
        }
    }

    /// The agent's defaults: one session, so larger windows (64 KiB).
    pub fn agent() -> Self {
        Self { initial_window_bytes: 64 * 1024, ..Self::relay() }
    }
}

//! One exchange inside a session: what is owed to the peer, and what may still come from it.
//!
//! A stream is state, not a queue of frames: the head, the body bytes, the end, the credit and the
//! reset that the peer has yet to get. The session turns it into frames when the socket has room.

use crate::{
    credit::{RecvWindow, SendWindow},
    fields::HeaderBlock,
    message::{RequestHead, ResetCode, ResponseHead},
    message_buffer::MessageBuffer,
    pieces::Pieces,
    queue::DataPlace,
};

/// A stream's number: rises with each request of a session, and is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub(crate) u64);

impl StreamId {
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
pub(crate) enum Head {
    Request(RequestHead),
    Response(ResponseHead),
}

/// The direction from this side to the peer.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) head: Option<Head>,
    pub(crate) head_given: bool,
    pub(crate) body: Pieces,
    pub(crate) window: SendWindow,
    pub(crate) end: End,
    /// Somebody waits for room in the body's buffer.
    pub(crate) blocked: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    NotYet,
    Owed(HeaderBlock),
    Sent,
}

impl Outgoing {
    pub(crate) fn new(window_bytes: u32) -> Self {
        Self {
            head: None,
            head_given: false,
            body: Pieces::default(),
            window: SendWindow::new(window_bytes),
            end: End::NotYet,
            blocked: false,
        }
    }

    /// Moves `len` bytes of body into `out`, which spends credit.
    pub(crate) fn write_body(&mut self, len: usize, out: &mut impl MessageBuffer) {
        self.window.spend(len);
        self.body.move_to(len, out);
    }

    /// The peer wants no more of this direction: it has ended.
    pub(crate) fn stop(&mut self) {
        self.body.clear();
        self.blocked = false;
        self.end = End::Sent;
    }

    /// Whether a frame could be written now.
    pub(crate) fn ready(&self) -> bool {
        self.head.is_some()
            || (!self.body.is_empty() && self.window.available() > 0)
            || (self.body.is_empty() && matches!(self.end, End::Owed(_)))
    }
}

/// The direction from the peer to this side.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) head_seen: bool,
    pub(crate) ended: bool,
    pub(crate) window: RecvWindow,
    pub(crate) place: DataPlace,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Incoming,
    pub(crate) reset_owed: Option<ResetCode>,
    /// The response was 101: both directions are raw and end each by itself.
    pub(crate) upgraded: bool,
    /// Whether the stream stands in the session's queue of streams with something to send.
    pub(crate) queued: bool,
    /// Whether the session has counted the stream out.
    pub(crate) settled: bool,
}

impl Stream {
    pub(crate) fn new(send_window_bytes: u32, recv_window_bytes: u32, head_seen: bool) -> Self {
        Self {
            outgoing: Outgoing::new(send_window_bytes),
            incoming: Incoming {
                head_seen,
                ended: false,
                window: RecvWindow::new(recv_window_bytes),
                place: DataPlace::default(),
            },
            reset_owed: None,
            upgraded: false,
            queued: false,
            settled: false,
        }
    }

    /// Both directions have ended; only unread bytes may keep the stream.
    pub(crate) fn ended(&self) -> bool {
        self.incoming.ended && self.outgoing.end == End::Sent
    }

    pub(crate) fn owes_credit(&self) -> bool {
        !self.incoming.ended && self.incoming.window.owes_credit()
    }

    /// Whether the stream comes into the session's queue now; it takes note of that.
    pub(crate) fn lines_up(&mut self) -> bool {
        let lines_up = !self.queued && self.ready();
        self.queued |= lines_up;
        lines_up
    }

    pub(crate) fn ready(&self) -> bool {
        self.reset_owed.is_some() || self.outgoing.ready() || self.owes_credit()
    }
}

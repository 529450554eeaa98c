//! Turning what is owed into messages.
//!
//! One call fills one message of at most [`MAX_MESSAGE_BYTES`] with whole frames: control frames
//! first, then the streams in turn, each with its head, credit, a share of its body and its end.
//! Streams leave off after [`FULL_BYTES`]; only a long head goes beyond.

use bytes::{BufMut as _, BytesMut};

use super::{Phase, Role, Session};
use crate::{
    control::{PeerLimits, VERSION},
    event::Event,
    frame::{FLAG_END, FrameType, MAX_HEADER_BYTES, put_header},
    limits::{MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES},
    message::ResetCode,
    message_buffer::MessageBuffer,
    stream::{End, Head, Stream, StreamId},
    varint,
};

/// A body is cut for the rest of a message only if at least this many bytes of it fit.
const MIN_CHUNK_BYTES: usize = 4 * 1024;

/// Streams leave off after so many bytes of a message, counted behind its control frames. Under TLS, and with the header
/// of its WebSocket frame, it still is what Linux hands to a network card in one go (64 KiB, in whole segments of an
/// Ethernet); a little more costs a packet more. And a chunk that fills it can be held as it came, since little else is
/// held with it.
const FULL_BYTES: usize = 62 * 1024 - 14;

/// Bytes that streams with long bodies send together before each of them has had its turn.
const ROUND_BYTES: usize = 512 * 1024;

/// Room for any frame whose payload is a number.
const SMALL_FRAME_BYTES: usize = MAX_HEADER_BYTES + 8;

/// What one turn of a stream came to.
enum Turn {
    /// Nothing more to send now.
    Done,
    /// More to send, in the next turn.
    Again,
    /// The next frame does not fit into this message.
    NoRoom,
    /// A reset was sent: the stream is over.
    Over,
}

/// What a stream may write in its turn.
#[derive(Clone, Copy)]
struct Room {
    /// Bytes of its body.
    share: usize,
    /// How long the message may be then.
    full: usize,
}

impl Session {
    /// Writes the next message into `out`, which must be empty. False when nothing is owed.
    pub fn poll_transmit(&mut self, out: &mut impl MessageBuffer) -> bool {
        debug_assert!(out.is_empty(), "one call fills one message");
        match &self.phase {
            Phase::Closed => return false,
            Phase::Closing { .. } => self.write_close(out),
            Phase::Opening { .. } => self.write_control(out),
            Phase::Open => {
                self.write_control(out);
                self.write_streams(out);
            }
        }
        debug_assert!(out.len() <= MAX_MESSAGE_BYTES, "a message keeps to its limit");
        !out.is_empty()
    }

    fn write_close(&mut self, out: &mut impl MessageBuffer) {
        self.write_introduction(out);
        let Phase::Closing { close, .. } = std::mem::replace(&mut self.phase, Phase::Closed) else { return };
        put_frame(out.short(), FrameType::Close, |payload| close.encode(payload));
        self.events.push(Event::Closed { by_peer: false, close });
    }

    fn write_introduction(&mut self, out: &mut impl MessageBuffer) {
        let limits = PeerLimits {
            version: VERSION,
            max_streams: self.limits.max_streams,
            initial_window_bytes: self.limits.initial_window_bytes,
            heartbeat: (self.role == Role::Relay).then_some((self.limits.ping_after, self.limits.dead_after)),
        };
        if let Some(hello) = self.owed.hello.take() {
            put_frame(out.short(), FrameType::Hello, |payload| hello.encode(limits, payload));
        }
        if let Some(welcome) = self.owed.welcome.take() {
            put_frame(out.short(), FrameType::Welcome, |payload| welcome.encode(limits, payload));
        }
    }

    fn write_control(&mut self, out: &mut impl MessageBuffer) {
        self.write_introduction(out);
        if let Some(echo) = self.owed.pong.take() {
            put_header(out.short(), FrameType::Pong, 0, 0, echo.len());
            out.short().put_slice(&echo);
        }
        if std::mem::take(&mut self.owed.ping) {
            self.pings_sent += 1;
            put_header(out.short(), FrameType::Ping, 0, 0, 8);
            out.short().put_u64(self.pings_sent);
        }
        if std::mem::take(&mut self.owed.drain) {
            put_header(out.short(), FrameType::Drain, 0, 0, 0);
        }
        while out.len() < MAX_MESSAGE_BYTES / 2
            && let Some(notice) = self.owed.notices.pop_front()
        {
            put_frame(out.short(), FrameType::Notice, |payload| notice.encode(payload));
        }
        // An outcome may fill a message by itself; several leave half of it to streams.
        while let Some(outcome) = self.owed.outcomes.front() {
            let mut payload = BytesMut::new();
            outcome.encode(&mut payload);
            let most = if out.is_empty() { MAX_MESSAGE_BYTES } else { MAX_MESSAGE_BYTES / 2 };
            if most < out.len() + MAX_HEADER_BYTES + payload.len() {
                return;
            }
            self.owed.outcomes.pop_front();
            put_header(out.short(), FrameType::Outcome, 0, 0, payload.len());
            out.short().put_slice(&payload);
        }
    }

    fn write_streams(&mut self, out: &mut impl MessageBuffer) {
        let full = MAX_MESSAGE_BYTES.min(out.len() + FULL_BYTES);
        while let Some(id) = self.ready.pop_front() {
            // Many streams share a message; of a few each fills one.
            let share = (ROUND_BYTES / (self.ready.len() + 1)).clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES);
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.queued = false;
            match write_turn(id, stream, Room { share, full }, out) {
                Turn::Over if stream.reset_owed == Some(ResetCode::NoError) => {
                    // The response is whole and may still be read.
                    stream.reset_owed = None;
                    stream.outgoing.stop();
                    self.settle(id);
                }
                Turn::Over => self.forget(id),
                Turn::Done => self.after_turn(id),
                Turn::Again => {
                    self.after_turn(id);
                    self.enqueue(id);
                }
                Turn::NoRoom => {
                    stream.queued = true;
                    self.ready.push_front(id);
                    return;
                }
            }
        }
    }

    fn after_turn(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.outgoing.blocked && stream.outgoing.body.len() <= self.limits.send_buffer_bytes / 2 {
            stream.outgoing.blocked = false;
            self.events.push(Event::Writable { id });
        }
        self.settle(id);
    }
}

fn write_turn(id: StreamId, stream: &mut Stream, room: Room, out: &mut impl MessageBuffer) -> Turn {
    if room.full < out.len() + SMALL_FRAME_BYTES {
        return Turn::NoRoom;
    }
    if let Some(code) = stream.reset_owed {
        put_number(out.short(), FrameType::Reset, id, code as u64);
        return Turn::Over;
    }
    if stream.owes_credit() {
        put_number(out.short(), FrameType::Credit, id, u64::from(stream.incoming.window.grant()));
    }
    if let Some(head) = &stream.outgoing.head {
        let head_len = head.encoded_len();
        let inline = chunk_len(stream, MAX_HEADER_BYTES + head_len, room, out);
        if rest(out) < MAX_HEADER_BYTES + head_len || (!out.is_empty() && inline < least_chunk(stream)) {
            return Turn::NoRoom;
        }
        write_head(id, stream, head_len, inline, out);
    } else if stream.outgoing.ready() && !stream.outgoing.body.is_empty() {
        let len = chunk_len(stream, MAX_HEADER_BYTES, room, out);
        if len < least_chunk(stream) {
            return Turn::NoRoom;
        }
        let flags = end_flag(stream, len);
        put_header(out.short(), FrameType::Data, flags, id.0, len);
        stream.outgoing.write_body(len, out);
    }
    if stream.outgoing.body.is_empty()
        && let End::Owed(trailers) = &stream.outgoing.end
    {
        let len = trailers.as_bytes().len();
        if rest(out) < MAX_HEADER_BYTES + len {
            return Turn::NoRoom;
        }
        put_header(out.short(), FrameType::End, 0, id.0, len);
        out.short().extend_from_slice(trailers.as_bytes());
        stream.outgoing.end = End::Sent;
    }
    if stream.ready() { Turn::Again } else { Turn::Done }
}

/// The head and the first bytes of the body behind it in the same frame.
fn write_head(id: StreamId, stream: &mut Stream, head_len: usize, inline: usize, out: &mut impl MessageBuffer) {
    let flags = end_flag(stream, inline);
    let head = stream.outgoing.head.take().expect("the caller looked");
    let kind = match head {
        Head::Request(_) => FrameType::Request,
        Head::Response(_) => FrameType::Response,
    };
    put_header(out.short(), kind, flags, id.0, head_len + inline);
    head.encode(out.short());
    stream.outgoing.write_body(inline, out);
}

/// Less of the body than this waits for the next message.
fn least_chunk(stream: &Stream) -> usize {
    stream.outgoing.body.len().min(MIN_CHUNK_BYTES).min(stream.outgoing.window.available())
}

/// How much of the body may follow `before` further bytes in this message.
fn chunk_len(stream: &Stream, before: usize, room: Room, out: &impl MessageBuffer) -> usize {
    let allowed = stream.outgoing.body.len().min(stream.outgoing.window.available());
    allowed.min(room.share).min(room.full.saturating_sub(out.len() + before))
}

/// [`FLAG_END`] if `len` bytes are the rest of the body and no trailers follow it.
fn end_flag(stream: &mut Stream, len: usize) -> u8 {
    if len == stream.outgoing.body.len() && matches!(&stream.outgoing.end, End::Owed(trailers) if trailers.is_empty()) {
        stream.outgoing.end = End::Sent;
        FLAG_END
    } else {
        0
    }
}

fn rest(out: &impl MessageBuffer) -> usize {
    MAX_MESSAGE_BYTES.saturating_sub(out.len())
}

fn put_number(out: &mut BytesMut, kind: FrameType, id: StreamId, number: u64) {
    put_header(out, kind, 0, id.0, varint::len(number));
    varint::put(out, number);
}

/// A control frame whose payload is rare enough to be written apart first.
fn put_frame(out: &mut BytesMut, kind: FrameType, encode: impl FnOnce(&mut BytesMut)) {
    let mut payload = BytesMut::new();
    encode(&mut payload);
    put_header(out, kind, 0, 0, payload.len());
    out.put_slice(&payload);
}

impl Head {
    fn encoded_len(&self) -> usize {
        match self {
            Self::Request(head) => head.encoded_len(),
            Self::Response(head) => head.encoded_len(),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Request(head) => head.encode(out),
            Self::Response(head) => head.encode(out),
        }
    }
}

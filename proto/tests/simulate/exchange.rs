//! One attempt at an exchange: the reference model of both its directions, and the users on both sides.
//!
//! The model knows what each side gave to its session and what each has seen. What is seen is always a
//! prefix of what was given; an end is seen only of a whole body; each side sees exactly one end. With a
//! hostile peer only the order of events is held against the session, not what they say.

use std::sync::LazyLock;

use bytes::Bytes;
use relay_proto::{Framing, HeaderBlock, RequestHead, ResetCode, ResponseHead, SendError, Session, StreamId};

use crate::{
    plan::{Answer, Flow, Script, Side},
    rng::Rng,
};

const TABLE_BYTES: usize = 1 << 20;
const LONGEST_BODY: usize = 1 << 19;

/// The bytes of all bodies: each direction of each attempt is a window into them.
static TABLE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut rng = Rng::new(7, 7);
    let bytes: Vec<u8> = (0..TABLE_BYTES / 8).flat_map(|_| rng.next().to_le_bytes()).collect();
    Bytes::from_static(Box::leak(bytes.into_boxed_slice()))
});

/// How an exchange came to its end on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    No,
    /// Both directions are done with, as this side sees it.
    Whole,
    /// Either side reset it.
    Reset,
    /// Its session closed.
    Closed,
}

/// One direction.
#[derive(Clone, Debug)]
pub(crate) struct Half {
    start: usize,
    flow: Flow,
    // At its sender.
    pub(crate) head_given: bool,
    given: u32,
    pub(crate) finished: bool,
    blocked: bool,
    // At its receiver.
    pub(crate) head_seen: bool,
    seen: u32,
    pub(crate) unread: u32,
    pub(crate) ended: bool,
}

/// One attempt.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) webhook: usize,
    pub(crate) attempt: u32,
    pub(crate) fence: Option<u64>,
    pub(crate) script: Script,
    pub(crate) tunnel: usize,
    pub(crate) id: StreamId,
    /// Indexed by the side that sends.
    pub(crate) halves: [Half; 2],
    /// Indexed by the side that looks.
    pub(crate) over: [Over; 2],
    pub(crate) reset_by: [Option<ResetCode>; 2],
    since: [u64; 2],
    answer_at: Option<u64>,
    pub(crate) upgraded: bool,
    /// A peer invented it: the relay's side knows nothing of it.
    pub(crate) wild: bool,
    honest: bool,
}

impl Exchange {
    pub(crate) fn new(
        webhook: usize,
        attempt: u32,
        script: Script,
        tunnel: usize,
        id: StreamId,
        now: u64,
        honest: bool,
    ) -> Self {
        let half = |side: Side| {
            let place = webhook * 7919 + attempt as usize * 104_729 + side as usize * 15_485_863 + tunnel * 31;
            Half {
                start: place * 97 % (TABLE_BYTES - LONGEST_BODY),
                flow: script.flows[side as usize],
                head_given: false,
                given: 0,
                finished: false,
                blocked: false,
                head_seen: false,
                seen: 0,
                unread: 0,
                ended: false,
            }
        };
        Self {
            webhook,
            attempt,
            fence: None,
            script,
            tunnel,
            id,
            halves: Side::BOTH.map(half),
            over: [Over::No; 2],
            reset_by: [None; 2],
            since: [now; 2],
            answer_at: None,
            upgraded: false,
            wild: false,
            honest,
        }
    }

    /// Which attempt an event id means.
    pub(crate) fn event_id(webhook: usize, attempt: u32) -> [u8; 16] {
        let mut id = [0xee; 16];
        id[..8].copy_from_slice(&(webhook as u64).to_be_bytes());
        id[8..12].copy_from_slice(&attempt.to_be_bytes());
        id
    }

    pub(crate) fn request_head(&self) -> RequestHead {
        Self::request(&self.script, self.webhook, self.attempt, self.fence)
    }

    pub(crate) fn request(script: &Script, webhook: usize, attempt: u32, fence: Option<u64>) -> RequestHead {
        let targets = ["", "/", "/a%2Fb?x=%20", "?q", "/\u{e4}"];
        RequestHead {
            endpoint: Bytes::from_static(b"github"),
            event_id: Self::event_id(webhook, attempt),
            attempt,
            method: Bytes::from_static([&b"POST"[..], b"GET", b"PURGE"][(script.heads % 3) as usize]),
            target: Bytes::from_static(targets[(script.heads % 5) as usize].as_bytes()),
            framing: if script.heads.is_multiple_of(2) { Framing::Chunked } else { Framing::Length },
            headers: lines(script.heads >> 8),
            fence,
            upgrade: Bytes::from_static(if script.upgrade { b"websocket" } else { b"" }),
            asks_sha256: script.heads.is_multiple_of(3),
        }
    }

    pub(crate) fn response_head(&self) -> ResponseHead {
        let head = ResponseHead::new(self.script.status, lines(self.script.heads >> 32));
        let sha256_in = self.script.heads.is_multiple_of(3).then_some([self.script.heads as u8; 32]);
        ResponseHead { sha256_in, ..head }
    }

    /// The whole body that the handler gives, as an outcome reports it.
    pub(crate) fn response_body(&self) -> Bytes {
        let half = &self.halves[Side::Agent as usize];
        TABLE.slice(half.start..half.start + half.flow.len as usize)
    }

    fn trailers(&self, side: Side) -> HeaderBlock {
        let flow = &self.script.flows[side as usize];
        if flow.trailers { [("x-sum", Bytes::from_static(b"\xff1"))].into_iter().collect() } else { HeaderBlock::new() }
    }

    /// Whether nothing more comes of it on this side, unread bytes aside.
    pub(crate) fn is_over(&self, side: Side) -> bool {
        self.over[side as usize] != Over::No
    }

    // What a session told.

    /// The agent sees the request's head, or the relay the response's.
    pub(crate) fn see_head(&mut self, at: Side, now: u64) {
        let half = &mut self.halves[at.other() as usize];
        assert!(!half.head_seen, "a second head on {:?}", self.id);
        assert!(!self.honest || half.head_given, "a head that nobody gave on {:?}", self.id);
        half.head_seen = true;
        if at == Side::Agent {
            self.since[at as usize] = now;
        }
    }

    pub(crate) fn see_data(&mut self, at: Side, bytes: &Bytes) {
        assert!(self.over[at as usize] == Over::No, "data after the end of {:?}: {:?}", self.id, self.over);
        let half = &mut self.halves[at.other() as usize];
        assert!(half.head_seen && !half.ended && !bytes.is_empty(), "data outside a body of {:?}", self.id);
        let before = half.start + half.seen as usize;
        half.seen += bytes.len() as u32;
        half.unread += bytes.len() as u32;
        if self.honest {
            assert!(half.seen <= half.given, "{} bytes of {:?} seen, {} given", half.seen, self.id, half.given);
            assert!(TABLE[before..before + bytes.len()] == *bytes, "foreign bytes in {:?}", self.id);
        }
    }

    pub(crate) fn see_end(&mut self, at: Side, trailers: &HeaderBlock) {
        assert!(self.over[at as usize] == Over::No, "an end after the end of {:?}: {:?}", self.id, self.over);
        let expected = self.trailers(at.other());
        let half = &mut self.halves[at.other() as usize];
        assert!(half.head_seen && !half.ended, "a second end of {:?}", self.id);
        half.ended = true;
        if self.honest {
            assert!(half.finished, "a broken body looks whole: {:?}", self.id);
            assert_eq!(half.seen, half.given, "a short body looks whole: {:?}", self.id);
            assert_eq!(half.given, half.flow.len);
            assert_eq!(*trailers, expected);
        }
        self.end_if_whole(at);
    }

    pub(crate) fn see_reset(&mut self, at: Side, code: ResetCode) {
        let over = &mut self.over[at as usize];
        // What this side has finished may still wait to be sent when the peer gives up.
        let unsent = *over == Over::Whole && (at == Side::Agent || self.upgraded);
        assert!(*over == Over::No || unsent, "a reset after the end of {:?}: {over:?}", self.id);
        let answered = self.halves[Side::Agent as usize].finished;
        if self.honest && code == ResetCode::NoError {
            assert!(at == Side::Agent && answered, "no_error without a whole response on {:?}", self.id);
        } else if self.honest {
            assert_eq!(Some(code), self.reset_by[at.other() as usize], "a reset that nobody sent on {:?}", self.id);
        }
        *over = if code == ResetCode::NoError && answered { Over::Whole } else { Over::Reset };
        self.halves[at.other() as usize].unread = 0;
    }

    pub(crate) fn see_room(&mut self, at: Side) {
        assert!(self.over[at as usize] == Over::No, "room after the end of {:?}", self.id);
        let half = &mut self.halves[at as usize];
        assert!(half.blocked, "room that nobody waited for on {:?}", self.id);
        half.blocked = false;
    }

    pub(crate) fn see_close(&mut self, at: Side) {
        self.halves[at.other() as usize].unread = 0;
        if self.over[at as usize] == Over::No {
            self.over[at as usize] = Over::Closed;
        }
    }

    fn end_if_whole(&mut self, at: Side) {
        let own = &self.halves[at as usize];
        let peers = &self.halves[at.other() as usize];
        // A whole response ends the exchange for the relay, whatever of the request is left.
        let enough = own.finished || (at == Side::Relay && !self.upgraded);
        if peers.ended && enough && self.over[at as usize] == Over::No {
            self.over[at as usize] = Over::Whole;
        }
    }

    // What the users do.

    /// One turn of this side's user; says when it wants the next.
    pub(crate) fn act(&mut self, at: Side, session: &mut Session, now: u64) -> Option<u64> {
        if !session.is_open() {
            return None; // It closes, and its last event will say so.
        }
        let mut next = u64::MAX;
        let (own, peers) = (at as usize, at.other() as usize);
        if let (Some((after, code)), Over::No) = (self.script.resets[own], self.over[own]) {
            let due = self.since[own] + after;
            if now >= due {
                session.reset(self.id, code);
                self.reset_by[own] = Some(code);
                self.over[own] = Over::Reset;
                self.halves[peers].unread = 0;
                return None;
            }
            next = due;
        }
        if let Some(due) = self.read(at, session, now) {
            next = next.min(due);
        }
        if self.over[own] == Over::No
            && let Some(due) = self.write(at, session, now)
        {
            next = next.min(due);
        }
        // Once all is said, what nobody wants to read is thrown away.
        if self.over[own] == Over::Whole && self.halves[peers].flow.read == 0 && self.halves[peers].unread > 0 {
            next = next.min(now + 1);
        }
        (next != u64::MAX).then_some(next)
    }

    fn read(&mut self, at: Side, session: &mut Session, now: u64) -> Option<u64> {
        let whole = self.over[at as usize] == Over::Whole;
        let half = &mut self.halves[at.other() as usize];
        let most = if half.flow.read == 0 && whole { u32::MAX } else { half.flow.read };
        let read = half.unread.min(most);
        if read == 0 {
            return None;
        }
        session.consume(self.id, read as usize);
        half.unread -= read;
        (half.unread > 0).then_some(now + half.flow.read_pace.max(1))
    }

    fn write(&mut self, at: Side, session: &mut Session, now: u64) -> Option<u64> {
        if at == Side::Agent && !self.halves[at as usize].head_given {
            let due = self.begin_answer(now)?;
            if due > now {
                return Some(due);
            }
            let outcome = session.respond(self.id, self.response_head());
            assert!(!self.honest || outcome.is_ok(), "{:?} takes no response: {outcome:?}", self.id);
            self.halves[at as usize].head_given = true;
            self.upgraded = self.script.status == 101;
        }
        let trailers = self.trailers(at);
        let half = &mut self.halves[at as usize];
        if !half.head_given || half.finished || half.blocked {
            return None;
        }
        while half.given < half.flow.len {
            let len = half.flow.chunk.min(half.flow.len - half.given).min(64 * 1024);
            let begin = half.start + half.given as usize;
            match session.send(self.id, TABLE.slice(begin..begin + len as usize)) {
                Ok(()) => half.given += len,
                Err(SendError::Full) => {
                    half.blocked = true;
                    return None;
                }
                Err(error) => {
                    assert!(!self.honest, "{:?} takes no bytes: {error}", self.id);
                    return None;
                }
            }
            if half.flow.pace > 0 {
                return Some(now + half.flow.pace);
            }
        }
        let outcome = session.finish(self.id, trailers);
        assert!(!self.honest || outcome.is_ok(), "{:?} takes no end: {outcome:?}", self.id);
        half.finished = true;
        self.end_if_whole(at);
        None
    }

    /// When the handler has something to say, once it is known.
    fn begin_answer(&mut self, now: u64) -> Option<u64> {
        let request = &self.halves[Side::Relay as usize];
        let begun = match self.script.answer {
            Answer::AtHead => true,
            Answer::After(bytes) => request.ended || request.seen >= bytes,
            Answer::AtEnd => request.ended,
            Answer::Never => false,
        };
        if begun && self.answer_at.is_none() {
            self.answer_at = Some(now + self.script.think);
        }
        self.answer_at
    }
}

/// Some header lines: mostly few and short, at times many or long.
fn lines(choice: u64) -> HeaderBlock {
    static LONG: [u8; 30_000] = [b'v'; 30_000];
    let tags = [("x-tag", &b"one"[..]), ("accept", b"*/*"), ("x-tag", b"\xff two"), ("x-empty", b"")];
    match choice % 256 {
        0 => (0..200).map(|_| ("x-many", Bytes::from_static(b"1"))).collect(),
        1 => [("x-long", Bytes::from_static(&LONG)), ("x-long", Bytes::from_static(&LONG))].into_iter().collect(),
        some => {
            tags.into_iter().take((some % 5) as usize).map(|(name, value)| (name, Bytes::from_static(value))).collect()
        }
    }
}

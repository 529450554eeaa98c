//! Two sessions and what their drivers do, in any order: what one side was given reaches the other whole and in order, or
//! the other side hears that it does not.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use relay_proto::{
    CloseCode, Event, HeaderBlock, Instant, Limits, Notice, OfferState, Outcome, OutcomeState, ResetCode, ResponseHead,
    SendError, Session, StreamId,
};

use super::frames::{pair, request, welcome};

/// Messages that are under way one way, at most.
const MAX_UNDER_WAY: usize = 64;

/// Each pair of bytes is a step: what is done, and with what.
pub(crate) fn session(data: &[u8]) {
    let mut world = World::new();
    for step in data.chunks_exact(2) {
        world.step(step[0], step[1]);
    }
    world.end();
}

const RELAY: usize = 0;
const AGENT: usize = 1;

struct World {
    sides: [Side; 2],
    now: Instant,
    /// Bytes that did not come from a session reached the other: then nothing is known of what must arrive.
    tampered: bool,
}

struct Side {
    at: usize,
    session: Session,
    /// Messages that left for this side and have not arrived.
    coming: Vec<Bytes>,
    streams: BTreeMap<StreamId, Exchange>,
    closed: bool,
}

/// One direction each: what this side gave, and what it got.
#[derive(Default)]
struct Exchange {
    given: u64,
    finished: bool,
    got: u64,
    ended: bool,
    unread: usize,
}

impl World {
    fn new() -> Self {
        let now = Instant::from_micros(1);
        let (relay, agent) = pair(now);
        let side = |at, session| Side { at, session, coming: Vec::new(), streams: BTreeMap::new(), closed: false };
        Self { sides: [side(RELAY, relay), side(AGENT, agent)], now, tampered: false }
    }

    fn step(&mut self, what: u8, with: u8) {
        let at = usize::from(what >> 7);
        let side = &mut self.sides[at];
        let id = side.streams.keys().nth(usize::from(with) % side.streams.len().max(1)).copied();
        match (what & 0x1f, id) {
            (0, _) => {
                if let Ok(id) = self.sides[RELAY].session.open(request()) {
                    self.sides[RELAY].streams.insert(id, Exchange::default());
                }
            }
            (1, Some(id)) => {
                let status = [200, 101, 204, 500][usize::from(with >> 6)];
                let _ = side.session.respond(id, ResponseHead::new(status, HeaderBlock::new()));
            }
            (2..=5, Some(id)) => side.send(id, usize::from(what & 0x1f) * usize::from(with) * 33),
            (6, Some(id)) => {
                let trailers = if with > 127 { [("t", "v")].into_iter().collect() } else { HeaderBlock::new() };
                if side.session.finish(id, trailers).is_ok() {
                    side.exchange(id).finished = true;
                }
            }
            (7, Some(id)) => {
                side.session.reset(id, [ResetCode::NoError, ResetCode::Broken][usize::from(with & 1)]);
                side.streams.remove(&id);
            }
            (8, Some(id)) => side.read(id, 1 + usize::from(with) * 256),
            (9..=12, _) => self.pass(at, 1 + usize::from(with % 4), usize::from(with)),
            (13, _) => self.pass_time(Duration::from_millis(u64::from(with) * 40)),
            (14, _) => side.session.probe(),
            (15, _) => side.session.drain(),
            (16, _) if with > 250 => side.session.close(CloseCode::GoingAway, "as it was told"),
            (17, _) => side.session.notify(notice(with)),
            (18, _) => {
                side.session.report(outcome(with));
            }
            (19, _) if with > 250 => {
                side.session.handle_disconnect("as it was told");
                side.coming.clear();
            }
            (20, _) if with > 200 => {
                self.tampered = true;
                let frame = [with & 0xf, what & 1, with % 3, 1, with];
                side.session.handle_bytes(self.now, Bytes::copy_from_slice(&frame));
            }
            (21, _) => self.sides[at].session.handle_activity(self.now),
            _ => {}
        }
        self.look();
    }

    /// A side's messages leave, and some of them arrive at the other, cut where the fuzzer says.
    fn pass(&mut self, from: usize, messages: usize, cut: usize) {
        let mut message = BytesMut::new();
        for _ in 0..messages {
            if self.sides[1 - from].coming.len() >= MAX_UNDER_WAY
                || !self.sides[from].session.poll_transmit(&mut message)
            {
                break;
            }
            self.sides[1 - from].coming.push(message.split().freeze());
        }
        let (now, to) = (self.now, &mut self.sides[1 - from]);
        let arriving = messages.min(to.coming.len());
        for message in to.coming.drain(..arriving) {
            let (first, rest) = message.split_at(cut.min(message.len()));
            for piece in [first, rest].into_iter().filter(|piece| !piece.is_empty()) {
                to.session.handle_bytes(now, Bytes::copy_from_slice(piece));
            }
        }
    }

    fn pass_time(&mut self, span: Duration) {
        self.now = self.now.after(span);
        for side in &mut self.sides {
            side.session.handle_timeout(self.now);
        }
    }

    /// The events of both sides, held against what was given.
    fn look(&mut self) {
        for at in [RELAY, AGENT] {
            while let Some(event) = self.sides[at].session.poll_event() {
                self.judge(at, event);
            }
            let session = &self.sides[at].session;
            assert!(session.open_streams() <= Limits::relay().max_streams);
        }
    }

    fn judge(&mut self, at: usize, event: Event) {
        let tampered = self.tampered;
        assert!(!self.sides[at].closed, "{event:?} after the end");
        let given = |world: &Self, id| world.sides[1 - at].streams.get(&id).map(|other| (other.given, other.finished));
        match event {
            Event::Hello(_) => self.sides[at].session.welcome(welcome()),
            Event::Request { id, head } => {
                assert!(tampered || head == request());
                self.sides[at].streams.insert(id, Exchange::default());
            }
            Event::Data { id, bytes } => {
                let other = given(self, id);
                let Some(exchange) = self.sides[at].streams.get_mut(&id) else { return };
                assert!(!bytes.is_empty() && !exchange.ended);
                if !tampered {
                    for (number, byte) in (exchange.got..).zip(&bytes) {
                        assert_eq!(*byte, content(at, number), "byte {number} of {id:?}");
                    }
                }
                exchange.got += bytes.len() as u64;
                exchange.unread += bytes.len();
                assert!(tampered || other.is_none_or(|(given, _)| exchange.got <= given), "more than was given");
            }
            Event::End { id, .. } => {
                let other = given(self, id);
                let Some(exchange) = self.sides[at].streams.get_mut(&id) else { return };
                assert!(!exchange.ended, "a second end");
                exchange.ended = true;
                assert!(tampered || other.is_none_or(|other| other == (exchange.got, true)), "an end too early");
            }
            Event::Reset { id, .. } => drop(self.sides[at].streams.remove(&id)),
            Event::Closed { .. } => {
                let side = &mut self.sides[at];
                side.closed = true;
                side.streams.clear();
            }
            _ => {}
        }
    }

    /// Everything that is still owed arrives, and both sides come to an end.
    fn end(mut self) {
        for _ in 0..MAX_UNDER_WAY {
            for at in [RELAY, AGENT] {
                let ids: Vec<StreamId> = self.sides[at].streams.keys().copied().collect();
                ids.into_iter().for_each(|id| self.sides[at].read(id, usize::MAX));
                self.pass(at, 8, 1);
                self.look();
            }
        }
        for side in &mut self.sides {
            side.session.close(CloseCode::Normal, "the end");
        }
        for at in [RELAY, AGENT] {
            self.pass(at, MAX_UNDER_WAY, usize::MAX);
        }
        self.pass_time(Duration::from_secs(60));
        self.pass_time(Duration::from_secs(60));
        self.look();
        for side in &self.sides {
            assert!(side.session.is_closed() && side.closed, "no end: {:?}", side.session);
            assert_eq!(side.session.poll_timeout(), None);
        }
    }
}

impl Side {
    fn exchange(&mut self, id: StreamId) -> &mut Exchange {
        self.streams.entry(id).or_default()
    }

    fn send(&mut self, id: StreamId, bytes: usize) {
        let (to, from) = (1 - self.at, self.exchange(id).given);
        if bytes == 0 {
            return;
        }
        let body: Bytes = (from..from + bytes as u64).map(|number| content(to, number)).collect();
        let had_room = self.session.has_room(id);
        match self.session.send(id, body) {
            Ok(()) => self.exchange(id).given += bytes as u64,
            Err(SendError::Full) => assert!(!had_room, "there was room"),
            Err(_) => {}
        }
    }

    fn read(&mut self, id: StreamId, most: usize) {
        let exchange = self.exchange(id);
        let bytes = exchange.unread.min(most);
        exchange.unread -= bytes;
        self.session.consume(id, bytes);
    }
}

/// What stands at a place of every body that comes to this side.
fn content(to: usize, number: u64) -> u8 {
    (number.wrapping_mul(31) >> 3) as u8 ^ to as u8
}

fn notice(with: u8) -> Notice {
    match with % 3 {
        0 => Notice::Text("a line".repeat(usize::from(with))),
        1 => Notice::Changed { endpoint: format!("e{}", with % 5), state: OfferState::Standby },
        _ => Notice::Backlog { endpoint: "github".into(), waiting: 1, oldest_ms: Some(u64::MAX), line: "one".into() },
    }
}

fn outcome(with: u8) -> Outcome {
    let state = match with % 3 {
        0 => OutcomeState::Running,
        1 => OutcomeState::Failed(ResetCode::Timeout),
        _ => {
            let head = ResponseHead::new(200, HeaderBlock::new());
            OutcomeState::Finished { head, body: vec![with; usize::from(with) * 300].into(), truncated: with > 128 }
        }
    };
    Outcome { event_id: [with % 4; 16], attempt: 1, fence: u64::from(with) + 1, state }
}

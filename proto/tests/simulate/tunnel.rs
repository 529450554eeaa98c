//! Two sessions and the link between them: what a driver does around a session, with virtual time.
//!
//! Events are drained after every call. Writes wait for the link to take bytes, timers are judged after
//! what waits in the socket has been read, and a socket whose session has closed still brings bytes.

use std::collections::BTreeMap;

use bytes::BytesMut;
use relay_proto::{
    Attached, CloseCode, Hello, MutantSession, Offer, OfferState, OutcomeState, Session, StreamId, Welcome,
    limits::MAX_MESSAGE_BYTES,
};

use crate::{
    agenda::{Actor, Slot},
    link::Pipe,
    plan::Side,
    world::World,
};

/// Virtual time that a draining session is given.
const DRAIN: u64 = 25_000_000;

pub(crate) struct Tunnel {
    pub(crate) ends: [End; 2],
    /// Indexed by the side that sends.
    pub(crate) pipes: [Pipe; 2],
    welcomed: bool,
    /// The newest outcome of each exchange, as the agent reported it and as the relay heard it.
    pub(crate) reported: BTreeMap<usize, OutcomeState>,
    pub(crate) heard: BTreeMap<usize, OutcomeState>,
}

pub(crate) struct End {
    pub(crate) session: MutantSession,
    pub(crate) flush: Slot,
    timer: Slot,
    /// Brings bytes to this end.
    deliver: Slot,
    close_idle: Slot,
    drain_by: u64,
    /// The last event was seen.
    pub(crate) closed: bool,
    /// Exchanges by their stream, in the order of ids.
    pub(crate) ids: Vec<(StreamId, usize)>,
    /// A probe: how many bytes hold the question, once it is sent.
    pub(crate) probe: Option<Option<u64>>,
    /// The newest states that the relay told, or the agent heard.
    pub(crate) states: BTreeMap<String, OfferState>,
}

impl Tunnel {
    pub(crate) fn is_closed(&self) -> bool {
        self.ends.iter().all(|end| end.closed)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.ends.iter().all(|end| end.session.is_open())
    }
}

impl End {
    pub(crate) fn exchange(&self, id: StreamId) -> Option<usize> {
        let place = self.ids.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.ids[place].1)
    }
}

impl World<'_> {
    /// The agent makes a new session.
    pub(crate) fn connect(&mut self) {
        if self.ending {
            return;
        }
        assert!(self.tunnels.len() < 60, "sessions without end");
        let number = self.tunnels.len();
        self.trace.step(self.now, number, Side::Agent, 0, format_args!("connects"));
        let (now, epoch) = (self.instant(), number as u8);
        let hello = Hello {
            name: "laptop".into(),
            instance: [epoch; 16],
            software: "simulated/1".into(),
            offers: vec![Offer { endpoint: "github".into(), ..Offer::default() }],
            canaries: false,
        };
        let relay = Session::relay(self.limits(Side::Relay).clone(), now);
        let agent = Session::agent(hello, self.limits(Side::Agent).clone(), now);
        let mut sessions = [Some(relay), Some(agent)];
        let ends = Side::BOTH.map(|side| {
            let session = sessions[side as usize].take().expect("one each");
            End {
                session: MutantSession::new(session, self.mutant),
                flush: self.agenda.add(Actor::Flush(number, side)),
                timer: self.agenda.add(Actor::Timer(number, side)),
                deliver: self.agenda.add(Actor::Deliver(number, side)),
                close_idle: self.agenda.add(Actor::CloseIdle(number, side)),
                drain_by: u64::MAX,
                closed: false,
                ids: Vec::new(),
                probe: None,
                states: BTreeMap::new(),
            }
        });
        let (reported, heard) = (BTreeMap::new(), BTreeMap::new());
        self.tunnels.push(Tunnel { ends, pipes: <[Pipe; 2]>::default(), welcomed: false, reported, heard });
        self.seen.sessions += 1;
        self.progress = self.now;
        self.settle(number, Side::Relay);
        self.settle(number, Side::Agent);
    }

    /// The relay answers a hello: the newer session takes over from the older.
    pub(crate) fn welcome(&mut self, tunnel: usize) {
        self.epoch += 1;
        let answer = Attached {
            endpoint: "github".into(),
            state: OfferState::Accepted,
            url: String::new(),
            provider: "none".into(),
        };
        let (epoch, software) = (self.epoch, "simulated/1".into());
        let welcome = Welcome { epoch, software, endpoints: vec![answer], available: Vec::new() };
        self.tunnels[tunnel].ends[Side::Relay as usize].session.welcome(welcome);
        self.settle(tunnel, Side::Relay);
        if !self.tunnels[tunnel].ends[Side::Relay as usize].session.is_open() {
            return;
        }
        self.tunnels[tunnel].welcomed = true;
        for older in 0..self.tunnels.len() {
            let welcomed = self.tunnels[older].welcomed && older != tunnel;
            let session = &mut self.tunnels[older].ends[Side::Relay as usize].session;
            // One that drains may finish what it carries.
            if welcomed && !session.is_draining() && !session.is_closed() {
                session.close(CloseCode::Replaced, "a newer session took over");
                self.seen.replaced += 1;
                self.settle(older, Side::Relay);
            }
        }
    }

    /// Bytes, or the end of the connection, come to this side.
    pub(crate) fn deliver(&mut self, tunnel: usize, to: Side) {
        let pipe = &mut self.tunnels[tunnel].pipes[to.other() as usize];
        match pipe.due() {
            Some(due) if due <= self.now => {
                let most = if self.plan.piece > 1 << 19 { u64::MAX } else { self.rng.range(1, self.plan.piece) };
                // Single bytes of a long message show nothing more, and take long.
                let most = most.max(pipe.front_bytes() / 64);
                self.deliver_piece(tunnel, to, most);
            }
            _ => {}
        }
        let pipe = &mut self.tunnels[tunnel].pipes[to.other() as usize];
        let ended = (pipe.finished && pipe.is_empty() && !pipe.silent) || pipe.broken.is_some_and(|at| at <= self.now);
        if ended {
            pipe.broken = None;
            self.tunnels[tunnel].ends[to as usize].session.handle_disconnect("the connection ended");
            self.settle(tunnel, to);
        }
        self.expect_delivery(tunnel, to, self.plan.piece_gap);
    }

    fn deliver_piece(&mut self, tunnel: usize, to: Side, most: u64) {
        let from = to.other();
        let pipe = &mut self.tunnels[tunnel].pipes[from as usize];
        let piece = pipe.take(most);
        let len = piece.len();
        self.trace.step(self.now, tunnel, to, len as u64, format_args!("gets {len} bytes"));
        let now = self.instant();
        let end = &mut self.tunnels[tunnel].ends[to as usize];
        end.session.handle_activity(now);
        end.session.handle_bytes(now, piece);
        self.agenda.by(self.tunnels[tunnel].ends[from as usize].flush, self.now);
        self.settle(tunnel, to);
        self.break_if_cut(tunnel, from);
    }

    fn expect_delivery(&mut self, tunnel: usize, to: Side, gap: u64) {
        let pipe = &self.tunnels[tunnel].pipes[to.other() as usize];
        let ended =
            (pipe.finished && pipe.is_empty() && !pipe.silent && !self.tunnels[tunnel].ends[to as usize].closed)
                .then_some(self.now);
        let due = [pipe.due(), pipe.broken, ended].into_iter().flatten().min();
        let due = due.map(|due| due.max(self.now + gap));
        self.agenda.set(self.tunnels[tunnel].ends[to as usize].deliver, due);
    }

    /// After its last byte a cut link is broken for both sides, which learn it in their own time.
    pub(crate) fn break_if_cut(&mut self, tunnel: usize, from: Side) {
        let pipe = &self.tunnels[tunnel].pipes[from as usize];
        if !pipe.is_cut() || pipe.silent || pipe.mute {
            return;
        }
        for side in Side::BOTH {
            let told = self.now + self.rng.scale(1, 200_000);
            let pipe = &mut self.tunnels[tunnel].pipes[side.other() as usize];
            pipe.broken = Some(told);
            pipe.silent = true;
            self.expect_delivery(tunnel, side, 0);
        }
    }

    /// The agent leaves its socket without a word.
    pub(crate) fn abandon(&mut self, tunnel: usize) {
        self.disturbed = true;
        let told = self.now;
        for pipe in &mut self.tunnels[tunnel].pipes {
            pipe.silent = true;
        }
        self.tunnels[tunnel].pipes[Side::Relay as usize].broken = Some(told);
        self.expect_delivery(tunnel, Side::Agent, 0);
    }

    /// The socket takes what is owed, as far as the link does.
    pub(crate) fn flush(&mut self, tunnel: usize, from: Side) {
        let mut message = BytesMut::new();
        let before = self.tunnels[tunnel].pipes[from as usize].carried_bytes;
        while self.tunnels[tunnel].pipes[from as usize].takes(self.plan.pipe_bytes) {
            let end = &mut self.tunnels[tunnel].ends[from as usize];
            if !end.session.poll_transmit(&mut message) {
                break;
            }
            let mut bytes = message.split().freeze();
            assert!(bytes.len() <= MAX_MESSAGE_BYTES, "a message of {} bytes", bytes.len());
            self.trace.step(self.now, tunnel, from, bytes.len() as u64, format_args!("sends {} bytes", bytes.len()));
            self.trace.bytes(&bytes);
            if let Some(tamper) = &mut self.tamper {
                bytes = tamper.spoil(from, bytes);
            }
            let arrives =
                self.now + self.rng.range(self.plan.latency[from as usize] / 2, self.plan.latency[from as usize]);
            let pipe = &mut self.tunnels[tunnel].pipes[from as usize];
            // The question stands at the front of its message, behind at most a hello or a pong.
            let asked = pipe.carried_bytes + 1;
            pipe.push(arrives, bytes);
            let end = &mut self.tunnels[tunnel].ends[from as usize];
            if end.probe == Some(None) {
                end.probe = Some(Some(asked));
            }
        }
        if self.tunnels[tunnel].pipes[from as usize].carried_bytes == before {
            return;
        }
        self.drain_events(tunnel, from);
        let session = &self.tunnels[tunnel].ends[from as usize].session;
        if session.is_closed() {
            self.tunnels[tunnel].pipes[from as usize].finished = true;
        }
        self.arm(tunnel, from);
        self.expect_delivery(tunnel, from.other(), 0);
        self.check(tunnel, from);
    }

    /// The timer: first what waits in the socket, then the clock.
    pub(crate) fn look_at_clock(&mut self, tunnel: usize, side: Side) {
        while self.tunnels[tunnel].pipes[side.other() as usize].due().is_some_and(|due| due <= self.now) {
            self.deliver_piece(tunnel, side, u64::MAX);
        }
        let now = self.instant();
        self.trace.step(self.now, tunnel, side, 0, format_args!("looks at the clock"));
        self.tunnels[tunnel].ends[side as usize].session.handle_timeout(now);
        self.settle(tunnel, side);
        self.expect_delivery(tunnel, side, 0);
    }

    fn arm(&mut self, tunnel: usize, side: Side) {
        let late = if self.plan.late == 0 { 0 } else { self.rng.below(self.plan.late) };
        let end = &self.tunnels[tunnel].ends[side as usize];
        self.agenda.set(end.timer, end.session.poll_timeout().map(|due| due.as_micros() + late));
    }

    /// After any call on a session: its events, its timer, and what it may owe.
    pub(crate) fn settle(&mut self, tunnel: usize, side: Side) {
        self.drain_events(tunnel, side);
        self.arm(tunnel, side);
        let flush = if self.plan.flush == 0 { 0 } else { self.rng.below(self.plan.flush) };
        let end = &self.tunnels[tunnel].ends[side as usize];
        self.agenda.by(end.flush, self.now + flush);
        self.check(tunnel, side);
    }

    pub(crate) fn drain(&mut self, tunnel: usize, side: Side) {
        let session = &mut self.tunnels[tunnel].ends[side as usize].session;
        if session.is_open() {
            session.drain();
            self.settle(tunnel, side);
            self.drained(tunnel);
        }
    }

    /// Either side has said that it drains: the agent makes a new session first, the relay closes when idle.
    pub(crate) fn drained(&mut self, tunnel: usize) {
        if tunnel + 1 == self.tunnels.len() {
            self.agenda.by(self.connect, self.now);
        }
        let relay = &mut self.tunnels[tunnel].ends[Side::Relay as usize];
        relay.drain_by = relay.drain_by.min(self.now + DRAIN);
        if relay.session.is_draining() {
            self.agenda.by(relay.close_idle, self.now);
        }
    }

    pub(crate) fn close_if_idle(&mut self, tunnel: usize, side: Side) {
        let end = &mut self.tunnels[tunnel].ends[side as usize];
        if end.closed {
            return;
        }
        if end.session.open_streams() == 0 || self.now >= end.drain_by {
            end.session.close(CloseCode::GoingAway, "drained");
            self.settle(tunnel, side);
        } else {
            self.agenda.set(end.close_idle, Some(self.now + 20_000));
        }
    }
}

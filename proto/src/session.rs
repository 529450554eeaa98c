//! The session: one end of a tunnel as a pure state machine.
//!
//! Methods come in four kinds. Getters look. `handle_*` take what happened outside: bytes, silence
//! broken, a timer. Mutators take what this side wants. `poll_*` give what is owed: events for the
//! driver, a message for the socket, the next instant to wake up. Mutate, then drain the polls.
//!
//! The session reads no clock, draws no random number, holds no socket and spawns nothing. The same
//! calls give the same bytes and events. Everything owed to the peer is kept as state (one pong, one
//! credit sum per stream, one reset per stream), so memory does not depend on how often a peer asks.

#[cfg(any(test, feature = "mutants"))]
#[path = "session/tests/credit.rs"]
pub(crate) mod credit;
#[cfg(feature = "mutants")]
#[path = "session/tests/mutant.rs"]
pub(crate) mod mutant;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

use std::collections::VecDeque;

use bytes::Bytes;
use core::time::Duration;

use crate::{
    control::{Close, CloseCode, Hello, Notice, Welcome},
    credit::Pool,
    error::{OpenError, ProtocolError, SendError},
    event::Event,
    fields::HeaderBlock,
    frame::Decoder,
    heartbeat::{Heartbeat, Verdict},
    limits::{Limits, MAX_OFFERS, MAX_OUTCOMES},
    message::{RequestHead, ResetCode, ResponseHead, headers_fit},
    outcome::Outcome,
    queue::EventQueue,
    stream::{End, Head, Stream, StreamId},
    stream_map::{StreamMap, take_out},
    time::Instant,
};

/// How long the close frame may wait for the socket. A dead link takes nothing, and must not keep a
/// session from its end.
const CLOSING: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The public side, which opens streams.
    Relay,
    /// The private side, which answers them.
    Agent,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Hello or welcome is still missing.
    Opening {
        deadline: Instant,
    },
    Open,
    /// Only the close frame is owed, until the deadline that the next look at the clock sets.
    Closing {
        close: Close,
        deadline: Option<Instant>,
    },
    Closed,
}

#[derive(Debug, Default)]
struct Owed {
    hello: Option<Hello>,
    welcome: Option<Welcome>,
    ping: bool,
    /// What the newest unanswered ping carried.
    pong: Option<[u8; 8]>,
    drain: bool,
    notices: VecDeque<Notice>,
    /// Of each attempt the newest, in the order of their first.
    outcomes: VecDeque<Outcome>,
}

/// One end of a tunnel. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Session {
    role: Role,
    limits: Limits,
    phase: Phase,
    /// Agent: the endpoints of its offers, until welcome has an answer to each.
    offered: Vec<String>,
    decoder: Decoder,
    heartbeat: Heartbeat,
    owed: Owed,
    events: EventQueue,
    epoch: u64,
    /// What the peer takes, as its hello or welcome says.
    peer_max_streams: u32,
    peer_window_bytes: u32,
    peer_draining: bool,
    draining: bool,
    streams: StreamMap<Stream>,
    /// Streams that have not ended; ended ones with unread bytes are not counted.
    open_streams: u32,
    last_id: u64,
    /// Streams with something to send, each at most once, in turn.
    ready: VecDeque<StreamId>,
    pool: Pool,
    dropped_notices: u64,
    pings_sent: u64,
    /// The number of the ping whose pong somebody waits for.
    probe: Option<u64>,
    /// The number of the heartbeat's newest ping, and when it was asked for.
    beat: Option<(u64, Instant)>,
    round_trip: Option<Duration>,
    outcomes_received: usize,
    outcomes_given: usize,
}

impl Session {
    /// The relay's end. It waits for hello first.
    pub fn relay(limits: Limits, now: Instant) -> Self {
        Self::new(Role::Relay, limits, Owed::default(), now)
    }

    /// The agent's end. It owes hello first.
    pub fn agent(hello: Hello, limits: Limits, now: Instant) -> Self {
        let offered = hello.offers.iter().take(MAX_OFFERS).map(|offer| offer.endpoint.clone()).collect();
        let owed = Owed { hello: Some(hello), ..Owed::default() };
        Self { offered, ..Self::new(Role::Agent, limits, owed, now) }
    }

    fn new(role: Role, limits: Limits, owed: Owed, now: Instant) -> Self {
        Self {
            role,
            phase: Phase::Opening { deadline: now.after(limits.dead_after) },
            offered: Vec::new(),
            decoder: Decoder::new(),
            heartbeat: Heartbeat::new(limits.ping_after, limits.dead_after, now),
            owed,
            events: EventQueue::default(),
            epoch: 0,
            peer_max_streams: 0,
            peer_window_bytes: 0,
            peer_draining: false,
            draining: false,
            streams: StreamMap::default(),
            open_streams: 0,
            last_id: 0,
            ready: VecDeque::new(),
            pool: Pool::new(limits.window_pool_bytes, limits.purse.clone()),
            dropped_notices: 0,
            pings_sent: 0,
            probe: None,
            beat: None,
            round_trip: None,
            outcomes_received: 0,
            outcomes_given: 0,
            limits,
        }
    }

    // Getters.

    /// The session's epoch, which welcome names; 0 before it.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether nothing more will be sent or received.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    pub const fn is_draining(&self) -> bool {
        self.draining || self.peer_draining
    }

    pub const fn open_streams(&self) -> u32 {
        self.open_streams
    }

    /// How many streams may be open at a time: the smaller of both sides' limits.
    pub fn max_streams(&self) -> u32 {
        match self.role {
            Role::Relay => self.limits.max_streams.min(self.peer_max_streams),
            Role::Agent => self.limits.max_streams,
        }
    }

    /// Whether [`Session::send`] would take body bytes on this stream now.
    pub fn has_room(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.outgoing.body.len() < self.limits.send_buffer_bytes)
    }

    /// Notices that were dropped because the peer took none for too long.
    pub const fn dropped_notices(&self) -> u64 {
        self.dropped_notices
    }

    /// How long the last heartbeat took to the peer and back; `None` before the first one.
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    // What happened outside.

    /// Takes bytes from the peer. Pieces of any size give the same events.
    pub fn handle_bytes(&mut self, now: Instant, bytes: Bytes) {
        self.heartbeat.record_activity(now);
        if self.is_ending() {
            return;
        }
        self.decoder.push(bytes);
        while !self.is_ending() {
            match self.decoder.next() {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    if let Err(error) = self.receive(frame) {
                        return self.fail(&error);
                    }
                }
                Err(error) => return self.fail(&error),
            }
        }
    }

    /// Takes note that bytes came from the socket, though not yet a whole message.
    pub fn handle_activity(&mut self, now: Instant) {
        self.heartbeat.record_activity(now);
    }

    /// Takes note of the time. Call it at [`Session::poll_timeout`] at the latest, after everything
    /// that waits in the socket has been handed in.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Opening { deadline } if now >= deadline => {
                self.close(CloseCode::HeartbeatTimeout, "the peer did not introduce itself in time");
            }
            Phase::Opening { .. } | Phase::Open => match self.heartbeat.judge(now) {
                Verdict::Fine => {}
                Verdict::Ping => {
                    self.owed.ping = true;
                    self.beat = Some((self.pings_sent + 1, now));
                }
                Verdict::Dead => self.close(CloseCode::HeartbeatTimeout, "the peer has been silent for too long"),
            },
            Phase::Closing { deadline: Some(deadline), .. } if now >= deadline => {
                self.handle_disconnect("the socket took no close frame in time");
            }
            Phase::Closing { ref mut deadline, .. } => {
                deadline.get_or_insert(now.after(CLOSING));
            }
            Phase::Closed => {}
        }
    }

    /// Takes note that the socket has ended. Without a close frame this breaks every stream.
    pub fn handle_disconnect(&mut self, reason: &str) {
        let close = match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closed => return,
            Phase::Closing { close, .. } => close,
            _ => Close { code: CloseCode::GoingAway, reason: reason.to_owned() },
        };
        self.end_streams();
        self.events.push(Event::Closed { by_peer: false, close });
    }

    // What this side wants.

    /// Relay: answers hello and opens the session.
    ///
    /// # Panics
    /// If it is not the answer to an [`Event::Hello`], which is a driver's mistake.
    pub fn welcome(&mut self, welcome: Welcome) {
        if !matches!(self.phase, Phase::Opening { .. }) {
            return; // Closed between the hello and its answer.
        }
        assert!(self.role == Role::Relay && self.peer_window_bytes > 0, "welcome answers a hello");
        self.heartbeat.set(self.limits.ping_after, self.limits.dead_after);
        self.epoch = welcome.epoch;
        self.owed.welcome = Some(welcome);
        self.phase = Phase::Open;
    }

    /// Relay: opens a stream with a request. Body and end follow with [`Session::send`] and
    /// [`Session::finish`]; what of them is given before the next transmit goes in the same frame.
    pub fn open(&mut self, head: RequestHead) -> Result<StreamId, OpenError> {
        if self.phase != Phase::Open || self.role != Role::Relay {
            return Err(OpenError::Closed);
        }
        // Streams that have ended count until their last bytes are read: they hold memory.
        if self.streams.len() >= self.max_streams() as usize {
            return Err(OpenError::Busy);
        }
        if !head.fits() {
            return Err(OpenError::HeadTooLarge);
        }
        self.last_id += 1;
        let id = StreamId(self.last_id);
        let mut stream = Stream::new(self.peer_window_bytes, self.limits.initial_window_bytes, false);
        stream.outgoing.head = Some(Head::Request(head));
        stream.outgoing.head_given = true;
        self.streams.insert(id, stream);
        self.open_streams += 1;
        self.enqueue(id);
        Ok(id)
    }

    /// Agent: begins the response on a stream, once.
    pub fn respond(&mut self, id: StreamId, head: ResponseHead) -> Result<(), SendError> {
        if !head.fits() {
            return Err(SendError::HeadTooLarge);
        }
        let stream = self.sendable(id)?;
        if stream.outgoing.head_given {
            return Err(SendError::Ended);
        }
        stream.outgoing.head_given = true;
        stream.upgraded = head.status == 101;
        stream.outgoing.head = Some(Head::Response(head));
        if stream.lines_up() {
            self.line_up(id);
        }
        Ok(())
    }

    /// Sends body bytes. They are kept until the peer has credit for them.
    pub fn send(&mut self, id: StreamId, bytes: Bytes) -> Result<(), SendError> {
        let limit = self.limits.send_buffer_bytes;
        let stream = self.sendable(id)?;
        if !stream.outgoing.head_given {
            return Err(SendError::Ended);
        }
        if stream.outgoing.body.len() >= limit {
            stream.outgoing.blocked = true;
            return Err(SendError::Full);
        }
        if !bytes.is_empty() {
            stream.outgoing.body.push(bytes);
            if stream.lines_up() {
                self.line_up(id);
            }
        }
        Ok(())
    }

    /// Ends this side's direction, with trailers if there are any.
    pub fn finish(&mut self, id: StreamId, trailers: HeaderBlock) -> Result<(), SendError> {
        if !headers_fit(&trailers, 0) {
            return Err(SendError::HeadTooLarge);
        }
        let stream = self.sendable(id)?;
        if !stream.outgoing.head_given {
            return Err(SendError::Ended);
        }
        stream.outgoing.end = End::Owed(trailers);
        if stream.lines_up() {
            self.line_up(id);
        }
        Ok(())
    }

    /// Gives an exchange up. Whatever was not sent yet is dropped; no event comes for it any more.
    pub fn reset(&mut self, id: StreamId, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.ended() {
            return self.forget(id);
        }
        if matches!(stream.outgoing.head, Some(Head::Request(_))) {
            return self.forget(id); // The peer does not know of it.
        }
        stream.reset_owed.get_or_insert(code);
        self.enqueue(id);
    }

    /// Takes note that the reader took `bytes` of a stream's body, which lets the peer send more.
    pub fn consume(&mut self, id: StreamId, bytes: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.incoming.window.consume(bytes, &mut self.pool, self.limits.max_stream_window_bytes);
        if stream.ended() {
            self.forget_if_read(id);
        } else if stream.owes_credit() {
            self.enqueue(id);
        }
    }

    /// Tells the agent's user something. Of too many the oldest is dropped and counted, except that the
    /// newest state of each endpoint ([`Notice::Changed`]) is always kept.
    pub fn notify(&mut self, notice: Notice) {
        if let Some(older) = self.owed.notices.iter_mut().find(|older| notice.replaces(older)) {
            *older = notice;
            return;
        }
        if self.owed.notices.len() >= self.limits.max_notices && notice.may_be_lost() {
            self.dropped_notices += 1;
            match self.owed.notices.iter().position(Notice::may_be_lost) {
                Some(oldest) => drop(self.owed.notices.remove(oldest)),
                None => return,
            }
        }
        self.owed.notices.push_back(notice);
    }

    /// Agent: reports an attempt of an earlier session. A newer outcome of the same attempt replaces one
    /// that still waits. False when the session takes no more: it is not open, or has had
    /// [`crate::limits::MAX_OUTCOMES`].
    pub fn report(&mut self, outcome: Outcome) -> bool {
        if self.phase != Phase::Open || self.role != Role::Agent {
            return false;
        }
        if let Some(older) = self.owed.outcomes.iter_mut().find(|older| older.same_attempt(&outcome)) {
            *older = outcome;
            return true;
        }
        if self.outcomes_given >= MAX_OUTCOMES {
            return false;
        }
        self.outcomes_given += 1;
        self.owed.outcomes.push_back(outcome);
        true
    }

    /// Asks the peer for a sign of life now; [`Event::Answered`] comes with it. What was sent before the
    /// question does not count as an answer.
    pub fn probe(&mut self) {
        if self.phase == Phase::Open {
            self.owed.ping = true;
            self.probe = Some(self.pings_sent + 1);
        }
    }

    /// Announces a planned stop. After an agent's drain the relay's users open no more streams but those
    /// already promised, and the relay closes once none is left: the agent cannot know what is on its way.
    /// After a relay's drain the agent connects anew and leaves this session to finish what it carries.
    pub fn drain(&mut self) {
        if !self.draining && self.phase == Phase::Open {
            self.draining = true;
            self.owed.drain = true;
        }
    }

    /// Ends the session. The close frame is all that is still sent; every open stream breaks.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        if !self.is_ending() {
            self.phase = Phase::Closing { close: Close { code, reason: reason.to_owned() }, deadline: None };
            self.end_streams();
        }
    }

    // What is owed.

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// When [`Session::handle_timeout`] is due next; `None` once closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Opening { deadline } => Some(deadline.min(self.heartbeat.next())),
            Phase::Open => Some(self.heartbeat.next()),
            // The first look at the clock sets the deadline.
            Phase::Closing { deadline, .. } => Some(deadline.unwrap_or(self.heartbeat.last_seen())),
            Phase::Closed => None,
        }
    }

    // Helpers.

    const fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. } | Phase::Closed)
    }

    fn sendable(&mut self, id: StreamId) -> Result<&mut Stream, SendError> {
        match self.streams.get_mut(&id) {
            Some(stream) if stream.reset_owed.is_none() && stream.outgoing.end == End::NotYet => Ok(stream),
            _ => Err(SendError::Ended),
        }
    }

    fn enqueue(&mut self, id: StreamId) {
        if self.streams.get_mut(&id).is_some_and(Stream::lines_up) {
            self.line_up(id);
        }
    }

    fn line_up(&mut self, id: StreamId) {
        self.ready.push_back(id);
        if self.ready.len() > 2 * self.streams.len() + 64 {
            // Streams that were given up before their turn, while the socket took nothing.
            self.ready.retain(|id| self.streams.contains_key(id));
        }
    }

    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.ended()) else { return };
        if !std::mem::replace(&mut stream.settled, true) {
            self.open_streams -= 1;
        }
        self.forget_if_read(id);
    }

    fn forget_if_read(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| stream.incoming.window.unread == 0) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: StreamId) {
        if let Some(mut stream) = take_out(&mut self.streams, id) {
            stream.incoming.window.release(&mut self.pool);
            if !stream.settled {
                self.open_streams -= 1;
            }
        }
    }

    fn fail(&mut self, error: &ProtocolError) {
        self.close(CloseCode::ProtocolError, &error.to_string());
    }

    fn end_streams(&mut self) {
        self.decoder = Decoder::new(); // What was not read interests nobody.
        self.streams.clear();
        self.ready.clear();
        self.open_streams = 0;
        self.pool = Pool::new(self.limits.window_pool_bytes, self.limits.purse.clone());
        // An agent whose offers were all refused reads in the welcome why.
        self.owed = Owed { welcome: self.owed.welcome.take(), ..Owed::default() };
    }
}

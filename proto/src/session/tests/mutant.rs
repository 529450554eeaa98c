//! Sessions that are broken on purpose, so that the simulation can show that it would notice.
//!
//! A [`MutantSession`] stands around a sound [`Session`] and spoils what passes through it, or what the session remembers.
//! The session itself knows nothing of this, and without the feature `mutants`, which only this crate's own tests turn
//! on, this module does not exist.

use std::{
    collections::BTreeSet,
    ops::{Deref, DerefMut},
};

use bytes::{BufMut, Bytes, BytesMut};

use super::{Phase, Session};
use crate::{
    control::{CloseCode, Notice},
    credit::Pool,
    error::OpenError,
    event::Event,
    fields::{HeaderBlock, take_varint},
    frame::{Decoder, FLAG_END, Frame, FrameType, put_header},
    message::RequestHead,
    outcome::Outcome,
    stream::{End, StreamId},
    time::Instant,
    varint,
};

/// One way to break a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Counts a credit as granted and does not send it.
    ForgetCredit,
    /// Grants one byte more than it accounts for.
    InventCredit,
    /// Opens a stream with the last one's id once that one is gone.
    ReuseId,
    /// Keeps its streams at its close, and acts on frames that come after it.
    ActAfterClose,
    /// Does not look again at a stream that waited for credit.
    LoseWakeUp,
    /// Sends END twice.
    DoubleEnd,
    /// Ends a body whose rest has not been sent.
    EndEarly,
    /// Reports a reset as an end once the head was seen.
    ResetAsEnd,
    /// Does not give back what a stream borrowed from the pool.
    LeakPool,
    /// Hands body bytes to the oldest stream instead of their own.
    CrossBytes,
    /// Takes any pong for the answer to a probe.
    AnyPongAnswers,
    /// Keeps the older outcome of an attempt that still waits.
    KeepOldOutcome,
    /// Drops an endpoint's newest state like any other notice.
    DropState,
    /// Counts a stream that both sides reset until its own reset has been sent.
    KeepPlace,
    /// Ends only once the socket has taken its close frame.
    WaitForSocket,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::ForgetCredit,
        Self::InventCredit,
        Self::ReuseId,
        Self::ActAfterClose,
        Self::LoseWakeUp,
        Self::DoubleEnd,
        Self::EndEarly,
        Self::ResetAsEnd,
        Self::LeakPool,
        Self::CrossBytes,
        Self::AnyPongAnswers,
        Self::KeepOldOutcome,
        Self::DropState,
        Self::KeepPlace,
        Self::WaitForSocket,
    ];
}

/// A session that is broken in one way, or in none. What is not spoiled here is the session's own.
#[derive(Debug)]
pub struct MutantSession {
    session: Session,
    mutant: Option<Mutant>,
    /// Streams whose head was handed out.
    heads: BTreeSet<StreamId>,
    /// What the streams had borrowed from the pool when events were last asked for.
    borrowed_bytes: u32,
}

impl Deref for MutantSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for MutantSession {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl MutantSession {
    /// Breaks a session that has just begun.
    pub const fn new(session: Session, mutant: Option<Mutant>) -> Self {
        Self { session, mutant, heads: BTreeSet::new(), borrowed_bytes: 0 }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// [`Session::handle_bytes`].
    pub fn handle_bytes(&mut self, now: Instant, bytes: Bytes) {
        match self.mutant {
            Some(Mutant::ActAfterClose) if self.session.is_ending() => {
                let phase = std::mem::replace(&mut self.session.phase, Phase::Open);
                self.session.handle_bytes(now, bytes);
                if self.session.is_open() {
                    self.session.phase = phase;
                }
            }
            Some(Mutant::LoseWakeUp) => {
                let starved = |stream: &super::Stream| {
                    !stream.queued && !stream.outgoing.body.is_empty() && stream.outgoing.window.available() == 0
                };
                let streams = self.session.streams.iter();
                let starved: Vec<_> = streams.filter(|(_, stream)| starved(stream)).map(|(id, _)| *id).collect();
                self.session.handle_bytes(now, bytes);
                starved.into_iter().for_each(|id| self.let_sleep(id));
            }
            Some(Mutant::KeepPlace) => {
                let given_up = |_: &StreamId, stream: &mut super::Stream| {
                    stream.reset_owed.is_some() && stream.outgoing.end != End::Sent
                };
                let hidden: Vec<_> = self.session.streams.extract_if(given_up).collect();
                self.session.handle_bytes(now, bytes);
                if !self.session.is_ending() {
                    self.session.streams.extend(hidden);
                }
            }
            _ => self.session.handle_bytes(now, bytes),
        }
    }

    /// Takes a stream off the queue again unless it owes more than the body that waited for credit.
    fn let_sleep(&mut self, id: StreamId) {
        if let Some(stream) = self.session.streams.get_mut(&id)
            && stream.reset_owed.is_none()
            && !stream.owes_credit()
        {
            stream.queued = false;
            self.session.ready.retain(|ready| *ready != id);
        }
    }

    /// [`Session::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.waits_for_its_socket() {
            self.session.handle_timeout(now);
        }
    }

    /// [`Session::poll_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.waits_for_its_socket() { None } else { self.session.poll_timeout() }
    }

    fn waits_for_its_socket(&self) -> bool {
        self.is(Mutant::WaitForSocket) && matches!(self.session.phase, Phase::Closing { .. })
    }

    /// [`Session::open`].
    pub fn open(&mut self, head: RequestHead) -> Result<StreamId, OpenError> {
        let last = self.session.last_id;
        if self.is(Mutant::ReuseId) && last > 0 && !self.session.streams.contains_key(&StreamId(last)) {
            self.session.last_id -= 1;
        }
        let opened = self.session.open(head);
        self.session.last_id = self.session.last_id.max(last);
        opened
    }

    /// [`Session::notify`].
    pub fn notify(&mut self, notice: Notice) {
        let waiting = &mut self.session.owed.notices;
        if self.mutant == Some(Mutant::DropState)
            && waiting.len() >= self.session.limits.max_notices
            && !waiting.iter().any(|older| notice.replaces(older))
        {
            waiting.pop_front();
            waiting.push_back(notice);
            self.session.dropped_notices += 1;
        } else {
            self.session.notify(notice);
        }
    }

    /// [`Session::report`].
    pub fn report(&mut self, outcome: Outcome) -> bool {
        let waits = self.session.owed.outcomes.iter().any(|older| older.same_attempt(&outcome));
        (self.is(Mutant::KeepOldOutcome) && waits) || self.session.report(outcome)
    }

    /// [`Session::probe`].
    pub fn probe(&mut self) {
        self.session.probe();
        if self.is(Mutant::AnyPongAnswers) {
            self.session.probe = self.session.probe.map(|_| 0);
        }
    }

    /// [`Session::close`].
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        if !self.is(Mutant::ActAfterClose) || self.session.is_ending() {
            return self.session.close(code, reason);
        }
        let (streams, open) = (std::mem::take(&mut self.session.streams), self.session.open_streams);
        let pool = std::mem::replace(&mut self.session.pool, Pool::new(0, None));
        self.session.close(code, reason);
        (self.session.streams, self.session.open_streams, self.session.pool) = (streams, open, pool);
    }

    /// [`Session::poll_event`].
    pub fn poll_event(&mut self) -> Option<Event> {
        self.leak();
        let event = self.session.poll_event()?;
        if let Event::Request { id, .. } | Event::Response { id, .. } = &event {
            self.heads.insert(*id);
        }
        Some(match event {
            Event::Reset { id, .. } if self.is(Mutant::ResetAsEnd) && self.heads.contains(&id) => {
                Event::End { id, trailers: HeaderBlock::new() }
            }
            Event::Data { id, bytes } if self.is(Mutant::CrossBytes) => {
                Event::Data { id: self.session.streams.keys().next().copied().unwrap_or(id), bytes }
            }
            other => other,
        })
    }

    /// Borrows once more what streams have given back.
    fn leak(&mut self) {
        let borrowed_bytes = self.session.credit().map(|(_, credit)| credit.borrowed_bytes).sum();
        let back = self.borrowed_bytes.saturating_sub(borrowed_bytes);
        if self.is(Mutant::LeakPool) && !self.session.is_ending() {
            self.session.pool.lend(back);
        }
        self.borrowed_bytes = borrowed_bytes;
    }

    /// [`Session::poll_transmit`].
    pub fn poll_transmit(&mut self, out: &mut BytesMut) -> bool {
        while self.session.poll_transmit(out) {
            let mut sound = Decoder::new();
            sound.push(out.split().freeze());
            while let Some(frame) = sound.next().expect("a session writes good frames") {
                self.write_spoilt(frame, out);
            }
            if !out.is_empty() {
                return true;
            }
        }
        false
    }

    fn write_spoilt(&mut self, mut frame: Frame, out: &mut BytesMut) {
        match frame.kind {
            FrameType::Credit if self.is(Mutant::ForgetCredit) => return,
            FrameType::Credit if self.is(Mutant::InventCredit) => {
                let bytes = take_varint(&mut frame.payload, "credit").expect("a session writes good frames");
                let mut more = BytesMut::new();
                varint::put(&mut more, bytes + 1);
                frame.payload = more.freeze();
            }
            FrameType::Request | FrameType::Response | FrameType::Data if self.is(Mutant::EndEarly) => {
                if let Some(stream) = self.session.streams.get_mut(&StreamId(frame.stream))
                    && matches!(&stream.outgoing.end, End::Owed(trailers) if trailers.is_empty())
                {
                    stream.outgoing.end = End::Sent;
                    frame.flags |= FLAG_END;
                }
            }
            _ => {}
        }
        put_header(out, frame.kind, frame.flags, frame.stream, frame.payload.len());
        out.put_slice(&frame.payload);
        if frame.kind == FrameType::End && self.is(Mutant::DoubleEnd) {
            put_header(out, FrameType::End, 0, frame.stream, 0);
        }
    }
}

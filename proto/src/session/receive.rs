//! What each frame from the peer does to the session.
//!
//! Everything that a peer may do wrong is found here and returned as a [`ProtocolError`], which ends
//! the session. Frames for a stream that has ended are dropped: they crossed with its end.

use bytes::Bytes;

use super::{Phase, Role, Session};
use crate::{
    control::{Attached, Close, Hello, Notice, VERSION, Welcome},
    error::ProtocolError,
    event::Event,
    fields::{HeaderBlock, take_varint},
    frame::{FLAG_END, Frame, FrameType},
    limits::{MAX_OUTCOMES, MAX_WINDOW_BYTES},
    message::{RequestHead, ResetCode, ResponseHead},
    outcome::Outcome,
    stream::{End, Stream, StreamId},
};

impl Session {
    pub(super) fn receive(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        let (kind, flags, stream) = (frame.kind, frame.flags, frame.stream);
        let (opening, id) = (matches!(self.phase, Phase::Opening { .. }), StreamId(stream));
        let end = flags & FLAG_END != 0;
        // What has no more to it than numbers is read at once, and what follows a body is merged.
        let payload = match kind {
            FrameType::Ping | FrameType::Pong | FrameType::Reset | FrameType::Credit | FrameType::Drain => {
                frame.payload
            }
            _ => frame.held_payload(),
        };
        match (kind, self.role) {
            (FrameType::Ping, _) => self.receive_ping(&payload),
            (FrameType::Pong, _) => self.receive_pong(&payload),
            (FrameType::Close, _) => self.receive_close(payload),
            (FrameType::Hello, Role::Relay) if opening && self.peer_window_bytes == 0 => self.receive_hello(payload),
            (FrameType::Welcome, Role::Agent) if opening => self.receive_welcome(payload),
            _ if opening => Err(ProtocolError::Unexpected { what: "a frame before the session is open" }),
            (FrameType::Request, Role::Agent) => self.receive_request(stream, payload, end),
            (FrameType::Response, Role::Relay) => self.receive_response(id, payload, end),
            (FrameType::Data, _) => self.receive_data(id, payload, end),
            (FrameType::End, _) => self.receive_end(id, payload),
            (FrameType::Reset, _) => self.receive_reset(id, payload),
            (FrameType::Credit, _) => self.receive_credit(id, payload),
            (FrameType::Notice, Role::Agent) => self.receive_notice(payload),
            (FrameType::Outcome, Role::Relay) => self.receive_outcome(payload),
            (FrameType::Drain, _) => {
                if !std::mem::replace(&mut self.peer_draining, true) {
                    self.events.push(Event::Draining);
                }
                Ok(())
            }
            _ => Err(ProtocolError::Unexpected { what: "a frame of the other role" }),
        }
    }

    fn receive_hello(&mut self, payload: Bytes) -> Result<(), ProtocolError> {
        let (hello, peer) = Hello::decode(payload)?;
        if peer.version < VERSION {
            return Err(ProtocolError::Version { version: peer.version });
        }
        check_window(peer.initial_window_bytes)?;
        self.peer_max_streams = peer.max_streams;
        self.peer_window_bytes = peer.initial_window_bytes;
        self.events.push(Event::Hello(hello));
        Ok(())
    }

    fn receive_welcome(&mut self, payload: Bytes) -> Result<(), ProtocolError> {
        let (welcome, peer) = Welcome::decode(payload)?;
        if peer.version < VERSION {
            return Err(ProtocolError::Version { version: peer.version });
        }
        check_window(peer.initial_window_bytes)?;
        let offered = std::mem::take(&mut self.offered);
        let answers = |(offer, answer): (&String, &Attached)| offer.is_empty() || *offer == answer.endpoint;
        if welcome.endpoints.len() != offered.len() || !offered.iter().zip(&welcome.endpoints).all(answers) {
            return Err(ProtocolError::Unexpected { what: "a welcome that does not answer the offers one by one" });
        }
        if let Some((ping_after, dead_after)) = peer.heartbeat {
            self.heartbeat.set(ping_after, dead_after);
        }
        self.peer_window_bytes = peer.initial_window_bytes;
        self.epoch = welcome.epoch;
        self.phase = Phase::Open;
        self.events.push(Event::Welcome(welcome));
        Ok(())
    }

    fn receive_request(&mut self, number: u64, mut payload: Bytes, end: bool) -> Result<(), ProtocolError> {
        if number <= self.last_id {
            return Err(ProtocolError::IdNotRising { id: number });
        }
        if self.open_streams >= self.limits.max_streams {
            return Err(ProtocolError::TooManyStreams { max: self.limits.max_streams });
        }
        let head = RequestHead::decode(&mut payload)?;
        self.last_id = number;
        let id = StreamId(number);
        self.streams.insert(id, Stream::new(self.peer_window_bytes, self.limits.initial_window_bytes, true));
        self.open_streams += 1;
        self.events.push(Event::Request { id, head });
        self.take_body(id, payload, end)
    }

    fn receive_response(&mut self, id: StreamId, mut payload: Bytes, end: bool) -> Result<(), ProtocolError> {
        let Some(stream) = self.find(id)? else { return Ok(()) };
        if std::mem::replace(&mut stream.incoming.head_seen, true) {
            return Err(ProtocolError::Unexpected { what: "a second response" });
        }
        let head = ResponseHead::decode(&mut payload)?;
        stream.upgraded = head.status == 101;
        self.events.push(Event::Response { id, head });
        self.take_body(id, payload, end)
    }

    fn receive_data(&mut self, id: StreamId, payload: Bytes, end: bool) -> Result<(), ProtocolError> {
        if payload.is_empty() && !end {
            return Err(ProtocolError::Malformed { what: "empty data" });
        }
        let Some(stream) = self.find(id)? else {
            if end {
                self.end_unwanted(id);
            }
            return Ok(());
        };
        if !stream.incoming.head_seen || stream.incoming.ended {
            return Err(ProtocolError::Unexpected { what: "data outside a body" });
        }
        self.take_body(id, payload, end)
    }

    fn receive_end(&mut self, id: StreamId, payload: Bytes) -> Result<(), ProtocolError> {
        let trailers = HeaderBlock::decode(payload)?;
        let Some(stream) = self.find(id)? else {
            self.end_unwanted(id);
            return Ok(());
        };
        if !stream.incoming.head_seen || stream.incoming.ended {
            return Err(ProtocolError::Unexpected { what: "an end outside a body" });
        }
        self.take_end(id, trailers);
        Ok(())
    }

    fn receive_reset(&mut self, id: StreamId, mut payload: Bytes) -> Result<(), ProtocolError> {
        let code = ResetCode::read(take_varint(&mut payload, "reset")?);
        if self.find(id)?.is_some() {
            self.forget(id);
            self.events.push(Event::Reset { id, code });
        } else {
            self.reset_crossed(id);
        }
        Ok(())
    }

    /// The peer gave up, too, before it knew of this side's reset, which is not owed any more: for the
    /// peer the stream is over, and its place is free.
    fn reset_crossed(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.reset_owed.take() {
            Some(ResetCode::NoError) => {
                stream.outgoing.stop();
                self.settle(id);
            }
            Some(_) => self.forget(id),
            None => {}
        }
    }

    /// The peer's direction ended after this side gave the stream up. If this side's had ended before
    /// that, the stream is over for the peer, which must not get a reset.
    fn end_unwanted(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.reset_owed.is_some()) else { return };
        if stream.outgoing.end == End::Sent {
            self.forget(id);
        }
    }

    fn receive_credit(&mut self, id: StreamId, mut payload: Bytes) -> Result<(), ProtocolError> {
        let bytes = take_varint(&mut payload, "credit")?;
        let Some(stream) = self.find(id)? else { return Ok(()) };
        if bytes == 0 || !stream.outgoing.window.grant(bytes) {
            return Err(ProtocolError::Credit { id: id.0 });
        }
        self.enqueue(id);
        Ok(())
    }

    fn receive_ping(&mut self, payload: &Bytes) -> Result<(), ProtocolError> {
        let echo = payload[..].try_into().map_err(|_| ProtocolError::Malformed { what: "ping" })?;
        self.owed.pong = Some(echo);
        Ok(())
    }

    fn receive_pong(&mut self, payload: &Bytes) -> Result<(), ProtocolError> {
        let echo: [u8; 8] = payload[..].try_into().map_err(|_| ProtocolError::Malformed { what: "pong" })?;
        let echoed = u64::from_be_bytes(echo);
        if let Some((_, asked)) = self.beat.take_if(|(number, _)| *number == echoed) {
            self.round_trip = Some(self.heartbeat.last_seen().since(asked));
        }
        let answers = |number| (number..=self.pings_sent).contains(&echoed);
        if self.probe.is_some_and(answers) {
            self.probe = None;
            self.events.push(Event::Answered);
        }
        Ok(())
    }

    fn receive_outcome(&mut self, payload: Bytes) -> Result<(), ProtocolError> {
        self.outcomes_received += 1;
        if self.outcomes_received > MAX_OUTCOMES {
            return Err(ProtocolError::TooLarge { what: "number of outcomes" });
        }
        self.events.push(Event::Outcome(Outcome::decode(payload)?));
        Ok(())
    }

    fn receive_notice(&mut self, payload: Bytes) -> Result<(), ProtocolError> {
        if let Some(notice) = Notice::decode(payload)? {
            self.events.push(Event::Notice(notice));
        }
        Ok(())
    }

    fn receive_close(&mut self, payload: Bytes) -> Result<(), ProtocolError> {
        let close = Close::decode(payload)?;
        self.end_streams();
        self.phase = Phase::Closed;
        self.events.push(Event::Closed { by_peer: true, close });
        Ok(())
    }

    /// The stream, `None` if it has ended for this side, an error if it never was.
    fn find(&mut self, id: StreamId) -> Result<Option<&mut Stream>, ProtocolError> {
        if id.0 == 0 || id.0 > self.last_id {
            return Err(ProtocolError::UnknownStream { id: id.0 });
        }
        Ok(self.streams.get_mut(&id).filter(|stream| stream.reset_owed.is_none() && !stream.ended()))
    }

    fn take_body(&mut self, id: StreamId, bytes: Bytes, end: bool) -> Result<(), ProtocolError> {
        let stream = self.streams.get_mut(&id).expect("found by the caller");
        if !stream.incoming.window.receive(bytes.len()) {
            return Err(ProtocolError::Credit { id: id.0 });
        }
        if !bytes.is_empty() {
            self.events.push_data(&mut stream.incoming.place, id, bytes);
        }
        if end {
            self.take_end(id, HeaderBlock::new());
        }
        Ok(())
    }

    fn take_end(&mut self, id: StreamId, trailers: HeaderBlock) {
        let stream = self.streams.get_mut(&id).expect("found by the caller");
        stream.incoming.ended = true;
        self.events.push(Event::End { id, trailers });
        if self.role == Role::Relay && stream.outgoing.end != End::Sent && !stream.upgraded {
            // The response is whole: what is left of the request interests nobody.
            stream.reset_owed = Some(ResetCode::NoError);
            self.enqueue(id);
        }
        self.settle(id);
    }
}

/// A window of 0 could never grow, and one past the largest could not be counted.
fn check_window(initial_bytes: u32) -> Result<(), ProtocolError> {
    match initial_bytes {
        0 => Err(ProtocolError::Malformed { what: "initial window" }),
        1..=MAX_WINDOW_BYTES => Ok(()),
        _ => Err(ProtocolError::TooLarge { what: "initial window" }),
    }
}

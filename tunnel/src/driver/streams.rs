//! Between the session and the handles: what the handles want, and what came for them.

use std::{sync::Arc, task::Context};

use bytes::Bytes;
use relay_proto::{Event, OpenError, ResetCode, StreamId, take_out};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Driver;
use crate::{
    exchange::Request,
    shared::Arrival,
    stream::{Broken, OUT_BYTES, SHORT_BYTES, Stream, StreamState, wake_later},
};

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn take_commands(&mut self, cx: &mut Context<'_>) {
        let mut state = self.shared.lock();
        wake_later(&mut state.driver, cx);
        let mut listed = std::mem::take(&mut state.listed);
        while let Some(notice) = state.notices.pop_front() {
            self.session.notify(notice);
        }
        while let Some(outcome) = state.outcomes.pop_front() {
            self.session.report(outcome);
        }
        state.round_trip = self.session.round_trip();
        if std::mem::take(&mut state.probe) {
            self.session.probe();
        }
        if state.drain {
            self.session.drain();
        }
        drop(state);
        for stream in listed.drain(..) {
            self.take_stream_commands(&stream);
        }
        let mut state = self.shared.lock();
        if state.listed.capacity() == 0 {
            state.listed = listed; // Keeps its room for the next turn.
        }
        let idle = self.session.open_streams() == 0 && state.in_flight == 0;
        if state.close.as_ref().is_some_and(|request| idle || !request.when_idle)
            && let Some(request) = state.close.take()
        {
            self.session.close(request.code, &request.reason);
        }
    }

    /// Hands what a stream holds to the session.
    fn take_stream_commands(&mut self, stream: &Arc<Stream>) {
        let mut state = stream.lock();
        state.listed = false;
        if let Some(head) = state.open.take() {
            if state.reset.is_some() {
                return; // Given up before it was sent.
            }
            match self.session.open(head) {
                Ok(id) => {
                    state.id = Some(id);
                    self.streams.insert(id, Arc::clone(stream));
                }
                Err(error) => {
                    let code = match error {
                        OpenError::HeadTooLarge => ResetCode::NotCarriable, // It would be another time, too.
                        OpenError::Closed | OpenError::Draining | OpenError::Busy => ResetCode::NotCalled,
                    };
                    state.broken = Some(Broken::Reset(code));
                    return state.wake();
                }
            }
        }
        let Some(id) = state.id else { return };
        if let Some(code) = state.reset {
            self.session.reset(id, code);
            take_out(&mut self.streams, id);
            return;
        }
        if state.broken.is_some() {
            return;
        }
        let read = std::mem::take(&mut state.read_bytes);
        if read > 0 {
            self.session.consume(id, read);
        }
        if let Some(head) = state.respond.take()
            && self.session.respond(id, head).is_err()
        {
            self.session.reset(id, ResetCode::Broken);
            take_out(&mut self.streams, id);
            state.broken = Some(Broken::Reset(ResetCode::Broken));
            return state.wake();
        }
        self.send_body(id, &mut state);
        if state.sent && state.received {
            take_out(&mut self.streams, id);
        }
    }

    fn send_body(&mut self, id: StreamId, state: &mut StreamState) {
        while !state.out.is_empty() && self.session.has_room(id) {
            let Some(bytes) = state.out.pop() else { break };
            // There is room, so an error means that the stream has ended and wants nothing more.
            let _ = self.session.send(id, bytes);
        }
        if !state.out.is_empty() {
            // An empty chunk says that somebody waits for room; the session then says when there is some.
            let _ = self.session.send(id, Bytes::new());
        }
        if state.out.is_empty()
            && let Some(trailers) = state.finish.take()
        {
            if self.session.finish(id, trailers).is_err() {
                self.session.reset(id, ResetCode::Broken);
            }
            state.sent = true;
        }
        if state.out.len() < OUT_BYTES
            && let Some(writer) = state.writer.take_if(|_| state.finish.is_none() && !state.sent)
        {
            writer.wake();
        }
    }

    /// Hands what the session found to the streams; true when there was anything.
    pub(super) fn deliver(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.session.poll_event() {
            any = true;
            match event {
                Event::Hello(hello) => self.hello = Some(hello),
                Event::Welcome(welcome) => {
                    self.welcome = Some(welcome);
                    self.open();
                }
                Event::Request { id, head } => self.arrive(id, head),
                Event::Response { id, head } => self.with(id, |state| state.response = Some(head)),
                Event::Data { id, bytes } => self.take_data(id, bytes),
                Event::End { id, trailers } => {
                    let mut read = 0;
                    self.with(id, |state| {
                        state.received = true;
                        state.end = Some(trailers);
                        state.is_read = state.body.len() <= SHORT_BYTES;
                        if state.is_read {
                            read = state.body.len() + std::mem::take(&mut state.read_bytes);
                        }
                    });
                    self.session.consume(id, read);
                    self.forget_if_done(id);
                }
                Event::Reset { id, code } => {
                    self.with(id, |state| {
                        state.broken = Some(Broken::Reset(code));
                        state.wake();
                    });
                    take_out(&mut self.streams, id);
                }
                Event::Writable { id } => {
                    if let Some(stream) = self.streams.get(&id).map(Arc::clone) {
                        self.send_body(id, &mut stream.lock());
                        self.forget_if_done(id);
                    }
                }
                Event::Notice(notice) => _ = self.shared.arrive(Arrival::Notice(notice)),
                Event::Outcome(outcome) => _ = self.shared.arrive(Arrival::Outcome(outcome)),
                Event::Answered => _ = self.shared.arrive(Arrival::Answered),
                Event::Draining => {
                    self.shared.lock().peer_draining = true;
                    self.shared.arrive(Arrival::Draining);
                }
                Event::Closed { close, .. } => self.end(close),
            }
        }
        any
    }

    fn arrive(&mut self, id: StreamId, head: relay_proto::RequestHead) {
        self.shared.lock().in_flight += 1;
        let stream = Stream::new(Arc::clone(&self.shared), Box::new(()), |state| state.id = Some(id));
        self.streams.insert(id, Arc::clone(&stream));
        if !self.shared.arrive(Arrival::Request(Request::new(head, stream))) {
            self.session.reset(id, ResetCode::NotCalled);
            take_out(&mut self.streams, id);
        }
    }

    fn take_data(&mut self, id: StreamId, bytes: Bytes) {
        let len = bytes.len();
        let mut discarded = true;
        self.with(id, |state| {
            discarded = state.discard;
            if !discarded {
                state.body.push(bytes);
            }
        });
        if discarded {
            self.session.consume(id, len);
        }
    }

    fn with(&mut self, id: StreamId, change: impl FnOnce(&mut StreamState)) {
        if let Some(stream) = self.streams.get(&id) {
            let mut state = stream.lock();
            change(&mut state);
            let reader = state.reader.take();
            drop(state); // A reader on another thread would wait for it at once.
            if let Some(reader) = reader {
                reader.wake();
            }
        }
    }

    fn forget_if_done(&mut self, id: StreamId) {
        let done = self.streams.get(&id).is_some_and(|stream| {
            let state = stream.lock();
            state.sent && state.received
        });
        if done {
            take_out(&mut self.streams, id);
        }
    }
}

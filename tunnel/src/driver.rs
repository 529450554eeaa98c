//! The loop that owns one WebSocket and one session.
//!
//! A turn reads what waits in the socket, takes the handles' mail, looks at the clock, delivers what
//! the session found, and writes: everything that is ready goes into one message and one flush. The
//! clock is judged only after the socket was read, so that a pause of this process is not taken for
//! the peer's silence.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Sink, Stream};
use relay_proto::{Close, CloseCode, Event, Hello, Limits, OpenError, ResetCode, Session, StreamId, Welcome, limits};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{CloseFrame, Role, frame::coding::CloseCode as WsCode},
    },
};

use crate::{
    exchange::Request,
    mailbox::{Broken, Mailbox, State as Mail},
    mailroom::{Arrival, Arrivals, Handle, Mailroom},
    socket::{Counted, websocket_config},
};

/// Messages read in one turn before the handles get theirs.
const READS_PER_TURN: usize = 32;

/// WebSocket pings, pongs and the like that a peer may send between two binary messages.
const CONTROL_BUDGET: u32 = 64;

/// Bytes that may come without completing a message: one message, as fragments, and their headers.
const FRAGMENT_BUDGET: u64 = 2 * limits::MAX_MESSAGE_BYTES as u64;

/// How long the last frames may take to leave.
const CLOSING: Duration = Duration::from_secs(2);

/// Runs a tunnel until its end, and says how it ended. Dropping it ends the tunnel at once.
pub struct Driver<S> {
    socket: WebSocketStream<Counted<S>>,
    session: Session,
    room: Arc<Mailroom>,
    boxes: BTreeMap<StreamId, Arc<Mailbox>>,
    message: BytesMut,
    origin: Instant,
    timer: Pin<Box<Sleep>>,
    read_bytes: u64,
    read_bytes_at_message: u64,
    control_messages: u32,
    hello: Option<Hello>,
    welcome: Option<Welcome>,
    ended: Option<Close>,
    /// The WebSocket close code to say at the end, if it is another than usual, and whether a close was said.
    farewell: Option<WsCode>,
    farewell_said: bool,
    socket_lost: bool,
}

/// An agent that has said hello and waits for its welcome.
#[derive(Debug)]
pub struct Greeting<S> {
    /// What the agent said.
    pub hello: Hello,
    driver: Driver<S>,
}

/// Begins the relay's end of a tunnel on a socket that has just become a WebSocket: waits for hello.
///
/// `leftover` is what was read behind the upgrade request. `S` is the stream below the WebSocket.
///
/// # Errors
/// How the session ended, if it ended before hello.
pub async fn relay<S>(stream: S, leftover: Vec<u8>, limits: Limits) -> Result<Greeting<S>, Close>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = Some(websocket_config());
    let socket = WebSocketStream::from_partially_read(Counted::new(stream), leftover, Role::Server, config).await;
    let mut driver = Driver::new(socket, limits.max_streams, |now| Session::relay(limits, now));
    let hello = poll_fn(|cx| {
        let ended = driver.poll_turn(cx);
        match (driver.hello.take(), ended) {
            (Some(hello), _) => Poll::Ready(Ok(hello)),
            (None, Poll::Ready(close)) => Poll::Ready(Err(close)),
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await?;
    Ok(Greeting { hello, driver })
}

impl<S: AsyncRead + AsyncWrite + Unpin> Greeting<S> {
    /// Opens the session.
    #[must_use]
    pub fn welcome(self, welcome: Welcome) -> (Handle, Arrivals, Driver<S>) {
        let mut driver = self.driver;
        driver.session.welcome(welcome);
        driver.open();
        (Handle(Arc::clone(&driver.room)), Arrivals(Arc::clone(&driver.room)), driver)
    }

    /// Answers with a welcome that accepts nothing, and closes.
    pub async fn refuse(self, welcome: Welcome, reason: &str) {
        let (handle, _, driver) = self.welcome(welcome);
        handle.close_when_idle(CloseCode::Refused, reason);
        driver.await;
    }
}

/// Begins the agent's end of a tunnel on a WebSocket: says hello and waits for the welcome.
///
/// # Errors
/// How the session ended, if it ended before the welcome.
pub async fn agent<S>(
    stream: S,
    leftover: Vec<u8>,
    hello: Hello,
    limits: Limits,
) -> Result<(Welcome, Handle, Arrivals, Driver<S>), Close>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = Some(websocket_config());
    let socket = WebSocketStream::from_partially_read(Counted::new(stream), leftover, Role::Client, config).await;
    let mut driver = Driver::new(socket, limits.max_streams, |now| Session::agent(hello, limits, now));
    let welcome = poll_fn(|cx| {
        let ended = driver.poll_turn(cx);
        match (driver.welcome.take(), ended) {
            (Some(welcome), _) => Poll::Ready(Ok(welcome)),
            (None, Poll::Ready(close)) => Poll::Ready(Err(close)),
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await?;
    let room = Arc::clone(&driver.room);
    Ok((welcome, Handle(Arc::clone(&room)), Arrivals(room), driver))
}

impl<S> std::fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("epoch", &self.session.epoch()).field("exchanges", &self.boxes.len()).finish()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = Close;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Close> {
        self.poll_turn(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    fn new(
        socket: WebSocketStream<Counted<S>>,
        capacity: u32,
        session: impl FnOnce(relay_proto::Instant) -> Session,
    ) -> Self {
        let origin = Instant::now();
        let room = Arc::new(Mailroom::default());
        room.lock().capacity = capacity;
        Self {
            socket,
            session: session(relay_proto::Instant::from_micros(0)),
            room,
            boxes: BTreeMap::new(),
            message: BytesMut::new(),
            origin,
            timer: Box::pin(sleep_until(origin)),
            read_bytes: 0,
            read_bytes_at_message: 0,
            control_messages: 0,
            hello: None,
            welcome: None,
            ended: None,
            farewell: None,
            farewell_said: false,
            socket_lost: false,
        }
    }

    fn open(&mut self) {
        let mut state = self.room.lock();
        state.open = true;
        state.capacity = self.session.max_streams();
    }

    fn now(&self) -> relay_proto::Instant {
        relay_proto::Instant::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        if self.ended.is_none() {
            loop {
                let more = self.read(cx);
                if self.ended.is_some() {
                    break;
                }
                self.take_mail(cx);
                self.look_at_clock(cx);
                self.deliver();
                self.write(cx);
                // What was sent may have made room for more, or ended the session.
                let events = self.deliver();
                if self.ended.is_some() {
                    break;
                }
                if more {
                    // Others on this runtime get their turn between two full ones of ours.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if !events {
                    return Poll::Pending;
                }
            }
            self.timer.as_mut().reset(Instant::now() + CLOSING);
        }
        if !self.socket_lost && self.timer.as_mut().poll(cx).is_pending() {
            ready!(self.say_farewell(cx));
        }
        Poll::Ready(self.ended.clone().expect("set above"))
    }

    /// Reads what waits; true when there may be more than one turn takes.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..READS_PER_TURN {
            let polled = Pin::new(&mut self.socket).poll_next(cx);
            self.count_bytes();
            match polled {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok(Message::Binary(bytes)))) => {
                    self.read_bytes_at_message = self.read_bytes;
                    self.control_messages = 0;
                    let now = self.now();
                    self.session.handle_bytes(now, bytes);
                    // At once: what one message can mean is bounded, what many can is not.
                    self.deliver();
                    if self.ended.is_some() {
                        return false;
                    }
                }
                Poll::Ready(Some(Ok(Message::Close(_)))) => {
                    self.farewell_said = true; // The answer is written by the library, and has yet to leave.
                    self.session.handle_disconnect("the peer closed the connection");
                    return false;
                }
                Poll::Ready(Some(Ok(Message::Text(_)))) => {
                    self.refuse(WsCode::Unsupported, "text messages are not part of the protocol");
                    return false;
                }
                Poll::Ready(Some(Ok(_))) => {
                    self.control_messages += 1;
                    if self.control_messages > CONTROL_BUDGET {
                        self.refuse(WsCode::Policy, "too many WebSocket control frames");
                        return false;
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    match error {
                        // A process that is killed says nothing; that is no fault in what it said before.
                        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                            return self.lose(&gone(&error));
                        }
                        Error::Capacity(_) => self.refuse(WsCode::Size, "a message over the size limit"),
                        Error::Protocol(_) | Error::Utf8(_) => {
                            self.refuse(WsCode::Protocol, "a violation of the WebSocket protocol");
                        }
                        error => return self.lose(&gone(&error)),
                    }
                    return false;
                }
                Poll::Ready(None) => return self.lose("the connection ended"),
            }
        }
        true
    }

    fn count_bytes(&mut self) {
        let read_bytes = self.socket.get_ref().read_bytes();
        if read_bytes > self.read_bytes {
            self.read_bytes = read_bytes;
            let now = self.now();
            self.session.handle_heard(now);
            if read_bytes - self.read_bytes_at_message > FRAGMENT_BUDGET {
                self.refuse(WsCode::Policy, "too many fragments");
            }
        }
    }

    fn refuse(&mut self, code: WsCode, reason: &str) {
        self.farewell = Some(code);
        self.session.close(CloseCode::ProtocolError, reason);
    }

    fn lose(&mut self, reason: &str) -> bool {
        self.socket_lost = true;
        self.session.handle_disconnect(reason);
        false
    }

    fn look_at_clock(&mut self, cx: &mut Context<'_>) {
        loop {
            let Some(due) = self.session.poll_timeout() else { return };
            let due = self.origin + Duration::from_micros(due.as_micros());
            // A timer that is early is left alone: silence mostly ends before it matters.
            if due < self.timer.deadline() || self.timer.is_elapsed() {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            let now = self.now();
            self.session.handle_timeout(now);
        }
    }

    fn take_mail(&mut self, cx: &mut Context<'_>) {
        let mut state = self.room.lock();
        match &mut state.driver {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        let mut listed = std::mem::take(&mut state.listed);
        while let Some(notice) = state.notices.pop_front() {
            self.session.notify(notice);
        }
        while let Some(outcome) = state.outcomes.pop_front() {
            self.session.report(outcome);
        }
        if std::mem::take(&mut state.probe) {
            self.session.probe();
        }
        if state.drain {
            self.session.drain();
        }
        drop(state);
        for mailbox in listed.drain(..) {
            self.take_letters(&mailbox);
        }
        let mut state = self.room.lock();
        if state.listed.capacity() == 0 {
            state.listed = listed; // Keeps its room for the next turn.
        }
        let idle = self.session.open_streams() == 0 && state.in_flight == 0;
        if state.close.as_ref().is_some_and(|wish| idle || !wish.when_idle)
            && let Some(wish) = state.close.take()
        {
            self.session.close(wish.code, &wish.reason);
        }
    }

    /// Hands what a mailbox holds to the session.
    fn take_letters(&mut self, mailbox: &Arc<Mailbox>) {
        let mut mail = mailbox.lock();
        mail.listed = false;
        if let Some(head) = mail.open.take() {
            if mail.reset.is_some() {
                return; // Given up before it was sent.
            }
            match self.session.open(head) {
                Ok(id) => {
                    mail.id = Some(id);
                    self.boxes.insert(id, Arc::clone(mailbox));
                }
                Err(error) => {
                    let code = match error {
                        OpenError::HeadTooLarge => ResetCode::NotCarriable, // It would be another time, too.
                        OpenError::Closed | OpenError::Draining | OpenError::Busy => ResetCode::NotCalled,
                    };
                    mail.broken = Some(Broken::Reset(code));
                    return mail.wake();
                }
            }
        }
        let Some(id) = mail.id else { return };
        if let Some(code) = mail.reset {
            self.session.reset(id, code);
            self.boxes.remove(&id);
            return;
        }
        if mail.broken.is_some() {
            return;
        }
        let read = std::mem::take(&mut mail.read_bytes);
        if read > 0 {
            self.session.consume(id, read);
        }
        if let Some(head) = mail.respond.take()
            && self.session.respond(id, head).is_err()
        {
            self.session.reset(id, ResetCode::Broken);
            self.boxes.remove(&id);
            mail.broken = Some(Broken::Reset(ResetCode::Broken));
            return mail.wake();
        }
        self.send_body(id, &mut mail);
        if mail.sent && mail.received {
            self.boxes.remove(&id);
        }
    }

    fn send_body(&mut self, id: StreamId, mail: &mut Mail) {
        while !mail.out.is_empty() && self.session.has_room(id) {
            let Some(bytes) = mail.out.pop() else { break };
            // There is room, so an error means that the stream has ended and wants nothing more.
            let _ = self.session.send(id, bytes);
        }
        if !mail.out.is_empty() {
            // Says that somebody waits, so that the session tells when there is room.
            let _ = self.session.send(id, Bytes::new());
        }
        if mail.out.is_empty()
            && let Some(trailers) = mail.finish.take()
        {
            if self.session.finish(id, trailers).is_err() {
                self.session.reset(id, ResetCode::Broken);
            }
            mail.sent = true;
        }
        if mail.out.len() < crate::mailbox::OUT_BYTES
            && let Some(writer) = mail.writer.take_if(|_| mail.finish.is_none() && !mail.sent)
        {
            writer.wake();
        }
    }

    /// Hands what the session found to the mailboxes; true when there was anything.
    fn deliver(&mut self) -> bool {
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
                Event::Response { id, head } => self.with(id, |mail| mail.response = Some(head)),
                Event::Data { id, bytes } => self.take_data(id, bytes),
                Event::End { id, trailers } => {
                    self.with(id, |mail| {
                        mail.received = true;
                        mail.end = Some(trailers);
                    });
                    self.forget_if_done(id);
                }
                Event::Reset { id, code } => {
                    self.with(id, |mail| {
                        mail.broken = Some(Broken::Reset(code));
                        mail.wake();
                    });
                    self.boxes.remove(&id);
                }
                Event::Writable { id } => {
                    if let Some(mailbox) = self.boxes.get(&id).map(Arc::clone) {
                        self.send_body(id, &mut mailbox.lock());
                        self.forget_if_done(id);
                    }
                }
                Event::Notice(notice) => {
                    self.room.arrive(Arrival::Notice(notice));
                }
                Event::Outcome(outcome) => {
                    self.room.arrive(Arrival::Outcome(outcome));
                }
                Event::Answered => {
                    self.room.arrive(Arrival::Answered);
                }
                Event::Draining => {
                    self.room.lock().peer_draining = true;
                    self.room.arrive(Arrival::Draining);
                }
                Event::Closed { close, .. } => self.end(close),
            }
        }
        any
    }

    fn arrive(&mut self, id: StreamId, head: relay_proto::RequestHead) {
        self.room.enter();
        let mailbox = Mailbox::new(Arc::clone(&self.room), Box::new(()), Mail { id: Some(id), ..Mail::default() });
        self.boxes.insert(id, Arc::clone(&mailbox));
        if !self.room.arrive(Arrival::Request(Request::new(head, mailbox))) {
            self.session.reset(id, ResetCode::NotCalled);
            self.boxes.remove(&id);
        }
    }

    fn take_data(&mut self, id: StreamId, bytes: Bytes) {
        let len = bytes.len();
        let mut discarded = true;
        self.with(id, |mail| {
            discarded = mail.discard;
            if !discarded {
                mail.body.push(bytes);
            }
        });
        if discarded {
            self.session.consume(id, len);
        }
    }

    fn with(&mut self, id: StreamId, change: impl FnOnce(&mut Mail)) {
        if let Some(mailbox) = self.boxes.get(&id) {
            let mut mail = mailbox.lock();
            change(&mut mail);
            if let Some(reader) = mail.reader.take() {
                reader.wake();
            }
        }
    }

    fn forget_if_done(&mut self, id: StreamId) {
        let Some(mailbox) = self.boxes.get(&id) else { return };
        let mail = mailbox.lock();
        let done = mail.sent && mail.received;
        drop(mail);
        if done {
            self.boxes.remove(&id);
        }
    }

    fn end(&mut self, close: Close) {
        self.farewell = self.farewell.or(match close.code {
            CloseCode::GoingAway => Some(WsCode::Away),
            CloseCode::ProtocolError => Some(WsCode::Policy), // WebSocket was spoken well, what it carried was not.
            _ => None,
        });
        self.ended = Some(close);
        self.break_off();
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        if self.socket_lost || self.farewell_said {
            return;
        }
        loop {
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.lose(&gone(&error));
                    return;
                }
                Poll::Pending => return,
            }
            if !self.session.poll_transmit(&mut self.message) {
                break;
            }
            let message = Message::Binary(self.message.split().freeze());
            if let Err(error) = Pin::new(&mut self.socket).start_send(message) {
                self.lose(&gone(&error));
                return;
            }
        }
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.socket).poll_flush(cx) {
            self.lose(&gone(&error));
        }
    }

    /// Flushes what is left and says why the WebSocket closes. Errors do not matter any more.
    fn say_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.farewell_said {
            if ready!(Pin::new(&mut self.socket).poll_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            let frame = CloseFrame { code: self.farewell.unwrap_or(WsCode::Normal), reason: "".into() };
            let _ = Pin::new(&mut self.socket).start_send(Message::Close(Some(frame)));
            self.farewell_said = true;
        }
        let _ = ready!(Pin::new(&mut self.socket).poll_flush(cx));
        let shut = pin!(tokio::io::AsyncWriteExt::shutdown(self.socket.get_mut())).poll(cx).is_ready();
        if shut { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// How a connection ended that is not there any more.
fn gone(error: &Error) -> String {
    match error {
        Error::Io(error) => format!("the connection was lost: {error}"),
        _ => "the connection ended".to_owned(),
    }
}

impl<S> Driver<S> {
    /// Breaks every exchange that has not ended.
    fn break_off(&mut self) {
        self.room.shut();
        let listed = std::mem::take(&mut self.room.lock().listed);
        for mailbox in std::mem::take(&mut self.boxes).into_values().chain(listed) {
            let mut mail = mailbox.lock();
            if !(mail.sent && mail.received) {
                mail.broken.get_or_insert(Broken::SessionLost);
            }
            mail.wake();
        }
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.break_off();
    }
}

//! The loop that owns one WebSocket and one session.
//!
//! A turn reads what waits in the socket, takes the handles' state, looks at the clock, delivers what
//! the session found, and writes: everything that is ready goes into one message and one flush. The
//! clock is judged only after the socket was read, so that a pause of this process is not taken for
//! the peer's silence.

mod greeting;
mod streams;
pub(crate) mod wire;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use relay_proto::{Close, CloseCode, Hello, Session, StreamMap, Welcome};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, frame::coding::CloseCode as WsCode},
};

pub use self::greeting::{Greeting, agent, relay};
use crate::{
    message::OutMessage,
    shared::Shared,
    socket::{Counted, websocket, websocket_config},
    stream::{Broken, Stream},
};

/// How long the last frames may take to leave.
const CLOSING: Duration = Duration::from_secs(2);

/// Runs a tunnel until its end, and says how it ended. Dropping it ends the tunnel at once.
pub struct Driver<S> {
    socket: WebSocketStream<Counted<S>>,
    session: Session,
    shared: Arc<Shared>,
    streams: StreamMap<Arc<Stream>>,
    message: OutMessage,
    origin: Instant,
    timer: Pin<Box<Sleep>>,
    read_bytes: u64,
    /// When the last of them came.
    read_at: relay_proto::Instant,
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

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = Close;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Close> {
        self.poll_turn(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// On a stream that has just become a WebSocket; `leftover` is what was read of it already.
    async fn new(stream: S, leftover: Vec<u8>, role: Role, session: Session) -> Self {
        let socket = websocket(stream, leftover, role, websocket_config()).await;
        let origin = Instant::now();
        Self {
            socket,
            session,
            shared: Arc::default(),
            streams: StreamMap::default(),
            message: OutMessage::new(role == Role::Client),
            origin,
            timer: Box::pin(sleep_until(origin)),
            read_bytes: 0,
            read_at: relay_proto::Instant::from_micros(0),
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
        let mut state = self.shared.lock();
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
                self.take_commands(cx);
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

    fn end(&mut self, close: Close) {
        self.farewell = self.farewell.or(match close.code {
            CloseCode::GoingAway => Some(WsCode::Away),
            CloseCode::ProtocolError => Some(WsCode::Policy), // WebSocket was spoken well, what it carried was not.
            _ => None,
        });
        self.ended = Some(close);
        self.break_off();
    }
}

impl<S> Driver<S> {
    /// Breaks every exchange that has not ended.
    fn break_off(&mut self) {
        self.shared.shut();
        let listed = std::mem::take(&mut self.shared.lock().listed);
        for stream in std::mem::take(&mut self.streams).into_values().chain(listed) {
            let mut state = stream.lock();
            if !(state.sent && state.received) {
                state.broken.get_or_insert(Broken::SessionLost);
            }
            state.wake();
        }
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.break_off();
    }
}

//! The driver's two ways to the socket: what is read, and what is written.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use futures_util::{Sink as _, Stream as _};
use relay_proto::{CloseCode, limits};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{CloseFrame, frame::coding::CloseCode as WsCode},
};

use super::Driver;
use crate::socket::close_code;

/// Messages read in one turn before the handles get theirs.
const READS_PER_TURN: usize = 32;

/// WebSocket pings, pongs and the like that a peer may send between two binary messages.
pub const CONTROL_BUDGET: u32 = 64;

/// Bytes that may come without completing a message: one message, as fragments, and their headers.
pub const FRAGMENT_BUDGET_BYTES: u64 = 2 * limits::MAX_MESSAGE_BYTES as u64;

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Reads what waits; true when there may be more than one turn takes.
    pub(super) fn read(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..READS_PER_TURN {
            let polled = Pin::new(&mut self.socket).poll_next(cx);
            self.count_bytes();
            match polled {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok(Message::Binary(bytes)))) => {
                    self.read_bytes_at_message = self.read_bytes;
                    self.control_messages = 0;
                    self.session.handle_bytes(self.read_at, bytes);
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
                    return self.refuse(WsCode::Unsupported, "text messages are not part of the protocol");
                }
                Poll::Ready(Some(Ok(_))) => {
                    self.control_messages += 1;
                    if self.control_messages > CONTROL_BUDGET {
                        return self.refuse(WsCode::Policy, "too many WebSocket control frames");
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    return match close_code(&error) {
                        None => self.lose(&gone(&error)),
                        Some(WsCode::Size) => self.refuse(WsCode::Size, "a message over the size limit"),
                        Some(code) => self.refuse(code, "a violation of the WebSocket protocol"),
                    };
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
            self.read_at = self.now();
            self.session.handle_activity(self.read_at);
            if read_bytes - self.read_bytes_at_message > FRAGMENT_BUDGET_BYTES {
                self.refuse(WsCode::Policy, "too many fragments");
            }
        }
    }

    /// Ends the session for what the peer did; nothing more is read.
    fn refuse(&mut self, code: WsCode, reason: &str) -> bool {
        self.farewell = Some(code);
        self.session.close(CloseCode::ProtocolError, reason);
        false
    }

    /// Ends the session since the socket is gone; nothing more is read.
    fn lose(&mut self, reason: &str) -> bool {
        self.socket_lost = true;
        self.session.handle_disconnect(reason);
        false
    }

    pub(super) fn write(&mut self, cx: &mut Context<'_>) {
        if self.socket_lost || self.farewell_said {
            return;
        }
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            self.lose(&gone(&error));
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut is_idle = true;
        loop {
            ready!(self.poll_message(cx))?;
            // What the library has to answer goes between two messages.
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            if !self.session.poll_transmit(&mut self.message) {
                self.message.let_go(is_idle);
                return Poll::Ready(Ok(()));
            }
            is_idle = false;
            self.message.seal()?;
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.get_mut().poll_message(cx, &mut self.message)
    }

    /// Flushes what is left and says why the WebSocket closes. Errors do not matter any more.
    pub(super) fn say_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_message(cx)).is_err() {
            return Poll::Ready(());
        }
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

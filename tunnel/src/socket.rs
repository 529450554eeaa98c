//! How every tunnel sets its WebSocket up: limits, a count of the bytes that came from the socket, and the close code
//! that an error asks for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use relay_proto::limits::MAX_MESSAGE_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error,
        error::ProtocolError,
        protocol::{Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::message::OutMessage;

/// The limits of every tunnel's WebSocket, set explicitly: the library's defaults are 128 KiB of
/// buffers per idle connection, messages of 64 MiB and a write buffer without a bound.
#[must_use]
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0) // A message goes to the socket at once; it has been coalesced before.
        .max_write_buffer_size(4 * MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// A WebSocket on a stream that has just become one; `leftover` is what was read of it already.
pub async fn websocket<S>(
    stream: S,
    leftover: Vec<u8>,
    role: Role,
    config: WebSocketConfig,
) -> WebSocketStream<Counted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    WebSocketStream::from_partially_read(Counted::new(stream), leftover, role, Some(config)).await
}

/// By which close code a peer learns what it did wrong. `None` where the connection is gone.
#[must_use]
pub const fn close_code(error: &Error) -> Option<CloseCode> {
    match error {
        // A process that is killed says nothing; that is no fault in what it said before.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Capacity(_) => Some(CloseCode::Size),
        Error::Utf8(_) => Some(CloseCode::Invalid),
        Error::Protocol(_) => Some(CloseCode::Protocol),
        _ => None,
    }
}

/// Counts what is read, so that silence is judged by bytes and not by whole messages, and keeps what the library writes
/// out of a message that is half written.
#[derive(Debug)]
pub struct Counted<S> {
    inner: S,
    read_bytes: u64,
    is_in_message: bool,
}

impl<S> Counted<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self { inner, read_bytes: 0, is_in_message: false }
    }

    pub(crate) const fn read_bytes(&self) -> u64 {
        self.read_bytes
    }
}

impl<S: AsyncWrite + Unpin> Counted<S> {
    /// Writes what is left of a message; ready once there is nothing left.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>, message: &mut OutMessage) -> Poll<io::Result<()>> {
        let wrote = message.poll_write(cx, &mut self.inner);
        self.is_in_message = wrote.is_pending();
        wrote
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.read_bytes += (buf.filled().len() - before) as u64;
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_in_message {
            return Poll::Pending; // Whoever ends the message flushes the library.
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

//! A public connection's socket, whose writes have to go on, in the clear or under TLS.
//!
//! A peer that takes nothing holds a connection, and with it an answer and its handler, for as long as it likes: TCP's own
//! probes are answered by its kernel. So a write that finds no room is given a time, and any byte that the system takes
//! begins it anew. This is below TLS and HTTP, so that it holds for every version and after an upgrade. A timer runs only
//! while a write waits.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use relay_program::read_ahead::ReadAhead;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::head::Watched;
use crate::agents::Link;

/// What is read or written in one step on an agent's connection, under TLS too.
const AGENTS_BYTES: usize = 64 * 1024;

/// A connection as the system has it.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Transport {
    fn socket(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        }
    }
}

/// Calls the same method of whichever it is.
macro_rules! either_transport {
    ($this:expr, $stream:ident => $call:expr) => {
        match $this.get_mut() {
            Transport::Tcp($stream) => $call,
            Transport::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either_transport!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either_transport!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either_transport!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either_transport!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either_transport!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A connection whose writes end with [`io::ErrorKind::TimedOut`] when nothing is taken for some time.
#[derive(Debug)]
pub(crate) struct TimedWrites {
    stream: ReadAhead<Transport>,
    patience: Duration,
    /// Made at the first write that waits, and kept for the next one.
    timer: Option<Pin<Box<Sleep>>>,
    waits: bool,
    /// Bytes that may still be read; `None` for no limit.
    left: Option<usize>,
}

impl TimedWrites {
    /// A connection whose peer has to take something within `patience` whenever bytes wait for it.
    pub(crate) const fn new(stream: Transport, patience: Duration) -> Self {
        Self { stream: ReadAhead::new(stream), patience, timer: None, waits: false, left: None }
    }

    /// Reads no more than so many bytes from now on, or as many as come.
    pub(crate) const fn limit_reads(&mut self, bytes: Option<usize>) {
        self.left = bytes;
    }

    /// The address that its peer asked for.
    pub(crate) fn local_address(&self) -> Option<IpAddr> {
        match self.stream.get_ref() {
            Transport::Tcp(stream) => stream.local_addr().ok().map(|address| address.ip()),
            Transport::Unix(_) => None,
        }
    }

    fn goes_on(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
        again: impl Fn(SockRef<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if wrote.is_ready() {
            self.waits = false;
            return wrote;
        }
        // tokio waits once the system took a part, and the system says that there is room only when there is a lot of it.
        // What counts is whether it takes a byte more than when it was full.
        let takes = || match again(self.stream.get_ref().socket()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            taken => taken,
        };
        if !self.waits {
            match takes() {
                Ok(0) => {}
                taken => return Poll::Ready(taken),
            }
        }
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !self.waits {
            self.waits = true;
            timer.as_mut().reset(Instant::now() + patience);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.waits = false;
        Poll::Ready(match takes() {
            Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")),
            taken => taken,
        })
    }
}

impl AsyncRead for TimedWrites {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.left == Some(0) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS handshake is too long")));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.left = self.left.map(|left| left.saturating_sub(buf.filled().len() - before));
        read
    }
}

impl AsyncWrite for TimedWrites {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.goes_on(cx, wrote, |socket| socket.send(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.goes_on(cx, wrote, |socket| socket.send_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A public connection, in the clear or under TLS.
pub(crate) type Socket = Either<TimedWrites, Box<TlsStream<TimedWrites>>>;

/// A socket that can be read in larger steps than TLS asks for, which is 4 KiB.
pub(crate) trait Stepped {
    /// Reads in steps of so many bytes while they come fast.
    fn set_step(&mut self, bytes: usize);
}

impl Stepped for Socket {
    fn set_step(&mut self, bytes: usize) {
        let stream = match self {
            Either::Left(stream) => stream,
            Either::Right(stream) => stream.get_mut().0,
        };
        stream.stream.set_step(bytes);
    }
}

impl Link for Watched<Socket> {
    fn becomes_an_agents(&mut self) {
        let socket = self.unwatched();
        socket.set_step(AGENTS_BYTES);
        if let Either::Right(stream) = socket {
            stream.get_mut().1.set_buffer_limit(Some(AGENTS_BYTES));
        }
    }
}

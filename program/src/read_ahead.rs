//! Reading a socket in larger steps than its reader asks for, as long as bytes come fast.
//!
//! TLS and WebSocket read in steps of 4 KiB, so that a connection that waits holds little; a body of a megabyte would
//! take hundreds of calls of the system. A reader that got all that it asked for gets its next bytes out of one larger
//! read. Nothing is held once such a read finds little.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Readers that ask for more read fast by themselves.
const SMALL_BYTES: usize = 4 * 1024;

/// A stream that may be read ahead.
#[derive(Debug)]
pub struct ReadAhead<S> {
    inner: S,
    /// What is read in one step while bytes come fast; 0 for no more than is asked for.
    step_bytes: usize,
    /// The last reader got all that it asked for.
    fast: bool,
    ahead: Vec<u8>,
    /// How much of `ahead` was given out.
    given: usize,
}

impl<S> ReadAhead<S> {
    /// Reads nothing ahead before [`ReadAhead::set_step`].
    pub const fn new(inner: S) -> Self {
        Self { inner, step_bytes: 0, fast: false, ahead: Vec::new(), given: 0 }
    }

    /// Reads so much in one step from now on while bytes come fast, or no more than is asked for.
    pub const fn set_step(&mut self, bytes: usize) {
        self.step_bytes = bytes;
    }

    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let left = &self.ahead[self.given..];
        let now = left.len().min(buf.remaining());
        buf.put_slice(&left[..now]);
        self.given += now;
    }

    /// Nothing is held any more.
    fn slow_down(&mut self) {
        (self.fast, self.ahead, self.given) = (false, Vec::new(), 0);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given < this.ahead.len() {
            this.give(buf);
            return Poll::Ready(Ok(()));
        }
        if !this.fast || this.step_bytes == 0 || buf.remaining() > SMALL_BYTES {
            let (before, asked) = (buf.filled().len(), buf.remaining());
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            let all = buf.filled().len() - before == asked;
            this.fast = all && (SMALL_BYTES / 2..=SMALL_BYTES).contains(&asked);
            return Poll::Ready(Ok(()));
        }
        this.ahead.clear();
        this.given = 0;
        this.ahead.reserve_exact(this.step_bytes);
        match poll_read_buf(Pin::new(&mut this.inner), cx, &mut this.ahead) {
            Poll::Ready(Ok(read)) if read > 0 => {
                this.give(buf);
                if read < SMALL_BYTES && this.given == read {
                    this.slow_down();
                }
                Poll::Ready(Ok(()))
            }
            other => {
                this.slow_down();
                other.map_ok(drop)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Counts the reads that brought something.
    struct Counted<S>(S, usize);

    impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            ready!(Pin::new(&mut this.0).poll_read(cx, buf))?;
            this.1 += 1;
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_comes_fast_takes_few_reads_and_nothing_is_held_behind_it() {
        let text: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
        for (step_bytes, most) in [(64 * 1024, 30), (16 * 1024, 90), (0, usize::MAX)] {
            let (mut peer, stream) = duplex(256 * 1024);
            let sent = text.clone();
            let sending = tokio::spawn(async move {
                peer.write_all(&sent).await.unwrap();
                peer
            });
            let mut stream = ReadAhead::new(Counted(stream, 0));
            stream.set_step(step_bytes);
            let (mut seen, mut step) = (Vec::new(), [0; SMALL_BYTES]);
            while seen.len() < text.len() {
                let read = stream.read(&mut step).await.unwrap();
                seen.extend_from_slice(&step[..read]);
            }
            assert_eq!(seen, text);
            assert!(stream.inner.1 <= most, "{} reads", stream.inner.1);
            let mut peer = sending.await.unwrap();
            for word in [&b"one"[..], b"two"] {
                peer.write_all(word).await.unwrap();
                let read = stream.read(&mut step).await.unwrap();
                assert_eq!(&step[..read], word);
            }
            assert_eq!(stream.ahead.capacity(), 0, "a connection that waits holds nothing");
            drop(peer);
            assert_eq!(stream.read(&mut step).await.unwrap(), 0);
        }
    }
}

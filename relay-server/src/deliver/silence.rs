//! How long an upgraded connection has been silent.
//!
//! Bytes that pass in either direction count, and only once they have passed. A WebSocket whose ends still want it has
//! pings of its own; nobody needs one that carries nothing for long.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

/// When bytes passed last.
#[derive(Debug)]
pub(super) struct Passed {
    begin: Instant,
    /// Milliseconds after `begin`.
    last: AtomicU64,
}

impl Passed {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { begin: Instant::now(), last: AtomicU64::new(0) })
    }

    /// Ends once nothing has passed for so long.
    pub(super) async fn nothing_for(&self, silence: Duration) {
        loop {
            let due = self.begin + Duration::from_millis(self.last.load(Ordering::Relaxed)) + silence;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due).await;
        }
    }

    fn note(&self) {
        let ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(ms, Ordering::Relaxed);
    }
}

/// A connection that notes when bytes pass.
pub(super) struct Noting<S>(pub(super) S, pub(super) Arc<Passed>);

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self(stream, passed) = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            passed.note();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self(stream, passed) = self.get_mut();
        let wrote = Pin::new(stream).poll_write(cx, buf);
        if matches!(wrote, Poll::Ready(Ok(_))) {
            passed.note();
        }
        wrote
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::{advance, timeout},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_in_either_direction_end_a_silence() {
        let (limit, step) = (Duration::from_secs(10), Duration::from_secs(9));
        let (one, mut other) = duplex(64);
        let passed = Passed::new();
        let mut one = Noting(one, Arc::clone(&passed));
        advance(step).await;
        other.write_all(b"a").await.unwrap();
        one.read_u8().await.unwrap();
        advance(step).await;
        one.write_all(b"b").await.unwrap();
        assert!(timeout(step, passed.nothing_for(limit)).await.is_err());
        passed.nothing_for(limit).await;
        assert_eq!(passed.begin.elapsed(), 2 * step + limit);
    }
}

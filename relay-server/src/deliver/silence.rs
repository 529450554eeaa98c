//! How long an upgraded connection has been silent.
//!
//! Bytes that pass in either direction count, and only once they have passed. A WebSocket whose ends still want it has
//! pings of its own; nobody needs one that carries nothing for long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until},
};
use tokio_util::io::{InspectReader, InspectWriter};

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
pub(super) fn noting<S: AsyncRead + AsyncWrite>(stream: S, passed: &Arc<Passed>) -> impl AsyncRead + AsyncWrite {
    let (read, wrote) = (Arc::clone(passed), Arc::clone(passed));
    InspectWriter::new(InspectReader::new(stream, move |_| read.note()), move |_| wrote.note())
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
        let mut one = Box::pin(noting(one, &passed));
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

//! Copies of exchanges for agents that only watch.
//!
//! A copy never answers the sender and never slows what it is a copy of: its share of the body waits in a
//! bounded queue and a bounded budget of memory, and a watcher that does not keep up loses the whole copy,
//! which is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use relay_proto::{HeaderBlock, ResetCode};
use relay_tunnel::{Exchange, Sender};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

/// Memory for all copies' bodies together, in bytes.
const BUDGET_BYTES: usize = 16 * 1024 * 1024;

/// Pieces of a body that wait for one copy.
const MAX_PIECES: usize = 64;

/// How long one copy may take in all, its handler's answer included.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Mirrors {
    budget: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
}

impl Default for Mirrors {
    fn default() -> Self {
        Self { budget: Arc::new(Semaphore::new(BUDGET_BYTES)), dropped: Arc::default() }
    }
}

impl Mirrors {
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Where a watcher's dropped copies are counted: among those of everybody, and in its own count.
    pub(super) fn count_of(&self, own: &Arc<AtomicU64>) -> DroppedCopies {
        DroppedCopies { all: Arc::clone(&self.dropped), own: Arc::clone(own) }
    }

    pub(super) fn begin(&self, exchanges: impl Iterator<Item = (Exchange, DroppedCopies)>) -> MirrorWriter {
        let open = |(exchange, dropped): (Exchange, DroppedCopies)| {
            let (queue, pieces) = mpsc::channel(MAX_PIECES);
            tokio::spawn(run(exchange, pieces, dropped.clone()));
            MirrorQueue { queue, dropped }
        };
        MirrorWriter { budget: Arc::clone(&self.budget), queues: exchanges.map(open).collect() }
    }
}

/// Where dropped copies are counted: those of everybody, and those of one session.
#[derive(Clone, Debug)]
pub(super) struct DroppedCopies {
    all: Arc<AtomicU64>,
    own: Arc<AtomicU64>,
}

impl DroppedCopies {
    pub(super) fn count(&self) {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.own.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct MirrorQueue {
    queue: mpsc::Sender<Piece>,
    dropped: DroppedCopies,
}

impl MirrorQueue {
    /// Whether there is room for a piece. Without it the copy is dropped.
    fn takes(&self, piece: Option<Piece>) -> bool {
        let sent = piece.is_some_and(|piece| self.queue.try_send(piece).is_ok());
        if !sent {
            self.dropped.count();
        }
        sent
    }
}

/// A piece of a body with the memory that it takes, or the end.
enum Piece {
    Data(Bytes, OwnedSemaphorePermit),
    End(HeaderBlock),
}

/// The writing end of an exchange's copies. Dropped before its end, it breaks them off.
#[derive(Debug)]
pub(crate) struct MirrorWriter {
    budget: Arc<Semaphore>,
    queues: Vec<MirrorQueue>,
}

impl MirrorWriter {
    /// Copies a piece of the body; copies that have no room for it are dropped.
    pub(crate) fn data(&mut self, bytes: &Bytes) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // For all who watch, in memory of its own: a piece can share that of all that was read with it, which nobody counts.
        let bytes = if self.queues.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(bytes) };
        self.queues.retain(|queue| {
            let memory = Arc::clone(&self.budget).try_acquire_many_owned(len);
            queue.takes(memory.ok().map(|memory| Piece::Data(bytes.clone(), memory)))
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub(crate) fn finish(self, trailers: &HeaderBlock) {
        for queue in &self.queues {
            queue.takes(Some(Piece::End(trailers.clone())));
        }
    }
}

async fn run(exchange: Exchange, pieces: mpsc::Receiver<Piece>, dropped: DroppedCopies) {
    let Exchange { request, response } = exchange;
    let copy = async {
        if !upload(request, pieces).await {
            return;
        }
        let Ok((_, mut answer)) = response.head().await else { return };
        while let Some(Ok(_)) = answer.frame().await {}
    };
    if timeout(PATIENCE, copy).await.is_err() {
        dropped.count();
    }
}

async fn upload(mut request: Sender, mut pieces: mpsc::Receiver<Piece>) -> bool {
    loop {
        match pieces.recv().await {
            Some(Piece::Data(bytes, memory)) => {
                if request.send(bytes).await.is_err() {
                    return false;
                }
                drop(memory);
            }
            Some(Piece::End(trailers)) => {
                request.finish(trailers);
                return true;
            }
            None => {
                request.reset(ResetCode::Cancelled);
                return false;
            }
        }
    }
}

//! What waits for the writer: a closure over the open batch, what it weighs, and who is told of its end.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::oneshot;

use super::{post::Post, tx::Tx};
use crate::store::StoreError;

const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// What a call is to a full disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Takes something new in: while the disk is full, only what finds room inside of the file.
    Intake,
    /// Says what became of single events.
    Settle,
    /// Everything else.
    Upkeep,
}

/// A call that waits for its transaction.
pub(super) struct WriterCall {
    pub(super) kind: Kind,
    pub(super) weight: Weight,
    /// Where the thread that made the call finds its answers.
    pub(super) post: Option<Arc<Post>>,
    pub(super) work: Box<dyn Work>,
}

pub(super) trait Work: Send {
    /// Says whether it succeeded. An error is the disk's and ends the transaction.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// Bytes that are counted as waiting until the call is answered.
pub(super) struct Weight {
    pub(super) bytes: usize,
    waiting: Arc<AtomicUsize>,
}

impl Weight {
    /// A call that is heavier than the bound by itself may wait alone.
    pub(super) fn take(bytes: usize, waiting: &Arc<AtomicUsize>) -> Option<Self> {
        let before = waiting.fetch_add(bytes, Ordering::Relaxed);
        let weight = Self { bytes, waiting: Arc::clone(waiting) };
        (before == 0 || before.saturating_add(bytes) <= QUEUE_BYTES).then_some(weight)
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

pub(super) struct Job<T, F> {
    pub(super) work: F,
    pub(super) result: Option<Result<T, StoreError>>,
    pub(super) reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send> Work for Job<T, F> {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        tx.begin();
        let result = (self.work)(tx);
        let result = result.and_then(|done| tx.end().map(|()| done));
        let said = match &result {
            Err(_) if tx.room.has_refused => Ok(false),
            Err(error @ (StoreError::NoSpace | StoreError::Failed(_))) => Err(error.clone()),
            other => Ok(other.is_ok()),
        };
        self.result = Some(result);
        said
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let result = committed.and_then(|()| result.unwrap_or(Err(StoreError::Busy)));
        let _gone = reply.send(result); // A caller may have gone; what is committed stays.
    }
}

//! What waits for the writer: a closure over the open batch, its place in the queue, and who is told of its end.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{post::Post, queue::QueuePlace, tx::Tx};
use crate::store::StoreError;

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
    pub(super) place: QueuePlace,
    /// Where the thread that made the call finds its answers.
    pub(super) post: Option<Arc<Post>>,
    pub(super) work: Box<dyn Work>,
}

pub(super) trait Work: Send {
    /// Says whether it succeeded. An error is the disk's and ends the transaction.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
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

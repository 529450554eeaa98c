//! The thread that waits for the disk, while the writer goes on with what need not be synced.

use std::{
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    thread::JoinHandle,
};

use super::{
    log::{SyncWork, Synced},
    start_thread,
};
use crate::store::StoreError;

/// One sync at a time. Dropping it waits for the thread to end.
pub(super) struct Syncer {
    work: Option<SyncSender<SyncWork>>,
    done: Receiver<Result<Synced, StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start() -> Result<Self, StoreError> {
        let (work, todo) = sync_channel::<SyncWork>(1);
        let (answer, done) = sync_channel(1);
        let thread = start_thread("store-sync", move || {
            while let Ok(work) = todo.recv() {
                if answer.send(work.run()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { work: Some(work), done, thread: Some(thread) })
    }

    pub(super) fn begin(&self, work: SyncWork) -> Result<(), StoreError> {
        let sent = self.work.as_ref().map(|queue| queue.send(work));
        sent.and_then(Result::ok).ok_or_else(gone)
    }

    /// The sync that was begun, if it has ended by now.
    pub(super) fn ended(&self) -> Option<Result<Synced, StoreError>> {
        match self.done.try_recv() {
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(gone())),
            Ok(done) => Some(done),
        }
    }

    /// Waits for the sync that was begun.
    pub(super) fn end(&self) -> Result<Synced, StoreError> {
        self.done.recv().unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn gone() -> StoreError {
    StoreError::Failed("the thread that syncs the store's log has ended".into())
}

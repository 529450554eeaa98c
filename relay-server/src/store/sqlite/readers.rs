//! A few threads that read, each with a read-only connection, so that no look at the store holds up a commit.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::schema;
use crate::store::StoreError;

/// Reads at a time.
const THREADS: usize = 3;

/// Reads that wait.
const QUEUE: usize = 256;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The way to the reading threads; they end when it is dropped.
pub(super) struct Readers(SyncSender<Read>);

impl Readers {
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let (queue, reads) = sync_channel::<Read>(QUEUE);
        let reads = Arc::new(Mutex::new(reads));
        for _ in 0..THREADS {
            let connection = schema::open_reader(path)?;
            let reads = Arc::clone(&reads);
            let thread = std::thread::Builder::new().name("store-reader".into());
            let started = thread.spawn(move || {
                while let Some(read) = next(&reads) {
                    read(&connection);
                }
            });
            started.map_err(|error| StoreError::Unusable(format!("cannot start the store's readers: {error}")))?;
        }
        Ok(Self(queue))
    }

    pub(super) fn call<T, F>(&self, work: F) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, receiver) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            // One transaction: what a call sees belongs together.
            let result = connection.unchecked_transaction().map_err(StoreError::from).and_then(|open| work(&open));
            let _gone = reply.send(result);
        });
        // A read that finds no place is dropped with its reply, which the caller sees as a full queue.
        if let Err(TrySendError::Full(read) | TrySendError::Disconnected(read)) = self.0.try_send(read) {
            drop(read);
        }
        receiver
    }
}

fn next(reads: &Mutex<Receiver<Read>>) -> Option<Read> {
    reads.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

//! A few threads that read, each with a read-only connection, so that no look at the store holds up a commit.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{schema, start_thread};
use crate::store::StoreError;

const THREADS: usize = 3;

const QUEUE: usize = 256;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Dropping it waits for the threads to end.
pub(super) struct Readers {
    queue: Option<SyncSender<Read>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let (queue, reads) = sync_channel::<Read>(QUEUE);
        let reads = Arc::new(Mutex::new(reads));
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            let connection = schema::open_reader(path)?;
            let reads = Arc::clone(&reads);
            threads.push(start_thread("store-reader", move || {
                while let Some(read) = next(&reads) {
                    // A read that panics is its caller's trouble, who finds the reply gone; the others are still read.
                    let _panicked = catch_unwind(AssertUnwindSafe(|| read(&connection)));
                }
            })?);
        }
        Ok(Self { queue: Some(queue), threads })
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
        let _full = self.queue.as_ref().map(|queue| queue.try_send(read));
        receiver
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.queue.take());
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

fn next(reads: &Mutex<Receiver<Read>>) -> Option<Read> {
    reads.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

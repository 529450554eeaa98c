//! The calls of one batch, run as they come: while those who are there are run, others make theirs.
//!
//! Invariant: what waits here is bounded by [`LINGER`], in calls by [`MAX_BATCH`], and in bytes.

use std::{
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use super::{calls::WriterCall, row::ROWS_AT_ONCE, tx::Tx};
use crate::store::StoreError;

/// Calls in one transaction.
pub(super) const MAX_BATCH: usize = 512;

/// Bytes in one transaction, beyond which no further call joins it.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The longest that a transaction waits for calls that are likely to come.
pub(super) const LINGER: Duration = Duration::from_millis(1);

/// How often it looks whether they have come; being woken by each of them would cost more.
const LINGER_STEP: Duration = Duration::from_micros(100);

/// Rows and keys that are moved into the tables before it looks again whether the disk, or a call, waits for it.
pub(super) const SLICE: usize = ROWS_AT_ONCE;

/// Calls that are likely to come while a batch is run, and join it.
pub(super) struct Coming<'a> {
    pub(super) calls: &'a Receiver<WriterCall>,
    /// How many calls the batch is likely to have in the end, and until when that is waited for.
    pub(super) expected: usize,
    pub(super) until: Instant,
    pub(super) is_over: bool,
    /// Calls and bytes of the batch so far.
    pub(super) batch: usize,
    pub(super) bytes: usize,
    /// How long nothing was there to run, and how many rows were moved into the tables meanwhile.
    pub(super) waited: Duration,
    pub(super) moved: usize,
    /// Whether there are tables to move them into, and whether all are to be moved soon.
    pub(super) can_move: bool,
    pub(super) is_soon: bool,
}

impl Coming<'_> {
    /// Takes what has come; waits for it, moving rows, while more is expected. Whether anything came. Should the batch be
    /// rolled back, so are these rows.
    fn fetch(&mut self, tx: &mut Tx<'_>, batch: &mut Vec<WriterCall>) -> Result<bool, StoreError> {
        let began = Instant::now();
        let before = batch.len();
        while before < self.expected && self.bytes < MAX_BATCH_BYTES && !self.is_over {
            // Who has come by then still joins; those who trickle in afterwards do not.
            self.is_over = Instant::now() >= self.until;
            self.bytes = drain(self.calls, batch, self.bytes);
            if batch.len() > before || self.is_over {
                break;
            }
            let moved = match self.can_move {
                true => tx.known.pending.move_slice(tx.connection, SLICE, self.is_soon).map_err(of_index)?,
                false => 0,
            };
            self.moved += moved;
            if moved == 0 {
                std::thread::sleep(LINGER_STEP);
            }
        }
        self.batch = batch.len();
        self.waited += began.elapsed();
        Ok(batch.len() > before)
    }
}

/// Tables that cannot take what the log says are the store's failure, and no call's. Without room it is tried again.
fn of_index(error: StoreError) -> StoreError {
    match error {
        StoreError::NoSpace => error,
        error => StoreError::Failed(error.to_string()),
    }
}

/// Runs the calls of a batch, and those that come meanwhile; which of them failed after they had changed something.
pub(super) fn run_calls(
    tx: &mut Tx<'_>,
    batch: &mut Vec<WriterCall>,
    coming: &mut Coming<'_>,
) -> Result<Vec<usize>, StoreError> {
    let (mut spoilt, mut next) = (Vec::new(), 0);
    loop {
        for (nth, call) in batch.iter_mut().enumerate().skip(next) {
            let before = (tx.connection.total_changes(), tx.changed());
            if !call.work.run(tx)? && (tx.connection.total_changes(), tx.changed()) != before {
                spoilt.push(nth);
            }
        }
        next = batch.len();
        if !coming.fetch(tx, batch)? {
            return Ok(spoilt);
        }
    }
}

/// Takes what waits now; how many bytes the batch has then.
pub(super) fn drain(calls: &Receiver<WriterCall>, batch: &mut Vec<WriterCall>, mut bytes: usize) -> usize {
    while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
        let Ok(next) = calls.try_recv() else { break };
        bytes += next.place.bytes();
        batch.push(next);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    };

    use super::{
        super::{
            calls::{Kind, Work},
            keys::Keys,
            queue::QueueRoom,
            room::Room,
            schema,
            tests::ended_rows,
            tx::WriterState,
        },
        *,
    };

    /// A call during which another one like it comes.
    struct Trickle(SyncSender<WriterCall>, Arc<QueueRoom>);

    impl Work for Trickle {
        fn run(&mut self, _: &mut Tx<'_>) -> Result<bool, StoreError> {
            let _sent = self.0.send(self.call());
            Ok(true)
        }

        fn answer(self: Box<Self>, _: Result<(), StoreError>) {}
    }

    impl Trickle {
        fn call(&self) -> WriterCall {
            let work = Box::new(Self(self.0.clone(), Arc::clone(&self.1)));
            WriterCall { kind: Kind::Settle, place: self.1.take(1).expect("room"), post: None, work }
        }
    }

    fn coming(calls: &Receiver<WriterCall>, until: Instant) -> Coming<'_> {
        let (batch, bytes, waited, moved) = (1, 1, Duration::ZERO, 0);
        let expected = MAX_BATCH;
        Coming { calls, expected, until, is_over: false, batch, bytes, waited, moved, can_move: false, is_soon: false }
    }

    #[test]
    fn tables_that_take_no_rows_fail_the_store_and_no_call() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = schema::open_writer(&folder.path().join("relay.db")).expect("a database");
        let (mut known, keys) = (WriterState::load(&connection).expect("read"), Keys::default());
        known.pending = ended_rows(&connection, 32);
        let refuse = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON event BEGIN SELECT RAISE(FAIL, 'no'); END";
        connection.execute_batch(refuse).expect("a trigger");
        let room = Room::new(&known.sums, None);
        let mut tx = Tx::new(&connection, None, &keys, &mut known, room);
        let (_sender, calls) = sync_channel(1);
        let until = Instant::now() + Duration::from_secs(60);
        let mut waiting = Coming { can_move: true, ..coming(&calls, until) };
        let ran = run_calls(&mut tx, &mut Vec::new(), &mut waiting);
        assert!(matches!(&ran, Err(StoreError::Failed(why)) if why.contains("no")), "{ran:?}");
    }

    #[test]
    fn without_room_the_batch_is_tried_again() {
        assert_eq!(of_index(StoreError::NoSpace), StoreError::NoSpace);
    }

    #[test]
    fn calls_that_trickle_in_do_not_hold_a_batch_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = schema::open_writer(&folder.path().join("relay.db")).expect("a database");
        let (mut known, keys) = (WriterState::load(&connection).expect("read"), Keys::default());
        let room = Room::new(&known.sums, None);
        let mut tx = Tx::new(&connection, None, &keys, &mut known, room);
        let (sender, calls) = sync_channel(MAX_BATCH);
        let mut batch = vec![Trickle(sender, Arc::default()).call()];
        let ran = run_calls(&mut tx, &mut batch, &mut coming(&calls, Instant::now()));
        assert_eq!(ran, Ok(Vec::new()));
        assert_eq!(batch.len(), 2, "the one that was there joins");
    }
}

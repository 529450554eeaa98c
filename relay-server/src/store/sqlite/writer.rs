//! The one thread that writes: it takes all calls that wait, commits them as one transaction, and answers after the
//! commit.
//!
//! A call is a closure over the open transaction. It may run more than once (after a full disk, without the appends; or
//! without another call that failed halfway), so it must not consume what it works on. Invariants:
//! - No call is answered with success before the transaction that holds it is committed and synced.
//! - After a failed write or sync the thread writes nothing any more, and answers every later call so.
//! - A call that is answered with an error of its own has changed nothing.
//! - The queue is bounded; a caller that finds it full learns so at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    Shared,
    checkpoint::Checkpointer,
    keys::{Key, Keys},
    listing,
    pending_rows::{PendingChanges, PendingRows},
    post::Post,
    room::{Room, Sums, pages},
    start_thread,
};
use crate::{
    endpoint::EndpointName,
    store::{Health, StoreError},
    throttle::Throttle,
};

/// A disk may be full and have room by turns.
static IS_FULL: Throttle = Throttle::new();
static HAS_ROOM: Throttle = Throttle::new();

const MAX_BATCH: usize = 512;

/// Bytes in one transaction, beyond which no further call joins it.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The longest that a transaction waits for calls that are likely to come.
const LINGER: Duration = Duration::from_millis(1);

/// How often it looks whether they have come; being woken by each of them would cost more.
const LINGER_STEP: Duration = Duration::from_micros(100);

const QUEUE: usize = 4096;

const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// After so long without a call an idle WAL is tidied.
const TICK: Duration = Duration::from_millis(500);

/// How often a full disk is looked at again: each look writes a file.
const LOOK: Duration = Duration::from_secs(2);

/// What a call is to a full disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Takes something new in: while the disk is full, only what finds room inside of the file.
    Intake,
    /// Says what became of single events.
    Settle,
    /// Moves on or removes what is there, and finds all of it in the tables.
    Upkeep,
}

pub(super) struct Tx<'a> {
    pub(super) connection: &'a Connection,
    pub(super) keys: &'a Keys,
    pub(super) known: &'a mut WriterState,
    pub(super) changes: PendingChanges,
    pub(super) fresh: Vec<Key>,
    pub(super) room: Room,
}

#[derive(Default)]
pub(super) struct WriterState {
    endpoints: HashMap<EndpointName, i64>,
    pub(super) pending: PendingRows,
    pub(super) last_seq: i64,
    pub(super) sums: Sums,
    pub(super) last_blob: i64,
    /// Chunks up to here were put there by an earlier process.
    pub(super) blobs_before: i64,
    /// Bytes of refused requests by endpoint, once they were summed up.
    refused: Option<BTreeMap<i64, u64>>,
}

impl Tx<'_> {
    pub(super) fn endpoint(&mut self, name: &EndpointName) -> Result<Option<i64>, StoreError> {
        if let Some(key) = self.known.endpoints.get(name) {
            return Ok(Some(*key));
        }
        let key = listing::endpoint_key(self.connection, name)?;
        self.known.endpoints.extend(key.map(|key| (name.clone(), key)));
        Ok(key)
    }

    /// An endpoint's number; a new one gets one.
    pub(super) fn endpoint_or_new(&mut self, name: &EndpointName) -> Result<i64, StoreError> {
        if let Some(key) = self.endpoint(name)? {
            return Ok(key);
        }
        self.connection.prepare_cached("INSERT INTO endpoint (name) VALUES (?1)")?.execute([name.as_str()])?;
        Ok(self.connection.last_insert_rowid())
    }

    pub(super) fn is_paused(&self, key: i64) -> Result<bool, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT paused_at IS NOT NULL FROM endpoint WHERE key = ?1")?;
        Ok(query.query_row([key], |row| row.get(0))?)
    }

    /// Bytes of refused requests by the number of their endpoint, for who adds and removes some to keep up with.
    pub(super) fn refused_bytes(&mut self) -> Result<&mut BTreeMap<i64, u64>, StoreError> {
        if self.known.refused.is_none() {
            let mut query = self.connection.prepare_cached(
                "SELECT endpoint, sum(octet_length(head) + octet_length(body)) FROM refused GROUP BY endpoint",
            )?;
            let sums = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            self.known.refused = Some(sums.collect::<Result<_, _>>()?);
        }
        Ok(self.known.refused.get_or_insert_default())
    }

    pub(super) fn next_seq(&mut self) -> i64 {
        self.known.last_seq += 1;
        self.known.last_seq
    }
}

/// A call that waits for its transaction.
pub(super) struct WriterCall {
    kind: Kind,
    weight: Weight,
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
struct Weight {
    bytes: usize,
    waiting: Arc<AtomicUsize>,
}

impl Weight {
    /// A call that is heavier than the bound by itself may wait alone.
    fn take(bytes: usize, waiting: &Arc<AtomicUsize>) -> Option<Self> {
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

struct Job<T, F> {
    work: F,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send> Work for Job<T, F> {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        tx.room.has_refused = false;
        let result = (self.work)(tx);
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

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) commit_micros: AtomicU64,
    pub(super) used_bytes: AtomicU64,
    pub(super) damaged: AtomicU64,
    /// Rows that are not in the table yet.
    pub(super) pending: AtomicUsize,
}

pub(super) struct Writer {
    queue: Option<SyncSender<WriterCall>>,
    thread: Option<JoinHandle<()>>,
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        checkpointer: Checkpointer,
        shared: Arc<Shared>,
    ) -> Result<Self, StoreError> {
        let known = known(&connection)?;
        shared.counters.pending.store(known.pending.len(), Ordering::Release);
        shared.counters.used_bytes.store(used_bytes(&connection)?, Ordering::Relaxed);
        let (queue, calls) = sync_channel(QUEUE);
        let thread = start_thread("store-writer", move || {
            let _alarm = Alarm(Arc::clone(&shared));
            Loop { connection, checkpointer, shared, known, looked: None, last: Last::default() }.run(&calls);
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), waiting: Arc::default() })
    }

    /// Has the work done in the next transaction. The receiver hears of it after the commit.
    pub(super) fn call<T, F>(&self, kind: Kind, bytes: usize, work: F) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, receiver) = oneshot::channel();
        let Some(weight) = Weight::take(bytes, &self.waiting) else {
            let _gone = reply.send(Err(StoreError::Busy));
            return receiver;
        };
        let work = Box::new(Job { work, result: None, reply });
        let call = WriterCall { kind, weight, post: Post::here(), work };
        let sent = self.queue.as_ref().map_or(Ok(()), |queue| queue.try_send(call));
        if let Err(TrySendError::Full(call) | TrySendError::Disconnected(call)) = sent {
            call.work.answer(Err(StoreError::Busy));
        }
        receiver
    }
}

impl Drop for Writer {
    /// What is queued is still committed.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Without its writer a store is failed, whatever ended it.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.pulse.set(Health::Failed("the store's writer has panicked".into()));
        }
    }
}

fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let (all, free) = pages(connection)?;
    Ok(all.saturating_sub(free) * super::schema::PAGE_BYTES)
}

fn known(connection: &Connection) -> Result<WriterState, StoreError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let last_blob =
        number("SELECT max(coalesce((SELECT max(blob) FROM chunk), 0), coalesce((SELECT max(blob) FROM staging), 0))")?;
    let last_seq = number("SELECT coalesce(max(seq), 0) FROM content")?;
    Ok(WriterState {
        endpoints: HashMap::new(),
        pending: PendingRows::load(connection)?,
        sums: Sums::load(connection)?,
        last_seq,
        last_blob,
        blobs_before: last_blob,
        refused: None,
    })
}

struct Loop {
    connection: Connection,
    checkpointer: Checkpointer,
    shared: Arc<Shared>,
    known: WriterState,
    /// When a full disk was last looked at.
    looked: Option<Instant>,
    last: Last,
}

#[derive(Default)]
struct Last {
    calls: usize,
    took: Duration,
    ended: Option<Instant>,
}

impl Loop {
    fn run(mut self, calls: &Receiver<WriterCall>) {
        self.checkpointer.count_frames(&self.connection);
        loop {
            if let Ok(first) = calls.try_recv() {
                self.take(first, true, calls);
                continue;
            }
            match calls.recv_timeout(TICK) {
                Ok(first) => self.take(first, false, calls),
                Err(RecvTimeoutError::Timeout) => {
                    self.look_for_space();
                    self.checkpointer.idle();
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.checkpointer.finish(&self.connection);
    }

    fn take(&mut self, first: WriterCall, has_waited: bool, calls: &Receiver<WriterCall>) {
        let mut batch = vec![first];
        let mut bytes = drain(calls, &mut batch, 0);
        self.linger(has_waited, calls, &mut batch, &mut bytes);
        self.look_for_space();
        let (count, started) = (batch.len(), Instant::now());
        self.commit(batch);
        self.last = Last { calls: count, took: started.elapsed(), ended: Some(Instant::now()) };
        self.checkpointer.after_commit(&self.connection);
    }

    /// Senders that were just answered are likely to call again. To wait a little for them, and commit once for all,
    /// is faster than to let them go in two groups that wait for each other. A caller that is alone never waits.
    fn linger(&self, has_waited: bool, calls: &Receiver<WriterCall>, batch: &mut Vec<WriterCall>, bytes: &mut usize) {
        let began = Instant::now();
        let longest = LINGER.min(self.last.took / 2);
        let just_ended = self.last.ended.is_some_and(|ended| began - ended < LINGER);
        let expected = match has_waited {
            true => self.last.calls + batch.len(),
            false if just_ended => self.last.calls,
            false => return,
        };
        while batch.len() < expected.min(MAX_BATCH) && *bytes < MAX_BATCH_BYTES && began.elapsed() < longest {
            std::thread::sleep(LINGER_STEP);
            *bytes = drain(calls, batch, *bytes);
        }
    }

    fn look_for_space(&mut self) {
        if !self.shared.pulse.is_full() || self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        if self.shared.ballast.restore() {
            if let Some(held_back) = HAS_ROOM.pass("") {
                tracing::info!(held_back, "the store's disk has room again");
            }
            self.shared.pulse.set(Health::Ready);
        }
    }

    fn commit(&mut self, mut batch: Vec<WriterCall>) {
        let mut failures = 0;
        loop {
            // On a full disk calls may take in what finds room inside of the file; but its log must have room as well.
            if failures > 1 || self.shared.pulse.is_full() && !self.checkpointer.has_room_on_a_full_disk() {
                for call in batch.extract_if(.., |call| call.kind == Kind::Intake) {
                    call.work.answer(Err(StoreError::NoSpace));
                }
            }
            if batch.is_empty() {
                return;
            }
            let error = match self.try_commit(&mut batch) {
                Ok(spoilt) if spoilt.is_empty() => {
                    Post::answer(batch);
                    return;
                }
                Ok(spoilt) => {
                    self.roll_back();
                    spoilt.into_iter().rev().for_each(|nth| batch.remove(nth).work.answer(Ok(())));
                    continue;
                }
                Err(error) => error,
            };
            self.roll_back();
            self.note(&error);
            failures += 1;
            if failures > 2 || error != StoreError::NoSpace {
                batch.drain(..).for_each(|call| call.work.answer(Err(error.clone())));
                return;
            }
        }
    }

    fn note(&mut self, error: &StoreError) {
        match error {
            StoreError::NoSpace => {
                if !self.shared.pulse.is_full()
                    && let Some(held_back) = IS_FULL.pass("")
                {
                    tracing::error!(
                        held_back,
                        "the store's disk is full: events are refused unless there is room inside of the store"
                    );
                }
                self.shared.pulse.set(Health::NoSpace);
                self.shared.ballast.release();
                // The log can begin again, where it has its room already.
                self.checkpointer.copy_all(&self.connection);
                self.looked = Some(Instant::now());
            }
            StoreError::Failed(why) => {
                tracing::error!(why, "the store has failed; the process must end and start again");
                self.shared.pulse.set(Health::Failed(why.clone()));
            }
            _ => {}
        }
    }

    /// Commits the calls, or returns those that failed after they had changed something: then nothing is committed.
    fn try_commit(&mut self, batch: &mut [WriterCall]) -> Result<Vec<usize>, StoreError> {
        if let Some(failed) = self.shared.pulse.failure() {
            return Err(failed);
        }
        let started = Instant::now();
        let connection = &self.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let (known, changes) = (&mut self.known, PendingChanges::default());
        let room = Room::new(&known.sums, &self.shared);
        let mut tx = Tx { connection, keys: &self.shared.keys, known, changes, fresh: Vec::new(), room };
        let mut spoilt = Vec::new();
        for (nth, call) in batch.iter_mut().enumerate() {
            if call.kind == Kind::Upkeep {
                tx.grow_all()?;
            }
            let before = (connection.total_changes(), tx.changes.count());
            if !call.work.run(&mut tx)? && (connection.total_changes(), tx.changes.count()) != before {
                spoilt.push(nth);
            }
        }
        if !spoilt.is_empty() {
            return Ok(spoilt);
        }
        tx.bound_pending()?;
        let Tx { fresh, changes, room, .. } = tx;
        room.write(connection)?;
        let moved = self.shared.keys.move_slice(connection, fresh.len())?;
        let used = used_bytes(connection)?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        self.known.pending.publish(changes);
        self.known.sums.publish(room);
        self.shared.keys.publish(&fresh, self.known.last_seq);
        moved.into_iter().for_each(|last| self.shared.keys.moved(last));
        let counters = &self.shared.counters;
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.calls.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.commit_micros.fetch_add(micros, Ordering::Relaxed);
        counters.used_bytes.store(used, Ordering::Relaxed);
        counters.pending.store(self.known.pending.len(), Ordering::Release);
        Ok(spoilt)
    }

    fn roll_back(&mut self) {
        self.known.endpoints.clear();
        self.known.refused = None;
        if !self.connection.is_autocommit() {
            // Nothing of it was acknowledged, whether this works or not.
            let _ignored = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// Takes what waits now; how many bytes the batch has then.
fn drain(calls: &Receiver<WriterCall>, batch: &mut Vec<WriterCall>, mut bytes: usize) -> usize {
    while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
        let Ok(next) = calls.try_recv() else { break };
        bytes += next.weight.bytes;
        batch.push(next);
    }
    bytes
}

//! The one thread that writes: it takes all calls that wait, writes what they changed to the log, and answers once that
//! is synced.
//!
//! ```text
//! calls ─▶ queue ─▶ run them as they come ─▶ one write to the log ─▶ sync (a thread of its own) ─▶ answers
//!                     │                                              ├─ meanwhile: rows move into the index
//!                     └──── while more are awaited ──────────────────┘
//! ```
//!
//! A call is a closure over the open batch. It may run more than once (after a full disk, without the appends; or without
//! another call that failed halfway), so it must not consume what it works on. Invariants:
//! - No call is answered with success before the log holds what it changed, and, unless that is only that a delivery
//!   succeeded, before the log is synced.
//! - After a failed write or sync the thread writes nothing any more, and answers every later call so.
//! - A call that is answered with an error of its own has changed nothing.
//! - The queue is bounded, with shares (`queue`); a caller that finds it full learns so at once.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    Shared,
    calls::{Job, Kind, WriterCall},
    coming::{Coming, LINGER, MAX_BATCH, SLICE, drain, run_calls},
    index::Index,
    log::Log,
    post::Post,
    queue::{QUEUE, QueuePlace, QueueRoom},
    record,
    room::Room,
    start_thread,
    syncer::Syncer,
    tx::{Tx, Wants, WriterState},
};
use crate::{
    endpoint::EndpointName,
    store::{Health, StoreError},
    throttle::Throttle,
};

/// A disk may be full and have room by turns.
static IS_FULL: Throttle = Throttle::new();
static HAS_ROOM: Throttle = Throttle::new();

/// Rows and keys that are moved at a time where so many wait that everybody waits for them.
const MOST_AT_ONCE: usize = 1024;

/// After so long without a call an idle WAL is tidied.
const TICK: Duration = Duration::from_millis(500);

/// The longest that what was written and answered is not synced.
const UNSYNCED: Duration = Duration::from_millis(500);

/// What calls that come in may take in the log beside what they weigh.
const SPARE_BYTES: u64 = 16 * 1024;

/// How often ended events give way to the calls of one batch, a part of them each time.
const GIVE_WAY_ROUNDS: usize = 64;

/// How often a full disk is looked at again: each look writes a file.
const LOOK: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    queue: Option<SyncSender<WriterCall>>,
    thread: Option<JoinHandle<()>>,
    room: Arc<QueueRoom>,
}

impl Writer {
    pub(super) fn start(index: Index, log: Log, known: WriterState, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let (queue, calls) = sync_channel(QUEUE);
        let syncer = Syncer::start()?;
        let thread = start_thread("store-writer", move || {
            let _alarm = Alarm(Arc::clone(&shared));
            let last = Last::default();
            Loop { index, log, syncer, shared, known, looked: None, written: None, last }.run(&calls);
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), room: Arc::default() })
    }

    /// Has the work done in the next transaction. The receiver hears of it after the commit.
    pub(super) fn call<T, F>(&self, kind: Kind, bytes: usize, work: F) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let place = match kind {
            Kind::Intake => self.room.take_intake(None, bytes),
            Kind::Settle | Kind::Upkeep => self.room.take(bytes),
        };
        self.send(kind, place, work)
    }

    /// The same of a call that takes something in for an endpoint, and counts for its share.
    pub(super) fn take_in<T, F>(
        &self,
        endpoint: Option<&EndpointName>,
        bytes: usize,
        work: F,
    ) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.send(Kind::Intake, self.room.take_intake(endpoint, bytes), work)
    }

    fn send<T, F>(&self, kind: Kind, place: Option<QueuePlace>, work: F) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, receiver) = oneshot::channel();
        let Some(place) = place else {
            let _gone = reply.send(Err(StoreError::Busy));
            return receiver;
        };
        let work = Box::new(Job { work, result: None, reply });
        let call = WriterCall { kind, place, post: Post::here(), work };
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

struct Loop {
    index: Index,
    log: Log,
    syncer: Syncer,
    shared: Arc<Shared>,
    known: WriterState,
    /// When a full disk was last looked at.
    looked: Option<Instant>,
    /// Since when something is written that is not synced.
    written: Option<Instant>,
    last: Last,
}

#[derive(Default)]
struct Last {
    calls: usize,
    took: Duration,
    ended: Option<Instant>,
}

/// What became of a batch that was run.
enum Ran {
    /// It is in the log.
    Written(Wants),
    /// These calls failed after they had changed something; nothing was written.
    Spoilt(Vec<usize>),
}

impl Loop {
    fn run(mut self, calls: &Receiver<WriterCall>) {
        // What was read back may not have been synced before its process ended.
        self.written = Some(Instant::now());
        self.catch_up();
        loop {
            if let Ok(first) = calls.try_recv() {
                self.take(first, true, calls);
                continue;
            }
            match calls.recv_timeout(TICK) {
                Ok(first) => self.take(first, false, calls),
                Err(RecvTimeoutError::Timeout) => self.idle(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if self.shared.pulse.failure().is_none() {
            self.catch_up();
        }
        let Index { connection, checkpointer, .. } = &mut self.index;
        checkpointer.finish(connection);
    }

    fn idle(&mut self) {
        self.look_for_space();
        if self.shared.pulse.failure().is_none() {
            self.catch_up();
            self.index.give_up(&mut self.log, &self.shared.shelves);
            self.index.checkpointer.idle();
        }
    }

    fn take(&mut self, first: WriterCall, has_waited: bool, calls: &Receiver<WriterCall>) {
        let mut batch = vec![first];
        let bytes = drain(calls, &mut batch, 0);
        self.look_for_space();
        let started = Instant::now();
        let mut coming = self.coming(has_waited, calls, (batch.len(), bytes), started);
        self.commit(batch, &mut coming);
        let took = started.elapsed().saturating_sub(coming.waited);
        self.last = Last { calls: coming.batch, took, ended: Some(Instant::now()) };
        let is_late = self.written.is_some_and(|since| since.elapsed() >= UNSYNCED);
        if self.shared.pulse.failure().is_none() && (self.index.is_due() || is_late) {
            self.catch_up();
        }
    }

    /// Senders that were just answered are likely to call again. To wait a little for them, and commit once for all,
    /// is faster than to let them go in two groups that wait for each other; meanwhile those who are there are run. A
    /// caller that is alone never waits, and nobody on a full disk, who may be refused.
    fn coming<'a>(
        &self,
        has_waited: bool,
        calls: &'a Receiver<WriterCall>,
        (batch, bytes): (usize, usize),
        now: Instant,
    ) -> Coming<'a> {
        let just_ended = self.last.ended.is_some_and(|ended| now - ended < LINGER);
        let expected = match has_waited {
            _ if self.shared.pulse.is_full() => 0,
            true => self.last.calls + batch,
            false if just_ended => self.last.calls,
            false => 0,
        };
        let until = now + LINGER.min(self.last.took / 2);
        let (can_move, is_soon) = (self.index.is_changed(), self.index.is_nearly_due());
        let expected = expected.min(MAX_BATCH);
        Coming {
            calls,
            expected,
            until,
            is_over: false,
            batch,
            bytes,
            waited: Duration::ZERO,
            moved: 0,
            can_move,
            is_soon,
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

    fn commit(&mut self, mut batch: Vec<WriterCall>, coming: &mut Coming<'_>) {
        let mut failures = 0;
        loop {
            let has_room = failures <= 1 && (!self.shared.pulse.is_full() || self.has_room_inside(&batch));
            if !has_room {
                for call in batch.extract_if(.., |call| call.kind == Kind::Intake) {
                    call.work.answer(Err(StoreError::NoSpace));
                }
            }
            if batch.is_empty() {
                return;
            }
            let started = Instant::now();
            let error = match self.try_write(&mut batch, coming) {
                Ok(Ran::Written(wants)) => {
                    self.finish(batch, wants, started + coming.waited);
                    return;
                }
                Ok(Ran::Spoilt(spoilt)) => {
                    spoilt.into_iter().rev().for_each(|nth| batch.remove(nth).work.answer(Ok(())));
                    continue;
                }
                Err(error) => error,
            };
            self.note(&error);
            failures += 1;
            if failures > 2 || error != StoreError::NoSpace {
                batch.drain(..).for_each(|call| call.work.answer(Err(error.clone())));
                return;
            }
        }
    }

    /// Whether the log of a store whose disk is full takes what comes in without a file that grows: what was kept aside
    /// is for settles. What has ended gives way.
    fn has_room_inside(&mut self, batch: &[WriterCall]) -> bool {
        let intake = batch.iter().filter(|call| call.kind == Kind::Intake);
        let bytes: usize = intake.map(|call| call.place.bytes()).sum();
        let bytes = bytes as u64 + SPARE_BYTES;
        let enough = |log: &Log| log.room_inside() >= bytes;
        let _tried = (0..GIVE_WAY_ROUNDS).any(|_| enough(&self.log) || !self.give_way(bytes));
        if !enough(&self.log) {
            self.leave_segment();
        }
        // The batch goes to where there is room.
        self.log.discard();
        enough(&self.log)
    }

    /// Gives up the file that is written to if no event needs anything of it: so a log that is shorter than a segment has
    /// room inside, too. The next file begins with a few bytes, for which there is what was kept aside.
    fn leave_segment(&mut self) {
        if self.shared.pulse.failure().is_some() || self.known.sums.live(self.log.end().segment()) > 0 {
            return;
        }
        if let Err(error) = self.log.leave_segment(&record::NOTHING) {
            if let StoreError::Failed(why) = error {
                self.fail(&why);
            }
            return;
        }
        self.written.get_or_insert_with(Instant::now);
        self.index.changed(0, Vec::new());
        let left = self.commit_index().and_then(|()| self.index.sync(&mut self.log, &self.shared.shelves));
        if let Err(error) = left {
            self.index_failed(error);
        }
    }

    /// Removes some of what has ended, and gives up what nobody needs then; says whether there was anything.
    fn give_way(&mut self, bytes: u64) -> bool {
        if self.shared.pulse.failure().is_some() {
            return false;
        }
        let removed = self.index.begin_batch().and_then(|()| {
            let Self { index, shared, known, .. } = self;
            let room = Room::new(&known.sums, Some(shared));
            let mut tx = Tx::new(&index.connection, None, &shared.keys, known, room);
            let removed = tx.evict(None, bytes)?;
            let mut room = tx.room;
            let unused = std::mem::take(&mut room.unused_files);
            known.pending.keep();
            known.sums.publish(room);
            index.changed(0, unused);
            index.end_batch().map(|()| removed)
        });
        match removed.and_then(|removed| self.commit_index().map(|()| removed)) {
            Ok(removed) => {
                let synced = self.index.sync(&mut self.log, &self.shared.shelves);
                synced.is_ok() && removed > 0
            }
            Err(error) => {
                self.index_failed(error);
                false
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
                self.looked = Some(Instant::now());
                // Where others ended there may be room in the log.
                self.catch_up();
                let is_committed = self.index.connection.is_autocommit();
                if is_committed
                    && self.shared.pulse.failure().is_none()
                    && let Err(error) = self.index.sync(&mut self.log, &self.shared.shelves)
                {
                    self.index_failed(error);
                }
            }
            StoreError::Failed(why) => self.fail(why),
            _ => {}
        }
    }

    fn fail(&self, why: &str) {
        tracing::error!(why, "the store has failed; the process must end and start again");
        self.shared.pulse.set(Health::Failed(why.to_owned()));
    }

    /// Runs the calls and writes what they changed to the log; or nothing of it, and the tables are as they were.
    fn try_write(&mut self, batch: &mut Vec<WriterCall>, coming: &mut Coming<'_>) -> Result<Ran, StoreError> {
        if let Some(failed) = self.shared.pulse.failure() {
            return Err(failed);
        }
        let ran = self.index.begin_batch().and_then(|()| self.run_batch(batch, coming));
        if matches!(ran, Ok(Ran::Written(_))) {
            return ran;
        }
        // What is tried again is what is there.
        (coming.expected, coming.moved) = (0, 0);
        self.log.discard();
        self.known.forget();
        // Nothing of it was acknowledged; where SQLite has given up the whole transaction the log says what was.
        if self.index.connection.is_autocommit() || self.index.roll_back_batch().is_err() {
            self.reload();
        }
        ran
    }

    fn run_batch(&mut self, batch: &mut Vec<WriterCall>, coming: &mut Coming<'_>) -> Result<Ran, StoreError> {
        let Self { index, log, shared, known, .. } = self;
        let connection = &index.connection;
        let room = Room::new(&known.sums, Some(shared));
        let changes_before = connection.total_changes();
        let mut tx = Tx::new(connection, Some((log, &shared.shelves)), &shared.keys, known, room);
        let spoilt = run_calls(&mut tx, batch, coming)?;
        if !spoilt.is_empty() {
            return Ok(Ran::Spoilt(spoilt));
        }
        let Tx { fresh, mut room, wants, .. } = tx;
        if !log.is_empty() {
            log.write()?;
            self.written.get_or_insert_with(Instant::now);
        }
        // From here on nothing fails: the log says it.
        let has_changed = known.pending.changes() > coming.moved || connection.total_changes() != changes_before;
        let unused = std::mem::take(&mut room.unused_files);
        shared.counters.damaged.fetch_add(room.damaged, Ordering::Relaxed);
        room.dropped_files.drain(..).for_each(|file| shared.shelves.bodies.remove(file));
        let events = known.pending.changes().saturating_sub(coming.moved);
        known.pending.keep();
        known.sums.publish(room);
        shared.keys.publish(&fresh, known.last_seq);
        let ended = index.end_batch();
        if has_changed || !unused.is_empty() {
            index.changed(events, unused);
            shared.counters.is_behind.store(true, Ordering::Release);
        }
        shared.counters.used_bytes.store(known.used_bytes(), Ordering::Relaxed);
        shared.counters.open_bytes.store(known.sums.open_bytes(), Ordering::Relaxed);
        if let Err(error) = ended {
            self.index_failed(error);
        }
        Ok(Ran::Written(wants))
    }

    /// Syncs what was written, if anybody waits for that, and answers.
    fn finish(&mut self, batch: Vec<WriterCall>, wants: Wants, started: Instant) {
        if wants.sync || wants.full {
            let synced = self.sync_and_move(batch.len());
            if let Err(error) = synced {
                self.note(&error);
                batch.into_iter().for_each(|call| call.work.answer(Err(error.clone())));
                return;
            }
        }
        let mut committed = Ok(());
        if wants.commit || wants.full {
            committed = self.commit_index();
            if wants.full && committed.is_ok() {
                committed = self.index.sync(&mut self.log, &self.shared.shelves);
            }
        }
        let counters = &self.shared.counters;
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.calls.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.commit_micros.fetch_add(micros, Ordering::Relaxed);
        let Err(error) = committed else {
            let calls = batch.len();
            Post::answer(batch);
            // Whoever needed a sync has had rows moved meanwhile.
            if !wants.sync && !wants.full {
                self.move_some(SLICE + calls * 2);
            }
            return;
        };
        // What the others wait for is in the log, and stays.
        let (waiting, done) = batch.into_iter().partition(|call| call.kind == Kind::Upkeep);
        Post::answer(done);
        waiting.into_iter().for_each(|call: WriterCall| call.work.answer(Err(error.clone())));
        self.index_failed(error);
    }

    /// Has the log synced; rows move into the index meanwhile.
    fn sync_and_move(&mut self, calls: usize) -> Result<(), StoreError> {
        self.syncer.begin(self.log.sync_work())?;
        if self.is_filling() {
            self.move_some(calls * 2);
        }
        while self.is_full() && self.move_some(MOST_AT_ONCE) {}
        let mut is_moving = true;
        let done = loop {
            is_moving = is_moving && self.move_some(SLICE);
            match self.syncer.ended() {
                Some(done) => break done,
                None if is_moving => {}
                None => break self.syncer.end(),
            }
        };
        self.log.synced(done?);
        self.written = None;
        Ok(())
    }

    /// Moves some of the rows and keys that stand in memory into the tables; says whether there were any.
    fn move_some(&mut self, most: usize) -> bool {
        if !self.index.is_changed() || self.shared.pulse.failure().is_some() {
            return false;
        }
        let connection = &self.index.connection;
        let rows = self.known.pending.move_slice(connection, most, self.index.is_nearly_due());
        self.known.pending.keep();
        let moved = rows.and_then(|rows| Ok(rows + self.shared.keys.move_slice(connection, most)?));
        moved.map_err(|error| self.index_failed(error)).is_ok_and(|moved| moved > 0)
    }

    fn is_filling(&self) -> bool {
        self.known.pending.is_filling() || self.shared.keys.is_filling()
    }

    fn is_full(&self) -> bool {
        self.known.pending.is_full() || self.shared.keys.is_full()
    }

    /// Syncs what is written, and commits the index.
    fn catch_up(&mut self) {
        if let Err(error) = self.commit_index() {
            self.index_failed(error);
        }
    }

    fn commit_index(&mut self) -> Result<(), StoreError> {
        if self.written.is_some() {
            let synced = self.log.sync_work().run();
            match synced {
                Ok(done) => self.log.synced(done),
                Err(error) => {
                    self.fail(&error.to_string());
                    return Err(error);
                }
            }
            self.written = None;
        }
        self.index.commit(&mut self.known, &mut self.log, &self.shared)?;
        self.shared.counters.is_behind.store(false, Ordering::Release);
        Ok(())
    }

    /// The index could not take what the log says. Nothing is lost; without room it is tried again.
    fn index_failed(&mut self, error: StoreError) {
        match error {
            StoreError::NoSpace => {
                self.shared.pulse.set(Health::NoSpace);
                self.shared.ballast.release();
                self.looked = Some(Instant::now());
                self.index.checkpointer.copy_all(&self.index.connection);
                self.reload();
            }
            error => self.fail(&error.to_string()),
        }
    }

    fn reload(&mut self) {
        if let Err(error) = self.index.reload(&mut self.known, &mut self.log, &self.shared) {
            self.fail(&error.to_string());
        }
    }
}

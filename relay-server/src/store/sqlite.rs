//! The store in files: the default. A log of what must not be lost, and SQLite as its index.
//!
//! ```text
//! calls ──▶ queue ──▶ writer thread: run ─▶ log ─▶ sync ──▶ answers
//!                                     └▶ index: one transaction for many batches
//! reads ──▶ queue ──▶ reader threads, read-only
//!                     checkpoint thread: SQLite's own log ──▶ its file
//! ```
//!
//! One process holds the files. Events, and what becomes of them, are synced in the log before anyone is answered;
//! configuration, tokens and secrets in the index. A write or sync that fails is never tried again: the store is failed
//! from then on, and the process has to end.

use std::{
    future::Future,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use super::{
    Act, Acted, AuditFilter, AuditPage, AuditRow, Backlog, Body, Bulk, BulkPlan, Claimed, ConfigChange, ConfigKind,
    ConfigRow, ConfigSets, End, Ended, EndpointSize, EventCounts, Filter, Grant, Health, Hold, Holder, LeaseEnds,
    MAX_PAGE, NewEvent, OwnSignature, Page, PageRequest, Purge, Purged, Record, RefusedRow, Reply, Share, Sight,
    Source, Store, StoreError, TokenUse, Usage, Verdict, Want, Was, error::Pulse, refused_bytes, rules,
};
use crate::{endpoint::EndpointName, spool::Spool, webhook::EventId};

mod attempts;
mod audit;
mod backup;
mod ballast;
mod bodies;
mod calls;
mod checkpoint;
mod coming;
mod compaction;
mod content;
mod counters;
mod delivery;
mod encoding;
mod event_record;
mod fault;
mod head;
mod index;
mod intake;
mod key_runs;
mod keys;
mod listing;
#[cfg_attr(not(test), expect(dead_code, reason = "tests read more of the log than the store does"))]
mod log;
mod marks;
mod operator_actions;
mod pending_rows;
mod post;
mod purge;
pub(crate) mod queue;
mod readers;
mod reading;
mod record;
mod refused;
mod room;
mod row;
mod schema;
mod small;
mod syncer;
mod tx;
mod writer;

#[cfg(test)]
mod tests;

use ballast::Ballast;
use bodies::BodyFolder;
use calls::Kind;
use checkpoint::Checkpointer;
use content::Shelves;
use counters::Counters;
use index::Index;
pub(super) use index::Pace;
use intake::{Ready, Staged};
use keys::Keys;
use log::{Log, LogMedium};
use readers::Readers;
use room::Shares;
use row::Found;
pub use schema::resolve;
use tx::{Tx, WriterState};
use writer::Writer;

/// Bounds of a segment of the log, in bytes.
const SEGMENT_BYTES: (u64, u64) = (1024 * 1024, 16 * 1024 * 1024);

/// The longest body that stands in the log, in bytes; and the largest part of a segment that one takes.
const MOST_IN_LOG: u32 = 1024 * 1024;
const PART_OF_SEGMENT: u32 = 4;

/// Where the store is and how large it may get.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    pub path: PathBuf,
    /// Space that it may use. At the limit what has ended gives way.
    pub max_bytes: u64,
}

/// The store in files. Dropping it commits what is queued and closes them.
pub struct SqliteStore {
    // The order matters: readers end, then the writer, then the lock is given up.
    readers: Readers,
    writer: Arc<Writer>,
    shared: Arc<Shared>,
    _lock: schema::Lock,
}

/// What the store and its threads have in common.
struct Shared {
    options: SqliteOptions,
    /// BodyFolder up to this stand in the log.
    most_in_log: u64,
    shelves: Shelves,
    keys: Keys,
    pulse: Pulse,
    counters: Counters,
    shares: ArcSwap<Shares>,
    spool: Spool,
    ballast: Ballast,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the files, or makes them. Blocks; an error says what to do.
    pub fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        Self::open_at(options, Pace::default())
    }

    pub(super) fn open_at(mut options: SqliteOptions, pace: Pace) -> Result<Self, StoreError> {
        options.path = resolve(&options.path)?;
        let path = &options.path;
        let lock = schema::lock(path)?;
        let connection = schema::open_writer(path)?;
        let segment = (options.max_bytes / 64).clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1);
        let segment = u32::try_from(segment).unwrap_or(u32::MAX);
        let spool = schema::spool(path, options.max_bytes)?;
        let bodies = BodyFolder::new(schema::bodies_folder(path));
        let (id, mark, mut known) =
            (schema::id(&connection)?, index::mark(&connection)?, WriterState::load(&connection)?);
        let log = index::read_back(&connection, &mut known, &Keys::default(), |read| {
            Log::open(LogMedium::Disk(schema::log_folder(path)), id, segment, mark, read)
        })?;
        bodies.sweep(&index::files(&connection)?);
        let shared = Arc::new(Shared {
            most_in_log: MOST_IN_LOG.min(segment / PART_OF_SEGMENT).into(),
            shelves: Shelves { log: log.reader(), bodies },
            keys: Keys::load(&connection)?,
            pulse: Pulse::default(),
            counters: Counters::default(),
            shares: ArcSwap::default(),
            spool,
            ballast: Ballast(schema::beside(path, "reserve")),
            options: options.clone(),
        });
        if !shared.ballast.restore() {
            tracing::warn!("the store's disk is full: events are refused until there is room");
            shared.pulse.set(Health::NoSpace);
        }
        let checkpointer = Checkpointer::start(path, Arc::clone(&shared))?;
        let readers = Readers::start(path)?;
        let index = Index::new(connection, checkpointer, pace);
        shared.counters.used_bytes.store(known.used_bytes(), Ordering::Relaxed);
        shared.counters.open_bytes.store(known.sums.open_bytes(), Ordering::Relaxed);
        // What was read back from the log is not committed yet.
        shared.counters.is_behind.store(true, Ordering::Release);
        let writer = Arc::new(Writer::start(index, log, known, Arc::clone(&shared))?);
        Ok(Self { readers, writer, shared, _lock: lock })
    }

    fn write<T, F>(&self, kind: Kind, bytes: usize, work: F) -> Reply<'_, T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        Box::pin(answered(self.writer.call(kind, bytes, work)))
    }

    fn read<T, F>(&self, work: F) -> Reply<'_, T>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    {
        Box::pin(answered(self.readers.call(work)))
    }

    /// Reads what the index holds, after it was committed with everything that was answered.
    async fn look<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.catch_up().await?;
        self.read(work).await
    }

    async fn catch_up(&self) -> Result<(), StoreError> {
        if !self.shared.counters.is_behind.load(Ordering::Acquire) {
            return Ok(());
        }
        let commit = |tx: &mut Tx<'_>| {
            tx.wants.commit = true;
            Ok(())
        };
        let committed = self.write(Kind::Upkeep, 0, commit).await;
        // Of a failed store people can still see what is in its tables.
        if self.has_failed() { Ok(()) } else { committed }
    }

    fn has_failed(&self) -> bool {
        self.shared.pulse.failure().is_some()
    }

    /// Puts a long body into its file, and prepares its event.
    async fn prepare(&self, event: &NewEvent, now: Timestamp) -> Result<(Ready, Option<Staged>), StoreError> {
        let size = event.body.size();
        if size <= self.shared.most_in_log {
            return Ok((intake::prepare(event, None, now)?, None));
        }
        if let Body::File(body) = &event.body {
            body.is_counted_elsewhere();
        }
        let (file, endpoint) = (tx::draw_number()?, event.endpoint.clone());
        let stage = move |tx: &mut Tx<'_>| tx.stage(&endpoint, file, size);
        answered(self.writer.take_in(Some(&event.endpoint), 0, stage)).await?;
        let staged = Staged { writer: Arc::clone(&self.writer), file, is_kept: false };
        let (body, bodies) = (event.body.clone(), self.shared.shelves.bodies.clone());
        // A thread that may block reads the caller's file, and is done with it before the body is given up.
        let (sha256, staged) = match self.read(move |_| Ok((bodies.keep(&body, file)?, staged))).await {
            Err(error @ StoreError::Failed(_)) => {
                self.shared.pulse.set(Health::Failed(error.to_string()));
                return Err(error);
            }
            other => other?,
        };
        Ok((intake::prepare(event, Some((file, sha256)), now)?, Some(staged)))
    }

    /// Gives back segments of the log of which little is needed.
    async fn compact(&self) -> Result<(), StoreError> {
        for segment in self.write(Kind::Upkeep, 0, |tx| compaction::sparse(tx)).await? {
            let shelves = self.shared.shelves.clone();
            let needed = self.look(move |connection| compaction::needed(connection, &shelves, segment)).await?;
            for step in compaction::steps(needed) {
                self.write(Kind::Upkeep, 0, move |tx| compaction::move_contents(tx, &step)).await?;
            }
        }
        Ok(())
    }
}

fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let started = std::thread::Builder::new().name(name.into()).spawn(work);
    started.map_err(|error| StoreError::Unusable(format!("cannot start the thread {name}: {error}")))
}

/// A call whose place in a queue was not to be had comes back as a closed channel.
async fn answered<T>(receiver: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    receiver.await.unwrap_or(Err(StoreError::Busy))
}

fn boxed<'a, T>(work: impl Future<Output = Result<T, StoreError>> + Send + 'a) -> Reply<'a, T> {
    Box::pin(work)
}

impl Store for SqliteStore {
    fn set_shares(&self, shares: Vec<(EndpointName, Share)>) {
        self.shared.shares.store(Arc::new(Shares::new(shares)));
    }

    fn spool(&self) -> Option<Spool> {
        Some(self.shared.spool.clone())
    }

    fn room_for_coming(&self, endpoint: EndpointName) -> Reply<'_, ()> {
        let name = endpoint.clone();
        boxed(answered(self.writer.take_in(Some(&name), 0, move |tx| tx.admit_coming(&endpoint))))
    }

    fn append(&self, events: Vec<NewEvent>, now: Timestamp) -> Reply<'_, Vec<Verdict>> {
        boxed(async move {
            rules::once_each(&events)?;
            let (mut ready, mut staged) = (Vec::with_capacity(events.len()), Vec::new());
            for event in &events {
                let (one, file) = self.prepare(event, now).await?;
                ready.push(one);
                staged.extend(file);
            }
            let bytes = ready.iter().map(Ready::bytes).sum();
            let endpoint = events.first().map(|event| &event.endpoint);
            let call = self
                .writer
                .take_in(endpoint, bytes, move |tx| ready.iter().map(|event| intake::append(tx, event, now)).collect());
            let verdicts = answered(call).await;
            staged.iter_mut().for_each(|file| file.is_kept = verdicts.is_ok());
            verdicts
        })
    }

    fn claim(&self, wants: Vec<Want>, grant: Grant, now: Timestamp) -> Reply<'_, Claimed> {
        boxed(async move {
            let leased = self.write(Kind::Upkeep, 256, move |tx| delivery::claim(tx, &wants, grant, now)).await?;
            Ok(Claimed { deliveries: self.load(leased.events, now).await?, next_due: leased.next_due })
        })
    }

    fn holders(&self) -> Reply<'_, Vec<Holder>> {
        boxed(self.look(delivery::holders))
    }

    fn orphans(&self, gone: Vec<Holder>, holder: Holder, until: LeaseEnds, now: Timestamp) -> Reply<'_, Vec<Hold>> {
        boxed(async move {
            let held = self.look(move |connection| delivery::held_by(connection, &gone)).await?;
            let until = until.into_iter().collect();
            self.write(Kind::Upkeep, 256, move |tx| delivery::take_over(tx, &held, holder, &until, now)).await
        })
    }

    fn settle(&self, ends: Vec<End>, now: Timestamp) -> Reply<'_, Vec<Ended>> {
        let ends: Vec<End> = ends.into_iter().map(rules::trimmed).collect();
        let body = |end: &End| end.attempt.answer.as_ref().map_or(0, |answer| answer.body.len());
        let bytes = ends.iter().map(|end| body(end) + 256).sum();
        self.write(Kind::Settle, bytes, move |tx| ends.iter().map(|end| delivery::settle(tx, end, now)).collect())
    }

    fn list(&self, filter: Filter, page: PageRequest) -> Reply<'_, Page> {
        let shared = Arc::clone(&self.shared);
        boxed(self.look(move |connection| {
            listing::list(connection, &shared.shelves, &shared.keys, &filter, &page, listing::LONG)
        }))
    }

    fn event(&self, sight: Sight, id: EventId, now: Timestamp) -> Reply<'_, Option<Record>> {
        boxed(async move {
            let read = |shelves: &Shelves, found: &Found| Ok(shelves.read(found, false)?.head);
            let record = self.read_content(sight, id, now, read).await?;
            Ok(record.map(|(found, attempts, head)| Record { head, summary: found.row.summary, attempts }))
        })
    }

    fn body(&self, endpoint: EndpointName, id: EventId, range: Range<u64>, now: Timestamp) -> Reply<'_, Option<Bytes>> {
        boxed(async move {
            let read = move |shelves: &Shelves, found: &Found| shelves.part(found, range.clone());
            let part = self.read_content(endpoint.into(), id, now, read).await?;
            Ok(part.map(|(_, _, part)| part))
        })
    }

    fn last_answers(&self, of: Vec<(EndpointName, EventId)>, most: usize) -> Reply<'_, Vec<Option<Bytes>>> {
        boxed(self.look(move |connection| listing::last_answers(connection, &of, most)))
    }

    fn act(&self, acts: Vec<Act>, now: Timestamp) -> Reply<'_, Vec<Acted>> {
        self.write(Kind::Upkeep, 256, move |tx| acts.iter().map(|act| operator_actions::act(tx, act, now)).collect())
    }

    fn forget(&self, endpoint: EndpointName, ids: Vec<EventId>) -> Reply<'_, u64> {
        self.write(Kind::Upkeep, 256, move |tx| {
            let Some(key) = tx.endpoint(&endpoint)? else { return Ok(0) };
            let mut gone = 0;
            for id in ids.iter().take(MAX_PAGE) {
                gone += u64::from(purge::delete(tx, key, *id)?.is_some());
            }
            Ok(gone)
        })
    }

    fn bulk(&self, plan: BulkPlan, now: Timestamp) -> Reply<'_, ()> {
        self.write(Kind::Upkeep, 256, move |tx| operator_actions::start(tx, &plan, now))
    }

    fn bulk_step(&self, id: EventId, fresh: Vec<EventId>, now: Timestamp) -> Reply<'_, Bulk> {
        self.write(Kind::Upkeep, 256, move |tx| operator_actions::step(tx, id, &fresh, now))
    }

    fn stop_bulk(&self, id: EventId) -> Reply<'_, Option<Bulk>> {
        self.write(Kind::Upkeep, 256, move |tx| operator_actions::stop(tx, id))
    }

    fn bulks(&self) -> Reply<'_, Vec<Bulk>> {
        boxed(self.look(operator_actions::all))
    }

    fn purge(&self, policy: Purge, now: Timestamp) -> Reply<'_, Purged> {
        boxed(async move {
            let used = self.shared.counters.used_bytes.load(Ordering::Relaxed);
            let asked = policy.clone();
            let found = self.look(move |connection| purge::look(connection, &asked, used, now)).await?;
            let remove = move |tx: &mut Tx<'_>| purge::remove(tx, &policy, &found, now);
            let purged = self.write(Kind::Upkeep, 256, remove).await?;
            if purged.next.is_none() && !self.shared.pulse.is_full() {
                self.compact().await?;
            }
            Ok(purged)
        })
    }

    fn reach_back(&self, reaches: Vec<(EndpointName, Duration)>, begins: Timestamp, now: Timestamp) -> Reply<'_, ()> {
        self.write(Kind::Upkeep, 64 * reaches.len(), move |tx| {
            tx.wants.full = true;
            marks::remember(tx, &reaches, begins, now)
        })
    }

    fn pause(&self, endpoint: EndpointName, paused: bool, now: Timestamp) -> Reply<'_, ()> {
        self.write(Kind::Upkeep, 64, move |tx| tx.pause(&endpoint, paused.then(|| row::millis(now))))
    }

    fn backlog(&self, sight: Sight) -> Reply<'_, Vec<Backlog>> {
        boxed(self.look(move |connection| small::backlog(connection, &sight)))
    }

    fn counts(&self, endpoint: EndpointName) -> Reply<'_, EventCounts> {
        boxed(self.look(move |connection| small::counts(connection, &endpoint)))
    }

    fn sizes(&self, sight: Sight) -> Reply<'_, Vec<EndpointSize>> {
        boxed(self.look(move |connection| small::sizes(connection, &sight)))
    }

    fn note_token_use(&self, uses: Vec<TokenUse>) -> Reply<'_, ()> {
        self.write(Kind::Upkeep, 64 * uses.len(), move |tx| small::note_token_use(tx.connection, &uses))
    }

    fn token_use(&self) -> Reply<'_, Vec<TokenUse>> {
        boxed(self.look(small::token_use))
    }

    fn audit(&self, rows: Vec<AuditRow>, max_bytes: u64) -> Reply<'_, ()> {
        let bytes = rows.iter().map(AuditRow::bytes).sum::<u64>();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.write(Kind::Upkeep, bytes, move |tx| audit::keep(tx, &rows, max_bytes))
    }

    fn audited(&self, filter: AuditFilter) -> Reply<'_, AuditPage> {
        boxed(self.look(move |connection| audit::page(connection, &filter)))
    }

    fn forget_audited(&self, before: Timestamp) -> Reply<'_, usize> {
        self.write(Kind::Upkeep, 64, move |tx| audit::forget(tx, before))
    }

    fn config(&self, kind: ConfigKind) -> Reply<'_, Vec<ConfigRow>> {
        boxed(self.look(move |connection| small::config(connection, kind)))
    }

    fn configure(&self, source: Source, sets: ConfigSets, all: bool, now: Timestamp) -> Reply<'_, Vec<ConfigChange>> {
        let bytes = sets.iter().flat_map(|(_, rows)| rows).map(|(name, value)| name.len() + value.len()).sum();
        self.write(Kind::Upkeep, bytes, move |tx| {
            tx.wants.full = true;
            small::configure(tx.connection, source, &sets, all, now)
        })
    }

    fn unconfigure(&self, kind: ConfigKind, name: String) -> Reply<'_, bool> {
        self.write(Kind::Upkeep, 64, move |tx| {
            tx.wants.full = true;
            small::unconfigure(tx.connection, kind, &name)
        })
    }

    fn used(&self, kind: ConfigKind, names: Vec<String>, at: Timestamp) -> Reply<'_, ()> {
        self.write(Kind::Upkeep, 64, move |tx| small::used(tx.connection, kind, &names, at))
    }

    fn put_secret(
        &self,
        scope: String,
        name: String,
        sealed: Option<Bytes>,
        was: Was,
        now: Timestamp,
    ) -> Reply<'_, bool> {
        self.write(Kind::Upkeep, 256, move |tx| {
            tx.wants.full = true;
            let there = was == Was::Nothing && small::secret(tx.connection, &scope, &name)?.is_some();
            if !there {
                small::put_secret(tx.connection, &scope, &name, sealed.as_deref(), now)?;
            }
            Ok(!there)
        })
    }

    fn secret(&self, scope: String, name: String) -> Reply<'_, Option<Bytes>> {
        self.read(move |connection| small::secret(connection, &scope, &name))
    }

    fn remember(&self, signature: OwnSignature, now: Timestamp) -> Reply<'_, ()> {
        self.write(Kind::Upkeep, 128, move |tx| small::remember(tx, &signature, now))
    }

    fn own_signatures(&self, now: Timestamp) -> Reply<'_, Vec<OwnSignature>> {
        boxed(self.look(move |connection| small::own_signatures(connection, now)))
    }

    fn refuse(&self, rows: Vec<RefusedRow>) -> Reply<'_, ()> {
        let bytes = rows.iter().map(|row| row.head.len() + row.body.len()).sum();
        let max_bytes = refused_bytes(self.shared.options.max_bytes);
        self.write(Kind::Intake, bytes, move |tx| refused::refuse(tx, &rows, max_bytes))
    }

    fn refused(&self, endpoint: Option<EndpointName>, limit: usize) -> Reply<'_, Vec<RefusedRow>> {
        boxed(self.look(move |connection| refused::refused(connection, endpoint.as_ref(), limit)))
    }

    fn refused_request(&self, id: EventId) -> Reply<'_, Option<RefusedRow>> {
        boxed(self.look(move |connection| refused::request(connection, id)))
    }

    fn backup(&self, to: PathBuf) -> Reply<'_, ()> {
        boxed(async move {
            let hold = self.shared.shelves.log.hold();
            self.catch_up().await?;
            answered(backup::start(Arc::clone(&self.shared), to, hold)).await
        })
    }

    fn usage(&self) -> Usage {
        let counters = &self.shared.counters;
        Usage {
            bytes: counters.used_bytes.load(Ordering::Relaxed),
            max_bytes: self.shared.options.max_bytes,
            waiting_bytes: counters.open_bytes.load(Ordering::Relaxed),
            damaged: counters.damaged.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
            calls: counters.calls.load(Ordering::Relaxed),
            commit_micros: counters.commit_micros.load(Ordering::Relaxed),
        }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.pulse.watch()
    }
}

/// Looks through a whole store for damage: what SQLite can see in the index, rows and records of attempts that cannot be
/// read, and what the index misses in the log.
/// Blocks, and needs the store for itself.
pub fn check(path: &Path) -> Result<(), StoreError> {
    let store = SqliteStore::open(SqliteOptions { path: path.to_owned(), max_bytes: u64::MAX })?;
    let (path, log) = (store.shared.options.path.clone(), store.shared.shelves.log.clone());
    // What was read back from the log is in the index then.
    drop(store);
    let _lock = schema::lock(&path)?;
    let connection = schema::open_writer(&path)?;
    let found: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    if found != "ok" {
        return Err(StoreError::Failed(found));
    }
    row::check_ids(&connection)?;
    attempts::check(&connection)?;
    listing::places(&connection, |id, place| match log.read(place)? {
        Some(_) => Ok(()),
        None => Err(StoreError::Damaged(id)),
    })
}

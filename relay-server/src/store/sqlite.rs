//! The store in one SQLite file: the default.
//!
//! ```text
//! calls ──▶ queue ──▶ writer thread: BEGIN … COMMIT (sync) ──▶ answers
//! reads ──▶ queue ──▶ reader threads, read-only
//!                     checkpoint thread: log ──▶ file
//! ```
//!
//! One process holds the file. A commit is synced before anyone is answered (`synchronous=FULL`, read back at start). A
//! write or sync that fails is never tried again: the store is failed from then on, and the process has to end.

use std::{
    future::Future,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::{oneshot, watch};

use super::{
    Act, Acted, Attempt, Backlog, Body, Bulk, BulkAction, Claimed, ClaimedEvent, ConfigChange, ConfigKind, ConfigRow,
    ConfigSets, End, Ended, EventCounts, Filter, Grant, Health, Hold, Holder, INLINE_BYTES, Lease, LeaseEnds, NewEvent,
    Outcome, OwnSignature, Page, PageRequest, Purge, Purged, Record, RefusedRow, Reply, Share, Sight, Source, Store,
    StoreError, Then, Usage, Verdict, Want, Was, error::Pulse, refused_bytes, rules,
};
use crate::{endpoint::EndpointName, spool::Spool, webhook::EventId};

mod backup;
mod ballast;
mod checkpoint;
mod content;
mod delivery;
mod fault;
mod head;
mod intake;
mod keys;
mod listing;
#[cfg_attr(not(test), expect(dead_code, reason = "the writer does not use it yet"))]
mod log;
mod marks;
mod operator_actions;
mod pending_rows;
mod post;
mod purge;
mod readers;
mod refused;
mod room;
mod row;
mod schema;
mod small;
mod writer;

#[cfg(test)]
mod tests;

use ballast::Ballast;
use checkpoint::Checkpointer;
use intake::{Chunk, Ready, Staged};
use keys::Keys;
use readers::Readers;
use room::Shares;
use row::Found;
pub use schema::resolve;
use writer::{Counters, Kind, Tx, Writer};

/// Where the store is and how large it may get.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    pub path: PathBuf,
    /// Space that it may use. At the limit what has ended gives way.
    pub max_bytes: u64,
}

/// The store in one SQLite file. Dropping it commits what is queued and closes the file.
pub struct SqliteStore {
    // The order matters: readers end, then the writer, then the lock is given up.
    readers: Readers,
    writer: Arc<Writer>,
    shared: Arc<Shared>,
    /// Where the sweep of old keys stands.
    swept: Arc<Mutex<Option<[u8; 16]>>>,
    _lock: schema::Lock,
}

/// What the store and its threads have in common.
struct Shared {
    options: SqliteOptions,
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
    /// Opens the file, or makes it. Blocks; an error says what to do.
    pub fn open(mut options: SqliteOptions) -> Result<Self, StoreError> {
        options.path = resolve(&options.path)?;
        let path = &options.path;
        let lock = schema::lock(path)?;
        let connection = schema::open_writer(path)?;
        let shared = Arc::new(Shared {
            keys: Keys::load(&connection)?,
            pulse: Pulse::default(),
            counters: Counters::default(),
            shares: ArcSwap::default(),
            spool: schema::spool(path, options.max_bytes)?,
            ballast: Ballast(schema::beside(path, "reserve")),
            options: options.clone(),
        });
        if !shared.ballast.restore() {
            tracing::warn!("the store's disk is full: events are refused until there is room");
            shared.pulse.set(Health::NoSpace);
        }
        let checkpointer = Checkpointer::start(path, Arc::clone(&shared))?;
        let readers = Readers::start(path)?;
        let writer = Arc::new(Writer::start(connection, checkpointer, Arc::clone(&shared))?);
        Ok(Self { readers, writer, shared, swept: Arc::default(), _lock: lock })
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

    /// Reads what concerns events, all of which are in the tables then.
    async fn look<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    {
        if self.shared.counters.pending.load(Ordering::Acquire) > 0 {
            match self.write(Kind::Upkeep, 0, |_| Ok(())).await {
                // Of a failed store people can still see what is in its tables.
                Ok(()) | Err(StoreError::Failed(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.read(work).await
    }

    /// Writes the chunks of a long body, each in a transaction of its own, and prepares its event.
    async fn prepare(&self, event: &NewEvent, now: Timestamp) -> Result<(Ready, Option<Staged>), StoreError> {
        let size = event.body.size();
        if size <= INLINE_BYTES {
            return Ok((intake::prepare(event, None, now)?, None));
        }
        let endpoint = event.endpoint.clone();
        if let Body::File(body) = &event.body {
            body.is_counted_elsewhere();
        }
        let blob = self.write(Kind::Intake, 0, move |tx| tx.stage(&endpoint, size)).await?;
        let staged = Staged { writer: Arc::clone(&self.writer), blob, is_kept: false };
        let mut whole = Sha256::default();
        for n in 0..size.div_ceil(intake::CHUNK_BYTES as u64) {
            let body = event.body.clone();
            // A thread that may block reads the caller's file.
            let read = self.read(move |_| {
                let chunk = Chunk::read(&body, n)?;
                whole.update(&chunk.data);
                Ok((chunk, whole))
            });
            let (chunk, so_far) = read.await?;
            whole = so_far;
            let endpoint = event.endpoint.clone();
            let put = move |tx: &mut Tx<'_>| intake::put_chunk(tx, &endpoint, blob, &chunk);
            self.write(Kind::Intake, intake::CHUNK_BYTES, put).await?;
        }
        Ok((intake::prepare(event, Some((blob, whole.finalize().into())), now)?, Some(staged)))
    }

    /// Reads what leased events carry; what is damaged is set apart.
    async fn load(&self, events: Vec<(Found, Lease)>, now: Timestamp) -> Result<Vec<ClaimedEvent>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let leased = events.clone();
        let read = self.read(move |connection| {
            let one = |(found, lease): (Found, Lease)| match content::read(connection, &found, true) {
                Err(error) if !matches!(error, StoreError::Damaged(_)) => Err(error),
                content => Ok((found.row.summary, lease, content.ok())),
            };
            events.into_iter().map(one).collect::<Result<Vec<_>, _>>()
        });
        let loaded = match read.await {
            Ok(loaded) => loaded,
            Err(error) => {
                self.give_back(leased, now).await?;
                return Err(error);
            }
        };
        let mut deliveries = Vec::new();
        for (summary, lease, content) in loaded {
            match content {
                Some(content) => {
                    deliveries.push(ClaimedEvent { summary, lease, head: content.head, body: content.body });
                }
                None => self.set_apart(summary.endpoint, summary.id, now).await?,
            }
        }
        Ok(deliveries)
    }

    /// Nobody will deliver these now.
    async fn give_back(&self, leased: Vec<(Found, Lease)>, now: Timestamp) -> Result<(), StoreError> {
        let end = |(found, lease): (Found, Lease)| End {
            endpoint: found.row.summary.endpoint,
            id: found.row.summary.id,
            attempt: Attempt {
                number: lease.attempt,
                fence: lease.fence,
                started_at: now,
                duration: Duration::ZERO,
                outcome: Outcome::NotCalled,
                agent: None,
                answer: None,
            },
            then: Then::Release(now),
        };
        self.settle(leased.into_iter().map(end).collect(), now).await?;
        Ok(())
    }

    async fn set_apart(&self, endpoint: EndpointName, id: EventId, now: Timestamp) -> Result<(), StoreError> {
        let name = endpoint.clone();
        if self.write(Kind::Upkeep, 64, move |tx| operator_actions::set_apart(tx, &endpoint, id, now)).await? {
            tracing::error!(event = %id, endpoint = %name, "an event is damaged; it is set apart and not delivered");
            self.shared.counters.damaged.fetch_add(1, Ordering::Relaxed);
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
        self.shared.shares.store(Arc::new(shares.into_iter().collect()));
    }

    fn spool(&self) -> Option<Spool> {
        Some(self.shared.spool.clone())
    }

    fn room_for_coming(&self, endpoint: EndpointName) -> Reply<'_, ()> {
        self.write(Kind::Intake, 0, move |tx| tx.admit_coming(&endpoint))
    }

    fn append(&self, events: Vec<NewEvent>, now: Timestamp) -> Reply<'_, Vec<Verdict>> {
        boxed(async move {
            rules::once_each(&events)?;
            let (mut ready, mut staged) = (Vec::with_capacity(events.len()), Vec::new());
            for event in &events {
                let (one, chunks) = self.prepare(event, now).await?;
                ready.push(one);
                staged.extend(chunks);
            }
            let bytes = ready.iter().map(Ready::bytes).sum();
            let call = self.writer.call(Kind::Intake, bytes, move |tx| {
                ready.iter().map(|event| intake::append(tx, event, now)).collect()
            });
            let verdicts = answered(call).await;
            staged.iter_mut().for_each(|chunks| chunks.is_kept = verdicts.is_ok());
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
        boxed(self.look(move |connection| listing::list(connection, &shared.keys, &filter, &page, listing::LONG)))
    }

    fn event(&self, sight: Sight, id: EventId, now: Timestamp) -> Reply<'_, Option<Record>> {
        boxed(async move {
            let read = self.look(move |connection| {
                let Some((key, found)) = listing::find(connection, &sight, id)? else { return Ok(None) };
                let attempts = content::attempts(connection, key, id)?;
                Ok(Some((content::read(connection, &found, false), found.row.summary, attempts)))
            });
            let Some((content, summary, attempts)) = read.await? else { return Ok(None) };
            if matches!(content, Err(StoreError::Damaged(_))) {
                self.set_apart(summary.endpoint.clone(), id, now).await?;
            }
            Ok(Some(Record { head: content?.head, summary, attempts }))
        })
    }

    fn body(&self, endpoint: EndpointName, id: EventId, range: Range<u64>, now: Timestamp) -> Reply<'_, Option<Bytes>> {
        boxed(async move {
            let sight = Sight::from(endpoint.clone());
            let read = self.look(move |connection| {
                let Some((_, found)) = listing::find(connection, &sight, id)? else { return Ok(None) };
                let content = content::read(connection, &found, false)?;
                content::part(connection, id, &content, range).map(Some)
            });
            let part = read.await;
            if matches!(part, Err(StoreError::Damaged(_))) {
                self.set_apart(endpoint, id, now).await?;
            }
            part
        })
    }

    fn act(&self, acts: Vec<Act>, now: Timestamp) -> Reply<'_, Vec<Acted>> {
        self.write(Kind::Upkeep, 256, move |tx| acts.iter().map(|act| operator_actions::act(tx, act, now)).collect())
    }

    fn bulk(&self, id: EventId, action: BulkAction, filter: Filter, now: Timestamp) -> Reply<'_, ()> {
        self.write(Kind::Upkeep, 256, move |tx| operator_actions::start(tx.connection, id, action, &filter, now))
    }

    fn bulk_step(&self, id: EventId, fresh: Vec<EventId>, now: Timestamp) -> Reply<'_, Bulk> {
        self.write(Kind::Upkeep, 256, move |tx| operator_actions::step(tx, id, &fresh, now))
    }

    fn bulks(&self) -> Reply<'_, Vec<Bulk>> {
        self.read(operator_actions::all)
    }

    fn purge(&self, policy: Purge, now: Timestamp) -> Reply<'_, Purged> {
        boxed(async move {
            let used = self.shared.counters.used_bytes.load(Ordering::Relaxed);
            let asked = policy.clone();
            let found = self.look(move |connection| purge::look(connection, &asked, used, now)).await?;
            let swept = Arc::clone(&self.swept);
            let remove = move |tx: &mut Tx<'_>| {
                let mut swept = swept.lock().unwrap_or_else(PoisonError::into_inner);
                purge::remove(tx, &policy, &found, &mut swept, now)
            };
            self.write(Kind::Upkeep, 256, remove).await
        })
    }

    fn reach_back(&self, reaches: Vec<(EndpointName, Duration)>, begins: Timestamp, now: Timestamp) -> Reply<'_, ()> {
        self.write(Kind::Upkeep, 64 * reaches.len(), move |tx| marks::remember(tx, &reaches, begins, now))
    }

    fn pause(&self, endpoint: EndpointName, paused: bool, now: Timestamp) -> Reply<'_, ()> {
        self.write(Kind::Upkeep, 64, move |tx| small::pause(tx, &endpoint, paused, now))
    }

    fn backlog(&self, sight: Sight) -> Reply<'_, Vec<Backlog>> {
        boxed(self.look(move |connection| small::backlog(connection, &sight)))
    }

    fn counts(&self, endpoint: EndpointName) -> Reply<'_, EventCounts> {
        boxed(self.look(move |connection| small::counts(connection, &endpoint)))
    }

    fn config(&self, kind: ConfigKind) -> Reply<'_, Vec<ConfigRow>> {
        self.read(move |connection| small::config(connection, kind))
    }

    fn configure(&self, source: Source, sets: ConfigSets, all: bool, now: Timestamp) -> Reply<'_, Vec<ConfigChange>> {
        let bytes = sets.iter().flat_map(|(_, rows)| rows).map(|(name, value)| name.len() + value.len()).sum();
        self.write(Kind::Upkeep, bytes, move |tx| small::configure(tx.connection, source, &sets, all, now))
    }

    fn unconfigure(&self, kind: ConfigKind, name: String) -> Reply<'_, bool> {
        self.write(Kind::Upkeep, 64, move |tx| small::unconfigure(tx.connection, kind, &name))
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
        self.write(Kind::Upkeep, 128, move |tx| small::remember(tx.connection, &signature, now))
    }

    fn own_signatures(&self, now: Timestamp) -> Reply<'_, Vec<OwnSignature>> {
        self.read(move |connection| small::own_signatures(connection, now))
    }

    fn refuse(&self, rows: Vec<RefusedRow>) -> Reply<'_, ()> {
        let bytes = rows.iter().map(|row| row.head.len() + row.body.len()).sum();
        let max_bytes = refused_bytes(self.shared.options.max_bytes);
        self.write(Kind::Intake, bytes, move |tx| refused::refuse(tx, &rows, max_bytes))
    }

    fn refused(&self, endpoint: Option<EndpointName>, limit: usize) -> Reply<'_, Vec<RefusedRow>> {
        self.read(move |connection| refused::refused(connection, endpoint.as_ref(), limit))
    }

    fn refused_request(&self, id: EventId) -> Reply<'_, Option<RefusedRow>> {
        self.read(move |connection| refused::request(connection, id))
    }

    fn usage(&self) -> Usage {
        let counters = &self.shared.counters;
        Usage {
            bytes: counters.used_bytes.load(Ordering::Relaxed),
            max_bytes: self.shared.options.max_bytes,
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

/// Writes a copy of the store at this path, which this process has open, to a new file.
pub(super) async fn backup(path: PathBuf, to: PathBuf) -> Result<(), StoreError> {
    answered(backup::start(resolve(&path)?, to)).await
}

/// Looks through a whole file for damage that SQLite can see. Blocks, and needs the file for itself.
pub fn check(path: &Path) -> Result<(), StoreError> {
    let path = &resolve(path)?;
    let _lock = schema::lock(path)?;
    let connection = schema::open_writer(path)?;
    let found: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(StoreError::Failed(found)) }
}

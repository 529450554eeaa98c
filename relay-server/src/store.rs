//! What must not be lost: the seam between those who decide and what is remembered.
//!
//! A [`Store`] keeps events, their attempts and the rows of endpoints, tokens and secrets. It decides nothing about
//! delivery: times, ids and the next attempt are arguments. It reads no clock and starts no call.
//!
//! ```text
//! intake ── append ──▶ ┌───────┐ ◀── claim / settle ──────── pump, delivery
//!                      │ Store │
//!    api ── list ────▶ └───────┘ ◀── act / bulk / purge ─────── command line, housekeeping
//! ```
//!
//! Invariants, shown for each implementation by one suite (`conformance`):
//! - An append that returned is durable: it survives kill -9 and, on disks that honour flush, a power cut.
//! - One holder at a time: each claim raises the event's fence, and only the newest fence settles. What an older
//!   one reports is recorded.
//! - An event is counted as attempted before anyone is told to deliver it.
//! - Of events with one order key, only the open one that was appended first is ever claimable. What was revived comes
//!   behind those that are under way.
//! - An event is never due before it was appended.
//! - What has ended gives way to what comes; what waits never does, and it alone makes a store full.
//! - What comes out was checked against the SHA-256 of what went in; a damaged event is set apart, never delivered.
//! - Every answer is bounded: pages, ranges and batches have limits, and there is a cursor to go on.

use std::{
    fmt,
    future::Future,
    ops::Range,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::{endpoint::EndpointName, spool::Spool, webhook::EventId};

mod audit;
mod error;
mod filter;
mod marks;
mod memory;
mod model;
mod outcome;
mod rows;
mod rules;
pub mod seal;
mod sqlite;
mod summary_row;
mod vault;

#[cfg(test)]
mod conformance;

pub use audit::{AuditClass, AuditFilter, AuditPage, AuditRow, audit_id};
pub use error::{Health, StoreError};
pub use filter::{Cursor, Filter, Look, Page, PageRequest, StatusRange};
pub use memory::MemoryStore;
pub use model::{
    Act, Acted, Action, Answer, Attempt, Backlog, Body, Claimed, ClaimedEvent, Dedup, End, Ended, EventCounts, Grant,
    Head, Hold, Holder, Lease, Mark, NewEvent, Record, Share, SharePool, Sight, Signature, State, Summary, Then,
    Verdict, Want,
};
pub use outcome::{Outcome, Reason};
pub use rows::{
    Bulk, BulkAction, BulkPlan, ConfigChange, ConfigKind, ConfigRow, EndpointSize, OwnSignature, Purge, PurgeCursor,
    Purged, RefusedRow, Source, TokenUse, Usage, Was,
};
pub(crate) use sqlite::queue;
pub use sqlite::{SqliteOptions, SqliteStore, check, resolve};
pub(crate) use summary_row::shown_lines;
pub use vault::Vault;
#[cfg(test)]
pub(crate) use {conformance::UnsteadyStore, summary_row::CODES_WITHOUT_REASON};

/// Largest body of an answer that is kept, in bytes.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Attempts of an event that are on record: the first one, and the last ones. What was between goes as others come.
pub const MAX_ATTEMPTS: usize = 100;

/// Bodies up to this come along with their event, in bytes; longer ones are read in ranges.
pub(crate) const INLINE_BYTES: u64 = 64 * 1024;

pub(crate) const MAX_PAGE: usize = 1000;

/// Most bytes that one call reads of a body.
pub const MAX_RANGE_BYTES: u64 = 1024 * 1024;

/// Bulk actions that are not finished, and as many finished ones that are still shown.
pub(crate) const MAX_BULKS: usize = 100;

/// Of those that are not finished, the ones of one token.
pub(crate) const MAX_BULKS_OF_ONE: usize = 10;

/// Most events of an endpoint that one claim gives, of the oldest and of the newest.
pub(crate) const MAX_CLAIM: usize = 1000;

pub const MAX_REFUSED: usize = 1000;

pub(crate) const MAX_REFUSED_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Most bytes of a refused request's body that are kept.
pub(crate) const MAX_REFUSED_BYTES: usize = 64 * 1024;

/// Most bytes that the heads and bodies of refused requests take, all together.
const MAX_REFUSED_TOTAL_BYTES: u64 = 64 * 1024 * 1024;

/// Most bytes that refused requests take in a store of this size: their senders prove nothing, and events come first.
pub fn refused_bytes(max_bytes: u64) -> u64 {
    (max_bytes / 16).min(MAX_REFUSED_TOTAL_BYTES)
}

/// The part of a store of this size that what waits of unproven senders leaves to the others: a quarter.
pub(crate) fn reserve_bytes(max_bytes: u64) -> u64 {
    max_bytes / 4
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// It ends with the process.
    Memory,
    Sqlite(PathBuf),
}

/// As it is written in a config.
impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl StoreKind {
    /// Whether what it keeps is there after a restart.
    pub(crate) fn is_durable(&self) -> bool {
        *self != Self::Memory
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Memory => None,
            Self::Sqlite(path) => Some(path),
        }
    }

    /// Opens it, or makes it, to take up to so many bytes. An error says what to do.
    pub async fn open(&self, max_bytes: u64) -> Result<Arc<dyn Store>, StoreError> {
        let Some(path) = self.path() else { return Ok(Arc::new(MemoryStore::new(max_bytes))) };
        let options = SqliteOptions { path: path.to_owned(), max_bytes };
        let opened = tokio::task::spawn_blocking(|| SqliteStore::open(options)).await;
        let store = opened.map_err(|error| StoreError::Internal(error.to_string()))??;
        Ok(Arc::new(store))
    }
}

/// Rows by name, each as its value.
pub type NamedRows = Vec<(String, String)>;
pub type ConfigSets = Vec<(ConfigKind, NamedRows)>;

/// When leases end, by endpoint.
pub type LeaseEnds = Vec<(EndpointName, Timestamp)>;

pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A memory of events. Use it as `Arc<dyn Store>`; every batch is one transaction.
///
/// A reply that is dropped does not undo its call.
pub trait Store: Send + Sync + fmt::Debug {
    /// How much each endpoint may have from now on. One that is not named may have all.
    fn set_shares(&self, shares: Vec<(EndpointName, Share)>);

    /// Where bodies that are too long for memory come into files; `None` where they stay in memory.
    fn spool(&self) -> Option<Spool>;

    /// Whether what waits leaves room for what comes into files at an endpoint, as much as is counted there now. Nobody
    /// has proven anything yet, so it leaves [`reserve_bytes`] alone; what has ended gives way.
    fn room_for_coming(&self, endpoint: EndpointName) -> Reply<'_, ()>;

    /// Takes events in, each with its own verdict, in order. Where room is needed, what has ended gives way, the oldest
    /// first: that of the endpoint where its share is used up, else that of all. What waits never does.
    ///
    /// May be made again with the same ids, where it is not known whether it was kept, and says the same then.
    fn append(&self, events: Vec<NewEvent>, now: Timestamp) -> Reply<'_, Vec<Verdict>>;

    /// Leases what is due: for each endpoint at most what it wants, the longest due first. Expired leases are due. An
    /// endpoint that is paused, or at which what waits is being skipped, gives nothing.
    fn claim(&self, wants: Vec<Want>, grant: Grant, now: Timestamp) -> Reply<'_, Claimed>;

    fn holders(&self) -> Reply<'_, Vec<Holder>>;

    /// Gives leases of holders that are gone to this one, at most [`MAX_PAGE`]: ask again until there are none. They end
    /// when they would have, but no later than `until` says for their endpoint, and `now` where it says nothing. Those of
    /// a holder that is not named stay as they are.
    fn orphans(&self, gone: Vec<Holder>, holder: Holder, until: LeaseEnds, now: Timestamp) -> Reply<'_, Vec<Hold>>;

    /// Records attempts that ended and moves their events on. An event keeps [`MAX_ATTEMPTS`] records.
    ///
    /// May be made again, where it is not known whether it was kept, and says the same for as long as the event stands
    /// where it was moved to.
    fn settle(&self, ends: Vec<End>, now: Timestamp) -> Reply<'_, Vec<Ended>>;

    /// One page of the events that the filter lets pass. A page can be short, even empty, and still have a cursor:
    /// one call looks at a bounded number of events.
    fn list(&self, filter: Filter, page: PageRequest) -> Reply<'_, Page>;

    /// One event with its head and attempts, if it is in sight. One that is found damaged is set apart at `now`.
    fn event(&self, sight: Sight, id: EventId, now: Timestamp) -> Reply<'_, Option<Record>>;

    /// A part of a body, at most [`MAX_RANGE_BYTES`]; what is past its end is left out.
    fn body(&self, endpoint: EndpointName, id: EventId, range: Range<u64>, now: Timestamp) -> Reply<'_, Option<Bytes>>;

    /// The beginnings of the last answers of events, at most so many bytes of each. At most [`MAX_PAGE`] are asked for.
    fn last_answers(&self, of: Vec<(EndpointName, EventId)>, most: usize) -> Reply<'_, Vec<Option<Bytes>>>;

    fn act(&self, acts: Vec<Act>, now: Timestamp) -> Reply<'_, Vec<Acted>>;

    /// Removes those of an endpoint's events that have ended; how many there were. At most [`MAX_PAGE`] are named.
    fn forget(&self, endpoint: EndpointName, ids: Vec<EventId>) -> Reply<'_, u64>;

    /// Notes down an action on every event that the filter lets pass and that is there now. Nothing is done yet.
    fn bulk(&self, plan: BulkPlan, now: Timestamp) -> Reply<'_, ()>;

    /// Does the next part of a bulk action, and remembers how far it came in the same transaction.
    ///
    /// At most one event is acted on for each of the `fresh` ids; a replay uses them for the new events.
    fn bulk_step(&self, id: EventId, fresh: Vec<EventId>, now: Timestamp) -> Reply<'_, Bulk>;

    /// Ends a bulk action where it stands; what is done stays done. `None` where there is none with this id.
    fn stop_bulk(&self, id: EventId) -> Reply<'_, Option<Bulk>>;

    /// The bulk actions that are not finished, and the latest finished ones, oldest first.
    fn bulks(&self) -> Reply<'_, Vec<Bulk>>;

    /// Does a bounded part of the housekeeping; call again with the cursor it returns until there is none.
    fn purge(&self, policy: Purge, now: Timestamp) -> Reply<'_, Purged>;

    /// Says for how long each endpoint remembers what was signed ([`NewEvent::mark`]); not at all is zero. What was
    /// taken while an endpoint remembered less is not known, so a late event is taken only if it was signed since. The
    /// memory of a name that is new begins at `begins`.
    fn reach_back(&self, reaches: Vec<(EndpointName, Duration)>, begins: Timestamp, now: Timestamp) -> Reply<'_, ()>;

    fn pause(&self, endpoint: EndpointName, paused: bool, now: Timestamp) -> Reply<'_, ()>;

    /// What waits, for each endpoint in sight that has events or is paused.
    fn backlog(&self, sight: Sight) -> Reply<'_, Vec<Backlog>>;

    /// How many events of an endpoint stand where.
    fn counts(&self, endpoint: EndpointName) -> Reply<'_, EventCounts>;

    /// What the events of each endpoint in sight take, for those that have any.
    fn sizes(&self, sight: Sight) -> Reply<'_, Vec<EndpointSize>>;

    /// Keeps how many webhooks tokens had on their last day, in place of what was kept of them. Those of other days are
    /// forgotten. What was noted in the last seconds may be gone after a crash.
    fn note_token_use(&self, uses: Vec<TokenUse>) -> Reply<'_, ()>;

    fn token_use(&self) -> Reply<'_, Vec<TokenUse>>;

    /// Keeps rows of the audit log. One that is there gets its result, once, and is not changed any more. At most so many
    /// bytes are kept: the oldest rows of whom has the most, of a class, give way.
    fn audit(&self, rows: Vec<AuditRow>, max_bytes: u64) -> Reply<'_, ()>;

    /// One page of the audit log. A page can be short, even empty, and still have a cursor: one call looks at a bounded
    /// number of rows.
    fn audited(&self, filter: AuditFilter) -> Reply<'_, AuditPage>;

    /// Removes a bounded number of rows of the audit log that are older; says how many.
    fn forget_audited(&self, before: Timestamp) -> Reply<'_, usize>;

    fn config(&self, kind: ConfigKind) -> Reply<'_, Vec<ConfigRow>>;

    /// Puts rows of one source in, those of all kinds or none. With `all`, rows of that source and those kinds that are
    /// not among them are removed. A name that another source has is an error, and then nothing is changed. Says what
    /// changed for each kind, in order.
    fn configure(&self, source: Source, sets: ConfigSets, all: bool, now: Timestamp) -> Reply<'_, Vec<ConfigChange>>;

    /// Removes one row; says whether it was there.
    fn unconfigure(&self, kind: ConfigKind, name: String) -> Reply<'_, bool>;

    /// Notes when rows (tokens, say) were last used.
    fn used(&self, kind: ConfigKind, names: Vec<String>, at: Timestamp) -> Reply<'_, ()>;

    /// Keeps a sealed secret, or removes it with `None`, if there is what `was` says; else nothing is changed, and that is
    /// said. The store never sees it in the clear (see [`seal`]).
    fn put_secret(
        &self,
        scope: String,
        name: String,
        sealed: Option<Bytes>,
        was: Was,
        now: Timestamp,
    ) -> Reply<'_, bool>;

    fn secret(&self, scope: String, name: String) -> Reply<'_, Option<Bytes>>;

    /// Remembers a signature that the relay made itself until it expires, and forgets those that have. Whoever makes them
    /// bounds how many there are.
    fn remember(&self, signature: OwnSignature, now: Timestamp) -> Reply<'_, ()>;

    /// Those that have not expired.
    fn own_signatures(&self, now: Timestamp) -> Reply<'_, Vec<OwnSignature>>;

    /// Keeps refused requests, at most [`MAX_REFUSED`] for an endpoint and [`refused_bytes`] in all. The oldest go first,
    /// for space those of the endpoint that has the most. Events that wait are not displaced.
    fn refuse(&self, rows: Vec<RefusedRow>) -> Reply<'_, ()>;

    /// Refused requests without their bodies, the newest first.
    fn refused(&self, endpoint: Option<EndpointName>, limit: usize) -> Reply<'_, Vec<RefusedRow>>;

    fn refused_request(&self, id: EventId) -> Reply<'_, Option<RefusedRow>>;

    /// Writes a copy of everything to a new file, and to what stands beside it, while work goes on.
    fn backup(&self, to: PathBuf) -> Reply<'_, ()>;

    fn usage(&self) -> Usage;

    /// Whether it takes events. One that is away comes back; once failed it stays failed: the process has to end and start
    /// again.
    fn health(&self) -> watch::Receiver<Health>;
}

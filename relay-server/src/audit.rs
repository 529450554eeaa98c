//! The audit log: who did what, to what, when, from where, and how it ended.
//!
//! ```text
//! API ── begin ──▶ a row, synced ──▶ the action ──▶ end ──▶ its result
//! agents, doors ── note ──▶ window ── behind ──▶ rows
//! ```
//!
//! What people and programs do through the API has its row before it begins: an action whose row cannot be kept is
//! refused. What outsiders and agents cause is noted behind, and never waited for: one row at once, and one a minute
//! with the number of those that were alike. What finds no place there is counted, and the count has a row.
//!
//! Rows have the time at which they come into the log, in the order in which they come: whoever reads on from the last
//! row that it has misses none.
//!
//! Invariants: nobody takes rows out but age and size; no row holds a secret, a body or a header; a delivery never waits
//! for a row.

mod windows;

/// What is kept is held to, for the table of all limits.
pub(crate) mod limits {
    pub(crate) use super::{
        MAX_TEXT_BYTES,
        windows::{MAX_OF_ACTOR, MAX_OUTSIDERS, MAX_ROWS, MAX_WINDOWS},
    };
}

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use self::windows::Windows;
use crate::{
    clock::Clock,
    failure::{ApiError, ApiErrorKind},
    store::{AuditClass, AuditFilter, AuditPage, AuditRow, Store, StoreError, audit_id},
    throttle::Throttle,
};

/// How long rows of what is noted behind may wait.
const ROUND: Duration = Duration::from_secs(1);

/// How often what is old is looked for.
const FORGET: Duration = Duration::from_secs(60);

/// Most bytes of an object or of details.
pub(crate) const MAX_TEXT_BYTES: usize = 1024;

/// The result of what was done.
pub(crate) const OK: &str = "ok";

static NOT_KEPT: Throttle = Throttle::new();

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuditKeep {
    pub retention: Duration,
    pub max_bytes: u64,
}

impl Default for AuditKeep {
    fn default() -> Self {
        Self { retention: Duration::from_secs(365 * 24 * 60 * 60), max_bytes: 64 << 20 }
    }
}

/// Who does something, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Actor {
    /// `admin`, `session`, `token`, `agent`, `nobody` or `relay`.
    pub kind: &'static str,
    /// The token's name, or what stands for it.
    pub name: Arc<str>,
    /// Which token.
    pub token: Option<Arc<str>>,
    pub address: Option<IpAddr>,
}

impl Actor {
    /// Who shows nothing that is known here.
    pub(crate) fn nobody(address: IpAddr) -> Self {
        Self { kind: "nobody", name: Arc::from("nobody"), token: None, address: Some(address) }
    }

    fn is_stranger(&self) -> bool {
        self.kind == "nobody"
    }

    /// The relay itself, or who asks it by a signal.
    pub(crate) fn relay() -> Self {
        Self { kind: "relay", name: Arc::from("relay"), token: None, address: None }
    }

    /// An agent by its token.
    pub(crate) fn agent(name: &Arc<str>, token: &Arc<str>, address: IpAddr) -> Self {
        Self { kind: "agent", name: Arc::clone(name), token: Some(Arc::clone(token)), address: Some(address) }
    }
}

/// Something that was done, or tried.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    pub actor: Actor,
    /// Such as `endpoint.create`.
    pub action: &'static str,
    pub object: Option<String>,
    pub detail: Option<String>,
}

impl Deed {
    pub(crate) fn new(actor: Actor, action: &'static str, object: Option<String>) -> Self {
        Self { actor, action, object, detail: None }
    }

    /// With texts that are no longer than a row's.
    fn bounded(self) -> Self {
        Self { object: self.object.map(bounded), detail: self.detail.map(bounded), ..self }
    }

    fn row(self, id: u64, class: AuditClass, result: Option<&str>) -> AuditRow {
        AuditRow {
            id,
            class,
            kind: self.actor.kind.to_owned(),
            name: self.actor.name.to_string(),
            token: self.actor.token.map(|token| token.to_string()),
            address: self.actor.address.map(|address| address.to_canonical().to_string()),
            action: self.action.to_owned(),
            object: self.object.map(bounded),
            result: result.map(str::to_owned),
            detail: self.detail.map(bounded),
            count: 1,
        }
    }
}

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}

pub(crate) struct Audit {
    store: Arc<dyn Store>,
    clock: Clock,
    keep: AuditKeep,
    last_id: AtomicU64,
    windows: Mutex<Windows>,
    /// Held while a row gets its id and its place in the store's queue.
    order: Mutex<()>,
    noted: Notify,
}

/// A deed whose row is kept, and that has no result yet.
pub(crate) struct BegunDeed {
    audit: Arc<Audit>,
    row: Option<AuditRow>,
}

impl Audit {
    pub(crate) async fn build(store: &Arc<dyn Store>, clock: &Clock, keep: AuditKeep) -> Result<Arc<Self>, StoreError> {
        // Of a clock that was set back meanwhile no row gets the id of one that is there.
        let newest = store.audited(AuditFilter { limit: 1, ..AuditFilter::default() }).await?;
        Ok(Self::after(newest.rows.first().map_or(0, |row| row.id), store, clock, keep))
    }

    fn after(last_id: u64, store: &Arc<dyn Store>, clock: &Clock, keep: AuditKeep) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            clock: clock.clone(),
            keep,
            last_id: AtomicU64::new(last_id),
            windows: Mutex::default(),
            order: Mutex::default(),
            noted: Notify::new(),
        })
    }

    /// One for tests, over a store that is new.
    #[cfg(test)]
    pub(crate) fn sample(store: &Arc<dyn Store>) -> Arc<Self> {
        Self::after(0, store, &Clock::default(), AuditKeep { retention: Duration::MAX, max_bytes: u64::MAX })
    }

    fn fresh_id(&self) -> u64 {
        let now = audit_id(self.clock.now());
        let next = |last: u64| Some(now.max(last + 1));
        let before = self.last_id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        now.max(before.unwrap_or_else(|last| last) + 1)
    }

    /// Keeps a row before the deed itself. Whoever gets an error must not do it.
    pub(crate) async fn begin(self: &Arc<Self>, deed: Deed) -> Result<BegunDeed, ApiError> {
        let (row, kept) = {
            let _in_order = self.order.lock();
            let row = deed.row(self.fresh_id(), AuditClass::Actions, None);
            (row.clone(), self.store.audit(vec![row], self.keep.max_bytes))
        };
        match kept.await {
            Ok(()) => Ok(BegunDeed { audit: Arc::clone(self), row: Some(row) }),
            Err(error) => {
                let kind = if error.is_temporary() { ApiErrorKind::Busy } else { ApiErrorKind::StoreFailed };
                let why = format!("this was not done, since the audit log cannot be written: {error}");
                Err(ApiError::new(kind, why))
            }
        }
    }

    /// Notes down what was done and is over. Nobody waits for it.
    pub(crate) fn did(&self, deed: Deed, result: &str) {
        let row = deed.row(audit_id(self.clock.now()), AuditClass::Actions, Some(result));
        self.windows.lock().push(row);
        self.noted.notify_one();
    }

    /// Notes down what agents and outsiders cause: one row, and then how many were alike in a minute.
    pub(crate) fn note(&self, class: AuditClass, deed: Deed, result: &str) {
        // The details are those of the first.
        let id = audit_id(self.clock.now());
        let is_new = self.windows.lock().note(class, deed, result, id, Instant::now());
        if is_new {
            self.noted.notify_one();
        }
    }

    pub(crate) async fn page(&self, filter: AuditFilter) -> Result<AuditPage, StoreError> {
        self.store.audited(filter).await
    }

    /// Writes what is noted, until `stop` and once more then. Removes what is old.
    pub(crate) async fn write_behind(self: Arc<Self>, stop: CancellationToken) {
        let mut forgot = Instant::now();
        loop {
            let is_last = tokio::select! {
                () = stop.cancelled() => true,
                () = self.noted.notified() => false,
                () = sleep(ROUND) => false,
            };
            let settled = self.windows.lock().take_settled();
            if !settled.is_empty() {
                self.settle(settled).await;
            }
            let rows = self.windows.lock().take(Instant::now(), is_last, audit_id(self.clock.now()));
            if !rows.is_empty() {
                self.write(rows).await;
            }
            if is_last {
                return;
            }
            if forgot.elapsed() >= FORGET {
                forgot = Instant::now();
                self.forget().await;
            }
        }
    }

    /// Writes rows that were noted, in the order in which they come here.
    async fn write(&self, rows: Vec<AuditRow>) {
        let kept = {
            let _in_order = self.order.lock();
            let dated = rows.iter().map(|row| row.clone().dated(self.fresh_id())).collect();
            self.store.audit(dated, self.keep.max_bytes)
        };
        if let Err(error) = kept.await {
            self.windows.lock().put_back(rows);
            not_kept(&error);
        }
    }

    /// Writes the results of rows that are there.
    async fn settle(&self, rows: Vec<AuditRow>) {
        if let Err(error) = self.store.audit(rows.clone(), self.keep.max_bytes).await {
            rows.into_iter().for_each(|row| self.windows.lock().push_settled(row));
            not_kept(&error);
        }
    }

    async fn forget(&self) {
        let before = self.clock.now().saturating_sub(self.keep.retention).unwrap_or(Timestamp::MIN);
        // A part of it; the rest a minute later.
        if let Err(error) = self.store.forget_audited(before).await
            && let Some(held_back) = NOT_KEPT.pass("age")
        {
            tracing::warn!(%error, held_back, "old rows of the audit log could not be removed");
        }
    }

    /// Rows that were lost, since too many came at a time.
    pub(crate) fn lost(&self) -> u64 {
        self.windows.lock().lost_in_all()
    }
}

fn not_kept(error: &StoreError) {
    if let Some(held_back) = NOT_KEPT.pass("") {
        tracing::warn!(%error, held_back, "rows of the audit log could not be written; they wait");
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl BegunDeed {
    /// Says how it ended, and to what it was done where that was not known before.
    pub(crate) async fn end(mut self, result: &str, object: Option<String>, detail: Option<String>) {
        let Some(mut row) = self.row.take() else { return };
        row.result = Some(bounded(result.to_owned()));
        row.object = row.object.or(object.map(bounded));
        row.detail = row.detail.or(detail.map(bounded));
        self.audit.settle(vec![row]).await;
    }
}

impl Drop for BegunDeed {
    /// Whoever asked has left; the deed may have been done.
    fn drop(&mut self) {
        if let Some(row) = self.row.take() {
            self.audit.windows.lock().push_settled(AuditRow { result: Some("left".to_owned()), ..row });
            self.audit.noted.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, UnsteadyStore};

    const KEEP: AuditKeep = AuditKeep { retention: Duration::from_secs(3600), max_bytes: 1 << 20 };

    fn deed(action: &'static str) -> Deed {
        Deed::new(Actor::relay(), action, Some("hub".to_owned()))
    }

    async fn rows(audit: &Audit) -> Vec<AuditRow> {
        let filter = AuditFilter { oldest_first: true, limit: 100, ..AuditFilter::default() };
        audit.page(filter).await.expect("read").rows
    }

    #[tokio::test(start_paused = true)]
    async fn a_deed_has_its_row_before_and_its_result_after() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20));
        let audit = Audit::build(&store, &Clock::default(), KEEP).await.expect("built");
        let begun = audit.begin(deed("endpoint.delete")).await.unwrap_or_else(|error| panic!("{}", error.message));
        assert_eq!(rows(&audit).await[0].result, None);
        begun.end("not_found", None, Some("2 waited".to_owned())).await;
        let row = rows(&audit).await.remove(0);
        assert_eq!((row.result.as_deref(), row.detail.as_deref()), (Some("not_found"), Some("2 waited")));
        let begun = audit.begin(deed("token.revoke")).await;
        drop(begun);
        let stop = CancellationToken::new();
        stop.cancel();
        Arc::clone(&audit).write_behind(stop).await;
        let last = rows(&audit).await.pop().expect("a row");
        assert_eq!((&*last.action, last.result.as_deref()), ("token.revoke", Some("left")));
        let again = Audit::build(&store, &Clock::default(), KEEP).await.expect("built");
        assert!(again.fresh_id() > last.id);
    }

    #[test]
    fn a_text_in_a_row_ends_at_its_bound() {
        let text = |bytes| Some("a".repeat(bytes));
        for (bytes, kept) in [(MAX_TEXT_BYTES, MAX_TEXT_BYTES), (MAX_TEXT_BYTES + 1, MAX_TEXT_BYTES)] {
            let deed = Deed { object: text(bytes), detail: text(bytes), ..deed("endpoint.delete") };
            let row = deed.row(1, AuditClass::Actions, None);
            assert_eq!([row.object, row.detail].map(|text| text.map(|text| text.len())), [Some(kept); 2]);
        }
        let whole = Deed { object: Some("ä".repeat(MAX_TEXT_BYTES)), ..deed("x") }.row(1, AuditClass::Actions, None);
        assert_eq!(whole.object.map(|text| text.len()), Some(MAX_TEXT_BYTES), "between letters");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_done_that_has_no_row_and_what_is_noted_waits() {
        let store = Arc::new(UnsteadyStore::new(Arc::new(MemoryStore::new(1 << 20))));
        let whole: Arc<dyn Store> = Arc::<UnsteadyStore>::clone(&store);
        let audit = Audit::build(&whole, &Clock::default(), KEEP).await.expect("built");
        store.leave(Timestamp::UNIX_EPOCH);
        let refused = audit.begin(deed("endpoint.delete")).await.err().expect("refused");
        assert!(refused.message.contains("not done"), "{}", refused.message);
        audit.did(deed("config.reload"), OK);
        let stop = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&audit).write_behind(stop.clone()));
        tokio::time::advance(ROUND * 3).await;
        store.come_back();
        stop.cancel();
        task.await.expect("ends");
        assert_eq!(rows(&audit).await.len(), 1);
    }
}

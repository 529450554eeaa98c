//! A store around another one, that is away when a test says so, loses the answer to a call that it has done, or takes
//! its time for it.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::oneshot;

use super::*;
use crate::{spool::Spool, store::error::Pulse};

#[derive(Debug)]
pub(crate) struct UnsteadyStore {
    inner: Arc<dyn Store>,
    is_away: AtomicBool,
    /// Answers that are still to be lost.
    losing: AtomicUsize,
    /// Calls from now on that are not even begun before somebody says so.
    held: Mutex<VecDeque<oneshot::Receiver<()>>>,
    pulse: Pulse,
}

impl UnsteadyStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            is_away: AtomicBool::new(false),
            losing: AtomicUsize::new(0),
            held: Mutex::default(),
            pulse: Pulse::default(),
        }
    }

    /// From now on calls are not even begun.
    pub(crate) fn leave(&self, since: Timestamp) {
        self.is_away.store(true, Ordering::Relaxed);
        self.pulse.set(Health::Away { since });
    }

    pub(crate) fn come_back(&self) {
        self.is_away.store(false, Ordering::Relaxed);
        self.pulse.set(Health::Ready);
    }

    /// The next calls are done, but their callers do not hear of it.
    pub(crate) fn lose_answers(&self, count: usize) {
        self.losing.store(count, Ordering::Relaxed);
    }

    /// The next call, but for those that are held already, is begun when what is returned is sent or dropped.
    pub(crate) fn hold(&self) -> oneshot::Sender<()> {
        let (begin, held) = oneshot::channel();
        self.held.lock().expect("no panic").push_back(held);
        begin
    }

    fn pass<'a, T: Send + 'a>(&'a self, call: impl FnOnce() -> Reply<'a, T> + Send + 'a) -> Reply<'a, T> {
        Box::pin(async move {
            if self.is_away.load(Ordering::Relaxed) {
                return Err(StoreError::Unavailable);
            }
            let held = self.held.lock().expect("no panic").pop_front();
            if let Some(held) = held {
                let _ = held.await;
            }
            let answer = call().await;
            let loses = |left: usize| left.checked_sub(1);
            match self.losing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, loses) {
                Ok(_) => Err(StoreError::Unavailable),
                Err(_) => answer,
            }
        })
    }
}

macro_rules! pass {
    ($($verb:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $verb(&self, $($name: $type),*) -> Reply<'_, $answer> {
            self.pass(move || self.inner.$verb($($name),*))
        })*
    };
}

impl Store for UnsteadyStore {
    pass! {
        room_for_coming(endpoint: EndpointName) -> ();
        forget(endpoint: EndpointName, ids: Vec<EventId>) -> u64;
        append(events: Vec<NewEvent>, now: Timestamp) -> Vec<Verdict>;
        claim(wants: Vec<Want>, grant: Grant, now: Timestamp) -> Claimed;
        holders() -> Vec<Holder>;
        orphans(gone: Vec<Holder>, holder: Holder, until: Vec<(EndpointName, Timestamp)>, now: Timestamp) -> Vec<Hold>;
        settle(ends: Vec<End>, now: Timestamp) -> Vec<Ended>;
        list(filter: Filter, page: PageRequest) -> Page;
        event(sight: Sight, id: EventId, now: Timestamp) -> Option<Record>;
        body(endpoint: EndpointName, id: EventId, range: Range<u64>, now: Timestamp) -> Option<Bytes>;
        act(acts: Vec<Act>, now: Timestamp) -> Vec<Acted>;
        last_answers(of: Vec<(EndpointName, EventId)>, most: usize) -> Vec<Option<Bytes>>;
        bulk(plan: BulkPlan, now: Timestamp) -> ();
        stop_bulk(id: EventId) -> Option<Bulk>;
        bulk_step(id: EventId, fresh: Vec<EventId>, now: Timestamp) -> Bulk;
        bulks() -> Vec<Bulk>;
        purge(policy: Purge, now: Timestamp) -> Purged;
        reach_back(reaches: Vec<(EndpointName, Duration)>, begins: Timestamp, now: Timestamp) -> ();
        pause(endpoint: EndpointName, paused: bool, now: Timestamp) -> ();
        backlog(sight: Sight) -> Vec<Backlog>;
        counts(endpoint: EndpointName) -> EventCounts;
        config(kind: ConfigKind) -> Vec<ConfigRow>;
        configure(source: Source, sets: Vec<(ConfigKind, NamedRows)>, all: bool, now: Timestamp) -> Vec<ConfigChange>;
        unconfigure(kind: ConfigKind, name: String) -> bool;
        used(kind: ConfigKind, names: Vec<String>, at: Timestamp) -> ();
        put_secret(scope: String, name: String, sealed: Option<Bytes>, was: Was, now: Timestamp) -> bool;
        secret(scope: String, name: String) -> Option<Bytes>;
        remember(signature: OwnSignature, now: Timestamp) -> ();
        own_signatures(now: Timestamp) -> Vec<OwnSignature>;
        refuse(rows: Vec<RefusedRow>) -> ();
        refused(endpoint: Option<EndpointName>, limit: usize) -> Vec<RefusedRow>;
        refused_request(id: EventId) -> Option<RefusedRow>;
        backup(to: PathBuf) -> ();
        sizes(sight: Sight) -> Vec<EndpointSize>;
        note_token_use(uses: Vec<TokenUse>) -> ();
        token_use() -> Vec<TokenUse>;
        audit(rows: Vec<AuditRow>, max_bytes: u64) -> ();
        audited(filter: AuditFilter) -> AuditPage;
        forget_audited(before: Timestamp) -> usize;
    }

    fn set_shares(&self, shares: Vec<(EndpointName, Share)>) {
        self.inner.set_shares(shares);
    }

    fn spool(&self) -> Option<Spool> {
        self.inner.spool()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.pulse.watch()
    }
}

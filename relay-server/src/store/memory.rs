//! A store that forgets everything with its process: for `--dev` and for tests.
//!
//! Keeps the same rules as the others behind one lock, and looks at each event where a database would use an index.
//! Refused requests and other small rows are not counted in its size. It promises no durability: what it acknowledges lives as long as the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::{
    Act, Acted, Action, AuditFilter, AuditPage, AuditRow, Backlog, Bulk, BulkPlan, Claimed, ConfigChange, ConfigKind,
    ConfigRow, End, Ended, EndpointSize, EventCounts, Filter, Grant, Health, Hold, Holder, MAX_BULKS, MAX_PAGE,
    MAX_RANGE_BYTES, MAX_REFUSED_AGE, NamedRows, NewEvent, OwnSignature, Page, PageRequest, Purge, PurgeCursor, Purged,
    Record, RefusedRow, Reply, Share, Sight, Source, State, Store, StoreError, TokenUse, Usage, Verdict, Want, Was,
    audit::{audit_id, largest},
    error::Pulse,
    marks, refused_bytes, rows, rules,
};
use crate::{endpoint::EndpointName, spool::Spool, webhook::EventId};

mod inner;
mod shelf;

use inner::Inner;
use shelf::Shelf;

/// Events that one purge call looks at.
const PURGE_STEP: usize = 500;

#[derive(Debug)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    pulse: Pulse,
    max_bytes: u64,
}

impl MemoryStore {
    pub fn new(max_bytes: u64) -> Self {
        Self { inner: Mutex::default(), pulse: Pulse::default(), max_bytes }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    fn reply<T: Send + 'static>(&self, result: Result<T, StoreError>) -> Reply<'_, T> {
        Box::pin(std::future::ready(result))
    }
}

impl Store for MemoryStore {
    fn set_shares(&self, shares: Vec<(EndpointName, Share)>) {
        self.inner().shares = shares.into_iter().collect();
    }

    fn spool(&self) -> Option<Spool> {
        None
    }

    fn room_for_coming(&self, _: EndpointName) -> Reply<'_, ()> {
        self.reply(Ok(()))
    }

    fn append(&self, events: Vec<NewEvent>, now: Timestamp) -> Reply<'_, Vec<Verdict>> {
        let verdicts = self.inner().append(events, self.max_bytes, now);
        self.reply(verdicts)
    }

    fn claim(&self, wants: Vec<Want>, grant: Grant, now: Timestamp) -> Reply<'_, Claimed> {
        let (mut claimed, mut inner) = (Claimed::default(), self.inner());
        for want in wants {
            let skips = inner.bulks.values().any(|bulk| bulk.holds_back(&want.endpoint));
            let shelf = inner.shelves.get_mut(&want.endpoint);
            let Some(shelf) = shelf.filter(|shelf| !skips && shelf.paused_at.is_none()) else { continue };
            claimed.deliveries.extend(shelf.claim(&want, grant, now));
            if let Some((due, _)) = shelf.due.first() {
                claimed.next_due.push((want.endpoint, *due));
            }
        }
        self.reply(Ok(claimed))
    }

    fn holders(&self) -> Reply<'_, Vec<Holder>> {
        let inner = self.inner();
        let held = inner.shelves.values().flat_map(|shelf| shelf.events.values()).filter_map(|kept| kept.row.held);
        self.reply(Ok(held.map(|held| held.holder).collect::<BTreeSet<_>>().into_iter().collect()))
    }

    fn orphans(
        &self,
        gone: Vec<Holder>,
        holder: Holder,
        until: Vec<(EndpointName, Timestamp)>,
        now: Timestamp,
    ) -> Reply<'_, Vec<Hold>> {
        let until: HashMap<_, _> = until.into_iter().collect();
        let mut orphans = Vec::new();
        for (endpoint, shelf) in &mut self.inner().shelves {
            let latest = until.get(endpoint).copied().unwrap_or(now);
            let taken = shelf.take_over(&gone, holder, latest, MAX_PAGE - orphans.len());
            orphans.extend(taken.map(|(id, fence)| Hold { endpoint: endpoint.clone(), id, fence }));
        }
        self.reply(Ok(orphans))
    }

    fn settle(&self, ends: Vec<End>, now: Timestamp) -> Reply<'_, Vec<Ended>> {
        let mut inner = self.inner();
        let one = |end: End| match inner.shelves.get_mut(&end.endpoint) {
            Some(shelf) => shelf.settle(rules::trimmed(end), now),
            None => Ended::Unknown,
        };
        self.reply(Ok(ends.into_iter().map(one).collect()))
    }

    fn list(&self, filter: Filter, page: PageRequest) -> Reply<'_, Page> {
        self.reply(Ok(self.inner().list(&filter, &page)))
    }

    fn event(&self, sight: Sight, id: EventId, _now: Timestamp) -> Reply<'_, Option<Record>> {
        let inner = self.inner();
        let mut shelves = inner.shelves.iter().filter(|(name, _)| sight.sees(name));
        let kept = shelves.find_map(|(_, shelf)| shelf.events.get(&id));
        self.reply(Ok(kept.map(|kept| Record {
            summary: kept.row.summary.clone(),
            head: kept.head.clone(),
            attempts: kept.attempts.values().cloned().collect(),
        })))
    }

    fn body(
        &self,
        endpoint: EndpointName,
        id: EventId,
        range: Range<u64>,
        _now: Timestamp,
    ) -> Reply<'_, Option<Bytes>> {
        let inner = self.inner();
        let kept = inner.shelves.get(&endpoint).and_then(|shelf| shelf.events.get(&id));
        self.reply(Ok(kept.map(|kept| {
            let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(kept.body.len());
            let end = range.end.min(range.start.saturating_add(MAX_RANGE_BYTES)).max(range.start);
            kept.body.slice(at(range.start)..at(end))
        })))
    }

    fn last_answers(&self, of: Vec<(EndpointName, EventId)>, most: usize) -> Reply<'_, Vec<Option<Bytes>>> {
        let inner = self.inner();
        let beginning = |(endpoint, id): &(EndpointName, EventId)| {
            let kept = inner.shelves.get(endpoint)?.events.get(id)?;
            let answer = kept.attempts.values().rev().find_map(|attempt| attempt.answer.as_ref())?;
            Some(answer.body.slice(..answer.body.len().min(most)))
        };
        self.reply(Ok(of.iter().map(beginning).collect()))
    }

    fn forget(&self, endpoint: EndpointName, ids: Vec<EventId>) -> Reply<'_, u64> {
        let mut inner = self.inner();
        let mut gone = 0;
        if let Some(shelf) = inner.shelves.get_mut(&endpoint) {
            for id in ids.iter().take(MAX_PAGE) {
                gone += u64::from(shelf.ended.contains(id) && shelf.remove(*id).is_some());
            }
        }
        self.reply(Ok(gone))
    }

    fn act(&self, acts: Vec<Act>, now: Timestamp) -> Reply<'_, Vec<Acted>> {
        let mut inner = self.inner();
        let mut ids = BTreeSet::new();
        for act in &acts {
            let Action::Replay(id, _) = act.action else { continue };
            let there = inner.shelves.get(&act.endpoint).is_some_and(|shelf| shelf.events.contains_key(&id));
            if there || !ids.insert((&act.endpoint, id)) {
                return self.reply(Err(rules::there_is_already(id)));
            }
        }
        if let Err(full) = inner.admit_replays(&acts, self.max_bytes) {
            return self.reply(Err(full));
        }
        self.reply(Ok(acts.iter().map(|act| inner.act(act, self.max_bytes, now)).collect()))
    }

    fn bulk(&self, plan: BulkPlan, now: Timestamp) -> Reply<'_, ()> {
        let (id, bulks) = (plan.id, &mut self.inner().bulks);
        let open = bulks.values().filter(|bulk| !bulk.finished && bulk.id != id).map(|bulk| bulk.by.as_deref());
        if let Err(full) = rows::admit_bulk(&plan, open) {
            return self.reply(Err(full));
        }
        bulks.entry(id).or_insert_with(|| rows::new_bulk(plan, now));
        let mut finished: Vec<_> = bulks.values().filter(|bulk| bulk.finished).map(|bulk| bulk.id).collect();
        finished.truncate(finished.len().saturating_sub(MAX_BULKS));
        finished.iter().for_each(|id| drop(bulks.remove(id)));
        self.reply(Ok(()))
    }

    fn bulk_step(&self, id: EventId, fresh: Vec<EventId>, now: Timestamp) -> Reply<'_, Bulk> {
        self.reply(self.inner().bulk_step(id, &fresh, self.max_bytes, now))
    }

    fn stop_bulk(&self, id: EventId) -> Reply<'_, Option<Bulk>> {
        let mut inner = self.inner();
        let stopped = inner.bulks.get_mut(&id).map(|bulk| {
            bulk.finished = true;
            bulk.clone()
        });
        self.reply(Ok(stopped))
    }

    fn bulks(&self) -> Reply<'_, Vec<Bulk>> {
        self.reply(Ok(self.inner().bulks.values().cloned().collect()))
    }

    fn purge(&self, policy: Purge, now: Timestamp) -> Reply<'_, Purged> {
        let (mut purged, mut inner) = (Purged::default(), self.inner());
        let number = |id: &EventId| u128::from_be_bytes(*id.as_bytes());
        let ids = |(endpoint, shelf): (&EndpointName, &Shelf)| {
            shelf.events.keys().map(|id| (*id, endpoint.clone())).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = inner.shelves.iter().flat_map(ids).collect();
        all.retain(|(id, _)| policy.cursor.is_none_or(|after| number(id) > after.0));
        all.sort();
        purged.next = all.get(PURGE_STEP - 1).map(|(id, _)| PurgeCursor(number(id)));
        for (id, endpoint) in all.into_iter().take(PURGE_STEP) {
            let bytes = inner.bytes();
            let Some(shelf) = inner.shelves.get_mut(&endpoint) else { continue };
            let remove = match shelf.events[&id].row.summary.settled_at {
                None => {
                    purged.expired += u64::from(shelf.expire(id, policy.pending_retention, now));
                    continue;
                }
                Some(settled) if rules::is_over(settled, policy.retention, now) => &mut purged.removed,
                Some(_) if bytes > policy.max_bytes => &mut purged.evicted,
                Some(_) => continue,
            };
            *remove += 1;
            shelf.remove(id);
        }
        if purged.next.is_none() {
            inner.shelves.values_mut().for_each(|shelf| shelf.marks.retain(|_, taken| taken.good_until > now));
            let before = now.saturating_sub(MAX_REFUSED_AGE).unwrap_or(Timestamp::MIN);
            inner.refused.values_mut().for_each(|log| log.retain(|_, row| row.at > before));
        }
        self.reply(Ok(purged))
    }

    fn reach_back(&self, reaches: Vec<(EndpointName, Duration)>, begins: Timestamp, now: Timestamp) -> Reply<'_, ()> {
        let mut inner = self.inner();
        for (endpoint, reach) in reaches {
            let shelf = inner.shelves.entry(endpoint).or_default();
            shelf.memory = Some(marks::MarkMemory::revised(shelf.memory, reach, begins, now));
        }
        drop(inner);
        self.reply(Ok(()))
    }

    fn pause(&self, endpoint: EndpointName, paused: bool, now: Timestamp) -> Reply<'_, ()> {
        self.inner().shelves.entry(endpoint).or_default().paused_at = paused.then_some(now);
        self.reply(Ok(()))
    }

    fn backlog(&self, sight: Sight) -> Reply<'_, Vec<Backlog>> {
        let one = |(endpoint, shelf): (&EndpointName, &Shelf)| Backlog {
            endpoint: endpoint.clone(),
            paused: shelf.paused_at.is_some(),
            open: shelf.open.len() as u64,
            oldest: shelf.open.first().map(|id| shelf.events[id].row.summary.received_at),
            next_due: shelf.due.first().map(|(due, _)| *due),
            newest: shelf.events.last_key_value().map(|(_, kept)| kept.row.summary.received_at),
        };
        let shown = |(name, shelf): &(&EndpointName, &Shelf)| {
            sight.sees(name) && (shelf.paused_at.is_some() || !shelf.events.is_empty())
        };
        self.reply(Ok(self.inner().shelves.iter().filter(shown).map(one).collect()))
    }

    fn counts(&self, endpoint: EndpointName) -> Reply<'_, EventCounts> {
        let mut counts = EventCounts::default();
        if let Some(shelf) = self.inner().shelves.get(&endpoint) {
            counts.paused_at = shelf.paused_at;
            for kept in shelf.events.values() {
                match kept.row.summary.state {
                    State::Pending => counts.pending += 1,
                    State::Running => counts.running += 1,
                    State::Dead => counts.dead += 1,
                    State::Delivered | State::Dropped | State::Damaged => {}
                }
            }
        }
        self.reply(Ok(counts))
    }

    fn sizes(&self, sight: Sight) -> Reply<'_, Vec<EndpointSize>> {
        let one = |(endpoint, shelf): (&EndpointName, &Shelf)| EndpointSize {
            endpoint: endpoint.clone(),
            waiting: shelf.open_bytes,
            ended: shelf.ended_bytes,
        };
        let inner = self.inner();
        let shown = inner.shelves.iter().filter(|(name, shelf)| sight.sees(name) && !shelf.events.is_empty());
        self.reply(Ok(shown.map(one).collect()))
    }

    fn note_token_use(&self, uses: Vec<TokenUse>) -> Reply<'_, ()> {
        let kept = &mut self.inner().token_use;
        let newest = uses.iter().map(|one| one.day).max().unwrap_or_default();
        kept.extend(uses.into_iter().map(|one| (one.token.clone(), one)));
        kept.retain(|_, one| one.day >= newest);
        self.reply(Ok(()))
    }

    fn token_use(&self) -> Reply<'_, Vec<TokenUse>> {
        self.reply(Ok(self.inner().token_use.values().cloned().collect()))
    }

    fn audit(&self, rows: Vec<AuditRow>, max_bytes: u64) -> Reply<'_, ()> {
        let log = &mut self.inner().audit;
        for row in rows {
            if log.get(&row.id).is_none_or(|there| there.result.is_none()) {
                log.insert(row.id, row);
            }
        }
        let mut kept = BTreeMap::<_, u64>::new();
        log.values().for_each(|row| *kept.entry(row.holder()).or_default() += row.bytes());
        while kept.values().sum::<u64>() > max_bytes {
            let Some(largest) = largest(&kept).cloned() else { break };
            let oldest = log.values().find(|row| row.holder() == largest).map(|row| row.id);
            let Some(oldest) = oldest.and_then(|id| log.remove(&id)) else { break };
            *kept.entry(largest).or_default() -= oldest.bytes();
        }
        self.reply(Ok(()))
    }

    fn audited(&self, filter: AuditFilter) -> Reply<'_, AuditPage> {
        let (inner, (from, to)) = (self.inner(), filter.range());
        if from > to {
            return self.reply(Ok(AuditPage::default()));
        }
        let rows = inner.audit.range(from..=to).map(|(_, row)| row).filter(|row| filter.passes(row));
        let rows: Vec<_> = if filter.oldest_first {
            rows.take(filter.limit()).cloned().collect()
        } else {
            rows.rev().take(filter.limit()).cloned().collect()
        };
        let next = rows.last().filter(|_| rows.len() == filter.limit()).map(|row| row.id);
        self.reply(Ok(AuditPage { rows, next }))
    }

    fn forget_audited(&self, before: Timestamp) -> Reply<'_, usize> {
        let log = &mut self.inner().audit;
        let kept = log.split_off(&audit_id(before));
        let removed = std::mem::replace(log, kept).len();
        self.reply(Ok(removed))
    }

    fn config(&self, kind: ConfigKind) -> Reply<'_, Vec<ConfigRow>> {
        let inner = self.inner();
        let rows = inner.config.iter().filter(|((of, _), _)| *of == kind).map(|(_, row)| row.clone());
        self.reply(Ok(rows.collect()))
    }

    fn configure(
        &self,
        source: Source,
        sets: Vec<(ConfigKind, NamedRows)>,
        all: bool,
        now: Timestamp,
    ) -> Reply<'_, Vec<ConfigChange>> {
        let mut inner = self.inner();
        let rows = |kind| inner.config.iter().filter(move |((of, _), _)| *of == kind).map(|(_, row)| row.clone());
        let plan = |(kind, set): &(_, NamedRows)| rows::plan(&rows(*kind).collect::<Vec<_>>(), source, set, all);
        let changes = match sets.iter().map(plan).collect::<Result<Vec<_>, _>>() {
            Ok(changes) => changes,
            Err(clash) => return self.reply(Err(clash)),
        };
        for ((kind, set), change) in sets.into_iter().zip(&changes) {
            for name in &change.removed {
                inner.config.remove(&(kind, name.clone()));
            }
            for (name, value) in set.into_iter().filter(|(name, _)| change.touches(name)) {
                inner.revision += 1;
                let revision = inner.revision;
                let used_at = inner.config.get(&(kind, name.clone())).and_then(|row| row.used_at);
                let made_at = inner.config.get(&(kind, name.clone())).map_or(now, |row| row.made_at);
                let row = ConfigRow { name: name.clone(), source, value, revision, updated_at: now, made_at, used_at };
                inner.config.insert((kind, name), row);
            }
        }
        self.reply(Ok(changes))
    }

    fn unconfigure(&self, kind: ConfigKind, name: String) -> Reply<'_, bool> {
        self.reply(Ok(self.inner().config.remove(&(kind, name)).is_some()))
    }

    fn used(&self, kind: ConfigKind, names: Vec<String>, at: Timestamp) -> Reply<'_, ()> {
        let mut inner = self.inner();
        for name in names {
            if let Some(row) = inner.config.get_mut(&(kind, name)) {
                row.used_at = row.used_at.max(Some(at));
            }
        }
        self.reply(Ok(()))
    }

    fn put_secret(
        &self,
        scope: String,
        name: String,
        sealed: Option<Bytes>,
        was: Was,
        _now: Timestamp,
    ) -> Reply<'_, bool> {
        let (secrets, place) = (&mut self.inner().secrets, (scope, name));
        let puts = was == Was::Anything || !secrets.contains_key(&place);
        match sealed {
            Some(sealed) if puts => drop(secrets.insert(place, sealed)),
            None if puts => drop(secrets.remove(&place)),
            _ => {}
        }
        self.reply(Ok(puts))
    }

    fn secret(&self, scope: String, name: String) -> Reply<'_, Option<Bytes>> {
        self.reply(Ok(self.inner().secrets.get(&(scope, name)).cloned()))
    }

    fn remember(&self, signature: OwnSignature, now: Timestamp) -> Reply<'_, ()> {
        let mut inner = self.inner();
        let own = &mut inner.own_signatures;
        own.retain(|_, expires_at| *expires_at > now);
        let expires_at = own.entry(signature.digest).or_insert(signature.expires_at);
        *expires_at = signature.expires_at.max(*expires_at);
        drop(inner);
        self.reply(Ok(()))
    }

    fn own_signatures(&self, now: Timestamp) -> Reply<'_, Vec<OwnSignature>> {
        let inner = self.inner();
        let own = inner.own_signatures.iter().filter(|(_, expires_at)| **expires_at > now);
        self.reply(Ok(own
            .map(|(digest, expires_at)| OwnSignature { digest: *digest, expires_at: *expires_at })
            .collect()))
    }

    fn refuse(&self, rows: Vec<RefusedRow>) -> Reply<'_, ()> {
        let mut inner = self.inner();
        let open: u64 = inner.shelves.values().map(|shelf| shelf.open_bytes).sum();
        if open.saturating_add(rows.iter().map(RefusedRow::bytes).sum()) > self.max_bytes {
            return self.reply(Err(StoreError::AtCapacity));
        }
        rows.into_iter().for_each(|row| inner.refuse(row, refused_bytes(self.max_bytes)));
        self.reply(Ok(()))
    }

    fn refused(&self, endpoint: Option<EndpointName>, limit: usize) -> Reply<'_, Vec<RefusedRow>> {
        let inner = self.inner();
        let logs = inner.refused.iter().filter(|(name, _)| endpoint.as_ref().is_none_or(|only| *name == only));
        let mut rows: Vec<_> = logs.flat_map(|(_, log)| log.values()).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.id));
        rows.truncate(limit.min(MAX_PAGE));
        let headed = |row: &RefusedRow| RefusedRow { body: Bytes::new(), ..row.clone() };
        self.reply(Ok(rows.into_iter().map(headed).collect()))
    }

    fn refused_request(&self, id: EventId) -> Reply<'_, Option<RefusedRow>> {
        let inner = self.inner();
        let found = inner.refused.values().find_map(|log| log.get(&id)).cloned();
        self.reply(Ok(found))
    }

    fn backup(&self, _to: PathBuf) -> Reply<'_, ()> {
        let nothing = "a store in memory has nothing to back up; use sqlite:FILE";
        self.reply(Err(StoreError::Invalid(nothing.into())))
    }

    fn usage(&self) -> Usage {
        let inner = self.inner();
        let waiting_bytes = inner.shelves.values().map(|shelf| shelf.open_bytes).sum();
        Usage { bytes: inner.bytes(), max_bytes: self.max_bytes, waiting_bytes, ..Usage::default() }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.pulse.watch()
    }
}

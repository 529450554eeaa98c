//! What the store in memory has behind its lock, and what its larger verbs do with it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    super::{
        Act, Acted, Action, AuditRow, Bulk, ConfigKind, ConfigRow, Cursor, Filter, Look, MAX_PAGE, MAX_REFUSED,
        MAX_REFUSED_BYTES, NewEvent, Page, PageRequest, RefusedRow, Share, StoreError, Summary, TokenUse, Verdict,
        rows,
        rules::{self, WaitingBytes},
        summary_row::Carried,
    },
    shelf::{self, Kept, Shelf},
};
use crate::{endpoint::EndpointName, webhook::EventId};

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) shelves: BTreeMap<EndpointName, Shelf>,
    pub(super) shares: HashMap<EndpointName, Share>,
    pub(super) bulks: BTreeMap<EventId, Bulk>,
    pub(super) config: BTreeMap<(ConfigKind, String), ConfigRow>,
    pub(super) revision: u64,
    pub(super) secrets: BTreeMap<(String, String), Bytes>,
    pub(super) refused: BTreeMap<EndpointName, BTreeMap<EventId, RefusedRow>>,
    pub(super) own_signatures: BTreeMap<[u8; 32], Timestamp>,
    pub(super) token_use: BTreeMap<String, TokenUse>,
    pub(super) audit: BTreeMap<u64, AuditRow>,
}

impl Inner {
    /// All of them or, with an error, none.
    pub(super) fn append(
        &mut self,
        events: Vec<NewEvent>,
        max_bytes: u64,
        now: Timestamp,
    ) -> Result<Vec<Verdict>, StoreError> {
        let mut coming: BTreeMap<EndpointName, u64> = BTreeMap::new();
        rules::once_each(&events)?;
        let mut bodies = Vec::with_capacity(events.len());
        for event in &events {
            let shelf = self.shelves.get(&event.endpoint);
            let there = shelf.and_then(|shelf| shelf.events.get(&event.id));
            let unreadable = |error| StoreError::Invalid(format!("the body cannot be read: {error}"));
            let whole = usize::try_from(event.body.size()).map_err(|_| StoreError::AtCapacity)?;
            // What cannot be kept is not read either.
            let cost = shelf::cost(&event.head, event.body.size());
            self.admit(&event.endpoint, cost, &coming, max_bytes).or_else(|full| {
                let repeats = |shelf: &&Shelf| there.is_some() || shelf.may_repeat(event);
                shelf.filter(repeats).map(|_| ()).ok_or(full)
            })?;
            let body = event.body.part(0, whole).map_err(unreadable)?;
            let sha = rules::sha256(&body);
            if let Some(kept) = there {
                kept.row.accepted_before(&sha)?;
            } else if !shelf.is_some_and(|shelf| shelf.repeats(event, &sha, now)) {
                self.admit(&event.endpoint, cost, &coming, max_bytes)?;
                *coming.entry(event.endpoint.clone()).or_default() += cost;
            }
            bodies.push((body, sha));
        }
        let one = |(event, (body, sha)): (NewEvent, (Bytes, [u8; 32]))| {
            let endpoint = event.endpoint.clone();
            let verdict = self.shelves.entry(endpoint.clone()).or_default().append(event, body, sha, now);
            self.give_way(&endpoint, max_bytes);
            verdict
        };
        Ok(events.into_iter().zip(bodies).map(one).collect())
    }

    pub(super) fn share(&self, endpoint: &EndpointName) -> Share {
        self.shares.get(endpoint).copied().unwrap_or_default()
    }

    /// The endpoints that share a pool with one that has this share.
    pub(super) fn pooled(&self, share: Share) -> impl Iterator<Item = &EndpointName> {
        let number = share.pool.map(|pool| pool.number);
        let same = move |other: &Share| number.is_some() && other.pool.map(|pool| pool.number) == number;
        self.shares.iter().filter(move |(_, other)| same(other)).map(|(name, _)| name)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shelves.values().map(|shelf| shelf.open_bytes + shelf.ended_bytes).sum()
    }

    /// Whether what waits, and what is coming with this event, leaves room for it.
    pub(super) fn admit(
        &self,
        endpoint: &EndpointName,
        cost: u64,
        coming: &BTreeMap<EndpointName, u64>,
        max_bytes: u64,
    ) -> Result<(), StoreError> {
        let waits = |name: &EndpointName| {
            let there = self.shelves.get(name).map_or(0, |shelf| shelf.open_bytes);
            there + coming.get(name).copied().unwrap_or_default()
        };
        let share = self.share(endpoint);
        let (own, pooled) = (waits(endpoint), self.pooled(share).map(waits).sum());
        let all = self.shelves.values().map(|shelf| shelf.open_bytes).chain(coming.values().copied()).sum::<u64>();
        rules::fits(share, cost, WaitingBytes { own, pooled, all }, max_bytes)?;
        if all.saturating_add(cost) > max_bytes { Err(StoreError::AtCapacity) } else { Ok(()) }
    }

    /// Removes what has ended, the oldest first, until the endpoint keeps its share and all of them the limit.
    pub(super) fn give_way(&mut self, endpoint: &EndpointName, max_bytes: u64) {
        let share = self.share(endpoint);
        if let Some(shelf) = self.shelves.get_mut(endpoint) {
            while shelf.open_bytes + shelf.ended_bytes > share.max_bytes
                && let Some(oldest) = shelf.ended.first().copied()
            {
                shelf.remove(oldest);
            }
        }
        let pooled: Vec<_> = self.pooled(share).cloned().collect();
        let sum = |inner: &Self| {
            let shelves = pooled.iter().filter_map(|name| inner.shelves.get(name));
            shelves.map(|shelf| shelf.open_bytes + shelf.ended_bytes).sum::<u64>()
        };
        while share.pool.is_some_and(|pool| sum(self) > pool.max_bytes) {
            let ended = |name: &EndpointName| Some((*self.shelves.get(name)?.ended.first()?, name.clone()));
            let Some((oldest, name)) = pooled.iter().filter_map(ended).min() else { break };
            if let Some(shelf) = self.shelves.get_mut(&name) {
                shelf.remove(oldest);
            }
        }
        while self.bytes() > max_bytes {
            let oldest = |shelf: &&mut Shelf| shelf.ended.first().copied();
            let shelves = self.shelves.values_mut().filter(|shelf| !shelf.ended.is_empty());
            let Some(shelf) = shelves.min_by_key(oldest) else { break };
            if let Some(oldest) = shelf.ended.first().copied() {
                shelf.remove(oldest);
            }
        }
    }

    pub(super) fn list(&self, filter: &Filter, page: &PageRequest) -> Page {
        let mut passing: Vec<&Kept> = self.shelves.values().flat_map(|shelf| shelf.events.values()).collect();
        passing.sort_by_key(|kept| kept.row.summary.id);
        if !page.oldest_first {
            passing.reverse();
        }
        let after = |id: EventId| match &page.after {
            Some(Cursor(last)) if page.oldest_first => id > *last,
            Some(Cursor(last)) => id < *last,
            None => true,
        };
        let limit = page.limit.clamp(1, MAX_PAGE);
        let mut looked = Look::default();
        let seen = passing.into_iter().filter(|kept| after(kept.row.summary.id));
        let passing = seen.inspect(|kept| looked.at(&kept.row.summary)).filter(|kept| passes(filter, kept));
        let events: Vec<_> = passing.take(limit).map(|kept| kept.row.summary.clone()).collect();
        let next = events.last().filter(|_| events.len() == limit).map(|event| Cursor(event.id));
        Page { events, next, looked }
    }

    pub(super) fn admit_replays(&self, acts: &[Act], max_bytes: u64) -> Result<(), StoreError> {
        let mut coming = BTreeMap::new();
        for act in acts.iter().filter(|act| matches!(act.action, Action::Replay(..))) {
            let original = self.shelves.get(&act.endpoint).and_then(|shelf| shelf.events.get(&act.id));
            let Some(original) = original else { continue };
            let cost = shelf::cost(&original.head, original.row.summary.size);
            self.admit(&act.endpoint, cost, &coming, max_bytes)?;
            *coming.entry(act.endpoint.clone()).or_default() += cost;
        }
        Ok(())
    }

    pub(super) fn act(&mut self, act: &Act, max_bytes: u64, now: Timestamp) -> Acted {
        let Some(shelf) = self.shelves.get_mut(&act.endpoint) else { return Acted::Unknown };
        let acted = shelf.act(act, now);
        self.give_way(&act.endpoint, max_bytes);
        acted
    }

    pub(super) fn bulk_step(
        &mut self,
        id: EventId,
        fresh: &[EventId],
        max_bytes: u64,
        now: Timestamp,
    ) -> Result<Bulk, StoreError> {
        let mut bulk = self.bulks.get(&id).cloned().ok_or(StoreError::Unknown(id))?;
        if bulk.finished || fresh.is_empty() {
            return Ok(bulk);
        }
        let request = PageRequest { limit: bulk.step(fresh.len()), after: bulk.cursor.clone(), oldest_first: true };
        let page = self.list(&rows::until_created(&bulk), &request);
        let act = |(event, fresh): (&Summary, &EventId)| {
            let action = rows::single(bulk.action, *fresh);
            Act { endpoint: event.endpoint.clone(), id: event.id, action }
        };
        let acts: Vec<Act> = page.events.iter().zip(fresh).map(act).collect();
        self.admit_replays(&acts, max_bytes)?;
        for act in &acts {
            match self.act(act, max_bytes, now) {
                Acted::Done => bulk.done += 1,
                _ => bulk.skipped += 1,
            }
        }
        bulk.stepped(page.next);
        self.bulks.insert(id, bulk.clone());
        Ok(bulk)
    }

    pub(super) fn refuse(&mut self, mut row: RefusedRow, max_bytes: u64) {
        row.body.truncate(MAX_REFUSED_BYTES);
        let log = self.refused.entry(row.endpoint.clone()).or_default();
        log.entry(row.id).or_insert(row);
        if log.len() > MAX_REFUSED {
            log.pop_first();
        }
        let bytes = |log: &BTreeMap<EventId, RefusedRow>| log.values().map(RefusedRow::bytes).sum::<u64>();
        while self.refused.values().map(bytes).sum::<u64>() > max_bytes {
            let Some(largest) = self.refused.values_mut().max_by_key(|log| bytes(log)) else { break };
            largest.pop_first();
        }
    }
}

/// Whether an event passes.
pub(super) fn passes(filter: &Filter, kept: &Kept) -> bool {
    let last = || kept.attempts.values().rev().find_map(|attempt| attempt.answer.clone());
    filter.passes(&kept.row.summary, &mut Carried::new(|| Some((kept.head.clone(), kept.body.clone())), last))
}

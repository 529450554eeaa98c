//! Room for new events: how much of the store each endpoint takes, and what gives way.
//!
//! Ended events give way to new ones, the oldest first, in the transaction that needs the room: a store that is full of
//! ended events takes new ones without a pause. Events that wait never give way, so only they fill a store, an
//! endpoint's share of it, or all of it but the reserve.
//!
//! While there is room, no table is looked at for this. The store counts along what events take, by endpoint, apart for
//! those that wait and those that ended, and writes the sums in the transaction that changed them. Invariant: whatever
//! writes or removes a row of `event` counts it ([`Tx::count`]); a long body that comes in counts as waiting from its
//! beginning.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Shared, purge, row::Found, schema::PAGE_BYTES, writer::Tx};
use crate::{
    endpoint::EndpointName,
    spool::Spool,
    store::{
        INLINE_BYTES, Share, StoreError,
        rules::{self, Row},
    },
    webhook::EventId,
};

const LOOK: usize = 32;

/// So much more than is needed is made, so that not every append has to: a sixty-fourth of a small store.
const MARGIN_BYTES: u64 = 256 * 1024;

/// Pages that the tables and indexes themselves may want, beside those of the content.
const SPARE_PAGES: u64 = 8;

/// Chunks that are removed at a time while somebody waits: 4 MiB.
const CHUNKS: usize = 16;

/// What fits in a page beside its own head.
const LEAF_BYTES: u64 = PAGE_BYTES - 42;

/// What a page of an overlong row holds.
const OVERFLOW_BYTES: u64 = PAGE_BYTES - 4;

/// The least that an overlong row leaves in its table's page.
const REST_BYTES: u64 = 1003;

/// An event's rows in `event` and `key`, with their indexes, and what stands beside its head and body.
const ROW_BYTES: u64 = 400;

/// What stands beside a chunk or an attempt's answer.
const BESIDE_BYTES: u64 = 150;

/// The endpoints' shares, as the store was last told.
pub(super) type Shares = HashMap<EndpointName, Share>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) open: u64,
    pub(super) ended: u64,
}

impl Sum {
    pub(super) fn of(row: &Row) -> Self {
        let (open, ended) = if row.summary.state.is_open() { (row.cost, 0) } else { (0, row.cost) };
        Self { open, ended }
    }

    fn changed(self, before: Self, after: Self) -> Self {
        let change = |sum: u64, before: u64, after: u64| sum.saturating_add(after).saturating_sub(before);
        Self { open: change(self.open, before.open, after.open), ended: change(self.ended, before.ended, after.ended) }
    }
}

/// What is known of all endpoints between transactions.
#[derive(Default)]
pub(super) struct Sums {
    by_endpoint: BTreeMap<i64, Sum>,
    total: Sum,
}

impl Sums {
    /// Reads what was counted. Long bodies that were coming in when the last process ended come no more.
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let forgotten = connection.execute_batch(
            "BEGIN IMMEDIATE; \
             UPDATE endpoint SET open_bytes = max(0, open_bytes - (SELECT coalesce(sum(cost), 0) FROM staging \
             WHERE staging.endpoint = endpoint.key)) WHERE key IN (SELECT endpoint FROM staging WHERE cost > 0); \
             UPDATE staging SET cost = 0 WHERE cost > 0; \
             COMMIT",
        );
        match forgotten.map_err(StoreError::from) {
            // There is no room to note that down: until the next start they are counted.
            Err(StoreError::NoSpace) => drop(connection.execute_batch("ROLLBACK")),
            other => other?,
        }
        let mut sums = Self::default();
        let mut query = connection.prepare("SELECT key, open_bytes, ended_bytes FROM endpoint")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let sum = Sum { open: row.get(1)?, ended: row.get(2)? };
            sums.total = sums.total.changed(Sum::default(), sum);
            sums.by_endpoint.insert(row.get(0)?, sum);
        }
        Ok(sums)
    }

    /// The transaction is committed.
    pub(super) fn publish(&mut self, room: Room) {
        self.by_endpoint.extend(room.changed);
        self.total = room.total;
    }
}

/// What an open transaction knows of the room, and what it changes.
pub(super) struct Room {
    max_bytes: u64,
    /// The file cannot grow: only pages that are free inside of it can be had.
    pub(super) is_disk_full: bool,
    shares: Arc<Shares>,
    /// What comes into files, which nobody has proven yet.
    spool: Spool,
    /// Bytes in use before this transaction, and those that it asked for.
    used_bytes: u64,
    asked_bytes: u64,
    changed: BTreeMap<i64, Sum>,
    total: Sum,
    /// Whether a call was refused: then its error is not the disk's.
    pub(super) has_refused: bool,
}

impl Room {
    pub(super) fn new(sums: &Sums, shared: &Shared) -> Self {
        Self {
            max_bytes: shared.options.max_bytes,
            is_disk_full: shared.pulse.is_full(),
            shares: shared.shares.load_full(),
            spool: shared.spool.clone(),
            used_bytes: shared.counters.used_bytes.load(Ordering::Relaxed),
            asked_bytes: 0,
            changed: BTreeMap::new(),
            total: sums.total,
            has_refused: false,
        }
    }

    fn share(&self, endpoint: &EndpointName) -> Share {
        self.shares.get(endpoint).copied().unwrap_or_default()
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut update =
            connection.prepare_cached("UPDATE endpoint SET open_bytes = ?2, ended_bytes = ?3 WHERE key = ?1")?;
        for (key, sum) in &self.changed {
            update.execute(params![key, sum.open, sum.ended])?;
        }
        Ok(())
    }
}

impl Tx<'_> {
    fn sum(&self, key: i64) -> Sum {
        let known = || self.known.sums.by_endpoint.get(&key).copied();
        self.room.changed.get(&key).copied().or_else(known).unwrap_or_default()
    }

    pub(super) fn change(&mut self, key: i64, before: Sum, after: Sum) {
        if before != after {
            let sum = self.sum(key).changed(before, after);
            self.room.changed.insert(key, sum);
            self.room.total = self.room.total.changed(before, after);
        }
    }

    /// Counts an event as it stands now in place of how it stood when it was last counted.
    pub(super) fn count(&mut self, key: i64, found: &mut Found) {
        let now = Sum::of(&found.row);
        self.change(key, found.counted, now);
        found.counted = now;
    }

    /// Whether what waits leaves room for an event of this size. Nothing has given way yet.
    pub(super) fn admit(&mut self, endpoint: &EndpointName, key: i64, bytes: u64) -> Result<(), StoreError> {
        let (share, own, all) = (self.room.share(endpoint), self.sum(key).open, self.room.total.open);
        let fits = rules::fits(share, bytes, own, all, self.room.max_bytes);
        self.room.has_refused |= fits.is_err();
        fits
    }

    /// Whether what waits leaves room for what comes into files at an endpoint. What has ended gives way to it.
    pub(super) fn admit_coming(&mut self, endpoint: &EndpointName) -> Result<(), StoreError> {
        let own = self.endpoint(endpoint)?.map_or(0, |key| self.sum(key).open);
        let (all_coming, own_coming) = self.room.spool.coming(endpoint);
        let share = Share { is_proven: false, ..self.room.share(endpoint) };
        let all = self.room.total.open.saturating_add(all_coming);
        let fits = rules::fits(share, 0, own.saturating_add(own_coming), all, self.room.max_bytes);
        let fits = if self.room.is_disk_full { Err(StoreError::NoSpace) } else { fits };
        self.room.has_refused |= fits.is_err();
        fits?;
        self.make_space(0)
    }

    /// Makes room for an event of this size, within its endpoint's share and in the file.
    pub(super) fn make_room(&mut self, endpoint: &EndpointName, key: i64, bytes: u64) -> Result<(), StoreError> {
        self.admit(endpoint, key, bytes)?;
        self.keep_share(endpoint, key, bytes)?;
        self.make_space(bytes)
    }

    /// What an endpoint has beyond its share gives way, as far as it has ended; not much more than is to come.
    pub(super) fn keep_share(&mut self, endpoint: &EndpointName, key: i64, bytes: u64) -> Result<(), StoreError> {
        let (share, own) = (self.room.share(endpoint), self.sum(key));
        let excess = own.open.saturating_add(own.ended).saturating_add(bytes).saturating_sub(share.max_bytes);
        let mut wanted = excess.min(bytes.saturating_add(MARGIN_BYTES));
        while wanted > 0 {
            let removed = self.evict(Some(key), wanted)?;
            if removed == 0 {
                break;
            }
            wanted = wanted.saturating_sub(removed);
        }
        Ok(())
    }

    /// Makes so much space in the file, of whatever has ended.
    pub(super) fn make_space(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.room.asked_bytes = self.room.asked_bytes.saturating_add(bytes.saturating_mul(2));
        let coming = self.room.spool.all_coming();
        let at_most = self.room.used_bytes.saturating_add(self.room.asked_bytes).saturating_add(coming);
        if !self.room.is_disk_full && at_most <= self.room.max_bytes {
            return Ok(());
        }
        let margin = MARGIN_BYTES.min(self.room.max_bytes / 64);
        loop {
            let (all, free) = pages(self.connection)?;
            let is_inside = !self.room.is_disk_full || free >= bytes.div_ceil(PAGE_BYTES) + SPARE_PAGES;
            let used = (all.saturating_sub(free) * PAGE_BYTES).saturating_add(coming);
            if is_inside && used.saturating_add(bytes) <= self.room.max_bytes {
                return Ok(());
            }
            if purge::sweep_chunks(self, CHUNKS)? || self.evict(None, bytes.saturating_add(margin))? > 0 {
                continue;
            }
            self.room.has_refused = true;
            return Err(if self.room.is_disk_full { StoreError::NoSpace } else { StoreError::AtCapacity });
        }
    }

    /// Removes some of the oldest ended events, of one endpoint or of all; how many bytes they took.
    fn evict(&mut self, of: Option<i64>, wanted: u64) -> Result<u64, StoreError> {
        let mut removed = 0;
        for (id, key) in self.oldest_ended(of)? {
            removed += purge::delete(self, key, id)?.unwrap_or(0);
            if removed >= wanted {
                break;
            }
        }
        Ok(removed)
    }

    fn oldest_ended(&self, of: Option<i64>) -> Result<Vec<(EventId, i64)>, StoreError> {
        let keys = match of {
            Some(key) => vec![key],
            None => {
                let all = self.known.sums.by_endpoint.keys().chain(self.room.changed.keys());
                let keys: BTreeSet<i64> = all.copied().collect();
                keys.into_iter().filter(|key| self.sum(*key).ended > 0).collect()
            }
        };
        let mut query = self.connection.prepare_cached(
            "SELECT id FROM event INDEXED BY event_ended WHERE endpoint = ?1 AND due_at IS NULL ORDER BY id LIMIT ?2",
        )?;
        let mut found = Vec::new();
        for key in keys {
            for id in query.query_map(params![key, LOOK as u64], |row| row.get(0))? {
                found.push((EventId::from_bytes(id?), key));
            }
        }
        found.sort_unstable();
        found.truncate(LOOK);
        Ok(found)
    }

    /// A long body of this size begins, with a number for its chunks: it is counted as waiting until its event is, or
    /// its caller gives up.
    pub(super) fn stage(&mut self, endpoint: &EndpointName, size: u64) -> Result<i64, StoreError> {
        let bytes = body_cost(size);
        self.known.last_blob += 1;
        let blob = self.known.last_blob;
        let key = self.endpoint_or_new(endpoint)?;
        self.admit(endpoint, key, bytes)?;
        let mut insert = self
            .connection
            .prepare_cached("INSERT INTO staging (blob, dropped, endpoint, cost) VALUES (?1, 0, ?2, ?3)")?;
        insert.execute(params![blob, key, bytes])?;
        self.change(key, Sum::default(), Sum { open: bytes, ended: 0 });
        Ok(blob)
    }

    /// It is whole.
    pub(super) fn unstage(&mut self, blob: i64) -> Result<(), StoreError> {
        self.uncount_staged(blob)?;
        self.connection.prepare_cached("DELETE FROM staging WHERE blob = ?1")?.execute([blob])?;
        Ok(())
    }

    /// Nobody wants it any more.
    pub(super) fn drop_staged(&mut self, blob: i64) -> Result<(), StoreError> {
        self.uncount_staged(blob)?;
        self.connection.prepare_cached("UPDATE staging SET dropped = 1, cost = 0 WHERE blob = ?1")?.execute([blob])?;
        Ok(())
    }

    fn uncount_staged(&mut self, blob: i64) -> Result<(), StoreError> {
        let mut query = self.connection.prepare_cached("SELECT endpoint, cost FROM staging WHERE blob = ?1")?;
        let staged: Option<(Option<i64>, u64)> =
            query.query_row([blob], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if let Some((Some(key), open)) = staged {
            self.change(key, Sum { open, ended: 0 }, Sum::default());
        }
        Ok(())
    }
}

/// Pages of the file, and those of them that are free.
pub(super) fn pages(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let number = |pragma: &str| connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, u64>(0));
    Ok((number("PRAGMA page_count")?, number("PRAGMA freelist_count")?))
}

/// What a row of this size takes: pages of its own, and its part of a page that it shares with others like it.
fn packed(bytes: u64) -> u64 {
    let own = bytes / OVERFLOW_BYTES;
    let rest = (bytes % OVERFLOW_BYTES).max(if own > 0 { REST_BYTES } else { 1 });
    own * PAGE_BYTES + PAGE_BYTES / (LEAF_BYTES / rest).max(1)
}

/// What an event with a head of this size takes, without its attempts.
pub(super) fn cost(row: &Row, head_bytes: usize) -> u64 {
    let event = &row.summary;
    let texts = [&event.event_type, &event.sender_id, &event.order_key, &row.dedup_key];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    // These stand in the event's row and once more beside its content or in an index.
    let beside = head_bytes as u64 + BESIDE_BYTES + texts as u64;
    let content =
        if event.size <= INLINE_BYTES { packed(beside + event.size) } else { packed(beside) + body_cost(event.size) };
    content + ROW_BYTES + texts as u64
}

pub(super) fn body_cost(size: u64) -> u64 {
    let chunk = super::intake::CHUNK_BYTES as u64;
    let last = size % chunk;
    size / chunk * packed(chunk + BESIDE_BYTES) + if last > 0 { packed(last + BESIDE_BYTES) } else { 0 }
}

/// What the record of an attempt takes, with this much of an answer.
pub(super) fn record_cost(answer_bytes: u64) -> u64 {
    packed(answer_bytes + BESIDE_BYTES)
}

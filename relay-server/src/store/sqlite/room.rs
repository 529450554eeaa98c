//! Room for new events: how much of the store each endpoint takes, and what gives way.
//!
//! Ended events give way to new ones, the oldest first, in the transaction that needs the room: a store that is full of
//! ended events takes new ones without a pause. Events that wait never give way, so only they fill a store, an
//! endpoint's share of it, or all of it but the reserve.
//!
//! While there is room, no table is looked at for this. The store counts along what events take, by endpoint, apart for
//! those that wait and those that ended, and how much of each segment of the log they need; the sums are written when the
//! index is committed. Invariant: whatever writes or removes a row of `event` counts it ([`Tx::count`]); a long body that
//! comes in counts as waiting from its beginning.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use rusqlite::{Connection, params};

use super::{
    Shared,
    log::LogPlace,
    purge,
    row::{Found, number},
    tx::Tx,
};
use crate::{
    endpoint::EndpointName,
    spool::Spool,
    store::{
        Share, SharePool, StoreError,
        rules::{self, Row, WaitingBytes},
    },
    webhook::EventId,
};

const LOOK: usize = 32;

/// So much more than is needed is made, so that not every append has to: a sixty-fourth of a small store.
const MARGIN_BYTES: u64 = 256 * 1024;

/// An event's rows in `event` and `key`, with their indexes.
const ROW_BYTES: u64 = 400;

/// What stands beside an event's content in the log: what came of it as well.
const BESIDE_BYTES: u64 = 300;

/// What stands beside an attempt's answer.
const RECORD_BYTES: u64 = 250;

/// The endpoints' shares, as the store was last told.
#[derive(Default)]
pub(super) struct Shares {
    by_endpoint: HashMap<EndpointName, Share>,
    /// The endpoints of each pool.
    pools: HashMap<u32, Vec<EndpointName>>,
}

impl Shares {
    pub(super) fn new(shares: Vec<(EndpointName, Share)>) -> Self {
        let mut pools: HashMap<u32, Vec<EndpointName>> = HashMap::new();
        for (name, share) in &shares {
            if let Some(pool) = share.pool {
                pools.entry(pool.number).or_default().push(name.clone());
            }
        }
        Self { by_endpoint: shares.into_iter().collect(), pools }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) open: u64,
    pub(super) ended: u64,
}

impl Sum {
    pub(super) fn of(row: &Row) -> Self {
        Self::of_cost(row.cost, row.summary.state.is_open())
    }

    pub(super) fn of_cost(cost: u64, is_open: bool) -> Self {
        let (open, ended) = if is_open { (cost, 0) } else { (0, cost) };
        Self { open, ended }
    }

    fn changed(self, before: Self, after: Self) -> Self {
        let change = |sum: u64, before: u64, after: u64| sum.saturating_add(after).saturating_sub(before);
        Self { open: change(self.open, before.open, after.open), ended: change(self.ended, before.ended, after.ended) }
    }

    fn plus(self, other: Self) -> Self {
        self.changed(Self::default(), other)
    }

    pub(super) fn all(self) -> u64 {
        self.open.saturating_add(self.ended)
    }
}

/// What is known of all endpoints and segments between transactions.
#[derive(Default)]
pub(super) struct Sums {
    by_endpoint: BTreeMap<i64, Sum>,
    total: Sum,
    /// Long bodies on their way in, by the number of their file: whose they are, and what they take.
    staged: HashMap<u64, (i64, u64)>,
    /// Bytes of each segment that events need.
    live: BTreeMap<u64, u64>,
    /// What was not written since it changed.
    unwritten: (BTreeSet<i64>, BTreeSet<u64>),
}

impl Sums {
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut sums = Self::default();
        let mut query = connection.prepare("SELECT key, open_bytes, ended_bytes FROM endpoint")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let sum = Sum { open: row.get(1)?, ended: row.get(2)? };
            sums.total = sums.total.changed(Sum::default(), sum);
            sums.by_endpoint.insert(row.get(0)?, sum);
        }
        let mut query = connection.prepare("SELECT number, live FROM segment")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            sums.live.insert(number(row.get(0)?), row.get(1)?);
        }
        Ok(sums)
    }

    /// What long bodies on their way in take stays, whatever becomes of the rest.
    pub(super) fn with_staged_of(mut self, earlier: &mut Self) -> Self {
        self.staged = std::mem::take(&mut earlier.staged);
        self
    }

    /// The batch is in the log.
    pub(super) fn publish(&mut self, room: Room) {
        self.unwritten.0.extend(room.changed.keys());
        self.by_endpoint.extend(room.changed);
        self.total = room.total;
        for (segment, change) in room.live {
            let live = self.live.entry(segment).or_default();
            *live = live.saturating_add_signed(change);
            self.unwritten.1.insert(segment);
        }
        for (file, staged) in room.staged {
            match staged {
                Some(staged) => self.staged.insert(file, staged),
                None => self.staged.remove(&file),
            };
        }
    }

    /// Writes what has changed since it was written last.
    pub(super) fn write(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut update =
            connection.prepare_cached("UPDATE endpoint SET open_bytes = ?2, ended_bytes = ?3 WHERE key = ?1")?;
        for key in &self.unwritten.0 {
            let sum = self.by_endpoint.get(key).copied().unwrap_or_default();
            update.execute(params![key, sum.open, sum.ended])?;
        }
        let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO segment VALUES (?1, ?2)")?;
        let mut delete = connection.prepare_cached("DELETE FROM segment WHERE number = ?1")?;
        for segment in &self.unwritten.1 {
            match self.live.get(segment).copied().unwrap_or_default() {
                0 => delete.execute([segment.cast_signed()])?,
                live => insert.execute(params![segment.cast_signed(), live])?,
            };
        }
        self.unwritten = <_>::default();
        Ok(())
    }

    /// Bytes of a segment that events need.
    pub(super) fn live(&self, segment: u64) -> u64 {
        self.live.get(&segment).copied().unwrap_or_default()
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.total.all()
    }

    /// What events take that wait, or come.
    pub(super) fn open_bytes(&self) -> u64 {
        self.total.open
    }
}

/// What an open batch knows of the room, and what it changes.
pub(super) struct Room {
    max_bytes: u64,
    shares: Arc<Shares>,
    /// What comes into files, which nobody has proven yet.
    spool: Option<Spool>,
    is_disk_full: bool,
    changed: BTreeMap<i64, Sum>,
    /// What the endpoints of pools take that this batch asked for, and which endpoints these are.
    pools: HashMap<u32, Sum>,
    pool_of: HashMap<i64, u32>,
    total: Sum,
    live: HashMap<u64, i64>,
    staged: HashMap<u64, Option<(i64, u64)>>,
    /// Files that nobody needs once the index is committed.
    pub(super) unused_files: Vec<u64>,
    /// Files that nobody ever needed.
    pub(super) dropped_files: Vec<u64>,
    /// Whether a call was refused: then its error is not the disk's.
    pub(super) has_refused: bool,
    /// How many damaged events were set apart.
    pub(super) damaged: u64,
}

impl Room {
    /// While the log is read back nothing is bounded.
    pub(super) fn new(sums: &Sums, shared: Option<&Shared>) -> Self {
        Self {
            max_bytes: shared.map_or(u64::MAX, |shared| shared.options.max_bytes),
            shares: shared.map_or_else(Arc::default, |shared| shared.shares.load_full()),
            spool: shared.map(|shared| shared.spool.clone()),
            is_disk_full: shared.is_some_and(|shared| shared.pulse.is_full()),
            changed: BTreeMap::new(),
            pools: HashMap::new(),
            pool_of: HashMap::new(),
            total: sums.total,
            live: HashMap::new(),
            staged: HashMap::new(),
            unused_files: Vec::new(),
            dropped_files: Vec::new(),
            has_refused: false,
            damaged: 0,
        }
    }

    fn share(&self, endpoint: &EndpointName) -> Share {
        self.shares.by_endpoint.get(endpoint).copied().unwrap_or_default()
    }

    /// Content is needed from now on, or no more.
    pub(super) fn live(&mut self, place: LogPlace, is_needed: bool) {
        let bytes = i64::from(place.length);
        *self.live.entry(place.segment).or_default() += if is_needed { bytes } else { -bytes };
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
            let pool = self.room.pool_of.get(&key).and_then(|pool| self.room.pools.get_mut(pool));
            if let Some(pool) = pool {
                *pool = pool.changed(before, after);
            }
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
        let share = self.room.share(endpoint);
        let pooled = self.pooled(share, Some(key))?.open;
        let staged = self.staged(|of| of == key);
        let (own, all) = (self.sum(key).open + staged.0, self.room.total.open + staged.1);
        let fits = rules::fits(share, bytes, WaitingBytes { own, pooled, all }, self.room.max_bytes);
        self.room.has_refused |= fits.is_err();
        fits
    }

    /// Whether what waits leaves room for what comes into files at an endpoint. What has ended gives way to it.
    pub(super) fn admit_coming(&mut self, endpoint: &EndpointName) -> Result<(), StoreError> {
        let key = self.endpoint(endpoint)?;
        let own = key.map_or(0, |key| self.sum(key).open + self.staged(|of| of == key).0);
        let (all_coming, own_coming) = self.room.spool.as_ref().map_or((0, 0), |spool| spool.coming(endpoint));
        let share = Share { is_proven: false, ..self.room.share(endpoint) };
        let pooled = self.pooled(share, key)?.open.saturating_add(own_coming);
        let all = self.room.total.open.saturating_add(all_coming);
        let waiting = WaitingBytes { own: own.saturating_add(own_coming), pooled, all };
        let fits = rules::fits(share, 0, waiting, self.room.max_bytes);
        let fits = if self.room.is_disk_full { Err(StoreError::NoSpace) } else { fits };
        self.room.has_refused |= fits.is_err();
        fits?;
        self.make_space(0)
    }

    /// Makes room for an event of this size, within its endpoint's share and in the store.
    pub(super) fn make_room(&mut self, endpoint: &EndpointName, key: i64, bytes: u64) -> Result<(), StoreError> {
        self.admit(endpoint, key, bytes)?;
        self.keep_share(endpoint, key, bytes)?;
        self.make_space(bytes)
    }

    /// What an endpoint has beyond its share gives way, as far as it has ended; not much more than is to come.
    pub(super) fn keep_share(&mut self, endpoint: &EndpointName, key: i64, bytes: u64) -> Result<(), StoreError> {
        let (share, own) = (self.room.share(endpoint), self.sum(key).all() + self.staged(|of| of == key).0);
        let excess = own.saturating_add(bytes).saturating_sub(share.max_bytes);
        self.give_way(&[key], excess.min(bytes.saturating_add(MARGIN_BYTES)))?;
        let Some(pool) = share.pool else { return Ok(()) };
        let excess = self.pooled(share, Some(key))?.all().saturating_add(bytes).saturating_sub(pool.max_bytes);
        if excess == 0 {
            return Ok(());
        }
        let keys: Vec<i64> =
            self.room.pool_of.iter().filter(|(_, of)| **of == pool.number).map(|(key, _)| *key).collect();
        self.give_way(&keys, excess.min(bytes.saturating_add(MARGIN_BYTES)))
    }

    /// Removes so many bytes of what has ended at these endpoints, as far as there is that much.
    fn give_way(&mut self, keys: &[i64], mut wanted: u64) -> Result<(), StoreError> {
        while wanted > 0 {
            let removed = self.evict(Some(keys), wanted)?;
            if removed == 0 {
                break;
            }
            wanted = wanted.saturating_sub(removed);
        }
        Ok(())
    }

    /// What the endpoints of a share's pool take, long bodies on their way in as what waits. Summed up once in a batch,
    /// and counted along from then on; nothing where there is no pool.
    fn pooled(&mut self, share: Share, key: Option<i64>) -> Result<Sum, StoreError> {
        let Some(SharePool { number, .. }) = share.pool else { return Ok(Sum::default()) };
        if !self.room.pools.contains_key(&number) {
            let shares = Arc::clone(&self.room.shares);
            let mut sum = Sum::default();
            for name in shares.pools.get(&number).into_iter().flatten() {
                if let Some(key) = self.endpoint_if_any(name)? {
                    self.room.pool_of.insert(key, number);
                    sum = sum.plus(self.sum(key));
                }
            }
            self.room.pools.insert(number, sum);
        }
        // One that came since has nothing yet.
        self.room.pool_of.extend(key.map(|key| (key, number)));
        let (staged, _) = self.staged(|of| self.room.pool_of.get(&of) == Some(&number));
        let sum = self.room.pools.get(&number).copied().unwrap_or_default();
        Ok(sum.plus(Sum { open: staged, ended: 0 }))
    }

    /// Makes so much space in the store, of whatever has ended.
    pub(super) fn make_space(&mut self, bytes: u64) -> Result<(), StoreError> {
        let margin = MARGIN_BYTES.min(self.room.max_bytes / 64);
        loop {
            let coming = self.room.spool.as_ref().map_or(0, Spool::all_coming);
            let used = self.room.total.all() + self.staged(|_| false).1 + self.refused_sum()? + coming;
            if used.saturating_add(bytes) <= self.room.max_bytes {
                return Ok(());
            }
            if self.evict(None, bytes.saturating_add(margin))? == 0 {
                self.room.has_refused = true;
                return Err(StoreError::AtCapacity);
            }
        }
    }

    fn refused_sum(&mut self) -> Result<u64, StoreError> {
        Ok(self.refused_bytes()?.values().sum())
    }

    /// What long bodies on their way in take: those of some endpoints, and all.
    fn staged(&self, is_own: impl Fn(i64) -> bool) -> (u64, u64) {
        let known = self.known.sums.staged.iter().filter(|(file, _)| !self.room.staged.contains_key(file));
        let all = known.map(|(_, staged)| staged).chain(self.room.staged.values().flatten());
        all.fold((0, 0), |(own, all), (of, bytes)| (own + if is_own(*of) { *bytes } else { 0 }, all + bytes))
    }

    /// Removes some of the oldest ended events, of these endpoints or of all; how many bytes they took.
    pub(super) fn evict(&mut self, of: Option<&[i64]>, wanted: u64) -> Result<u64, StoreError> {
        self.known.pending.move_ended(self.connection)?;
        let mut removed = 0;
        for (id, key) in self.oldest_ended(of)? {
            removed += purge::delete(self, key, id)?.unwrap_or(0);
            if removed >= wanted {
                break;
            }
        }
        Ok(removed)
    }

    fn oldest_ended(&self, of: Option<&[i64]>) -> Result<Vec<(EventId, i64)>, StoreError> {
        let keys: Vec<i64> = match of {
            Some(keys) => keys.iter().copied().filter(|key| self.sum(*key).ended > 0).collect(),
            None => {
                let all = self.known.sums.by_endpoint.keys().chain(self.room.changed.keys());
                let keys: BTreeSet<i64> = all.copied().collect();
                keys.into_iter().filter(|key| self.sum(*key).ended > 0).collect()
            }
        };
        let mut query = self.connection.prepare_cached(
            "SELECT id FROM event INDEXED BY event_ended WHERE endpoint = ?1 AND ended = 1 ORDER BY id LIMIT ?2",
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

    /// A long body of this size begins, with a number for its file: it is counted as waiting until its event is, or its
    /// caller gives up.
    pub(super) fn stage(&mut self, endpoint: &EndpointName, file: u64, size: u64) -> Result<(), StoreError> {
        let key = self.endpoint_or_new(endpoint)?;
        self.make_room(endpoint, key, size)?;
        self.room.staged.insert(file, Some((key, size)));
        Ok(())
    }

    /// The caller of a long body has gone, or was refused. Its event may have been kept since.
    pub(super) fn abandon(&mut self, file: u64) -> Result<(), StoreError> {
        let mut query = self.connection.prepare_cached("SELECT 1 FROM event INDEXED BY event_file WHERE file = ?1")?;
        if !self.known.pending.has_file(file) && !query.exists([file.cast_signed()])? {
            self.drop_staged(file);
        }
        Ok(())
    }

    /// Nobody wants a long body that was coming in.
    pub(super) fn drop_staged(&mut self, file: u64) {
        let known = || self.known.sums.staged.contains_key(&file);
        if self.room.staged.get(&file).map_or_else(known, Option::is_some) {
            self.unstage(file);
            self.room.dropped_files.push(file);
        }
    }

    /// A long body is counted with its event from now on.
    pub(super) fn unstage(&mut self, file: u64) {
        self.room.staged.insert(file, None);
    }
}

/// What an event with a head of this size takes, without its attempts.
pub(super) fn cost(row: &Row, head_bytes: usize) -> u64 {
    let event = &row.summary;
    let texts = [&event.event_type, &event.sender_id, &event.order_key, &row.dedup_key];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    // These stand in the event's row and once more beside its content.
    event.size + head_bytes as u64 + BESIDE_BYTES + ROW_BYTES + 2 * texts as u64
}

/// What the record of an attempt takes, with this much of an answer.
pub(super) fn record_cost(answer_bytes: u64) -> u64 {
    answer_bytes + RECORD_BYTES
}

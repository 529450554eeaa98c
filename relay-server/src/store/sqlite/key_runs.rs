//! Keys in tables: runs, each written once, in order of hash, and given up as a whole.
//!
//! A run stands in pages of the database, a row each, whose number says the run and from which hash on it has keys. A
//! filter says of nearly every key that a run does not have that it does not, so that most look-ups read nothing. Filters
//! stand in memory, 2 bytes for each key; a run of whose events few are left is written anew, with the keys of those.

use std::{
    collections::{BTreeSet, HashSet},
    ops::RangeInclusive,
};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::keys::Key;
use crate::{store::StoreError, webhook::EventId};

const KEY_BYTES: usize = 32;

/// Keys that fill one page of the database.
pub(super) const PAGE_KEYS: usize = 254;

/// Bits of a filter for each of its keys: of 400 that are not there, it lets one pass.
const FILTER_BITS: usize = 16;

/// A run is written anew once it has so many keys for each of its events that is left.
pub(super) const SPARSE: usize = 8;

/// The most keys of one hash that are looked for, the newest.
pub(super) const MOST_FOUND: usize = 1000;

/// Bits of which a key sets four.
#[derive(Debug)]
pub(super) struct KeyFilter(Vec<u64>);

impl KeyFilter {
    /// One for so many keys, of which it has none.
    pub(super) fn of(keys: usize) -> Self {
        Self(vec![0; (keys * FILTER_BITS).div_ceil(64).max(1)])
    }

    fn places(&self, hash: u128) -> [(usize, u64); 4] {
        let words = self.0.len() as u64;
        let part = |nth: u32| u64::try_from((hash >> (nth * 32)) & 0xffff_ffff).unwrap_or_default();
        [0, 1, 2, 3].map(|nth| {
            let place = (part(nth) * words * 64) >> 32;
            (usize::try_from(place / 64).unwrap_or_default(), 1 << (place % 64))
        })
    }

    pub(super) fn add(&mut self, hash: u128) {
        self.places(hash).into_iter().for_each(|(word, bit)| self.0[word] |= bit);
    }

    pub(super) fn may_have(&self, hash: u128) -> bool {
        self.places(hash).into_iter().all(|(word, bit)| self.0[word] & bit != 0)
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn read(bytes: &[u8]) -> Self {
        let words: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        if words.is_empty() { Self(vec![u64::MAX]) } else { Self(words) }
    }
}

#[derive(Debug)]
pub(super) struct Run {
    number: u32,
    /// The numbers that its events have.
    seqs: RangeInclusive<i64>,
    keys: usize,
    filter: KeyFilter,
}

/// A run that is being written.
#[derive(Debug)]
pub(super) struct NewRun {
    number: u32,
    seqs: RangeInclusive<i64>,
    keys: usize,
}

/// Where the page stands that begins with a hash, or any that begins like it.
fn place(run: u32, hash: u128) -> i64 {
    (i64::from(run) << 32) | i64::try_from(hash >> 96).unwrap_or_default()
}

impl NewRun {
    /// Begins a run behind all others, of events with these numbers. What is left of one that was not committed makes way.
    pub(super) fn begin(connection: &Connection, number: u32, seqs: RangeInclusive<i64>) -> Result<Self, StoreError> {
        let mut delete = connection.prepare_cached("DELETE FROM key_page WHERE place >= ?1")?;
        delete.execute([place(number, 0)])?;
        Ok(Self { number, seqs, keys: 0 })
    }

    /// Writes the keys that come first, as one page; the last of them. Those whose hashes begin alike stand on one.
    pub(super) fn write_page(
        &mut self,
        connection: &Connection,
        mut keys: impl Iterator<Item = Key>,
    ) -> Result<Option<(Key, usize)>, StoreError> {
        let Some(first) = keys.next() else { return Ok(None) };
        let (mut page, mut last, mut count) = (Vec::with_capacity(PAGE_KEYS * KEY_BYTES), first, 0);
        for key in std::iter::once(first).chain(keys) {
            if count >= PAGE_KEYS && place(0, key.0) != place(0, last.0) {
                break;
            }
            page.extend_from_slice(&key.0.to_be_bytes());
            page.extend_from_slice(key.1.as_bytes());
            (last, count) = (key, count + 1);
        }
        let mut insert = connection.prepare_cached("INSERT INTO key_page VALUES (?1, ?2)")?;
        insert.execute(params![place(self.number, first.0), page])?;
        self.keys += count;
        Ok(Some((last, count)))
    }

    pub(super) fn end(&self, connection: &Connection, filter: &KeyFilter) -> Result<(), StoreError> {
        let (first, last) = (self.seqs.start(), self.seqs.end());
        let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO key_run VALUES (?1, ?2, ?3, ?4, ?5)")?;
        insert.execute(params![self.number, first, last, self.keys as u64, filter.bytes()])?;
        Ok(())
    }

    pub(super) fn with(self, filter: KeyFilter) -> Run {
        Run { number: self.number, seqs: self.seqs, keys: self.keys, filter }
    }
}

impl Run {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    pub(super) fn may_have(&self, hash: u128) -> bool {
        self.filter.may_have(hash)
    }

    /// Whether any of its events is left.
    pub(super) fn has_events(&self, connection: &Connection) -> Result<bool, StoreError> {
        let mut query = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM event WHERE seq BETWEEN ?1 AND ?2)")?;
        Ok(query.query_row([self.seqs.start(), self.seqs.end()], |row| row.get(0))?)
    }

    /// Writes it anew with the keys of the events that are left, if these are few, and with those of the run before.
    pub(super) fn thinned(&self, connection: &Connection, before: Option<&Self>) -> Result<Option<Self>, StoreError> {
        let most = self.keys / SPARSE;
        let mut query = connection.prepare_cached("SELECT id FROM event WHERE seq BETWEEN ?1 AND ?2 LIMIT ?3")?;
        let found = query.query_map(params![self.seqs.start(), self.seqs.end(), most as u64 + 1], |row| row.get(0))?;
        let left: HashSet<EventId> = found.map(|id| id.map(EventId::from_bytes)).collect::<Result<_, _>>()?;
        if left.len() > most {
            return Ok(None);
        }
        let mut keys = self.all(connection)?;
        keys.retain(|(_, id)| left.contains(id));
        let mut first = *self.seqs.start();
        if let Some(before) = before {
            keys.extend(before.all(connection)?);
            keys.sort_unstable();
            first = *before.seqs.start();
            remove(connection, before.number)?;
        }
        let mut filter = KeyFilter::of(keys.len());
        keys.iter().for_each(|key| filter.add(key.0));
        remove(connection, self.number)?;
        let mut run = NewRun { number: self.number, seqs: first..=*self.seqs.end(), keys: 0 };
        while let Some(_page) = run.write_page(connection, keys.iter().skip(run.keys).copied())? {}
        run.end(connection, &filter)?;
        Ok(Some(run.with(filter)))
    }

    /// Its keys, in order.
    fn all(&self, connection: &Connection) -> Result<Vec<Key>, StoreError> {
        let mut query =
            connection.prepare_cached("SELECT keys FROM key_page WHERE place BETWEEN ?1 AND ?2 ORDER BY place")?;
        let mut rows = query.query([place(self.number, 0), place(self.number, u128::MAX)])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let page = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
            let keys = page.as_chunks::<16>().0.as_chunks::<2>().0;
            all.extend(keys.iter().map(|[hash, id]| (u128::from_be_bytes(*hash), EventId::from_bytes(*id))));
        }
        Ok(all)
    }
}

/// The runs that are there, the oldest first.
pub(super) fn load(connection: &Connection) -> Result<Vec<Run>, StoreError> {
    let mut query = connection.prepare("SELECT run, first_seq, last_seq, keys, filter FROM key_run ORDER BY run")?;
    let mut rows = query.query([])?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        let filter = KeyFilter::read(row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?);
        let keys = usize::try_from(row.get::<_, u64>(3)?).unwrap_or(usize::MAX);
        runs.push(Run { number: row.get(0)?, seqs: row.get(1)?..=row.get(2)?, keys, filter });
    }
    Ok(runs)
}

/// Adds the events of a run that have a key.
pub(super) fn find(
    connection: &Connection,
    run: u32,
    hash: u128,
    found: &mut BTreeSet<EventId>,
) -> Result<(), StoreError> {
    let mut query = connection
        .prepare_cached("SELECT keys FROM key_page WHERE place BETWEEN ?1 AND ?2 ORDER BY place DESC LIMIT 1")?;
    let mut rows = query.query([place(run, 0), place(run, hash)])?;
    let Some(row) = rows.next()? else { return Ok(()) };
    let page = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
    let (keys, _) = page.as_chunks::<KEY_BYTES>();
    let hash = hash.to_be_bytes();
    let from = keys.partition_point(|key| key[..16] < hash[..]);
    let until = keys.partition_point(|key| key[..16] <= hash[..]);
    let ids = keys[from..until].iter().rev().take(MOST_FOUND).filter_map(|key| key.last_chunk());
    found.extend(ids.map(|id| EventId::from_bytes(*id)));
    Ok(())
}

pub(super) fn remove(connection: &Connection, run: u32) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM key_run WHERE run = ?1")?.execute([run])?;
    let mut pages = connection.prepare_cached("DELETE FROM key_page WHERE place BETWEEN ?1 AND ?2")?;
    pages.execute([place(run, 0), place(run, u128::MAX)])?;
    Ok(())
}

/// Whether the table has a run as it is here, or has none.
pub(super) fn is_like(connection: &Connection, number: u32, run: Option<&Run>) -> Result<bool, StoreError> {
    let mut query = connection.prepare_cached("SELECT first_seq, keys FROM key_run WHERE run = ?1")?;
    let found: Option<(i64, u64)> = query.query_row([number], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(found == run.map(|run| (*run.seqs.start(), run.keys as u64)))
}

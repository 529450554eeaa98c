//! Keys in tables: runs, each written once, in order of hash, and given up as a whole.
//!
//! A run stands in pages of the database, a row each, whose number says the run and from which hash on it has keys. A
//! filter says of nearly every key that a run does not have that it does not, so that most look-ups read nothing. Filters
//! stand in memory, 2 bytes for each key.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::keys::Key;
use crate::{store::StoreError, webhook::EventId};

const KEY_BYTES: usize = 32;

/// Keys that fill one page of the database.
pub(super) const PAGE_KEYS: usize = 254;

/// Bits of a filter for each of its keys: of 400 that are not there, it lets one pass.
const FILTER_BITS: usize = 16;

/// The most keys of one hash that are looked for in a run, the newest.
pub(super) const MOST_FOUND: usize = 1000;

/// Bits of which a key sets four.
#[derive(Debug)]
pub(super) struct Filter(Vec<u64>);

impl Filter {
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
    filter: Filter,
}

/// A run that is being written.
#[derive(Debug)]
pub(super) struct NewRun {
    number: u32,
    newest: EventId,
}

/// Where the page stands that begins with a hash, or any that begins like it.
fn place(run: u32, hash: u128) -> i64 {
    (i64::from(run) << 32) | i64::try_from(hash >> 96).unwrap_or_default()
}

impl NewRun {
    /// Begins a run. What is left of one that was not committed makes way.
    pub(super) fn begin(connection: &Connection, number: u32) -> Result<Self, StoreError> {
        let mut delete = connection.prepare_cached("DELETE FROM key_page WHERE place >= ?1")?;
        delete.execute([place(number, 0)])?;
        Ok(Self { number, newest: EventId::from_bytes([0; 16]) })
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
            self.newest = self.newest.max(key.1);
            (last, count) = (key, count + 1);
        }
        let mut insert = connection.prepare_cached("INSERT INTO key_page VALUES (?1, ?2)")?;
        insert.execute(params![place(self.number, first.0), page])?;
        Ok(Some((last, count)))
    }

    pub(super) fn end(&self, connection: &Connection, filter: &Filter) -> Result<(), StoreError> {
        let mut insert = connection.prepare_cached("INSERT INTO key_run VALUES (?1, ?2, ?3)")?;
        insert.execute(params![self.number, self.newest.as_bytes(), filter.bytes()])?;
        Ok(())
    }

    pub(super) fn with(self, filter: Filter) -> Run {
        Run { number: self.number, filter }
    }
}

impl Run {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn may_have(&self, hash: u128) -> bool {
        self.filter.may_have(hash)
    }
}

/// The runs that are there, the oldest first.
pub(super) fn load(connection: &Connection) -> Result<Vec<Run>, StoreError> {
    let mut query = connection.prepare("SELECT run, filter FROM key_run ORDER BY run")?;
    let mut rows = query.query([])?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        let filter = Filter::read(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
        runs.push(Run { number: row.get(0)?, filter });
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

/// Removes the first run all of whose keys are of events before this id; says whether there was one.
pub(super) fn remove_before(connection: &Connection, edge: &[u8; 16]) -> Result<bool, StoreError> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM key_run WHERE run = (SELECT min(run) FROM key_run WHERE newest < ?1) RETURNING run",
    )?;
    let Some(run) = delete.query_row([edge], |row| row.get::<_, u32>(0)).optional()? else { return Ok(false) };
    let mut pages = connection.prepare_cached("DELETE FROM key_page WHERE place BETWEEN ?1 AND ?2")?;
    pages.execute([place(run, 0), place(run, u128::MAX)])?;
    Ok(true)
}

/// The numbers of the runs that are there.
pub(super) fn numbers(connection: &Connection) -> Result<BTreeSet<u32>, StoreError> {
    let mut query = connection.prepare_cached("SELECT run FROM key_run")?;
    let numbers = query.query_map([], |row| row.get(0))?;
    Ok(numbers.collect::<Result<_, _>>()?)
}

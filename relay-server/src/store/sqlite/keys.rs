//! Which events have a dedup key or a sender's id: an index whose order is random, kept cheap.
//!
//! Put straight into a B-tree, each new key would dirty a page of its own in every commit. So new keys stand in memory
//! first. When that set is full it is frozen and moves into the table `key` in order, a slice with each commit, so that
//! many keys share a page. The keys themselves are in the event rows: after a crash, the store reads back those above
//! the last `key_upto`.
//!
//! Invariant: a key is in memory or in the table, or in both, from the commit of its event on.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Statement};

use super::{event_record::RowFacts, row};
use crate::endpoint::EndpointName;
use crate::store::{StoreError, rules::sha256};
use crate::webhook::EventId;

/// Keys in memory before they are moved, about 50 bytes each.
const FULL: usize = 64 * 1024;

/// Keys that one statement puts in.
const KEYS_AT_ONCE: usize = 16;

pub(super) type Key = (u128, EventId);

#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<Sets>);

#[derive(Debug, Default)]
struct Sets {
    active: BTreeSet<Key>,
    frozen: BTreeSet<Key>,
    /// Keys of events up to here stand in `frozen` or in the table.
    frozen_upto: i64,
    /// Whether anything was ever moved.
    has_table: bool,
    /// How far `frozen` was moved; what was moved stands in the table once the index is committed.
    moved: Option<Key>,
}

pub(super) fn hash(endpoint: &EndpointName, text: &str) -> u128 {
    let sum = sha256(&[endpoint.as_str().as_bytes(), b"\n", text.as_bytes()].concat());
    u128::from_be_bytes(*sum.first_chunk().expect("a SHA-256 is longer"))
}

fn insertion(keys: usize) -> String {
    format!("INSERT OR IGNORE INTO key (hash, id) VALUES {}", vec!["(?, ?)"; keys].join(", "))
}

fn insert(statement: &mut Statement<'_>, keys: &[Key]) -> Result<(), StoreError> {
    for (nth, (hash, id)) in keys.iter().enumerate() {
        statement.raw_bind_parameter(1 + nth * 2, hash.to_be_bytes())?;
        statement.raw_bind_parameter(2 + nth * 2, id.as_bytes())?;
    }
    statement.raw_execute()?;
    Ok(())
}

impl Keys {
    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events with this key, the newest first. They are candidates: the row says whether the key is really its.
    pub(super) fn find(&self, connection: &Connection, hash: u128) -> Result<Vec<EventId>, StoreError> {
        let (mut found, has_table): (BTreeSet<EventId>, bool) = {
            let sets = self.sets();
            let range = (hash, EventId::from_bytes([0; 16]))..=(hash, EventId::from_bytes([0xff; 16]));
            let found = sets.active.range(range.clone()).chain(sets.frozen.range(range)).map(|key| key.1).collect();
            (found, sets.has_table)
        };
        if !has_table {
            return Ok(found.into_iter().rev().collect());
        }
        let mut query = connection.prepare_cached("SELECT id FROM key WHERE hash = ?1 ORDER BY id DESC LIMIT 1000")?;
        for id in query.query_map([hash.to_be_bytes()], |row| row.get(0))? {
            found.insert(EventId::from_bytes(id?));
        }
        Ok(found.into_iter().rev().collect())
    }

    /// Adds the keys of a committed transaction whose last event has this number.
    pub(super) fn publish(&self, fresh: &[Key], upto: i64) {
        let mut sets = self.sets();
        sets.active.extend(fresh);
        if sets.active.len() >= FULL && sets.frozen.is_empty() {
            sets.frozen = std::mem::take(&mut sets.active);
            (sets.frozen_upto, sets.moved) = (upto, None);
        }
    }

    /// Whether so many new keys have come that those which move have to make way.
    pub(super) fn is_filling(&self) -> bool {
        self.has_come(FULL / 2)
    }

    pub(super) fn is_full(&self) -> bool {
        self.has_come(FULL * 2)
    }

    fn has_come(&self, new: usize) -> bool {
        let sets = self.sets();
        sets.active.len() > new && sets.frozen.last() > sets.moved.as_ref()
    }

    /// Moves so many at most into the table; how many.
    pub(super) fn move_slice(&self, connection: &Connection, most: usize) -> Result<usize, StoreError> {
        static MANY: LazyLock<String> = LazyLock::new(|| insertion(KEYS_AT_ONCE));
        static ONE: LazyLock<String> = LazyLock::new(|| insertion(1));
        let (slice, upto) = {
            let sets = self.sets();
            let from = sets.moved.map_or(Bound::Unbounded, Bound::Excluded);
            let slice: Vec<Key> = sets.frozen.range((from, Bound::Unbounded)).take(most).copied().collect();
            (slice, sets.frozen_upto)
        };
        let Some(&last) = slice.last() else { return Ok(0) };
        let (many, rest) = slice.as_chunks::<KEYS_AT_ONCE>();
        if !many.is_empty() {
            let mut statement = connection.prepare_cached(&MANY)?;
            many.iter().try_for_each(|keys| insert(&mut statement, keys))?;
        }
        if !rest.is_empty() {
            let mut statement = connection.prepare_cached(&ONE)?;
            rest.chunks(1).try_for_each(|key| insert(&mut statement, key))?;
        }
        let mut sets = self.sets();
        (sets.moved, sets.has_table) = (Some(last), true);
        if sets.frozen.last() == Some(&last) {
            let mut upsert = connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('key_upto', ?1)")?;
            upsert.execute([upto])?;
        }
        Ok(slice.len())
    }

    /// The index is committed.
    pub(super) fn committed(&self) {
        let mut sets = self.sets();
        if sets.moved.is_some() && sets.frozen.last() == sets.moved.as_ref() {
            sets.frozen.clear();
        }
    }

    /// The index is as it was when it was committed last.
    pub(super) fn rolled_back(&self) {
        self.sets().moved = None;
    }

    /// Reads back what was in memory when the last process ended.
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let sql = "SELECT e.id, n.name, e.facts FROM event e \
                   CROSS JOIN endpoint n ON n.key = e.endpoint \
                   WHERE e.seq > (SELECT coalesce(max(value), 0) FROM meta WHERE name = 'key_upto')";
        let mut query = connection.prepare(sql)?;
        let mut rows = query.query([])?;
        let mut active = BTreeSet::new();
        while let Some(found) = rows.next()? {
            let name: String = found.get(1)?;
            let Ok(endpoint) = EndpointName::parse(&name) else { continue };
            let facts = found.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            let id = EventId::from_bytes(found.get(0)?);
            let facts = match RowFacts::read(facts) {
                Ok(facts) => facts,
                Err(error) => {
                    row::note_damaged(&endpoint, id, &error);
                    continue;
                }
            };
            let (sender, dedup) = facts.keys();
            for text in sender.iter().chain(dedup.iter().filter(|key| Some(*key) != sender.as_ref())) {
                active.insert((hash(&endpoint, text), id));
            }
        }
        let has_table = connection.query_row("SELECT EXISTS (SELECT 1 FROM key)", [], |row| row.get(0))?;
        Ok(Self(Mutex::new(Sets { active, has_table, ..Sets::default() })))
    }
}

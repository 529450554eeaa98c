//! Which events have a dedup key or a sender's id: an index whose order is random, kept cheap.
//!
//! Put straight into a B-tree, each new key would dirty a page of its own in every commit, and the more of them there are,
//! the fewer would share one. So new keys stand in memory first. When that set is full it is frozen and moves into tables
//! as a run of its own (`key_runs`), a page at a time. The keys themselves are in the event rows: after a crash, the store
//! reads back those above the last `key_upto`.
//!
//! Invariant: a key is in memory or in a run, or in both, from the commit of its event on.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::{
    event_record::RowFacts,
    key_runs::{self, KeyFilter, MOST_FOUND, NewRun, PAGE_KEYS, Run, SPARSE},
    row,
};
use crate::endpoint::EndpointName;
use crate::store::{StoreError, rules::sha256};
use crate::webhook::EventId;

/// Keys in memory before they are moved, about 50 bytes each.
const FULL: usize = 64 * 1024;

/// Runs that one sweep looks at, and those of them that it may write anew, so often: to see how much of a run is left
/// takes milliseconds, to see that something is a few microseconds.
const LOOKED_AT: usize = 64;
const THINNED: usize = 2;
const THINNED_EVERY: SignedDuration = SignedDuration::from_millis(500);

/// Runs that wait for the commit which has swept them.
const SWEPT: usize = 256;

pub(super) type Key = (u128, EventId);

#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<Sets>);

#[derive(Debug, Default)]
struct Sets {
    active: Gathered,
    frozen: Gathered,
    /// Keys of events up to the first number stand in runs, and those behind, up to the second, in `frozen`.
    moved_upto: i64,
    frozen_upto: i64,
    /// What becomes of `frozen`, once its first page was written.
    moving: Option<Moving>,
    /// As they were committed, the oldest first.
    runs: Vec<Run>,
    /// Runs that were removed or written anew since the last commit, unless that was taken back.
    swept: Vec<(u32, Option<Run>)>,
    /// Which run is looked at next, and when it was last seen how much of one is left.
    next: usize,
    thinned_at: Option<Timestamp>,
}

/// A run on its way into the tables.
#[derive(Debug)]
struct Moving {
    run: NewRun,
    last: Key,
    is_whole: bool,
}

/// Keys in memory, and the filter that their run will have: most keys that are looked for are new.
#[derive(Debug)]
struct Gathered {
    keys: BTreeSet<Key>,
    filter: KeyFilter,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { keys: BTreeSet::new(), filter: KeyFilter::of(FULL) }
    }
}

impl Gathered {
    fn of(keys: BTreeSet<Key>) -> Self {
        let mut filter = KeyFilter::of(keys.len().max(FULL));
        keys.iter().for_each(|key| filter.add(key.0));
        Self { keys, filter }
    }

    fn add(&mut self, keys: &[Key]) {
        keys.iter().for_each(|key| self.filter.add(key.0));
        self.keys.extend(keys);
    }

    /// The newest events with a key, if it may be among these.
    fn find(&self, hash: u128) -> impl Iterator<Item = EventId> {
        let range = (hash, EventId::from_bytes([0; 16]))..=(hash, EventId::from_bytes([0xff; 16]));
        let may_have = self.filter.may_have(hash);
        may_have.then(|| self.keys.range(range)).into_iter().flatten().rev().take(MOST_FOUND).map(|key| key.1)
    }
}

pub(super) fn hash(endpoint: &EndpointName, text: &str) -> u128 {
    let sum = sha256(&[endpoint.as_str().as_bytes(), b"\n", text.as_bytes()].concat());
    u128::from_be_bytes(*sum.first_chunk().expect("a SHA-256 is longer"))
}

impl Sets {
    /// Writes the next page of what is frozen; how many keys it has.
    fn move_page(&mut self, connection: &Connection) -> Result<usize, StoreError> {
        if self.frozen.keys.is_empty() || self.moving.as_ref().is_some_and(|moving| moving.is_whole) {
            return Ok(0);
        }
        let from = self.moving.as_ref().map_or(Bound::Unbounded, |moving| Bound::Excluded(moving.last));
        let mut run = match self.moving.take() {
            Some(moving) => moving.run,
            None => {
                let number = self.runs.last().map_or(0, Run::number) + 1;
                NewRun::begin(connection, number, self.moved_upto + 1..=self.frozen_upto)?
            }
        };
        let keys = self.frozen.keys.range((from, Bound::Unbounded)).copied();
        let Some((last, count)) = run.write_page(connection, keys)? else { return Ok(0) };
        let is_whole = self.frozen.keys.last() == Some(&last);
        if is_whole {
            run.end(connection, &self.frozen.filter)?;
            let mut upsert = connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('key_upto', ?1)")?;
            upsert.execute([self.frozen_upto])?;
        }
        self.moving = Some(Moving { run, last, is_whole });
        Ok(count)
    }
}

impl Keys {
    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events with this key, the newest first. They are candidates: the row says whether the key is really its.
    pub(super) fn find(&self, connection: &Connection, hash: u128) -> Result<Vec<EventId>, StoreError> {
        let (mut found, runs): (BTreeSet<EventId>, Vec<u32>) = {
            let sets = self.sets();
            let found = sets.active.find(hash).chain(sets.frozen.find(hash)).collect();
            let runs = sets.runs.iter().rev().filter(|run| run.may_have(hash)).map(Run::number).collect();
            (found, runs)
        };
        for run in runs {
            if found.len() >= MOST_FOUND {
                break;
            }
            key_runs::find(connection, run, hash, &mut found)?;
        }
        Ok(found.into_iter().rev().take(MOST_FOUND).collect())
    }

    /// Adds the keys of a committed transaction whose last event has this number.
    pub(super) fn publish(&self, fresh: &[Key], upto: i64) {
        let mut sets = self.sets();
        sets.active.add(fresh);
        if sets.active.keys.len() >= FULL && sets.frozen.keys.is_empty() {
            sets.frozen = std::mem::take(&mut sets.active);
            (sets.frozen_upto, sets.moving) = (upto, None);
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
        let is_moved = sets.frozen.keys.is_empty() || sets.moving.as_ref().is_some_and(|moving| moving.is_whole);
        sets.active.keys.len() > new && !is_moved
    }

    /// Moves about so many into a run, a page at least; how many.
    pub(super) fn move_slice(&self, connection: &Connection, most: usize) -> Result<usize, StoreError> {
        let (mut sets, mut moved) = (self.sets(), 0);
        for _ in 0..most.div_ceil(PAGE_KEYS) {
            moved += sets.move_page(connection)?;
        }
        Ok(moved)
    }

    /// The index is committed.
    pub(super) fn committed(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut sets = self.sets();
        for (number, now) in std::mem::take(&mut sets.swept) {
            // The batch that swept it may have been taken back.
            if !key_runs::is_like(connection, number, now.as_ref())? {
                continue;
            }
            let Ok(at) = sets.runs.binary_search_by_key(&number, Run::number) else { continue };
            match now {
                Some(run) => sets.runs[at] = run,
                None => drop(sets.runs.remove(at)),
            }
        }
        if let Some(moved) = sets.moving.take_if(|moving| moving.is_whole) {
            let filter = std::mem::take(&mut sets.frozen).filter;
            sets.moved_upto = sets.frozen_upto;
            sets.runs.push(moved.run.with(filter));
        }
        Ok(())
    }

    /// The index is as it was when it was committed last.
    pub(super) fn rolled_back(&self) {
        let mut sets = self.sets();
        sets.moving = None;
        sets.swept.clear();
    }

    /// Forgets keys of events that are gone: runs of which nothing is left, and most of those of which little is. What is
    /// left of one joins what is left of the one before, so that there are few of them.
    pub(super) fn sweep(&self, connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
        let mut sets = self.sets();
        let Sets { runs, swept, next, thinned_at, .. } = &mut *sets;
        let is_time = thinned_at.is_none_or(|at| now.duration_since(at).abs() >= THINNED_EVERY);
        let mut may_thin = if is_time { THINNED } else { 0 };
        for _ in 0..runs.len().min(LOOKED_AT) {
            *next = if *next < runs.len() { *next } else { 0 };
            let (before, at) = runs.split_at(*next);
            *next += 1;
            let waits = |run: &Run| swept.iter().any(|(number, _)| *number == run.number());
            let Some(run) = at.first().filter(|run| swept.len() < SWEPT && !waits(run)) else { continue };
            if !run.has_events(connection)? {
                key_runs::remove(connection, run.number())?;
                swept.push((run.number(), None));
            } else if may_thin > 0 && run.keys() > PAGE_KEYS {
                (may_thin, *thinned_at) = (may_thin - 1, Some(now));
                let small = before.last().filter(|before| before.keys() <= FULL / SPARSE && !waits(before));
                if let Some(run) = run.thinned(connection, small)? {
                    swept.extend(small.map(|small| (small.number(), None)));
                    swept.push((run.number(), Some(run)));
                }
            }
        }
        Ok(())
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
        let upto = "SELECT coalesce(max(value), 0) FROM meta WHERE name = 'key_upto'";
        let moved_upto = connection.query_row(upto, [], |row| row.get(0))?;
        let (active, runs) = (Gathered::of(active), key_runs::load(connection)?);
        Ok(Self(Mutex::new(Sets { active, runs, moved_upto, ..Sets::default() })))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::{
        super::{schema, tests::ended_rows},
        *,
    };

    /// A second later each time.
    fn soon() -> Timestamp {
        static SECONDS: AtomicI64 = AtomicI64::new(0);
        Timestamp::from_second(SECONDS.fetch_add(1, Ordering::Relaxed)).expect("a time")
    }

    fn id(nth: u128) -> EventId {
        EventId::from_bytes(nth.to_be_bytes())
    }

    /// As random as hashes are.
    fn random(nth: u128) -> u128 {
        hash(&EndpointName::parse("pay").expect("a name"), &nth.to_string())
    }

    fn open() -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = schema::open_writer(&folder.path().join("relay.db")).expect("a database");
        (folder, connection)
    }

    /// A full set, in which one key has many events.
    fn filled() -> (Keys, u128) {
        let (keys, common) = (Keys::default(), random(u128::MAX));
        let once = (0..FULL as u128).map(|nth| (random(nth), id(nth)));
        let often = (0..600).map(|nth| (common, id(nth)));
        keys.publish(&once.chain(often).collect::<Vec<_>>(), 7);
        (keys, common)
    }

    fn ids(all: impl DoubleEndedIterator<Item = u128>) -> Vec<EventId> {
        all.rev().map(id).collect()
    }

    fn assert_found(keys: &Keys, connection: &Connection, common: u128) {
        let find = |hash| keys.find(connection, hash).expect("found");
        assert_eq!(find(common), ids(0..600));
        for nth in [0, 1, 777, FULL as u128 - 1] {
            assert_eq!(find(random(nth)), [id(nth)], "{nth}");
        }
        assert!((0..500).all(|nth| find(random(1_000_000 + nth)).is_empty()));
    }

    #[test]
    fn keys_are_found_before_while_and_after_they_move_and_by_the_next_process() {
        let (_folder, connection) = open();
        let (keys, common) = filled();
        assert_found(&keys, &connection, common);
        // A part of a run is committed, and the process goes on without it.
        assert!(keys.move_slice(&connection, 5000).expect("moved") >= 5000);
        keys.committed(&connection).expect("noted");
        assert_found(&keys, &connection, common);
        keys.rolled_back();
        let mut moved = 0;
        while let count @ 1.. = keys.move_slice(&connection, 1).expect("moved") {
            moved += count;
        }
        assert_eq!(moved, FULL + 600);
        assert_found(&keys, &connection, common);
        keys.committed(&connection).expect("noted");
        assert!(keys.sets().frozen.keys.is_empty());
        assert_found(&keys, &connection, common);
        assert_found(&Keys::load(&connection).expect("loaded"), &connection, common);
    }

    #[test]
    fn runs_whose_events_are_gone_are_swept() {
        let (_folder, connection) = open();
        let (keys, common) = filled();
        while keys.move_slice(&connection, FULL).expect("moved") > 0 {}
        keys.committed(&connection).expect("noted");
        keys.sweep(&connection, soon()).expect("swept");
        keys.committed(&connection).expect("noted");
        assert!(keys.sets().runs.is_empty());
        assert!(keys.find(&connection, common).expect("found").is_empty());
        let left = "SELECT (SELECT count(*) FROM key_run) + (SELECT count(*) FROM key_page)";
        assert_eq!(connection.query_row(left, [], |row| row.get(0)), Ok(0));
    }

    #[test]
    fn of_a_run_whose_events_are_nearly_gone_the_keys_of_the_others_stay() {
        let (_folder, connection) = open();
        ended_rows(&connection, 8).move_all(&connection).expect("rows");
        let mut query = connection.prepare("SELECT id FROM event WHERE seq > 0").expect("a query");
        let ids = query.query_map([], |row| row.get(0).map(EventId::from_bytes)).expect("rows");
        let key = |(id, nth): (Result<EventId, _>, u128)| (random(nth), id.expect("an id"));
        let left: Vec<Key> = ids.zip(1_000_000..).map(key).collect();
        let gone = (0..FULL as u128).map(|nth| (random(nth), id(u128::MAX - nth)));
        let keys = Keys::default();
        keys.publish(&gone.chain(left.iter().copied()).collect::<Vec<_>>(), 7);
        while keys.move_slice(&connection, FULL).expect("moved") > 0 {}
        keys.committed(&connection).expect("noted");

        connection.execute_batch("BEGIN; SAVEPOINT batch").expect("a batch");
        keys.sweep(&connection, soon()).expect("swept");
        connection.execute_batch("ROLLBACK TO batch").expect("taken back");
        keys.committed(&connection).expect("noted");
        assert_eq!(keys.find(&connection, random(0)), Ok(vec![id(u128::MAX)]), "as before");

        keys.sweep(&connection, soon()).expect("swept");
        assert_eq!(keys.find(&connection, left[0].0), Ok(vec![left[0].1]), "before the commit, too");
        connection.execute_batch("COMMIT").expect("committed");
        keys.committed(&connection).expect("noted");
        for keys in [keys, Keys::load(&connection).expect("loaded")] {
            assert_eq!(keys.sets().runs.iter().map(Run::keys).collect::<Vec<_>>(), [left.len()]);
            assert!(left.iter().all(|(hash, id)| keys.find(&connection, *hash) == Ok(vec![*id])));
            assert!((0..500).all(|nth| keys.find(&connection, random(nth)) == Ok(Vec::new())));
        }
    }

    #[test]
    fn what_is_left_of_runs_joins_and_goes_with_its_last_event() {
        let (_folder, connection) = open();
        ended_rows(&connection, 8).move_all(&connection).expect("rows");
        let event = |seq: i64| {
            let id = connection.query_row("SELECT id FROM event WHERE seq = ?1", [seq], |row| row.get(0));
            EventId::from_bytes(id.expect("an id"))
        };
        let keys = Keys::default();
        // Four runs, of each of which one event is left.
        for run in 1..=4_u8 {
            let random = |nth: usize| random((u128::from(run) << 32) | nth as u128);
            let gone = (0..FULL).map(|nth| (random(nth), id(u128::MAX - nth as u128)));
            let left = (random(FULL), event(i64::from(run)));
            keys.publish(&gone.chain([left]).collect::<Vec<_>>(), i64::from(run));
            while keys.move_slice(&connection, FULL).expect("moved") > 0 {}
            keys.committed(&connection).expect("noted");
        }
        let sizes = || keys.sets().runs.iter().map(Run::keys).collect::<Vec<_>>();
        assert_eq!(sizes(), [FULL + 1; 4]);
        let sweep = || {
            connection.execute_batch("BEGIN").expect("begun");
            keys.sweep(&connection, soon()).expect("swept");
            connection.execute_batch("COMMIT").expect("committed");
            keys.committed(&connection).expect("noted");
        };
        sweep();
        assert_eq!(sizes(), [1, 1, FULL + 1, FULL + 1], "two at a time");
        let at = keys.sets().thinned_at.expect("it was");
        keys.sweep(&connection, at).expect("swept");
        keys.committed(&connection).expect("noted");
        assert_eq!(sizes(), [1, 1, FULL + 1, FULL + 1], "and not at once again");
        sweep();
        assert_eq!(sizes(), [1, 2, 1]);
        for run in 1..=4_u8 {
            let left = random((u128::from(run) << 32) | FULL as u128);
            assert_eq!(keys.find(&connection, left), Ok(vec![event(run.into())]), "{run}");
        }
        connection.execute("DELETE FROM event WHERE seq IN (2, 3)", []).expect("deleted");
        sweep();
        assert_eq!(sizes(), [1, 1], "both events of the joined one are gone");
        connection.execute("DELETE FROM event", []).expect("deleted");
        sweep();
        assert!(sizes().is_empty());
    }

    #[test]
    fn nearly_all_look_ups_in_vain_read_nothing() {
        let (_folder, connection) = open();
        let (keys, _) = filled();
        while keys.move_slice(&connection, FULL).expect("moved") > 0 {}
        keys.committed(&connection).expect("noted");
        let sets = keys.sets();
        let passed = (0..10_000).filter(|nth| sets.runs[0].may_have(random(1_000_000 + nth))).count();
        assert!(passed < 60, "{passed} of 10,000 pass");
    }
}

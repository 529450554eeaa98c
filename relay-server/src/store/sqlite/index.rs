//! The index: SQLite's tables in a transaction that stays open over many batches.
//!
//! ```text
//! log:    ─────────────────────────▶ end
//! index:  ── committed ─▶ mark ── in the open transaction, and in memory ──▶
//! ```
//!
//! A commit takes everything with it that the log says, and the place up to which it does: the mark. It is not synced by
//! itself; a power cut may take it, and the log says it once more. So the log is synced before the index is committed,
//! and a segment of the log, or the file of a body, is given up only once a commit that does without it has been synced.
//!
//! Invariant: what is committed is what the log says up to the mark.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

use super::{
    Shared,
    attempts::Records,
    audit,
    checkpoint::Checkpointer,
    content::Shelves,
    event_record::{Course, Facts},
    head, listing,
    log::{Log, LogPlace, Lsn},
    marks, operator_actions,
    record::{self, Change, ContentParts},
    room::{Room, Sum},
    row::{self, Found, NewRow},
    small,
    tx::{Tx, WriterState},
};
use crate::{endpoint::EndpointName, store::StoreError, webhook::EventId};

/// Events after which the index is committed.
const MOST_EVENTS: usize = 16 * 1024;

/// The longest that the index is behind.
const MOST_BEHIND: Duration = Duration::from_secs(2);

/// Segments that nothing needs, for whose sake what is committed is synced: a small busy store would wait long for it.
const DEAD_SEGMENTS: usize = 4;

/// When the index is committed beside when somebody wants to read it.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Pace {
    pub(in crate::store) events: usize,
    pub(in crate::store) behind: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { events: MOST_EVENTS, behind: MOST_BEHIND }
    }
}

pub(super) struct Index {
    pub(super) connection: Connection,
    pub(super) checkpointer: Checkpointer,
    pace: Pace,
    /// Since when there is something to commit.
    changed: Option<Instant>,
    events: usize,
    /// Commits of this process.
    commits: u64,
    /// Segments that no event needs, as of this commit.
    dead: BTreeMap<u64, u64>,
    /// Files that no event needs: since the last commit, and as of this commit.
    unused_files: Vec<u64>,
    dead_files: Vec<(u64, u64)>,
}

impl Index {
    pub(super) fn new(connection: Connection, checkpointer: Checkpointer, pace: Pace) -> Self {
        checkpointer.count_frames(&connection);
        Self {
            connection,
            checkpointer,
            pace,
            changed: Some(Instant::now()),
            events: 0,
            commits: 0,
            dead: BTreeMap::new(),
            unused_files: Vec::new(),
            dead_files: Vec::new(),
        }
    }

    /// Begins a batch, which can be rolled back without the rest of the transaction.
    pub(super) fn begin_batch(&self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        }
        self.connection.prepare_cached("SAVEPOINT batch")?.execute([])?;
        Ok(())
    }

    pub(super) fn end_batch(&self) -> Result<(), StoreError> {
        self.connection.prepare_cached("RELEASE batch")?.execute([])?;
        Ok(())
    }

    /// Takes the batch back; an error if the whole transaction is gone.
    pub(super) fn roll_back_batch(&self) -> Result<(), StoreError> {
        self.connection.prepare_cached("ROLLBACK TO batch")?.execute([])?;
        self.end_batch()
    }

    /// A batch is in the log, with what it changed and did not need any more.
    pub(super) fn changed(&mut self, events: usize, unused_files: Vec<u64>) {
        self.changed.get_or_insert_with(Instant::now);
        self.events += events;
        self.unused_files.extend(unused_files);
    }

    /// Whether there is something to commit, in a transaction that is open.
    pub(super) fn is_changed(&self) -> bool {
        self.changed.is_some() && !self.connection.is_autocommit()
    }

    /// Whether it is time to commit.
    pub(super) fn is_due(&self) -> bool {
        self.is_due_after(self.pace.events, self.pace.behind)
    }

    /// Whether it soon is: what is moved into the tables until then, the commit need not move.
    pub(super) fn is_nearly_due(&self) -> bool {
        self.is_due_after(self.pace.events / 8 * 7, self.pace.behind / 8 * 7)
    }

    fn is_due_after(&self, events: usize, behind: Duration) -> bool {
        self.events >= events || self.changed.is_some_and(|since| since.elapsed() >= behind)
    }

    /// Commits what the log says, which is synced.
    pub(super) fn commit(&mut self, known: &mut WriterState, log: &mut Log, shared: &Shared) -> Result<(), StoreError> {
        if self.changed.is_none() {
            // A batch may have begun a transaction and changed nothing.
            return if self.connection.is_autocommit() {
                Ok(())
            } else {
                Ok(self.connection.execute_batch("COMMIT")?)
            };
        }
        if self.connection.is_autocommit() {
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        }
        known.pending.move_all(&self.connection)?;
        known.pending.keep();
        known.sums.write(&self.connection)?;
        let mark = log.end().0;
        let mut note =
            self.connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('log_mark', ?1), ('last_seq', ?2)")?;
        note.execute([mark.cast_signed(), known.last_seq])?;
        drop(note);
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        shared.keys.committed(&self.connection)?;
        (self.changed, self.events, self.commits) = (None, 0, self.commits + 1);
        let commit = self.commits;
        self.dead_files.extend(self.unused_files.drain(..).map(|file| (file, commit)));
        for (segment, _) in log.segments() {
            if segment < log.end().segment() && known.sums.live(segment) == 0 {
                self.dead.entry(segment).or_insert(commit);
            }
        }
        self.checkpointer.after_commit(&self.connection, commit);
        if self.dead.len() >= DEAD_SEGMENTS {
            self.checkpointer.request();
        }
        self.give_up(log, &shared.shelves);
        Ok(())
    }

    /// Has everything that was committed synced.
    pub(super) fn sync(&mut self, log: &mut Log, shelves: &Shelves) -> Result<(), StoreError> {
        // SQLite syncs its log at a commit in this mode, and with it all commits before.
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        let synced = self
            .connection
            .execute("INSERT INTO meta VALUES ('syncs', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", []);
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        synced?;
        self.checkpointer.is_synced(self.commits);
        self.give_up(log, shelves);
        Ok(())
    }

    /// Gives up what no synced commit needs any more, unless a backup copies it.
    pub(super) fn give_up(&mut self, log: &mut Log, shelves: &Shelves) {
        if log.is_held() {
            return;
        }
        let synced = self.checkpointer.synced();
        #[cfg(test)]
        let synced = if log.fault == super::log::LogFault::EarlyGiveUp { self.commits } else { synced };
        for (segment, _) in self.dead.extract_if(.., |_, commit| *commit <= synced) {
            log.release(segment);
        }
        for (file, _) in self.dead_files.extract_if(.., |(_, commit)| *commit <= synced) {
            shelves.bodies.remove(file);
        }
    }

    /// Up to where the index holds what the log says.
    pub(super) fn mark(&self) -> Result<Lsn, StoreError> {
        mark(&self.connection)
    }

    /// Forgets everything that is not committed: SQLite has given its transaction up. The log says it once more.
    pub(super) fn reload(&mut self, known: &mut WriterState, log: &mut Log, shared: &Shared) -> Result<(), StoreError> {
        if !self.connection.is_autocommit() {
            let _gone_anyway = self.connection.execute_batch("ROLLBACK");
        }
        shared.keys.rolled_back();
        let mut fresh = WriterState::load(&self.connection)?;
        fresh.sums = fresh.sums.with_staged_of(&mut known.sums);
        // Events that were removed since the last commit are back, with their files; numbers are never given twice.
        self.unused_files.clear();
        fresh.last_seq = fresh.last_seq.max(known.last_seq);
        *known = fresh;
        let mark = self.mark()?;
        read_back(&self.connection, known, &shared.keys, |read| log.replay(mark, read))?;
        self.changed(0, Vec::new());
        Ok(())
    }
}

pub(super) fn mark(connection: &Connection) -> Result<Lsn, StoreError> {
    let mark = "SELECT coalesce(max(value), 0) FROM meta WHERE name = 'log_mark'";
    Ok(Lsn(row::number(connection.query_row(mark, [], |row| row.get(0))?)))
}

/// The files that events have.
pub(super) fn files(connection: &Connection) -> Result<BTreeSet<u64>, StoreError> {
    let mut query = connection.prepare("SELECT file FROM event INDEXED BY event_file WHERE file IS NOT NULL")?;
    let files = query.query_map([], |row| row.get(0).map(row::number))?;
    Ok(files.collect::<Result<_, _>>()?)
}

type Read<'a> = dyn FnMut(LogPlace, Lsn, &[u8]) -> Result<(), StoreError> + 'a;

/// Puts what the log says behind the mark into the tables, in a transaction that stays open.
pub(super) fn read_back<T>(
    connection: &Connection,
    known: &mut WriterState,
    keys: &super::Keys,
    records: impl FnOnce(&mut Read<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let room = Room::new(&known.sums, None);
    let mut names = listing::endpoints(connection)?.into_iter().map(|(name, key)| (key, name)).collect();
    let mut tx = Tx::new(connection, None, keys, known, room);
    let opened = records(&mut |place, _, record| read_record(&mut tx, &mut names, place, record))?;
    let room = tx.room;
    known.pending.keep();
    known.sums.publish(room);
    Ok(opened)
}

fn read_record(
    tx: &mut Tx<'_>,
    names: &mut HashMap<i64, EndpointName>,
    place: LogPlace,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let strange = || StoreError::Failed("the log has a record of an unknown kind".into());
    let parts = record::parts(bytes).ok_or_else(strange)?;
    let (mut changes, mut attempts) = (parts.changes, Vec::<&[u8]>::new());
    while let Some((change, rest)) = record::next_change(changes)? {
        changes = rest;
        match change {
            Change::Endpoint { key, name } => {
                tx.connection
                    .execute("INSERT OR IGNORE INTO endpoint (key, name) VALUES (?1, ?2)", params![key, name])?;
                names.extend(EndpointName::parse(name).ok().map(|name| (key, name)));
            }
            Change::Event { key, id, seq, facts, course } => {
                let content = parts.content.as_ref().ok_or_else(strange)?;
                let id = EventId::from_bytes(id.0);
                read_event(tx, names, place, (key, id, seq), &facts, &course, content)?;
            }
            Change::Course(seq, course) => {
                let attempts = std::mem::take(&mut attempts);
                let Some((key, id)) = row::endpoint_of(tx.connection, seq)? else { continue };
                with_row(tx, names, key, id, |tx, found| {
                    for record in &attempts {
                        tx.keep_read(key, found, record)?;
                    }
                    // What the event takes with them is said with its course.
                    course.put_over(&mut found.row)
                })?;
            }
            Change::Attempt(record) => attempts.push(record),
            Change::Mark(facts) => marks::put(tx.connection, &facts)?,
            Change::Pause { key, at } => tx.put_pause(key, at)?,
            Change::Bulk(facts) => {
                let bulk = facts.bulk()?;
                operator_actions::put(tx, &bulk, facts.filter())?;
            }
            Change::Audit(facts) => audit::put(tx, &facts.row())?,
            Change::OwnSignature { digest, expires_at } => small::put_signature(tx.connection, &digest, expires_at)?,
            Change::Moved(key, id) => with_row(tx, names, key, EventId::from_bytes(id), |tx, found| {
                tx.move_content(found, place);
                Ok(())
            })?,
        }
    }
    Ok(())
}

fn with_row(
    tx: &mut Tx<'_>,
    names: &HashMap<i64, EndpointName>,
    key: i64,
    id: EventId,
    work: impl FnOnce(&mut Tx<'_>, &mut Found) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let Some(name) = names.get(&key) else { return Ok(()) };
    let Some(mut found) = row::load(tx.connection, name, key, id)? else { return Ok(()) };
    work(tx, &mut found)?;
    tx.store(key, found)
}

fn read_event(
    tx: &mut Tx<'_>,
    names: &HashMap<i64, EndpointName>,
    place: LogPlace,
    (key, id, seq): (i64, EventId, i64),
    facts: &Facts<'_>,
    course: &Course<'_>,
    content: &ContentParts<'_>,
) -> Result<(), StoreError> {
    let Some(name) = names.get(&key) else { return Ok(()) };
    if let Some(there) = row::load(tx.connection, name, key, id)? {
        tx.remove(key, &there)?;
    }
    // What is damaged here shows when the content is read.
    let line = head::request_line(content.head).unwrap_or_default();
    let mut row = facts.row(name.clone(), id, line, content.body);
    course.put_over(&mut row)?;
    let mut found = Found { row, seq, place, file: facts.file(), counted: Sum::default() };
    tx.known.last_seq = tx.known.last_seq.max(found.seq);
    tx.known.pending.is_in_table(key, id);
    tx.room.live(place, true);
    tx.count(key, &mut found);
    row::insert(tx.connection, &[NewRow { key, found: &found, records: Records::None }])
}

//! Rows of events that came a moment ago, with their attempts: in memory until they are moved into the tables.
//!
//! Most events are over within milliseconds. Put into the table at once, a row would dirty pages of `event` and of its
//! indexes when it comes and again when it ends. So it waits here, and what would make it again stands in the log. Rows
//! that ended are moved while the disk syncs; all are before the index is committed, and before anybody looks at the
//! tables.
//!
//! Invariants:
//! - A row is in the table or here, never in both.
//! - Rows here have no order key.
//! - What a batch changes here can be undone until [`PendingRows::keep`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasherDefault, Hasher},
};

use jiff::Timestamp;
use rusqlite::Connection;

use super::{
    attempts::{self, AttemptRecord, Records},
    row::{self, Found, NewRow, ROWS_AT_ONCE, millis},
};
use crate::{store::StoreError, webhook::EventId};

/// Open rows that wait although the writer has time to move them: most of them end soon.
const LET_WAIT: usize = 1024;

/// The same shortly before all are moved at once, while everybody waits.
const LET_WAIT_SOON: usize = 128;

/// Rows and bytes of their attempts beyond which a batch moves rows before it is answered.
const MOST: usize = 8 * 1024;
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Number of the endpoint, and when which event is due.
type DuePlace = (i64, i64, EventId);

#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) key: i64,
    pub(super) found: Found,
    pub(super) attempts: Vec<AttemptRecord>,
}

/// A hash of endpoints and ids, asked for several times for each event. The relay draws ids itself, at random, and there
/// are not many rows at a time: it need not withstand anybody who would choose them.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15); // 2⁶⁴ divided by the golden ratio.
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }

    /// A length, which all ids have in common.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Default)]
pub(super) struct PendingRows {
    /// By number in order of arrival.
    rows: BTreeMap<i64, Box<Pending>>,
    /// By number of the endpoint and id.
    seqs: HashMap<(i64, EventId), i64, BuildHasherDefault<Spread>>,
    /// Open ones by number of the endpoint and when they are due.
    due: BTreeSet<DuePlace>,
    ended: BTreeSet<i64>,
    bytes: usize,
    /// The largest id that may be in the table, by number of the endpoint.
    in_table: HashMap<i64, EventId, BuildHasherDefault<Spread>>,
    /// What rows were before the batch changed them, in order.
    journal: Vec<(i64, Option<Box<Pending>>)>,
}

impl Pending {
    /// Bytes that are its own: what its attempts were answered.
    fn bytes(&self) -> usize {
        self.attempts.iter().map(|record| usize::try_from(record.answer_bytes()).unwrap_or(usize::MAX)).sum()
    }

    fn due(&self) -> Option<DuePlace> {
        let event = &self.found.row.summary;
        event.due_at.map(|due| (self.key, millis(due), event.id))
    }

    /// Where it stands: when it is due, whether it has ended, and whose it is.
    fn places(&self) -> (Option<DuePlace>, bool, Option<(i64, EventId)>) {
        let event = &self.found.row.summary;
        (self.due(), !event.state.is_open(), Some((self.key, event.id)))
    }
}

impl PendingRows {
    pub(super) fn find(&self, key: i64, id: EventId) -> Option<&Pending> {
        self.seqs.get(&(key, id)).and_then(|seq| self.rows.get(seq)).map(Box::as_ref)
    }

    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut pending = Self::default();
        let mut query = connection.prepare(
            "SELECT key, (SELECT max(id) FROM event INDEXED BY event_ended WHERE endpoint = key AND ended = 1), \
                 (SELECT max(id) FROM event INDEXED BY event_open WHERE endpoint = key AND ended = 0) FROM endpoint",
        )?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(id) = row.get::<_, Option<[u8; 16]>>(1)?.max(row.get(2)?) {
                pending.is_in_table(row.get(0)?, EventId::from_bytes(id));
            }
        }
        Ok(pending)
    }

    /// Notes down that a row is put into the table.
    pub(super) fn is_in_table(&mut self, key: i64, id: EventId) {
        let largest = self.in_table.entry(key).or_insert(id);
        *largest = id.max(*largest);
    }

    pub(super) fn has_file(&self, file: u64) -> bool {
        self.rows.values().any(|pending| pending.found.file == Some(file))
    }

    /// Whether no row with this id can be in the table.
    pub(super) fn is_new(&self, key: i64, id: EventId) -> bool {
        self.in_table.get(&key).is_none_or(|largest| id > *largest)
    }

    /// Changes of the batch so far.
    pub(super) fn changes(&self) -> usize {
        self.journal.len()
    }

    pub(super) fn put(&mut self, mut pending: Pending) {
        row::round(&mut pending.found.row);
        let seq = pending.found.seq;
        let before = self.replace(seq, Some(Box::new(pending)));
        self.journal.push((seq, before));
    }

    fn take(&mut self, seq: i64) {
        let before = self.replace(seq, None);
        self.journal.push((seq, before));
    }

    fn replace(&mut self, seq: i64, now: Option<Box<Pending>>) -> Option<Box<Pending>> {
        let (due, is_ended, id) = now.as_deref().map_or((None, false, None), Pending::places);
        self.bytes += now.as_deref().map_or(0, Pending::bytes);
        let before = match now {
            Some(now) => self.rows.insert(seq, now),
            None => self.rows.remove(&seq),
        };
        let (due_before, was_ended, id_before) = before.as_deref().map_or((None, false, None), Pending::places);
        self.bytes -= before.as_deref().map_or(0, Pending::bytes);
        if due_before != due {
            due_before.map(|due| self.due.remove(&due));
            self.due.extend(due);
        }
        if was_ended && !is_ended {
            self.ended.remove(&seq);
        } else if is_ended && !was_ended {
            self.ended.insert(seq);
        }
        if id_before != id {
            id_before.map(|id| self.seqs.remove(&id));
            self.seqs.extend(id.map(|id| (id, seq)));
        }
        before
    }

    /// The batch is in the log.
    pub(super) fn keep(&mut self) {
        self.journal.clear();
    }

    /// The batch never was.
    pub(super) fn undo(&mut self) {
        while let Some((seq, before)) = self.journal.pop() {
            self.replace(seq, before);
        }
    }

    /// What is due at an endpoint until then, the longest due first or last.
    pub(super) fn due(&self, key: i64, until: Timestamp, newest: bool, most: usize) -> Vec<(i64, EventId)> {
        let low = (key, i64::MIN, EventId::from_bytes([0; 16]));
        let due = self.due.range(low..=(key, millis(until), EventId::from_bytes([0xff; 16])));
        let due = due.map(|(_, due, id)| (*due, *id));
        if newest { due.rev().take(most).collect() } else { due.take(most).collect() }
    }

    /// When an endpoint is due next.
    pub(super) fn next_due(&self, key: i64) -> Option<i64> {
        let low = (key, i64::MIN, EventId::from_bytes([0; 16]));
        self.due.range(low..).next().filter(|(of, ..)| *of == key).map(|(_, due, _)| *due)
    }

    /// Moves a row into the tables.
    pub(super) fn move_one(&mut self, connection: &Connection, key: i64, id: EventId) -> Result<(), StoreError> {
        let Some(seq) = self.seqs.get(&(key, id)).copied() else { return Ok(()) };
        self.move_rows(connection, &[seq])
    }

    pub(super) fn move_all(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let all: Vec<i64> = self.rows.keys().copied().collect();
        self.move_rows(connection, &all)
    }

    pub(super) fn move_ended(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let ended: Vec<i64> = self.ended.iter().copied().collect();
        self.move_rows(connection, &ended)
    }

    /// Moves a part of what need not wait: what has ended first, then the oldest open ones, where many wait or their
    /// attempts take much. `soon` all are to be moved. How many rows it moved: as many as one statement writes, or more,
    /// since by itself each row costs more.
    pub(super) fn move_slice(&mut self, connection: &Connection, most: usize, soon: bool) -> Result<usize, StoreError> {
        let mut slice: Vec<i64> = self.ended.iter().take(most).copied().collect();
        let let_wait = match soon {
            _ if self.bytes > MOST_BYTES / 2 => 0,
            true => LET_WAIT_SOON,
            false => LET_WAIT,
        };
        let open = self.rows.len().saturating_sub(self.ended.len() + let_wait).min(most - slice.len());
        slice.extend(self.rows.keys().filter(|seq| !self.ended.contains(seq)).take(open));
        // Few rows can take much.
        if self.bytes <= MOST_BYTES / 2 {
            slice.truncate(slice.len() / ROWS_AT_ONCE * ROWS_AT_ONCE);
        }
        self.move_rows(connection, &slice)?;
        Ok(slice.len())
    }

    /// Whether so many wait that who comes is not answered before as many are moved.
    pub(super) fn is_filling(&self) -> bool {
        self.rows.len() > MOST / 2 || self.bytes > MOST_BYTES / 2
    }

    /// Whether so many wait that nobody may be answered before some are moved.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() > MOST || self.bytes > MOST_BYTES
    }

    fn move_rows(&mut self, connection: &Connection, seqs: &[i64]) -> Result<(), StoreError> {
        let moved: Vec<&Pending> = seqs.iter().filter_map(|seq| self.rows.get(seq)).map(Box::as_ref).collect();
        let new_row = moved.iter().map(|pending| NewRow {
            key: pending.key,
            found: &pending.found,
            records: attempts::of_new_row(&pending.attempts),
        });
        let rows: Vec<NewRow<'_>> = new_row.collect();
        row::insert(connection, &rows)?;
        for (pending, _) in moved.iter().zip(&rows).filter(|(_, row)| row.records == Records::Apart) {
            let id = pending.found.row.summary.id;
            pending.attempts.iter().try_for_each(|record| attempts::write(connection, pending.key, id, record))?;
        }
        for seq in seqs {
            if let Some(pending) = self.rows.get(seq) {
                let (key, id) = (pending.key, pending.found.row.summary.id);
                self.is_in_table(key, id);
                self.take(*seq);
            }
        }
        Ok(())
    }
}

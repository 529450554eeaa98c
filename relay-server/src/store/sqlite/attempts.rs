//! Records of attempts, in their table or beside a row that is not in its table yet.
//!
//! Most events have one attempt, whose answer is short: its record stands in the event's row, and moves into the table
//! once there is another. A record is written once, for the log, and stands everywhere as it is there.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    record::{self, AttemptFacts, Change},
    room::record_cost,
    row::{Found, of_both},
    tx::Tx,
};
use crate::{
    store::{Answer, Attempt, MAX_ATTEMPTS, StoreError},
    throttle::Throttle,
    webhook::EventId,
};

/// Records that stand beside a row outside of the table; with more of them it moves.
const MOST_BESIDE: usize = 8;

/// The longest answer of an attempt whose record stands in its event's row.
const MOST_IN_ROW: u64 = 192;

/// A damaged disk may have many of them.
static UNREADABLE: Throttle = Throttle::new();

/// An attempt as it is written.
#[derive(Clone, Debug)]
pub(super) struct AttemptRecord {
    fence: u64,
    /// Bytes of the answer, headers and body.
    answer: u64,
    bytes: Vec<u8>,
}

impl AttemptRecord {
    pub(super) fn of(attempt: &Attempt) -> Self {
        let answer = attempt.answer.as_ref();
        let answer = answer.map_or(0, |answer| answer.headers.as_bytes().len() + answer.body.len()) as u64;
        Self { fence: attempt.fence, answer, bytes: AttemptFacts::of(attempt).write() }
    }

    fn cost(&self) -> u64 {
        record_cost(self.answer)
    }

    pub(super) fn answer_bytes(&self) -> u64 {
        self.answer
    }

    fn is_short(&self) -> bool {
        self.answer <= MOST_IN_ROW
    }
}

/// Where the records of attempts at an event stand whose row is in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Records<T = Vec<u8>> {
    None,
    /// There is one, in the row.
    InRow(T),
    /// In their table.
    Apart,
}

impl<T: AsRef<[u8]>> Records<T> {
    /// As the row says it.
    pub(super) fn column(&self) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::InRow(record) => Some(record.as_ref()),
            Self::Apart => Some(&[]),
        }
    }
}

impl Records {
    fn of_row(connection: &Connection, seq: i64) -> Result<Self, StoreError> {
        let mut query = connection.prepare_cached("SELECT attempt FROM event WHERE seq = ?1")?;
        let column: Option<Option<Vec<u8>>> = query.query_row([seq], |row| row.get(0)).optional()?;
        Ok(Self::of_column(column.flatten()))
    }

    fn of_event(connection: &Connection, key: i64, id: EventId) -> Result<Self, StoreError> {
        static IN_ROW: LazyLock<String> = LazyLock::new(|| of_both("attempt", "id = ?2 AND attempt IS NOT NULL"));
        let mut query = connection.prepare_cached(&IN_ROW)?;
        Ok(Self::of_column(query.query_row(params![key, id.as_bytes()], |row| row.get(0)).optional()?))
    }

    fn of_column(column: Option<Vec<u8>>) -> Self {
        match column {
            None => Self::None,
            Some(record) if record.is_empty() => Self::Apart,
            Some(record) => Self::InRow(record),
        }
    }

    /// The attempt whose record stands in the row.
    fn only(&self, id: EventId) -> Option<Attempt> {
        match self {
            Self::InRow(record) => read_record(id, record),
            Self::None | Self::Apart => None,
        }
    }
}

/// What stands beside a row that is stored next.
#[derive(Clone, Debug)]
pub(super) enum Beside {
    /// One more record, of a row that is not in its table.
    Record(AttemptRecord),
    /// Where they stand now, of one that is.
    Records(Records),
}

impl Tx<'_> {
    /// Keeps the record of an attempt of which nobody said how it ended, unless somebody did.
    pub(super) fn keep_lost(&mut self, key: i64, found: &mut Found, lost: &Attempt) -> Result<(), StoreError> {
        let is_known = self.attempts(key, found.row.summary.id)?.iter().any(|there| there.fence == lost.fence);
        if is_known { Ok(()) } else { self.keep_attempt(key, found, lost) }
    }

    /// Keeps the record of an attempt in place of what was noted for its fence, and counts what its event takes then. The
    /// caller stores the event's row next.
    pub(super) fn keep_attempt(&mut self, key: i64, found: &mut Found, attempt: &Attempt) -> Result<(), StoreError> {
        let (id, record) = (found.row.summary.id, AttemptRecord::of(attempt));
        self.note(&Change::Attempt(&record.bytes));
        match self.known.pending.find(key, id) {
            Some(pending) if pending.attempts.len() < MOST_BESIDE => {
                let before =
                    pending.attempts.iter().find(|there| there.fence == attempt.fence).map_or(0, AttemptRecord::cost);
                found.row.cost = (found.row.cost + record.cost()).saturating_sub(before);
                self.beside = Some(Beside::Record(record));
                return Ok(());
            }
            Some(_) => self.known.pending.move_one(self.connection, key, id)?,
            None => {}
        }
        self.keep_in_table(key, found, record)
    }

    /// The same of an event whose row is in its table.
    fn keep_in_table(&mut self, key: i64, found: &mut Found, record: AttemptRecord) -> Result<(), StoreError> {
        let there = match self.beside.take() {
            Some(Beside::Records(there)) => there,
            _ => Records::of_row(self.connection, found.seq)?,
        };
        let cost = record.cost();
        let (records, before) = put(self.connection, key, found, &there, record)?;
        found.row.cost = (found.row.cost + cost).saturating_sub(before);
        self.beside = Some(Beside::Records(records));
        Ok(())
    }

    /// Keeps a record that the log has.
    pub(super) fn keep_read(&mut self, key: i64, found: &mut Found, record: &[u8]) -> Result<(), StoreError> {
        self.keep_in_table(key, found, AttemptRecord::of(&record::read_attempt(record)?))
    }

    pub(super) fn attempts(&self, key: i64, id: EventId) -> Result<Vec<Attempt>, StoreError> {
        match self.known.pending.find(key, id) {
            Some(pending) => Ok(pending.attempts.iter().filter_map(|record| read_record(id, &record.bytes)).collect()),
            None => read(self.connection, key, id),
        }
    }

    /// What an event's handler answered last.
    pub(super) fn last_answer(&self, key: i64, id: EventId) -> Result<Option<Answer>, StoreError> {
        match self.known.pending.find(key, id) {
            Some(pending) => {
                let latest_first = pending.attempts.iter().rev();
                Ok(latest_first.filter_map(|record| read_record(id, &record.bytes)).find_map(|attempt| attempt.answer))
            }
            None => last_answer(self.connection, key, id),
        }
    }
}

/// Puts a record among others, in place of that of its fence.
pub(super) fn put_among(records: &mut Vec<AttemptRecord>, record: AttemptRecord) {
    match records.binary_search_by_key(&record.fence, |there| there.fence) {
        Err(place) => records.insert(place, record),
        Ok(place) => records[place] = record,
    }
}

/// Where the records of a row go that is put into its table.
pub(super) fn of_new_row(records: &[AttemptRecord]) -> Records<&[u8]> {
    match records {
        [] => Records::None,
        [only] if only.is_short() => Records::InRow(&only.bytes),
        _ => Records::Apart,
    }
}

/// Puts a record where it belongs beside those that are there; where they stand then, and what gave way took.
fn put(
    connection: &Connection,
    key: i64,
    found: &Found,
    there: &Records,
    record: AttemptRecord,
) -> Result<(Records, u64), StoreError> {
    let id = found.row.summary.id;
    let is_apart = *there == Records::Apart;
    let earlier = there.only(id).as_ref().map(AttemptRecord::of);
    // What is damaged gives way.
    let mut gone = match (there, &earlier) {
        (Records::InRow(bytes), None) => cost_of(bytes),
        _ => 0,
    };
    let is_only = !is_apart && earlier.as_ref().is_none_or(|earlier| earlier.fence == record.fence);
    if is_only && record.is_short() {
        return Ok((Records::InRow(record.bytes), gone + earlier.map_or(0, |earlier| earlier.cost())));
    }
    if let Some(earlier) = earlier {
        write(connection, key, id, &earlier)?;
    }
    let mut query =
        connection.prepare_cached("SELECT record FROM attempt WHERE endpoint = ?1 AND id = ?2 AND fence = ?3")?;
    let before: Option<Vec<u8>> =
        query.query_row(params![key, id.as_bytes(), record.fence], |row| row.get(0)).optional()?;
    gone += before.map_or(0, |before| cost_of(&before));
    write(connection, key, id, &record)?;
    // Each record has a fence of its own, so that there are never more than the newest one says.
    if found.row.summary.fence > MAX_ATTEMPTS as u64 {
        gone += thin_out(connection, key, id)?;
    }
    Ok((Records::Apart, gone))
}

pub(super) fn write(connection: &Connection, key: i64, id: EventId, record: &AttemptRecord) -> Result<(), StoreError> {
    let mut insert = connection
        .prepare_cached("INSERT OR REPLACE INTO attempt (endpoint, id, fence, record) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute(params![key, id.as_bytes(), record.fence, &record.bytes[..]])?;
    Ok(())
}

/// Leaves the first and the last records; what the others took.
fn thin_out(connection: &Connection, key: i64, id: EventId) -> Result<u64, StoreError> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM attempt WHERE endpoint = ?1 AND id = ?2 \
         AND fence > (SELECT min(fence) FROM attempt WHERE endpoint = ?1 AND id = ?2) \
         AND fence < (SELECT fence FROM attempt WHERE endpoint = ?1 AND id = ?2 ORDER BY fence DESC LIMIT 1 OFFSET ?3) \
         RETURNING record",
    )?;
    let mut gone = delete.query(params![key, id.as_bytes(), MAX_ATTEMPTS as u64 - 2])?;
    let mut bytes = 0;
    while let Some(row) = gone.next()? {
        bytes += cost_of(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
    }
    Ok(bytes)
}

fn cost_of(record: &[u8]) -> u64 {
    record_cost(record::answer_bytes(record))
}

/// Reads a record of an event's; none if it is damaged. Then it is as if it had never been, and others are there.
fn read_record(id: EventId, record: &[u8]) -> Option<Attempt> {
    let read = record::read_attempt(record);
    if let Err(error) = &read
        && let Some(held_back) = UNREADABLE.pass("")
    {
        tracing::error!(held_back, event = %id, %error, "the record of an attempt is damaged; it is left out");
    }
    read.ok()
}

/// What an event's handler answered last, of the records in the tables. Answers may be long: earlier ones are not read.
pub(super) fn last_answer(connection: &Connection, key: i64, id: EventId) -> Result<Option<Answer>, StoreError> {
    let records = Records::of_event(connection, key, id)?;
    if records != Records::Apart {
        return Ok(records.only(id).and_then(|attempt| attempt.answer));
    }
    let mut query =
        connection.prepare_cached("SELECT record FROM attempt WHERE endpoint = ?1 AND id = ?2 ORDER BY fence DESC")?;
    let mut rows = query.query(params![key, id.as_bytes()])?;
    while let Some(row) = rows.next()? {
        let record = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        if let Some(answer) = read_record(id, record).and_then(|attempt| attempt.answer) {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

pub(super) fn read(connection: &Connection, key: i64, id: EventId) -> Result<Vec<Attempt>, StoreError> {
    let records = Records::of_event(connection, key, id)?;
    if records != Records::Apart {
        return Ok(records.only(id).into_iter().collect());
    }
    let mut query =
        connection.prepare_cached("SELECT record FROM attempt WHERE endpoint = ?1 AND id = ?2 ORDER BY fence")?;
    let mut rows = query.query(params![key, id.as_bytes()])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.extend(read_record(id, row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?));
    }
    Ok(attempts)
}

/// Looks through all records for damage.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    let mut query = connection.prepare(
        "SELECT id, record FROM attempt \
         UNION ALL SELECT id, attempt FROM event WHERE attempt IS NOT NULL AND attempt <> x''",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let damaged = StoreError::Damaged(EventId::from_bytes(row.get(0)?));
        record::read_attempt(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?).map_err(|_| damaged)?;
    }
    Ok(())
}

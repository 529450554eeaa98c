//! Rows of the table `event`, read and written.
//!
//! What a query asks for has a column; the rest stands encoded in two of them: facts, which never change, and the course.
//! To bind a value, and to put it into a record, costs more than to encode it.

use std::{borrow::Cow, sync::LazyLock};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, Statement, ToSql, params};

use super::{
    attempts::Records,
    event_record::{Course, CourseColumns, RowFacts},
    log::LogPlace,
    room::Sum,
};
use crate::{
    endpoint::EndpointName,
    store::{Reason, State, StoreError, rules::Row},
    throttle::Throttle,
    webhook::EventId,
};

/// A damaged disk may have many such rows.
static UNREADABLE: Throttle = Throttle::new();

/// The due time of an event that stands behind another.
pub(super) const PARKED: i64 = i64::MAX;

pub(super) const COLUMNS: &str =
    "id, seq, received_at, state, due_at, order_key, cost, place, length, file, facts, course";

/// A query of rows of an endpoint, those that are open and those that ended: one index has each.
pub(super) fn of_both(columns: &str, and: &str) -> String {
    let half = |index: &str, ended: u8| {
        format!("SELECT {columns} FROM event INDEXED BY {index} WHERE endpoint = ?1 AND ended = {ended} AND {and}")
    };
    // Fewer are open, so that a look in vain among these costs less.
    format!("{} UNION ALL {}", half("event_open", 0), half("event_ended", 1))
}

#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) row: Row,
    pub(super) seq: i64,
    /// Where its content stands.
    pub(super) place: LogPlace,
    /// The file that has its body, where that is too long for the log.
    pub(super) file: Option<u64>,
    /// As what it is counted among what its endpoint has.
    pub(super) counted: Sum,
}

pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

pub(super) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// Leaves of a row's times what the table keeps of them, so that nobody sees whether it stands there yet.
pub(super) fn round(row: &mut Row) {
    let event = &mut row.summary;
    event.received_at = rounded(event.received_at);
    event.due_at = event.due_at.map(rounded);
    event.settled_at = event.settled_at.map(rounded);
}

fn rounded(at: Timestamp) -> Timestamp {
    time(millis(at))
}

/// A number of 64 bits as SQLite keeps it.
pub(super) fn number(code: i64) -> u64 {
    code.cast_unsigned()
}

/// A place in the log as it is written.
pub(super) fn place_code(place: LogPlace) -> i64 {
    ((place.segment << 32) | u64::from(place.offset)).cast_signed()
}

pub(super) fn place(code: i64, length: u32) -> LogPlace {
    let code = number(code);
    LogPlace { segment: code >> 32, offset: u32::try_from(code & 0xffff_ffff).unwrap_or_default(), length }
}

impl Found {
    /// Whether it is damaged, and not set apart yet.
    pub(super) fn is_to_set_apart(&self) -> bool {
        let event = &self.row.summary;
        event.state == State::Damaged && (event.due_at.is_some() || event.parked)
    }
}

/// Reads a row. One of which facts or course cannot be read is that of a damaged event: others go on, and whoever would
/// deliver it sets it apart.
pub(super) fn read(from: &SqlRow<'_>, endpoint: &EndpointName) -> Result<Found, StoreError> {
    let columns = Columns::read(from)?;
    let row = columns.row(endpoint).unwrap_or_else(|error| {
        note_damaged(endpoint, columns.id, &error);
        columns.damaged_row(endpoint)
    });
    columns.found(row)
}

pub(super) fn note_damaged(endpoint: &EndpointName, id: EventId, error: &StoreError) {
    if let Some(held_back) = UNREADABLE.pass(endpoint.as_str()) {
        tracing::error!(held_back, event = %id, %endpoint, %error, "the row of an event is damaged");
    }
}

/// The same, where damage is looked for.
pub(super) fn read_sound(from: &SqlRow<'_>, endpoint: &EndpointName) -> Result<Found, StoreError> {
    let columns = Columns::read(from)?;
    let row = columns.row(endpoint).map_err(|_| StoreError::Damaged(columns.id))?;
    columns.found(row)
}

/// A row as SQLite has it.
struct Columns<'a> {
    from: &'a SqlRow<'a>,
    id: EventId,
    received_at: i64,
    course: CourseColumns,
    facts: &'a [u8],
    /// The part of the course that has no columns.
    rest: &'a [u8],
}

impl<'a> Columns<'a> {
    fn read(from: &'a SqlRow<'_>) -> Result<Self, StoreError> {
        let blob = |column| from.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
        let course = CourseColumns {
            // A state that there is not stays one.
            state: u8::try_from(from.get::<_, i64>(3)?).unwrap_or(u8::MAX),
            due_at: from.get(4)?,
            cost: from.get(6)?,
        };
        let (facts, rest) = (blob(10)?, blob(11)?);
        Ok(Self { from, id: EventId::from_bytes(from.get(0)?), received_at: from.get(2)?, course, facts, rest })
    }

    fn row(&self, endpoint: &EndpointName) -> Result<Row, StoreError> {
        let mut row = RowFacts::read(self.facts)?.row(endpoint.clone(), self.id);
        row.summary.received_at = time(self.received_at);
        Course::read(self.rest)?.with(self.course, self.received_at).put_over(&mut row)?;
        Ok(row)
    }

    /// What is known of it where the rest is damaged.
    fn damaged_row(&self, endpoint: &EndpointName) -> Row {
        let facts = RowFacts::read(self.facts).unwrap_or_default();
        let mut row = facts.row(endpoint.clone(), self.id).costing(self.course.cost);
        row.end(State::Damaged, Some(Reason::RelayDamaged), time(self.received_at));
        let event = &mut row.summary;
        event.received_at = time(self.received_at);
        event.parked = self.course.due_at == Some(PARKED);
        event.due_at = self.course.due_at.filter(|due| *due != PARKED).map(time);
        row
    }

    fn found(&self, mut row: Row) -> Result<Found, StoreError> {
        let from = self.from;
        row.summary.order_key = from.get(5)?;
        let place = place(from.get(7)?, from.get(8)?);
        let file = from.get::<_, Option<i64>>(9)?.map(number);
        let is_open = State::from_code(self.course.state.into()).map_or(self.course.due_at.is_some(), State::is_open);
        let counted = Sum::of_cost(row.cost, is_open);
        Ok(Found { counted, row, seq: from.get(1)?, place, file })
    }
}

pub(super) fn load(
    connection: &Connection,
    endpoint: &EndpointName,
    key: i64,
    id: EventId,
) -> Result<Option<Found>, StoreError> {
    static QUERY: LazyLock<String> = LazyLock::new(|| of_both(COLUMNS, "id = ?2"));
    let mut query = connection.prepare_cached(&QUERY)?;
    query.query_and_then(params![key, id.as_bytes()], |row| read(row, endpoint))?.next().transpose()
}

/// The same of one whose number is known.
pub(super) fn load_at(connection: &Connection, endpoint: &EndpointName, seq: i64) -> Result<Option<Found>, StoreError> {
    static QUERY: LazyLock<String> = LazyLock::new(|| format!("SELECT {COLUMNS} FROM event WHERE seq = ?1"));
    let mut query = connection.prepare_cached(&QUERY)?;
    query.query_and_then([seq], |row| read(row, endpoint))?.next().transpose()
}

/// The number of the endpoint whose event has this number.
pub(super) fn endpoint_of(connection: &Connection, seq: i64) -> Result<Option<(i64, EventId)>, StoreError> {
    let mut query = connection.prepare_cached("SELECT endpoint, id FROM event WHERE seq = ?1")?;
    Ok(query.query_row([seq], |row| Ok((row.get(0)?, EventId::from_bytes(row.get(1)?)))).optional()?)
}

/// Looks for an id that stands in both indexes of ids: each by itself has it once; and for one that stands in the wrong one.
pub(super) fn check_ids(connection: &Connection) -> Result<(), StoreError> {
    for (sql, what) in [
        (
            "SELECT o.id FROM event o INDEXED BY event_open CROSS JOIN event e INDEXED BY event_ended \
             ON e.endpoint = o.endpoint AND e.id = o.id WHERE o.ended = 0 AND e.ended = 1 LIMIT 1",
            "twice",
        ),
        (
            "SELECT id FROM event WHERE ended <> (due_at IS NULL) LIMIT 1",
            "among the open ones or the ended ones, wrongly",
        ),
    ] {
        if let Some(id) = connection.query_row(sql, [], |row| row.get(0)).optional()?.map(EventId::from_bytes) {
            return Err(StoreError::Failed(format!("the index has event {id} {what}")));
        }
    }
    Ok(())
}

/// A dedup key as it is written: most are the sender's id.
pub(super) fn written_dedup_key(row: &Row) -> Option<Cow<'_, str>> {
    row.dedup_key.as_ref().map(|key| match &row.summary.sender_id {
        Some(sender) if sender == key => "=".into(),
        _ => format!("+{key}").into(),
    })
}

pub(super) fn dedup_key(written: Option<String>, sender_id: Option<&String>) -> Option<String> {
    match written {
        Some(key) if key == "=" => sender_id.cloned(),
        other => other.map(|key| key.get(1..).unwrap_or_default().to_owned()),
    }
}

/// When a row is due, as it is written.
pub(super) fn due(row: &Row) -> Option<i64> {
    if row.summary.parked { Some(PARKED) } else { row.summary.due_at.map(millis) }
}

/// A row that is not in the table yet.
pub(super) struct NewRow<'a> {
    /// Number of its endpoint.
    pub(super) key: i64,
    pub(super) found: &'a Found,
    /// Where the records of its attempts stand.
    pub(super) records: Records<&'a [u8]>,
}

impl NewRow<'_> {
    /// Whether it has nothing of what few rows have.
    fn is_plain(&self) -> bool {
        self.found.row.summary.order_key.is_none() && self.found.file.is_none()
    }
}

/// Rows that one statement puts in: it opens the table and its indexes once for all of them.
pub(super) const ROWS_AT_ONCE: usize = 16;

/// In the table's own order, in which SQLite need not copy them together, but for the last: what few rows have.
const WRITTEN: [&str; 14] = [
    "seq",
    "endpoint",
    "id",
    "received_at",
    "state",
    "due_at",
    "cost",
    "place",
    "length",
    "facts",
    "course",
    "attempt",
    "order_key",
    "file",
];

/// Columns of a row without the last ones.
const PLAIN: usize = WRITTEN.len() - 2;

/// When it is due, among these: a row without has ended.
const DUE_AT: usize = 5;

/// A statement that puts so many rows in. After an error nobody goes on with its transaction, so it need not be able to
/// take back what it did itself, for which SQLite would copy each page that it writes to.
fn insertion(rows: usize, columns: usize) -> String {
    let row = |nth: usize| {
        let first = 1 + nth * columns;
        let mut values: Vec<String> = (first..first + columns).map(|parameter| format!("?{parameter}")).collect();
        values.push(format!("?{} IS NULL", first + DUE_AT));
        format!("({})", values.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("INSERT OR FAIL INTO event ({}, ended) VALUES {}", WRITTEN[..columns].join(", "), rows.join(", "))
}

pub(super) fn insert(connection: &Connection, rows: &[NewRow<'_>]) -> Result<(), StoreError> {
    static MANY: LazyLock<String> = LazyLock::new(|| insertion(ROWS_AT_ONCE, PLAIN));
    static ONE: LazyLock<String> = LazyLock::new(|| insertion(1, WRITTEN.len()));
    let one_by_one = |rows: &[NewRow<'_>]| -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(&ONE)?;
        rows.chunks(1).try_for_each(|row| insert_with(&mut statement, row, WRITTEN.len()))
    };
    let (many, rest) = rows.as_chunks::<ROWS_AT_ONCE>();
    for rows in many {
        if rows.iter().all(NewRow::is_plain) {
            let mut statement = connection.prepare_cached(&MANY)?;
            insert_with(&mut statement, rows, PLAIN)?;
        } else {
            one_by_one(rows)?;
        }
    }
    if rest.is_empty() { Ok(()) } else { one_by_one(rest) }
}

fn insert_with(statement: &mut Statement<'_>, rows: &[NewRow<'_>], columns: usize) -> Result<(), StoreError> {
    for (nth, NewRow { key, found, records }) in rows.iter().enumerate() {
        let Found { row, seq, place, file, .. } = found;
        let event = &row.summary;
        let values: &[&dyn ToSql; WRITTEN.len()] = &[
            seq,
            key,
            event.id.as_bytes(),
            &millis(event.received_at),
            &event.state.code(),
            &due(row),
            &row.cost,
            &place_code(*place),
            &place.length,
            &RowFacts::write(found),
            &Course::write(row),
            &records.column(),
            &event.order_key,
            &file.map(u64::cast_signed),
        ];
        for (column, value) in values[..columns].iter().enumerate() {
            statement.raw_bind_parameter(1 + nth * columns + column, value)?;
        }
    }
    statement.raw_execute()?;
    Ok(())
}

/// Writes of a row that is there what can change, and where the records of its attempts stand, if that has.
pub(super) fn update(connection: &Connection, found: &Found, records: Option<&Records>) -> Result<(), StoreError> {
    /// Of one that stays open, which need not be looked for among the ids once more.
    const OPEN: &str = "UPDATE event SET state = ?2, due_at = ?3, cost = ?4, place = ?5, length = ?6, course = ?7, \
                        attempt = iif(?8, ?9, attempt) WHERE seq = ?1 AND ended = 0";
    const ANY: &str = "UPDATE event SET state = ?2, due_at = ?3, cost = ?4, place = ?5, length = ?6, course = ?7, \
                       attempt = iif(?8, ?9, attempt), ended = ?3 IS NULL WHERE seq = ?1";
    let Found { row, seq, place, .. } = found;
    let (state, due, course) = (row.summary.state.code(), due(row), Course::write(row));
    let write = |sql: &str| {
        connection.prepare_cached(sql)?.execute(params![
            seq,
            state,
            due,
            row.cost,
            place_code(*place),
            place.length,
            course,
            records.is_some(),
            records.and_then(Records::column)
        ])
    };
    if due.is_none() || write(OPEN)? == 0 {
        write(ANY)?;
    }
    Ok(())
}

/// Writes a row that waits: behind others of its order key if there are any. Says whether nothing stands before it.
pub(super) fn stand_in_line(connection: &Connection, key: i64, row: &mut Row) -> Result<bool, StoreError> {
    let Some(order) = &row.summary.order_key else { return Ok(true) };
    let mut query = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM event INDEXED BY event_queue \
         WHERE endpoint = ?1 AND order_key = ?2 AND due_at IS NOT NULL AND id <> ?3)",
    )?;
    let waits: bool = query.query_row(params![key, order, row.summary.id.as_bytes()], |row| row.get(0))?;
    if waits {
        row.park();
    }
    Ok(!waits)
}

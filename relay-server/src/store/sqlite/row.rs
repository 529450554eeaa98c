//! Rows of the table `event`, read and written.

use std::sync::LazyLock;

use jiff::Timestamp;
use rusqlite::{Connection, Row as SqlRow, Statement, ToSql, params};

use super::{log::LogPlace, room::Sum};
use crate::{
    endpoint::EndpointName,
    store::{
        Holder, Reason, State, StoreError, Summary,
        rules::{Held, Row},
    },
    webhook::EventId,
};

/// The due time of an event that stands behind another.
pub(super) const PARKED: i64 = i64::MAX;

pub(super) const COLUMNS: &str = "id, received_at, state, reason, attempts, tries, fence, due_at, status, settled_at, \
     size, body_sha256, method, target, event_type, sender_id, dedup_key, order_key, conflict_with, replay_of, \
     redelivered, seq, cost, holder, given_to, segment, place, length, file, unproven, took_us, agent, resigned, \
     answered_us";

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

/// A number of 64 bits as SQLite keeps it.
pub(super) fn number(code: i64) -> u64 {
    code.cast_unsigned()
}

pub(super) fn holder_code(row: &Row) -> Option<i64> {
    row.held.map(|held| held.holder.0.cast_signed())
}

pub(super) fn holder(code: i64) -> Holder {
    Holder(code.cast_unsigned())
}

pub(super) fn read(row: &SqlRow<'_>, endpoint: &EndpointName) -> Result<Found, StoreError> {
    let state: i64 = row.get(2)?;
    let reason: Option<String> = row.get(3)?;
    let due: Option<i64> = row.get(7)?;
    let parked = due == Some(PARKED);
    let summary = Summary {
        endpoint: endpoint.clone(),
        id: EventId::from_bytes(row.get(0)?),
        received_at: time(row.get(1)?),
        state: State::from_code(state).ok_or_else(|| StoreError::Internal(format!("an event of state {state}")))?,
        reason: reason.as_deref().and_then(Reason::from_code),
        attempts: row.get(4)?,
        tries: row.get(5)?,
        fence: row.get(6)?,
        due_at: due.filter(|_| !parked).map(time),
        parked,
        status: row.get(8)?,
        settled_at: row.get::<_, Option<i64>>(9)?.map(time),
        size: row.get(10)?,
        body_sha256: row.get(11)?,
        method: row.get(12)?,
        target: row.get(13)?,
        event_type: row.get(14)?,
        order_key: row.get(17)?,
        conflict_with: row.get::<_, Option<_>>(18)?.map(EventId::from_bytes),
        replay_of: row.get::<_, Option<_>>(19)?.map(EventId::from_bytes),
        redelivered: row.get(20)?,
        sender_id: row.get(15)?,
        unproven: row.get(29)?,
        took_us: row.get(30)?,
        agent: row.get(31)?,
        resigned: row.get(32)?,
        answered_us: row.get(33)?,
    };
    let dedup_key = dedup_key(row.get(16)?, summary.sender_id.as_ref());
    let seq = row.get(21)?;
    let given_to = row.get::<_, Option<_>>(24)?.map(EventId::from_bytes);
    let held = row.get::<_, Option<i64>>(23)?.map(|holder| Held { holder: self::holder(holder), given_to });
    let place = LogPlace { segment: number(row.get(25)?), offset: row.get(26)?, length: row.get(27)? };
    let file = row.get::<_, Option<i64>>(28)?.map(number);
    let row = Row { summary, dedup_key, held, cost: row.get(22)? };
    Ok(Found { counted: Sum::of(&row), row, seq, place, file })
}

pub(super) fn load(
    connection: &Connection,
    endpoint: &EndpointName,
    key: i64,
    id: EventId,
) -> Result<Option<Found>, StoreError> {
    static QUERY: LazyLock<String> =
        LazyLock::new(|| format!("SELECT {COLUMNS} FROM event WHERE endpoint = ?1 AND id = ?2"));
    let mut query = connection.prepare_cached(&QUERY)?;
    query.query_and_then(params![key, id.as_bytes()], |row| read(row, endpoint))?.next().transpose()
}

/// A dedup key as it is written: most are the sender's id.
pub(super) fn written_dedup_key(row: &Row) -> Option<String> {
    row.dedup_key.as_ref().map(|key| match &row.summary.sender_id {
        Some(sender) if sender == key => "=".to_owned(),
        _ => format!("+{key}"),
    })
}

pub(super) fn dedup_key(written: Option<String>, sender_id: Option<&String>) -> Option<String> {
    match written {
        Some(key) if key == "=" => sender_id.cloned(),
        other => other.map(|key| key.get(1..).unwrap_or_default().to_owned()),
    }
}

fn given_to(row: &Row) -> Option<[u8; 16]> {
    row.held?.given_to.map(|append| *append.as_bytes())
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
    /// The record of its only attempt, if that is to stand in it.
    pub(super) attempt: Option<Vec<u8>>,
}

/// Rows that one statement puts in: it opens the table and its indexes once for all of them.
pub(super) const ROWS_AT_ONCE: usize = 16;

/// In the table's own order, in which SQLite need not copy them together.
const WRITTEN: [&str; 36] = [
    "seq",
    "endpoint",
    "id",
    "received_at",
    "state",
    "reason",
    "attempts",
    "tries",
    "fence",
    "due_at",
    "status",
    "settled_at",
    "size",
    "body_sha256",
    "method",
    "target",
    "event_type",
    "sender_id",
    "dedup_key",
    "order_key",
    "conflict_with",
    "replay_of",
    "redelivered",
    "cost",
    "holder",
    "given_to",
    "segment",
    "place",
    "length",
    "file",
    "attempt",
    "unproven",
    "took_us",
    "agent",
    "resigned",
    "answered_us",
];

/// A statement that puts so many rows in. After an error nobody goes on with its transaction, so it need not be able to
/// take back what it did itself, for which SQLite would copy each page that it writes to.
fn insertion(rows: usize) -> String {
    let row = format!("({})", ["?"; WRITTEN.len()].join(", "));
    format!("INSERT OR FAIL INTO event ({}) VALUES {}", WRITTEN.join(", "), vec![row; rows].join(", "))
}

pub(super) fn insert(connection: &Connection, rows: &[NewRow<'_>]) -> Result<(), StoreError> {
    static MANY: LazyLock<String> = LazyLock::new(|| insertion(ROWS_AT_ONCE));
    static ONE: LazyLock<String> = LazyLock::new(|| insertion(1));
    let (many, rest) = rows.as_chunks::<ROWS_AT_ONCE>();
    if !many.is_empty() {
        let mut statement = connection.prepare_cached(&MANY)?;
        many.iter().try_for_each(|rows| insert_with(&mut statement, rows))?;
    }
    if !rest.is_empty() {
        let mut statement = connection.prepare_cached(&ONE)?;
        rest.chunks(1).try_for_each(|row| insert_with(&mut statement, row))?;
    }
    Ok(())
}

fn insert_with(statement: &mut Statement<'_>, rows: &[NewRow<'_>]) -> Result<(), StoreError> {
    for (nth, NewRow { key, found, attempt }) in rows.iter().enumerate() {
        let Found { row, seq, place, file, .. } = found;
        let event = &row.summary;
        let values: &[&dyn ToSql; WRITTEN.len()] = &[
            seq,
            key,
            event.id.as_bytes(),
            &millis(event.received_at),
            &event.state.code(),
            &event.reason.map(Reason::code),
            &event.attempts,
            &event.tries,
            &event.fence,
            &due(row),
            &event.status,
            &event.settled_at.map(millis),
            &event.size,
            &event.body_sha256,
            &event.method,
            &event.target,
            &event.event_type,
            &event.sender_id,
            &written_dedup_key(row),
            &event.order_key,
            &event.conflict_with.as_ref().map(EventId::as_bytes),
            &event.replay_of.as_ref().map(EventId::as_bytes),
            &event.redelivered,
            &row.cost,
            &holder_code(row),
            &given_to(row),
            &place.segment.cast_signed(),
            &place.offset,
            &place.length,
            &file.map(u64::cast_signed),
            attempt,
            &event.unproven,
            &event.took_us,
            &event.agent,
            &event.resigned,
            &event.answered_us,
        ];
        for (column, value) in values.iter().enumerate() {
            statement.raw_bind_parameter(1 + nth * WRITTEN.len() + column, value)?;
        }
    }
    statement.raw_execute()?;
    Ok(())
}

/// Writes of a row that is there what can change.
pub(super) fn update(connection: &Connection, found: &Found) -> Result<(), StoreError> {
    let Found { row, seq, place, .. } = found;
    let event = &row.summary;
    let mut statement = connection.prepare_cached(
        "UPDATE event SET state = ?2, reason = ?3, attempts = ?4, tries = ?5, fence = ?6, due_at = ?7, status = ?8, \
         settled_at = ?9, redelivered = ?10, cost = ?11, holder = ?12, given_to = ?13, segment = ?14, place = ?15, \
         length = ?16, took_us = ?17, agent = ?18, resigned = ?19, answered_us = ?20 WHERE seq = ?1",
    )?;
    statement.execute(params![
        seq,
        event.state.code(),
        event.reason.map(Reason::code),
        event.attempts,
        event.tries,
        event.fence,
        due(row),
        event.status,
        event.settled_at.map(millis),
        event.redelivered,
        row.cost,
        holder_code(row),
        given_to(row),
        place.segment.cast_signed(),
        place.offset,
        place.length,
        event.took_us,
        event.agent,
        event.resigned,
        event.answered_us,
    ])?;
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

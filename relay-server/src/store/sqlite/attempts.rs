//! Records of attempts, in their table or beside a row that is not in its table yet.
//!
//! Most events have one attempt, whose answer is short: its record stands in the event's row, and moves into the table
//! once there is another.

use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, params};

use super::{
    head,
    record::{self, AttemptFacts, Change},
    room::record_cost,
    row::{Found, millis, time},
    tx::Tx,
};
use crate::{
    hops::Hops,
    store::{Answer, Attempt, MAX_ATTEMPTS, Outcome, StoreError},
    webhook::EventId,
};

/// Records that stand beside a row outside of the table; with more of them it moves.
const MOST_BESIDE: usize = 8;

/// The longest answer of an attempt whose record stands in its event's row.
const MOST_IN_ROW: u64 = 192;

/// What of an attempt's record has a size of its own.
const RECORD_BYTES: &str = "coalesce(octet_length(headers), 0) + coalesce(octet_length(body), 0)";

fn cost(attempt: &Attempt) -> u64 {
    let answer = attempt.answer.as_ref();
    record_cost(answer.map_or(0, |answer| answer.headers.as_bytes().len() + answer.body.len()) as u64)
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
        let id = found.row.summary.id;
        self.note(&Change::Attempt(AttemptFacts::of(attempt)));
        match self.known.pending.find(key, id) {
            Some(pending) if pending.attempts.len() < MOST_BESIDE => {
                let before = pending.attempts.iter().find(|there| there.fence == attempt.fence).map_or(0, cost);
                found.row.cost = (found.row.cost + cost(attempt)).saturating_sub(before);
                self.beside = Some(attempt.clone());
                return Ok(());
            }
            Some(_) => self.known.pending.move_one(self.connection, key, id)?,
            None => {}
        }
        put(self.connection, key, found, attempt)
    }

    pub(super) fn attempts(&self, key: i64, id: EventId) -> Result<Vec<Attempt>, StoreError> {
        match self.known.pending.find(key, id) {
            Some(pending) => Ok(pending.attempts.clone()),
            None => read(self.connection, key, id),
        }
    }

    /// What an event's handler answered last.
    pub(super) fn last_answer(&self, key: i64, id: EventId) -> Result<Option<Answer>, StoreError> {
        if let Some(pending) = self.known.pending.find(key, id) {
            return Ok(pending.attempts.iter().rev().find_map(|attempt| attempt.answer.clone()));
        }
        if let Some(only) = of_row(self.connection, key, id)? {
            return Ok(only.answer);
        }
        let mut query = self.connection.prepare_cached(
            "SELECT status, headers, body, truncated FROM attempt \
             WHERE endpoint = ?1 AND id = ?2 AND status IS NOT NULL ORDER BY fence DESC LIMIT 1",
        )?;
        query.query_and_then(params![key, id.as_bytes()], |row| answer(row, 0))?.next().transpose()
    }
}

/// Puts a record among others, in place of that of its fence.
pub(super) fn put_among(attempts: &mut Vec<Attempt>, attempt: Attempt) {
    match attempts.binary_search_by_key(&attempt.fence, |there| there.fence) {
        Err(place) => attempts.insert(place, attempt),
        Ok(place) => attempts[place] = attempt,
    }
}

/// The record of an only attempt as it stands in the event's row, if it does.
pub(super) fn in_row(attempts: &[Attempt]) -> Option<Vec<u8>> {
    match attempts {
        [only] if cost(only) <= record_cost(MOST_IN_ROW) => Some(AttemptFacts::of(only).write()),
        _ => None,
    }
}

fn of_row(connection: &Connection, key: i64, id: EventId) -> Result<Option<Attempt>, StoreError> {
    let mut query = connection
        .prepare_cached("SELECT attempt FROM event WHERE endpoint = ?1 AND id = ?2 AND attempt IS NOT NULL")?;
    let bytes: Option<Vec<u8>> = query.query_row(params![key, id.as_bytes()], |row| row.get(0)).optional()?;
    let attempt = bytes.map(|bytes| record::read_attempt(&bytes)).transpose();
    attempt.map_err(|error| StoreError::Internal(error.to_string()))
}

/// Has the record that stands in the event's row in the table, where others can stand beside it.
fn take_out_of_row(connection: &Connection, key: i64, id: EventId) -> Result<(), StoreError> {
    let Some(only) = of_row(connection, key, id)? else { return Ok(()) };
    write(connection, key, id, &only)?;
    let mut update = connection.prepare_cached("UPDATE event SET attempt = NULL WHERE endpoint = ?1 AND id = ?2")?;
    update.execute(params![key, id.as_bytes()])?;
    Ok(())
}

/// Writes an attempt into the table, and counts what the event takes then.
pub(super) fn put(connection: &Connection, key: i64, found: &mut Found, attempt: &Attempt) -> Result<(), StoreError> {
    let (id, row) = (found.row.summary.id, &mut found.row);
    take_out_of_row(connection, key, id)?;
    let mut query = connection.prepare_cached(&format!(
        "SELECT {RECORD_BYTES} FROM attempt WHERE endpoint = ?1 AND id = ?2 AND fence = ?3"
    ))?;
    let before: Option<u64> =
        query.query_row(params![key, id.as_bytes(), attempt.fence], |row| row.get(0)).optional()?;
    write(connection, key, id, attempt)?;
    row.cost = (row.cost + cost(attempt)).saturating_sub(before.map_or(0, record_cost));
    // Each record has a fence of its own, so that there are never more than the newest one says.
    if row.summary.fence > MAX_ATTEMPTS as u64 {
        row.cost = row.cost.saturating_sub(thin_out(connection, key, id)?);
    }
    Ok(())
}

pub(super) fn write(connection: &Connection, key: i64, id: EventId, attempt: &Attempt) -> Result<(), StoreError> {
    let answer = attempt.answer.as_ref();
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO attempt (endpoint, id, fence, number, started_at, duration_us, outcome, agent, \
         status, headers, body, truncated, resigned, sha256_in, hops) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    insert.execute(params![
        key,
        id.as_bytes(),
        attempt.fence,
        attempt.number,
        millis(attempt.started_at),
        u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX >> 1),
        attempt.outcome.code(),
        attempt.agent,
        answer.map(|answer| answer.status),
        answer.map(|answer| &answer.headers.as_bytes()[..]),
        answer.map(|answer| &answer.body[..]).filter(|body| !body.is_empty()),
        answer.is_some_and(|answer| answer.truncated),
        attempt.resigned,
        attempt.sha256_in,
        attempt.hops.to_bytes(),
    ])?;
    Ok(())
}

/// Leaves the first and the last records; what the others took.
fn thin_out(connection: &Connection, key: i64, id: EventId) -> Result<u64, StoreError> {
    let mut delete = connection.prepare_cached(&format!(
        "DELETE FROM attempt WHERE endpoint = ?1 AND id = ?2 \
         AND fence > (SELECT min(fence) FROM attempt WHERE endpoint = ?1 AND id = ?2) \
         AND fence < (SELECT fence FROM attempt WHERE endpoint = ?1 AND id = ?2 ORDER BY fence DESC LIMIT 1 OFFSET ?3) \
         RETURNING {RECORD_BYTES}",
    ))?;
    let gone = delete.query_map(params![key, id.as_bytes(), MAX_ATTEMPTS as u64 - 2], |row| row.get(0))?;
    gone.map(|bytes| Ok(record_cost(bytes?))).sum()
}

/// Reads status, headers, body and truncated, which is there only with a status.
fn answer(row: &SqlRow<'_>, first: usize) -> Result<Answer, StoreError> {
    let headers: Vec<u8> = row.get(first + 1)?;
    let body: Option<Vec<u8>> = row.get(first + 2)?;
    Ok(Answer {
        status: row.get(first)?,
        headers: head::read_headers(headers.into())?,
        body: body.unwrap_or_default().into(),
        truncated: row.get(first + 3)?,
    })
}

pub(super) fn read(connection: &Connection, key: i64, id: EventId) -> Result<Vec<Attempt>, StoreError> {
    if let Some(only) = of_row(connection, key, id)? {
        return Ok(vec![only]);
    }
    let mut query = connection.prepare_cached(
        "SELECT fence, number, started_at, duration_us, outcome, agent, status, headers, body, truncated, resigned, \
         sha256_in, hops FROM attempt WHERE endpoint = ?1 AND id = ?2 ORDER BY fence",
    )?;
    let attempts = query.query_and_then(params![key, id.as_bytes()], |row| {
        let outcome: String = row.get(4)?;
        let outcome = Outcome::from_code(&outcome)
            .ok_or_else(|| StoreError::Internal(format!("an attempt of outcome {outcome}")))?;
        let status: Option<u16> = row.get(6)?;
        Ok(Attempt {
            fence: row.get(0)?,
            number: row.get(1)?,
            started_at: time(row.get(2)?),
            duration: std::time::Duration::from_micros(row.get(3)?),
            outcome,
            agent: row.get(5)?,
            answer: status.map(|_| answer(row, 6)).transpose()?,
            resigned: row.get(10)?,
            sha256_in: row.get(11)?,
            hops: Hops::from_bytes(&row.get::<_, Vec<u8>>(12)?),
        })
    })?;
    attempts.collect()
}

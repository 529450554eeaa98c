//! Heads, bodies and attempts on their way out, each checked against what went in.

use std::ops::Range;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, params};
use sha2::{Digest as _, Sha256};

use super::{
    head::{self, WrittenHead},
    intake::CHUNK_BYTES,
    room::record_cost,
    row::{Found, millis, time},
};
use crate::{
    store::{
        Answer, Attempt, Head, MAX_ATTEMPTS, MAX_RANGE_BYTES, Outcome, StoreError,
        rules::{self, Row},
    },
    webhook::EventId,
};

pub(super) struct Content {
    pub(super) head: Head,
    /// The whole body, if it stands beside its head.
    pub(super) body: Option<Bytes>,
    pub(super) blob: Option<i64>,
}

/// Reads what an event carries. Any difference from what went in makes it [`StoreError::Damaged`].
///
/// A long body is only read through if `whole` asks for it.
pub(super) fn read(connection: &Connection, found: &Found, whole: bool) -> Result<Content, StoreError> {
    let event = &found.row.summary;
    let damaged = || StoreError::Damaged(event.id);
    let mut query =
        connection.prepare_cached("SELECT checksum, head, headers, body, blob FROM content WHERE seq = ?1")?;
    let stored = query
        .query_row([found.seq], |row| {
            let checksum: Vec<u8> = row.get(0)?;
            let (headers, body): (Vec<u8>, Option<Vec<u8>>) = (row.get(2)?, row.get(3)?);
            // A flipped bit can make any byte of a text.
            let head = String::from_utf8(row.get_ref(1)?.as_bytes()?.to_vec());
            let head = head.map(|text| WrittenHead { text, headers: headers.into() });
            Ok((checksum, head, body, row.get::<_, Option<i64>>(4)?))
        })
        .optional()?;
    let Some((checksum, Ok(head), body, blob)) = stored else { return Err(damaged()) };
    if rules::checksum(&event.endpoint, event.id, &head.text, &head.headers, &event.body_sha256)[..] != checksum {
        return Err(damaged());
    }
    let sha256 = match (&body, blob) {
        (Some(body), None) => Some(rules::sha256(body)),
        (None, Some(blob)) if whole => Some(sha256_of_chunks(connection, blob)?),
        (None, Some(_)) => None,
        _ => return Err(damaged()),
    };
    if sha256.is_some_and(|sha256| sha256 != event.body_sha256) {
        return Err(damaged());
    }
    let head = head::read(head).map_err(|_| damaged())?;
    Ok(Content { head, body: body.map(Bytes::from), blob })
}

fn sha256_of_chunks(connection: &Connection, blob: i64) -> Result<[u8; 32], StoreError> {
    let mut query = connection.prepare_cached("SELECT data FROM chunk WHERE blob = ?1 ORDER BY n")?;
    let mut rows = query.query([blob])?;
    let mut sha256 = Sha256::default();
    while let Some(row) = rows.next()? {
        sha256.update(row.get_ref(0)?.as_blob().unwrap_or_default());
    }
    Ok(sha256.finalize().into())
}

fn range(connection: &Connection, id: EventId, blob: i64, range: Range<u64>) -> Result<Bytes, StoreError> {
    let end = range.end.min(range.start.saturating_add(MAX_RANGE_BYTES));
    if range.start >= end {
        return Ok(Bytes::new());
    }
    let chunk = CHUNK_BYTES as u64;
    let mut query = connection
        .prepare_cached("SELECT n, sha256, data FROM chunk WHERE blob = ?1 AND n BETWEEN ?2 AND ?3 ORDER BY n")?;
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut rows = query.query(params![blob, number(range.start / chunk), number((end - 1) / chunk)])?;
    let mut part = Vec::new();
    while let Some(row) = rows.next()? {
        let (n, data): (u64, &[u8]) = (row.get(0)?, row.get_ref(2)?.as_blob().unwrap_or_default());
        if row.get_ref(1)?.as_blob().unwrap_or_default() != rules::sha256(data) {
            return Err(StoreError::Damaged(id));
        }
        let at = |place: u64| usize::try_from(place.saturating_sub(n * chunk)).unwrap_or(usize::MAX).min(data.len());
        part.extend_from_slice(&data[at(range.start)..at(end)]);
    }
    Ok(part.into())
}

/// Notes chunks down to be removed, if no event has them.
pub(super) fn let_go(connection: &Connection, blob: i64) -> Result<(), StoreError> {
    let mut note = connection.prepare_cached(
        "INSERT OR REPLACE INTO staging (blob, dropped) SELECT ?1, 1 WHERE NOT EXISTS (SELECT 1 FROM content WHERE blob = ?1)",
    )?;
    note.execute([blob])?;
    Ok(())
}

/// Reads status, headers, body and truncated, which is there only with a status.
pub(super) fn answer(row: &SqlRow<'_>, first: usize) -> Result<Answer, StoreError> {
    let headers: Vec<u8> = row.get(first + 1)?;
    let body: Option<Vec<u8>> = row.get(first + 2)?;
    Ok(Answer {
        status: row.get(first)?,
        headers: head::read_headers(headers.into())?,
        body: body.unwrap_or_default().into(),
        truncated: row.get(first + 3)?,
    })
}

pub(super) fn attempts(connection: &Connection, key: i64, id: EventId) -> Result<Vec<Attempt>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT fence, number, started_at, duration_us, outcome, agent, status, headers, body, truncated \
         FROM attempt WHERE endpoint = ?1 AND id = ?2 ORDER BY fence",
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
        })
    })?;
    attempts.collect()
}

/// Writes an attempt, and counts what the event takes then; `over` replaces what was noted for its fence.
pub(super) fn put_attempt(
    connection: &Connection,
    key: i64,
    row: &mut Row,
    attempt: &Attempt,
    over: bool,
) -> Result<(), StoreError> {
    let id = row.summary.id;
    let answer = attempt.answer.as_ref();
    let headers = answer.map(|answer| &answer.headers.as_bytes()[..]);
    let body = answer.map(|answer| &answer.body[..]).filter(|body| !body.is_empty());
    let cost = record_cost((headers.map_or(0, <[u8]>::len) + body.map_or(0, <[u8]>::len)) as u64);
    let put = |what: &str| {
        let mut insert = connection.prepare_cached(&format!(
            "INSERT OR {what} INTO attempt (endpoint, id, fence, number, started_at, duration_us, outcome, agent, \
             status, headers, body, truncated) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
        ))?;
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
            headers,
            body,
            answer.is_some_and(|answer| answer.truncated),
        ])
    };
    if put("IGNORE")? == 1 {
        row.cost += cost;
    } else if over {
        let mut query = connection.prepare_cached(&format!(
            "SELECT {RECORD_BYTES} FROM attempt WHERE endpoint = ?1 AND id = ?2 AND fence = ?3"
        ))?;
        let before = query.query_row(params![key, id.as_bytes(), attempt.fence], |row| row.get(0))?;
        put("REPLACE")?;
        row.cost = (row.cost + cost).saturating_sub(record_cost(before));
    }
    // Each record has a fence of its own, so that there are never more than the newest one says.
    if row.summary.fence > MAX_ATTEMPTS as u64 {
        row.cost = row.cost.saturating_sub(thin_out(connection, key, id)?);
    }
    Ok(())
}

/// What of an attempt's record has a size of its own.
const RECORD_BYTES: &str = "coalesce(octet_length(headers), 0) + coalesce(octet_length(body), 0)";

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

/// A part of a body, wherever it stands.
pub(super) fn part(
    connection: &Connection,
    id: EventId,
    content: &Content,
    part: Range<u64>,
) -> Result<Bytes, StoreError> {
    if let Some(blob) = content.blob {
        return range(connection, id, blob, part);
    }
    let body = content.body.clone().unwrap_or_default();
    let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(body.len());
    Ok(body.slice(at(part.start)..at(part.end).max(at(part.start))))
}

//! Refused requests: bounded by number for each endpoint, by age, and by bytes in all.
//!
//! Senders that prove nothing fill this table, so making room costs the writer little: what each endpoint has is summed
//! up once and then counted along.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{
    listing,
    row::{millis, time},
    tx::Tx,
};
use crate::{
    endpoint::EndpointName,
    store::{MAX_PAGE, MAX_REFUSED, MAX_REFUSED_AGE, MAX_REFUSED_BYTES, RefusedRow, StoreError},
    webhook::EventId,
};

/// Rows of one endpoint that one round of housekeeping removes for their age.
const FORGET: u64 = 100;

pub(super) fn refuse(tx: &mut Tx<'_>, rows: &[RefusedRow], max_bytes: u64) -> Result<(), StoreError> {
    tx.make_space(rows.iter().map(RefusedRow::bytes).sum())?;
    for row in rows {
        let key = tx.endpoint_or_new(&row.endpoint)?;
        let body = &row.body[..row.body.len().min(MAX_REFUSED_BYTES)];
        let mut insert =
            tx.connection.prepare_cached("INSERT OR IGNORE INTO refused VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        // Summed up before it is there.
        let _summed_up = tx.refused_bytes()?;
        if insert.execute(params![key, row.id.as_bytes(), millis(row.at), row.status, row.code, row.head, body])? == 1 {
            *tx.refused_bytes()?.entry(key).or_default() += (row.head.len() + body.len()) as u64;
        }
        let id = "id <= (SELECT id FROM refused WHERE endpoint = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
        remove(tx, key, id, MAX_REFUSED as u64)?;
    }
    while tx.refused_bytes()?.values().sum::<u64>() > max_bytes {
        let largest = tx.refused_bytes()?.iter().max_by_key(|(_, bytes)| **bytes).map(|(key, _)| *key);
        let Some(key) = largest else { break };
        if remove(tx, key, "id IN (SELECT id FROM refused WHERE endpoint = ?1 ORDER BY id LIMIT ?2)", 1)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Removes rows of an endpoint, and counts them off; says how many.
fn remove(tx: &mut Tx<'_>, key: i64, which: &str, number: u64) -> Result<usize, StoreError> {
    let (mut removed, mut freed) = (0, 0);
    {
        let mut delete = tx.connection.prepare_cached(&format!(
            "DELETE FROM refused WHERE endpoint = ?1 AND {which} RETURNING octet_length(head) + octet_length(body)"
        ))?;
        for bytes in delete.query_map(params![key, number], |row| row.get::<_, u64>(0))? {
            (removed, freed) = (removed + 1, freed + bytes?);
        }
    }
    let sum = tx.refused_bytes()?.entry(key).or_default();
    *sum = sum.saturating_sub(freed);
    Ok(removed)
}

/// Removes what is too old, a part of it at a time.
pub(super) fn forget(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let before = now.saturating_sub(MAX_REFUSED_AGE).map_or(0, millis);
    for (_, key) in listing::endpoints(tx.connection)? {
        let _summed_up = tx.refused_bytes()?;
        // Ids rise with time: the oldest row is the first.
        let which =
            format!("at <= {before} AND id IN (SELECT id FROM refused WHERE endpoint = ?1 ORDER BY id LIMIT ?2)");
        remove(tx, key, &which, FORGET)?;
    }
    Ok(())
}

const COLUMNS: &str = "SELECT n.name, r.id, r.at, r.status, r.code, r.head";
const TABLES: &str = "FROM refused r JOIN endpoint n ON n.key = r.endpoint";

/// Without their bodies.
pub(super) fn refused(
    connection: &Connection,
    endpoint: Option<&EndpointName>,
    limit: usize,
) -> Result<Vec<RefusedRow>, StoreError> {
    let mut query = connection.prepare_cached(&format!(
        "{COLUMNS}, x'' {TABLES} WHERE ?1 IS NULL OR n.name = ?1 ORDER BY r.id DESC LIMIT ?2"
    ))?;
    let rows = query.query_map(params![endpoint.map(EndpointName::as_str), limit.min(MAX_PAGE) as u64], one)?;
    // A name that is none any more is nobody's.
    rows.filter_map(|row| row.transpose()).map(|row| Ok(row?)).collect()
}

pub(super) fn request(connection: &Connection, id: EventId) -> Result<Option<RefusedRow>, StoreError> {
    let mut query =
        connection.prepare_cached(&format!("{COLUMNS}, r.body {TABLES} WHERE r.endpoint = ?1 AND r.id = ?2"))?;
    for (_, key) in listing::endpoints(connection)? {
        if let Some(found) = query.query_row(params![key, id.as_bytes()], one).optional()? {
            return Ok(found);
        }
    }
    Ok(None)
}

fn one(row: &Row<'_>) -> rusqlite::Result<Option<RefusedRow>> {
    let name: String = row.get(0)?;
    let Ok(endpoint) = EndpointName::parse(&name) else { return Ok(None) };
    Ok(Some(RefusedRow {
        endpoint,
        id: EventId::from_bytes(row.get(1)?),
        at: time(row.get(2)?),
        status: row.get(3)?,
        code: row.get(4)?,
        head: row.get(5)?,
        body: row.get::<_, Vec<u8>>(6)?.into(),
    }))
}

//! Housekeeping: a reader looks for what may go, the writer removes it in small transactions.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    content, intake,
    row::{self, PARKED, millis, time},
    schema::PAGE_BYTES,
    writer::Tx,
};
use crate::{
    store::{Purge, PurgeCursor, Purged, Reason, State, StoreError},
    webhook::EventId,
};

/// Events that one call looks at, and the most that it removes.
const LOOK: usize = 5000;
const REMOVE: usize = 500;

/// Keys that one round looks at.
const KEYS: i64 = 20_000;

/// Pages given back to the file system at a time.
const PAGES: u64 = 512;

/// What an event costs beside its body, roughly.
const EVENT_BYTES: u64 = 600;

/// What a reader found.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    /// By number of endpoint and id.
    old: Vec<(i64, EventId)>,
    expired: Vec<(i64, EventId)>,
    excess: Vec<(i64, EventId)>,
    next: Option<PurgeCursor>,
}

impl Candidates {
    fn count(&self) -> usize {
        self.old.len() + self.expired.len() + self.excess.len()
    }
}

fn is_over(from: Timestamp, keep: Duration, now: Timestamp) -> bool {
    from.saturating_add(keep).is_ok_and(|ends| ends <= now)
}

pub(super) fn look(
    connection: &Connection,
    policy: &Purge,
    used_bytes: u64,
    now: Timestamp,
) -> Result<Candidates, StoreError> {
    let mut found = Candidates::default();
    let mut excess = used_bytes.saturating_sub(policy.max_bytes);
    let after = policy.cursor.map_or(0, |cursor| i64::try_from(cursor.0).unwrap_or(i64::MAX));
    let mut query = connection.prepare_cached(
        "SELECT c.seq, c.endpoint, c.id, e.received_at, e.settled_at, e.size FROM content c \
         JOIN event e ON e.endpoint = c.endpoint AND e.id = c.id WHERE c.seq > ?1 ORDER BY c.seq LIMIT ?2",
    )?;
    let mut rows = query.query(params![after, LOOK as u64])?;
    let mut looked = 0;
    while let Some(row) = rows.next()? {
        looked += 1;
        let event = (row.get(1)?, EventId::from_bytes(row.get(2)?));
        let received = time(row.get(3)?);
        let settled = row.get::<_, Option<i64>>(4)?.map(time);
        match settled {
            Some(settled) if is_over(settled, policy.retention, now) => found.old.push(event),
            Some(_) if excess > 0 => {
                excess = excess.saturating_sub(row.get::<_, u64>(5)? + EVENT_BYTES);
                found.excess.push(event);
            }
            None if is_over(received, policy.pending_retention, now) => found.expired.push(event),
            // Events stand in the order in which they came: nothing after a young one can be old.
            _ if excess == 0 && !is_over(received, policy.retention.min(policy.pending_retention), now) => {
                return Ok(found);
            }
            _ => {}
        }
        if looked == LOOK || found.count() == REMOVE {
            found.next = Some(PurgeCursor(row.get::<_, u64>(0)?.into()));
            break;
        }
    }
    Ok(found)
}

/// Removes what was found, if it is still as it was.
pub(super) fn remove(
    tx: &Tx<'_>,
    found: &Candidates,
    keys_after: &mut Option<[u8; 16]>,
    now: Timestamp,
) -> Result<Purged, StoreError> {
    let mut purged = Purged { next: found.next, ..Purged::default() };
    for (key, id) in &found.old {
        purged.removed += u64::from(delete(tx.connection, *key, *id)?);
    }
    for (key, id) in &found.excess {
        purged.evicted += u64::from(delete(tx.connection, *key, *id)?);
    }
    for (key, id) in &found.expired {
        purged.expired += u64::from(expire(tx, *key, *id, now)?);
    }
    if found.next.is_none() {
        *keys_after = sweep_keys(tx.connection, *keys_after)?;
        intake::sweep_staging(tx.connection, tx.blobs_before())?;
        shrink(tx.connection)?;
    }
    Ok(purged)
}

fn delete(connection: &Connection, key: i64, id: EventId) -> Result<bool, StoreError> {
    let mut event = connection
        .prepare_cached("DELETE FROM event WHERE endpoint = ?1 AND id = ?2 AND due_at IS NULL RETURNING seq")?;
    let seq: Option<i64> = event.query_row(params![key, id.as_bytes()], |row| row.get(0)).optional()?;
    let Some(seq) = seq else { return Ok(false) };
    let mut attempts = connection.prepare_cached("DELETE FROM attempt WHERE endpoint = ?1 AND id = ?2")?;
    attempts.execute(params![key, id.as_bytes()])?;
    let mut content = connection.prepare_cached("DELETE FROM content WHERE seq = ?1 RETURNING blob")?;
    let blob: Option<Option<i64>> = content.query_row([seq], |row| row.get(0)).optional()?;
    if let Some(blob) = blob.flatten() {
        content::delete_unused_chunks(connection, blob)?;
    }
    Ok(true)
}

fn expire(tx: &Tx<'_>, key: i64, id: EventId, now: Timestamp) -> Result<bool, StoreError> {
    let mut query = tx.connection.prepare_cached(
        "UPDATE event SET state = ?3, reason = ?4, settled_at = ?5, due_at = NULL \
         WHERE endpoint = ?1 AND id = ?2 AND state = 0 RETURNING order_key",
    )?;
    let reason = Reason::AgentAbsent.code();
    let was = params![key, id.as_bytes(), State::Dead.code(), reason, millis(now)];
    let order: Option<Option<String>> = query.query_row(was, |row| row.get(0)).optional()?;
    if let Some(Some(order)) = &order {
        let mut next = tx.connection.prepare_cached(
            "UPDATE event SET due_at = ?3 WHERE endpoint = ?1 AND due_at = ?4 AND id = (SELECT id FROM event \
             INDEXED BY event_queue WHERE endpoint = ?1 AND order_key = ?2 AND due_at IS NOT NULL ORDER BY id LIMIT 1)",
        )?;
        next.execute(params![key, order, millis(now), PARKED])?;
    }
    Ok(order.is_some())
}

/// Forgets keys of events that are older than the oldest one that is there. Where to go on.
fn sweep_keys(connection: &Connection, after: Option<[u8; 16]>) -> Result<Option<[u8; 16]>, StoreError> {
    let after = after.unwrap_or_default();
    let mut query = connection.prepare_cached("SELECT id FROM content ORDER BY seq LIMIT 1")?;
    let oldest: Option<[u8; 16]> = query.query_row([], |row| row.get(0)).optional()?;
    let mut last = connection.prepare_cached("SELECT hash FROM key WHERE hash > ?1 ORDER BY hash LIMIT 1 OFFSET ?2")?;
    let last: Option<[u8; 16]> = last.query_row(params![after, KEYS], |row| row.get(0)).optional()?;
    // An id begins with its time: an hour is left for ids that were made out of order.
    let mut edge = oldest.unwrap_or([0xff; 16]);
    let millis = u64::from_be_bytes([0, 0, edge[0], edge[1], edge[2], edge[3], edge[4], edge[5]]);
    if oldest.is_some() {
        edge = [0; 16];
        edge[..6].copy_from_slice(&millis.saturating_sub(3_600_000).to_be_bytes()[2..]);
    }
    let mut delete = connection.prepare_cached("DELETE FROM key WHERE hash > ?1 AND hash <= ?2 AND id < ?3")?;
    delete.execute(params![after, last.unwrap_or([0xff; 16]), edge])?;
    Ok(last)
}

/// Gives space back when a tenth of the file is free.
fn shrink(connection: &Connection) -> Result<(), StoreError> {
    let pages = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    let (all, free) = (pages("page_count")?, pages("freelist_count")?);
    if free * PAGE_BYTES < 8 * 1024 * 1024 || free < all / 10 {
        return Ok(());
    }
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut steps = vacuum.query([])?;
    while steps.next()?.is_some() {}
    Ok(())
}

/// Sets an event apart that was found damaged on its way out.
pub(super) fn set_apart(
    tx: &mut Tx<'_>,
    endpoint: &crate::endpoint::EndpointName,
    id: EventId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(key) = tx.endpoint(endpoint)? else { return Ok(()) };
    match row::load(tx.connection, endpoint, key, id)? {
        Some(found) if found.row.summary.state != State::Damaged => super::hand::quarantine(tx, key, found, now),
        _ => Ok(()),
    }
}

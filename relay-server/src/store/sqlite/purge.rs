//! Housekeeping: a reader looks for what may go, the writer removes it in small transactions.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    event_record::Course,
    marks, operator_actions, refused,
    row::{self, number, time},
    schema::PAGE_BYTES,
    tx::Tx,
};
use crate::{
    endpoint::EndpointName,
    store::{Purge, PurgeCursor, Purged, StoreError, rules::is_over},
    webhook::EventId,
};

/// Events that one call looks at, and the most that it removes.
const LOOK: usize = 5000;
const REMOVE: usize = 500;

/// Pages given back to the file system at a time.
const PAGES: u64 = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    /// By number of endpoint and id.
    old: Vec<(i64, EventId)>,
    excess: Vec<(i64, EventId)>,
    expired: Vec<(EndpointName, EventId)>,
    next: Option<PurgeCursor>,
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
        "SELECT e.seq, e.endpoint, e.id, e.received_at, e.course, e.cost, n.name, e.ended FROM event e \
         CROSS JOIN endpoint n ON n.key = e.endpoint WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?2",
    )?;
    let mut rows = query.query(params![after, LOOK as u64])?;
    let mut looked = 0;
    while let Some(row) = rows.next()? {
        looked += 1;
        let event = (row.get(1)?, EventId::from_bytes(row.get(2)?));
        let received = time(row.get(3)?);
        let settled = match Course::read(row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?) {
            Ok(course) => course.settled_at(row.get(3)?).map(time),
            // Of a damaged one it is not known when it ended.
            Err(_) => row.get::<_, bool>(7)?.then_some(received),
        };
        match settled {
            Some(settled) if is_over(settled, policy.retention, now) => found.old.push(event),
            Some(_) if excess > 0 => {
                excess = excess.saturating_sub(row.get::<_, u64>(5)?);
                found.excess.push(event);
            }
            None if is_over(received, policy.pending_retention, now) => {
                let name: String = row.get(6)?;
                found.expired.extend(EndpointName::parse(&name).ok().map(|name| (name, event.1)));
            }
            // Events stand in the order in which they came: nothing after a young one can be old.
            _ if excess == 0 && !is_over(received, policy.retention.min(policy.pending_retention), now) => {
                return Ok(found);
            }
            _ => {}
        }
        if looked == LOOK || found.old.len() + found.expired.len() + found.excess.len() == REMOVE {
            found.next = Some(PurgeCursor(row.get::<_, u64>(0)?.into()));
            break;
        }
    }
    Ok(found)
}

/// Removes what was found, if it is still as it was.
pub(super) fn remove(
    tx: &mut Tx<'_>,
    policy: &Purge,
    found: &Candidates,
    now: Timestamp,
) -> Result<Purged, StoreError> {
    let mut purged = Purged { next: found.next, ..Purged::default() };
    for (key, id) in &found.old {
        purged.removed += u64::from(delete(tx, *key, *id)?.is_some());
    }
    for (key, id) in &found.excess {
        purged.evicted += u64::from(delete(tx, *key, *id)?.is_some());
    }
    for (endpoint, id) in &found.expired {
        purged.expired += u64::from(expire(tx, endpoint, *id, policy.pending_retention, now)?);
    }
    tx.keys.sweep(tx.connection, now)?;
    if found.next.is_none() {
        refused::forget(tx, now)?;
        marks::forget(tx, now)?;
        shrink(tx.connection)?;
    }
    Ok(purged)
}

/// Removes an event, if it has ended; what it took.
///
/// The log says nothing of it: a start that does not know of it has the event once more, and it gives way again.
pub(super) fn delete(tx: &mut Tx<'_>, key: i64, id: EventId) -> Result<Option<u64>, StoreError> {
    tx.known.pending.move_one(tx.connection, key, id)?;
    let mut event = tx.connection.prepare_cached(
        "DELETE FROM event INDEXED BY event_ended WHERE endpoint = ?1 AND id = ?2 AND ended = 1 \
         RETURNING cost, place, length, file",
    )?;
    let gone = event.query_row(params![key, id.as_bytes()], |row| {
        Ok((row.get(0)?, row::place(row.get(1)?, row.get(2)?), row.get::<_, Option<i64>>(3)?.map(number)))
    });
    let Some((cost, place, file)) = gone.optional()? else { return Ok(None) };
    tx.uncount(key, place, cost);
    tx.room.unused_files.extend(file);
    let mut attempts = tx.connection.prepare_cached("DELETE FROM attempt WHERE endpoint = ?1 AND id = ?2")?;
    attempts.execute(params![key, id.as_bytes()])?;
    Ok(Some(cost))
}

fn expire(
    tx: &mut Tx<'_>,
    endpoint: &EndpointName,
    id: EventId,
    keep: Duration,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(key) = tx.endpoint(endpoint)? else { return Ok(false) };
    let Some(mut found) = tx.load(endpoint, key, id)? else { return Ok(false) };
    if found.is_to_set_apart() {
        operator_actions::quarantine(tx, key, found, now)?;
        return Ok(false);
    }
    let was_parked = found.row.summary.parked;
    let expires = found.row.expire(keep, now);
    if expires {
        tx.store_ended(key, found, was_parked, now)?;
    }
    Ok(expires)
}

/// Gives space back when a tenth of the file is free.
fn shrink(connection: &Connection) -> Result<(), StoreError> {
    let number = |pragma: &str| connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, u64>(0));
    let (all, free) = (number("PRAGMA page_count")?, number("PRAGMA freelist_count")?);
    if free * PAGE_BYTES < 8 * 1024 * 1024 || free < all / 10 {
        return Ok(());
    }
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut steps = vacuum.query([])?;
    while steps.next()?.is_some() {}
    Ok(())
}

//! Leases: claiming what is due, holding on to it, and what becomes of it.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::{
    content,
    row::{self, Found, PARKED, millis, time},
    writer::Tx,
    young::Loaded,
};
use crate::{
    endpoint::EndpointName,
    store::{Attempt, End, Ended, Hold, Lease, MAX_CLAIM, StoreError, Want, rules},
    webhook::EventId,
};

/// Events that are leased, and when each endpoint is due again.
#[derive(Default)]
pub(super) struct Leased {
    pub(super) events: Vec<(Found, Lease)>,
    pub(super) next_due: Vec<(EndpointName, Timestamp)>,
}

pub(super) fn claim(tx: &mut Tx<'_>, wants: &[Want], until: Timestamp, now: Timestamp) -> Result<Leased, StoreError> {
    let mut leased = Leased::default();
    for want in wants {
        let Some(key) = tx.endpoint(&want.endpoint)? else { continue };
        let mut paused = tx.connection.prepare_cached("SELECT paused_at IS NOT NULL FROM endpoint WHERE key = ?1")?;
        if paused.query_row([key], |row| row.get(0))? {
            continue;
        }
        let mut ids = due(tx, key, "due_at, id", want.oldest, now)?;
        for id in due(tx, key, "due_at DESC, id DESC", want.newest, now)? {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        for id in ids {
            leased.events.extend(lease(tx, &want.endpoint, key, id, until, now)?);
        }
        let mut next = tx.connection.prepare_cached(
            "SELECT due_at FROM event INDEXED BY event_due WHERE endpoint = ?1 AND due_at < ?2 ORDER BY due_at LIMIT 1",
        )?;
        let next = next.query_row([key, PARKED], |row| row.get(0)).optional()?;
        leased.next_due.extend(next.map(|due| (want.endpoint.clone(), time(due))));
    }
    Ok(leased)
}

fn due(tx: &Tx<'_>, key: i64, order: &str, limit: usize, now: Timestamp) -> Result<Vec<EventId>, StoreError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let mut query = tx.connection.prepare_cached(&format!(
        "SELECT id FROM event INDEXED BY event_due WHERE endpoint = ?1 AND due_at <= ?2 ORDER BY {order} LIMIT ?3"
    ))?;
    let limit = limit.min(MAX_CLAIM) as u64;
    let ids = query.query_map(params![key, millis(now), limit], |row| row.get(0).map(EventId::from_bytes))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

fn lease(
    tx: &mut Tx<'_>,
    endpoint: &EndpointName,
    key: i64,
    id: EventId,
    until: Timestamp,
    now: Timestamp,
) -> Result<Option<(Found, Lease)>, StoreError> {
    let Some(mut found) = row::load(tx.connection, endpoint, key, id)? else { return Ok(None) };
    let (lease, lost) = found.row.lease(until, now);
    if let Some(lost) = lost {
        content::put_attempt(tx.connection, key, &mut found.row, &lost, false)?;
    }
    row::update(tx.connection, key, &found.row)?;
    tx.count(key, &mut found);
    Ok(Some((found, lease)))
}

pub(super) fn extend(tx: &mut Tx<'_>, holds: &[Hold], until: Timestamp) -> Result<Vec<bool>, StoreError> {
    let mut held = Vec::with_capacity(holds.len());
    for hold in holds {
        let key = tx.endpoint(&hold.endpoint)?;
        let mut update = tx.connection.prepare_cached(
            "UPDATE event SET due_at = ?4 WHERE endpoint = ?1 AND id = ?2 AND fence = ?3 AND state = 1",
        )?;
        let changed = match key {
            Some(key) => update.execute(params![key, hold.id.as_bytes(), hold.fence, millis(until)])?,
            None => 0,
        };
        held.push(changed == 1);
    }
    Ok(held)
}

pub(super) fn settle(tx: &mut Tx<'_>, end: &End, now: Timestamp) -> Result<Ended, StoreError> {
    let Some(key) = tx.endpoint(&end.endpoint)? else { return Ok(Ended::Unknown) };
    let Some(loaded) = tx.load(&end.endpoint, key, end.id)? else { return Ok(Ended::Unknown) };
    let Loaded { mut found, is_young } = loaded;
    let ended = found.row.settle(end, now);
    let attempt: &Attempt = &end.attempt;
    if rules::leaves_record(end, ended) {
        content::put_attempt(tx.connection, key, &mut found.row, attempt, true)?;
    }
    match ended {
        Ended::Settled(_) if is_young => tx.grow(key, &found)?,
        Ended::Settled(state) if !state.is_open() => {
            row::update_ended(tx.connection, key, &found.row, false, now)?;
        }
        Ended::Settled(_) => row::update(tx.connection, key, &found.row)?,
        // The row is as it was, but for what the record takes.
        Ended::Recorded if is_young => tx.grow(key, &found)?,
        Ended::Recorded => row::update(tx.connection, key, &found.row)?,
        Ended::Unknown => {}
    }
    tx.count(key, &mut found);
    Ok(ended)
}

//! Leases: claiming what is due, holding on to it, and what becomes of it.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    content, listing, operator_actions,
    row::{self, Found, PARKED, millis, time},
    writer::Tx,
};
use crate::{
    endpoint::EndpointName,
    store::{End, Ended, Grant, Hold, Holder, Lease, MAX_CLAIM, MAX_PAGE, State, StoreError, Want, rules},
    webhook::EventId,
};

/// Events that are leased, and when each endpoint is due again.
#[derive(Default)]
pub(super) struct Leased {
    pub(super) events: Vec<(Found, Lease)>,
    pub(super) next_due: Vec<(EndpointName, Timestamp)>,
}

pub(super) fn claim(tx: &mut Tx<'_>, wants: &[Want], grant: Grant, now: Timestamp) -> Result<Leased, StoreError> {
    let (mut leased, skips) = (Leased::default(), operator_actions::skips(tx.connection)?);
    for want in wants {
        let Some(key) = tx.endpoint(&want.endpoint)? else { continue };
        if tx.is_paused(key)? || skips.iter().any(|skip| skip.holds_back(&want.endpoint)) {
            continue;
        }
        let mut ids = due(tx, key, "due_at, id", want.oldest, now)?;
        for id in due(tx, key, "due_at DESC, id DESC", want.newest, now)? {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        for id in ids {
            leased.events.extend(lease(tx, &want.endpoint, key, id, grant, now)?);
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
    grant: Grant,
    now: Timestamp,
) -> Result<Option<(Found, Lease)>, StoreError> {
    let Some(mut found) = row::load(tx.connection, endpoint, key, id)? else { return Ok(None) };
    let (lease, lost) = found.row.lease(grant, None, now);
    if let Some(lost) = lost {
        content::put_attempt(tx.connection, key, &mut found.row, &lost, false)?;
    }
    row::put(tx.connection, key, &found)?;
    tx.count(key, &mut found);
    Ok(Some((found, lease)))
}

pub(super) fn holders(connection: &Connection) -> Result<Vec<Holder>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT DISTINCT holder FROM event INDEXED BY event_open \
         WHERE endpoint = ?1 AND due_at IS NOT NULL AND holder IS NOT NULL",
    )?;
    let mut holders = BTreeSet::new();
    for (_, key) in listing::endpoints(connection)? {
        for holder in query.query_map([key], |row| row.get(0).map(row::holder))? {
            holders.insert(holder?);
        }
    }
    Ok(holders.into_iter().collect())
}

/// Leases of these holders, as many as one call takes over.
pub(super) fn held_by(connection: &Connection, gone: &[Holder]) -> Result<Vec<Hold>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT id, fence, holder FROM event INDEXED BY event_open \
         WHERE endpoint = ?1 AND due_at IS NOT NULL AND holder IS NOT NULL ORDER BY id",
    )?;
    let mut held = Vec::new();
    for (endpoint, key) in listing::endpoints(connection)? {
        let mut rows = query.query([key])?;
        while let Some(row) = rows.next()?
            && held.len() < MAX_PAGE
        {
            if gone.contains(&row::holder(row.get(2)?)) {
                let (id, fence) = (EventId::from_bytes(row.get(0)?), row.get(1)?);
                held.push(Hold { endpoint: endpoint.clone(), id, fence });
            }
        }
    }
    Ok(held)
}

/// Takes leases over that end at `until` of their endpoint, `now` where it says nothing; which of them still held.
pub(super) fn take_over(
    tx: &mut Tx<'_>,
    held: &[Hold],
    holder: Holder,
    until: &HashMap<EndpointName, Timestamp>,
    now: Timestamp,
) -> Result<Vec<Hold>, StoreError> {
    let mut taken = Vec::with_capacity(held.len());
    for hold in held {
        let Some(key) = tx.endpoint(&hold.endpoint)? else { continue };
        let latest = until.get(&hold.endpoint).copied().unwrap_or(now);
        let mut update = tx.connection.prepare_cached(
            "UPDATE event SET holder = ?4, given_to = NULL, due_at = min(due_at, ?5) \
             WHERE endpoint = ?1 AND id = ?2 AND fence = ?3 AND state = ?6",
        )?;
        let code = holder.0.cast_signed();
        let state = State::Running.code();
        if update.execute(params![key, hold.id.as_bytes(), hold.fence, code, millis(latest), state])? == 1 {
            taken.push(hold.clone());
        }
    }
    Ok(taken)
}

pub(super) fn settle(tx: &mut Tx<'_>, end: &End, now: Timestamp) -> Result<Ended, StoreError> {
    let Some(key) = tx.endpoint(&end.endpoint)? else { return Ok(Ended::Unknown) };
    let is_pending = tx.pending(key, end.id).is_some();
    let Some(mut found) = tx.load(&end.endpoint, key, end.id)? else { return Ok(Ended::Unknown) };
    let moves = found.row.is_moved_by(end);
    let ended = found.row.settle(end, now);
    if rules::leaves_record(end, ended) {
        content::put_attempt(tx.connection, key, &mut found.row, &end.attempt, true)?;
    }
    // What did not move is as it was, but for what the record takes.
    if is_pending {
        tx.changes.gone.insert(found.seq);
    }
    if moves && !found.row.summary.state.is_open() {
        tx.update_ended(key, &mut found, false, now)?;
    } else {
        row::put(tx.connection, key, &found)?;
        tx.count(key, &mut found);
    }
    Ok(ended)
}

//! Leases: claiming what is due, holding on to it, and what becomes of it.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    event_record::Course,
    listing, operator_actions,
    row::{Found, time},
    tx::{Due, Tx},
};
use crate::{
    endpoint::EndpointName,
    store::{
        End, Ended, Grant, Hold, Holder, Lease, MAX_CLAIM, MAX_PAGE, State, StoreError, Then, Want,
        rules::{self, Held},
    },
    webhook::EventId,
};

/// Events that are leased, and when each endpoint is due again.
#[derive(Default)]
pub(super) struct Leased {
    pub(super) events: Vec<(Found, Lease)>,
    pub(super) next_due: Vec<(EndpointName, Timestamp)>,
}

pub(super) fn claim(tx: &mut Tx<'_>, wants: &[Want], grant: Grant, now: Timestamp) -> Result<Leased, StoreError> {
    let mut leased = Leased::default();
    for want in wants {
        let Some(key) = tx.endpoint(&want.endpoint)? else { continue };
        if tx.is_paused(&want.endpoint)? || tx.is_skipped(&want.endpoint)? {
            continue;
        }
        let mut due = tx.due(key, now, false, want.oldest.min(MAX_CLAIM))?;
        for one in tx.due(key, now, true, want.newest.min(MAX_CLAIM))? {
            if !due.contains(&one) {
                due.push(one);
            }
        }
        for one in due {
            leased.events.extend(lease(tx, &want.endpoint, key, one, grant, now)?);
        }
        let next = tx.next_due(key)?;
        leased.next_due.extend(next.map(|due| (want.endpoint.clone(), time(due))));
    }
    Ok(leased)
}

fn lease(
    tx: &mut Tx<'_>,
    endpoint: &EndpointName,
    key: i64,
    due: Due,
    grant: Grant,
    now: Timestamp,
) -> Result<Option<(Found, Lease)>, StoreError> {
    let Some(mut found) = tx.load_due(endpoint, key, due)? else { return Ok(None) };
    if found.is_to_set_apart() {
        operator_actions::quarantine(tx, key, found, now)?;
        return Ok(None);
    }
    let (lease, lost) = found.row.lease(grant, None, now);
    if let Some(lost) = lost {
        tx.keep_lost(key, &mut found, &lost)?;
    }
    tx.store(key, found.clone())?;
    Ok(Some((found, lease)))
}

pub(super) fn holders(connection: &Connection) -> Result<Vec<Holder>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT course FROM event INDEXED BY event_open WHERE endpoint = ?1 AND ended = 0 AND state = ?2",
    )?;
    let mut holders = BTreeSet::new();
    for (_, key) in listing::endpoints(connection)? {
        let mut rows = query.query(params![key, State::Running.code()])?;
        while let Some(row) = rows.next()? {
            let course = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
            holders.extend(Course::read(course).ok().and_then(|course| course.holder()));
        }
    }
    Ok(holders.into_iter().collect())
}

/// Leases of these holders, as many as one call takes over.
pub(super) fn held_by(connection: &Connection, gone: &[Holder]) -> Result<Vec<Hold>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT id, course FROM event INDEXED BY event_open \
         WHERE endpoint = ?1 AND ended = 0 AND state = ?2 ORDER BY id",
    )?;
    let mut held = Vec::new();
    for (endpoint, key) in listing::endpoints(connection)? {
        let mut rows = query.query(params![key, State::Running.code()])?;
        while let Some(row) = rows.next()?
            && held.len() < MAX_PAGE
        {
            let course = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            // One that is damaged is set apart once its lease has ended.
            let Ok(course) = Course::read(course) else { continue };
            if course.holder().is_some_and(|holder| gone.contains(&holder)) {
                let id = EventId::from_bytes(row.get(0)?);
                held.push(Hold { endpoint: endpoint.clone(), id, fence: course.fence() });
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
        let Some(mut found) = tx.load(&hold.endpoint, key, hold.id)? else { continue };
        let event = &mut found.row.summary;
        if (event.state, event.fence) != (State::Running, hold.fence) {
            continue;
        }
        let latest = until.get(&hold.endpoint).copied().unwrap_or(now);
        event.due_at = event.due_at.map(|due| due.min(latest));
        found.row.held = Some(Held { holder, given_to: None });
        tx.store(key, found)?;
        taken.push(hold.clone());
    }
    Ok(taken)
}

pub(super) fn settle(tx: &mut Tx<'_>, end: &End, now: Timestamp) -> Result<Ended, StoreError> {
    let Some(key) = tx.endpoint(&end.endpoint)? else { return Ok(Ended::Unknown) };
    let Some(mut found) = tx.load(&end.endpoint, key, end.id)? else { return Ok(Ended::Unknown) };
    let moves = found.row.is_moved_by(end);
    let ended = found.row.settle(end, now);
    let was_to_sync = tx.wants.sync;
    if rules::leaves_record(end, ended) {
        tx.keep_attempt(key, &mut found, &end.attempt)?;
    }
    // What did not move is as it was, but for what the record takes.
    if moves && !found.row.summary.state.is_open() {
        tx.store_ended(key, found, false, now)?;
    } else {
        tx.store(key, found)?;
    }
    if moves && end.then == Then::Done {
        // A delivery that a power cut takes back is made once more: it can wait for the next sync.
        tx.wants.sync = was_to_sync;
    }
    Ok(ended)
}

//! What people do to events: single actions, and bulk ones that remember how far they came.

use jiff::Timestamp;
use rusqlite::{Connection, Row as SqlRow, params};

use super::{
    content, head,
    keys::hash,
    listing,
    log::LogPlace,
    record::{BulkFacts, Change},
    room::{self, Sum},
    row::{Found, millis, time},
    tx::{NewContent, Tx},
};
use crate::{
    endpoint::EndpointName,
    store::{
        Act, Acted, Action, Bulk, BulkAction, BulkPlan, Cursor, Head, MAX_BULKS, PageRequest, Reason, Signature, State,
        StoreError, rows, rules,
    },
    webhook::EventId,
};

pub(super) fn act(tx: &mut Tx<'_>, act: &Act, now: Timestamp) -> Result<Acted, StoreError> {
    let Some(key) = tx.endpoint(&act.endpoint)? else { return Ok(Acted::Unknown) };
    let Some(mut found) = tx.load(&act.endpoint, key, act.id)? else { return Ok(Acted::Unknown) };
    let was_parked = found.row.summary.parked;
    let acted = found.row.act(act.action, now);
    if acted != Acted::Done {
        return Ok(acted);
    }
    match act.action {
        Action::Replay(id, signature) => return replay(tx, key, &found, id, signature, now),
        Action::Revive => {
            tx.stand_in_line(key, &mut found.row)?;
            tx.store(key, found)?;
        }
        Action::Drop | Action::Cancel | Action::Skip => tx.store_ended(key, found, was_parked, now)?,
    }
    Ok(Acted::Done)
}

fn replay(
    tx: &mut Tx<'_>,
    key: i64,
    found: &Found,
    id: EventId,
    signature: Signature,
    now: Timestamp,
) -> Result<Acted, StoreError> {
    if tx.is_unwritten(found.place) {
        return Err(StoreError::Busy);
    }
    let original = match tx.shelves()?.read(found, false) {
        Ok(original) => original,
        Err(StoreError::Damaged(_)) => {
            quarantine(tx, key, found.clone(), now)?;
            return Ok(Acted::Not(State::Damaged));
        }
        Err(error) => return Err(error),
    };
    let head = head::write(&Head { signature, ..original.head });
    let copy = found.row.replay(id, now);
    let cost = room::cost(&copy, head.len());
    let mut copy = copy.costing(cost);
    let endpoint = copy.summary.endpoint.clone();
    tx.admit(&endpoint, key, cost)?;
    tx.stand_in_line(key, &mut copy)?;
    if tx.exists(key, id)? {
        return Err(rules::there_is_already(id));
    }
    let file = found.file.map(|of| tx.share_file(of)).transpose()?;
    let checksum = content::checksum(&endpoint, id, &head.facts, &head.headers, &copy.summary.body_sha256);
    let sender = copy.summary.sender_id.as_ref().map(|sender| (hash(&endpoint, sender), id));
    tx.fresh.extend(sender);
    let copy = Found { row: copy, seq: tx.next_seq(), place: LogPlace::default(), file, counted: Sum::default() };
    let body = original.body.as_deref().unwrap_or_default();
    tx.put_in(key, copy, &NewContent { head: &head.facts, headers: &head.headers, checksum, body })?;
    // Only now: the original itself may give way.
    tx.keep_share(&endpoint, key, 0)?;
    tx.make_space(0)?;
    Ok(Acted::Done)
}

/// Sets a damaged event apart, for good.
pub(super) fn quarantine(tx: &mut Tx<'_>, key: i64, mut found: Found, now: Timestamp) -> Result<(), StoreError> {
    let was_parked = found.row.summary.parked;
    tx.room.damaged += 1;
    found.row.end(State::Damaged, Some(Reason::RelayDamaged), now);
    tx.store_ended(key, found, was_parked, now)
}

/// What is to be thought of content that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Its event has given way.
    Gone,
    /// It stands elsewhere since.
    Moved,
    /// It is damaged. Its event is set apart, now or before.
    Damaged { is_new: bool },
}

/// Sets an event apart whose content could not be read where it stood.
pub(super) fn set_apart(
    tx: &mut Tx<'_>,
    endpoint: &EndpointName,
    id: EventId,
    stood: LogPlace,
    now: Timestamp,
) -> Result<Unread, StoreError> {
    let Some(key) = tx.endpoint(endpoint)? else { return Ok(Unread::Gone) };
    let Some(found) = tx.load(endpoint, key, id)? else { return Ok(Unread::Gone) };
    if found.place != stood {
        return Ok(Unread::Moved);
    }
    let is_new = found.row.summary.state != State::Damaged || found.is_to_set_apart();
    if is_new {
        quarantine(tx, key, found, now)?;
    }
    Ok(Unread::Damaged { is_new })
}

pub(super) fn start(tx: &mut Tx<'_>, plan: &BulkPlan, now: Timestamp) -> Result<(), StoreError> {
    let id = plan.id;
    let mut open = tx.connection.prepare_cached("SELECT by FROM bulk WHERE finished = 0 AND id <> ?1")?;
    let open = open.query_map([id.as_bytes()], |row| row.get::<_, Option<String>>(0))?;
    let open = open.collect::<Result<Vec<_>, _>>()?;
    rows::admit_bulk(plan, open.iter().map(Option::as_deref))?;
    if find(tx.connection, id)?.is_none() {
        keep(tx, &rows::new_bulk(plan.clone(), now))?;
    }
    Ok(())
}

fn keep(tx: &mut Tx<'_>, bulk: &Bulk) -> Result<(), StoreError> {
    let filter = serde_json::to_string(&bulk.filter).expect("a filter always makes JSON");
    tx.note(&Change::Bulk(BulkFacts::of(bulk, &filter)));
    put(tx, bulk, &filter)
}

pub(super) fn put(tx: &mut Tx<'_>, bulk: &Bulk, filter: &str) -> Result<(), StoreError> {
    tx.forget_skips();
    let mut insert = tx
        .connection
        .prepare_cached("INSERT OR REPLACE INTO bulk VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?;
    insert.execute(params![
        bulk.id.as_bytes(),
        bulk.action.code(),
        filter,
        millis(bulk.created_at),
        bulk.cursor.as_ref().map(|cursor| cursor.0.as_bytes()),
        bulk.done,
        bulk.skipped,
        bulk.finished,
        bulk.of,
        bulk.at_most,
        bulk.by,
    ])?;
    // The latest finished ones stay for people to look at.
    let mut forget = tx.connection.prepare_cached(
        "DELETE FROM bulk WHERE finished = 1 AND id NOT IN (SELECT id FROM bulk WHERE finished = 1 ORDER BY id DESC LIMIT ?1)",
    )?;
    forget.execute([MAX_BULKS as u64])?;
    Ok(())
}

fn find(connection: &Connection, id: EventId) -> Result<Option<Bulk>, StoreError> {
    let mut query = connection.prepare_cached("SELECT * FROM bulk WHERE id = ?1")?;
    query.query_and_then([id.as_bytes()], read)?.next().transpose()
}

pub(super) fn step(tx: &mut Tx<'_>, id: EventId, fresh: &[EventId], now: Timestamp) -> Result<Bulk, StoreError> {
    let mut bulk = find(tx.connection, id)?.ok_or(StoreError::Unknown(id))?;
    if bulk.finished || fresh.is_empty() {
        return Ok(bulk);
    }
    // The writer looks itself, so that nothing changes between looking and acting: a short look.
    tx.move_all()?;
    let request = PageRequest { limit: bulk.step(fresh.len()), after: bulk.cursor.clone(), oldest_first: true };
    let filter = rows::until_created(&bulk);
    let page = listing::list(tx.connection, tx.shelves()?, tx.keys, &filter, &request, listing::SHORT)?;
    for (event, fresh) in page.events.iter().zip(fresh) {
        let action = rows::single(bulk.action, *fresh);
        match act(tx, &Act { endpoint: event.endpoint.clone(), id: event.id, action }, now)? {
            Acted::Done => bulk.done += 1,
            _ => bulk.skipped += 1,
        }
    }
    bulk.stepped(page.next);
    keep(tx, &bulk)?;
    Ok(bulk)
}

pub(super) fn stop(tx: &mut Tx<'_>, id: EventId) -> Result<Option<Bulk>, StoreError> {
    let Some(mut bulk) = find(tx.connection, id)? else { return Ok(None) };
    if !bulk.finished {
        bulk.finished = true;
        keep(tx, &bulk)?;
    }
    Ok(Some(bulk))
}

pub(super) fn skips(connection: &Connection) -> Result<Vec<Bulk>, StoreError> {
    let mut query = connection.prepare_cached("SELECT * FROM bulk WHERE finished = 0 AND action = ?1")?;
    query.query_and_then([BulkAction::Skip.code()], read)?.collect()
}

pub(super) fn all(connection: &Connection) -> Result<Vec<Bulk>, StoreError> {
    let mut query = connection.prepare_cached("SELECT * FROM bulk ORDER BY id")?;
    query.query_and_then([], read)?.collect()
}

fn read(row: &SqlRow<'_>) -> Result<Bulk, StoreError> {
    let action: String = row.get(1)?;
    let filter: String = row.get(2)?;
    let strange = |what: &str| StoreError::Internal(format!("a bulk action with the {what}"));
    Ok(Bulk {
        id: EventId::from_bytes(row.get(0)?),
        action: BulkAction::from_code(&action).ok_or_else(|| strange(&action))?,
        filter: serde_json::from_str(&filter).map_err(|_| strange(&filter))?,
        created_at: time(row.get(3)?),
        cursor: row.get::<_, Option<_>>(4)?.map(|id| Cursor(EventId::from_bytes(id))),
        done: row.get(5)?,
        skipped: row.get(6)?,
        finished: row.get(7)?,
        of: row.get(8)?,
        at_most: row.get(9)?,
        by: row.get(10)?,
    })
}

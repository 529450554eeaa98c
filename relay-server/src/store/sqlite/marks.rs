//! Tables of what was signed and taken: no purge of events touches them.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    record::{Change, MarkFacts},
    row::time,
    tx::Tx,
};
use crate::{
    endpoint::EndpointName,
    store::{
        Mark, StoreError,
        marks::{MarkMemory, Marked, Short, Taken, judge, short},
    },
    webhook::EventId,
};

const FORGET: u64 = 20_000;

/// What an event's mark says of it.
pub(super) fn look(
    tx: &Tx<'_>,
    name: &EndpointName,
    key: i64,
    mark: &Mark,
    body_sha256: &[u8; 32],
) -> Result<Marked, StoreError> {
    let mut query =
        tx.connection.prepare_cached("SELECT body, event, good_until FROM mark WHERE endpoint = ?1 AND digest = ?2")?;
    let taken = query.query_row(params![key, short(&mark.digest)], |row| {
        let body: Short = row.get(0)?;
        Ok(Taken { body, event: EventId::from_bytes(row.get(1)?), good_until: time(row.get(2)?) })
    });
    let taken = taken.optional()?;
    let memory = if taken.is_none() && mark.is_late { memory(tx, name)? } else { None };
    Ok(judge(mark, body_sha256, taken, memory))
}

/// Remembers a mark that was taken with an event.
pub(super) fn keep(
    tx: &mut Tx<'_>,
    key: i64,
    mark: &Mark,
    body_sha256: &[u8; 32],
    event: EventId,
) -> Result<(), StoreError> {
    let (digest, body, event) = (short(&mark.digest), short(body_sha256), *event.as_bytes());
    let facts = MarkFacts { key, digest, body, event, good_until: mark.good_until.as_millisecond() };
    tx.note(&Change::Mark(facts));
    put(tx.connection, &facts)
}

pub(super) fn put(connection: &Connection, facts: &MarkFacts) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO mark VALUES (?1, ?2, ?3, ?4, ?5)")?;
    insert.execute(params![facts.key, facts.digest, facts.body, facts.event, facts.good_until])?;
    Ok(())
}

fn memory(tx: &Tx<'_>, name: &EndpointName) -> Result<Option<MarkMemory>, StoreError> {
    let mut query = tx.connection.prepare_cached("SELECT reach, since FROM memory WHERE endpoint = ?1")?;
    let found = query.query_row([name.as_str()], |row| {
        Ok(MarkMemory { reach: Duration::from_millis(row.get(0)?), since: time(row.get(1)?) })
    });
    Ok(found.optional()?)
}

pub(super) fn remember(
    tx: &Tx<'_>,
    reaches: &[(EndpointName, Duration)],
    begins: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut insert = tx.connection.prepare_cached("INSERT OR REPLACE INTO memory VALUES (?1, ?2, ?3)")?;
    for (name, reach) in reaches {
        let earlier = memory(tx, name)?;
        let revised = MarkMemory::revised(earlier, *reach, begins, now);
        if earlier != Some(revised) {
            let reach = i64::try_from(revised.reach.as_millis()).unwrap_or(i64::MAX);
            insert.execute(params![name.as_str(), reach, revised.since.as_millisecond()])?;
        }
    }
    Ok(())
}

/// Removes those that nobody would take any more.
pub(super) fn forget(tx: &Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let mut delete = tx.connection.prepare_cached(
        "DELETE FROM mark WHERE (endpoint, digest) IN \
         (SELECT endpoint, digest FROM mark WHERE good_until <= ?1 LIMIT ?2)",
    )?;
    delete.execute(params![now.as_millisecond(), FORGET])?;
    Ok(())
}

//! The smaller tables: backlog and pauses, configuration, secrets, refused requests.

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    listing,
    row::{PARKED, millis, time},
    writer::Tx,
};
use crate::{
    endpoint::EndpointName,
    store::{
        Backlog, ConfigChange, ConfigKind, ConfigRow, MAX_PAGE, MAX_REFUSED, MAX_REFUSED_AGE, MAX_REFUSED_BYTES,
        RefusedRow, Source, StoreError, rows,
    },
    webhook::EventId,
};

pub(super) fn pause(tx: &mut Tx<'_>, endpoint: &EndpointName, paused: bool, now: Timestamp) -> Result<(), StoreError> {
    let key = tx.endpoint_or_new(endpoint)?;
    let at = paused.then(|| millis(now));
    tx.connection.prepare_cached("UPDATE endpoint SET paused_at = ?2 WHERE key = ?1")?.execute(params![key, at])?;
    Ok(())
}

pub(super) fn backlog(connection: &Connection) -> Result<Vec<Backlog>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT paused_at IS NOT NULL, \
         (SELECT count(*) FROM event INDEXED BY event_due WHERE endpoint = key AND due_at IS NOT NULL), \
         (SELECT received_at FROM event INDEXED BY event_open WHERE endpoint = key AND due_at IS NOT NULL ORDER BY id LIMIT 1), \
         (SELECT due_at FROM event INDEXED BY event_due WHERE endpoint = key AND due_at < ?2 ORDER BY due_at LIMIT 1) \
         FROM endpoint WHERE key = ?1",
    )?;
    let mut all = Vec::new();
    for (endpoint, key) in listing::endpoints(connection)? {
        all.push(query.query_row(params![key, PARKED], |row| {
            Ok(Backlog {
                endpoint,
                paused: row.get(0)?,
                open: row.get(1)?,
                oldest: row.get::<_, Option<i64>>(2)?.map(time),
                next_due: row.get::<_, Option<i64>>(3)?.map(time),
            })
        })?);
    }
    Ok(all)
}

fn kind_code(kind: ConfigKind) -> i64 {
    match kind {
        ConfigKind::Endpoint => 0,
        ConfigKind::Token => 1,
    }
}

pub(super) fn config(connection: &Connection, kind: ConfigKind) -> Result<Vec<ConfigRow>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT name, source, value, revision, updated_at, used_at FROM config WHERE kind = ?1 ORDER BY name",
    )?;
    let rows = query.query_map([kind_code(kind)], |row| {
        Ok(ConfigRow {
            name: row.get(0)?,
            source: if row.get::<_, i64>(1)? == 0 { Source::File } else { Source::Api },
            value: row.get(2)?,
            revision: row.get(3)?,
            updated_at: time(row.get(4)?),
            used_at: row.get::<_, Option<i64>>(5)?.map(time),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn configure(
    connection: &Connection,
    kind: ConfigKind,
    source: Source,
    rows: &[(String, String)],
    all: bool,
    now: Timestamp,
) -> Result<ConfigChange, StoreError> {
    let change = rows::plan(&config(connection, kind)?, source, rows, all)?;
    for name in &change.removed {
        unconfigure(connection, kind, name)?;
    }
    let mut put = connection.prepare_cached(
        "INSERT INTO config (kind, name, source, value, revision, updated_at) \
         VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(revision), 0) + 1 FROM config), ?5) \
         ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value, revision = excluded.revision, \
         updated_at = excluded.updated_at",
    )?;
    let source = i64::from(source == Source::Api);
    for (name, value) in rows.iter().filter(|(name, _)| change.touches(name)) {
        put.execute(params![kind_code(kind), name, source, value, millis(now)])?;
    }
    Ok(change)
}

pub(super) fn unconfigure(connection: &Connection, kind: ConfigKind, name: &str) -> Result<bool, StoreError> {
    let mut delete = connection.prepare_cached("DELETE FROM config WHERE kind = ?1 AND name = ?2")?;
    Ok(delete.execute(params![kind_code(kind), name])? == 1)
}

pub(super) fn used(
    connection: &Connection,
    kind: ConfigKind,
    names: &[String],
    at: Timestamp,
) -> Result<(), StoreError> {
    let mut update = connection
        .prepare_cached("UPDATE config SET used_at = max(coalesce(used_at, 0), ?3) WHERE kind = ?1 AND name = ?2")?;
    for name in names {
        update.execute(params![kind_code(kind), name, millis(at)])?;
    }
    Ok(())
}

pub(super) fn put_secret(
    connection: &Connection,
    scope: &str,
    name: &str,
    sealed: Option<&[u8]>,
    now: Timestamp,
) -> Result<(), StoreError> {
    match sealed {
        Some(sealed) => {
            let mut put = connection.prepare_cached("INSERT OR REPLACE INTO secret VALUES (?1, ?2, ?3, ?4)")?;
            put.execute(params![scope, name, sealed, millis(now)])?;
        }
        None => {
            let mut delete = connection.prepare_cached("DELETE FROM secret WHERE scope = ?1 AND name = ?2")?;
            delete.execute([scope, name])?;
        }
    }
    Ok(())
}

pub(super) fn secret(connection: &Connection, scope: &str, name: &str) -> Result<Option<Bytes>, StoreError> {
    let mut query = connection.prepare_cached("SELECT sealed FROM secret WHERE scope = ?1 AND name = ?2")?;
    Ok(query.query_row([scope, name], |row| row.get::<_, Vec<u8>>(0)).optional()?.map(Bytes::from))
}

pub(super) fn refuse(tx: &mut Tx<'_>, rows: &[RefusedRow]) -> Result<(), StoreError> {
    for row in rows {
        let key = tx.endpoint_or_new(&row.endpoint)?;
        let body = &row.body[..row.body.len().min(MAX_REFUSED_BYTES)];
        let mut insert =
            tx.connection.prepare_cached("INSERT OR REPLACE INTO refused VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        insert.execute(params![key, row.id.as_bytes(), millis(row.at), row.status, row.code, row.head, body])?;
        let mut trim = tx.connection.prepare_cached(
            "DELETE FROM refused WHERE endpoint = ?1 AND id <= \
             (SELECT id FROM refused WHERE endpoint = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )?;
        trim.execute(params![key, MAX_REFUSED as u64])?;
    }
    Ok(())
}

/// Refused requests that are too old, a few of each endpoint.
pub(super) fn forget_refused(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let before = now.saturating_sub(MAX_REFUSED_AGE).map_or(0, millis);
    // Ids rise with time: the oldest row is the first.
    let mut delete = connection.prepare_cached(
        "DELETE FROM refused WHERE endpoint = ?1 AND at <= ?2 \
         AND id IN (SELECT id FROM refused WHERE endpoint = ?1 ORDER BY id LIMIT 100)",
    )?;
    for (_, key) in listing::endpoints(connection)? {
        delete.execute(params![key, before])?;
    }
    Ok(())
}

pub(super) fn refused(
    connection: &Connection,
    endpoint: Option<&EndpointName>,
    limit: usize,
) -> Result<Vec<RefusedRow>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT n.name, r.id, r.at, r.status, r.code, r.head, r.body FROM refused r JOIN endpoint n ON n.key = r.endpoint \
         WHERE ?1 IS NULL OR n.name = ?1 ORDER BY r.id DESC LIMIT ?2",
    )?;
    let mut rows = query.query(params![endpoint.map(EndpointName::as_str), limit.min(MAX_PAGE) as u64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let Ok(endpoint) = EndpointName::parse(&name) else { continue };
        found.push(RefusedRow {
            endpoint,
            id: EventId::from_bytes(row.get(1)?),
            at: time(row.get(2)?),
            status: row.get(3)?,
            code: row.get(4)?,
            head: row.get(5)?,
            body: row.get::<_, Vec<u8>>(6)?.into(),
        });
    }
    Ok(found)
}

//! The smaller tables: backlog and pauses, configuration, secrets.

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    listing,
    record::Change,
    row::{PARKED, millis, time},
    tx::Tx,
};
use crate::{
    endpoint::EndpointName,
    store::{
        Backlog, ConfigChange, ConfigKind, ConfigRow, EndpointSize, EventCounts, NamedRows, OwnSignature, Sight,
        Source, State, StoreError, TokenUse, rows,
    },
};

pub(super) fn backlog(connection: &Connection, sight: &Sight) -> Result<Vec<Backlog>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT paused_at IS NOT NULL, \
         (SELECT count(*) FROM event INDEXED BY event_due WHERE endpoint = key AND due_at IS NOT NULL), \
         (SELECT received_at FROM event INDEXED BY event_open WHERE endpoint = key AND ended = 0 ORDER BY id LIMIT 1), \
         (SELECT due_at FROM event INDEXED BY event_due WHERE endpoint = key AND due_at < ?2 ORDER BY due_at LIMIT 1), \
         (SELECT received_at FROM ( \
            SELECT * FROM (SELECT id, received_at FROM event INDEXED BY event_ended \
                WHERE endpoint = ?1 AND ended = 1 ORDER BY id DESC LIMIT 1) \
            UNION ALL SELECT * FROM (SELECT id, received_at FROM event INDEXED BY event_open \
                WHERE endpoint = ?1 AND ended = 0 ORDER BY id DESC LIMIT 1)) ORDER BY id DESC LIMIT 1) AS newest \
         FROM endpoint WHERE key = ?1 AND (paused_at IS NOT NULL OR newest IS NOT NULL)",
    )?;
    let mut all = Vec::new();
    for (endpoint, key) in listing::seen(connection, sight)? {
        let one = query.query_row(params![key, PARKED], |row| {
            Ok(Backlog {
                endpoint,
                paused: row.get(0)?,
                open: row.get(1)?,
                oldest: row.get::<_, Option<i64>>(2)?.map(time),
                next_due: row.get::<_, Option<i64>>(3)?.map(time),
                newest: row.get::<_, Option<i64>>(4)?.map(time),
            })
        });
        all.extend(one.optional()?);
    }
    Ok(all)
}

pub(super) fn counts(connection: &Connection, endpoint: &EndpointName) -> Result<EventCounts, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT paused_at, \
         (SELECT count(*) FROM event INDEXED BY event_due WHERE endpoint = key AND due_at IS NOT NULL), \
         (SELECT count(*) FROM event INDEXED BY event_due WHERE endpoint = key AND due_at IS NOT NULL AND state = ?2), \
         (SELECT count(*) FROM event INDEXED BY event_dead WHERE endpoint = key AND state = 3) \
         FROM endpoint WHERE name = ?1",
    )?;
    let found = query.query_row(params![endpoint.as_str(), State::Running.code()], |row| {
        let (open, running): (u64, u64) = (row.get(1)?, row.get(2)?);
        let paused_at = row.get::<_, Option<i64>>(0)?.map(time);
        Ok(EventCounts { pending: open.saturating_sub(running), running, dead: row.get(3)?, paused_at })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// What the events of endpoints take, as it was written with the index.
pub(super) fn sizes(connection: &Connection, sight: &Sight) -> Result<Vec<EndpointSize>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT open_bytes, ended_bytes FROM endpoint WHERE key = ?1 AND (open_bytes > 0 OR ended_bytes > 0)",
    )?;
    let mut all = Vec::new();
    for (endpoint, key) in listing::seen(connection, sight)? {
        let one = query.query_row([key], |row| Ok(EndpointSize { endpoint, waiting: row.get(0)?, ended: row.get(1)? }));
        all.extend(one.optional()?);
    }
    Ok(all)
}

pub(super) fn note_token_use(connection: &Connection, uses: &[TokenUse]) -> Result<(), StoreError> {
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO token_use VALUES (?1, ?2, ?3)")?;
    for one in uses {
        put.execute(params![one.token, one.day, one.events])?;
    }
    let newest = uses.iter().map(|one| one.day).max().unwrap_or_default();
    connection.prepare_cached("DELETE FROM token_use WHERE day < ?1")?.execute([newest])?;
    Ok(())
}

pub(super) fn token_use(connection: &Connection) -> Result<Vec<TokenUse>, StoreError> {
    let mut query = connection.prepare_cached("SELECT token, day, events FROM token_use")?;
    let rows = query.query_map([], |row| Ok(TokenUse { token: row.get(0)?, day: row.get(1)?, events: row.get(2)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn kind_code(kind: ConfigKind) -> i64 {
    i64::from(kind == ConfigKind::Token)
}

pub(super) fn config(connection: &Connection, kind: ConfigKind) -> Result<Vec<ConfigRow>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT name, source, value, revision, updated_at, used_at, made_at FROM config WHERE kind = ?1 ORDER BY name",
    )?;
    let rows = query.query_map([kind_code(kind)], |row| {
        Ok(ConfigRow {
            name: row.get(0)?,
            source: if row.get::<_, i64>(1)? == 0 { Source::File } else { Source::Api },
            value: row.get(2)?,
            revision: row.get(3)?,
            updated_at: time(row.get(4)?),
            used_at: row.get::<_, Option<i64>>(5)?.map(time),
            made_at: time(row.get(6)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn configure(
    connection: &Connection,
    source: Source,
    sets: &[(ConfigKind, NamedRows)],
    all: bool,
    now: Timestamp,
) -> Result<Vec<ConfigChange>, StoreError> {
    let plan = |(kind, set): &(ConfigKind, NamedRows)| rows::plan(&config(connection, *kind)?, source, set, all);
    let changes = sets.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
    let mut put = connection.prepare_cached(
        "INSERT INTO config (kind, name, source, value, revision, updated_at, made_at) \
         VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(revision), 0) + 1 FROM config), ?5, ?5) \
         ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value, revision = excluded.revision, \
         updated_at = excluded.updated_at",
    )?;
    let source = i64::from(source == Source::Api);
    for ((kind, set), change) in sets.iter().zip(&changes) {
        for name in &change.removed {
            unconfigure(connection, *kind, name)?;
        }
        for (name, value) in set.iter().filter(|(name, _)| change.touches(name)) {
            put.execute(params![kind_code(*kind), name, source, value, millis(now)])?;
        }
    }
    Ok(changes)
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
    let delete = "DELETE FROM secret WHERE scope = ?1 AND name = ?2";
    connection.prepare_cached(delete)?.execute([scope, name])?;
    if let Some(sealed) = sealed {
        let mut put = connection.prepare_cached("INSERT INTO secret VALUES (?1, ?2, ?3, ?4)")?;
        put.execute(params![scope, name, sealed, millis(now)])?;
    }
    Ok(())
}

pub(super) fn secret(connection: &Connection, scope: &str, name: &str) -> Result<Option<Bytes>, StoreError> {
    let mut query = connection.prepare_cached("SELECT sealed FROM secret WHERE scope = ?1 AND name = ?2")?;
    Ok(query.query_row([scope, name], |row| row.get::<_, Vec<u8>>(0)).optional()?.map(Bytes::from))
}

pub(super) fn remember(tx: &mut Tx<'_>, signature: &OwnSignature, now: Timestamp) -> Result<(), StoreError> {
    let mut forget = tx.connection.prepare_cached("DELETE FROM own_signature WHERE expires_at <= ?1")?;
    forget.execute([now.as_second()])?;
    let (digest, expires_at) = (signature.digest, signature.expires_at.as_second());
    tx.note(&Change::OwnSignature { digest, expires_at });
    put_signature(tx.connection, &digest, expires_at)
}

pub(super) fn put_signature(connection: &Connection, digest: &[u8; 32], expires_at: i64) -> Result<(), StoreError> {
    let mut put = connection.prepare_cached(
        "INSERT INTO own_signature (digest, expires_at) VALUES (?1, ?2) \
         ON CONFLICT DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
    )?;
    put.execute(params![&digest[..], expires_at])?;
    Ok(())
}

pub(super) fn own_signatures(connection: &Connection, now: Timestamp) -> Result<Vec<OwnSignature>, StoreError> {
    let mut query = connection.prepare_cached("SELECT digest, expires_at FROM own_signature WHERE expires_at > ?1")?;
    let rows = query.query_map([now.as_second()], |row| {
        let expires_at = Timestamp::from_second(row.get(1)?).unwrap_or(Timestamp::MAX);
        Ok(OwnSignature { digest: row.get(0)?, expires_at })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

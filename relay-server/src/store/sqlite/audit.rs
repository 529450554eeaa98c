//! The audit log: rows that come in and get their result, bounded by bytes and by age.
//!
//! They are synced in the log as events are, so that a row costs no sync of its own. What is removed is not noted down
//! there: a start that has a row once more removes it again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, Row as SqlRow, params};

use super::{
    record::{AuditFacts, Change},
    tx::Tx,
};
use crate::store::{
    AuditClass, AuditFilter, AuditPage, AuditRow, MAX_PAGE, StoreError,
    audit::{AuditHolder, audit_id, largest},
};

/// Bytes of each holder.
pub(super) type AuditBytes = BTreeMap<AuditHolder, u64>;

/// Rows that one call removes.
const REMOVE: usize = 500;

/// Rows that one page looks at.
const LOOK: usize = 20_000;

pub(super) fn keep(tx: &mut Tx<'_>, rows: &[AuditRow], max_bytes: u64) -> Result<(), StoreError> {
    for row in rows {
        tx.note(&Change::Audit(AuditFacts::of(row)));
        put(tx, row)?;
    }
    loop {
        let kept = kept_bytes(tx)?;
        let excess = kept.values().sum::<u64>().saturating_sub(max_bytes);
        let Some(holder) = largest(kept).filter(|_| excess > 0).cloned() else { return Ok(()) };
        // Some more, so that not every row makes room.
        if remove_oldest(tx, &holder, excess.saturating_add(max_bytes / 64))? == 0 {
            return Ok(());
        }
    }
}

fn kept_bytes<'t>(tx: &'t mut Tx<'_>) -> Result<&'t mut AuditBytes, StoreError> {
    if tx.known.audited.is_none() {
        let mut sums = AuditBytes::default();
        let mut query = tx.connection.prepare_cached("SELECT * FROM audit")?;
        for row in query.query_map([], read)? {
            let row = row?;
            *sums.entry(row.holder()).or_default() += row.bytes();
        }
        tx.known.audited = Some(sums);
    }
    Ok(tx.known.audited.get_or_insert_default())
}

/// Puts a row in. One that is there gets what is known of it now, unless it has its result.
pub(super) fn put(tx: &mut Tx<'_>, row: &AuditRow) -> Result<(), StoreError> {
    // Summed up before it is there.
    let _summed_up = kept_bytes(tx)?;
    let mut find = tx.connection.prepare_cached("SELECT * FROM audit WHERE id = ?1")?;
    let there = find.query_map([row.id.cast_signed()], read)?.next().transpose()?;
    if there.as_ref().is_some_and(|there| there.result.is_some()) {
        return Ok(());
    }
    let mut insert = tx
        .connection
        .prepare_cached("INSERT OR REPLACE INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?;
    insert.execute(params![
        row.id.cast_signed(),
        row.class.code(),
        row.kind,
        row.name,
        row.token,
        row.address,
        row.action,
        row.object,
        row.result,
        row.detail,
        row.count,
    ])?;
    let sum = kept_bytes(tx)?.entry(row.holder()).or_default();
    *sum = (*sum + row.bytes()).saturating_sub(there.map_or(0, |there| there.bytes()));
    Ok(())
}

/// Removes the oldest rows of a holder until so many bytes are free; how many rows.
fn remove_oldest(tx: &mut Tx<'_>, holder: &AuditHolder, wanted: u64) -> Result<usize, StoreError> {
    let mut query = tx.connection.prepare_cached(
        "SELECT * FROM audit INDEXED BY audit_holder WHERE class = ?1 AND name = ?2 ORDER BY id LIMIT ?3",
    )?;
    let rows = query.query_map(params![holder.0, holder.1, REMOVE as u64], read)?;
    let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
    let mut freed = 0;
    rows.retain(|row| {
        let goes = freed < wanted;
        freed += if goes { row.bytes() } else { 0 };
        goes
    });
    remove(tx, &rows)
}

fn remove(tx: &mut Tx<'_>, rows: &[AuditRow]) -> Result<usize, StoreError> {
    let _summed_up = kept_bytes(tx)?;
    let mut delete = tx.connection.prepare_cached("DELETE FROM audit WHERE id = ?1")?;
    for row in rows {
        delete.execute([row.id.cast_signed()])?;
        let kept = kept_bytes(tx)?;
        let sum = kept.entry(row.holder()).or_default();
        *sum = sum.saturating_sub(row.bytes());
        if *sum == 0 {
            kept.remove(&row.holder());
        }
    }
    Ok(rows.len())
}

pub(super) fn forget(tx: &mut Tx<'_>, before: Timestamp) -> Result<usize, StoreError> {
    let mut query = tx.connection.prepare_cached("SELECT * FROM audit WHERE id < ?1 ORDER BY id LIMIT ?2")?;
    let rows = query.query_map(params![audit_id(before).cast_signed(), REMOVE as u64], read)?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    remove(tx, &rows)
}

pub(super) fn page(connection: &Connection, filter: &AuditFilter) -> Result<AuditPage, StoreError> {
    let order = if filter.oldest_first { "" } else { "DESC" };
    let mut query = connection
        .prepare_cached(&format!("SELECT * FROM audit WHERE id BETWEEN ?1 AND ?2 ORDER BY id {order} LIMIT ?3"))?;
    let (from, to) = filter.range();
    let mut rows = query.query(params![from.cast_signed(), to.cast_signed(), LOOK as u64])?;
    let (mut page, mut looked) = (AuditPage::default(), 0);
    while let Some(row) = rows.next()? {
        let row = read(row)?;
        looked += 1;
        let id = row.id;
        if filter.passes(&row) {
            page.rows.push(row);
        }
        if page.rows.len() == filter.limit() || looked == LOOK {
            page.next = Some(id);
            break;
        }
    }
    debug_assert!(page.rows.len() <= MAX_PAGE);
    Ok(page)
}

fn read(row: &SqlRow<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        id: row.get::<_, i64>(0)?.cast_unsigned(),
        class: AuditClass::from_code(row.get(1)?),
        kind: row.get(2)?,
        name: row.get(3)?,
        token: row.get(4)?,
        address: row.get(5)?,
        action: row.get(6)?,
        object: row.get(7)?,
        result: row.get(8)?,
        detail: row.get(9)?,
        count: row.get(10)?,
    })
}

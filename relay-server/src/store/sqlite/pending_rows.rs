//! Rows of events that came a moment ago: in memory until somebody looks at the table.
//!
//! Most events are over within milliseconds. Put into the table at once, a row would dirty pages of `event` and of its
//! indexes when it comes and again when it ends. So it waits here, and what is needed to make it again stands beside its
//! content. It gets into the table with what became of it, before anybody looks at the table, or when many wait.
//!
//! Invariants:
//! - From the commit of its event on, a row is in the table or here, never in both.
//! - Rows here are open, have no order key and no conflict, and a body beside their head.
//! - All rows up to `pending_upto` are in the table, so that after a crash only what came later is looked through.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{Connection, Row as SqlRow, params};

use super::{
    head,
    room::{self, Sum},
    row::{self, Found, time},
    writer::Tx,
};
use crate::{
    endpoint::EndpointName,
    store::{
        State, StoreError, Summary,
        rules::{self, Held, Row},
    },
    webhook::EventId,
};

/// Rows that wait; beyond it the older half goes into the table in one go, where rows that came together share pages.
const MOST: usize = 1024;

/// After so many events it is noted down how far the table is complete.
const NOTE: i64 = 4096;

#[derive(Default)]
pub(super) struct PendingRows {
    /// By number in order of arrival.
    rows: BTreeMap<i64, (i64, Found)>,
    /// By number of the endpoint and id.
    seqs: HashMap<(i64, EventId), i64>,
    noted: i64,
}

#[derive(Default)]
pub(super) struct PendingChanges {
    pub(super) added: Vec<(i64, Found)>,
    pub(super) gone: BTreeSet<i64>,
    noted: Option<i64>,
}

impl PendingChanges {
    pub(super) fn count(&self) -> usize {
        self.added.len() + self.gone.len()
    }
}

impl PendingRows {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The transaction is committed.
    pub(super) fn publish(&mut self, changes: PendingChanges) {
        for (key, found) in changes.added {
            self.seqs.insert((key, found.row.summary.id), found.seq);
            self.rows.insert(found.seq, (key, found));
        }
        for seq in changes.gone {
            if let Some((key, found)) = self.rows.remove(&seq) {
                self.seqs.remove(&(key, found.row.summary.id));
            }
        }
        self.noted = changes.noted.unwrap_or(self.noted);
    }

    /// Reads back what was in memory when the last process ended.
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let upto = "SELECT coalesce(max(value), 0) FROM meta WHERE name = 'pending_upto'";
        let noted: i64 = connection.query_row(upto, [], |row| row.get(0))?;
        let mut pending = Self { noted, ..Self::default() };
        let mut query = connection.prepare(
            "SELECT n.name, c.seq, c.endpoint, c.id, c.head, c.body, c.received_at, c.due_at, c.fence, c.event_type, \
             c.sender_id, c.dedup_key, c.holder FROM content c JOIN endpoint n ON n.key = c.endpoint \
             WHERE c.seq > ?1 AND c.received_at IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM event e WHERE e.endpoint = c.endpoint AND e.id = c.id)",
        )?;
        let mut rows = query.query([noted])?;
        let mut changes = PendingChanges::default();
        while let Some(row) = rows.next()? {
            changes.added.extend(read(row)?);
        }
        pending.publish(changes);
        Ok(pending)
    }
}

/// Makes a row from what stands beside its content. What is damaged there shows when the content is read.
fn read(row: &SqlRow<'_>) -> Result<Option<(i64, Found)>, StoreError> {
    let Ok(endpoint) = EndpointName::parse(&row.get::<_, String>(0)?) else { return Ok(None) };
    let text = String::from_utf8_lossy(row.get_ref(4)?.as_bytes().unwrap_or_default()).into_owned();
    let (method, target) = head::request_line(&text).unwrap_or_default();
    let body = row.get_ref(5)?.as_bytes().unwrap_or_default();
    let fence: u64 = row.get(8)?;
    let tries = u32::from(fence > 0);
    let sender_id: Option<String> = row.get(10)?;
    let dedup_key = row::dedup_key(row.get(11)?, sender_id.as_ref());
    let summary = Summary {
        endpoint,
        id: EventId::from_bytes(row.get(3)?),
        received_at: time(row.get(6)?),
        state: if fence > 0 { State::Running } else { State::Pending },
        reason: None,
        attempts: tries,
        tries,
        fence,
        due_at: Some(time(row.get(7)?)),
        parked: false,
        status: None,
        settled_at: None,
        method,
        target: rules::shown(&target),
        size: body.len() as u64,
        body_sha256: rules::sha256(body),
        event_type: row.get(9)?,
        sender_id,
        order_key: None,
        conflict_with: None,
        replay_of: None,
        redelivered: false,
    };
    let given_to = Some(summary.id);
    let held = row.get::<_, Option<i64>>(12)?.map(|holder| Held { holder: row::holder(holder), given_to });
    let made = Row { summary, dedup_key, held, cost: 0 };
    let cost = room::cost(&made, text.len());
    let made = made.costing(cost);
    Ok(Some((row.get(2)?, Found { counted: Sum::of(&made), row: made, seq: row.get(1)? })))
}

impl Tx<'_> {
    /// An event's row, wherever it is.
    pub(super) fn load(&self, endpoint: &EndpointName, key: i64, id: EventId) -> Result<Option<Found>, StoreError> {
        match self.pending(key, id) {
            Some(found) => Ok(Some(found.clone())),
            None => row::load(self.connection, endpoint, key, id),
        }
    }

    /// An event's row, if it waits.
    pub(super) fn pending(&self, key: i64, id: EventId) -> Option<&Found> {
        let (pending, changes) = (&self.known.pending, &self.changes);
        let added = || changes.added.iter().rev().find(|(of, found)| *of == key && found.row.summary.id == id);
        let seq = pending.seqs.get(&(key, id)).filter(|seq| !changes.gone.contains(seq));
        let (_, found) = seq.and_then(|seq| pending.rows.get(seq)).or_else(added)?;
        Some(found).filter(|found| !changes.gone.contains(&found.seq))
    }

    pub(super) fn grow_all(&mut self) -> Result<(), StoreError> {
        self.grow_upto(usize::MAX, i64::MAX)
    }

    /// Keeps the bounds: of rows that wait, and of what a crash has looked through.
    pub(super) fn bound_pending(&mut self) -> Result<(), StoreError> {
        let waiting = (self.known.pending.len() + self.changes.added.len()).saturating_sub(self.changes.gone.len());
        if waiting > MOST {
            self.grow_upto(waiting - MOST / 2, i64::MAX)?;
        }
        let old = self.known.last_seq - NOTE;
        if old >= self.known.pending.noted + NOTE {
            self.grow_upto(usize::MAX, old)?;
            let mut note = self.connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('pending_upto', ?1)")?;
            note.execute([old])?;
            self.changes.noted = Some(old);
        }
        Ok(())
    }

    /// The oldest rows first, so many at most, up to this one.
    fn grow_upto(&mut self, most: usize, last: i64) -> Result<(), StoreError> {
        let all = self.known.pending.rows.values().chain(&self.changes.added);
        let waits = all.filter(|(_, found)| found.seq <= last && !self.changes.gone.contains(&found.seq)).take(most);
        let mut grown = Vec::new();
        for (key, found) in waits {
            row::put(self.connection, *key, found)?;
            grown.push(found.seq);
        }
        self.changes.gone.extend(grown);
        Ok(())
    }

    /// Whether there is an event with this id, which a caller made.
    pub(super) fn exists(&self, key: i64, id: EventId) -> Result<bool, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT 1 FROM event WHERE endpoint = ?1 AND id = ?2")?;
        Ok(self.pending(key, id).is_some() || query.exists(params![key, id.as_bytes()])?)
    }
}

//! Taking events in: what they are beside earlier ones, their rows, their bodies.
//!
//! What can be done before the transaction is done by the caller: hashes, and the head's JSON. Long bodies come in
//! beforehand, chunk by chunk, each in a transaction of its own, so that no commit takes longer than a chunk does.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    content,
    head::{self, WrittenHead},
    keys::hash,
    marks,
    room::{self, Sum},
    row::{self, Found, millis},
    writer::{Kind, Tx, Writer},
};
use crate::{
    endpoint::EndpointName,
    store::{
        Answer, Body, Dedup, Grant, INLINE_BYTES, Lease, Mark, NewEvent, State, StoreError, Verdict,
        marks::Marked,
        rules::{self, Likeness, Row, compare},
    },
    webhook::EventId,
};

pub(super) const CHUNK_BYTES: usize = 256 * 1024;

pub(super) struct Ready {
    row: Row,
    dedup: Option<Dedup>,
    mark: Option<Mark>,
    lease: Option<Grant>,
    head: WrittenHead,
    checksum: [u8; 32],
    /// Empty if it is long.
    body: Bytes,
    /// Number of the chunks of a long body.
    blob: Option<i64>,
    /// Hashes of the sender's id and of the dedup key, if that is another text.
    keys: Vec<u128>,
}

impl Ready {
    /// Whether its row may wait outside the table, see `pending_rows`.
    fn waits(&self, row: &Row) -> bool {
        let event = &row.summary;
        self.blob.is_none() && event.order_key.is_none() && event.conflict_with.is_none()
    }

    /// What it weighs in a transaction.
    pub(super) fn bytes(&self) -> usize {
        self.body.len() + self.head.len() + 256
    }
}

/// Prepares an event whose body fits beside its head. Long bodies need their chunks' number first.
pub(super) fn prepare(event: &NewEvent, long: Option<(i64, [u8; 32])>, now: Timestamp) -> Result<Ready, StoreError> {
    let (body, blob, body_sha256) = match long {
        Some((blob, sha256)) => (Bytes::new(), Some(blob), sha256),
        None => {
            let bytes = event.body.part(0, INLINE_BYTES as usize).map_err(|error| unreadable(&error))?;
            let sha256 = rules::sha256(&bytes);
            (bytes, None, sha256)
        }
    };
    let head = head::write(&event.head);
    let checksum = rules::checksum(&event.endpoint, event.id, &head.text, &head.headers, &body_sha256);
    let dedup = event.dedup.as_ref().map(|dedup| &dedup.key).filter(|key| Some(*key) != event.sender_id.as_ref());
    let keys = event.sender_id.iter().chain(dedup).map(|text| hash(&event.endpoint, text)).collect();
    let row = Row::new(event, body_sha256, None, now);
    let cost = room::cost(&row, head.len());
    let row = row.costing(cost);
    Ok(Ready {
        row,
        dedup: event.dedup.clone(),
        mark: event.mark,
        lease: event.lease,
        head,
        checksum,
        body,
        blob,
        keys,
    })
}

fn unreadable(error: &std::io::Error) -> StoreError {
    StoreError::Invalid(format!("the body cannot be read: {error}"))
}

/// A long body that is coming in. Unless its event is kept, its chunks are let go with this.
pub(super) struct Staged {
    pub(super) writer: Arc<Writer>,
    pub(super) blob: i64,
    pub(super) is_kept: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_kept {
            // If this finds no place, the chunks are removed by the next process.
            let blob = self.blob;
            let _nobody_waits = self.writer.call(Kind::Upkeep, 0, move |tx| tx.drop_staged(blob));
        }
    }
}

pub(super) struct Chunk {
    n: u64,
    sha256: [u8; 32],
    pub(super) data: Bytes,
}

impl Chunk {
    pub(super) fn read(body: &Body, n: u64) -> Result<Self, StoreError> {
        let data = body.part(n.saturating_mul(CHUNK_BYTES as u64), CHUNK_BYTES).map_err(|error| unreadable(&error))?;
        Ok(Self { n, sha256: rules::sha256(&data), data })
    }
}

/// Each part makes its own room, so that no commit waits for the room of a whole body.
pub(super) fn put_chunk(tx: &mut Tx<'_>, endpoint: &EndpointName, blob: i64, chunk: &Chunk) -> Result<(), StoreError> {
    if let Some(key) = tx.endpoint(endpoint)? {
        tx.keep_share(endpoint, key, 0)?;
    }
    tx.make_space(room::body_cost(chunk.data.len() as u64))?;
    let mut insert =
        tx.connection.prepare_cached("INSERT INTO chunk (blob, n, sha256, data) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute(params![blob, chunk.n, chunk.sha256, &chunk.data[..]])?;
    Ok(())
}

pub(super) fn append(tx: &mut Tx<'_>, event: &Ready, now: Timestamp) -> Result<Verdict, StoreError> {
    let name = &event.row.summary.endpoint;
    let key = tx.endpoint_or_new(name)?;
    let body_sha256 = event.row.summary.body_sha256;
    if let Some(there) = tx.load(name, key, event.row.summary.id)? {
        let verdict = there.row.accepted_before(&body_sha256)?;
        let_go(tx, event.blob)?;
        return Ok(verdict);
    }
    let marked = match &event.mark {
        Some(mark) => marks::look(tx, name, key, mark, &body_sha256)?,
        None => Marked::New,
    };
    let (likeness, earlier) = match marked {
        Marked::New => likeness(tx, key, event, now)?,
        Marked::Repeats(of) => match tx.load(name, key, of)? {
            Some(found) => (rules::repeat(&found.row.summary, event.dedup.as_ref()), Some(found)),
            None => (Likeness::Duplicate, None),
        },
        Marked::OtherBody(_) | Marked::TooLate => (Likeness::Duplicate, None),
    };
    match (event.blob, likeness) {
        (Some(blob), Likeness::Unrelated | Likeness::Conflict) => tx.unstage(blob)?,
        (blob, _) => let_go(tx, blob)?,
    }
    match (marked, &earlier) {
        (Marked::OtherBody(of), _) => return Ok(Verdict::OtherBody { of }),
        (Marked::TooLate, _) => return Ok(Verdict::TooLate),
        // Its event is gone, and was over.
        (Marked::Repeats(of), None) => return Ok(Verdict::Duplicate { of, state: State::Delivered, answer: None }),
        (Marked::Repeats(_) | Marked::New, _) => {}
    }
    if let (Marked::New, Some(mark)) = (marked, &event.mark) {
        let same = matches!(likeness, Likeness::Duplicate | Likeness::Again { .. });
        let of = earlier.as_ref().filter(|_| same).map_or(event.row.summary.id, |found| found.row.summary.id);
        marks::keep(tx, key, mark, &body_sha256, of)?;
    }
    let id = event.row.summary.id;
    let conflict = match (likeness, earlier) {
        (Likeness::Duplicate, Some(found)) => return duplicate(tx.connection, key, &found, id),
        (Likeness::Again { redelivery }, Some(found)) => return again(tx, key, found, redelivery, event, now),
        (_, earlier) => earlier.map(|found| found.row.summary.id),
    };
    let lease = put_in(tx, key, event, conflict, now)?;
    Ok(Verdict::Accepted { lease, conflict })
}

/// Writes an event that is no repeat, with the lease that it may have.
fn put_in(
    tx: &mut Tx<'_>,
    key: i64,
    event: &Ready,
    conflict: Option<EventId>,
    now: Timestamp,
) -> Result<Option<Lease>, StoreError> {
    let mut row = event.row.clone();
    let id = row.summary.id;
    // A repeat needed none. The chunks of a long body made theirs.
    match event.blob {
        None => tx.make_room(&event.row.summary.endpoint, key, row.cost)?,
        Some(_) => tx.make_space(row.cost.saturating_sub(room::body_cost(row.summary.size)))?,
    }
    row.summary.conflict_with = conflict;
    let first = row::stand_in_line(tx.connection, key, &mut row)?;
    let lease = lease(tx, key, &mut row, event, first, now)?;
    let seq = tx.next_seq();
    put_content(tx.connection, seq, key, &row, event)?;
    let mut found = Found { row, seq, counted: Sum::default() };
    tx.count(key, &mut found);
    if event.waits(&found.row) {
        tx.changes.added.push((key, found));
    } else {
        row::put(tx.connection, key, &found)?;
    }
    tx.fresh.extend(event.keys.iter().map(|hash| (*hash, id)));
    Ok(lease)
}

fn put_content(connection: &Connection, seq: i64, key: i64, row: &Row, event: &Ready) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO content (seq, endpoint, id, checksum, head, headers, body, blob, received_at, due_at, fence, \
         event_type, sender_id, dedup_key, holder) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    let id = row.summary.id.as_bytes();
    // The row of an event that waits outside the table is made again from what stands here.
    let seed = event.waits(row).then_some(row);
    insert.execute(params![
        seq,
        key,
        id,
        event.checksum,
        event.head.text,
        &event.head.headers[..],
        event.blob.is_none().then_some(&event.body[..]),
        event.blob,
        seed.map(|row| millis(row.summary.received_at)),
        seed.and_then(|row| row.summary.due_at).map(millis),
        seed.map(|row| row.summary.fence),
        seed.and_then(|row| row.summary.event_type.as_deref()),
        seed.and_then(|row| row.summary.sender_id.as_deref()),
        seed.and_then(row::written_dedup_key),
        seed.and_then(row::holder_code),
    ])?;
    Ok(())
}

/// Leases an event to the append that asks for it, if nothing stands before it and its endpoint is not paused.
fn lease(
    tx: &mut Tx<'_>,
    key: i64,
    row: &mut Row,
    event: &Ready,
    is_first: bool,
    now: Timestamp,
) -> Result<Option<Lease>, StoreError> {
    match event.lease.filter(|_| is_first) {
        Some(grant) if !tx.is_paused(key)? => Ok(Some(row.lease(grant, Some(event.row.summary.id), now).0)),
        _ => Ok(None),
    }
}

/// The chunks of a body are not needed: its event is there.
fn let_go(tx: &mut Tx<'_>, blob: Option<i64>) -> Result<(), StoreError> {
    let Some(blob) = blob else { return Ok(()) };
    tx.unstage(blob)?;
    content::let_go(tx.connection, blob)
}

fn likeness(tx: &Tx<'_>, key: i64, event: &Ready, now: Timestamp) -> Result<(Likeness, Option<Found>), StoreError> {
    let mut found = (Likeness::Unrelated, None);
    let Some(dedup) = &event.dedup else { return Ok(found) };
    let name = &event.row.summary.endpoint;
    let hash = hash(name, &dedup.key);
    let fresh = tx.fresh.iter().rev().filter(|(other, _)| *other == hash).map(|(_, id)| *id);
    for id in fresh.chain(tx.keys.find(tx.connection, hash)?) {
        let Some(earlier) = tx.load(name, key, id)? else { continue };
        if earlier.row.dedup_key.as_ref() != Some(&dedup.key) {
            continue;
        }
        match compare(&earlier.row.summary, &event.row.summary.body_sha256, dedup, now) {
            Likeness::Unrelated => {}
            Likeness::Conflict if found.1.is_none() => found = (Likeness::Conflict, Some(earlier)),
            Likeness::Conflict => {}
            same => return Ok((same, Some(earlier))),
        }
    }
    Ok(found)
}

fn duplicate(connection: &Connection, key: i64, found: &Found, append: EventId) -> Result<Verdict, StoreError> {
    if let Some(again) = found.row.had_again(append) {
        return Ok(again);
    }
    let event = &found.row.summary;
    let delivered = event.state == State::Delivered;
    let answer = if delivered { last_answer(connection, key, event.id)? } else { None };
    Ok(Verdict::Duplicate { of: event.id, state: event.state, answer })
}

fn last_answer(connection: &Connection, key: i64, id: EventId) -> Result<Option<Answer>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT status, headers, body, truncated FROM attempt \
         WHERE endpoint = ?1 AND id = ?2 AND status IS NOT NULL ORDER BY fence DESC LIMIT 1",
    )?;
    query.query_and_then(params![key, id.as_bytes()], |row| content::answer(row, 0))?.next().transpose()
}

fn again(
    tx: &mut Tx<'_>,
    key: i64,
    mut found: Found,
    redelivery: bool,
    event: &Ready,
    now: Timestamp,
) -> Result<Verdict, StoreError> {
    let row = &mut found.row;
    row.again(redelivery, now);
    let first = row::stand_in_line(tx.connection, key, row)?;
    let lease = lease(tx, key, row, event, first, now)?;
    row::put(tx.connection, key, &found)?;
    tx.count(key, &mut found);
    Ok(Verdict::Again { of: found.row.summary.id, lease, redelivery })
}

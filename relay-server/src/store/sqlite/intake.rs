//! Taking events in: what they are beside earlier ones, their rows, their place in the log.
//!
//! What can be done before the transaction is done by the caller: hashes, the head's form, and the file of a long body.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    calls::Kind,
    content,
    head::{self, WrittenHead},
    keys::hash,
    log::LogPlace,
    marks,
    record::Checksum,
    room::{self, Sum},
    row::Found,
    tx::{NewContent, Tx},
    writer::Writer,
};
use crate::{
    store::{
        Dedup, Grant, Lease, Mark, NewEvent, State, StoreError, Verdict,
        marks::Marked,
        rules::{self, Likeness, Row, compare},
    },
    webhook::EventId,
};

pub(super) struct Ready {
    row: Row,
    dedup: Option<Dedup>,
    mark: Option<Mark>,
    lease: Option<Grant>,
    head: WrittenHead,
    checksum: Checksum,
    /// Empty if it is in a file.
    body: Bytes,
    file: Option<u64>,
    /// Hashes of the sender's id and of the dedup key, if that is another text.
    keys: Vec<u128>,
    dedup_hash: Option<u128>,
}

impl Ready {
    /// What it weighs in a transaction.
    pub(super) fn bytes(&self) -> usize {
        self.body.len() + self.head.len() + 256
    }
}

/// Prepares an event. A long body is in its file already; number and checksum say which.
pub(super) fn prepare(event: &NewEvent, long: Option<(u64, [u8; 32])>, now: Timestamp) -> Result<Ready, StoreError> {
    let (body, file, body_sha256) = match long {
        Some((file, sha256)) => (Bytes::new(), Some(file), sha256),
        None => {
            let whole = usize::try_from(event.body.size()).map_err(|_| StoreError::AtCapacity)?;
            let unreadable = |error| StoreError::Invalid(format!("the body cannot be read: {error}"));
            let bytes = event.body.part(0, whole).map_err(unreadable)?;
            let sha256 = rules::sha256(&bytes);
            (bytes, None, sha256)
        }
    };
    let head = head::write(&event.head);
    let checksum = content::checksum(&event.endpoint, event.id, &head.facts, &head.headers, &body_sha256);
    let dedup = event.dedup.as_ref().map(|dedup| &dedup.key);
    let other = dedup.filter(|key| Some(*key) != event.sender_id.as_ref());
    let keys: Vec<_> = event.sender_id.iter().chain(other).map(|text| hash(&event.endpoint, text)).collect();
    // It is the last of them, or the only one.
    let dedup_hash = dedup.and(keys.last().copied());
    let row = Row::new(event, body_sha256, None, now);
    let cost = room::cost(&row, head.len());
    let row = row.costing(cost);
    let (dedup, mark, lease) = (event.dedup.clone(), event.mark, event.lease);
    Ok(Ready { row, dedup, mark, lease, head, checksum, body, file, keys, dedup_hash })
}

/// A long body that is coming in. Unless its event is kept, its file is removed with this.
pub(super) struct Staged {
    pub(super) writer: Arc<Writer>,
    pub(super) file: u64,
    pub(super) is_kept: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_kept {
            let file = self.file;
            // If this finds no place, the next process removes it.
            let _nobody_waits = self.writer.call(Kind::Upkeep, 0, move |tx| tx.abandon(file));
        }
    }
}

pub(super) fn append(tx: &mut Tx<'_>, event: &Ready, now: Timestamp) -> Result<Verdict, StoreError> {
    let name = &event.row.summary.endpoint;
    let key = tx.endpoint_or_new(name)?;
    let body_sha256 = event.row.summary.body_sha256;
    if let Some(there) = tx.load(name, key, event.row.summary.id)? {
        let verdict = there.row.accepted_before(&body_sha256)?;
        event.file.into_iter().for_each(|file| tx.drop_staged(file));
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
    match (event.file, likeness) {
        (Some(file), Likeness::Unrelated | Likeness::Conflict) => tx.unstage(file),
        (file, _) => file.into_iter().for_each(|file| tx.drop_staged(file)),
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
        (Likeness::Duplicate, Some(found)) => return duplicate(tx, key, &found, id),
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
    let (mut row, id) = (event.row.clone(), event.row.summary.id);
    // A repeat needed none.
    tx.make_room(&event.row.summary.endpoint, key, row.cost)?;
    row.summary.conflict_with = conflict;
    let first = tx.stand_in_line(key, &mut row)?;
    let lease = lease(tx, &mut row, event, first, now)?;
    let seq = tx.next_seq();
    let found = Found { row, seq, place: LogPlace::default(), file: event.file, counted: Sum::default() };
    let content = NewContent {
        head: &event.head.facts,
        headers: &event.head.headers,
        checksum: event.checksum,
        body: &event.body,
    };
    tx.put_in(key, found, &content)?;
    tx.fresh.extend(event.keys.iter().map(|hash| (*hash, id)));
    Ok(lease)
}

/// Leases an event to the append that asks for it, if nothing stands before it and its endpoint is not paused.
fn lease(
    tx: &mut Tx<'_>,
    row: &mut Row,
    event: &Ready,
    is_first: bool,
    now: Timestamp,
) -> Result<Option<Lease>, StoreError> {
    match event.lease.filter(|_| is_first) {
        Some(grant) if !tx.is_paused(&event.row.summary.endpoint)? => {
            Ok(Some(row.lease(grant, Some(event.row.summary.id), now).0))
        }
        _ => Ok(None),
    }
}

fn likeness(tx: &Tx<'_>, key: i64, event: &Ready, now: Timestamp) -> Result<(Likeness, Option<Found>), StoreError> {
    let mut found = (Likeness::Unrelated, None);
    let Some((dedup, hash)) = event.dedup.as_ref().zip(event.dedup_hash) else { return Ok(found) };
    let name = &event.row.summary.endpoint;
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

fn duplicate(tx: &Tx<'_>, key: i64, found: &Found, append: EventId) -> Result<Verdict, StoreError> {
    if let Some(again) = found.row.had_again(append) {
        return Ok(again);
    }
    let event = &found.row.summary;
    let delivered = event.state == State::Delivered;
    let answer = if delivered { tx.last_answer(key, event.id)? } else { None };
    Ok(Verdict::Duplicate { of: event.id, state: event.state, answer })
}

fn again(
    tx: &mut Tx<'_>,
    key: i64,
    mut found: Found,
    redelivery: bool,
    event: &Ready,
    now: Timestamp,
) -> Result<Verdict, StoreError> {
    let (of, row) = (found.row.summary.id, &mut found.row);
    row.again(redelivery, now);
    let first = tx.stand_in_line(key, row)?;
    let lease = lease(tx, row, event, first, now)?;
    tx.store(key, found)?;
    Ok(Verdict::Again { of, lease, redelivery })
}

//! Gives back segments of the log of which events need little: what they need is written once more, at the log's end,
//! and stands there from then on.
//!
//! Work is done in small steps: a reader looks which contents of a segment are needed, the writer moves a part of them
//! at a time. The segment is given up when no synced commit of the index needs it, as one whose events are all gone.

use rusqlite::{Connection, params};

use super::{
    content::Shelves,
    listing,
    log::LogPlace,
    record::{self, Change},
    row,
    tx::Tx,
};
use crate::{endpoint::EndpointName, store::StoreError, webhook::EventId};

/// Segments that one round of the housekeeping gives back, and bytes that one call moves.
pub(super) const SEGMENTS: usize = 8;
const STEP_BYTES: u64 = 1024 * 1024;

/// An event whose content is to be moved, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Needed {
    endpoint: EndpointName,
    key: i64,
    id: EventId,
    place: LogPlace,
}

/// The segments that are worth it, the emptiest first: those of which less than half is needed, once so much of the log is
/// not needed that a quarter of it is, and a few segments more.
pub(super) fn sparse(tx: &Tx<'_>) -> Result<Vec<u64>, StoreError> {
    let segments = tx.shelves()?.log.segments();
    let spare = segments.iter().map(|(_, bytes)| u64::from(*bytes)).max().unwrap_or_default() * 4;
    let (mut all, mut live, mut sparse) = (0, 0, Vec::new());
    // The last one is being written.
    for (number, bytes) in segments.split_last().map_or(&[][..], |(_, before)| before) {
        let (bytes, needed) = (u64::from(*bytes), tx.known.sums.live(*number));
        (all, live) = (all + bytes, live + needed);
        if needed > 0 && needed < bytes / 2 {
            sparse.push((needed, *number));
        }
    }
    if all - live.min(all) <= all / 4 + spare {
        return Ok(Vec::new());
    }
    sparse.sort_unstable();
    Ok(sparse.into_iter().take(SEGMENTS).map(|(_, number)| number).collect())
}

/// What of a segment is needed, as far as the index has it.
pub(super) fn needed(connection: &Connection, shelves: &Shelves, segment: u64) -> Result<Vec<Needed>, StoreError> {
    let endpoints = listing::endpoints(connection)?;
    let mut query = connection.prepare_cached(&row::of_both("1", "id = ?2 AND place = ?3"))?;
    let mut needed = Vec::new();
    for place in shelves.log.records(segment)? {
        let Some(record) = shelves.log.read(place)? else { continue };
        let Some((key, id)) = carried_by(&record)? else { continue };
        let Some((endpoint, _)) = endpoints.iter().find(|(_, of)| *of == key) else { continue };
        if query.exists(params![key, id.as_bytes(), row::place_code(place)])? {
            needed.push(Needed { endpoint: endpoint.clone(), key, id, place });
        }
    }
    Ok(needed)
}

/// The event whose content a record has.
fn carried_by(record: &[u8]) -> Result<Option<(i64, EventId)>, StoreError> {
    let Some(parts) = record::parts(record).filter(|parts| parts.content.is_some()) else { return Ok(None) };
    let (mut changes, mut carried) = (parts.changes, None);
    while let Some((change, rest)) = record::next_change(changes)? {
        match change {
            Change::Event { key, id, .. } => carried = Some((key, EventId::from_bytes(id.0))),
            Change::Moved(key, id) => carried = Some((key, EventId::from_bytes(id))),
            _ => {}
        }
        changes = rest;
    }
    Ok(carried)
}

/// Splits into what one call moves.
pub(super) fn steps(needed: Vec<Needed>) -> Vec<Vec<Needed>> {
    let (mut steps, mut bytes) = (Vec::new(), STEP_BYTES);
    for one in needed {
        let length = u64::from(one.place.length);
        bytes += length;
        if bytes > STEP_BYTES {
            steps.push(Vec::new());
            bytes = length;
        }
        if let Some(step) = steps.last_mut() {
            step.push(one);
        }
    }
    steps
}

/// Moves contents, if they still stand where they did. What is damaged stays, and is found when it is read.
pub(super) fn move_contents(tx: &mut Tx<'_>, step: &[Needed]) -> Result<(), StoreError> {
    for Needed { endpoint, key, id, place } in step {
        let Some(found) = tx.load(endpoint, *key, *id)?.filter(|found| found.place == *place) else { continue };
        let Some(record) = tx.shelves()?.log.read(*place)? else { continue };
        let Some(content) = record::parts(&record).and_then(|parts| parts.content) else { continue };
        tx.put_moved(*key, found, &content)?;
    }
    Ok(())
}

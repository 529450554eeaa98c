//! What a call works on: the tables, the rows that are not in them yet, and the log that will say what was changed.
//!
//! Invariant: whatever changes an event notes it down ([`Tx::note`], [`Tx::put_in`]), so that a start that finds an
//! older index makes it the same again.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    attempts::{self, Beside, Records},
    audit::AuditBytes,
    content::Shelves,
    event_record::{Course, Facts},
    keys::{Key, Keys},
    listing,
    log::{Log, LogPlace},
    operator_actions,
    pending_rows::{Pending, PendingRows},
    record::{Change, Changes, Checksum, ContentParts, PLAIN, Raw, prefix},
    room::{Room, Sum, Sums},
    row::{self, Found, NewRow, PARKED, millis},
};
use crate::{
    endpoint::EndpointName,
    store::{Bulk, StoreError},
    webhook::EventId,
};

pub(super) struct Tx<'a> {
    pub(super) connection: &'a Connection,
    /// None while the log is read back.
    log: Option<&'a mut Log>,
    shelves: Option<&'a Shelves>,
    pub(super) keys: &'a Keys,
    pub(super) known: &'a mut WriterState,
    pub(super) fresh: Vec<Key>,
    pub(super) room: Room,
    pub(super) wants: Wants,
    /// What the call changed so far and the log does not say yet.
    changes: Changes,
    /// The record of an attempt at the event whose row the call stores next.
    pub(super) beside: Option<Beside>,
    /// Where the first content of this batch will stand: it cannot be read yet.
    first_place: Option<LogPlace>,
}

/// What has to be done before the calls of a batch are answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wants {
    /// The log is to be synced.
    pub(super) sync: bool,
    /// The index is to be committed, for those who read it.
    pub(super) commit: bool,
    /// The index is to be synced as well.
    pub(super) full: bool,
}

#[derive(Default)]
pub(super) struct WriterState {
    endpoints: HashMap<EndpointName, KnownEndpoint>,
    pub(super) pending: PendingRows,
    pub(super) last_seq: i64,
    pub(super) sums: Sums,
    /// Bytes of refused requests by endpoint, once they were summed up.
    refused: Option<BTreeMap<i64, u64>>,
    /// Bulk actions that hold claims back, once they were looked for.
    skips: Option<Vec<Bulk>>,
    /// Bytes of the audit log by class, once they were summed up.
    pub(super) audited: Option<AuditBytes>,
    /// Endpoints of pools that were looked for in vain.
    absent: HashSet<EndpointName>,
}

/// An event that is due, and its number if its row is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) id: EventId,
    in_table: Option<i64>,
}

#[derive(Clone, Copy)]
struct KnownEndpoint {
    key: i64,
    is_paused: bool,
}

/// An event's content on its way into the log.
pub(super) struct NewContent<'a> {
    pub(super) head: &'a [u8],
    pub(super) headers: &'a [u8],
    pub(super) checksum: Checksum,
    /// Empty if it is in a file.
    pub(super) body: &'a [u8],
}

impl WriterState {
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let last_seq = number("SELECT coalesce(max(value), 0) FROM meta WHERE name = 'last_seq'")?;
        let (pending, sums) = (PendingRows::load(connection)?, Sums::load(connection)?);
        Ok(Self { last_seq, pending, sums, ..Self::default() })
    }

    /// What everything takes that the store keeps for somebody.
    pub(super) fn used_bytes(&self) -> u64 {
        self.sums.used_bytes() + self.refused.iter().flat_map(BTreeMap::values).sum::<u64>()
    }

    /// The endpoints that ever had an event, in order of their names.
    pub(super) fn names(&self, connection: &Connection) -> Result<Vec<EndpointName>, StoreError> {
        Ok(listing::endpoints(connection)?.into_iter().map(|(name, _)| name).collect())
    }

    /// The tables may be as they were before the batch.
    pub(super) fn forget(&mut self) {
        self.endpoints.clear();
        (self.refused, self.skips, self.audited) = (None, None, None);
        self.absent.clear();
        self.pending.undo();
    }
}

impl<'a> Tx<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        log: Option<(&'a mut Log, &'a Shelves)>,
        keys: &'a Keys,
        known: &'a mut WriterState,
        room: Room,
    ) -> Self {
        let (fresh, changes, wants) = (Vec::new(), Changes::default(), Wants::default());
        let (log, shelves) = log.unzip();
        Self { connection, log, shelves, keys, known, fresh, room, wants, changes, beside: None, first_place: None }
    }

    #[cfg(test)]
    pub(super) fn set_fault(&mut self, fault: super::log::LogFault) {
        self.log.as_mut().expect("the log is open").fault = fault;
    }

    pub(super) fn shelves(&self) -> Result<&'a Shelves, StoreError> {
        self.shelves.ok_or_else(is_being_read)
    }

    /// Notes down how something stands now. It is in the log once the call succeeded, whole or not at all.
    pub(super) fn note(&mut self, change: &Change<'_>) {
        if self.log.is_some() {
            self.changes.note(change);
            self.wants.sync = true;
        }
    }

    /// How much the batch has changed outside of the tables.
    pub(super) fn changed(&self) -> (usize, bool) {
        (self.known.pending.changes(), self.first_place.is_some())
    }

    /// A call begins.
    pub(super) fn begin(&mut self) {
        self.changes.clear();
        self.beside = None;
        self.room.has_refused = false;
    }

    /// A call succeeded: what it changed is said in one record.
    pub(super) fn end(&mut self) -> Result<(), StoreError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if !self.changes.is_empty() {
            log.push(&[PLAIN, self.changes.as_bytes()])?;
            self.changes.clear();
        }
        Ok(())
    }

    /// Writes a new event with its content, and what was noted down before in the same record.
    pub(super) fn put_in(&mut self, key: i64, mut found: Found, content: &NewContent<'_>) -> Result<(), StoreError> {
        self.note_event(key, &found);
        let changes = self.changes.as_bytes();
        let prefix = prefix(changes.len(), content.head.len(), content.headers.len(), &content.checksum);
        let log = self.log.as_mut().ok_or_else(is_being_read)?;
        found.place = log.push(&[&prefix, changes, content.head, content.headers, content.body])?;
        self.changes.clear();
        self.first_place.get_or_insert(found.place);
        self.wants.sync = true;
        self.keep_new(key, found)
    }

    fn note_event(&mut self, key: i64, found: &Found) {
        let dedup_key = row::written_dedup_key(&found.row);
        let (id, seq) = (Raw(*found.row.summary.id.as_bytes()), found.seq);
        let facts = Facts::of(found, dedup_key.as_deref());
        self.changes.note(&Change::Event { key, id, seq, facts, course: Course::of(&found.row) });
    }

    /// Writes an event's content to the log once more, where it stands from now on.
    pub(super) fn put_moved(
        &mut self,
        key: i64,
        mut found: Found,
        content: &ContentParts<'_>,
    ) -> Result<(), StoreError> {
        self.changes.note(&Change::Moved(key, *found.row.summary.id.as_bytes()));
        let changes = self.changes.as_bytes();
        let prefix = prefix(changes.len(), content.head.len(), content.headers.len(), content.checksum);
        let log = self.log.as_mut().ok_or_else(is_being_read)?;
        let place = log.push(&[&prefix, changes, content.head, content.headers, content.body])?;
        self.changes.clear();
        self.first_place.get_or_insert(place);
        self.wants.sync = true;
        self.move_content(&mut found, place);
        self.put(key, found)
    }

    /// Keeps a new event that stands in the log.
    pub(super) fn keep_new(&mut self, key: i64, mut found: Found) -> Result<(), StoreError> {
        self.room.live(found.place, true);
        self.count(key, &mut found);
        if found.row.summary.order_key.is_some() {
            self.known.pending.is_in_table(key, found.row.summary.id);
            return row::insert(self.connection, &[NewRow { key, found: &found, records: Records::None }]);
        }
        self.known.pending.put(Pending { key, found, attempts: Vec::new() });
        Ok(())
    }

    /// Whether content is only about to be written.
    pub(super) fn is_unwritten(&self, place: LogPlace) -> bool {
        self.first_place.is_some_and(|first| (place.segment, place.offset) >= (first.segment, first.offset))
    }

    /// An event's row, wherever it is.
    pub(super) fn load(&self, endpoint: &EndpointName, key: i64, id: EventId) -> Result<Option<Found>, StoreError> {
        match self.known.pending.find(key, id) {
            Some(pending) => Ok(Some(pending.found.clone())),
            // Ids rise: most that come were never there.
            None if self.known.pending.is_new(key, id) => Ok(None),
            None => row::load(self.connection, endpoint, key, id),
        }
    }

    /// The row of an event that was found due.
    pub(super) fn load_due(&self, endpoint: &EndpointName, key: i64, due: Due) -> Result<Option<Found>, StoreError> {
        match due.in_table {
            Some(seq) => row::load_at(self.connection, endpoint, seq),
            None => self.load(endpoint, key, due.id),
        }
    }

    /// Writes a row that is there, counts it and notes down how it stands.
    pub(super) fn store(&mut self, key: i64, mut found: Found) -> Result<(), StoreError> {
        self.note(&Change::Course(found.seq, Course::of(&found.row)));
        self.count(key, &mut found);
        self.put(key, found)
    }

    /// Writes a row that is there, wherever it is.
    fn put(&mut self, key: i64, found: Found) -> Result<(), StoreError> {
        let beside = self.beside.take();
        match self.known.pending.find(key, found.row.summary.id) {
            Some(pending) => {
                let mut attempts = pending.attempts.clone();
                if let Some(Beside::Record(record)) = beside {
                    attempts::put_among(&mut attempts, record);
                }
                self.known.pending.put(Pending { key, found, attempts });
                Ok(())
            }
            None => {
                let records = match &beside {
                    Some(Beside::Records(records)) => Some(records),
                    Some(Beside::Record(_)) | None => None,
                };
                row::update(self.connection, &found, records)
            }
        }
    }

    /// Writes a row that ended, and lets the next of its order key go.
    pub(super) fn store_ended(
        &mut self,
        key: i64,
        found: Found,
        was_parked: bool,
        now: jiff::Timestamp,
    ) -> Result<(), StoreError> {
        let endpoint = found.row.summary.endpoint.clone();
        let order = found.row.summary.order_key.clone().filter(|_| !was_parked);
        self.store(key, found)?;
        let Some(order) = order else { return Ok(()) };
        let mut query = self.connection.prepare_cached(
            "SELECT id FROM event INDEXED BY event_queue WHERE endpoint = ?1 AND order_key = ?2 AND due_at IS NOT NULL \
             ORDER BY seq LIMIT 1",
        )?;
        let next: Option<[u8; 16]> = query.query_row(params![key, order], |row| row.get(0)).optional()?;
        let Some(id) = next.map(EventId::from_bytes) else { return Ok(()) };
        match row::load(self.connection, &endpoint, key, id)? {
            Some(mut next) if next.row.summary.parked => {
                next.row.unpark(now);
                self.store(key, next)
            }
            _ => Ok(()),
        }
    }

    /// Whether there is an event with this id, which a caller made.
    pub(super) fn exists(&self, key: i64, id: EventId) -> Result<bool, StoreError> {
        let mut query = self.connection.prepare_cached(&row::of_both("1", "id = ?2"))?;
        Ok(self.known.pending.find(key, id).is_some() || query.exists(params![key, id.as_bytes()])?)
    }

    /// Has all rows in the tables, for who looks through them.
    pub(super) fn move_all(&mut self) -> Result<(), StoreError> {
        self.known.pending.move_all(self.connection)
    }

    pub(super) fn endpoint(&mut self, name: &EndpointName) -> Result<Option<i64>, StoreError> {
        if let Some(known) = self.known.endpoints.get(name) {
            return Ok(Some(known.key));
        }
        let mut query =
            self.connection.prepare_cached("SELECT key, paused_at IS NOT NULL FROM endpoint WHERE name = ?1")?;
        let known =
            query.query_row([name.as_str()], |row| Ok(KnownEndpoint { key: row.get(0)?, is_paused: row.get(1)? }));
        let known = known.optional()?;
        self.known.endpoints.extend(known.map(|known| (name.clone(), known)));
        Ok(known.map(|known| known.key))
    }

    /// The same for one that is asked for again and again, and that there may never be.
    pub(super) fn endpoint_if_any(&mut self, name: &EndpointName) -> Result<Option<i64>, StoreError> {
        if self.known.absent.contains(name) {
            return Ok(None);
        }
        let key = self.endpoint(name)?;
        if key.is_none() {
            self.known.absent.insert(name.clone());
        }
        Ok(key)
    }

    /// An endpoint's number; a new one gets one.
    pub(super) fn endpoint_or_new(&mut self, name: &EndpointName) -> Result<i64, StoreError> {
        if let Some(key) = self.endpoint(name)? {
            return Ok(key);
        }
        self.connection.prepare_cached("INSERT INTO endpoint (name) VALUES (?1)")?.execute([name.as_str()])?;
        let key = self.connection.last_insert_rowid();
        self.known.absent.remove(name);
        self.note(&Change::Endpoint { key, name: name.as_str() });
        Ok(key)
    }

    pub(super) fn is_paused(&mut self, name: &EndpointName) -> Result<bool, StoreError> {
        self.endpoint(name)?;
        Ok(self.known.endpoints.get(name).is_some_and(|known| known.is_paused))
    }

    pub(super) fn pause(&mut self, name: &EndpointName, at: Option<i64>) -> Result<(), StoreError> {
        let key = self.endpoint_or_new(name)?;
        self.note(&Change::Pause { key, at });
        self.known.endpoints.remove(name);
        self.put_pause(key, at)
    }

    pub(super) fn put_pause(&self, key: i64, at: Option<i64>) -> Result<(), StoreError> {
        let mut update = self.connection.prepare_cached("UPDATE endpoint SET paused_at = ?2 WHERE key = ?1")?;
        update.execute(params![key, at])?;
        Ok(())
    }

    /// Whether what waits at an endpoint is being skipped.
    pub(super) fn is_skipped(&mut self, name: &EndpointName) -> Result<bool, StoreError> {
        if self.known.skips.is_none() {
            self.known.skips = Some(operator_actions::skips(self.connection)?);
        }
        Ok(self.known.skips.iter().flatten().any(|skip| skip.holds_back(name)))
    }

    /// A bulk action has changed.
    pub(super) fn forget_skips(&mut self) {
        self.known.skips = None;
    }

    /// Bytes of refused requests by the number of their endpoint, for who adds and removes some to keep up with.
    pub(super) fn refused_bytes(&mut self) -> Result<&mut BTreeMap<i64, u64>, StoreError> {
        if self.known.refused.is_none() {
            let mut query = self.connection.prepare_cached(
                "SELECT endpoint, sum(octet_length(head) + octet_length(body)) FROM refused GROUP BY endpoint",
            )?;
            let sums = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            self.known.refused = Some(sums.collect::<Result<_, _>>()?);
        }
        Ok(self.known.refused.get_or_insert_default())
    }

    /// Has the file of a long body for another event as well; its number.
    pub(super) fn share_file(&mut self, of: u64) -> Result<u64, StoreError> {
        let number = draw_number()?;
        self.shelves()?.bodies.link_again(of, number)?;
        Ok(number)
    }

    pub(super) fn next_seq(&mut self) -> i64 {
        self.known.last_seq += 1;
        self.known.last_seq
    }

    /// Whether nothing stands before an event that waits; else it stands behind the others of its order key from now on.
    pub(super) fn stand_in_line(&self, key: i64, row: &mut crate::store::rules::Row) -> Result<bool, StoreError> {
        row::stand_in_line(self.connection, key, row)
    }

    /// Open rows of an endpoint that are due until then: the longest due first or last, wherever they are.
    pub(super) fn due(
        &self,
        key: i64,
        until: jiff::Timestamp,
        newest: bool,
        most: usize,
    ) -> Result<Vec<Due>, StoreError> {
        let order = if newest { "due_at DESC, id DESC" } else { "due_at, id" };
        let mut query = self.connection.prepare_cached(&format!(
            "SELECT due_at, id, seq FROM event INDEXED BY event_due WHERE endpoint = ?1 AND due_at <= ?2 ORDER BY {order} LIMIT ?3"
        ))?;
        let in_table = query.query_map(params![key, millis(until), most as u64], |row| {
            Ok((row.get::<_, i64>(0)?, Due { id: EventId::from_bytes(row.get(1)?), in_table: Some(row.get(2)?) }))
        })?;
        let pending = self.known.pending.due(key, until, newest, most).into_iter();
        let mut due: Vec<(i64, Due)> = pending.map(|(at, id)| (at, Due { id, in_table: None })).collect();
        for one in in_table {
            due.push(one?);
        }
        due.sort_unstable();
        if newest {
            due.reverse();
        }
        due.truncate(most);
        Ok(due.into_iter().map(|(_, one)| one).collect())
    }

    /// When an endpoint has more to do.
    pub(super) fn next_due(&self, key: i64) -> Result<Option<i64>, StoreError> {
        let mut query = self.connection.prepare_cached(
            "SELECT due_at FROM event INDEXED BY event_due WHERE endpoint = ?1 AND due_at < ?2 ORDER BY due_at LIMIT 1",
        )?;
        let in_table = query.query_row([key, PARKED], |row| row.get(0)).optional()?;
        Ok(in_table.into_iter().chain(self.known.pending.next_due(key)).min())
    }

    /// Counts an event that is gone: its content, too.
    pub(super) fn uncount(&mut self, key: i64, place: LogPlace, ended: u64) {
        self.change(key, Sum { open: 0, ended }, Sum::default());
        self.room.live(place, false);
    }

    /// Removes a row that another event takes the place of.
    pub(super) fn remove(&mut self, key: i64, found: &Found) -> Result<(), StoreError> {
        let id = found.row.summary.id;
        self.change(key, found.counted, Sum::default());
        self.room.live(found.place, false);
        self.connection.prepare_cached("DELETE FROM event WHERE seq = ?1")?.execute([found.seq])?;
        let mut attempts = self.connection.prepare_cached("DELETE FROM attempt WHERE endpoint = ?1 AND id = ?2")?;
        attempts.execute(params![key, id.as_bytes()])?;
        Ok(())
    }

    /// An event's content stands elsewhere from now on.
    pub(super) fn move_content(&mut self, found: &mut Found, place: LogPlace) {
        self.room.live(found.place, false);
        self.room.live(place, true);
        found.place = place;
    }
}

fn is_being_read() -> StoreError {
    StoreError::Internal("the log is being read".into())
}

/// A number for a file that no other has.
pub(super) fn draw_number() -> Result<u64, StoreError> {
    getrandom::u64().map(|number| number >> 1).map_err(|error| StoreError::Internal(error.to_string()))
}

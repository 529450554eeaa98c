//! Lists and searches: the endpoints' events merged in order of id, a bounded number of them a call.
//!
//! Dead letters and open events have indexes of their own, and so has the sender's id; the times and the endpoints of a
//! query bound what is looked at. Everything else is a walk from
//! the cursor on that stops after so many events or bytes of text ([`LookBounds`]) and says where to go on.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use jiff::{Timestamp, ToSpan as _};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    attempts,
    content::Shelves,
    keys::{Keys, hash},
    log::LogPlace,
    row::{self, COLUMNS, Found},
};
use crate::{
    endpoint::EndpointName,
    store::{
        Answer, Cursor, Filter, Look, MAX_PAGE, Page, PageRequest, Sight, StoreError, Summary, summary_row::Carried,
    },
    webhook::EventId,
};

#[derive(Clone, Copy)]
pub(super) struct LookBounds {
    rows: usize,
    /// Of heads and bodies that are searched for a text.
    bytes: usize,
}

/// A look by a reader.
pub(super) const LONG: LookBounds = LookBounds { rows: 16_000, bytes: 16 * 1024 * 1024 };

/// A look by the writer, for whom commits wait.
pub(super) const SHORT: LookBounds = LookBounds { rows: 1000, bytes: 1024 * 1024 };

/// Rows read at a time, from the first to the largest portion.
const PORTIONS: (usize, usize) = (8, 512);

pub(super) fn list(
    connection: &Connection,
    shelves: &Shelves,
    keys: &Keys,
    filter: &Filter,
    page: &PageRequest,
    look: LookBounds,
) -> Result<Page, StoreError> {
    let limit = page.limit.clamp(1, MAX_PAGE);
    let mut walk = match filter.sender() {
        Some(sender) => Walk::of_sender(connection, keys, filter, page, sender)?,
        None => Walk::of_all(connection, filter, page)?,
    };
    let (mut events, mut last, mut looked) = (Vec::new(), None, Look::default());
    let mut bytes = 0;
    for _ in 0..look.rows {
        let Some(found) = walk.next(connection)? else { return Ok(Page { events, next: None, looked }) };
        let event = &found.row.summary;
        last = Some(Cursor(event.id));
        looked.at(event);
        let answer = || last_answer(connection, event);
        if filter.passes(event, &mut Carried::new(|| shelves.beginning(&found, &mut bytes), answer)) {
            events.push(found.row.summary);
        }
        if events.len() == limit || bytes > look.bytes {
            break;
        }
    }
    Ok(Page { events, next: last, looked })
}

/// The beginnings of last answers, one after the other: an answer may be long.
pub(super) fn last_answers(
    connection: &Connection,
    of: &[(EndpointName, EventId)],
    most: usize,
) -> Result<Vec<Option<Bytes>>, StoreError> {
    let beginning = |(endpoint, id): &(EndpointName, EventId)| {
        let Some(key) = endpoint_key(connection, endpoint)? else { return Ok(None) };
        let last = attempts::last_answer(connection, key, *id)?;
        Ok(last.map(|answer| Bytes::copy_from_slice(&answer.body[..answer.body.len().min(most)])))
    };
    of.iter().take(MAX_PAGE).map(beginning).collect()
}

fn last_answer(connection: &Connection, event: &Summary) -> Option<Answer> {
    let key = endpoint_key(connection, &event.endpoint).ok()??;
    attempts::last_answer(connection, key, event.id).ok()?
}

pub(super) fn find(connection: &Connection, sight: &Sight, id: EventId) -> Result<Option<(i64, Found)>, StoreError> {
    for (name, key) in seen(connection, sight)? {
        if let Some(found) = row::load(connection, &name, key, id)? {
            return Ok(Some((key, found)));
        }
    }
    Ok(None)
}

/// Where the contents of all events stand. An event whose row is damaged is an error.
pub(super) fn places(
    connection: &Connection,
    mut look: impl FnMut(EventId, LogPlace) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut query = connection.prepare(&row::of_both(COLUMNS, "TRUE"))?;
    for (endpoint, key) in endpoints(connection)? {
        let mut rows = query.query([key])?;
        while let Some(row) = rows.next()? {
            let found = row::read_sound(row, &endpoint)?;
            look(found.row.summary.id, found.place)?;
        }
    }
    Ok(())
}

pub(super) fn endpoint_key(connection: &Connection, name: &EndpointName) -> Result<Option<i64>, StoreError> {
    let mut query = connection.prepare_cached("SELECT key FROM endpoint WHERE name = ?1")?;
    Ok(query.query_row([name.as_str()], |row| row.get(0)).optional()?)
}

pub(super) fn endpoints(connection: &Connection) -> Result<Vec<(EndpointName, i64)>, StoreError> {
    let mut query = connection.prepare_cached("SELECT name, key FROM endpoint ORDER BY name")?;
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let rows: Vec<(String, i64)> = rows.collect::<Result<_, _>>()?;
    let parsed = rows.into_iter().filter_map(|(name, key)| EndpointName::parse(&name).ok().map(|name| (name, key)));
    Ok(parsed.collect())
}

/// The endpoints in sight by name and number, each once.
pub(super) fn seen(connection: &Connection, sight: &Sight) -> Result<Vec<(EndpointName, i64)>, StoreError> {
    let Sight::Only(names) = sight else { return endpoints(connection) };
    let mut found = Vec::new();
    for name in names.iter().collect::<BTreeSet<_>>() {
        found.extend(endpoint_key(connection, name)?.map(|key| (name.clone(), key)));
    }
    Ok(found)
}

/// Events of several endpoints in one order.
struct Walk {
    lanes: Vec<Lane>,
    oldest_first: bool,
    sql: String,
    low: [u8; 16],
    high: [u8; 16],
}

struct Lane {
    endpoint: EndpointName,
    key: i64,
    ready: VecDeque<Found>,
    /// Rows of the next portion; 0 when there are none left.
    portion: usize,
    last: Option<EventId>,
}

impl Walk {
    fn of_all(connection: &Connection, filter: &Filter, page: &PageRequest) -> Result<Self, StoreError> {
        let range = "id > ?2 AND id < ?3";
        let of_one = |index: &str, and: &str| {
            format!("SELECT {COLUMNS} FROM event INDEXED BY {index} WHERE endpoint = ?1 AND {and} AND {range}")
        };
        let rows = if filter.is_of_dead() {
            of_one("event_dead", "state = 3")
        } else if filter.is_of_open() {
            of_one("event_open", "ended = 0")
        } else {
            row::of_both(COLUMNS, range)
        };
        let order = if page.oldest_first { "ASC" } else { "DESC" };
        let sql = format!("{rows} ORDER BY id {order} LIMIT ?4");
        let (from, until) = filter.times();
        let (mut low, mut high) = (edge(from, [0; 16], -1), edge(until, [0xff; 16], 1));
        if let Some(Cursor(after)) = &page.after {
            if page.oldest_first {
                low = low.max(*after.as_bytes());
            } else {
                high = high.min(*after.as_bytes());
            }
        }
        let lane = |(endpoint, key)| Lane { endpoint, key, ready: VecDeque::new(), portion: PORTIONS.0, last: None };
        let all = filter.endpoints.is_empty();
        let sight = if all { Sight::All } else { Sight::Only(filter.endpoints.clone()) };
        let seen = seen(connection, &sight)?.into_iter().filter(|(name, _)| filter.may_be_of(name));
        let lanes = seen.map(lane).collect();
        Ok(Self { lanes, oldest_first: page.oldest_first, sql, low, high })
    }

    fn of_sender(
        connection: &Connection,
        keys: &Keys,
        filter: &Filter,
        page: &PageRequest,
        sender: &str,
    ) -> Result<Self, StoreError> {
        let mut walk = Self::of_all(connection, filter, page)?;
        for lane in &mut walk.lanes {
            lane.portion = 0;
            let mut ids = keys.find(connection, hash(&lane.endpoint, sender))?;
            ids.retain(|id| *id.as_bytes() > walk.low && *id.as_bytes() < walk.high);
            if page.oldest_first {
                ids.reverse();
            }
            for id in ids {
                lane.ready.extend(row::load(connection, &lane.endpoint, lane.key, id)?);
            }
        }
        Ok(walk)
    }

    fn next(&mut self, connection: &Connection) -> Result<Option<Found>, StoreError> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.ready.is_empty() && lane.portion > 0) {
            let (mut low, mut high) = (self.low, self.high);
            if let Some(last) = &lane.last {
                *(if self.oldest_first { &mut low } else { &mut high }) = *last.as_bytes();
            }
            let mut query = connection.prepare_cached(&self.sql)?;
            let mut rows = query.query(params![lane.key, low, high, lane.portion as u64])?;
            while let Some(row) = rows.next()? {
                lane.ready.push_back(row::read(row, &lane.endpoint)?);
            }
            lane.last = lane.ready.back().map(|found| found.row.summary.id);
            let full = lane.ready.len() == lane.portion;
            lane.portion = if full { (lane.portion * 4).min(PORTIONS.1) } else { 0 };
        }
        let heads = self.lanes.iter_mut().filter(|lane| !lane.ready.is_empty());
        let id = |lane: &&mut Lane| lane.ready[0].row.summary.id;
        let next = if self.oldest_first { heads.min_by_key(id) } else { heads.max_by_key(id) };
        Ok(next.and_then(|lane| lane.ready.pop_front()))
    }
}

/// An id begins with its time; an hour is left for the time between an event's arrival and the making of its id.
fn edge(at: Option<Timestamp>, open: [u8; 16], hours: i64) -> [u8; 16] {
    let Some(millis) = at.and_then(|at| at.checked_add(hours.hours()).ok()).map(Timestamp::as_millisecond) else {
        return open;
    };
    let mut bytes = open;
    bytes[..6].copy_from_slice(&u64::try_from(millis).unwrap_or(0).to_be_bytes()[2..]);
    bytes
}

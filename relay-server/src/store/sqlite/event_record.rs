//! An event as the log and its row have it: facts, which never change, and its course.

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    encoding,
    record::Raw,
    row::{self, Found, PARKED, millis, time},
};
use crate::{
    endpoint::EndpointName,
    store::{
        Holder, Reason, State, StoreError, Summary,
        rules::{self, Held, Row},
    },
    webhook::EventId,
};

/// What never changes of an event, but for method and target, which its head has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Facts<'a> {
    /// None where the body stands beside it.
    body_sha256: Option<Raw<32>>,
    received_at: i64,
    #[serde(deserialize_with = "number_in_sqlite")]
    size: u64,
    file: Option<u64>,
    event_type: Option<&'a str>,
    sender_id: Option<&'a str>,
    /// `=` is the sender's id, as which most have it; else `+` and the key.
    dedup_key: Option<&'a str>,
    order_key: Option<&'a str>,
    conflict_with: Option<[u8; 16]>,
    replay_of: Option<[u8; 16]>,
    unproven: bool,
}

/// The facts of an event as they stand in its row. What has a column of its own is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct RowFacts<'a> {
    #[serde(borrow)]
    facts: Facts<'a>,
    method: &'a str,
    target: &'a str,
}

/// What changes of an event. Times count from when it was received, so that they take few bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Course<'a> {
    state: u8,
    reason: Option<&'a str>,
    attempts: u32,
    tries: u32,
    #[serde(deserialize_with = "number_in_sqlite")]
    fence: u64,
    due_at: Option<i64>,
    status: Option<u16>,
    settled_at: Option<i64>,
    redelivered: bool,
    #[serde(deserialize_with = "number_in_sqlite")]
    cost: u64,
    holder: Option<u64>,
    /// The append that the lease was given to; none if it was claimed. None within: the append of the event itself.
    given_to: Option<Option<[u8; 16]>>,
    /// These three are of the last attempt.
    took_us: Option<u64>,
    agent: Option<&'a str>,
    resigned: bool,
    /// When the sender was answered, from its first byte.
    answered_us: Option<u32>,
}

/// A number that SQLite can keep. A larger one is damage, and would overflow where others are added.
pub(super) fn number_in_sqlite<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(from)?;
    match i64::try_from(number) {
        Ok(_) => Ok(number),
        Err(_) => Err(serde::de::Error::custom("a number is too large")),
    }
}

impl<'a> Facts<'a> {
    /// As they stand in the log.
    pub(super) fn of(found: &'a Found, dedup_key: Option<&'a str>) -> Self {
        let event = &found.row.summary;
        Self {
            body_sha256: found.file.map(|_| Raw(event.body_sha256)),
            received_at: millis(event.received_at),
            size: event.size,
            file: found.file,
            event_type: event.event_type.as_deref(),
            sender_id: event.sender_id.as_deref(),
            dedup_key,
            order_key: event.order_key.as_deref(),
            conflict_with: event.conflict_with.map(|id| *id.as_bytes()),
            replay_of: event.replay_of.map(|id| *id.as_bytes()),
            unproven: event.unproven,
        }
    }

    pub(super) fn file(&self) -> Option<u64> {
        self.file
    }

    /// The sender's id and the dedup key.
    fn keys(&self) -> (Option<String>, Option<String>) {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let sender_id = text(self.sender_id);
        let dedup_key = row::dedup_key(text(self.dedup_key), sender_id.as_ref());
        (sender_id, dedup_key)
    }

    /// The event as it was appended; its course is put over it. `body` is the body where that stands beside it.
    pub(super) fn row(&self, endpoint: EndpointName, id: EventId, (method, target): (&str, &str), body: &[u8]) -> Row {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let (sender_id, dedup_key) = self.keys();
        let summary = Summary {
            endpoint,
            id,
            received_at: time(self.received_at),
            state: State::Pending,
            reason: None,
            attempts: 0,
            tries: 0,
            fence: 0,
            due_at: None,
            parked: false,
            status: None,
            settled_at: None,
            method: method.to_owned(),
            target: rules::shown(target),
            size: self.size,
            body_sha256: self.body_sha256.map_or_else(|| rules::sha256(body), |sum| sum.0),
            event_type: text(self.event_type),
            sender_id,
            order_key: text(self.order_key),
            conflict_with: self.conflict_with.map(EventId::from_bytes),
            replay_of: self.replay_of.map(EventId::from_bytes),
            redelivered: false,
            unproven: self.unproven,
            took_us: None,
            agent: None,
            resigned: false,
            answered_us: None,
        };
        Row { summary, dedup_key, held: None, cost: 0 }
    }
}

impl<'a> RowFacts<'a> {
    pub(super) fn write(found: &Found) -> Vec<u8> {
        let (event, dedup_key) = (&found.row.summary, row::written_dedup_key(&found.row));
        let facts = Facts {
            body_sha256: Some(Raw(event.body_sha256)),
            received_at: 0,
            file: None,
            order_key: None,
            ..Facts::of(found, dedup_key.as_deref())
        };
        let row = RowFacts { facts, method: &event.method, target: &event.target };
        encoding::append(&row, Vec::with_capacity(192))
    }

    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, StoreError> {
        postcard::from_bytes(bytes).map_err(|error| strange(&error))
    }

    pub(super) fn row(&self, endpoint: EndpointName, id: EventId) -> Row {
        self.facts.row(endpoint, id, (self.method, self.target), &[])
    }

    /// The sender's id and the dedup key of a row.
    pub(super) fn keys(&self) -> (Option<String>, Option<String>) {
        self.facts.keys()
    }
}

fn strange(error: &postcard::Error) -> StoreError {
    StoreError::Internal(format!("an event's row cannot be read: {error}"))
}

impl<'a> Course<'a> {
    pub(super) fn of(row: &'a Row) -> Self {
        let event = &row.summary;
        let given_to = row.held.and_then(|held| held.given_to);
        Self {
            state: u8::try_from(event.state.code()).unwrap_or(u8::MAX),
            reason: event.reason.map(Reason::code),
            attempts: event.attempts,
            tries: event.tries,
            fence: event.fence,
            due_at: row::due(row).map(|at| at.wrapping_sub(millis(event.received_at))),
            status: event.status,
            settled_at: event.settled_at.map(|at| millis(at).wrapping_sub(millis(event.received_at))),
            redelivered: event.redelivered,
            cost: row.cost,
            holder: row.held.map(|held| held.holder.0),
            given_to: given_to.map(|append| (append != event.id).then(|| *append.as_bytes())),
            took_us: event.took_us,
            agent: event.agent.as_deref(),
            resigned: event.resigned,
            answered_us: event.answered_us,
        }
    }

    /// As it stands in a row, which has columns for the rest.
    pub(super) fn write(row: &'a Row) -> Vec<u8> {
        let course = Course { state: 0, due_at: None, cost: 0, ..Course::of(row) };
        encoding::append(&course, Vec::with_capacity(64))
    }

    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, StoreError> {
        postcard::from_bytes(bytes).map_err(|error| strange(&error))
    }
}

/// What a row's columns say of its course.
#[derive(Clone, Copy)]
pub(super) struct CourseColumns {
    pub(super) state: u8,
    pub(super) due_at: Option<i64>,
    pub(super) cost: u64,
}

impl Course<'_> {
    /// The whole, of an event that was received then.
    pub(super) fn with(self, columns: CourseColumns, received_at: i64) -> Self {
        let CourseColumns { state, due_at, cost } = columns;
        Self { state, due_at: due_at.map(|at| at.wrapping_sub(received_at)), cost, ..self }
    }

    pub(super) fn fence(&self) -> u64 {
        self.fence
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        self.holder.map(Holder)
    }

    /// When it ended, in milliseconds since 1970, if it was received then.
    pub(super) fn settled_at(&self, received_at: i64) -> Option<i64> {
        self.settled_at.map(|at| at.wrapping_add(received_at))
    }

    pub(super) fn put_over(&self, row: &mut Row) -> Result<(), StoreError> {
        let event = &mut row.summary;
        let strange = || StoreError::Failed(format!("there is an event of state {}", self.state));
        let received_at = millis(event.received_at);
        let due_at = self.due_at.map(|at| at.wrapping_add(received_at));
        event.state = State::from_code(self.state.into()).ok_or_else(strange)?;
        event.reason = self.reason.and_then(Reason::from_code);
        (event.attempts, event.tries, event.fence) = (self.attempts, self.tries, self.fence);
        event.parked = due_at == Some(PARKED);
        event.due_at = due_at.filter(|due| *due != PARKED).map(time);
        (event.status, event.settled_at) = (self.status, self.settled_at(received_at).map(time));
        (event.took_us, event.agent) = (self.took_us, self.agent.map(str::to_owned));
        (event.resigned, event.answered_us) = (self.resigned, self.answered_us);
        (event.redelivered, row.cost) = (self.redelivered, self.cost);
        let given_to = self.given_to.map(|append| append.map_or(event.id, EventId::from_bytes));
        row.held = self.holder.map(|holder| Held { holder: Holder(holder), given_to });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_would_overflow_are_refused() {
        let most = i64::MAX.cast_unsigned();
        let read = |course: Course<'_>| Course::read(&encoding::append(&course, Vec::new())).map(|course| course.fence);
        assert_eq!(read(Course { fence: most, cost: most, ..Course::default() }), Ok(most));
        assert!(read(Course { fence: most + 1, ..Course::default() }).is_err());
        assert!(read(Course { cost: most + 1, ..Course::default() }).is_err());
        let is_read = |size| {
            let row = RowFacts { facts: Facts { size, ..Facts::default() }, method: "POST", target: "/" };
            RowFacts::read(&encoding::append(&row, Vec::new())).is_ok()
        };
        assert!(is_read(most) && !is_read(most + 1));
    }
}

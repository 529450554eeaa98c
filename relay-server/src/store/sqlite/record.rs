//! What the log says: the new state of everything that a call changed.
//!
//! A record holds all changes of one call, or one event with its content and what belongs to it. Every change is the
//! state that something has after it, never a difference: so a start may read records whose changes the index holds
//! already. Invariant: nothing that a caller was promised stands in the index alone.
//!
//! ```text
//! without content:  0, changes
//! with content:     1, bytes of changes, of the head and of the header lines (4 each), checksum (16),
//!                   changes, head, header lines, body
//! ```

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    encoding,
    event_record::{Course, Facts, number_in_sqlite},
    row::{millis, time},
};
use crate::{
    hops::Hops,
    store::{Answer, Attempt, AuditClass, AuditRow, Bulk, BulkAction, Cursor, Outcome, StoreError},
    webhook::EventId,
};

pub(super) const CHECKSUM_BYTES: usize = 16;
pub(super) type Checksum = [u8; CHECKSUM_BYTES];

/// A record without changes.
pub(super) const NOTHING: [u8; 1] = [0];

/// Kind, three lengths, checksum.
const PREFIX_BYTES: usize = 1 + 12 + CHECKSUM_BYTES;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Change<'a> {
    Endpoint {
        key: i64,
        name: &'a str,
    },
    /// A new event. Its content stands in the same record.
    Event {
        key: i64,
        id: Raw<16>,
        seq: i64,
        #[serde(borrow)]
        facts: Facts<'a>,
        #[serde(borrow)]
        course: Course<'a>,
    },
    /// How the event with this number stands now.
    Course(i64, #[serde(borrow)] Course<'a>),
    /// An attempt at the event whose course the same call notes down next, as [`AttemptFacts`] are written.
    Attempt(#[serde(serialize_with = "raw")] &'a [u8]),
    Mark(MarkFacts),
    Pause {
        key: i64,
        at: Option<i64>,
    },
    Bulk(#[serde(borrow)] BulkFacts<'a>),
    OwnSignature {
        digest: [u8; 32],
        expires_at: i64,
    },
    /// The content of an event that is there stands in this record now.
    Moved(i64, [u8; 16]),
    Audit(#[serde(borrow)] AuditFacts<'a>),
}

/// So many bytes. An array would be written, and read, one byte at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Serialize for Raw<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Raw<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(from)?;
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::invalid_length(bytes.len(), &"another length"))
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AttemptFacts<'a> {
    number: u32,
    #[serde(deserialize_with = "number_in_sqlite")]
    fence: u64,
    started_at: i64,
    duration_us: u64,
    /// Empty if it was answered, as most are.
    outcome: &'a str,
    agent: Option<&'a str>,
    #[serde(borrow)]
    answer: Option<AnswerFacts<'a>>,
    resigned: bool,
    sha256_in: Option<Raw<32>>,
    #[serde(serialize_with = "written_hops", deserialize_with = "read_hops")]
    hops: Hops,
}

#[derive(Debug, Serialize, Deserialize)]
struct AnswerFacts<'a> {
    status: u16,
    #[serde(serialize_with = "raw")]
    headers: &'a [u8],
    #[serde(serialize_with = "raw")]
    body: &'a [u8],
    truncated: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct MarkFacts {
    pub(super) key: i64,
    pub(super) digest: [u8; 16],
    pub(super) body: [u8; 16],
    pub(super) event: [u8; 16],
    pub(super) good_until: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BulkFacts<'a> {
    id: [u8; 16],
    action: &'a str,
    /// As JSON.
    filter: &'a str,
    created_at: i64,
    cursor: Option<[u8; 16]>,
    done: u64,
    skipped: u64,
    finished: bool,
    of: Option<u64>,
    at_most: Option<u64>,
    by: Option<&'a str>,
}

/// A row of the audit log.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AuditFacts<'a> {
    id: u64,
    class: u8,
    kind: &'a str,
    name: &'a str,
    token: Option<&'a str>,
    address: Option<&'a str>,
    action: &'a str,
    object: Option<&'a str>,
    result: Option<&'a str>,
    detail: Option<&'a str>,
    count: u64,
}

fn written_hops<S: Serializer>(hops: &Hops, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(&hops.to_bytes())
}

fn read_hops<'de, D: Deserializer<'de>>(from: D) -> Result<Hops, D::Error> {
    <&[u8]>::deserialize(from).map(Hops::from_bytes)
}

fn raw<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

impl<'a> AttemptFacts<'a> {
    pub(super) fn of(attempt: &'a Attempt) -> Self {
        let answer = attempt.answer.as_ref().map(|answer| AnswerFacts {
            status: answer.status,
            headers: answer.headers.as_bytes(),
            body: &answer.body,
            truncated: answer.truncated,
        });
        Self {
            number: attempt.number,
            fence: attempt.fence,
            started_at: millis(attempt.started_at),
            duration_us: u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX >> 1),
            outcome: if attempt.outcome == Outcome::Answered { "" } else { attempt.outcome.code() },
            agent: attempt.agent.as_deref(),
            answer,
            resigned: attempt.resigned,
            sha256_in: attempt.sha256_in.map(Raw),
            hops: attempt.hops,
        }
    }

    pub(super) fn write(&self) -> Vec<u8> {
        encoding::append(self, Vec::with_capacity(256))
    }

    pub(super) fn attempt(&self) -> Result<Attempt, StoreError> {
        let strange = || StoreError::Failed(format!("the log has an attempt of outcome {}", self.outcome));
        let answer = |facts: &AnswerFacts<'_>| {
            let headers = super::head::read_headers(Bytes::copy_from_slice(facts.headers))?;
            let body = Bytes::copy_from_slice(facts.body);
            Ok::<_, StoreError>(Answer { status: facts.status, headers, body, truncated: facts.truncated })
        };
        Ok(Attempt {
            number: self.number,
            fence: self.fence,
            started_at: time(self.started_at),
            duration: Duration::from_micros(self.duration_us),
            outcome: if self.outcome.is_empty() { Some(Outcome::Answered) } else { Outcome::from_code(self.outcome) }
                .ok_or_else(strange)?,
            agent: self.agent.map(str::to_owned),
            answer: self.answer.as_ref().map(answer).transpose()?,
            resigned: self.resigned,
            sha256_in: self.sha256_in.map(|sum| sum.0),
            hops: self.hops,
        })
    }
}

impl<'a> BulkFacts<'a> {
    pub(super) fn of(bulk: &'a Bulk, filter: &'a str) -> Self {
        Self {
            id: *bulk.id.as_bytes(),
            action: bulk.action.code(),
            filter,
            created_at: millis(bulk.created_at),
            cursor: bulk.cursor.as_ref().map(|cursor| *cursor.0.as_bytes()),
            done: bulk.done,
            skipped: bulk.skipped,
            finished: bulk.finished,
            of: bulk.of,
            at_most: bulk.at_most,
            by: bulk.by.as_deref(),
        }
    }

    pub(super) const fn filter(&self) -> &'a str {
        self.filter
    }

    pub(super) fn bulk(&self) -> Result<Bulk, StoreError> {
        let strange = |what: &str| StoreError::Failed(format!("the log has a bulk action with the {what}"));
        Ok(Bulk {
            id: EventId::from_bytes(self.id),
            action: BulkAction::from_code(self.action).ok_or_else(|| strange(self.action))?,
            filter: serde_json::from_str(self.filter).map_err(|_| strange(self.filter))?,
            created_at: time(self.created_at),
            cursor: self.cursor.map(|id| Cursor(EventId::from_bytes(id))),
            done: self.done,
            skipped: self.skipped,
            finished: self.finished,
            of: self.of,
            at_most: self.at_most,
            by: self.by.map(str::to_owned),
        })
    }
}

impl<'a> AuditFacts<'a> {
    pub(super) fn of(row: &'a AuditRow) -> Self {
        Self {
            id: row.id,
            class: row.class.code(),
            kind: &row.kind,
            name: &row.name,
            token: row.token.as_deref(),
            address: row.address.as_deref(),
            action: &row.action,
            object: row.object.as_deref(),
            result: row.result.as_deref(),
            detail: row.detail.as_deref(),
            count: row.count,
        }
    }

    pub(super) fn row(&self) -> AuditRow {
        let text = |text: Option<&str>| text.map(str::to_owned);
        AuditRow {
            id: self.id,
            class: AuditClass::from_code(self.class),
            kind: self.kind.to_owned(),
            name: self.name.to_owned(),
            token: text(self.token),
            address: text(self.address),
            action: self.action.to_owned(),
            object: text(self.object),
            result: text(self.result),
            detail: text(self.detail),
            count: self.count,
        }
    }
}

pub(super) fn read_attempt(bytes: &[u8]) -> Result<Attempt, StoreError> {
    postcard::from_bytes::<AttemptFacts<'_>>(bytes).map_err(|error| unreadable(&error))?.attempt()
}

/// What an answer in an attempt's record has of headers and body, in bytes. A damaged one has none.
pub(super) fn answer_bytes(record: &[u8]) -> u64 {
    let answer = postcard::from_bytes::<AttemptFacts<'_>>(record).ok().and_then(|facts| facts.answer);
    answer.map_or(0, |answer| answer.headers.len() + answer.body.len()) as u64
}

/// The changes of a call, as they are noted down.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<u8>);

impl Changes {
    pub(super) fn note(&mut self, change: &Change<'_>) {
        let bytes = std::mem::take(&mut self.0);
        self.0 = encoding::append(change, bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The first bytes of a record whose changes have no content.
pub(super) const PLAIN: &[u8] = &[0];

/// The first bytes of a record with content.
pub(super) fn prefix(changes: usize, head: usize, headers: usize, checksum: &Checksum) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[0] = 1;
    for (nth, length) in [changes, head, headers].into_iter().enumerate() {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        prefix[1 + nth * 4..][..4].copy_from_slice(&length.to_le_bytes());
    }
    prefix[1 + 12..].copy_from_slice(checksum);
    prefix
}

/// Where in a record what stands.
pub(super) struct Parts<'a> {
    pub(super) changes: &'a [u8],
    pub(super) content: Option<ContentParts<'a>>,
}

pub(super) struct ContentParts<'a> {
    pub(super) checksum: &'a Checksum,
    pub(super) head: &'a [u8],
    pub(super) headers: &'a [u8],
    pub(super) body: &'a [u8],
}

/// Takes a record apart; none if it is none.
pub(super) fn parts(record: &[u8]) -> Option<Parts<'_>> {
    match *record.first()? {
        0 => Some(Parts { changes: &record[1..], content: None }),
        1 => {
            let (prefix, rest) = record.split_at_checked(PREFIX_BYTES)?;
            let length = |nth: usize| {
                let bytes = prefix[1 + nth * 4..].first_chunk::<4>().copied().unwrap_or_default();
                usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
            };
            let (changes, rest) = rest.split_at_checked(length(0))?;
            let (head, rest) = rest.split_at_checked(length(1))?;
            let (headers, body) = rest.split_at_checked(length(2))?;
            let checksum = prefix[1 + 12..].first_chunk()?;
            let content = ContentParts { checksum, head, headers, body };
            Some(Parts { changes, content: Some(content) })
        }
        _ => None,
    }
}

/// The next of the changes, and those behind it.
pub(super) fn next_change(changes: &[u8]) -> Result<Option<(Change<'_>, &[u8])>, StoreError> {
    if changes.is_empty() {
        return Ok(None);
    }
    postcard::take_from_bytes(changes).map(Some).map_err(|error| unreadable(&error))
}

fn unreadable(error: &postcard::Error) -> StoreError {
    StoreError::Failed(format!("a record cannot be read: {error}"))
}

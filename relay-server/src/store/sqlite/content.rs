//! Heads and bodies on their way out of the log, each checked against what went in.

use std::ops::Range;

use bytes::Bytes;

use super::{
    bodies::BodyFolder,
    head,
    log::LogReader,
    record::{self, CHECKSUM_BYTES, Checksum},
    row::Found,
};
use crate::{
    endpoint::EndpointName,
    store::{Head, INLINE_BYTES, StoreError, rules},
    webhook::EventId,
};

pub(super) struct Content {
    pub(super) head: Head,
    /// The whole body, if it stands beside its head.
    pub(super) body: Option<Bytes>,
}

/// Where contents are read.
#[derive(Clone)]
pub(super) struct Shelves {
    pub(super) log: LogReader,
    pub(super) bodies: BodyFolder,
}

/// The seal of what belongs together, as it stands in the log.
pub(super) fn checksum(
    endpoint: &EndpointName,
    id: EventId,
    head: &[u8],
    headers: &[u8],
    body_sha256: &[u8; 32],
) -> Checksum {
    let whole = rules::checksum(endpoint, id, head, headers, body_sha256);
    *whole.first_chunk::<CHECKSUM_BYTES>().expect("a SHA-256 is longer")
}

impl Shelves {
    /// Reads what an event carries. Any difference from what went in makes it [`StoreError::Damaged`].
    ///
    /// A body in a file is only read through if `whole` asks for it.
    pub(super) fn read(&self, found: &Found, whole: bool) -> Result<Content, StoreError> {
        let event = &found.row.summary;
        let damaged = || StoreError::Damaged(event.id);
        let record = self.log.read(found.place)?.ok_or_else(damaged)?;
        let parts = record::parts(&record).and_then(|parts| parts.content).ok_or_else(damaged)?;
        if checksum(&event.endpoint, event.id, parts.head, parts.headers, &event.body_sha256) != *parts.checksum {
            return Err(damaged());
        }
        let sha256 = match found.file {
            None => Some(rules::sha256(parts.body)),
            Some(file) if whole => Some(self.bodies.sha256(file, event.size).map_err(|_| damaged())?),
            Some(file) if !self.bodies.has(file, event.size) => return Err(damaged()),
            Some(_) => None,
        };
        if sha256.is_some_and(|sha256| sha256 != event.body_sha256) {
            return Err(damaged());
        }
        let head = head::read(parts.head, record.slice_ref(parts.headers)).map_err(|_| damaged())?;
        let body = found.file.is_none().then(|| record.slice_ref(parts.body));
        Ok(Content { head, body })
    }

    /// A part of an event's body, wherever it stands.
    pub(super) fn part(&self, found: &Found, part: Range<u64>) -> Result<Bytes, StoreError> {
        let event = &found.row.summary;
        let part = part.start..part.end.min(part.start.saturating_add(crate::store::MAX_RANGE_BYTES));
        if let Some(file) = found.file {
            return self.bodies.part(file, event.size, part).map_err(|_| StoreError::Damaged(event.id));
        }
        let body = self.read(found, false)?.body.unwrap_or_default();
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(body.len());
        Ok(body.slice(at(part.start)..at(part.end).max(at(part.start))))
    }

    /// What an event carries, for a search: its head, and the beginning of its body, unchecked. How many bytes that is
    /// goes into `looked`.
    pub(super) fn beginning(&self, found: &Found, looked: &mut usize) -> Option<(Head, Bytes)> {
        let record = self.log.read(found.place).ok()??;
        let parts = record::parts(&record)?.content?;
        let head = head::read(parts.head, record.slice_ref(parts.headers)).ok()?;
        let body = match found.file {
            Some(file) => self.bodies.part(file, found.row.summary.size, 0..INLINE_BYTES).ok()?,
            None => record.slice_ref(parts.body),
        };
        *looked += parts.head.len() + parts.headers.len() + body.len().min(INLINE_BYTES as usize);
        Some((head, body))
    }
}

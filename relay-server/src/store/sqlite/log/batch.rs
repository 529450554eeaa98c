//! The batch that is being made: what the next write brings to the log.

use super::{
    LogPlace, Lsn,
    frame::{self, BATCH_HEADER, BatchHeader, MAX_RECORD_BYTES, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader},
};
use crate::store::StoreError;

/// A buffer that a large batch has left is not kept beyond this.
const KEPT_BYTES: usize = 1024 * 1024;

/// Bytes of one batch, with which a segment stays far from the 4 GiB that a place can name.
const MAX_BATCH_BYTES: usize = 1024 * 1024 * 1024;

/// A point within the batch that is being made.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct LogPoint(usize);

#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Headers, with nothing in them yet, and records. Empty if nothing was pushed.
    bytes: Vec<u8>,
    /// Where its headers and each of its records begin.
    starts: Vec<usize>,
    /// Where its first byte will stand, and where it begins behind a segment's header.
    begins: Lsn,
    begins_segment: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Whether it is the first of its segment.
    pub(super) fn begins_segment(&self) -> bool {
        self.begins_segment
    }

    pub(super) fn begins(&self) -> Lsn {
        self.begins
    }

    /// Says where it is going to stand, while it is empty.
    pub(super) fn place_at(&mut self, begins: Lsn) {
        self.begins = begins;
        self.begins_segment = begins.offset() == 0;
        self.bytes.clear();
        self.bytes.resize(self.headers(), 0);
    }

    fn headers(&self) -> usize {
        if self.begins_segment { SEGMENT_HEADER + BATCH_HEADER } else { BATCH_HEADER }
    }

    pub(super) fn push(&mut self, parts: &[&[u8]]) -> Result<LogPlace, StoreError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let start = self.bytes.len();
        let too_long = || StoreError::Internal(format!("a record of {length} bytes is too long for the store's log"));
        if length > MAX_RECORD_BYTES || start + length > MAX_BATCH_BYTES {
            return Err(too_long());
        }
        let at = self.begins.plus(start).ok_or_else(too_long)?;
        self.bytes.reserve(RECORD_HEADER + length);
        self.bytes.extend_from_slice(&[0; RECORD_HEADER]);
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.starts.push(start);
        Ok(LogPlace { segment: at.segment(), offset: at.offset(), length: u32::try_from(length).unwrap_or(u32::MAX) })
    }

    pub(super) fn point(&self) -> LogPoint {
        LogPoint(self.starts.len())
    }

    pub(super) fn truncate(&mut self, to: LogPoint) {
        if let Some(&start) = self.starts.get(to.0) {
            self.bytes.truncate(start);
            self.starts.truncate(to.0);
        }
    }

    pub(super) fn clear(&mut self) {
        self.starts.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
    }

    /// Fills the headers in; what is to be written.
    pub(super) fn finish(&mut self, store: u64, after: Lsn, synced: Lsn) -> Option<&[u8]> {
        let ends = self.starts.iter().skip(1).copied().chain([self.bytes.len()]);
        for (&start, end) in self.starts.iter().zip(ends) {
            frame::finish_record(store, self.begins.plus(start)?, self.bytes.get_mut(start..end)?);
        }
        let mut headers = Vec::with_capacity(self.headers());
        if self.begins_segment {
            let header = SegmentHeader { store, number: self.begins.segment(), after };
            headers.extend_from_slice(&header.encode());
        }
        let at = self.begins.plus(headers.len())?;
        let length = u32::try_from(self.bytes.len() - self.headers()).ok()?;
        headers.extend_from_slice(&BatchHeader { at, synced, length }.encode(store));
        self.bytes.get_mut(..headers.len())?.copy_from_slice(&headers);
        Some(&self.bytes)
    }
}

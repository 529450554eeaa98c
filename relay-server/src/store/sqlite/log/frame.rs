//! How a segment, a batch and a record stand in a file.
//!
//! ```text
//! segment  = header (40): magic 8 | store 8 | number 8 | after 8 | checksum 4 | 0 (4), then batches
//! batch    = header (32): magic 8 | at 8 | synced 8 | length 4 | checksum 4, then records, `length` bytes of them
//! record   = header (8): length 4 | checksum 4, then the payload
//! ```
//!
//! All numbers are little-endian. A segment's number is given once and never again, also when its file is used again,
//! and every checksum below covers it: what an earlier segment left in the file is never taken for a record of this one.

use super::{LogPlace, Lsn};

pub(super) const SEGMENT_HEADER: usize = 40;
pub(super) const BATCH_HEADER: usize = 32;
pub(super) const RECORD_HEADER: usize = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"RLAYSEG1";
pub(super) const BATCH_MAGIC: [u8; 8] = *b"\xffRBATCH\xff";

/// The longest payload of a record: far above a body that stands in the log, with its head.
pub(super) const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;

/// The first of a slice's next eight bytes, as a number. None if there are fewer.
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn short_number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) store: u64,
    pub(super) number: u64,
    /// Where the log left the segment before it; 0 for the first of all.
    pub(super) after: Lsn,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..16].copy_from_slice(&self.store.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.after.0.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..32]);
        bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let is_whole = bytes.starts_with(&SEGMENT_MAGIC) && short_number(bytes, 32)? == crc32fast::hash(&bytes[..32]);
        let header = Self { store: number(bytes, 8)?, number: number(bytes, 16)?, after: Lsn(number(bytes, 24)?) };
        is_whole.then_some(header)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// Where it stands itself.
    pub(super) at: Lsn,
    /// Up to where the log was known to be synced when this was written.
    pub(super) synced: Lsn,
    /// Bytes of its records.
    pub(super) length: u32,
}

impl BatchHeader {
    pub(super) fn encode(&self, store: u64) -> [u8; BATCH_HEADER] {
        let mut bytes = [0; BATCH_HEADER];
        bytes[..8].copy_from_slice(&BATCH_MAGIC);
        bytes[8..16].copy_from_slice(&self.at.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.synced.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        let checksum = seeded(store, &bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the header that is to stand at this place.
    pub(super) fn decode(bytes: &[u8], store: u64, at: Lsn) -> Option<Self> {
        if !bytes.starts_with(&BATCH_MAGIC) || number(bytes, 8)? != at.0 {
            return None;
        }
        let is_whole = short_number(bytes, 28)? == seeded(store, &bytes[..28]);
        let header = Self { at, synced: Lsn(number(bytes, 16)?), length: short_number(bytes, 24)? };
        is_whole.then_some(header)
    }
}

impl BatchHeader {
    /// Where its first record stands.
    pub(super) fn first(&self) -> Option<Lsn> {
        self.at.plus(BATCH_HEADER)
    }

    pub(super) fn end(&self) -> Option<Lsn> {
        self.at.plus(BATCH_HEADER + self.length as usize)
    }
}

fn seeded(store: u64, bytes: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&store.to_le_bytes());
    checksum.update(bytes);
    checksum.finalize()
}

fn record_checksum(store: u64, at: Lsn, payload: &[u8]) -> u32 {
    let mut seed = [0; 20];
    seed[..8].copy_from_slice(&store.to_le_bytes());
    seed[8..16].copy_from_slice(&at.0.to_le_bytes());
    seed[16..].copy_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&seed);
    checksum.update(payload);
    checksum.finalize()
}

/// Writes the header of a record that stands at this place: `record` is the room for it, and the payload.
pub(super) fn finish_record(store: u64, at: Lsn, record: &mut [u8]) {
    let Some((header, payload)) = record.split_first_chunk_mut::<RECORD_HEADER>() else { return };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&record_checksum(store, at, payload).to_le_bytes());
}

/// The payload of the record that stands at the beginning of `bytes` and at this place of the log.
pub(super) fn payload(store: u64, at: Lsn, bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(short_number(bytes, 0)?).ok()?;
    let payload = bytes.get(RECORD_HEADER..)?.get(..length)?;
    let is_whole = length <= MAX_RECORD_BYTES && short_number(bytes, 4)? == record_checksum(store, at, payload);
    #[cfg(test)]
    let is_whole = is_whole || super::TAKES_TORN_RECORDS.get();
    is_whole.then_some(payload)
}

/// The places of a batch's records, if all of them are whole. `first` is where `bytes` stand.
pub(super) fn records(store: u64, first: Lsn, mut bytes: &[u8]) -> Option<Vec<LogPlace>> {
    let mut places = Vec::new();
    let mut at = first;
    while !bytes.is_empty() {
        let payload = payload(store, at, bytes)?;
        places.push(LogPlace {
            segment: at.segment(),
            offset: at.offset(),
            length: u32::try_from(payload.len()).ok()?,
        });
        let length = RECORD_HEADER + payload.len();
        (bytes, at) = (bytes.get(length..)?, at.plus(length)?);
    }
    Some(places)
}

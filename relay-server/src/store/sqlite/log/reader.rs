//! What is read back from the log, on any thread, while the writer goes on.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{
    LogPlace, Lsn,
    frame::{self, BATCH_HEADER, BATCH_MAGIC, BatchHeader, MAX_RECORD_BYTES, RECORD_HEADER, SEGMENT_HEADER},
    segment::{self, LogMedium, SegmentFile},
};
use crate::store::StoreError;

/// What takes records: each with its place and the end of its batch.
pub(super) type LogReplay<'a> = &'a mut dyn FnMut(LogPlace, Lsn, &[u8]) -> Result<(), StoreError>;

/// How much is looked through at a time for a batch's header.
const LOOK_BYTES: usize = 1024 * 1024;

/// A segment that is there.
#[derive(Debug)]
pub(super) struct KeptSegment {
    /// Up to where it was written.
    pub(super) bytes: u32,
    /// Open while it is written to, and always in memory. There may be more segments than a process may open files.
    pub(super) file: Option<Arc<SegmentFile>>,
}

/// What the log and its readers have in common.
#[derive(Debug)]
pub(super) struct LogFiles {
    pub(super) medium: LogMedium,
    pub(super) store: u64,
    pub(super) kept: RwLock<BTreeMap<u64, KeptSegment>>,
    /// The segment that was read last: most that is read stands beside each other.
    last_read: Mutex<Option<(u64, Arc<SegmentFile>)>>,
    /// While somebody else has this, no file is used again or removed.
    pub(super) holds: Arc<()>,
}

impl LogFiles {
    pub(super) fn new(medium: LogMedium, store: u64, kept: BTreeMap<u64, KeptSegment>) -> Self {
        Self { medium, store, kept: RwLock::new(kept), last_read: Mutex::default(), holds: Arc::default() }
    }

    fn file(&self, number: u64) -> io::Result<Option<Arc<SegmentFile>>> {
        match self.kept.read().get(&number) {
            None => return Ok(None),
            Some(KeptSegment { file: Some(file), .. }) => return Ok(Some(Arc::clone(file))),
            Some(_) => {}
        }
        let mut last = self.last_read.lock();
        if let Some((_, file)) = last.as_ref().filter(|(of, _)| *of == number) {
            return Ok(Some(Arc::clone(file)));
        }
        let LogMedium::Disk(folder) = &self.medium else { return Ok(None) };
        let file = segment::open(folder, number)?.map(Arc::new);
        *last = file.as_ref().map(|file| (number, Arc::clone(file)));
        Ok(file)
    }

    pub(super) fn remove(&self, number: u64) {
        self.kept.write().remove(&number);
        self.last_read.lock().take_if(|(of, _)| *of == number);
    }
}

/// Reads records. Its clones are the same view of the log.
#[derive(Clone, Debug)]
pub(in super::super) struct LogReader(pub(super) Arc<LogFiles>);

/// While it lasts every segment stays as it is, but for what is added to the last one.
#[derive(Debug)]
pub(in super::super) struct LogHold(#[expect(dead_code, reason = "counted, never looked at")] Arc<()>);

impl LogReader {
    /// The payload at this place. None if it is not there as it was written: its segment was released since the place
    /// was looked up, or it is damaged.
    pub(in super::super) fn read(&self, place: LogPlace) -> Result<Option<Bytes>, StoreError> {
        let length = place.length as usize;
        let Some(file) = self.0.file(place.segment).map_err(READ_FAILED)?.filter(|_| length <= MAX_RECORD_BYTES) else {
            return Ok(None);
        };
        let mut record = vec![0; RECORD_HEADER + length];
        if !file.read_at(&mut record, place.offset).map_err(READ_FAILED)? {
            return Ok(None);
        }
        let whole = frame::payload(self.0.store, place.lsn(), &record);
        let is_whole = whole.is_some_and(|payload| payload.len() == length);
        Ok(is_whole.then(|| Bytes::from(record).slice(RECORD_HEADER..)))
    }

    /// Number and bytes of each segment that was not released, in order; the last one is written to.
    pub(in super::super) fn segments(&self) -> Vec<(u64, u32)> {
        self.0.kept.read().iter().map(|(number, kept)| (*number, kept.bytes)).collect()
    }

    /// The records of a segment, as far as they are whole, in order.
    pub(in super::super) fn records(&self, number: u64) -> Result<Vec<LogPlace>, StoreError> {
        let end = self.0.kept.read().get(&number).map_or(0, |kept| kept.bytes);
        let Some(file) = self.0.file(number).map_err(READ_FAILED)? else { return Ok(Vec::new()) };
        let mut at = Lsn::new(number, SEGMENT_HEADER as u32);
        let mut places = Vec::new();
        while at.offset() < end {
            let found = find_batch(&file, self.0.store, at, &|_| true).map_err(READ_FAILED)?;
            let Some(header) = found.filter(|header| header.at.offset() < end) else { break };
            let whole = WholeBatch::read(&file, self.0.store, &header).map_err(READ_FAILED)?;
            // Behind a batch that is damaged the next one is looked for.
            let Some(next) = whole.as_ref().map(|batch| batch.end).or(header.at.plus(1)) else { break };
            places.extend(whole.into_iter().flat_map(|batch| batch.places));
            at = next;
        }
        Ok(places)
    }

    /// Gives each record from one end of a batch to another to `replay`, in order.
    pub(super) fn replay(&self, mut from: Lsn, upto: Lsn, replay: LogReplay<'_>) -> Result<(), StoreError> {
        if from == Lsn::default() {
            let first = self.0.kept.read().first_key_value().map_or(upto.segment(), |(number, _)| *number);
            from = Lsn::new(first, SEGMENT_HEADER as u32);
        }
        let lost = || StoreError::Failed("the store's log cannot be read back".into());
        while from < upto {
            let file = self.0.file(from.segment()).map_err(READ_FAILED)?.ok_or_else(lost)?;
            let end = self.0.kept.read().get(&from.segment()).map_or(0, |kept| kept.bytes);
            if from.offset() >= end {
                from = Lsn::new(from.segment() + 1, SEGMENT_HEADER as u32);
                continue;
            }
            let header = read_header(&file, self.0.store, from).map_err(READ_FAILED)?.ok_or_else(lost)?;
            let batch = WholeBatch::read(&file, self.0.store, &header).map_err(READ_FAILED)?.ok_or_else(lost)?;
            batch.replay(replay)?;
            from = batch.end;
        }
        Ok(())
    }

    /// Copies what is written by now into a folder that it makes, and syncs it.
    ///
    /// A segment that begins later is not in the copy: it could say that an earlier one was synced further than it was
    /// copied.
    pub(in super::super) fn copy(&self, to: &Path) -> io::Result<()> {
        segment::make_folder(to)?;
        for (number, bytes) in self.segments() {
            let from = self.0.file(number)?.ok_or(io::ErrorKind::NotFound)?;
            let copy = segment::create(to, number)?;
            let mut part = vec![0; LOOK_BYTES];
            for offset in (0..bytes).step_by(LOOK_BYTES) {
                part.truncate((bytes - offset) as usize);
                if !from.read_at(&mut part, offset)? {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                copy.write_at(&part, offset)?;
            }
            copy.sync()?;
        }
        segment::sync_folder(to)
    }

    /// Keeps all segments until it is dropped.
    pub(in super::super) fn hold(&self) -> LogHold {
        LogHold(Arc::clone(&self.0.holds))
    }
}

/// What a read that failed means for the store, for `map_err`.
const READ_FAILED: fn(io::Error) -> StoreError =
    |error| StoreError::Failed(format!("cannot read the store's log: {error}"));

/// The header of the batch that stands at this place.
pub(super) fn read_header(file: &SegmentFile, store: u64, at: Lsn) -> io::Result<Option<BatchHeader>> {
    let mut header = [0; BATCH_HEADER];
    let is_there = file.read_at(&mut header, at.offset())?;
    Ok(BatchHeader::decode(&header, store, at).filter(|_| is_there))
}

/// A batch that is whole.
pub(super) struct WholeBatch {
    pub(super) end: Lsn,
    pub(super) places: Vec<LogPlace>,
    /// Its records.
    bytes: Vec<u8>,
    first: Lsn,
}

impl WholeBatch {
    /// Reads the batch with this header, if all of it checks.
    pub(super) fn read(file: &SegmentFile, store: u64, header: &BatchHeader) -> io::Result<Option<Self>> {
        let (Some(first), Some(end)) = (header.first(), header.end()) else { return Ok(None) };
        if u64::from(end.offset()) > file.length()? {
            return Ok(None);
        }
        let mut bytes = vec![0; header.length as usize];
        let is_there = file.read_at(&mut bytes, first.offset())?;
        let places = frame::records(store, first, &bytes).filter(|_| is_there);
        Ok(places.map(|places| Self { end, places, bytes, first }))
    }

    /// Gives each record to `replay`, with the batch's end.
    pub(super) fn replay(&self, replay: LogReplay<'_>) -> Result<(), StoreError> {
        for place in &self.places {
            let start = (place.offset - self.first.offset()) as usize + RECORD_HEADER;
            let payload = self.bytes.get(start..).and_then(|rest| rest.get(..place.length as usize));
            replay(*place, self.end, payload.unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The first header of a batch from here on, in the rest of the segment, that is wanted.
pub(super) fn find_batch(
    file: &SegmentFile,
    store: u64,
    from: Lsn,
    wanted: &dyn Fn(&BatchHeader) -> bool,
) -> io::Result<Option<BatchHeader>> {
    // Most often it is the next thing.
    if let Some(header) = read_header(file, store, from)?.filter(|header| wanted(header)) {
        return Ok(Some(header));
    }
    let end = usize::try_from(file.length()?).unwrap_or(usize::MAX);
    let mut offset = from.offset() as usize;
    while offset + BATCH_HEADER <= end {
        let mut bytes = vec![0; LOOK_BYTES.min(end - offset)];
        if !file.read_at(&mut bytes, u32::try_from(offset).unwrap_or(u32::MAX))? {
            return Ok(None);
        }
        for start in memchr::memmem::find_iter(&bytes, &BATCH_MAGIC) {
            let Ok(offset) = u32::try_from(offset + start) else { return Ok(None) };
            let at = Lsn::new(from.segment(), offset);
            let header = BatchHeader::decode(&bytes[start..], store, at);
            if let Some(header) = header.filter(|header| wanted(header)) {
                return Ok(Some(header));
            }
        }
        // A header that the end of this part cuts is looked at with the next.
        offset += bytes.len() - (BATCH_HEADER - 1);
    }
    Ok(None)
}

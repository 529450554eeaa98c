//! The log: what the store must not lose, as records in segments, one write and one sync for all that wait.
//!
//! ```text
//! push, push, … ─▶ write (one batch) ─▶ SyncWork::run (any thread) ─▶ synced
//! ```
//!
//! - A batch is whole or it is not there: a start replays what stands behind the index's mark until a batch does not
//!   check, and goes on to write there.
//! - What was synced is never taken for a torn end: each batch says up to where the log was synced when it was written.
//!   A start that finds such a batch behind damage refuses to go on. (Of the last batch alone nobody can say whether it
//!   was damaged or torn.)
//! - A segment begins with a batch, and a batch never goes on in the next segment; so a large batch makes a longer one.
//! - A segment's number is never given twice. A file that nothing needs is used again under the next number, so that its
//!   blocks need not be found again; what it held before is never taken for a record ([`frame`]).
//! - After a full disk nothing of the batch counts, and it can be made anew. After any other failure of a write, or of a
//!   sync, the log must not be used any more.
//!
//! What the records say is not its business.

use std::{fs, io, path::PathBuf, sync::Arc};

use crate::store::StoreError;

mod batch;
mod frame;
mod reader;
mod recovery;
mod segment;

#[cfg(test)]
mod tests;

use batch::Batch;
pub(super) use batch::LogPoint;
use reader::{KeptSegment, LogFiles, LogReplay};
pub(super) use reader::{LogHold, LogReader};
pub(super) use segment::LogMedium;
use segment::SegmentFile;

/// Files that are kept to be used again.
const MAX_FREE: usize = 8;

/// A place in the log: number of the segment, and the byte in its file. Later ones are larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lsn(pub(super) u64);

impl Lsn {
    fn new(segment: u64, offset: u32) -> Self {
        Self(segment << 32 | u64::from(offset))
    }

    pub(super) fn segment(self) -> u64 {
        self.0 >> 32
    }

    pub(super) fn offset(self) -> u32 {
        self.0 as u32
    }

    /// So many bytes on in the same segment.
    fn plus(self, bytes: usize) -> Option<Self> {
        let offset = self.offset().checked_add(u32::try_from(bytes).ok()?)?;
        Some(Self::new(self.segment(), offset))
    }
}

/// Where a record stands, and the length of its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogPlace {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl LogPlace {
    fn lsn(self) -> Lsn {
        Lsn::new(self.segment, self.offset)
    }
}

/// The log's writing end.
#[derive(Debug)]
pub(super) struct Log {
    files: Arc<LogFiles>,
    segment_bytes: u32,
    /// The segment that is written to.
    current: Arc<SegmentFile>,
    end: Lsn,
    synced: Lsn,
    /// Segments with bytes that were not synced.
    unsynced: Vec<(u64, Arc<SegmentFile>)>,
    /// Names that were made or changed, and how many of these are synced.
    names: u64,
    synced_names: u64,
    /// Segments that nothing needs any more, whose files are there.
    free: Vec<u64>,
    /// The disk was full: the next batch rather begins a segment in a file that is free.
    is_short: bool,
    batch: Batch,
    #[cfg(test)]
    pub(super) fault: LogFault,
}

/// What a test lets fail.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LogFault {
    #[default]
    None,
    /// No file can grow.
    FullDisk,
    /// No file can grow by much.
    NearlyFullDisk,
    Write,
    Sync,
    /// Segments are given up for a commit of the index that is not synced.
    EarlyGiveUp,
}

#[cfg(test)]
thread_local! {
    /// Whether a start on this thread takes records whose checksum is wrong.
    pub(super) static TAKES_TORN_RECORDS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Log {
    /// Opens the log, or makes it if `mark` is 0 and nothing is there. Gives the records of each batch behind the mark
    /// to `replay`, in order, with their batch's end.
    pub(super) fn open(
        medium: LogMedium,
        store: u64,
        segment_bytes: u32,
        mark: Lsn,
        replay: LogReplay<'_>,
    ) -> Result<Self, StoreError> {
        let recovered = recovery::recover(&medium, store, mark, replay)?;
        let files = Arc::new(LogFiles::new(medium, store, recovered.kept));
        let mut log = Self {
            files,
            segment_bytes,
            current: recovered.current,
            end: recovered.end,
            synced: recovered.end,
            unsynced: Vec::new(),
            names: 0,
            synced_names: 0,
            free: Vec::new(),
            is_short: false,
            batch: Batch::default(),
            #[cfg(test)]
            fault: LogFault::None,
        };
        log.begin_batch();
        Ok(log)
    }

    fn begin_batch(&mut self) {
        self.batch.clear();
        let is_full = self.end.offset() >= self.segment_bytes;
        let changes = is_full || self.is_short && self.next_free().is_some();
        self.batch.place_at(if changes { Lsn::new(self.end.segment() + 1, 0) } else { self.end });
    }

    /// Adds a record to the batch; the place that it will have.
    pub(super) fn push(&mut self, parts: &[&[u8]]) -> Result<LogPlace, StoreError> {
        self.batch.push(parts)
    }

    pub(super) fn point(&self) -> LogPoint {
        self.batch.point()
    }

    /// Takes back what was pushed since then.
    pub(super) fn truncate(&mut self, to: LogPoint) {
        self.batch.truncate(to);
    }

    /// Takes the whole batch back.
    pub(super) fn discard(&mut self) {
        self.begin_batch();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Writes the batch; the log's end then. Nothing of it is safe before it was synced. After an error the batch can
    /// only be discarded.
    pub(super) fn write(&mut self) -> Result<Lsn, StoreError> {
        if self.batch.is_empty() {
            return Ok(self.end);
        }
        let written = self.try_write();
        match written {
            Ok(()) => self.is_short = false,
            Err(StoreError::NoSpace) => self.is_short = true,
            Err(_) => {}
        }
        if written.is_ok() {
            self.begin_batch();
        }
        written.map(|()| self.end)
    }

    /// Begins the next segment with a record, whatever room there is in this one: what comes then goes into a file that
    /// is free, once there is one.
    pub(super) fn leave_segment(&mut self, record: &[u8]) -> Result<(), StoreError> {
        self.batch.clear();
        self.batch.place_at(Lsn::new(self.end.segment() + 1, 0));
        self.batch.push(&[record])?;
        let written = self.write().map(drop);
        self.is_short = true;
        self.begin_batch();
        written
    }

    fn try_write(&mut self) -> Result<(), StoreError> {
        let begins = self.batch.begins();
        let file = match self.batch.begins_segment() {
            true => self.make_segment(begins.segment()).map_err(|error| segment::write_failed(&error))?,
            false => Arc::clone(&self.current),
        };
        let too_long = || StoreError::Internal("a batch is too long for the store's log".into());
        let bytes = self.batch.finish(self.files.store, self.end, self.synced).ok_or_else(too_long)?;
        let end = begins.plus(bytes.len()).ok_or_else(too_long)?;
        #[cfg(test)]
        let written = self.fault.write(&file, bytes, begins.offset());
        #[cfg(not(test))]
        let written = file.write_at(bytes, begins.offset());
        if let Err(error) = written {
            // What there was room for gives it back.
            let _kept_until_it_is_written_over = file.set_length(begins.offset());
            return Err(segment::write_failed(&error));
        }
        let mut kept = self.files.kept.write();
        if self.batch.begins_segment() && matches!(self.files.medium, LogMedium::Disk(_)) {
            kept.entry(self.end.segment()).and_modify(|before| before.file = None);
        }
        kept.insert(end.segment(), KeptSegment { bytes: end.offset(), file: Some(Arc::clone(&file)) });
        drop(kept);
        if !self.unsynced.iter().any(|(number, _)| *number == end.segment()) {
            self.unsynced.push((end.segment(), Arc::clone(&file)));
        }
        (self.current, self.end) = (file, end);
        Ok(())
    }

    /// The file of a segment that is to be written first: one that is free, or a new one.
    fn make_segment(&mut self, number: u64) -> io::Result<Arc<SegmentFile>> {
        let LogMedium::Disk(folder) = &self.files.medium else { return Ok(Arc::new(SegmentFile::in_memory())) };
        self.names += 1;
        // It was made for a batch that found no room.
        if let Some(there) = segment::open(folder, number)? {
            return Ok(Arc::new(there));
        }
        while let Some(free) = self.next_free() {
            self.free.retain(|other| *other != free);
            fs::rename(segment::path(folder, free), segment::path(folder, number))?;
            if let Some(file) = segment::open(folder, number)? {
                return Ok(Arc::new(file));
            }
        }
        segment::create(folder, number).map(Arc::new)
    }

    /// What was written and not synced yet; to be run on any thread. Before anything is answered that it holds,
    /// [`Log::synced`] has to be told.
    pub(super) fn sync_work(&self) -> SyncWork {
        let folder = match &self.files.medium {
            LogMedium::Disk(folder) if self.names > self.synced_names => Some(folder.clone()),
            _ => None,
        };
        SyncWork {
            files: self.unsynced.clone(),
            folder,
            done: Synced { upto: self.end, names: self.names },
            #[cfg(test)]
            fault: self.fault,
        }
    }

    pub(super) fn synced(&mut self, done: Synced) {
        self.synced_names = done.names;
        self.synced = self.synced.max(done.upto);
        let (synced, end) = (self.synced, self.end);
        self.unsynced.retain(|(number, _)| *number > synced.segment() || *number == end.segment() && synced < end);
    }

    /// Gives each record behind the mark to `replay` once more.
    pub(super) fn replay(&self, mark: Lsn, replay: LogReplay<'_>) -> Result<(), StoreError> {
        self.reader().replay(mark, self.end, replay)
    }

    /// The end of what is written.
    pub(super) fn end(&self) -> Lsn {
        self.end
    }

    pub(super) fn synced_upto(&self) -> Lsn {
        self.synced
    }

    /// Number and bytes of each segment that was not released, in order; the last one is written to.
    pub(super) fn segments(&self) -> Vec<(u64, u32)> {
        self.reader().segments()
    }

    /// Nothing needs this segment any more, not even after a power cut: its file may be used again.
    pub(super) fn release(&mut self, number: u64) {
        if number >= self.synced.segment() || self.files.kept.read().get(&number).is_none() {
            return;
        }
        self.files.remove(number);
        if let LogMedium::Disk(_) = self.files.medium {
            self.free.push(number);
            self.bound_free();
        }
    }

    /// Bytes that can be written without that a file grows.
    pub(super) fn room_inside(&self) -> u64 {
        let LogMedium::Disk(folder) = &self.files.medium else { return u64::MAX };
        let free = self.free.iter().filter(|_| !self.is_held());
        let free = free.filter_map(|number| fs::metadata(segment::path(folder, *number)).ok()).map(|file| file.len());
        let rest = self.current.length().map_or(0, |length| length.saturating_sub(self.end.offset().into()));
        rest + free.sum::<u64>()
    }

    fn next_free(&self) -> Option<u64> {
        self.free.first().copied().filter(|_| !self.is_held())
    }

    /// Whether somebody wants all files to stay.
    pub(super) fn is_held(&self) -> bool {
        Arc::strong_count(&self.files.holds) > 1
    }

    /// Removes files that are more than are kept, and those that are longer than others.
    fn bound_free(&mut self) {
        let LogMedium::Disk(folder) = &self.files.medium else { return };
        if self.is_held() {
            return;
        }
        let most = u64::from(self.segment_bytes) * 2;
        let mut kept = 0;
        self.free.retain(|number| {
            let path = segment::path(folder, *number);
            let is_kept = kept < MAX_FREE && fs::metadata(&path).is_ok_and(|file| file.len() <= most);
            if is_kept {
                kept += 1;
            } else {
                let _gone_or_found_by_the_next_start = fs::remove_file(path);
            }
            is_kept
        });
    }

    pub(super) fn reader(&self) -> LogReader {
        LogReader(Arc::clone(&self.files))
    }
}

/// A sync that is to be done.
#[derive(Debug)]
pub(super) struct SyncWork {
    files: Vec<(u64, Arc<SegmentFile>)>,
    folder: Option<PathBuf>,
    done: Synced,
    #[cfg(test)]
    fault: LogFault,
}

impl SyncWork {
    /// Syncs. After an error the log has failed.
    pub(super) fn run(self) -> Result<Synced, StoreError> {
        let synced = self.files.iter().try_for_each(|(_, file)| file.sync());
        #[cfg(test)]
        let synced = synced.and_then(|()| self.fault.sync());
        let synced = synced.and_then(|()| self.folder.as_deref().map_or(Ok(()), segment::sync_folder));
        synced.map_err(|error| segment::sync_failed(&error)).map(|()| self.done)
    }
}

/// That a sync was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Synced {
    upto: Lsn,
    names: u64,
}

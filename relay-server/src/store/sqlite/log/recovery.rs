//! What a start finds: the segments, what stands behind the mark, and where the log ends.

use std::{collections::BTreeMap, fmt::Display, fs, io, path::Path, sync::Arc};

use super::{
    Lsn,
    frame::{self, SEGMENT_HEADER, SegmentHeader},
    reader::{self, KeptSegment, LogReplay, WholeBatch},
    segment::{self, LogMedium, SegmentFile},
};
use crate::store::StoreError;

#[derive(Debug)]
pub(super) struct RecoveredLog {
    pub(super) kept: BTreeMap<u64, KeptSegment>,
    pub(super) current: Arc<SegmentFile>,
    pub(super) end: Lsn,
}

const FIRST: Lsn = Lsn(1 << 32 | SEGMENT_HEADER as u64);

pub(super) fn recover(
    medium: &LogMedium,
    store: u64,
    mark: Lsn,
    replay: LogReplay<'_>,
) -> Result<RecoveredLog, StoreError> {
    let LogMedium::Disk(folder) = medium else { return Ok(first(SegmentFile::in_memory())) };
    let wrong = |error: io::Error| unusable(folder, format_args!("cannot be opened: {error}"));
    segment::make_folder(folder).map_err(wrong)?;
    let mut found = Found { folder, store, numbers: segment::list(folder).map_err(wrong)? };
    let Some(begin) = found.begin(mark)? else { return found.make(mark).map_err(wrong) };
    let end = found.replay(begin, replay)?;
    found.expect_torn(end)?;
    found.cut(begin, end).map_err(wrong)
}

fn unusable(folder: &Path, what: impl Display) -> StoreError {
    StoreError::Unusable(format!("the store's log {} {what}", folder.display()))
}

fn first(file: SegmentFile) -> RecoveredLog {
    let current = Arc::new(file);
    let only = KeptSegment { bytes: FIRST.offset(), file: Some(Arc::clone(&current)) };
    RecoveredLog { kept: BTreeMap::from([(FIRST.segment(), only)]), current, end: FIRST }
}

/// The segments of a folder.
struct Found<'a> {
    folder: &'a Path,
    store: u64,
    numbers: Vec<u64>,
}

impl Found<'_> {
    fn wrong(&self) -> impl Fn(io::Error) -> StoreError {
        |error| unusable(self.folder, format_args!("cannot be read: {error}"))
    }

    fn open(&self, number: u64) -> Result<SegmentFile, StoreError> {
        let gone = || unusable(self.folder, format_args!("has lost its segment {number} while it was opened"));
        segment::open(self.folder, number).map_err(self.wrong())?.ok_or_else(gone)
    }

    /// A segment's header, if it is one: a file that was to be used again may have that of another.
    fn header(&self, file: &SegmentFile, number: u64) -> Result<Option<SegmentHeader>, StoreError> {
        let mut bytes = [0; SEGMENT_HEADER];
        let is_there = file.read_at(&mut bytes, 0).map_err(self.wrong())?;
        Ok(SegmentHeader::decode(&bytes).filter(|header| is_there && header.number == number))
    }

    /// Where the replay begins. None if there is nothing yet.
    fn begin(&self, mark: Lsn) -> Result<Option<Lsn>, StoreError> {
        let lacks = || {
            unusable(
                self.folder,
                "does not hold all that the store's file needs: put the folder back that belongs to the file, or restore \
                 a backup, which has both",
            )
        };
        let number = match self.numbers.first() {
            Some(first) if mark == Lsn::default() => *first,
            None if mark == Lsn::default() => return Ok(None),
            _ => mark.segment(),
        };
        if !self.numbers.contains(&number) {
            return Err(lacks());
        }
        let file = self.open(number)?;
        let Some(header) = self.header(&file, number)? else {
            // Made, and not written before a power cut: unless something stands behind it.
            self.expect_torn(Lsn::new(number, 0))?;
            return if mark == Lsn::default() && self.numbers.len() == 1 { Ok(None) } else { Err(lacks()) };
        };
        if header.store != self.store {
            return Err(unusable(
                self.folder,
                "belongs to another store: put the folder back that belongs to the store's file, or move this one away \
                 to begin anew with a new file",
            ));
        }
        if mark == Lsn::default() {
            return if header.after == mark { Ok(Some(Lsn::new(number, FIRST.offset()))) } else { Err(lacks()) };
        }
        let is_long_enough = u64::from(mark.offset()) <= file.length().map_err(self.wrong())?;
        if is_long_enough { Ok(Some(mark)) } else { Err(lacks()) }
    }

    /// The log of a new store.
    fn make(&self, mark: Lsn) -> io::Result<RecoveredLog> {
        for number in &self.numbers {
            fs::remove_file(segment::path(self.folder, *number))?;
        }
        let file = segment::create(self.folder, FIRST.segment())?;
        let header = SegmentHeader { store: self.store, number: FIRST.segment(), after: mark };
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        segment::sync_folder(self.folder)?;
        Ok(first(file))
    }

    /// Replays batch after batch, from segment to segment; where that ends.
    fn replay(&self, mut at: Lsn, replay: LogReplay<'_>) -> Result<Lsn, StoreError> {
        let mut file = self.open(at.segment())?;
        loop {
            let header = reader::read_header(&file, self.store, at).map_err(self.wrong())?;
            let batch = header.map(|header| WholeBatch::read(&file, self.store, &header)).transpose();
            if let Some(batch) = batch.map_err(self.wrong())?.flatten() {
                batch.replay(replay)?;
                at = batch.end;
                continue;
            }
            let Some(next) = self.numbers.iter().copied().find(|number| *number > at.segment()) else { return Ok(at) };
            let next_file = self.open(next)?;
            match self.header(&next_file, next)? {
                Some(header) if header.after == at => (file, at) = (next_file, Lsn::new(next, FIRST.offset())),
                _ => return Ok(at),
            }
        }
    }

    /// That nothing that was synced stands behind this place, where no batch is whole.
    fn expect_torn(&self, end: Lsn) -> Result<(), StoreError> {
        let is_later = |header: &frame::BatchHeader| header.synced > end;
        for number in self.numbers.iter().copied().filter(|number| *number >= end.segment()) {
            let from = if number == end.segment() { end } else { Lsn::new(number, 0) };
            let file = self.open(number)?;
            if reader::find_batch(&file, self.store, from, &is_later).map_err(self.wrong())?.is_some() {
                return Err(unusable(
                    self.folder,
                    format_args!(
                        "is damaged in segment {} at byte {}, and acknowledged events stand behind that: restore a \
                         backup; or, to go on without what came later, cut that file there (truncate --size={1}) and \
                         remove the segments with higher numbers",
                        end.segment(),
                        end.offset()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Removes what is torn, so that it is never taken for what is written there next, and syncs what was replayed: the
    /// process that wrote it may have ended before it could.
    fn cut(&mut self, begin: Lsn, end: Lsn) -> io::Result<RecoveredLog> {
        let later: Vec<u64> = self.numbers.extract_if(.., |number| *number > end.segment()).collect();
        for number in &later {
            fs::remove_file(segment::path(self.folder, *number))?;
        }
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let current = Arc::new(segment::open(self.folder, end.segment())?.ok_or_else(missing)?);
        current.cut(end.offset())?;
        segment::sync_folder(self.folder)?;
        for number in self.numbers.iter().filter(|number| (begin.segment()..end.segment()).contains(number)) {
            segment::open(self.folder, *number)?.ok_or_else(missing)?.sync()?;
        }
        let mut kept = BTreeMap::new();
        for number in &self.numbers {
            let bytes = fs::metadata(segment::path(self.folder, *number))?.len();
            kept.insert(*number, KeptSegment { bytes: u32::try_from(bytes).unwrap_or(u32::MAX), file: None });
        }
        kept.insert(end.segment(), KeptSegment { bytes: end.offset(), file: Some(Arc::clone(&current)) });
        Ok(RecoveredLog { kept, current, end })
    }
}

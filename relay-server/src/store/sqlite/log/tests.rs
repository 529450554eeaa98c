//! The log against cuts, damage, full disks and files that are used again.

use std::{
    fs::File,
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use super::*;

const STORE: u64 = 0x5eed;

impl LogFault {
    pub(super) fn write(self, file: &SegmentFile, bytes: &[u8], offset: u32) -> io::Result<()> {
        let grows = file.length()? < u64::from(offset) + bytes.len() as u64;
        match self {
            Self::FullDisk if grows => {
                // As a disk does that has room for a part.
                file.write_at(&bytes[..bytes.len() / 2], offset)?;
                Err(io::ErrorKind::StorageFull.into())
            }
            Self::NearlyFullDisk if grows && bytes.len() > 4096 => Err(io::ErrorKind::StorageFull.into()),
            Self::Write => Err(io::Error::other("no such disk")),
            _ => file.write_at(bytes, offset),
        }
    }

    pub(super) fn sync(self) -> io::Result<()> {
        if self == Self::Sync { Err(io::Error::other("no such disk")) } else { Ok(()) }
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("relay.db-log")
    }

    fn segment(&self, number: u64) -> PathBuf {
        segment::path(&self.log(), number)
    }

    fn open(&self, mark: Lsn, bytes: u32) -> Result<(Log, Vec<Vec<u8>>), StoreError> {
        let mut records = Vec::new();
        let mut replay = |_: LogPlace, _: Lsn, record: &[u8]| {
            records.push(record.to_vec());
            Ok(())
        };
        let log = Log::open(LogMedium::Disk(self.log()), STORE, bytes, mark, &mut replay)?;
        Ok((log, records))
    }

    /// All that a start finds, from the beginning.
    fn found(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.open(Lsn::default(), 1 << 20).map(|(_, records)| records)
    }

    /// As the disk was, in a folder of its own.
    fn copy(&self) -> Self {
        let copy = Self::new();
        fs::create_dir(copy.log()).expect("made");
        for entry in fs::read_dir(self.log()).expect("read") {
            let entry = entry.expect("read");
            fs::copy(entry.path(), copy.log().join(entry.file_name())).expect("copied");
        }
        copy
    }
}

fn open(folder: &Folder) -> Log {
    folder.open(Lsn::default(), 1 << 20).expect("opened").0
}

fn write(log: &mut Log, records: &[&[u8]]) -> Vec<LogPlace> {
    let places = records.iter().map(|record| log.push(&[record]).expect("pushed")).collect();
    log.write().expect("written");
    places
}

fn sync(log: &mut Log) {
    let done = log.sync_work().run().expect("synced");
    log.synced(done);
}

fn commit(log: &mut Log, records: &[&[u8]]) -> Vec<LogPlace> {
    let places = write(log, records);
    sync(log);
    places
}

fn refusal(found: Result<Vec<Vec<u8>>, StoreError>) -> String {
    match found {
        Err(StoreError::Unusable(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).expect("written");
}

/// Two batches that were synced, and one that was not; where this one begins.
fn three_batches(folder: &Folder) -> usize {
    let mut log = open(folder);
    commit(&mut log, &[b"one", b""]);
    commit(&mut log, &[&[7; 50], b"three"]);
    let last = log.end().offset();
    write(&mut log, &[b"four", b"five", b"six"]);
    last as usize
}

fn first_two() -> Vec<Vec<u8>> {
    vec![b"one".to_vec(), Vec::new(), vec![7; 50], b"three".to_vec()]
}

#[test]
fn what_was_written_is_found_again_and_read_where_it_stands() {
    let folder = Folder::new();
    let mut log = open(&folder);
    let places = commit(&mut log, &[b"one", b"two"]);
    let mark = log.end();
    log.push(&[b"thr", b"", b"ee"]).expect("pushed");
    let point = log.point();
    log.push(&[b"never"]).expect("pushed");
    log.truncate(point);
    log.write().expect("written");
    log.push(&[b"not written"]).expect("pushed");
    log.discard();
    assert!(log.is_empty());
    let reader = log.reader();
    assert_eq!(reader.read(places[1]), Ok(Some("two".into())));
    assert_eq!(reader.records(1).expect("read").len(), 3);
    assert_eq!(reader.read(LogPlace { length: 2, ..places[0] }), Ok(None));
    assert_eq!(reader.read(LogPlace { offset: 1, ..places[0] }), Ok(None));
    assert_eq!(reader.read(LogPlace { segment: 9, ..places[0] }), Ok(None));
    let copy = Folder::new();
    reader.copy(&copy.log()).expect("copied");
    assert_eq!(copy.found().expect("opened"), [&b"one"[..], b"two", b"three"]);
    drop(log);
    let (log, records) = folder.open(mark, 1 << 20).expect("opened");
    assert_eq!(records, [b"three"]);
    assert_eq!(log.reader().read(places[0]), Ok(Some("one".into())));
    assert_eq!(folder.found().expect("opened"), [&b"one"[..], b"two", b"three"]);
}

#[test]
fn a_batch_that_was_cut_anywhere_is_not_there() {
    let folder = Folder::new();
    let last = three_batches(&folder);
    let length = fs::metadata(folder.segment(1)).expect("there").len();
    for cut in last as u64..length {
        let copy = folder.copy();
        File::options().write(true).open(copy.segment(1)).expect("open").set_len(cut).expect("cut");
        assert_eq!(copy.found().expect("opened"), first_two(), "cut at {cut}");
        assert_eq!(fs::metadata(copy.segment(1)).expect("there").len(), last as u64);
    }
    for offset in last..length as usize {
        let copy = folder.copy();
        flip(&copy.segment(1), offset);
        assert_eq!(copy.found().expect("opened"), first_two(), "flipped at {offset}");
    }
}

#[test]
fn damage_before_what_was_synced_is_refused() {
    let folder = Folder::new();
    let last = three_batches(&folder);
    for offset in (0..36).chain(frame::SEGMENT_HEADER..last) {
        let copy = folder.copy();
        flip(&copy.segment(1), offset);
        let why = refusal(copy.found());
        assert!(why.contains("is damaged in segment 1"), "flipped at {offset}: {why}");
    }
    let copy = folder.copy();
    flip(&copy.segment(1), 60);
    let why = refusal(copy.found());
    let advice = "is damaged in segment 1 at byte 40, and acknowledged events stand behind that: restore a backup; or, to \
                  go on without what came later, cut that file there (truncate --size=40) and remove the segments with \
                  higher numbers";
    assert!(why.ends_with(advice), "{why}");
    File::options().write(true).open(copy.segment(1)).expect("open").set_len(40).expect("cut");
    assert_eq!(copy.found().expect("opened"), Vec::<Vec<u8>>::new());
}

#[test]
fn what_stood_behind_a_torn_batch_never_comes_back() {
    let folder = Folder::new();
    let mut log = open(&folder);
    commit(&mut log, &[b"one"]);
    let torn = log.end().offset() as usize;
    write(&mut log, &[b"two"]);
    write(&mut log, &[b"three"]);
    drop(log);
    flip(&folder.segment(1), torn + 3);
    let (mut log, records) = folder.open(Lsn::default(), 1 << 20).expect("opened");
    assert_eq!(records, [b"one"]);
    // As long as the one that was torn.
    commit(&mut log, &[b"new"]);
    drop(log);
    assert_eq!(folder.found().expect("opened"), [b"one", b"new"]);
}

#[test]
fn segments_follow_each_other_and_a_torn_one_takes_the_next_with_it() {
    let folder = Folder::new();
    let mut log = folder.open(Lsn::default(), 100).expect("opened").0;
    for n in 0..4 {
        write(&mut log, &[&[n; 40]]);
    }
    assert_eq!(log.segments(), [(1, 120), (2, 120), (3, 120), (4, 120)]);
    let copy = folder.copy();
    flip(&copy.segment(2), 100);
    assert_eq!(copy.found().expect("opened"), [[0; 40]], "nothing was synced");
    assert!(!copy.segment(3).exists());
    sync(&mut log);
    write(&mut log, &[b"five"]);
    let mut again = Vec::new();
    let mark = Lsn::new(2, 120);
    let replayed = log.replay(mark, &mut |place, end, record| {
        again.push((place.segment, end.segment(), record[0]));
        Ok(())
    });
    assert_eq!((replayed, &again[..]), (Ok(()), &[(3, 3, 2), (4, 4, 3), (5, 5, b'f')][..]));
    let mut all = 0;
    let replayed = log.replay(Lsn::default(), &mut |_, _, _| {
        all += 1;
        Ok(())
    });
    assert_eq!((replayed, all), (Ok(()), 5));
    drop(log);
    assert_eq!(folder.found().expect("opened").len(), 5);
    for number in 2..=4 {
        let copy = folder.copy();
        flip(&copy.segment(number), 100);
        assert!(refusal(copy.found()).contains(&format!("is damaged in segment {number} at byte 40")));
    }
    fs::remove_file(folder.segment(3)).expect("removed");
    assert!(refusal(folder.found()).contains("is damaged in segment 2 at byte 120"));
}

#[test]
fn a_log_that_is_not_the_one_of_its_store_is_refused() {
    let folder = Folder::new();
    let mut log = open(&folder);
    commit(&mut log, &[b"one"]);
    let mark = log.end();
    drop(log);
    let foreign = Log::open(LogMedium::Disk(folder.log()), 1, 100, mark, &mut |_, _, _| Ok(()));
    assert!(matches!(foreign, Err(StoreError::Unusable(why)) if why.contains("belongs to another store")));
    for mark in [mark.plus(1).expect("near"), Lsn::new(2, 40)] {
        let lacks = folder.open(mark, 100).map(|_| Vec::new());
        assert!(refusal(lacks).contains("does not hold all that the store's file needs"));
    }
    fs::remove_dir_all(folder.log()).expect("removed");
    assert!(refusal(folder.open(mark, 100).map(|_| Vec::new())).contains("does not hold all"));
}

/// Five segments of one batch each, of which the first three are not needed any more.
fn with_free_ones(folder: &Folder) -> Log {
    let mut log = folder.open(Lsn::default(), 100).expect("opened").0;
    for n in 0..5 {
        commit(&mut log, &[&[n; 40]]);
    }
    for number in 1..=3 {
        log.release(number);
    }
    log
}

#[test]
fn a_file_that_is_used_again_shows_nothing_of_what_it_held() {
    let folder = Folder::new();
    let mut log = with_free_ones(&folder);
    let mark = log.end();
    let inode = fs::metadata(folder.segment(1)).expect("there").ino();
    let old = LogPlace { segment: 1, offset: 72, length: 40 };
    assert_eq!(log.reader().read(old), Ok(None));
    // Shorter than what was there.
    let places = commit(&mut log, &[b"short"]);
    assert_eq!(places[0].segment, 6);
    assert!(!folder.segment(1).exists());
    let file = fs::metadata(folder.segment(6)).expect("there");
    assert_eq!((file.ino(), file.len(), file.permissions().mode() & 0o777), (inode, 120, 0o600));
    let copy = folder.copy();
    assert_eq!(copy.open(mark, 100).expect("opened").1, [b"short"]);
    assert_eq!(log.reader().records(6).expect("read"), places);
    assert_eq!(log.room_inside(), (120 - u64::from(log.end().offset())) + 240, "the rest of this one, and two more");
    commit(&mut log, &[&[9; 40]]);
    drop(log);
    let (mut log, records) = folder.open(mark, 100).expect("opened");
    assert_eq!(records, [&b"short"[..], &[9; 40]]);
    assert_eq!(log.segments().iter().map(|segment| segment.0).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    log.release(2);
    commit(&mut log, &[b"again"]);
    assert_eq!((log.end().segment(), folder.segment(2).exists()), (7, false));
}

#[test]
fn a_file_that_got_its_new_name_and_nothing_else_is_an_empty_segment() {
    let folder = Folder::new();
    let mut log = with_free_ones(&folder);
    let mark = log.end();
    log.push(&[b"never written"]).expect("pushed");
    fs::rename(folder.segment(1), folder.segment(6)).expect("renamed");
    drop(log);
    let (mut log, records) = folder.open(mark, 100).expect("opened");
    assert!(records.is_empty());
    commit(&mut log, &[b"six"]);
    drop(log);
    assert_eq!(folder.open(mark, 100).expect("opened").1, [b"six"]);
}

#[test]
fn what_is_held_is_neither_used_again_nor_removed() {
    let folder = Folder::new();
    let mut log = with_free_ones(&folder);
    let hold = log.reader().hold();
    for n in 0..20 {
        commit(&mut log, &[&[n; 40]]);
        log.release(log.end().segment() - 1);
    }
    assert_eq!(segment::list(&folder.log()).expect("listed").len(), 25);
    drop(hold);
    commit(&mut log, &[&[1; 40]]);
    log.release(log.end().segment() - 1);
    assert_eq!(segment::list(&folder.log()).expect("listed").len(), 2 + MAX_FREE, "one that is needed, and the last");
}

#[test]
fn on_a_full_disk_a_batch_goes_where_there_is_room_or_nothing_is_kept_of_it() {
    let folder = Folder::new();
    let mut log = folder.open(Lsn::default(), 1 << 20).expect("opened").0;
    commit(&mut log, &[b"one"]);
    let end = log.end();
    log.fault = LogFault::FullDisk;
    for _ in 0..2 {
        log.push(&[&[1; 400]]).expect("pushed");
        assert_eq!(log.write(), Err(StoreError::NoSpace));
        log.discard();
        assert_eq!((log.end(), fs::metadata(folder.segment(1)).expect("there").len()), (end, end.offset().into()));
    }
    log.fault = LogFault::None;
    commit(&mut log, &[b"two"]);
    drop(log);
    assert_eq!(folder.found().expect("opened"), [b"one", b"two"]);

    let folder = Folder::new();
    let mut log = with_free_ones(&folder);
    log.segment_bytes = 1000;
    log.discard();
    log.fault = LogFault::FullDisk;
    log.push(&[b"one"]).expect("pushed");
    assert_eq!(log.write(), Err(StoreError::NoSpace));
    log.discard();
    assert_eq!(commit(&mut log, &[b"one"])[0].segment, 6, "in a file that is free");
}

#[test]
fn a_write_or_sync_that_fails_is_the_end() {
    let folder = Folder::new();
    let mut log = open(&folder);
    log.push(&[b"one"]).expect("pushed");
    log.fault = LogFault::Write;
    assert!(matches!(log.write(), Err(StoreError::Failed(why)) if why.contains("no such disk")));
    log.fault = LogFault::Sync;
    log.discard();
    write(&mut log, &[b"one"]);
    assert!(matches!(log.sync_work().run(), Err(StoreError::Failed(why)) if why.contains("no such disk")));
}

#[test]
fn in_memory_it_is_the_same_log() {
    let mut log = Log::open(LogMedium::Memory, STORE, 100, Lsn::default(), &mut |_, _, _| Ok(())).expect("opened");
    let first = commit(&mut log, &[&[1; 40]]);
    let second = commit(&mut log, &[&[2; 40], b"two"]);
    let reader = log.reader();
    assert_eq!(second[1].segment, 2);
    assert_eq!(reader.read(second[1]), Ok(Some("two".into())));
    assert_eq!(reader.records(2).expect("read"), second);
    log.release(1);
    assert_eq!(reader.read(first[0]), Ok(None));
    assert_eq!(log.segments().len(), 1);
    assert!(log.push(&[&vec![0; frame::MAX_RECORD_BYTES + 1]]).is_err());
}

const SEEDS: u64 = 20;

/// What a log is expected to hold: its batches behind the mark, each with its end and whether it was synced.
#[derive(Default)]
struct Model {
    batches: Vec<(Vec<Vec<u8>>, Lsn)>,
    synced: usize,
    mark: Lsn,
}

/// Whatever was written, released and cut: a start gives the batches that were synced, and perhaps more of what was
/// written, in order, and nothing else.
#[test]
fn random_batches_cuts_and_starts() {
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = Folder::new();
        let mut model = Model::default();
        let mut log = folder.open(Lsn::default(), 300).expect("opened").0;
        for _ in 0..80 {
            match random.u8(..10) {
                0..6 => write_randomly(&mut log, &mut model, &mut random),
                6 | 7 => {
                    sync(&mut log);
                    model.synced = model.batches.len();
                }
                8 => {
                    // The index was committed: nothing before it is needed.
                    model.mark = log.synced_upto();
                    model.batches.drain(..model.synced);
                    model.synced = 0;
                    for (number, _) in log.segments() {
                        if number < model.mark.segment() && random.bool() {
                            log.release(number);
                        }
                    }
                }
                _ => {
                    let safe = log.synced_upto();
                    drop(log);
                    cut_randomly(&folder, &model, safe, &mut random);
                    log = check_start(&folder, &mut model, seed);
                }
            }
        }
    }
}

fn write_randomly(log: &mut Log, model: &mut Model, random: &mut fastrand::Rng) {
    let mut record = || {
        let length = random.usize(..60);
        std::iter::repeat_with(|| random.u8(..)).take(length).collect()
    };
    let records: Vec<Vec<u8>> = vec![record(), record(), record()];
    let places: Vec<LogPlace> = records.iter().map(|record| log.push(&[record]).expect("pushed")).collect();
    let point = log.point();
    log.push(&[b"taken back"]).expect("pushed");
    log.truncate(point);
    let end = log.write().expect("written");
    for (record, place) in records.iter().zip(places) {
        assert_eq!(log.reader().read(place).expect("read").as_deref(), Some(&record[..]));
    }
    model.batches.push((records, end));
}

/// Damages something behind what was synced, as a power cut may.
fn cut_randomly(folder: &Folder, model: &Model, safe: Lsn, random: &mut fastrand::Rng) {
    let Some((_, end)) = model.batches.get(model.synced..).and_then(|rest| rest.last()) else { return };
    let number = random.u64(safe.segment()..=end.segment());
    let path = folder.segment(number);
    let Ok(file) = fs::metadata(&path) else { return };
    let from = if number == safe.segment() { safe.offset() as usize } else { 0 };
    if from >= file.len() as usize {
        return;
    }
    let offset = random.usize(from..file.len() as usize);
    match random.bool() {
        true => flip(&path, offset),
        false => File::options().write(true).open(path).expect("open").set_len(offset as u64).expect("cut"),
    }
}

fn check_start(folder: &Folder, model: &mut Model, seed: u64) -> Log {
    let (log, records) = folder.open(model.mark, 300).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let least = model.batches[..model.synced].iter().map(|(records, _)| records.len()).sum::<usize>();
    let all: Vec<&Vec<u8>> = model.batches.iter().flat_map(|(records, _)| records).collect();
    assert!(records.len() >= least, "seed {seed}: what was synced is lost");
    assert!(all.iter().zip(&records).all(|(is, found)| *is == found) && records.len() <= all.len(), "seed {seed}");
    let mut left = records.len();
    model.batches.retain(|(records, _)| {
        let is_there = left > 0;
        left = left.saturating_sub(records.len());
        is_there
    });
    model.synced = model.batches.len();
    log
}

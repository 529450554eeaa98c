//! A segment's bytes, in a file or in memory, and the folder that the files stand in.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use parking_lot::RwLock;

use crate::store::StoreError;

/// Where the log's segments are.
#[derive(Clone, Debug)]
pub(in super::super) enum LogMedium {
    /// In this folder, which is made if it is not there.
    Disk(PathBuf),
    Memory,
}

#[derive(Debug)]
pub(super) enum SegmentFile {
    Disk(File),
    Memory(RwLock<Vec<u8>>),
}

impl SegmentFile {
    pub(super) fn in_memory() -> Self {
        Self::Memory(RwLock::default())
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u32) -> io::Result<()> {
        match self {
            Self::Disk(file) => file.write_all_at(bytes, offset.into()),
            Self::Memory(all) => {
                let (mut all, start) = (all.write(), offset as usize);
                all.truncate(start);
                all.resize(start, 0);
                all.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Fills `bytes`; false if the file ends before.
    pub(super) fn read_at(&self, bytes: &mut [u8], offset: u32) -> io::Result<bool> {
        match self {
            Self::Disk(file) => match file.read_exact_at(bytes, offset.into()) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
                read => read.map(|()| true),
            },
            Self::Memory(all) => {
                let all = all.read();
                let there = all.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
                if let Some(there) = there {
                    bytes.copy_from_slice(there);
                }
                Ok(there.is_some())
            }
        }
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        match self {
            Self::Disk(file) => Ok(file.metadata()?.len()),
            Self::Memory(all) => Ok(all.read().len() as u64),
        }
    }

    pub(super) fn set_length(&self, bytes: u32) -> io::Result<()> {
        match self {
            Self::Disk(file) => file.set_len(bytes.into()),
            Self::Memory(all) => {
                all.write().truncate(bytes as usize);
                Ok(())
            }
        }
    }

    /// Ends the file there, for good.
    pub(super) fn cut(&self, bytes: u32) -> io::Result<()> {
        self.set_length(bytes)?;
        match self {
            Self::Disk(file) => file.sync_all(),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Brings what was written to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Disk(file) => file.sync_data(),
            Self::Memory(_) => Ok(()),
        }
    }
}

fn name(number: u64) -> String {
    format!("{number:08}.seg")
}

pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(name(number))
}

/// Makes the folder, for its owner alone: it will hold what senders said. Its name is synced by whoever syncs the
/// store's own.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| sync_folder(folder.parent().unwrap_or(Path::new(".")))),
    }
}

/// Names outlive a power cut only once their folder was synced.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// The numbers of the segments that are there, in order.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?.file_name();
        let number = entry.to_str().and_then(|entry| entry.strip_suffix(".seg")).and_then(|text| text.parse().ok());
        numbers.extend(number.filter(|number| entry == *name(*number)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn create(folder: &Path, number: u64) -> io::Result<SegmentFile> {
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path(folder, number))?;
    Ok(SegmentFile::Disk(file))
}

/// The file of a segment, to read and to write; none if there is no such file.
pub(super) fn open(folder: &Path, number: u64) -> io::Result<Option<SegmentFile>> {
    match File::options().read(true).write(true).open(path(folder, number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(|file| Some(SegmentFile::Disk(file))),
    }
}

/// What a write that failed means for the store. A full disk can have room again; after anything else the disk's state
/// is unknown.
pub(super) fn write_failed(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace,
        _ => StoreError::Failed(format!("cannot write the store's log: {error}")),
    }
}

/// A failed sync is never tried again: the kernel may have dropped the pages and will not say so again.
pub(super) fn sync_failed(error: &io::Error) -> StoreError {
    StoreError::Failed(format!("cannot sync the store's log: {error}"))
}

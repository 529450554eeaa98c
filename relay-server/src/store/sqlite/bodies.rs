//! Bodies that are too long for the log, each in a file of its own.
//!
//! A body comes into a file without a name. Once it is whole and synced it is given one, before anything in the log
//! speaks of it; so a process that ends halfway leaves nothing, or a file that no event has, which the next start
//! removes. Behind the body stand the checksums of its blocks, so that a part is proven without the rest.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    ops::Range,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{
    spool::{BLOCK_BYTES, SUM_BYTES, sum},
    store::{Body, StoreError},
};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// How the names of files begin that are not whole.
const PART_NAME: &str = ".part-";

/// The folder of such files.
#[derive(Clone, Debug)]
pub(super) struct BodyFolder(Arc<PathBuf>);

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

impl BodyFolder {
    /// The folder is there.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(Arc::new(folder))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:016x}"))
    }

    /// Keeps a body under this number, synced; its checksum. One that came into a file here only gets its name.
    pub(super) fn keep(&self, body: &Body, number: u64) -> Result<[u8; 32], StoreError> {
        if let Body::File(there) = body {
            there.file().sync_all().map_err(|error| fault(&error))?;
            if !there.is_unreadable() && self.link(there.file(), number).is_ok() {
                return self.sync().map(|()| *there.sha256()).map_err(|error| fault(&error));
            }
        }
        // It comes from elsewhere, or from a file system that gives no names to files that have none.
        let file = tempfile::Builder::new().prefix(PART_NAME).tempfile_in(&*self.0).map_err(|error| fault(&error))?;
        let sha256 = copy(body, file.as_file())?;
        let named = file.persist_noclobber(self.path(number)).map_err(|error| error.error);
        named.and_then(|_| self.sync()).map(|()| sha256).map_err(|error| fault(&error))
    }

    /// Gives a file without a name its name.
    fn link(&self, file: &File, number: u64) -> io::Result<()> {
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        let cwd = rustix::fs::CWD;
        Ok(rustix::fs::linkat(cwd, open, cwd, self.path(number), rustix::fs::AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Gives a file a second name. That it cannot have one is no sign of a disk that fails.
    pub(super) fn link_again(&self, of: u64, number: u64) -> Result<(), StoreError> {
        fs::hard_link(self.path(of), self.path(number)).map_err(|error| match fault(&error) {
            StoreError::NoSpace => StoreError::NoSpace,
            _ => StoreError::Internal(format!("the file of a long body cannot be shared: {error}")),
        })?;
        self.sync().map_err(|error| fault(&error))
    }

    /// Whether the file of a body of this size is there.
    pub(super) fn has(&self, number: u64, size: u64) -> bool {
        fs::metadata(self.path(number)).is_ok_and(|file| file.len() >= size)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&*self.0)?.sync_all()
    }

    /// If it cannot be removed now, the next start does it.
    pub(super) fn remove(&self, number: u64) {
        let _later = fs::remove_file(self.path(number));
    }

    /// Removes the files that no event has.
    pub(super) fn sweep(&self, needed: &BTreeSet<u64>) {
        let Ok(files) = fs::read_dir(&*self.0) else { return };
        for file in files.flatten() {
            let name = file.file_name().into_string().unwrap_or_default();
            let is_needless = match u64::from_str_radix(&name, 16) {
                Ok(number) => !needed.contains(&number),
                Err(_) => name.starts_with(PART_NAME),
            };
            if is_needless {
                let _later = fs::remove_file(file.path());
            }
        }
    }

    /// The checksum of a whole body of this size.
    pub(super) fn sha256(&self, number: u64, size: u64) -> io::Result<[u8; 32]> {
        let (file, mut whole) = (File::open(self.path(number))?, Sha256::default());
        let mut block = vec![0; BLOCK_BYTES];
        for from in (0..size).step_by(BLOCK_BYTES) {
            let left = usize::try_from(size - from).unwrap_or(usize::MAX);
            let block = &mut block[..BLOCK_BYTES.min(left)];
            file.read_exact_at(block, from)?;
            whole.update(block);
        }
        Ok(whole.finalize().into())
    }

    /// A part of a body of this size, proven; what is past its end is left out.
    pub(super) fn part(&self, number: u64, size: u64, part: Range<u64>) -> io::Result<Bytes> {
        let (start, end) = (part.start.min(size), part.end.min(size));
        if start >= end {
            return Ok(Bytes::new());
        }
        let file = File::open(self.path(number))?;
        let from = start / BLOCK * BLOCK;
        let upto = end.next_multiple_of(BLOCK).min(size);
        let bytes = |length: u64| usize::try_from(length).map_err(|_| damaged());
        let mut whole = vec![0; bytes(upto - from)?];
        file.read_exact_at(&mut whole, from)?;
        let mut there = [0; SUM_BYTES];
        for (nth, block) in whole.chunks(BLOCK_BYTES).enumerate() {
            file.read_exact_at(&mut there, size + (from / BLOCK + nth as u64) * SUM_BYTES as u64)?;
            if sum(block) != there {
                return Err(damaged());
            }
        }
        Ok(Bytes::from(whole).slice(bytes(start - from)?..bytes(end - from)?))
    }
}

/// Writes a body and the sums of its blocks to a file, and syncs it.
fn copy(body: &Body, file: &File) -> Result<[u8; 32], StoreError> {
    let (mut whole, mut sums) = (Sha256::default(), Vec::new());
    for from in (0..body.size()).step_by(BLOCK_BYTES) {
        let unreadable = |error| StoreError::Invalid(format!("the body cannot be read: {error}"));
        let block = body.part(from, BLOCK_BYTES).map_err(unreadable)?;
        whole.update(&block);
        sums.extend_from_slice(&sum(&block));
        file.write_all_at(&block, from).map_err(|error| fault(&error))?;
    }
    let written = file.write_all_at(&sums, body.size()).and_then(|()| file.sync_all());
    written.map(|()| whole.finalize().into()).map_err(|error| fault(&error))
}

fn fault(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace,
        _ => StoreError::Failed(format!("a long body cannot be written: {error}")),
    }
}

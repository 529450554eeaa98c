//! Bodies that are too long for memory: each comes into a file without a name, which vanishes with whoever holds it.
//!
//! Such a body is hashed as it comes, read back in pieces wherever it is proven, kept or passed on, and never in memory
//! as a whole, unless its proof takes no less. Files are written and read on threads that may block, a few at a time. What
//! has come of all of them is counted by endpoint and by address, so that there is room for others ([`MemoryBudget`]);
//! nobody has proven anything yet.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    net::IpAddr,
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, PermissionsExt as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use relay_program::EndpointName;
use relay_schemes::LongBody;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    failure::{Failure, RelayFault},
    memory::{Memory, MemoryBudget},
    throttle::Throttle,
};

/// Bodies up to this stay in memory, in bytes.
pub(crate) const LONG_BYTES: usize = 1024 * 1024;

/// What is written and read at a time. An exchange holds so much while its handler takes nothing.
pub(crate) const BLOCK_BYTES: usize = 256 * 1024;

/// Behind the body stands so much of the SHA-256 of each of its blocks, so that a part is proven without the rest.
pub(crate) const SUM_BYTES: usize = 16;

/// What stays in memory of a body's beginning, for the record of what is turned away.
const BEGINNING_BYTES: usize = 64 * 1024;

/// What a body in a file takes of the memory for all.
pub(crate) const IN_MEMORY_BYTES: usize = 2 * BLOCK_BYTES;

/// Room is taken for so many bytes at a time, or for what is announced where that is less.
const STEP_BYTES: usize = 4 * 1024 * 1024;

/// The part of a store that bodies may take while they come: half of it.
const PART: u64 = 2;

/// Such files at a time: each counts as at least one of so many parts, whatever has come of it.
pub(crate) const MAX_FILES: u64 = 256;

/// Threads that read or write such files at a time.
static THREADS: Semaphore = Semaphore::const_new(8);

/// Long bodies that are proven at a time: each is read and hashed as a whole.
static PROOFS: Semaphore = Semaphore::const_new(2);

static NOT_WRITTEN: Throttle = Throttle::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpoolError {
    /// The disk, or what such files may take of the store.
    Full,
    Failed,
}

impl From<SpoolError> for Failure {
    fn from(why: SpoolError) -> Self {
        match why {
            SpoolError::Full => RelayFault::StoreFull.into(),
            SpoolError::Failed => RelayFault::StoreFailed.into(),
        }
    }
}

/// Where bodies come into files, and what is there of them.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: Arc<Path>,
    coming: Arc<MemoryBudget>,
    /// What a file counts as at least, in bytes.
    least: usize,
}

impl Spool {
    /// Makes the folder, for the relay's eyes only. The files are a part of what a store of this size takes.
    pub(crate) fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let bytes = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        let coming = MemoryBudget::new(bytes(max_bytes / PART));
        Ok(Self { folder: folder.into(), coming: Arc::new(coming), least: bytes(max_bytes / PART / MAX_FILES) })
    }

    /// Bytes that are there or coming: of all, and of an endpoint.
    pub(crate) fn coming(&self, endpoint: &EndpointName) -> (u64, u64) {
        (self.coming.held() as u64, self.coming.held_by(endpoint) as u64)
    }

    pub(crate) fn all_coming(&self) -> u64 {
        self.coming.held() as u64
    }

    /// A body that begins, of at most `max_body` bytes.
    pub(crate) async fn begin(
        &self,
        endpoint: &EndpointName,
        max_body: u64,
        address: Option<IpAddr>,
    ) -> Result<BodyWriter, SpoolError> {
        let room = self.coming.take(endpoint, max_body, address, 0).map_err(|_| SpoolError::Full)?;
        let folder = Arc::clone(&self.folder);
        let make = move || {
            let file = tempfile::tempfile_in(folder)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok(file)
        };
        let file = blocking(make).await?;
        Ok(BodyWriter {
            file: Arc::new(file),
            room,
            least: self.least,
            block: Vec::with_capacity(BLOCK_BYTES),
            hashes: Hashes::default(),
            written: 0,
            beginning: Bytes::new(),
        })
    }
}

/// A body on its way into its file.
#[derive(Debug)]
pub(crate) struct BodyWriter {
    file: Arc<File>,
    room: Memory,
    least: usize,
    block: Vec<u8>,
    hashes: Hashes,
    written: u64,
    beginning: Bytes,
}

#[derive(Debug, Default)]
struct Hashes {
    whole: Sha256,
    sums: Vec<u8>,
}

impl Hashes {
    fn update(&mut self, block: &[u8]) {
        self.whole.update(block);
        self.sums.extend_from_slice(&sum(block));
    }
}

/// What stands behind a body of one of its blocks.
pub(crate) fn sum(block: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&Sha256::digest(block)[..SUM_BYTES]);
    sum
}

impl BodyWriter {
    fn len(&self) -> u64 {
        self.written + self.block.len() as u64
    }

    /// Counts so many bytes more, and in advance some of the `later` ones that may follow. Whether more is counted now.
    pub(crate) fn grow(&mut self, more: usize, later: u64) -> Result<bool, SpoolError> {
        let needed = usize::try_from(self.len()).unwrap_or(usize::MAX).saturating_add(more);
        let missing = needed.saturating_sub(self.room.bytes());
        if missing == 0 {
            return Ok(false);
        }
        let all = missing.saturating_add(usize::try_from(later).unwrap_or(usize::MAX));
        let least = self.least.saturating_sub(self.room.bytes());
        self.room.grow(missing.max(STEP_BYTES.min(all)).max(least)).map_err(|_| SpoolError::Full)?;
        Ok(true)
    }

    pub(crate) async fn write(&mut self, mut data: &[u8]) -> Result<(), SpoolError> {
        if self.beginning.is_empty() {
            self.beginning = Bytes::copy_from_slice(&data[..data.len().min(BEGINNING_BYTES)]);
        }
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(now);
            data = later;
            if self.block.len() == BLOCK_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SpoolError> {
        let (file, at) = (Arc::clone(&self.file), self.written);
        let (mut block, mut hashes) = (std::mem::take(&mut self.block), std::mem::take(&mut self.hashes));
        self.written += block.len() as u64;
        let write = move || {
            file.write_all_at(&block, at)?;
            hashes.update(&block);
            block.clear();
            Ok((block, hashes))
        };
        (self.block, self.hashes) = blocking(write).await?;
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<BodyFile, SpoolError> {
        if !self.block.is_empty() {
            self.flush().await?;
        }
        let Self { file, mut room, least, hashes, written, beginning, .. } = self;
        let (whole, of) = (hashes.whole.finalize().into(), Arc::clone(&file));
        blocking(move || of.write_all_at(&hashes.sums, written)).await?;
        room.shrink_to(usize::try_from(written).unwrap_or(usize::MAX).max(least));
        Ok(BodyFile(Arc::new(Inner {
            file,
            size: written,
            sha256: whole,
            beginning,
            is_unreadable: AtomicBool::new(false),
            room: Mutex::new(Some(room)),
        })))
    }
}

/// A whole body in a file. Its clones are the same body; with the last of them it is gone.
#[derive(Clone, Debug)]
pub struct BodyFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Arc<File>,
    size: u64,
    sha256: [u8; 32],
    beginning: Bytes,
    is_unreadable: AtomicBool,
    room: Mutex<Option<Memory>>,
}

impl BodyFile {
    /// A body like the first bytes of a file.
    #[cfg(test)]
    pub(crate) fn of(file: File, size: u64) -> Self {
        let body = |file, sha256, is_unreadable| {
            let (beginning, room) = (Bytes::new(), Mutex::default());
            let is_unreadable = AtomicBool::new(is_unreadable);
            Self(Arc::new(Inner { file: Arc::new(file), size, sha256, beginning, is_unreadable, room }))
        };
        let (there, own) = (body(file, [0; 32], false), tempfile::tempfile().expect("a file"));
        let (mut hashes, mut at) = (Hashes::default(), 0);
        there.for_each(&mut |block| {
            hashes.update(block);
            own.write_all_at(block, at).expect("written");
            at += block.len() as u64;
        });
        own.write_all_at(&hashes.sums, size).expect("written");
        body(own, hashes.whole.finalize().into(), there.is_unreadable())
    }

    /// The same body in a file that had a name and cannot have one again.
    #[cfg(test)]
    pub(crate) fn without_name_for_ever(&self) -> Self {
        let named = tempfile::NamedTempFile::new().expect("a file");
        let mut at = 0;
        self.for_each(&mut |block| {
            named.as_file().write_all_at(block, at).expect("written");
            at += block.len() as u64;
        });
        let (file, path) = named.into_parts();
        path.close().expect("removed");
        let Inner { size, sha256, .. } = *self.0;
        let (beginning, room, is_unreadable) = (Bytes::new(), Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Inner { file: Arc::new(file), size, sha256, beginning, is_unreadable, room }))
    }

    /// With the sums of its blocks behind it.
    pub(crate) fn file(&self) -> &File {
        &self.0.file
    }

    pub fn size(&self) -> u64 {
        self.0.size
    }

    pub fn sha256(&self) -> &[u8; 32] {
        &self.0.sha256
    }

    /// From now on its store counts what it takes.
    pub(crate) fn is_counted_elsewhere(&self) {
        drop(self.0.room.lock().take());
    }

    /// What stands at its beginning, without a look at the file.
    pub(crate) fn beginning(&self) -> &Bytes {
        &self.0.beginning
    }

    /// Whether a part of it could not be read: then nothing that was computed of it counts.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.0.is_unreadable.load(Ordering::Relaxed)
    }

    /// A part of it, as far as it goes and at most `bytes` of it. Blocks.
    pub(crate) fn part(&self, from: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.0.size.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut part = vec![0; left.min(bytes)];
        self.0.file.read_exact_at(&mut part, from)?;
        Ok(part)
    }

    /// The next part of a range, which is shorter then; `None` at its end.
    pub(crate) async fn next(&self, left: &mut Range<u64>) -> Result<Option<Bytes>, SpoolError> {
        if left.is_empty() {
            return Ok(None);
        }
        let (body, from) = (self.clone(), left.start);
        let bytes = usize::try_from(left.end - from).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let part = blocking(move || body.part(from, bytes)).await?;
        left.start += part.len() as u64;
        Ok(Some(part.into()))
    }

    /// All of it, for who has the memory.
    pub(crate) async fn whole(&self) -> Result<Vec<u8>, SpoolError> {
        let body = self.clone();
        blocking(move || body.part(0, usize::MAX)).await
    }
}

impl LongBody for BodyFile {
    fn len(&self) -> u64 {
        self.0.size
    }

    fn for_each(&self, each: &mut dyn FnMut(&[u8])) {
        let mut at = 0;
        while at < self.0.size {
            match self.part(at, BLOCK_BYTES) {
                Ok(part) => {
                    each(&part);
                    at += part.len() as u64;
                }
                Err(error) => {
                    note(&error);
                    return self.0.is_unreadable.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Works through a whole body, on one of a few threads that may block.
pub(crate) async fn proving<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SpoolError> {
    on_thread(&PROOFS, work).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, SpoolError> {
    on_thread(&THREADS, work).await?.map_err(|error| note(&error))
}

/// Once begun it is done, also where its caller goes.
async fn on_thread<T: Send + 'static>(
    threads: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SpoolError> {
    let thread = threads.acquire().await.map_err(|_| SpoolError::Failed)?;
    let done = spawn_blocking(move || {
        let done = work();
        drop(thread);
        done
    });
    done.await.map_err(|_| SpoolError::Failed)
}

fn note(error: &io::Error) -> SpoolError {
    if let Some(held_back) = NOT_WRITTEN.pass("") {
        tracing::warn!(%error, held_back, "a body could not be put into a file, or read from it");
    }
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SpoolError::Full,
        _ => SpoolError::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(spool: &Spool, endpoint: &str, address: Option<&str>) -> Vec<BodyFile> {
        let name = EndpointName::parse(endpoint).expect("a name");
        let address = address.map(|text| text.parse().expect("an address"));
        let mut bodies = Vec::new();
        while let Ok(mut body) = spool.begin(&name, 1 << 20, address).await
            && body.grow(4, u64::MAX).is_ok()
        {
            body.write(b"body").await.expect("written");
            bodies.push(body.finish().await.expect("whole"));
        }
        bodies
    }

    #[tokio::test]
    async fn there_are_so_many_files_and_no_endpoint_or_address_has_all_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(&folder.path().join("a/b"), 2 << 30).expect("made");
        let of_address = open(&spool, "one", Some("192.0.2.1")).await;
        let of_endpoint = open(&spool, "one", None).await;
        let of_other = open(&spool, "other", None).await;
        assert_eq!((of_address.len(), of_endpoint.len(), of_other.len()), (64, 64, 128));
        assert_eq!(spool.all_coming(), 1 << 30);
        assert_eq!(of_other[0].whole().await, Ok(b"body".to_vec()));
        assert_eq!(of_other[0].sha256()[..], Sha256::digest(b"body")[..]);
        drop((of_address, of_endpoint, of_other));
        assert_eq!(spool.all_coming(), 0);
        assert_eq!(fs::metadata(folder.path().join("a/b")).expect("there").permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(folder.path().join("a/b")).expect("there").count(), 0);
    }
}

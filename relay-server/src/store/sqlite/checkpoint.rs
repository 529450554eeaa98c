//! Keeps the write-ahead log short without making a commit wait for it.
//!
//! A thread with a connection of its own copies what is committed from the log into the file, a few MiB at a time, while
//! the writer goes on. The log starts from its beginning again only when everything in it is copied, which never happens
//! while new frames keep coming; so once the log is long and the rest is small, the writer copies that rest itself between
//! two commits: a few pages, once for each [`RESET_FRAMES`]. Where the thread does not keep up, the writer copies all of
//! it at [`MOST_FRAMES`] and its callers wait: the log has a bound.

use std::{
    cell::Cell,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use rusqlite::{Connection, hooks::Wal};

use super::{Shared, schema, start_thread};
use crate::store::{Health, StoreError};

/// New frames in the log that are worth a copy: 16 MiB.
const STEP_FRAMES: u32 = 2048;

/// Length of the log at which it is to start again: 32 MiB.
const RESET_FRAMES: u32 = 4096;

/// Length of the log at which commits wait for the copy: 64 MiB.
const MOST_FRAMES: u32 = 8192;

/// Length of the log at which it is to start again while the disk is full: what was kept aside has room for it, and is
/// there for settles first. 4 MiB.
const RESET_FRAMES_IF_FULL: u32 = 512;

/// The most that the writer copies while the log is shorter: 2 MiB.
const REST_FRAMES: u32 = 256;

thread_local! {
    /// Frames in the log, as this thread's connection last saw them.
    static FRAMES: Cell<u32> = const { Cell::new(0) };
}

fn count(_: &Wal, frames: std::ffi::c_int) -> rusqlite::Result<()> {
    FRAMES.set(u32::try_from(frames).unwrap_or(0));
    Ok(())
}

pub(super) struct Checkpointer {
    /// One request at a time; more would ask for the same.
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    copied: Arc<AtomicU32>,
    commits: Arc<Commits>,
    /// Frames at the last request.
    asked: u32,
    idle: bool,
    shared: Arc<Shared>,
}

/// The last commit of the index, and the last one that has been synced.
#[derive(Default)]
struct Commits {
    committed: AtomicU64,
    synced: AtomicU64,
}

impl Checkpointer {
    pub(super) fn start(path: &Path, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let connection = schema::open_second(path)?;
        let copied = Arc::new(AtomicU32::new(0));
        let (requests, work) = sync_channel(1);
        let commits = Arc::new(Commits::default());
        let (counted, noted, all) = (Arc::clone(&copied), Arc::clone(&commits), Arc::clone(&shared));
        let thread = start_thread("store-checkpoint", move || run(&connection, &work, (&counted, &noted), &all))?;
        Ok(Self { requests: Some(requests), thread: Some(thread), copied, commits, asked: 0, idle: true, shared })
    }

    pub(super) fn count_frames(&self, connection: &Connection) {
        connection.wal_hook(Some(count));
    }

    pub(super) fn after_commit(&mut self, connection: &Connection, commit: u64) {
        self.commits.committed.store(commit, Ordering::Release);
        let frames = FRAMES.get();
        self.idle = false;
        if frames < self.asked {
            self.asked = 0; // The log started again.
        }
        let rest = frames.saturating_sub(self.copied.load(Ordering::Acquire));
        let is_short_of_disk = frames >= RESET_FRAMES_IF_FULL && self.shared.pulse.is_full();
        if is_short_of_disk || frames >= MOST_FRAMES || (frames >= RESET_FRAMES && rest <= REST_FRAMES) {
            self.copy_all(connection);
        } else if frames >= self.asked + STEP_FRAMES {
            self.asked = frames;
            self.request();
        }
    }

    /// Copies what is in the log; if nobody reads in it, it begins again with the next commit.
    pub(super) fn copy_all(&self, connection: &Connection) {
        if let Some((_, copied)) = copy(connection, "PASSIVE", &self.commits, &self.shared) {
            self.copied.store(copied, Ordering::Release);
        }
    }

    pub(super) fn is_synced(&self, commit: u64) {
        self.commits.synced.fetch_max(commit, Ordering::AcqRel);
    }

    /// The last commit that outlives a power cut.
    pub(super) fn synced(&self) -> u64 {
        self.commits.synced.load(Ordering::Acquire)
    }

    pub(super) fn idle(&mut self) {
        if !self.idle && self.shared.pulse.failure().is_none() {
            self.idle = true;
            self.request();
        }
    }

    /// Has the log copied, and with it synced what is committed.
    pub(super) fn request(&self) {
        if let Some(requests) = &self.requests {
            let _already_asked = requests.try_send(());
        }
    }

    /// At the end the file alone holds everything.
    pub(super) fn finish(&mut self, connection: &Connection) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        if self.shared.pulse.failure().is_none() {
            copy(connection, "TRUNCATE", &self.commits, &self.shared);
        }
    }
}

fn run(connection: &Connection, work: &Receiver<()>, (copied, commits): (&AtomicU32, &Commits), shared: &Shared) {
    while let Ok(()) = work.recv() {
        if shared.pulse.failure().is_some() {
            continue;
        }
        // What came meanwhile is copied at once while it is much.
        while let Some((frames, done)) = copy(connection, "PASSIVE", commits, shared) {
            let before = copied.swap(done, Ordering::AcqRel);
            if frames.saturating_sub(done) < STEP_FRAMES / 2 || done <= before {
                break;
            }
        }
        if shared.pulse.is_full() {
            // The file needs room to grow as the log does.
            shared.ballast.release();
        }
    }
}

/// Copies from the log into the file; how many frames the log has, and how many are copied.
fn copy(connection: &Connection, mode: &str, commits: &Commits, shared: &Shared) -> Option<(u32, u32)> {
    let committed = commits.committed.load(Ordering::Acquire);
    let both = connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))
        .and_then(|mut query| query.query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))));
    match both.map_err(StoreError::from) {
        Ok((frames, copied)) => {
            // The log and the file were synced, and nothing of what was committed before is left out.
            if frames == copied {
                commits.synced.fetch_max(committed, Ordering::AcqRel);
            }
            Some((u32::try_from(frames).unwrap_or(0), u32::try_from(copied).unwrap_or(0)))
        }
        Err(StoreError::NoSpace) => {
            shared.pulse.set(Health::NoSpace);
            None
        }
        Err(StoreError::Failed(why)) => {
            tracing::error!(why, "a checkpoint failed; the process must end and start again");
            shared.pulse.set(Health::Failed(why));
            None
        }
        Err(error) => {
            tracing::warn!(%error, "a checkpoint was put off");
            None
        }
    }
}

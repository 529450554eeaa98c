//! Copies the whole store while work goes on.
//!
//! The copy has a thread and a connection of its own, so that lists and claims do not wait for it. Until it is done
//! SQLite's own log cannot start again, and no segment of the log and no file of a body is given up.
//!
//! The index is copied first, then of the log what was written by then: it has all that this index needs. What the log
//! says beyond that does no harm, whoever opens the copy reads it as after a crash. A segment that begins later must not
//! be in the copy: it could say that an earlier one was synced further than it was copied.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::oneshot;

use super::{
    Shared,
    log::{LogHold, LogReader},
    schema, start_thread,
};
use crate::store::StoreError;

/// Copies what the index holds that is committed now, and the log with it.
pub(super) fn start(shared: Arc<Shared>, to: PathBuf, hold: LogHold) -> oneshot::Receiver<Result<(), StoreError>> {
    let (reply, receiver) = oneshot::channel();
    // If there is no thread to be had the reply is dropped, and its caller takes the store to be busy.
    let _started = start_thread("store-backup", move || {
        let copied = copy(&shared.shelves.log, &shared.options.path, &to);
        drop(hold);
        drop(reply.send(copied));
    });
    receiver
}

/// Under another name until it is whole and synced.
fn copy(reader: &LogReader, from: &Path, to: &Path) -> Result<(), StoreError> {
    let wrong = |what: &dyn std::fmt::Display| StoreError::Invalid(format!("backup to {}: {what}", to.display()));
    let log = schema::log_folder(to);
    if to.exists() || log.exists() {
        return Err(wrong(&"the file exists, or the folder of its log; name one that does not"));
    }
    let part = schema::beside(to, "part");
    let _left_over = fs::remove_file(&part);
    let name = part.to_str().ok_or_else(|| wrong(&"the name is not UTF-8"))?;
    schema::create_private(&part).map_err(|error| wrong(&error))?;
    let connection = schema::open_reader(from)?;
    // Reads one moment of the store and writes the copy, which query_only would forbid.
    connection.pragma_update(None, "query_only", false)?;
    let copied = connection.execute("VACUUM INTO ?1", [name]).map_err(|error| wrong(&error)).and_then(|_| {
        reader.copy(&log).map_err(|error| wrong(&error))?;
        copy_bodies(&schema::bodies_folder(from), &schema::bodies_folder(to)).map_err(|error| wrong(&error))?;
        File::open(&part).and_then(|file| file.sync_all()).map_err(|error| wrong(&error))?;
        fs::rename(&part, to).map_err(|error| wrong(&error))?;
        schema::sync_directory(to)
    });
    if copied.is_err() {
        let _nothing_to_remove = fs::remove_file(&part);
        let _nothing_to_remove = fs::remove_dir_all(&log);
    }
    copied
}

fn copy_bodies(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for body in fs::read_dir(from)? {
        let body = body?;
        let copy = to.join(body.file_name());
        match fs::copy(body.path(), &copy) {
            // It was of an event that is only coming in, and not kept: all others stay meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            copied => copied?,
        };
        File::open(copy)?.sync_all()?;
    }
    File::open(to)?.sync_all()
}

//! Copies the whole store while work goes on.
//!
//! The copy has a thread and a connection of its own, so that lists and claims do not wait for it. Until it is done the
//! log cannot start again, and grows by what is committed meanwhile.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use tokio::sync::oneshot;

use super::{schema, start_thread};
use crate::store::StoreError;

pub(super) fn start(from: PathBuf, to: PathBuf) -> oneshot::Receiver<Result<(), StoreError>> {
    let (reply, receiver) = oneshot::channel();
    // If there is no thread to be had the reply is dropped, and its caller takes the store to be busy.
    let _started = start_thread("store-backup", move || drop(reply.send(copy(&from, &to))));
    receiver
}

/// Under another name until it is whole and synced.
fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let wrong = |what: &dyn std::fmt::Display| StoreError::Invalid(format!("backup to {}: {what}", to.display()));
    if to.exists() {
        return Err(wrong(&"the file exists; name one that does not"));
    }
    let part = schema::beside(to, "part");
    let _left_over = fs::remove_file(&part);
    let name = part.to_str().ok_or_else(|| wrong(&"the name is not UTF-8"))?;
    schema::create_private(&part).map_err(|error| wrong(&error))?;
    let connection = schema::open_reader(from)?;
    // Reads one moment of the store and writes the copy, which query_only would forbid.
    connection.pragma_update(None, "query_only", false)?;
    let copied = connection.execute("VACUUM INTO ?1", [name]).map_err(|error| wrong(&error)).and_then(|_| {
        File::open(&part).and_then(|file| file.sync_all()).map_err(|error| wrong(&error))?;
        fs::rename(&part, to).map_err(|error| wrong(&error))?;
        schema::sync_directory(to)
    });
    if copied.is_err() {
        let _nothing_to_remove = fs::remove_file(&part);
    }
    copied
}

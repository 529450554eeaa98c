//! Room kept aside beside the store, so that what was accepted can still be delivered when the disk is full.
//!
//! The file is given up when a write finds no space, and made again as soon as there is room: that is also how the
//! store finds out that it may accept again.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
};

/// Room for tens of thousands of settles.
const BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Ballast(PathBuf);

impl Ballast {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Gives the room to the store.
    pub(super) fn release(&self) {
        let _not_there = fs::remove_file(&self.0);
    }

    /// Takes the room back; says whether there was any. Real blocks are written: a hole would keep nothing.
    pub(super) fn restore(&self) -> bool {
        if fs::metadata(&self.0).is_ok_and(|file| file.len() == BYTES as u64) {
            return true;
        }
        let block = vec![0x5a; 1024 * 1024];
        let written = File::create(&self.0).and_then(|mut file| {
            (0..BYTES / block.len()).try_for_each(|_| file.write_all(&block))?;
            file.sync_all()
        });
        if written.is_err() {
            self.release();
        }
        written.is_ok()
    }
}

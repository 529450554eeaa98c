//! Room kept aside beside the store, so that accepted events can still be delivered when the disk is full.
//!
//! The store gives the file up when a write finds no space, and makes it again as soon as there is room: that is also
//! how it finds out that it may accept again.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
};

/// Room for tens of thousands of settles.
const BYTES: usize = 16 * 1024 * 1024;

/// There has to be so much more before events are accepted again: else the first of them would fill the disk anew.
const MARGIN: usize = 16 * 1024 * 1024;

pub(super) struct Ballast(pub(super) PathBuf);

impl Ballast {
    fn is_there(&self) -> bool {
        fs::metadata(&self.0).is_ok_and(|file| file.len() == BYTES as u64)
    }

    /// Gives the room to the store.
    pub(super) fn release(&self) {
        let _not_there = fs::remove_file(&self.0);
    }

    /// Takes the room back; says whether there was any. Real blocks are written: a hole would keep nothing.
    pub(super) fn restore(&self) -> bool {
        if self.is_there() {
            return true;
        }
        let block = vec![0x5a; 1024 * 1024];
        let written = File::create(&self.0).and_then(|mut file| {
            (0..(BYTES + MARGIN) / block.len()).try_for_each(|_| file.write_all(&block))?;
            file.sync_all()?;
            file.set_len(BYTES as u64)
        });
        if written.is_err() {
            self.release();
        }
        written.is_ok()
    }
}

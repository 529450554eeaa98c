//! What an error of SQLite means for the store, and the faults that tests order.

use rusqlite::ErrorCode;

use super::ballast::Ballast;
use crate::store::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::NoSpace,
            // A failed write or sync leaves the disk's state unknown: the kernel may have dropped the pages and
            // will not say so again. Only a fresh process, reading what is there, can go on.
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Failed(error.to_string())
            }
            // The file is gone or cannot be written any more.
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => Self::Failed(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}

/// Outside of this crate's tests there are none.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// The disk is full; room kept aside can be given up once.
    #[cfg(test)]
    pub(super) full: std::sync::atomic::AtomicBool,
    /// Every sync fails.
    #[cfg(test)]
    pub(super) sync: std::sync::atomic::AtomicBool,
}

#[cfg(not(test))]
impl Faults {
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as in tests")]
    pub(super) fn at_commit(&self, _ballast: &Ballast) -> rusqlite::Result<()> {
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "as in tests")]
    pub(super) fn is_full(&self) -> bool {
        false
    }
}

#[cfg(test)]
impl Faults {
    pub(super) fn at_commit(&self, ballast: &Ballast) -> rusqlite::Result<()> {
        let fail = |code| Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        if self.sync.load(std::sync::atomic::Ordering::Relaxed) {
            return fail(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        }
        if self.is_full() && ballast.is_there() {
            return fail(rusqlite::ffi::SQLITE_FULL);
        }
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.full.load(std::sync::atomic::Ordering::Relaxed)
    }
}

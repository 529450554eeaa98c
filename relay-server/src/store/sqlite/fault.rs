//! What an error of SQLite means for the store.

use rusqlite::ErrorCode;

use crate::store::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::NoSpace,
            // A failed write or sync leaves the disk's state unknown: the kernel may have dropped the pages and
            // will not say so again. Only a fresh process, reading what is there, can go on.
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            // The file is gone or cannot be written any more.
            | Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => Self::Failed(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}

//! Why a file is not opened, and how SQLite's errors read to the layers above.

use std::{io, path::PathBuf, sync::Arc};

use rusqlite::ErrorCode;
use x0x_gossip_pubsub::StoreError;

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file or its directory cannot be made, read or written: permissions or the disk.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is something else: the path is set wrongly. It was not touched.
    #[error("{path} is not a database of x0x; move it or set another path", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later release wrote the file. It was not touched.
    #[error("{path} has schema {version}, this release knows {known}; use the later release", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        version: u32,
        /// The newest schema that is known here.
        known: u32,
    },
    /// The database cannot be used.
    #[error("{path}: {source}", path = path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: StoreError,
    },
}

/// Sorts an error by who has to do something about it.
pub(crate) fn store_error(error: &rusqlite::Error) -> StoreError {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};

    let reason = || Arc::from(error.to_string());
    // Only values of the right type were ever written.
    if let FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) =
        error
    {
        return StoreError::Corrupt(reason());
    }
    if lacks_schema(error) {
        return StoreError::Corrupt(reason());
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt(reason()),
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked,
        ) => StoreError::Io(reason()),
        _ => StoreError::Internal(reason()),
    }
}

/// Whether something is not there that every file of ours has: the page that names it is damaged.
fn lacks_schema(error: &rusqlite::Error) -> bool {
    let (rusqlite::Error::SqliteFailure(_, Some(text))
    | rusqlite::Error::SqlInputError { msg: text, .. }) = error
    else {
        return false;
    };
    ["no such table", "no such column", "no such index"].iter().any(|lack| text.starts_with(lack))
}

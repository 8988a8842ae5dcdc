//! The state of encrypted groups, in a file of its own.
//!
//! It holds secrets that are deleted for a reason, so that SQLite overwrites what is deleted. A
//! transaction is not flushed to the disk: what a loss of power takes of the last ones is the same as
//! an old backup put back, which the groups can stand (ADR 13).

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, params};
use x0x_mls::{Batch, Change, Entry, MAX_KEY, MAX_VALUE, MlsStore, Space, StoreError};
use zeroize::Zeroizing;

use crate::{
    error::{OpenError, store_error},
    file,
};

/// The file's name in the data folder.
pub const GROUPS_FILE: &str = "mls_groups.bin";

/// Marks the file as ours: `x0xg`.
const APPLICATION_ID: i32 = 0x7830_7867;
const VERSION: i32 = 1;
const BUSY: Duration = Duration::from_secs(2);
/// Pages after which the journal is written back into the file.
const JOURNAL_PAGES: i64 = 512;

const SCHEMA: &str = "
    CREATE TABLE entry (
        space BLOB NOT NULL,
        key BLOB NOT NULL,
        chunk INTEGER NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (space, key, chunk)
    ) WITHOUT ROWID;
";

/// The open file.
#[derive(Debug)]
pub struct GroupsFile {
    connection: Mutex<Connection>,
}

fn failed(error: &rusqlite::Error) -> StoreError {
    StoreError(error.to_string())
}

impl GroupsFile {
    /// Opens the file, and makes it where there is none: private, with its folders.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be made or read, is something else, or was written by a later release.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        file::prepare(path).map_err(|source| OpenError::Io { path: path.into(), source })?;
        let failed = |error: rusqlite::Error| OpenError::Store {
            path: path.into(),
            source: store_error(&error),
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get(0));
        let (id, version): (i32, i32) =
            (number("application_id").map_err(failed)?, number("user_version").map_err(failed)?);
        let objects: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(failed)?;
        if id != APPLICATION_ID && (id != 0 || objects != 0) {
            return Err(OpenError::Foreign { path: path.into() });
        }
        if version > VERSION {
            let (version, known) = (version.unsigned_abs(), VERSION.unsigned_abs());
            return Err(OpenError::Newer { path: path.into(), version, known });
        }
        prepare(&connection, version == 0).map_err(failed)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// The same in memory: for agents that keep nothing.
    ///
    /// # Errors
    /// [`OpenError::Store`].
    pub fn in_memory() -> Result<Self, OpenError> {
        let failed = |error: rusqlite::Error| OpenError::Store {
            path: ":memory:".into(),
            source: store_error(&error),
        };
        let connection = Connection::open_in_memory().map_err(failed)?;
        prepare(&connection, true).map_err(failed)?;
        Ok(Self { connection: Mutex::new(connection) })
    }
}

fn prepare(connection: &Connection, new: bool) -> rusqlite::Result<()> {
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", JOURNAL_PAGES)?;
    if new {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    Ok(())
}

fn write(connection: &Connection, change: Change) -> rusqlite::Result<()> {
    match change {
        Change::Put(space, entry) => {
            let sql = "INSERT INTO entry (space, key, chunk, value) VALUES (?1, ?2, ?3, ?4) \
                       ON CONFLICT DO UPDATE SET value = excluded.value";
            let row = params![space.to_bytes(), entry.key, entry.chunk, entry.value.as_slice()];
            connection.prepare_cached(sql)?.execute(row)?;
        }
        Change::Cut(space, key, from) => {
            let sql = "DELETE FROM entry WHERE space = ?1 AND key = ?2 AND chunk >= ?3";
            connection.prepare_cached(sql)?.execute(params![space.to_bytes(), key, from])?;
        }
        Change::Drop(space) => {
            let sql = "DELETE FROM entry WHERE space = ?1";
            connection.prepare_cached(sql)?.execute(params![space.to_bytes()])?;
        }
        // A change that this release does not know would be lost: the transaction is not committed.
        _ => return Err(rusqlite::Error::InvalidQuery),
    }
    Ok(())
}

impl MlsStore for GroupsFile {
    fn load(&self, space: Space) -> Result<Vec<Entry>, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = "SELECT key, chunk, value FROM entry WHERE space = ?1 ORDER BY key, chunk";
        let mut statement = connection.prepare_cached(sql).map_err(|e| failed(&e))?;
        let rows = statement.query_map(params![space.to_bytes()], |row| {
            let value = Zeroizing::new(row.get(2)?);
            Ok(Entry { key: row.get(0)?, chunk: row.get(1)?, value })
        });
        rows.and_then(Iterator::collect).map_err(|e| failed(&e))
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let too_large = batch.iter().any(|change| match change {
            Change::Put(_, entry) => entry.key.len() > MAX_KEY || entry.value.len() > MAX_VALUE,
            _ => false,
        });
        if too_large {
            return Err(StoreError("an entry is too large".into()));
        }
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.unchecked_transaction().map_err(|e| failed(&e))?;
        for change in batch {
            write(&transaction, change).map_err(|e| failed(&e))?;
        }
        transaction.commit().map_err(|e| failed(&e))
    }
}

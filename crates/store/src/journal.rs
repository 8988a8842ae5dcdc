//! What is slow on the disk, done beside the writer: writing the journal back takes two flushes,
//! which a commit would wait for.

use std::{
    path::Path,
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, OpenFlags};

use crate::config::{JOURNAL_PAGES, PAGE_BYTES, StoreConfig};

/// Stack of the thread in bytes.
const STACK: usize = 512 * 1024;

/// Pages that a transaction writes beside those of its runs: heads, indices and their parents.
const OTHER_PAGES: u64 = 6;

/// Starts a short-lived thread with a connection of its own whenever the journal has grown enough.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Bytes that the journal has grown by, nearly.
    grown: u64,
    running: Option<JoinHandle<()>>,
}

impl Journal {
    /// Notes a transaction that brought so many bytes of runs.
    pub(crate) fn note(&mut self, config: &StoreConfig, bytes: u64) {
        self.grown += bytes + bytes / 4 + OTHER_PAGES * PAGE_BYTES;
        if self.grown < JOURNAL_PAGES * PAGE_BYTES {
            return;
        }
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        self.wait();
        self.grown = 0;
        let path = config.path.clone();
        let work = move || {
            if let Err(error) = write_back(&path) {
                // The writer does it itself when the journal has grown to a multiple.
                tracing::debug!(%error, "the journal was not written back");
            }
        };
        let thread = thread::Builder::new().name("x0x-journal".to_owned()).stack_size(STACK);
        self.running = thread.spawn(work).ok();
    }

    /// Lets the next transaction be written back, with which the disk gets all of a new file. It is
    /// not flushed by opening it once more: closing it again would end SQLite's locks on it.
    pub(crate) const fn write_back_next(&mut self) {
        self.grown = JOURNAL_PAGES * PAGE_BYTES;
    }

    /// Waits until nothing is written back any more.
    pub(crate) fn wait(&mut self) {
        if let Some(running) = self.running.take() {
            // It ends by itself, and how does not matter.
            drop(running.join());
        }
    }
}

/// Writes back what no reader needs in the journal, without keeping the writer from adding to it.
fn write_back(path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

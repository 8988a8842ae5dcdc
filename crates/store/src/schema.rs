//! Opening a connection, and the tables with their history.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::{
    config::{Durability, JOURNAL_PAGES, PAGE_BYTES, StoreConfig},
    error::{OpenError, store_error},
    file, salvage,
};

/// Marks the file as ours: `x0xd`.
pub(crate) const APPLICATION_ID: i32 = 0x7830_7864;

/// How long another process that has the file open may hold a lock.
const BUSY: Duration = Duration::from_secs(2);

/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 24;

/// What leads from each schema version to the next, the first from an empty file. Never changed once
/// released, only added to.
///
/// `run.id` is the order of arrival, in which runs are evicted; `run_time` is for expiry. Numbers
/// that are unsigned in the program are stored as the signed number of the same bits.
const MIGRATIONS: [&str; 7] = [
    "
    CREATE TABLE topic (
        id INTEGER PRIMARY KEY,
        topic BLOB NOT NULL UNIQUE,
        incarnation INTEGER NOT NULL,
        end INTEGER NOT NULL,
        seal INTEGER NOT NULL
    );
    CREATE TABLE author (
        id INTEGER PRIMARY KEY,
        agent BLOB NOT NULL UNIQUE,
        key BLOB NOT NULL
    );
    CREATE TABLE run (
        id INTEGER PRIMARY KEY,
        topic INTEGER NOT NULL,
        position INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        missed INTEGER NOT NULL,
        begins INTEGER NOT NULL,
        author INTEGER NOT NULL,
        time INTEGER NOT NULL,
        seal INTEGER NOT NULL,
        data BLOB NOT NULL
    );
    CREATE UNIQUE INDEX run_place ON run (topic, position);
    CREATE INDEX run_time ON run (time);
    CREATE TABLE chain (
        topic INTEGER NOT NULL,
        author INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        head INTEGER NOT NULL,
        hash BLOB NOT NULL,
        time INTEGER NOT NULL,
        seal INTEGER NOT NULL,
        PRIMARY KEY (topic, author, epoch)
    ) WITHOUT ROWID;
    CREATE TABLE blocked (
        topic INTEGER NOT NULL,
        agent BLOB NOT NULL,
        PRIMARY KEY (topic, agent)
    ) WITHOUT ROWID;
",
    "
    CREATE TABLE mail (
        number INTEGER PRIMARY KEY,
        key INTEGER NOT NULL,
        id BLOB NOT NULL,
        sender BLOB NOT NULL,
        recipient BLOB NOT NULL,
        machine BLOB NOT NULL,
        time INTEGER NOT NULL,
        reply_to BLOB,
        flags INTEGER NOT NULL,
        seal INTEGER NOT NULL,
        payload BLOB
    );
    CREATE UNIQUE INDEX mail_key ON mail (key);
    CREATE TABLE letter (
        number INTEGER PRIMARY KEY,
        key INTEGER NOT NULL,
        id BLOB NOT NULL,
        sender BLOB NOT NULL,
        recipient BLOB NOT NULL,
        posted INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        state INTEGER NOT NULL,
        changed INTEGER NOT NULL,
        reply_to BLOB,
        flags INTEGER NOT NULL,
        seal INTEGER NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE UNIQUE INDEX letter_key ON letter (key);
    CREATE INDEX letter_open ON letter (number) WHERE state < 2;
    CREATE TABLE consumer (
        name TEXT PRIMARY KEY,
        record BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE mail_state (
        id INTEGER PRIMARY KEY,
        last INTEGER NOT NULL,
        floor INTEGER NOT NULL,
        seen INTEGER NOT NULL,
        messages INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        last_letter INTEGER NOT NULL,
        letters INTEGER NOT NULL,
        letter_bytes INTEGER NOT NULL,
        indexed INTEGER NOT NULL,
        letters_indexed INTEGER NOT NULL
    );
    INSERT INTO mail_state VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
",
    "
    CREATE TABLE tail_state (
        id INTEGER PRIMARY KEY,
        applied INTEGER NOT NULL
    );
    INSERT INTO tail_state VALUES (1, 0);
",
    "
    CREATE TABLE held (
        tag BLOB NOT NULL,
        digest BLOB NOT NULL,
        bytes INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        stranger INTEGER NOT NULL,
        sealed BLOB NOT NULL
    );
    CREATE UNIQUE INDEX held_name ON held (tag, digest);
    CREATE TABLE mailbox (
        agent BLOB PRIMARY KEY,
        record BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE correspondent (
        agent BLOB NOT NULL,
        machine BLOB NOT NULL,
        met INTEGER NOT NULL,
        PRIMARY KEY (agent, machine)
    ) WITHOUT ROWID;
    CREATE TABLE letter_copy (
        id BLOB NOT NULL,
        holder BLOB NOT NULL,
        recipient BLOB NOT NULL,
        digest BLOB NOT NULL,
        pickup BLOB NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (id, holder)
    ) WITHOUT ROWID;
",
    "
    ALTER TABLE mail_state ADD COLUMN stranger_messages INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE mail_state ADD COLUMN stranger_bytes INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX mail_stranger ON mail (number) WHERE flags & 4 AND payload IS NOT NULL;
    CREATE INDEX mail_pruned ON mail (number) WHERE payload IS NULL;
",
    "
    CREATE TABLE object (
        id BLOB PRIMARY KEY,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        owner BLOB
    ) WITHOUT ROWID;
    CREATE TABLE replica (
        object BLOB NOT NULL UNIQUE,
        log INTEGER,
        position INTEGER,
        digest BLOB NOT NULL,
        data BLOB NOT NULL
    );
",
    "
    CREATE TABLE gone (
        topic INTEGER PRIMARY KEY,
        position INTEGER NOT NULL,
        seal INTEGER NOT NULL
    );
",
];

/// An open file.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    /// It was empty, and the disk may not have it yet.
    pub(crate) is_new: bool,
    /// A damaged one was set aside for it.
    pub(crate) set_aside: bool,
    /// Rows carried over from it.
    pub(crate) carried: u64,
}

/// Opens the writing connection. A file that is missing or empty is set up, an older one is
/// migrated, and a damaged one is set aside for a new one.
pub(crate) fn open(config: &StoreConfig) -> Result<Opened, OpenError> {
    let path = &config.path;
    let io = |source| OpenError::Io { path: path.clone(), source };
    if let Some(aside) = file::replaced(path).map_err(io)? {
        tracing::warn!(aside = %aside.display(), "what could be read of the damaged database is carried over again");
        return carried_over(config, &aside);
    }
    match try_open(config) {
        Err(OpenError::Store { source: x0x_gossip_pubsub::StoreError::Corrupt(reason), path }) => {
            if !file::was_ours(&path).map_err(io)? {
                return Err(OpenError::Foreign { path });
            }
            let aside = file::set_aside(&path).map_err(io)?;
            tracing::warn!(%reason, aside = %aside.display(), "the database is damaged; starting a new one");
            carried_over(config, &aside)
        }
        opened => opened,
    }
}

/// Makes the database anew from what can be read of a damaged one. It takes its name when it is complete: until
/// then no file has that, and the next start begins again.
fn carried_over(config: &StoreConfig, aside: &Path) -> Result<Opened, OpenError> {
    let path = &config.path;
    let io = |source| OpenError::Io { path: path.clone(), source };
    let failed = |error| OpenError::Store { path: path.clone(), source: store_error(&error) };
    let unfinished = file::unfinished(path).map_err(io)?;
    let opened = try_open(&StoreConfig { path: unfinished.clone(), ..config.clone() })?;
    let carried = salvage::carry_over(aside, &opened.connection).map_err(failed)?;
    // Writes its journal back and leaves none.
    opened.connection.close().map_err(|(_, error)| failed(error))?;
    std::fs::rename(&unfinished, path).map_err(io)?;
    let opened = try_open(config)?;
    Ok(Opened { is_new: true, set_aside: true, carried, ..opened })
}

fn try_open(config: &StoreConfig) -> Result<Opened, OpenError> {
    let path = &config.path;
    file::prepare(path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
    let failed = |error| OpenError::Store { path: path.clone(), source: store_error(&error) };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    set_up(&connection, config).map_err(failed)?;
    let known = MIGRATIONS.len() as u32;
    let Some(version) = version(&connection).map_err(failed)? else {
        return Err(OpenError::Foreign { path: path.clone() });
    };
    if version > known {
        return Err(OpenError::Newer { path: path.clone(), version, known });
    }
    if version < known {
        migrate(&mut connection, version, config.durability).map_err(failed)?;
    }
    journal(&connection, config).map_err(failed)?;
    Ok(Opened { connection, is_new: version == 0, set_aside: false, carried: 0 })
}

/// Opens a connection for one load.
pub(crate) fn open_reader(config: &StoreConfig) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&config.path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", cache_size(config.cache_bytes / 2))?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// SQLite takes kibibytes as a negative number.
fn cache_size(bytes: u64) -> i64 {
    -i64::try_from(bytes / 1024).unwrap_or(i64::MAX).max(64)
}

fn set_up(connection: &Connection, config: &StoreConfig) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "cache_size", cache_size(config.cache_bytes))?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// The schema version of our file, 0 when it is empty; `None` when it is somebody else's.
fn version(connection: &Connection) -> rusqlite::Result<Option<u32>> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let count = "SELECT count(*) FROM sqlite_schema";
    let objects: i64 = connection.query_row(count, [], |row| row.get(0))?;
    Ok(match (id, u32::try_from(version)) {
        (APPLICATION_ID, Ok(version)) if version > 0 => Some(version),
        (0, Ok(0)) if objects == 0 => Some(0),
        _ => None,
    })
}

/// Runs the steps that are missing, all or none.
fn migrate(
    connection: &mut Connection,
    version: u32,
    durability: Durability,
) -> rusqlite::Result<()> {
    if version == 0 && durability == Durability::Process {
        // There is nothing to lose yet, and a start does not wait for the disk.
        connection.pragma_update(None, "synchronous", "OFF")?;
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in MIGRATIONS.iter().skip(version as usize) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len())?;
    transaction.commit()
}

/// Journals ahead, so that a reader and the writer do not wait for each other. With `NORMAL` the
/// journal is flushed before it is written back, which keeps the file whole; with `FULL` at each
/// commit.
fn journal(connection: &Connection, config: &StoreConfig) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match config.durability {
        Durability::Process => "NORMAL",
        Durability::Power => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", JOURNAL_PAGES * 4)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_PAGES * PAGE_BYTES * 2)?;
    let hard_pages = i64::try_from(config.hard_pages()).unwrap_or(i64::MAX);
    // Answers with the value in force.
    connection.pragma_update_and_check(None, "max_page_count", hard_pages, |_| Ok(()))
}

//! The thread that owns the writing connection: takes what waits, and commits it at once.

use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};
use x0x_core::WallTime;
use x0x_gossip_pubsub::{LogChange, StoreError};

use crate::{
    config::{MAX_GROUP_BYTES, MAX_GROUP_CHANGES, PAGE_BYTES, StoreConfig},
    error::{OpenError, store_error},
    file,
    journal::Journal,
    logs::{self, LogTables},
    metrics::StoreMetrics,
    schema,
};

/// Bytes appended after which the size of the file is looked at.
const LOOK_AFTER: u64 = 1024 * 1024;

/// How the writer's opening went.
pub(crate) type Opened = Result<(), OpenError>;

/// What handles ask of the writer, in order.
#[derive(Debug)]
pub(crate) enum Command {
    Commit(Commit),
    /// Answers once everything before it is committed, with the number of the file.
    Barrier(oneshot::Sender<Result<u64, StoreError>>),
    /// A reader found the file of this number damaged.
    Damaged(u64, Arc<str>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// Changes that hold together.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) changes: Vec<LogChange>,
    pub(crate) reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Commit {
    fn bytes(&self) -> u64 {
        self.changes.iter().map(bytes).sum()
    }
}

/// Bytes that a change adds to the file, nearly.
fn bytes(change: &LogChange) -> u64 {
    match change {
        LogChange::Append { run, .. } => run.encoded().len() as u64,
        _ => 0,
    }
}

/// The writer.
#[derive(Debug)]
pub(crate) struct Writer {
    config: StoreConfig,
    commands: mpsc::Receiver<Command>,
    metrics: Arc<StoreMetrics>,
    /// None when a new file could not be opened in place of a damaged one; tried again.
    connection: Option<Connection>,
    /// Counts files: a damaged one is followed by a new one.
    file: u64,
    tables: LogTables,
    journal: Journal,
    /// Something is left to expire before this time.
    expiring: Option<WallTime>,
    /// The file is above its cap.
    evicting: bool,
    unseen_bytes: u64,
}

impl Writer {
    /// Opens the file, tells how that went, and serves until every handle is gone.
    pub(crate) fn run(
        config: StoreConfig,
        commands: mpsc::Receiver<Command>,
        metrics: Arc<StoreMetrics>,
        opened: oneshot::Sender<Opened>,
    ) {
        let mut writer = Self {
            config,
            commands,
            metrics,
            connection: None,
            file: 0,
            tables: LogTables::default(),
            journal: Journal::default(),
            expiring: None,
            evicting: false,
            unseen_bytes: 0,
        };
        let result = writer.open();
        let failed = result.is_err();
        // A caller that is gone dropped the handle, which ends the loop.
        drop(opened.send(result));
        if !failed {
            writer.serve();
        }
    }

    fn serve(mut self) {
        let mut next = None;
        while let Some(command) = next.take().or_else(|| self.next()) {
            match command {
                Command::Commit(first) => {
                    let group;
                    (group, next) = self.collect(first);
                    self.commit(group);
                }
                Command::Barrier(reply) => drop(reply.send(self.connect().map(|()| self.file))),
                Command::Damaged(file, reason) if file == self.file => self.replace(&reason),
                Command::Damaged(..) => {}
                Command::Close(reply) => {
                    let result = self.close();
                    return drop(reply.send(result));
                }
            }
        }
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the store did not close well");
        }
    }

    /// The next command. Without one waiting, what is to be deleted is worked off.
    fn next(&mut self) -> Option<Command> {
        while self.expiring.is_some() || self.evicting {
            match self.commands.try_recv() {
                Ok(command) => return Some(command),
                Err(TryRecvError::Empty) => self.step(),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        self.commands.blocking_recv()
    }

    /// The commits that wait, up to the size of a group, and the command after them.
    fn collect(&mut self, first: Commit) -> (Vec<Commit>, Option<Command>) {
        let (mut changes, mut bytes) = (first.changes.len(), first.bytes());
        let mut group = vec![first];
        while changes < MAX_GROUP_CHANGES && bytes < MAX_GROUP_BYTES {
            match self.commands.try_recv() {
                Ok(Command::Commit(commit)) => {
                    changes += commit.changes.len();
                    bytes += commit.bytes();
                    group.push(commit);
                }
                Ok(other) => return (group, Some(other)),
                Err(_) => break,
            }
        }
        (group, None)
    }

    fn commit(&mut self, group: Vec<Commit>) {
        let mut result = self.connect().and_then(|()| self.try_commit(&group));
        if matches!(result, Err(StoreError::Full)) && self.make_room(&group) {
            result = self.try_commit(&group);
        }
        match &result {
            Ok(()) => {
                let changes: usize = group.iter().map(|commit| commit.changes.len()).sum();
                let bytes = group.iter().map(Commit::bytes).sum();
                self.metrics.commits.add(group.len() as u64);
                self.metrics.transactions.inc();
                self.metrics.changes.add(changes as u64);
                self.metrics.run_bytes.add(bytes);
                self.unseen_bytes += bytes;
                self.journal.note(&self.config, bytes);
            }
            Err(error) => {
                group.iter().for_each(|_| self.metrics.failed(error));
                tracing::debug!(%error, "a commit failed");
                if let StoreError::Corrupt(reason) = error {
                    self.replace(reason);
                }
            }
        }
        for commit in group {
            // A caller that is gone does not want to know.
            drop(commit.reply.send(result.clone()));
        }
        if self.unseen_bytes >= LOOK_AFTER.min(self.config.cap() / 16) {
            self.look();
        }
        self.step();
    }

    fn try_commit(&mut self, group: &[Commit]) -> Result<(), StoreError> {
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let tables = &mut self.tables;
        let mut expiring = self.expiring;
        let result = transaction(connection, |connection| {
            for change in group.iter().flat_map(|commit| &commit.changes) {
                if let LogChange::Expire { before } = change {
                    let (runs, last) = tables.expire(connection, *before)?;
                    self.metrics.runs_expired.add(runs);
                    if !last {
                        expiring = expiring.max(Some(*before));
                    }
                } else {
                    tables.apply(connection, change)?;
                }
            }
            tables.finish(connection)
        });
        match result {
            Ok(()) => self.expiring = expiring,
            Err(_) => self.tables.forget(),
        }
        result.map_err(|error| store_error(&error))
    }

    /// One step of expiry and one of eviction, if there is something to do.
    fn step(&mut self) {
        let Some(connection) = &self.connection else {
            (self.expiring, self.evicting) = (None, false);
            return;
        };
        let tables = &mut self.tables;
        if let Some(before) = self.expiring {
            let result = transaction(connection, |connection| tables.expire(connection, before));
            if let Ok((runs, _)) = result {
                self.metrics.runs_expired.add(runs);
            }
            // What fails now is expired by the next round.
            if !matches!(result, Ok((_, false))) {
                self.expiring = None;
            }
            if result.is_err() {
                tables.forget();
            }
        }
        if self.evicting {
            self.evict();
        }
    }

    /// Deletes some of the oldest runs. Returns whether there were any.
    fn evict(&mut self) -> bool {
        let Some(connection) = &self.connection else { return false };
        let evicted = transaction(connection, logs::evict).unwrap_or_else(|error| {
            tracing::debug!(%error, "evicting failed");
            0
        });
        self.metrics.runs_evicted.add(evicted as u64);
        self.look();
        self.evicting &= evicted > 0;
        evicted > 0
    }

    /// Evicts until a group that did not fit may fit. One that cannot fit costs nothing.
    fn make_room(&mut self, group: &[Commit]) -> bool {
        let bytes: u64 = group.iter().map(Commit::bytes).sum();
        let cap = self.config.cap();
        if bytes > cap / 2 {
            return false;
        }
        let mut evicted = false;
        while (self.used() > cap - bytes || !evicted) && self.evict() {
            evicted = true;
        }
        evicted
    }

    /// Looks at how much of the file is in use. Eviction begins above the cap, and goes on to some
    /// way below it.
    fn look(&mut self) {
        self.unseen_bytes = 0;
        let (used, cap) = (self.used(), self.config.cap());
        self.metrics.bytes_used.set(used);
        let bound = if self.evicting { cap - cap / 16 } else { cap };
        self.evicting = used > bound;
    }

    fn used(&self) -> u64 {
        let Some(connection) = &self.connection else { return 0 };
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
        let pages = number("page_count").unwrap_or(0);
        pages.saturating_sub(number("freelist_count").unwrap_or(0)) * PAGE_BYTES
    }

    fn connect(&mut self) -> Result<(), StoreError> {
        if self.connection.is_some() {
            return Ok(());
        }
        self.open().map_err(|error| match error {
            OpenError::Store { source, .. } => source,
            other => StoreError::Io(other.to_string().into()),
        })
    }

    fn open(&mut self) -> Opened {
        let schema::Opened { connection, is_new, set_aside } = schema::open(&self.config)?;
        if is_new {
            self.journal.write_back_next();
        }
        self.metrics.files_damaged.add(u64::from(set_aside));
        self.connection = Some(connection);
        self.file += 1;
        self.tables.forget();
        self.look();
        Ok(())
    }

    /// Sets the file aside, since it is damaged, and begins a new one.
    fn replace(&mut self, reason: &str) {
        // Closed first, so that nothing of it goes into the new file.
        self.journal.wait();
        self.connection = None;
        match file::set_aside(&self.config.path) {
            Ok(aside) => {
                tracing::warn!(reason, aside = %aside.display(), "the database is damaged; starting a new one");
                self.metrics.files_damaged.inc();
            }
            Err(error) => {
                tracing::error!(reason, %error, "the database is damaged and cannot be set aside");
                return;
            }
        }
        if let Err(error) = self.open() {
            tracing::error!(%error, "no new database in place of the damaged one");
        }
    }

    /// Writes the journal back and closes the file.
    fn close(&mut self) -> Result<(), StoreError> {
        self.journal.wait();
        let Some(connection) = self.connection.take() else { return Ok(()) };
        connection.close().map_err(|(_, error)| store_error(&error))
    }
}

/// Does something as one transaction, or nothing of it.
fn transaction<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let result = work(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

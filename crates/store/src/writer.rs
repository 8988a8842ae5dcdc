//! The thread that owns the writing connection: takes what waits, and commits it at once.

use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};
use x0x_core::WallTime;
use x0x_direct::mail::Retention;
use x0x_gossip_pubsub::{LogChange, StoreError};

use crate::{
    config::{MAX_GROUP_BYTES, MAX_GROUP_CHANGES, PAGE_BYTES, StoreConfig},
    error::{OpenError, store_error},
    file,
    journal::Journal,
    logs::{self, LogTables},
    mail::MailTables,
    metrics::StoreMetrics,
    schema,
    tail::{self, Left, Replayed, Tail},
};

mod commit_letters;
mod commit_mail;
mod commit_objects;

pub(crate) use self::{
    commit_letters::LettersCommit, commit_mail::MailCommit, commit_objects::ObjectsCommit,
};

/// Bytes appended after which the size of the file is looked at.
const LOOK_AFTER: u64 = 1024 * 1024;

/// The part of the file's cap that one step of eviction may free, so that a few large runs too many
/// do not cost all of them.
const EVICTED_PART: u64 = 16;

/// How the writer's opening went.
pub(crate) type Opened = Result<Tail, OpenError>;

/// What handles ask of the writer, in order.
#[derive(Debug)]
pub(crate) enum Command {
    Commit(Commit),
    Mail(MailCommit),
    Letters(LettersCommit),
    Object(ObjectsCommit),
    /// Lets some more mail be searched; answers whether there is more of it.
    Index(oneshot::Sender<Result<bool, StoreError>>),
    /// Put what is in the tail into the tables.
    Apply,
    /// Answers once everything before it is committed, with the number of the file.
    Barrier {
        /// The tail has to be in the tables, too. Mail does not go through it.
        tail: bool,
        reply: oneshot::Sender<Result<u64, StoreError>>,
    },
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
    tail: Tail,
    /// What a crash left in the tail, until it is in the tables.
    left: Option<Vec<Left>>,
    /// None when a new file could not be opened in place of a damaged one; tried again.
    connection: Option<Connection>,
    /// Counts files: a damaged one is followed by a new one.
    file: u64,
    tables: LogTables,
    mail: MailTables,
    /// Something of the mail is left to prune.
    pruning: Option<(Retention, WallTime)>,
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
        let (tail, left) = Tail::open(&config);
        let mut writer = Self {
            config,
            commands,
            metrics,
            tail: tail.clone(),
            left: Some(left),
            connection: None,
            file: 0,
            tables: LogTables::default(),
            mail: MailTables::default(),
            pruning: None,
            journal: Journal::default(),
            expiring: None,
            evicting: false,
            unseen_bytes: 0,
        };
        let result = writer.open().map(|()| {
            // What fails now is tried again before anything else is applied.
            let _ = writer.replay_left();
            tail
        });
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
                Command::Mail(first) => next = self.commit_mail(first),
                Command::Letters(commit) => self.commit_letters(commit),
                Command::Object(commit) => self.commit_object(commit),
                Command::Index(reply) => {
                    let result = self.index_mail();
                    // A caller that is gone does not want to know.
                    drop(reply.send(result));
                }
                Command::Apply => {
                    // It stays in the tail, and is tried again.
                    let _ = self.apply_tail();
                }
                Command::Barrier { tail, reply } => {
                    let result = self.connect();
                    let result =
                        if tail { result.and_then(|()| self.apply_tail()) } else { result };
                    drop(reply.send(result.map(|()| self.file)));
                }
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
        while self.expiring.is_some() || self.pruning.is_some() || self.evicting {
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
        let mut result = self.connect().and_then(|()| self.apply_tail());
        if result.is_ok() {
            let changes: Vec<&LogChange> =
                group.iter().flat_map(|commit| &commit.changes).collect();
            result = self.apply(&changes, None);
        }
        match &result {
            Ok(()) => self.metrics.commits.add(group.len() as u64),
            Err(error) => group.iter().for_each(|_| self.metrics.failed(error)),
        }
        self.tail.done_through(group.len());
        for commit in group {
            // A caller that is gone does not want to know.
            drop(commit.reply.send(result.clone()));
        }
        self.step();
    }

    /// Puts what is in the tail into the tables. What was committed is not given up because the
    /// file is: it goes into the new one.
    fn apply_tail(&mut self) -> Result<(), StoreError> {
        self.replay_left()?;
        let Some(pending) = self.tail.take() else { return Ok(()) };
        let changes: Vec<&LogChange> = pending.changes.iter().collect();
        let generation = Some(pending.generation);
        let mut result = self.connect().and_then(|()| self.apply(&changes, generation));
        if matches!(result, Err(StoreError::Corrupt(_))) {
            result = self.connect().and_then(|()| self.apply(&changes, generation));
        }
        match &result {
            Ok(()) => self.tail.applied(),
            Err(error) => {
                self.metrics.failed(error);
                self.tail.put_back(pending);
            }
        }
        result
    }

    /// Puts what a crash left in the tail into the tables, into those of a new file if this one is
    /// damaged.
    fn replay_left(&mut self) -> Result<(), StoreError> {
        if self.left.is_none() {
            return Ok(());
        }
        let result = self.connect().and_then(|()| self.replay());
        let Err(StoreError::Corrupt(reason)) = &result else { return result };
        self.replace(reason);
        self.connect().and_then(|()| self.replay())
    }

    fn replay(&mut self) -> Result<(), StoreError> {
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let (tables, left) = (&mut self.tables, self.left.as_deref().unwrap_or_default());
        let result = transaction(connection, |connection| {
            let applied = tail::applied(connection)?;
            // What is in the tables already lies in a file that could not be emptied.
            let left = left.iter().filter(|left| left.generation > applied);
            let mut count = 0;
            for change in left.clone().flat_map(|left| &left.changes) {
                match change {
                    Replayed::Append(run) => tables.append(connection, run)?,
                    Replayed::Other(change) => tables.apply(connection, change)?,
                }
                count += 1;
            }
            tables.finish(connection)?;
            let last = left.map(|left| left.generation).max();
            if let Some(last) = last {
                tail::set_applied(connection, last)?;
            }
            Ok((count, last.unwrap_or(applied)))
        });
        match result {
            Ok((count, applied)) => {
                self.metrics.replayed.add(count);
                self.left = None;
                self.tail.replayed(applied);
                Ok(())
            }
            Err(error) => {
                tables.forget();
                tracing::warn!(%error, "what a crash left in the tail cannot be applied now");
                Err(store_error(&error))
            }
        }
    }

    /// Applies changes in one transaction, after making room for them where that helps; with the
    /// generation of the tail that they are of.
    fn apply(&mut self, changes: &[&LogChange], generation: Option<u64>) -> Result<(), StoreError> {
        let size = changes.iter().map(|change| bytes(change)).sum();
        let mut result = self.try_apply(changes, generation);
        if matches!(result, Err(StoreError::Full)) && self.make_room(size) {
            result = self.try_apply(changes, generation);
        }
        match &result {
            Ok(()) => {
                self.metrics.transactions.inc();
                self.metrics.full.set(0);
                self.metrics.changes.add(changes.len() as u64);
                self.metrics.run_bytes.add(size);
                self.unseen_bytes += size;
                self.journal.note(&self.config, size);
            }
            Err(error) => {
                tracing::debug!(%error, "a commit failed");
                if let StoreError::Corrupt(reason) = error {
                    self.replace(reason);
                }
            }
        }
        if self.unseen_bytes >= LOOK_AFTER.min(self.config.cap() / 16) {
            self.look();
        }
        result
    }

    fn try_apply(
        &mut self,
        changes: &[&LogChange],
        generation: Option<u64>,
    ) -> Result<(), StoreError> {
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let tables = &mut self.tables;
        let mut expiring = self.expiring;
        let result = transaction(connection, |connection| {
            for change in changes {
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
            tables.finish(connection)?;
            generation.map_or(Ok(()), |generation| tail::set_applied(connection, generation))
        });
        match result {
            Ok(()) => self.expiring = expiring,
            Err(_) => self.tables.forget(),
        }
        result.map_err(|error| store_error(&error))
    }

    /// One step of pruning, of expiry and of eviction, if there is something to do.
    fn step(&mut self) {
        self.prune_mail();
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
        let bytes = self.config.cap() / EVICTED_PART;
        let evict = |connection: &_| logs::evict(connection, bytes);
        let evicted = transaction(connection, evict).unwrap_or_else(|error| {
            tracing::debug!(%error, "evicting failed");
            0
        });
        self.metrics.runs_evicted.add(evicted as u64);
        self.look();
        self.evicting &= evicted > 0;
        evicted > 0
    }

    /// Evicts until a group that did not fit may fit. One that cannot fit costs nothing.
    fn make_room(&mut self, bytes: u64) -> bool {
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

    fn open(&mut self) -> Result<(), OpenError> {
        let schema::Opened { connection, is_new, set_aside, carried } = schema::open(&self.config)?;
        if is_new {
            self.journal.write_back_next();
        }
        self.metrics.files_damaged.add(u64::from(set_aside));
        self.metrics.rows_carried.add(carried);
        self.connection = Some(connection);
        self.file += 1;
        self.tables.forget();
        self.mail.forget();
        self.look();
        Ok(())
    }

    /// Sets the file aside, since it is damaged, and begins a new one.
    fn replace(&mut self, reason: &str) {
        // Closed first, so that nothing of it goes into the new file.
        self.journal.wait();
        self.connection = None;
        let aside = match file::set_aside(&self.config.path) {
            Ok(aside) => aside,
            Err(error) => {
                tracing::error!(reason, %error, "the database is damaged and cannot be set aside");
                return;
            }
        };
        tracing::warn!(reason, aside = %aside.display(), "the database is damaged; starting a new one");
        if let Err(error) = self.open() {
            self.metrics.files_damaged.inc();
            tracing::error!(%error, "no new database in place of the damaged one yet");
        }
    }

    /// Writes the journal back and closes the file.
    fn close(&mut self) -> Result<(), StoreError> {
        self.tail.stop();
        if let Err(error) = self.apply_tail() {
            tracing::warn!(%error, "the tail waits for the next start");
        }
        self.tail.close();
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

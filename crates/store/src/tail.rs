//! The tail: commits that hold already, though the tables do not have them yet.
//!
//! A transaction for each small commit would cost a dozen page writes and two changes of thread.
//! What outlives the process only has to leave it, so a commit is one write to one of two plain
//! files, made by whoever commits; the writer applies what gathered at once and empties the file.
//! What a crash leaves in them is applied when the store is opened next.
//!
//! Each use of a file has a number, its generation. The transaction that applies one records it, so
//! that a file which is in the tables and could not be emptied is not applied again later, over what
//! came since.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _};
use tokio::time::Instant;
use x0x_core::AgentId;
use x0x_gossip_pubsub::LogChange;

use crate::{
    config::{Durability, MAX_TAIL_BYTES, MAX_TAIL_CHANGES, StoreConfig},
    file,
};

mod record;

pub(crate) use record::Replayed;

/// What the files' names add to the database's.
const SUFFIXES: [&str; 2] = ["-tail0", "-tail1"];

/// A write that took longer shows a disk that stalls, and a caller must not wait for one.
const SLOW: Duration = Duration::from_millis(20);

/// How long after a slow write commits go through the writer's thread.
const REST: Duration = Duration::from_secs(5);

/// Shared by the handles, which append, and the writer, which applies.
#[derive(Debug, Clone)]
pub(crate) struct Tail(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// `None` when the files are of no use.
    files: Option<[TailFile; 2]>,
    /// Commits are taken in. Else each goes through the writer.
    takes: bool,
    durability: Durability,
    /// Where the next record goes; what the other file holds is older.
    active: usize,
    /// Generation of the active file, greater than the other's.
    generation: u64,
    pending: Pending,
    /// Bytes that may wait. More goes through the writer, which can refuse it.
    max_bytes: u64,
    /// Commits that the writer was asked for and has not done. What follows them goes the same way.
    through: usize,
    /// The writer could not apply what is here. Nothing more is taken in until it could.
    stuck: bool,
    /// A file could not be cut: nothing is taken in until both are emptied, since half a record would
    /// hide what follows it.
    spoiled: bool,
    /// Writes were slow: not used before.
    rests: Option<Instant>,
    /// Authors whose keys are in the active file.
    authors: BTreeSet<AgentId>,
    buffer: Vec<u8>,
}

/// The generation up to which the tables have everything.
pub(crate) fn applied(connection: &Connection) -> rusqlite::Result<u64> {
    let applied: Option<i64> = connection
        .query_row("SELECT applied FROM tail_state WHERE id = 1", [], |row| row.get(0))
        .optional()?;
    Ok(applied.map_or(0, i64::cast_unsigned))
}

/// Records that, in the transaction that applies it.
pub(crate) fn set_applied(connection: &Connection, generation: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE tail_state SET applied = ?1 WHERE id = 1")?
        .execute([generation.cast_signed()])
        .map(drop)
}

/// Changes that are in the files but not in the tables.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) changes: Vec<LogChange>,
    /// Bytes of their records.
    pub(crate) bytes: u64,
    /// The last generation that they are of.
    pub(crate) generation: u64,
}

/// What a crash left in one file.
#[derive(Debug)]
pub(crate) struct Left {
    /// The file's generation.
    pub(crate) generation: u64,
    /// Its changes.
    pub(crate) changes: Vec<Replayed>,
}

/// What an append asks of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// The first of a batch: apply it in a while.
    First,
    /// Nothing: the writer knows.
    More,
    /// Enough has gathered to be applied now.
    Enough,
}

#[derive(Debug)]
struct TailFile {
    file: File,
    len: u64,
}

impl Tail {
    /// Opens the files beside the database. Returns what a crash left in them, in order; nothing is
    /// taken in before that is [`replayed`](Self::replayed).
    ///
    /// Without them, which is so when another process has them, every commit is a transaction.
    pub(crate) fn open(config: &StoreConfig) -> (Self, Vec<Left>) {
        let mut state = State {
            files: None,
            takes: false,
            durability: config.durability,
            active: 0,
            generation: 1,
            pending: Pending::default(),
            max_bytes: (config.cap() / 4).min(MAX_TAIL_BYTES),
            through: 0,
            stuck: false,
            spoiled: false,
            rests: None,
            authors: BTreeSet::new(),
            buffer: Vec::new(),
        };
        let left = match state.open(config) {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%error, path = %config.path.display(), "no tail beside the database");
                Vec::new()
            }
        };
        (Self(Arc::new(Mutex::new(state))), left)
    }

    /// Makes changes hold. Gives nothing when they have to go through the writer instead, which is
    /// told with [`done_through`](Self::done_through).
    pub(crate) fn append(&self, changes: &[LogChange]) -> Option<Appended> {
        let mut state = self.state();
        let appended = state.append(changes);
        if appended.is_none() {
            state.through += 1;
        }
        appended
    }

    /// Commits that went through the writer are done, or failed.
    pub(crate) fn done_through(&self, commits: usize) {
        let mut state = self.state();
        state.through = state.through.saturating_sub(commits);
    }

    /// What is to be applied; what comes meanwhile goes to the other file.
    pub(crate) fn take(&self) -> Option<Pending> {
        self.state().take()
    }

    /// What was taken is in the tables.
    pub(crate) fn applied(&self) {
        self.state().applied();
    }

    /// What was taken is not in the tables, and is tried again.
    pub(crate) fn put_back(&self, taken: Pending) {
        let mut state = self.state();
        state.stuck = true;
        let since = std::mem::replace(&mut state.pending, taken);
        state.pending.changes.extend(since.changes);
        state.pending.bytes += since.bytes;
    }

    /// What was read at the opening is in the tables, which have everything up to a generation.
    pub(crate) fn replayed(&self, applied: u64) {
        let mut state = self.state();
        state.empty_both();
        state.generation = state.generation.max(applied + 1);
        // A flush for each commit is what the other durability is about.
        state.takes = state.durability == Durability::Process;
    }

    /// Takes nothing in any more.
    pub(crate) fn stop(&self) {
        self.state().takes = false;
    }

    /// Lets go of the files.
    pub(crate) fn close(&self) {
        self.state().files = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here panics halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&mut self, config: &StoreConfig) -> io::Result<Vec<Left>> {
        let mut files = [
            TailFile::open(&file::with_suffix(&config.path, SUFFIXES[0]))?,
            TailFile::open(&file::with_suffix(&config.path, SUFFIXES[1]))?,
        ];
        let mut found = Vec::new();
        for (file, suffix) in files.iter_mut().zip(SUFFIXES) {
            let bytes = file.read()?;
            if record::is_foreign(&bytes) {
                let path = file::with_suffix(&config.path, suffix);
                tracing::warn!(path = %path.display(), "a journal is damaged: what was in it alone is lost here");
            }
            found.push(record::read_all(&bytes));
        }
        let generation = |index| found.get(index).map_or(0, |(generation, _)| *generation);
        self.active = usize::from(generation(1) > generation(0));
        found.sort_by_key(|(generation, _)| *generation);
        self.generation = found.last().map_or(0, |(generation, _)| *generation) + 1;
        self.files = Some(files);
        let left = found.into_iter().map(|(generation, changes)| Left { generation, changes });
        Ok(left.filter(|left| !left.changes.is_empty()).collect())
    }

    fn append(&mut self, changes: &[LogChange]) -> Option<Appended> {
        if !self.takes || self.stuck || self.spoiled || self.through > 0 {
            return None;
        }
        if self.rests.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let file = self.files.as_mut()?.get_mut(self.active)?;
        self.buffer.clear();
        if file.len == 0 {
            record::begin(&mut self.buffer, self.generation);
        }
        record::add(&mut self.buffer, changes, &mut self.authors);
        let bytes = self.buffer.len() as u64;
        let room = self.pending.bytes + bytes <= self.max_bytes
            && self.pending.changes.len() + changes.len() <= MAX_TAIL_CHANGES;
        if !room {
            self.authors.clear();
            return None;
        }
        let began = Instant::now();
        if let Err(error) = file.append(&self.buffer) {
            tracing::debug!(%error, "the tail takes nothing");
            self.spoiled = file.cut(file.len).is_err();
            self.authors.clear();
            return None;
        }
        self.rests = (began.elapsed() > SLOW).then(|| Instant::now() + REST);
        let before = self.pending.bytes;
        self.pending.changes.extend_from_slice(changes);
        self.pending.bytes += bytes;
        let enough = self.max_bytes / 4;
        Some(match (before, self.pending.bytes) {
            (before, now) if before < enough && now >= enough => Appended::Enough,
            (0, _) => Appended::First,
            _ => Appended::More,
        })
    }

    fn take(&mut self) -> Option<Pending> {
        if self.pending.changes.is_empty() {
            if std::mem::take(&mut self.spoiled) {
                self.empty_both();
            }
            return None;
        }
        let mut taken = std::mem::take(&mut self.pending);
        taken.generation = self.generation;
        // While the other file holds what could not be applied, or may not be empty, nothing is
        // appended.
        if !self.stuck && !self.spoiled {
            self.active ^= 1;
            self.authors.clear();
        }
        // What is appended from now on is not of what is taken, whichever file it goes to.
        self.generation += 1;
        Some(taken)
    }

    fn applied(&mut self) {
        if std::mem::take(&mut self.stuck) {
            // Nothing was appended meanwhile.
            self.empty_both();
        } else {
            // The active one may hold what was appended since.
            self.empty(self.active ^ 1);
        }
    }

    /// The older first: the newer alone may be applied once more, the older alone not.
    fn empty_both(&mut self) {
        self.empty(self.active ^ 1);
        if !self.spoiled {
            self.empty(self.active);
        }
    }

    /// Empties a file. Nothing is taken in until one that cannot be emptied is.
    fn empty(&mut self, index: usize) {
        let Some(file) = self.files.as_mut().and_then(|files| files.get_mut(index)) else { return };
        if let Err(error) = file.cut(0) {
            tracing::warn!(%error, "the tail cannot be emptied; commits are slower until it can");
            self.spoiled = true;
        }
    }
}

impl TailFile {
    fn open(path: &Path) -> io::Result<Self> {
        file::prepare(path)?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        file.try_lock().map_err(io::Error::from)?;
        Ok(Self { file, len: 0 })
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // No file of ours is larger.
        (&self.file).take(2 * MAX_TAIL_BYTES).read_to_end(&mut bytes)?;
        self.len = bytes.len() as u64;
        Ok(bytes)
    }

    /// Appends. After an error half of it may be there, until it is cut.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.seek(io::SeekFrom::Start(len))?;
        self.len = len;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! A file that is sent: read once for its hashes, then group by group.

use std::{
    ops::Range,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    error::WorkError,
    id::TransferId,
    record::Record,
    state::Prepared,
    store::{Blob, FileStore, Part},
    tree::{self, GROUP, GROUP_LEN, VALUE, Value},
    wire,
};

/// Values of a level that are handled at once; even, so that pairs stay together.
const VALUES_AT_ONCE: usize = 2048;

/// Reads the whole file, and keeps its hash tree. `stop` is asked now and then.
pub(crate) fn prepare(
    store: &dyn FileStore,
    record: &Record,
    stop: impl Fn() -> bool,
) -> Result<Prepared, WorkError> {
    let path = record.source.as_deref();
    let path = path.ok_or_else(|| WorkError::SourceGone("no path".into()))?;
    let source = store.source(path)?;
    let (size, modified) = source.stat()?;
    let tree = store.part(record, Part::Tree)?;
    let total = tree::groups(size);
    let mut level = Level::new(&*tree, 0);
    let mut small = tree::small_root(&[]);
    let sha256 = beside_sha256(|hash| {
        let (mut at, mut group) = (0, 0);
        while at < size {
            if stop() {
                return Err(WorkError::Disconnected);
            }
            let mut piece = hash.buffer();
            piece.resize(usize::try_from(size - at).unwrap_or(PIECE).min(PIECE), 0);
            if source.read_at(at, &mut piece)? < piece.len() {
                return Err(WorkError::SourceChanged);
            }
            at += piece.len() as u64;
            for content in piece.chunks(GROUP_LEN) {
                if total == 1 {
                    small = tree::small_root(content);
                } else {
                    level.push(tree::leaf(group, content))?;
                }
                group += 1;
            }
            hash.update(piece);
        }
        Ok(())
    })?;
    level.flush()?;
    let root = if total < 2 { small } else { build(&*tree, total)? };
    // The record that says that it is there outlives a crash.
    tree.sync()?;
    if source.stat()? != (size, modified) {
        return Err(WorkError::SourceChanged);
    }
    Ok(Prepared { size, root, sha256, modified })
}

/// Bytes that are read at once: whole groups.
const PIECE: usize = 8 * GROUP_LEN;
/// Pieces that wait for their SHA-256, which is the slower hash by far.
const MAX_PIECES: usize = 2;

/// A SHA-256 that is computed on a thread of its own.
struct Beside {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

impl Beside {
    /// A buffer that was used before, if there is one.
    fn buffer(&self) -> Vec<u8> {
        self.empty.try_recv().unwrap_or_default()
    }

    fn update(&self, piece: Vec<u8>) {
        // The other end is there for as long as this one.
        let _ = self.full.send(piece);
    }
}

/// The SHA-256 of what `read` gives to it, while `read` goes on.
fn beside_sha256(
    read: impl FnOnce(&Beside) -> Result<(), WorkError>,
) -> Result<[u8; 32], WorkError> {
    let (full, pieces) = sync_channel::<Vec<u8>>(MAX_PIECES);
    let (used, empty) = sync_channel(MAX_PIECES + 2);
    std::thread::scope(|scope| {
        let hashing = scope.spawn(move || {
            let mut sha256 = Sha256::new();
            for piece in pieces {
                sha256.update(&piece);
                // Nobody needs it any more at the end.
                let _ = used.try_send(piece);
            }
            sha256.finalize().into()
        });
        let beside = Beside { full, empty };
        read(&beside)?;
        drop(beside);
        hashing.join().map_err(|_| WorkError::Disk("the file was not hashed".into()))
    })
}

/// One level of the tree on disk, written from left to right.
struct Level<'a> {
    tree: &'a dyn Blob,
    at: u64,
    pending: Vec<u8>,
}

impl<'a> Level<'a> {
    fn new(tree: &'a dyn Blob, at: u64) -> Self {
        Self { tree, at, pending: Vec::with_capacity(VALUES_AT_ONCE * VALUE) }
    }

    fn push(&mut self, value: Value) -> Result<(), WorkError> {
        self.pending.extend_from_slice(&value);
        if self.pending.len() >= VALUES_AT_ONCE * VALUE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), WorkError> {
        self.tree.write_at(self.at, &self.pending)?;
        self.at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// Puts the upper levels on the groups' values, and gives the root. There are at least two groups.
fn build(tree: &dyn Blob, total: u64) -> Result<Value, WorkError> {
    let mut below = 0;
    let mut values = vec![0; VALUES_AT_ONCE * VALUE];
    for count in tree::levels(total) {
        let start = below;
        below += count * VALUE as u64;
        let mut above = Level::new(tree, below);
        let mut read = 0;
        while read < count {
            let take = usize::try_from(count - read).unwrap_or(usize::MAX).min(VALUES_AT_ONCE);
            let part = &mut values[..take * VALUE];
            if tree.read_at(start + read * VALUE as u64, part)? < part.len() {
                return Err(damaged());
            }
            read += take as u64;
            for pair in part.as_chunks::<VALUE>().0.chunks(2) {
                match pair {
                    [left, right] if count == 2 => return Ok(tree::root(left, right)),
                    [left, right] => above.push(tree::parent(left, right))?,
                    rest => rest.iter().try_for_each(|alone| above.push(*alone))?,
                }
            }
        }
        above.flush()?;
    }
    Err(damaged())
}

/// Files that are being sent, open; those that were used last.
#[derive(Debug, Default)]
pub(crate) struct Sources(Vec<Source>);

/// More transfers of one machine are seldom served in turn.
const MAX_SOURCES: usize = 4;

#[derive(Debug)]
struct Source {
    id: TransferId,
    content: Box<dyn Blob>,
    tree: Box<dyn Blob>,
    /// Where each level of the tree begins, and how many values it has.
    levels: Vec<(u64, u64)>,
}

impl Sources {
    /// Reads groups and makes the frames that carry them. A file that cannot be read is opened anew for the
    /// next ones.
    pub(crate) fn frames(
        &mut self,
        store: &dyn FileStore,
        record: &Record,
        groups: Range<u64>,
    ) -> Result<Vec<Bytes>, WorkError> {
        let source = match self.0.iter().position(|source| source.id == record.id) {
            Some(at) => self.0.remove(at),
            None => Source::open(store, record)?,
        };
        let frames = source.frames(record, groups)?;
        self.0.truncate(MAX_SOURCES - 1);
        self.0.insert(0, source);
        Ok(frames)
    }
}

impl Source {
    fn open(store: &dyn FileStore, record: &Record) -> Result<Self, WorkError> {
        let path = record.source.as_deref();
        let path = path.ok_or_else(|| WorkError::SourceGone("no path".into()))?;
        let content = store.source(path)?;
        let tree = store.part(record, Part::Tree)?;
        let mut at = 0;
        let levels = tree::levels(tree::groups(record.size)).map(|count| {
            let start = at;
            at += count * VALUE as u64;
            (start, count)
        });
        Ok(Self { id: record.id, content, tree, levels: levels.collect() })
    }

    fn frames(&self, record: &Record, groups: Range<u64>) -> Result<Vec<Bytes>, WorkError> {
        if self.content.stat()? != (record.size, record.modified) {
            return Err(WorkError::SourceChanged);
        }
        let beside = self.beside(&groups)?;
        let frame = |group: u64| {
            let mut proof = Vec::with_capacity(beside.len() * VALUE);
            for (level, at) in tree::neighbours(record.size, group) {
                let (first, values) = beside.get(level).ok_or_else(damaged)?;
                let value = at.checked_sub(*first).and_then(|at| values.get(at as usize));
                proof.extend_from_slice(value.ok_or_else(damaged)?);
            }
            let len = tree::group_len(record.size, group);
            wire::encode_slice(record.id, group, &proof, len, |room| {
                let read = self.content.read_at(group * GROUP, room)?;
                if read < len { Err(WorkError::SourceChanged) } else { Ok(()) }
            })
        };
        groups.map(frame).collect()
    }

    /// The values of each level that are on the way of some groups or beside it, and the place of the first.
    fn beside(&self, groups: &Range<u64>) -> Result<Vec<(u64, Vec<Value>)>, WorkError> {
        let part = |(level, (start, count)): (usize, &(u64, u64))| {
            let first = (groups.start >> level) & !1;
            let last = ((groups.end.saturating_sub(1) >> level) | 1).min(count - 1);
            let mut bytes = vec![0; (last + 1).saturating_sub(first) as usize * VALUE];
            if self.tree.read_at(start + first * VALUE as u64, &mut bytes)? < bytes.len() {
                return Err(damaged());
            }
            Ok((first, bytes.as_chunks::<VALUE>().0.to_vec()))
        };
        self.levels.iter().enumerate().map(part).collect()
    }
}

fn damaged() -> WorkError {
    WorkError::Disk("the hash tree is damaged".into())
}

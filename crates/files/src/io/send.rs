//! A file that is sent: read once for its hashes, then group by group.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    error::WorkError,
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
    let (mut sha256, mut buffer) = (Sha256::new(), vec![0; GROUP_LEN]);
    let mut level = Level::new(&*tree, 0);
    let mut small = tree::small_root(&[]);
    for group in 0..total {
        if stop() {
            return Err(WorkError::Disconnected);
        }
        let content = &mut buffer[..tree::group_len(size, group)];
        if source.read_at(group * GROUP, content)? < content.len() {
            return Err(WorkError::SourceChanged);
        }
        sha256.update(&*content);
        if total == 1 {
            small = tree::small_root(content);
        } else {
            level.push(tree::leaf(group, content))?;
        }
    }
    level.flush()?;
    let root = if total < 2 { small } else { build(&*tree, total)? };
    if source.stat()? != (size, modified) {
        return Err(WorkError::SourceChanged);
    }
    Ok(Prepared { size, root, sha256: sha256.finalize().into(), modified })
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
                return Err(WorkError::Disk("the hash tree is damaged".into()));
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
    Err(WorkError::Disk("the hash tree is damaged".into()))
}

/// Where each level of the tree begins on disk.
fn offsets(total: u64) -> Vec<u64> {
    let mut at = 0;
    tree::levels(total)
        .map(|count| {
            let start = at;
            at += count * VALUE as u64;
            start
        })
        .collect()
}

/// Reads groups and makes the frames that carry them.
pub(crate) fn frames(
    store: &dyn FileStore,
    record: &Record,
    groups: std::ops::Range<u64>,
) -> Result<Vec<Bytes>, WorkError> {
    let path = record.source.as_deref();
    let path = path.ok_or_else(|| WorkError::SourceGone("no path".into()))?;
    let source = store.source(path)?;
    if source.stat()? != (record.size, record.modified) {
        return Err(WorkError::SourceChanged);
    }
    let tree = store.part(record, Part::Tree)?;
    let starts = offsets(tree::groups(record.size));
    groups
        .map(|group| {
            let mut proof = Vec::with_capacity(starts.len() * VALUE);
            for (level, at) in tree::neighbours(record.size, group) {
                let mut value = [0; VALUE];
                let start = starts.get(level).copied().unwrap_or_default();
                if tree.read_at(start + at * VALUE as u64, &mut value)? < VALUE {
                    return Err(WorkError::Disk("the hash tree is damaged".into()));
                }
                proof.extend_from_slice(&value);
            }
            let len = tree::group_len(record.size, group);
            wire::encode_slice(record.id, group, &proof, len, |room| {
                let read = source.read_at(group * GROUP, room)?;
                if read < len { Err(WorkError::SourceChanged) } else { Ok(()) }
            })
        })
        .collect()
}

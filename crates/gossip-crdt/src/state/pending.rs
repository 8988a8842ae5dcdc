//! Operations that wait for what they depend on.

use std::collections::{BTreeMap, BTreeSet};

use x0x_core::{AgentId, DecodeError, WallTime};

use crate::{
    config::{MAX_PENDING, MAX_PENDING_BYTES, MAX_PENDING_CHAINS},
    dot::{ActorTag, Dot},
    wire::OperationIn,
};

/// An entry that is not processed yet.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) time: WallTime,
    pub(crate) bytes: usize,
    /// Bytes that it takes in the log.
    pub(crate) logged: u64,
    pub(crate) operation: Result<OperationIn, DecodeError>,
}

/// What waits in one chain, by number.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) author: AgentId,
    pub(crate) epoch: u64,
    entries: BTreeMap<u64, Waiting>,
}

/// At most [`MAX_PENDING`] entries of [`MAX_PENDING_BYTES`] in [`MAX_PENDING_CHAINS`] chains; the last of
/// the longest chain go first, since they wait for those before them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    lines: BTreeMap<ActorTag, Line>,
    entries: usize,
    bytes: usize,
    /// Which chains wait for an actor.
    waiters: BTreeMap<ActorTag, BTreeSet<ActorTag>>,
}

impl Pending {
    pub(crate) const fn len(&self) -> usize {
        self.entries
    }

    /// The last entry of each chain.
    pub(crate) fn last(&self) -> impl Iterator<Item = Dot> + '_ {
        self.lines.iter().filter_map(|(actor, line)| {
            let (seq, _) = line.entries.last_key_value()?;
            Some(Dot { actor: *actor, seq: *seq })
        })
    }

    /// Adds an entry. Returns how many were dropped for it.
    pub(crate) fn push(
        &mut self,
        tag: ActorTag,
        (author, epoch, seq): (AgentId, u64, u64),
        entry: Waiting,
    ) -> u64 {
        if !self.lines.contains_key(&tag) && self.lines.len() >= MAX_PENDING_CHAINS {
            return 1;
        }
        let line = self.lines.entry(tag).or_insert_with(|| Line {
            author,
            epoch,
            entries: BTreeMap::new(),
        });
        let bytes = entry.bytes;
        if line.entries.contains_key(&seq) {
            return 0;
        }
        line.entries.insert(seq, entry);
        self.entries += 1;
        self.bytes += bytes;
        let mut dropped = 0;
        while self.entries > MAX_PENDING || self.bytes > MAX_PENDING_BYTES {
            let longest = self.lines.iter().max_by_key(|(_, line)| line.entries.len());
            let Some(longest) = longest.map(|(tag, _)| *tag) else { break };
            self.drop_last(&longest);
            dropped += 1;
        }
        dropped
    }

    fn drop_last(&mut self, tag: &ActorTag) {
        let Some(line) = self.lines.get_mut(tag) else { return };
        if let Some((_, entry)) = line.entries.pop_last() {
            self.entries -= 1;
            self.bytes -= entry.bytes;
        }
        if line.entries.is_empty() {
            self.lines.remove(tag);
            self.stop_waiting(tag);
        }
    }

    fn stop_waiting(&mut self, tag: &ActorTag) {
        self.waiters.retain(|_, waiting| {
            waiting.remove(tag);
            !waiting.is_empty()
        });
    }

    /// The entry of a chain with this number, if it is the first there; those before it are dropped.
    pub(crate) fn head(&mut self, tag: &ActorTag, seq: u64) -> Option<(&Line, &Waiting)> {
        while let Some(line) = self.lines.get_mut(tag)
            && let Some(first) = line.entries.first_entry()
            && *first.key() < seq
        {
            let old = first.remove();
            self.entries -= 1;
            self.bytes -= old.bytes;
            if line.entries.is_empty() {
                self.lines.remove(tag);
            }
        }
        let line = self.lines.get(tag)?;
        let (first, entry) = line.entries.first_key_value()?;
        (*first == seq).then_some((line, entry))
    }

    /// Takes the first entry of a chain.
    pub(crate) fn pop(&mut self, tag: &ActorTag) -> Option<Waiting> {
        let line = self.lines.get_mut(tag)?;
        let (_, entry) = line.entries.pop_first()?;
        self.entries -= 1;
        self.bytes -= entry.bytes;
        if line.entries.is_empty() {
            self.lines.remove(tag);
        }
        Some(entry)
    }

    /// Drops all of a chain.
    pub(crate) fn drop_line(&mut self, tag: &ActorTag) {
        if let Some(line) = self.lines.remove(tag) {
            self.entries -= line.entries.len();
            self.bytes -= line.entries.values().map(|entry| entry.bytes).sum::<usize>();
            self.stop_waiting(tag);
        }
    }

    /// Notes that a chain waits for an actor.
    pub(crate) fn wait(&mut self, tag: ActorTag, on: ActorTag) {
        self.waiters.entry(on).or_default().insert(tag);
    }

    /// The chains that waited for an actor.
    pub(crate) fn woken(&mut self, by: &ActorTag) -> BTreeSet<ActorTag> {
        self.waiters.remove(by).unwrap_or_default()
    }
}

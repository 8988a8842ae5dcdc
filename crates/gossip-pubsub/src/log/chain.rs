//! One author's chains in a topic.

use std::{collections::VecDeque, sync::Arc};

use x0x_core::{MachineId, Tick, TokenBucket};
use x0x_identity::PublicKey;

use crate::{
    config::ENTRY_SHARE,
    retention::Retention,
    run::{EntryHash, Run, RunBody},
    time::HybridTime,
};

use super::{Relation, Route, Sum, epochs::Epochs};

/// One author's chain in one epoch.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) head: u64,
    pub(super) hash: EntryHash,
    pub(super) time: HybridTime,
    /// Its runs in the log, in order, with their positions.
    pub(super) retained: VecDeque<(Arc<Run>, u64)>,
    pub(super) route: Route,
    /// Its part of the log's fingerprint: of every chain that somebody may still retain something of.
    pub(super) mark: Sum,
}

#[derive(Debug, Default)]
pub(super) struct Author {
    /// None when it is a former author: only what guards against replays is kept.
    pub(super) key: Option<PublicKey>,
    pub(super) blocked: bool,
    /// The latest epoch that was forgotten; 0 when none was.
    pub(super) forgot: u64,
    pub(super) allowance: Option<TokenBucket>,
    pub(super) epochs: Epochs,
    /// Its runs in the log, with their entries and bytes.
    pub(super) retained: usize,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// Position of its latest entry.
    pub(super) active: u64,
    /// When its first run joined the log.
    pub(super) began: Tick,
    /// The link that brought it; none when it was stored, or is this node's own.
    pub(super) introducer: Option<MachineId>,
    /// It counts among the newcomers of that link: one may be expelled for another one.
    pub(super) counted: bool,
    /// It is not expelled: known for long, or this node's own.
    pub(super) established: bool,
}

impl Author {
    /// Whether an epoch that is not known is no later than one that was forgotten. What is kept for ever may
    /// always come.
    pub(super) fn supersedes(&self, epoch: u64) -> bool {
        epoch <= self.forgot && Retention::of_epoch(epoch) != Retention::Durable
    }

    /// The epochs that may be forgotten to make room, the oldest first: those of which nothing is kept for
    /// ever.
    pub(super) fn passing(&self) -> impl Iterator<Item = u64> {
        let stays = |epoch: u64, chain: &Chain| {
            Retention::of_epoch(epoch) == Retention::Durable && !chain.retained.is_empty()
        };
        self.epochs
            .iter()
            .filter(move |(epoch, chain)| !stays(*epoch, chain))
            .map(|(epoch, _)| epoch)
    }

    /// Whether what is known of a later epoch takes the place of all there is of this one.
    pub(super) fn replaced(&self, epoch: u64) -> bool {
        Retention::of_epoch(epoch) == Retention::Latest
            && self.epochs.after(epoch).any(|(at, _)| Retention::of_epoch(at) == Retention::Latest)
    }

    /// What it takes of the log, by bytes or by entries, whichever is more.
    pub(super) fn share(&self) -> u64 {
        self.bytes.max(self.entries * ENTRY_SHARE)
    }

    /// Milliseconds between the first and the last of its retained runs.
    pub(super) fn span(&self) -> u64 {
        let runs = || self.epochs.iter().flat_map(|(_, chain)| &chain.retained);
        let times = || runs().map(|(run, _)| run.body().last_time().wall().as_millis());
        times().max().unwrap_or(0).saturating_sub(times().min().unwrap_or(0))
    }

    pub(super) fn latest(&self) -> HybridTime {
        self.epochs.iter().map(|(_, chain)| chain.time).max().unwrap_or_default()
    }
}

/// How a run relates to a chain of which nothing is known.
pub(super) fn begins(run: &RunBody) -> Relation {
    match run.first_seq {
        2.. if run.retention() == Retention::Latest => Relation::Next,
        1 if run.prev == EntryHash::GENESIS => Relation::Next,
        1 => Relation::Mischained,
        _ => Relation::Gap { head: 0 },
    }
}

impl Chain {
    pub(super) const fn begin(prev: EntryHash) -> Self {
        Self {
            head: 0,
            hash: prev,
            time: HybridTime::from_u64(0),
            retained: VecDeque::new(),
            route: Route { peer: None, hops: None },
            mark: Sum::ZERO,
        }
    }

    /// Takes the run at a position out. A list that was long gives its room back.
    pub(super) fn release(&mut self, position: u64) {
        let index = self.retained.partition_point(|(_, at)| *at < position);
        if self.retained.get(index).is_some_and(|(_, at)| *at == position) {
            self.retained.remove(index);
        }
        if self.retained.is_empty() {
            self.retained = VecDeque::new();
        } else if self.retained.capacity() > 4 * self.retained.len().max(2) {
            self.retained.shrink_to(2 * self.retained.len());
        }
    }

    pub(super) fn find(&self, seq: u64) -> Option<&Arc<Run>> {
        let index = self.retained.partition_point(|(run, _)| run.body().last_seq() < seq);
        self.retained.get(index).map(|(run, _)| run).filter(|run| run.body().first_seq <= seq)
    }

    /// Compares a run that begins at or before the head with what is held there.
    pub(super) fn compare(&self, run: &RunBody, signature: &[u8]) -> Relation {
        let common = run.last_seq().min(self.head);
        let Some(held) = self.find(common) else { return Relation::Old };
        if held.body().last_seq() == run.last_seq() && held.signature() == signature {
            return Relation::Duplicate;
        }
        if run.hash_at(common) != held.body().hash_at(common) {
            Relation::Conflict
        } else if run.last_seq() > self.head {
            Relation::Overlap
        } else {
            Relation::Duplicate
        }
    }
}

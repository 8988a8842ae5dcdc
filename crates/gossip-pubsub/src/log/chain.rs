//! One author's chains in a topic.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use x0x_core::TokenBucket;
use x0x_identity::PublicKey;

use crate::{
    config::ENTRY_SHARE,
    retention::Retention,
    run::{EntryHash, Run, RunBody},
    time::HybridTime,
};

use super::{Relation, Route, Sum};

/// One author's chain in one epoch.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) head: u64,
    pub(super) hash: EntryHash,
    pub(super) time: HybridTime,
    /// Its runs in the log, in order, with their positions.
    pub(super) retained: VecDeque<(Arc<Run>, u64)>,
    pub(super) route: Route,
    /// Its part of the log's fingerprint.
    pub(super) mark: Sum,
}

#[derive(Debug, Default)]
pub(super) struct Author {
    /// None when it is a former author: only what guards against replays is kept.
    pub(super) key: Option<PublicKey>,
    pub(super) blocked: bool,
    /// Epochs before the oldest known one were forgotten.
    pub(super) forgot: bool,
    pub(super) allowance: Option<TokenBucket>,
    pub(super) epochs: BTreeMap<u64, Chain>,
    /// Its runs in the log, with their entries and bytes.
    pub(super) retained: usize,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// Position of its latest entry.
    pub(super) active: u64,
}

impl Author {
    /// Whether an epoch that is not known is older than all that are, after some were forgotten.
    pub(super) fn supersedes(&self, epoch: u64) -> bool {
        self.forgot && self.epochs.keys().next().is_none_or(|oldest| epoch < *oldest)
    }

    /// Whether what is known of a later epoch takes the place of all there is of this one.
    pub(super) fn replaced(&self, epoch: u64) -> bool {
        let later = || self.epochs.range(epoch.saturating_add(1)..);
        Retention::of_epoch(epoch) == Retention::Latest
            && later().any(|(epoch, _)| Retention::of_epoch(*epoch) == Retention::Latest)
    }

    /// What it takes of the log, by bytes or by entries, whichever is more.
    pub(super) fn share(&self) -> u64 {
        self.bytes.max(self.entries * ENTRY_SHARE)
    }

    pub(super) fn latest(&self) -> HybridTime {
        self.epochs.values().map(|chain| chain.time).max().unwrap_or_default()
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

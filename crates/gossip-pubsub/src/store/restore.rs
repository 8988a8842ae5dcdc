//! Checking what a store gives back, before the machine accepts any of it.
//!
//! A run names the hash of the entry before it, so the newest run of a chain vouches by its one
//! signature for those before it without a gap. Hundreds of runs cost one check.

use std::{collections::BTreeMap, sync::Arc};

use x0x_core::{AgentId, TopicId};
use x0x_identity::PublicKey;

use super::{StoredChain, StoredTopic};
use crate::run::{NetworkId, Run, RunIn};

/// A stored topic that was checked: every run in it was signed by its author, and every key is its
/// author's.
#[derive(Debug)]
pub struct RestoredTopic {
    pub(crate) topic: TopicId,
    pub(crate) incarnation: u64,
    /// Position after the last entry that was ever appended.
    pub(crate) end: u64,
    /// Position after the last entry that retention took.
    pub(crate) gone: u64,
    /// By position, with places between them that nothing is retained of.
    pub(crate) runs: Vec<RestoredRun>,
    /// Keys of the runs' authors.
    pub(crate) keys: BTreeMap<AgentId, PublicKey>,
    /// Heads of chains of which no run is retained.
    pub(crate) former: Vec<StoredChain>,
    pub(crate) blocked: Vec<AgentId>,
    /// Runs that were left out, since they do not check.
    pub(crate) refused: u64,
    /// Signatures that were verified.
    pub(crate) verified: u64,
}

/// A run in its place.
#[derive(Debug, Clone)]
pub(crate) struct RestoredRun {
    pub(crate) position: u64,
    /// Entries of the author that are missing just before it, those of refused runs included.
    pub(crate) missed: u64,
    pub(crate) begins: bool,
    pub(crate) run: Arc<Run>,
}

/// A run that is decoded but not vouched for yet.
struct Claim {
    position: u64,
    missed: u64,
    begins: bool,
    run: RunIn,
}

impl StoredTopic {
    /// Checks everything that was stored of a topic. Takes a few microseconds a run and a signature
    /// check a chain, so not on the actor's thread when there may be many.
    ///
    /// What does not check is left out. If that is the end of a chain, the chain ends earlier and
    /// the rest comes again from other nodes; if it is before it, readers are told what they miss.
    #[must_use]
    pub fn check(self, network: NetworkId, topic: TopicId) -> RestoredTopic {
        let mut restored = RestoredTopic {
            topic,
            incarnation: self.incarnation,
            end: self.end,
            gone: self.gone,
            runs: Vec::with_capacity(self.runs.len()),
            keys: own_keys(&self.keys),
            former: Vec::new(),
            blocked: self.blocked,
            refused: 0,
            verified: 0,
        };
        let mut chains: BTreeMap<(AgentId, u64), Vec<Claim>> = BTreeMap::new();
        let mut end = 0;
        for stored in self.runs {
            let Ok(run) = RunIn::decode(stored.run) else {
                restored.refused += 1;
                continue;
            };
            let body = run.body();
            let after = stored.position.saturating_add(body.entries().len() as u64);
            let placed = stored.position >= end && after <= self.end;
            if body.network != network || body.topic != topic || !placed {
                restored.refused += 1;
                continue;
            }
            end = after;
            let chain = (body.author, body.epoch);
            let claim = Claim {
                position: stored.position,
                missed: stored.missed,
                begins: stored.begins,
                run,
            };
            chains.entry(chain).or_default().push(claim);
        }
        for ((author, _), claims) in &mut chains {
            restored.chain(author, std::mem::take(claims));
        }
        restored.runs.sort_unstable_by_key(|run| run.position);
        let retained = |chain: &StoredChain| chains.contains_key(&(chain.author, chain.epoch));
        restored.former = self.chains.into_iter().filter(|chain| !retained(chain)).collect();
        restored
    }
}

impl RestoredTopic {
    /// The topic.
    #[must_use]
    pub const fn topic(&self) -> TopicId {
        self.topic
    }

    /// Runs that were left out, since they do not check.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Runs that did check.
    #[must_use]
    pub const fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Takes over one chain, from its newest run backwards.
    fn chain(&mut self, author: &AgentId, claims: Vec<Claim>) {
        let Some(key) = self.keys.get(author).cloned() else {
            self.refused += claims.len() as u64;
            return;
        };
        let mut kept: Vec<RestoredRun> = Vec::with_capacity(claims.len());
        // Where those end that are refused before the first that is kept: no later run tells of them.
        let mut untold = None;
        for claim in claims.into_iter().rev() {
            let Claim { position, missed, begins, run } = claim;
            let end = position.saturating_add(run.body().entries().len() as u64);
            match self.vouched(run, kept.last(), &key) {
                Some(run) => {
                    untold = None;
                    kept.push(RestoredRun { position, missed, begins, run: Arc::new(run) });
                }
                None => {
                    self.refused += 1;
                    untold = untold.max((!kept.is_empty()).then_some(end));
                }
            }
        }
        self.gone = self.gone.max(untold.unwrap_or(0));
        kept.reverse();
        let mut head = None;
        for held in &mut kept {
            let first = held.run.body().first_seq();
            if let Some(head) = head {
                held.missed = (first - 1).saturating_sub(head);
                held.begins = false;
            }
            head = Some(held.run.body().last_seq());
        }
        self.runs.append(&mut kept);
    }

    /// A run that the one after it or its own signature vouches for.
    fn vouched(&mut self, run: RunIn, next: Option<&RestoredRun>, key: &PublicKey) -> Option<Run> {
        if let Some(next) = next.map(|next| next.run.body()) {
            let body = run.body();
            if body.last_seq() >= next.first_seq || body.last_time() >= next.first_time() {
                return None;
            }
            if body.last_seq() + 1 == next.first_seq {
                let hash = body.last_hash();
                return (hash == next.prev).then(|| run.seal(hash, 0).ok()).flatten();
            }
        }
        self.verified += 1;
        run.verify(key).ok()
    }
}

/// The keys that belong to the authors they are stored for.
fn own_keys(stored: &[(AgentId, bytes::Bytes)]) -> BTreeMap<AgentId, PublicKey> {
    let keys = stored.iter().filter_map(|(author, key)| {
        let key = PublicKey::from_bytes(key).ok()?;
        (key.agent_id() == *author).then_some((*author, key))
    });
    keys.collect()
}

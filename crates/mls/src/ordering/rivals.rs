//! Which of the commits of one state stands.
//!
//! Commits are ordered by rank, then by id. An id can be sought, so that the order alone would let a
//! removed member undo its removal: it still holds the state before. Hence a commit falls, whatever
//! its rank and id, when a rival that does not fall itself removes its author. Of two that remove each
//! other's author, the one of the better rank keeps its ground, then the one whose author has the
//! lower leaf: neither can be sought afterwards. This is the grounded labelling of an argumentation
//! framework (Dung 1995); commits in a ring, where no answer is forced, do not fall.

use std::collections::{BTreeMap, BTreeSet};

use x0x_core::AgentId;

use super::{CommitId, StateId};

/// Ranks below this are of commits that remove somebody; a policy orders the authors within.
pub const RANK_OTHER: u32 = 1 << 8;
/// The last rank: of those who join by a commit of their own.
pub const RANK_LAST: u32 = (1 << 9) - 1;

/// Rank and id.
pub(super) type Key = (u32, CommitId);

/// What is known of a commit once it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// Who made it.
    pub author: AgentId,
    /// The author's leaf in the state in which it was made; [`u32::MAX`] of who had none.
    pub seat: u32,
    /// Whom it removes, other than its author.
    pub removes: BTreeSet<AgentId>,
}

impl Facts {
    /// Of a commit; that an author removes itself, to join again, is no matter of rivals.
    #[must_use]
    pub fn new(author: AgentId, seat: u32, removes: impl IntoIterator<Item = AgentId>) -> Self {
        let removes = removes.into_iter().filter(|agent| *agent != author).collect();
        Self { author, seat, removes }
    }
}

/// A commit that verified.
#[derive(Debug, Clone)]
pub(super) struct Rival {
    pub(super) child: StateId,
    pub(super) facts: Facts,
}

/// Whether the first brings the second down.
fn defeats(one: (&Key, &Rival), other: (&Key, &Rival)) -> bool {
    let (a, b) = (&one.1.facts, &other.1.facts);
    let holds = b.removes.contains(&a.author) && (other.0.0, b.seat) < (one.0.0, a.seat);
    a.removes.contains(&b.author) && !holds
}

/// Of each, in order, whether it falls.
pub(super) fn fallen(rivals: &BTreeMap<Key, Rival>) -> Vec<bool> {
    let attackers: Vec<Vec<usize>> = rivals
        .iter()
        .map(|other| {
            let all = rivals.iter().enumerate();
            all.filter(|(_, one)| defeats(*one, other)).map(|(n, _)| n).collect()
        })
        .collect();
    let mut label: Vec<Option<bool>> = vec![None; attackers.len()];
    loop {
        let mut changed = false;
        for (n, by) in attackers.iter().enumerate() {
            if label[n].is_some() {
                continue;
            }
            if by.iter().any(|one| label[*one] == Some(false)) {
                label[n] = Some(true);
            } else if by.iter().all(|one| label[*one] == Some(true)) {
                label[n] = Some(false);
            }
            changed |= label[n].is_some();
        }
        if !changed {
            return label.into_iter().map(|fell| fell == Some(true)).collect();
        }
    }
}

/// The one that stands. It removes somebody if any of them does.
pub(super) fn winner(rivals: &BTreeMap<Key, Rival>) -> Option<Key> {
    let fallen = fallen(rivals);
    rivals.keys().zip(fallen).find(|(_, fell)| !fell).map(|(key, _)| *key)
}

/// The one to be remembered no longer: one that fell, else the last; never the one that stands.
pub(super) fn dispensable(rivals: &BTreeMap<Key, Rival>, stands: Option<CommitId>) -> Option<Key> {
    let fallen = fallen(rivals);
    let others = rivals.keys().zip(fallen).filter(|(key, _)| Some(key.1) != stands);
    others.max_by_key(|(key, fell)| (*fell, **key)).map(|(key, _)| *key)
}

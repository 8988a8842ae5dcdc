//! Which MLS commits are allowed: those that make the group's members what its state says.
//!
//! A commit is stamped with the operations that it rests on, and is judged by what follows from them, on
//! every member alike; not by what a member happens to know when it comes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use prost::Message;
use x0x_core::{DecodeError, decode_bounded, fixed_bytes};
use x0x_mls::{CommitFacts, CommitPolicy, GroupId as MlsId, MAX_AAD, Verdict};

use crate::{
    limits::MAX_PARENTS,
    policy::Role,
    state::{Chain, View},
    wire::{GroupId, OpId},
};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StampWire {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    heads: Vec<Bytes>,
}

/// The stamp of a commit that rests on these operations.
#[must_use]
pub fn stamp(heads: &[OpId]) -> Vec<u8> {
    let heads = heads.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect();
    StampWire { heads }.encode_to_vec()
}

/// The operations that a stamp names.
///
/// # Errors
/// [`DecodeError`] when it is malformed, or names none or too many.
pub fn read_stamp(bytes: &[u8]) -> Result<Vec<OpId>, DecodeError> {
    let wire: StampWire = decode_bounded(bytes, MAX_AAD)?;
    if wire.heads.is_empty() || wire.heads.len() > MAX_PARENTS {
        return Err(DecodeError::Field("heads"));
    }
    wire.heads.iter().map(|id| fixed_bytes(id, "heads").map(OpId::new)).collect()
}

#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) chains: BTreeMap<GroupId, Chain>,
    pub(crate) by_keys: BTreeMap<MlsId, GroupId>,
}

impl Known {
    /// Whether keys are a group's. They are the first's that named them: whoever knows their id can name them in
    /// the state of another group, which then would say who is in this one.
    pub(crate) fn claim(&mut self, keys: MlsId, group: GroupId) -> bool {
        *self.by_keys.entry(keys).or_insert(group) == group
    }
}

/// The states of an agent's groups, shared with the policy of its encrypted groups.
#[derive(Debug, Clone, Default)]
pub struct Chains(Arc<Mutex<Known>>);

impl Chains {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policy to be [set](x0x_mls::Groups::set_policy). Groups that have no state here are left to
    /// their members.
    #[must_use]
    pub fn policy(&self) -> Box<dyn CommitPolicy> {
        Box::new(RolePolicy(self.clone()))
    }

    /// What follows from a group's operations.
    #[must_use]
    pub fn view(&self, group: GroupId) -> Option<Arc<View>> {
        self.lock().chains.get(&group).map(|chain| Arc::clone(chain.view()))
    }
}

struct RolePolicy(Chains);

impl CommitPolicy for RolePolicy {
    fn allows(&self, commit: &CommitFacts<'_>) -> bool {
        self.judge(commit) == Verdict::Allow
    }

    fn judge(&self, commit: &CommitFacts<'_>) -> Verdict {
        let known = self.0.lock();
        let Some(chain) = known.by_keys.get(&commit.group).and_then(|id| known.chains.get(id))
        else {
            let member = commit.members.contains(&commit.by);
            return if member { Verdict::Allow } else { Verdict::Refuse };
        };
        let Ok(heads) = read_stamp(commit.stamp) else { return Verdict::Refuse };
        match chain.view_at(&heads) {
            None => Verdict::NotYet,
            Some(view) if follows(&view, commit) => Verdict::Allow,
            Some(_) => Verdict::Refuse,
        }
    }

    fn seniority(&self, commit: &CommitFacts<'_>) -> u8 {
        let known = self.0.lock();
        let chain = known.by_keys.get(&commit.group).and_then(|id| known.chains.get(id));
        let view = chain.and_then(|chain| chain.view_at(&read_stamp(commit.stamp).ok()?));
        let role = view.and_then(|view| view.role(&commit.by));
        role.map_or(u8::MAX, |role| role.code() as u8)
    }
}

/// Whether a commit adds nobody but who is in the group, and removes nobody that is.
fn follows(view: &View, commit: &CommitFacts<'_>) -> bool {
    let Some(role) = view.role(&commit.by) else { return false };
    let others_added = commit.added.iter().any(|agent| *agent != commit.by);
    let others_removed = commit.removed.iter().any(|agent| *agent != commit.by);
    view.mls_group == Some(commit.group)
        && !view.withdrawn
        && (role <= Role::Member || !(others_added || others_removed))
        && commit.added.iter().all(|agent| view.role(agent).is_some())
        && commit
            .removed
            .iter()
            .all(|agent| view.role(agent).is_none() || (commit.joins && *agent == commit.by))
}

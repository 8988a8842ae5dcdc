//! The state of a group: the set of its operations, and what follows from it.
//!
//! Operations arrive in any order. One whose parents are not here waits, and [`Chain::missing`] names
//! them. What follows from those that are here is a function of their set: see `state/resolve.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};
use x0x_identity::SecretKey;
use x0x_mls::GroupId as MlsId;

mod act;
mod place;
mod resolve;
mod view;

#[cfg(test)]
mod tests;

#[cfg(feature = "tokio")]
pub(crate) use act::USED_UP;
pub use view::{Invite, Member, MemberState, Request, RequestState, View};

use crate::{
    error::OfferError,
    limits::{MAX_OPERATIONS, MAX_PARENTS, MAX_UNVOUCHED, MAX_WAITING},
    policy::{GroupPolicy, Role},
    wire::{Action, GroupId, OpId, Operation, OperationBody, Profile},
};
use place::Places;

/// The operation that founds a group; its hash is the group's id.
#[must_use]
pub fn found(
    key: &SecretKey,
    nonce: [u8; 32],
    policy: GroupPolicy,
    profile: Profile,
    mls_group: Option<MlsId>,
    display_name: &str,
    at: WallTime,
) -> Operation {
    let (author, display_name) = (key.public_key().agent_id(), display_name.to_owned());
    let action = Action::Found { nonce, policy, profile, mls_group, display_name };
    let (parents, role) = (Vec::new(), Some(Role::Owner));
    OperationBody { group: None, author, parents, height: 0, at, role, action }.sign(key)
}

/// What became of an operation that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offered {
    /// It is among the group's, and with it as many that waited for it.
    Taken(usize),
    /// It waits for its parents.
    Waiting,
    /// It is here already.
    Known,
}

/// An operation among the group's.
#[derive(Debug, Clone)]
struct Held {
    operation: Operation,
    /// Those that it builds upon, directly or not.
    before: Places,
    /// Whether another author built upon it.
    vouched: bool,
}

/// The operations of one group.
#[derive(Debug, Clone)]
pub struct Chain {
    group: GroupId,
    held: Vec<Held>,
    index: BTreeMap<OpId, usize>,
    heads: BTreeSet<OpId>,
    waiting: BTreeMap<OpId, (u64, Operation)>,
    arrivals: u64,
    view: Arc<View>,
}

impl Chain {
    /// Begins with the operation that founds the group; none if it founds nothing.
    #[must_use]
    pub fn new(genesis: Operation) -> Option<Self> {
        if genesis.body.group.is_some() {
            return None;
        }
        let id = genesis.id;
        let mut chain = Self {
            group: genesis.group(),
            held: vec![Held { operation: genesis, before: Places::default(), vouched: true }],
            index: BTreeMap::from([(id, 0)]),
            heads: BTreeSet::from([id]),
            waiting: BTreeMap::new(),
            arrivals: 0,
            view: Arc::default(),
        };
        chain.view = Arc::new(resolve::resolve(&chain, None));
        Some(chain)
    }

    /// The group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// The operation that founds it.
    #[must_use]
    pub fn genesis(&self) -> &Operation {
        &self.held[0].operation
    }

    /// The owner's operation that made an agent an admin, the last one.
    #[must_use]
    pub fn appointment(&self, agent: &AgentId) -> Option<&Operation> {
        let all = self.held.iter().map(|held| &held.operation);
        let made = all.filter(|operation| {
            operation.body.role == Some(Role::Owner)
                && matches!(&operation.body.action,
                    Action::SetRole { agent: to, role: Role::Admin } if to == agent)
        });
        made.max_by_key(|operation| (operation.body.height, operation.id))
    }

    /// What follows from all operations that are here.
    #[must_use]
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The operations that no other builds upon.
    pub fn heads(&self) -> impl Iterator<Item = OpId> + '_ {
        self.heads.iter().copied()
    }

    /// What a new operation names as its parents: the heads, the highest first if they are too many.
    #[must_use]
    pub fn parents(&self) -> Vec<OpId> {
        let mut heads: Vec<(u32, OpId)> = self
            .heads
            .iter()
            .map(|id| (self.held[self.index[id]].operation.body.height, *id))
            .collect();
        heads.sort_unstable_by_key(|(height, id)| (std::cmp::Reverse(*height), *id));
        let mut parents: Vec<OpId> =
            heads.into_iter().take(MAX_PARENTS).map(|(_, id)| id).collect();
        parents.sort_unstable();
        parents
    }

    /// The height of an operation that builds upon these.
    pub(crate) fn height_after(&self, parents: &[OpId]) -> u32 {
        let heights = parents.iter().filter_map(|id| self.get(id)).map(|held| held.body.height);
        heights.max().unwrap_or(0) + 1
    }

    /// An operation that is here.
    #[must_use]
    pub fn get(&self, id: &OpId) -> Option<&Operation> {
        self.index.get(id).map(|place| &self.held[*place].operation)
    }

    /// Operations here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Never: a group has the operation that founds it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Parents that are waited for, to be asked for.
    #[must_use]
    pub fn missing(&self) -> BTreeSet<OpId> {
        let parents = self.waiting.values().flat_map(|(_, operation)| &operation.body.parents);
        let unknown = |id: &&OpId| !self.index.contains_key(id) && !self.waiting.contains_key(id);
        parents.filter(unknown).copied().collect()
    }

    /// The operations that somebody lacks who has these and all that they build upon, in an order in which
    /// they can be taken.
    #[must_use]
    pub fn since(&self, heads: &[OpId]) -> Vec<Bytes> {
        let mut has = Places::default();
        for place in heads.iter().filter_map(|id| self.index.get(id)) {
            has.insert(*place);
            has.extend(&self.held[*place].before);
        }
        let lacking = self.held.iter().enumerate().filter(|(place, _)| !has.contains(*place));
        lacking.map(|(_, held)| held.operation.encoded().clone()).collect()
    }

    /// Operations in the order in which they were taken, but for the first ones: none builds upon a later one.
    pub(crate) fn taken_after(&self, count: usize) -> impl Iterator<Item = &Bytes> {
        self.held.iter().skip(count).map(|held| held.operation.encoded())
    }

    /// What follows from these operations and all that they build upon; none if one is not here.
    #[must_use]
    pub fn view_at(&self, heads: &[OpId]) -> Option<Arc<View>> {
        if heads.len() == self.heads.len() && heads.iter().all(|id| self.heads.contains(id)) {
            return Some(Arc::clone(&self.view));
        }
        let mut seen = Places::default();
        for id in heads {
            let place = *self.index.get(id)?;
            seen.insert(place);
            seen.extend(&self.held[place].before);
        }
        Some(Arc::new(resolve::resolve(self, Some(&seen))))
    }

    /// Takes an operation, and those that waited for it.
    ///
    /// # Errors
    /// [`OfferError`] when it never can be taken, or a limit is reached.
    pub fn offer(&mut self, operation: Operation) -> Result<Offered, OfferError> {
        let offered = self.place(operation);
        if matches!(offered, Ok(Offered::Taken(_))) {
            self.view = Arc::new(resolve::resolve(self, None));
        }
        offered
    }

    /// Takes many, and judges them once. Those that were taken or wait; others are left out.
    pub fn offer_all(&mut self, operations: impl IntoIterator<Item = Operation>) -> Vec<OpId> {
        let mut taken = Vec::new();
        for operation in operations {
            let id = operation.id;
            if matches!(self.place(operation), Ok(Offered::Taken(_) | Offered::Waiting)) {
                taken.push(id);
            }
        }
        self.view = Arc::new(resolve::resolve(self, None));
        taken
    }

    fn place(&mut self, operation: Operation) -> Result<Offered, OfferError> {
        if operation.group() != self.group {
            return Err(OfferError::OtherGroup);
        }
        if self.index.contains_key(&operation.id) {
            return Ok(Offered::Known);
        }
        if operation.body.parents.iter().any(|id| !self.index.contains_key(id)) {
            return Ok(self.wait(operation));
        }
        if let Err(error) = self.check(&operation) {
            // What an author has too much of is taken when another builds upon it.
            if matches!(error, OfferError::Limit(_)) && self.held.len() < MAX_OPERATIONS {
                self.wait(operation);
            }
            return Err(error);
        }
        self.insert(operation);
        let mut taken = 1;
        while let Some(next) = self.next_ready() {
            let Some((_, operation)) = self.waiting.remove(&next) else { break };
            if self.held.len() < MAX_OPERATIONS && self.fits(&operation) {
                self.insert(operation);
                taken += 1;
            }
        }
        Ok(Offered::Taken(taken))
    }

    /// One that waits and can be taken now.
    fn next_ready(&self) -> Option<OpId> {
        // The first by id: which of an author's that are too many is taken depends on the order they came
        // in, until another builds upon them.
        let ready = self.waiting.values().map(|(_, operation)| operation).find(|operation| {
            operation.body.parents.iter().all(|id| self.index.contains_key(id))
                && (self.unvouched(&operation.body.author) < MAX_UNVOUCHED
                    || self.is_built_upon(operation))
        });
        ready.map(|operation| operation.id)
    }

    fn is_built_upon(&self, by: &Operation) -> bool {
        self.waiting.values().any(|(_, other)| {
            other.body.author != by.body.author && other.body.parents.contains(&by.id)
        })
    }

    fn wait(&mut self, operation: Operation) -> Offered {
        self.arrivals += 1;
        if self.waiting.insert(operation.id, (self.arrivals, operation)).is_some() {
            return Offered::Known;
        }
        if self.waiting.len() > MAX_WAITING {
            let oldest = self.waiting.iter().min_by_key(|(_, (arrival, _))| *arrival);
            if let Some(id) = oldest.map(|(id, _)| *id) {
                self.waiting.remove(&id);
            }
        }
        // It may be what lets another of its author be taken.
        Offered::Waiting
    }

    /// Operations of an author that no other author has built upon.
    fn unvouched(&self, author: &AgentId) -> usize {
        let theirs = |held: &&Held| !held.vouched && held.operation.body.author == *author;
        self.held.iter().filter(theirs).count()
    }

    fn check(&self, operation: &Operation) -> Result<(), OfferError> {
        if !self.fits(operation) {
            return Err(OfferError::Shape);
        }
        if self.held.len() >= MAX_OPERATIONS {
            return Err(OfferError::Limit("operations of a group"));
        }
        if self.unvouched(&operation.body.author) >= MAX_UNVOUCHED && !self.is_built_upon(operation)
        {
            return Err(OfferError::Limit("operations of an author"));
        }
        Ok(())
    }

    /// Whether its height is what its parents make it, and none of them comes before another.
    fn fits(&self, operation: &Operation) -> bool {
        let parents = &operation.body.parents;
        let before = |one: &OpId, other: &OpId| {
            self.held[self.index[other]].before.contains(self.index[one])
        };
        let apart = parents.iter().all(|one| !parents.iter().any(|other| before(one, other)));
        apart && operation.body.height == self.height_after(parents)
    }

    fn insert(&mut self, operation: Operation) {
        let place = self.held.len();
        let mut before = Places::default();
        for parent in &operation.body.parents {
            let at = self.index[parent];
            before.insert(at);
            before.extend(&self.held[at].before);
            self.heads.remove(parent);
        }
        // Whatever another author has seen is its author's to answer for no more alone.
        for (at, held) in self.held.iter_mut().enumerate() {
            if !held.vouched
                && held.operation.body.author != operation.body.author
                && before.contains(at)
            {
                held.vouched = true;
            }
        }
        self.heads.insert(operation.id);
        self.index.insert(operation.id, place);
        self.held.push(Held { operation, before, vouched: false });
    }
}

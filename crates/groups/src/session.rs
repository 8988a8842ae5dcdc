//! The named groups of one agent: their state and their keys, held together.
//!
//! The state says who is in a group; this makes the members of its keys the same. Whoever changes the state
//! commits at once; what an agent cannot commit itself, as its own leaving, any other member completes.
//! Nothing is sent to who is not in the group any more.
//!
//! It is synchronous and knows no clock: what is to be published collects in
//! [`take_outgoing`](NamedGroups::take_outgoing).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};
use x0x_identity::SecretKey;
use x0x_mls::{
    Committed, GroupId as MlsId, Groups, MlsGroups, MlsStore, Suite, VerifiedKeyPackage,
    ordering::Standing,
};

mod enter;
mod keep;
mod receive;
mod sealed;
mod sent;

pub use keep::Unsaved;
pub use sealed::{SEALED_NONCE, Sealed};
use sent::Sent;
pub use sent::Spoken;

use crate::{
    blind::Log,
    commit::{Chains, stamp},
    error::{ActError, OfferError, SessionError},
    policy::{GroupPolicy, Role},
    state::{Chain, View, found},
    wall::Wall,
    wire::{Action, GroupId, Handover, LogItem, MemberItem, OpId, Operation, Profile},
};

/// Frames and messages of a group that wait for what they rest on; the oldest goes first.
pub const MAX_HELD: usize = 256;
/// What happened in a group that its caller was not told yet, since the call failed.
pub const MAX_UNTOLD: usize = 4096;
/// Own items of a group that are kept to be sent again when the epoch they were sent in falls.
pub const MAX_SENT: usize = 256;
/// Messages of a group that are remembered so that none is shown twice.
pub const MAX_SEEN: usize = 4096;
/// Items that wait to be published; more are refused.
pub const MAX_OUTGOING: usize = 4096;

/// An item that waits for what it rests on.
struct Held {
    item: LogItem,
    /// The epoch that it was made in, of which nothing is known here.
    epoch: Option<u64>,
}

struct Slot {
    keys: Option<MlsId>,
    log: Log,
    outgoing: VecDeque<(Option<u64>, Bytes)>,
    handovers: Vec<(AgentId, Handover)>,
    held: VecDeque<Held>,
    /// What happened in calls that then failed.
    untold: VecDeque<Happened>,
    packages: BTreeMap<AgentId, VerifiedKeyPackage>,
    sent: Vec<Sent>,
    /// What was sent in epochs that fell.
    again: VecDeque<Vec<u8>>,
    seen: BTreeSet<(AgentId, [u8; 16])>,
    seen_order: VecDeque<(AgentId, [u8; 16])>,
    wall: Wall,
    /// Operations that are written down.
    saved: usize,
}

/// What happened in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happened {
    /// Operations came: the state may be another.
    State {
        /// The one that came in; others may have waited for it.
        operation: OpId,
    },
    /// A member wrote.
    Text {
        /// In MLS' journal: acknowledge it once the text is safe.
        journal: u64,
        /// Who.
        author: AgentId,
        /// In which room; empty for the first.
        room: String,
        /// Its author's name for it.
        id: [u8; 16],
        /// What.
        payload: Bytes,
    },
    /// A public message is shown.
    Message {
        /// Its id.
        id: [u8; 32],
        /// Who wrote it.
        author: AgentId,
    },
    /// The group has other keys.
    Epoch {
        /// The epoch now.
        epoch: u64,
    },
    /// This agent is not among the members any more.
    Out,
    /// A member wrote something of which this agent has no keys any more, or never had: see
    /// [`Event::Expired`](x0x_mls::Event::Expired).
    Unreadable {
        /// The epoch in which it was written.
        epoch: u64,
    },
    /// Something was refused: its author is at fault.
    Refused,
}

/// The named groups of one agent.
pub struct NamedGroups<M> {
    mls: M,
    key: Arc<SecretKey>,
    chains: Chains,
    slots: BTreeMap<GroupId, Slot>,
    /// What members said of the state, in MLS' journal until the state is written down.
    read: Vec<u64>,
    forgotten: Vec<GroupId>,
    /// Own texts whose records are to be written or deleted.
    spoken: Vec<Spoken>,
    /// Keys of groups that were put down.
    useless: Vec<MlsId>,
}

impl<M> fmt::Debug for NamedGroups<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedGroups").field("groups", &self.slots.len()).finish_non_exhaustive()
    }
}

impl<S: MlsStore> NamedGroups<Groups<S>> {
    /// Over the encrypted groups of the agent, whose policy it sets.
    #[must_use]
    pub fn over(mut mls: Groups<S>, key: Arc<SecretKey>) -> Self {
        let chains = Chains::default();
        mls.set_policy(chains.policy());
        Self {
            mls,
            key,
            chains,
            slots: BTreeMap::new(),
            read: Vec::new(),
            forgotten: Vec::new(),
            spoken: Vec::new(),
            useless: Vec::new(),
        }
    }
}

impl<M: MlsGroups> NamedGroups<M> {
    /// The groups' states.
    #[must_use]
    pub const fn chains(&self) -> &Chains {
        &self.chains
    }

    /// The encrypted groups.
    pub const fn mls(&mut self) -> &mut M {
        &mut self.mls
    }

    /// This agent.
    #[must_use]
    pub fn agent(&self) -> AgentId {
        self.key.public_key().agent_id()
    }

    /// The state of a group.
    ///
    /// # Errors
    /// [`ActError::Target`] when it is not here.
    pub fn view(&self, group: GroupId) -> Result<Arc<View>, SessionError> {
        self.chains.view(group).ok_or(UNKNOWN)
    }

    /// The log of a group.
    ///
    /// # Errors
    /// As [`view`](Self::view).
    pub fn log(&self, group: GroupId) -> Result<&Log, SessionError> {
        Ok(&self.slots.get(&group).ok_or(UNKNOWN)?.log)
    }

    /// Founds a group.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn found(
        &mut self,
        policy: GroupPolicy,
        profile: Profile,
        nonce: [u8; 32],
        display_name: &str,
        now: WallTime,
    ) -> Result<GroupId, SessionError> {
        if !policy.is_consistent() {
            return Err(ActError::Policy("the axes do not agree").into());
        }
        if !profile.is_valid() {
            return Err(ActError::Text("name").into());
        }
        let keys = if policy.is_encrypted() { Some(self.mls.create(Suite::Hybrid)?) } else { None };
        let genesis = found(&self.key, nonce, policy, profile, keys, display_name, now);
        let item = LogItem::Operation(genesis.encoded().clone());
        let chain = Chain::new(genesis).ok_or(UNKNOWN)?;
        let group = self.insert(chain, keys)?;
        if keys.is_none() {
            self.publish(group, None, &item)?;
        }
        Ok(group)
    }

    /// Keeps a group.
    fn insert(&mut self, chain: Chain, keys: Option<MlsId>) -> Result<GroupId, SessionError> {
        let group = chain.group();
        let founded = chain.view_at(&[chain.genesis().id]).ok_or(UNKNOWN)?;
        let log = Log::of(&founded).ok_or(UNKNOWN)?;
        let mut slot = Slot {
            keys: None,
            log,
            outgoing: VecDeque::new(),
            handovers: Vec::new(),
            held: VecDeque::new(),
            untold: VecDeque::new(),
            packages: BTreeMap::new(),
            sent: Vec::new(),
            again: VecDeque::new(),
            seen: BTreeSet::new(),
            seen_order: VecDeque::new(),
            wall: Wall::new(group),
            saved: 0,
        };
        let mut known = self.chains.lock();
        slot.keys = keys.filter(|keys| known.claim(*keys, group));
        known.chains.insert(group, chain);
        drop(known);
        self.slots.insert(group, slot);
        Ok(group)
    }

    fn slot(&mut self, group: GroupId) -> Result<&mut Slot, SessionError> {
        self.slots.get_mut(&group).ok_or(UNKNOWN)
    }

    fn publish(
        &mut self,
        group: GroupId,
        journal: Option<u64>,
        item: &LogItem,
    ) -> Result<(), SessionError> {
        let slot = self.slot(group)?;
        if slot.outgoing.len() >= MAX_OUTGOING {
            return Err(ActError::Limit("items to be published").into());
        }
        let sealed = slot.log.seal(item).ok_or(SessionError::Sealed)?;
        slot.outgoing.push_back((journal, sealed));
        Ok(())
    }

    /// What is to be published in the group's log, with the numbers by which MLS' journal knows it: to be
    /// acknowledged once the bytes are safe.
    pub fn take_outgoing(&mut self, group: GroupId) -> Vec<(Option<u64>, Bytes)> {
        self.slots.get_mut(&group).map(|slot| slot.outgoing.drain(..).collect()).unwrap_or_default()
    }

    /// What is to be handed to those that were added.
    pub fn take_handovers(&mut self, group: GroupId) -> Vec<(AgentId, Handover)> {
        self.slots
            .get_mut(&group)
            .map(|slot| std::mem::take(&mut slot.handovers))
            .unwrap_or_default()
    }

    /// Changes the state of a group, and its keys with it.
    ///
    /// # Errors
    /// [`SessionError::Act`] when this agent may not.
    pub fn act(
        &mut self,
        group: GroupId,
        action: Action,
        now: WallTime,
    ) -> Result<OpId, SessionError> {
        let operation = self.state(group, action, now)?;
        let id = operation.id;
        let joins = operation.body.role.is_none();
        match self.slot(group)?.keys.filter(|_| !joins) {
            // Before it is taken: who leaves may not say so afterwards.
            Some(keys) => {
                let item = MemberItem::Operation(operation.encoded().clone()).encode();
                self.say(group, keys, item)?;
            }
            None => {
                let item = LogItem::Operation(operation.encoded().clone());
                self.publish(group, None, &item)?;
            }
        }
        self.take_operation(group, operation)?;
        self.follow(group)?;
        Ok(id)
    }

    fn state(
        &self,
        group: GroupId,
        action: Action,
        now: WallTime,
    ) -> Result<Operation, SessionError> {
        let known = self.chains.lock();
        let chain = known.chains.get(&group).ok_or(UNKNOWN)?;
        Ok(chain.prepare(self.agent(), now, action)?.sign(&self.key))
    }

    fn take_operation(&mut self, group: GroupId, operation: Operation) -> Result<bool, OfferError> {
        let mut known = self.chains.lock();
        let Some(chain) = known.chains.get_mut(&group) else { return Ok(false) };
        let offered = chain.offer(operation)?;
        drop(known);
        self.hold_keys(group);
        Ok(matches!(offered, crate::state::Offered::Taken(_)))
    }

    /// Goes by the keys that the state names.
    fn hold_keys(&mut self, group: GroupId) {
        let mut known = self.chains.lock();
        let named = known.chains.get(&group).and_then(|chain| chain.view().mls_group);
        if let Some(slot) = self.slots.get_mut(&group)
            && slot.keys != named
        {
            slot.keys = named.filter(|keys| known.claim(*keys, group));
        }
    }

    /// Sets the policy of a group. One that becomes encrypted has new keys, into which the others come by
    /// what [`invitation`](Self::invitation) gives them.
    ///
    /// # Errors
    /// [`SessionError::Act`] when this agent may not.
    pub fn set_policy(
        &mut self,
        group: GroupId,
        policy: GroupPolicy,
        now: WallTime,
    ) -> Result<OpId, SessionError> {
        let view = self.view(group)?;
        if view.role(&self.agent()) != Some(Role::Owner) {
            return Err(ActError::Role("owner role required").into());
        }
        let mls_group = match view.mls_group {
            Some(keys) if policy.is_encrypted() => Some(keys),
            None if policy.is_encrypted() => Some(self.mls.create(Suite::Hybrid)?),
            _ => None,
        };
        self.act(group, Action::SetPolicy { policy, mls_group }, now)
    }

    fn heads_stamp(&self, group: GroupId) -> Vec<u8> {
        let known = self.chains.lock();
        known.chains.get(&group).map(|chain| stamp(&chain.parents())).unwrap_or_default()
    }

    /// Sends a message to the members of an encrypted group. `id` is this agent's own name for it, random.
    ///
    /// # Errors
    /// [`SessionError::Act`] when this agent may not write.
    pub fn send(
        &mut self,
        group: GroupId,
        room: &str,
        id: [u8; 16],
        payload: Bytes,
    ) -> Result<(), SessionError> {
        let view = self.view(group)?;
        let keys = self.slot(group)?.keys.ok_or(ActError::Policy("group is not MlsEncrypted"))?;
        let role = view.role(&self.agent()).ok_or(ActError::Role("not a member"))?;
        if view.withdrawn {
            return Err(ActError::Withdrawn.into());
        }
        if view.policy.is_none_or(|policy| !policy.may_write(Some(role))) {
            return Err(ActError::Role("the group's write policy").into());
        }
        if view.rooms.get(room).is_some_and(|room| room.closed) {
            return Err(ActError::Policy("the room is closed").into());
        }
        self.follow(group)?;
        let item = MemberItem::Text { room: room.to_owned(), id, payload }.encode();
        self.say(group, keys, item)
    }

    /// Gives this agent fresh keys in a group.
    ///
    /// # Errors
    /// [`SessionError::Mls`].
    pub fn refresh(&mut self, group: GroupId, keys: MlsId) -> Result<(), SessionError> {
        let rests_on = self.heads_stamp(group);
        self.mls.stamp(keys, &rests_on)?;
        let made = self.mls.refresh(keys)?;
        self.publish(group, Some(made.id), &LogItem::Frame(made.frame))
    }

    /// Whom the keys have too many and too few, as the state says.
    ///
    /// # Errors
    /// [`SessionError`] when the group is not here.
    pub fn difference(
        &mut self,
        group: GroupId,
    ) -> Result<(Vec<AgentId>, Vec<AgentId>), SessionError> {
        let view = self.view(group)?;
        let Some(keys) = self.slot(group)?.keys else { return Ok(Default::default()) };
        let members = self.with_keys(keys)?;
        let active: BTreeSet<AgentId> = view.active().map(|(agent, _)| agent).collect();
        let many = members.difference(&active).copied().collect();
        Ok((many, active.difference(&members).copied().collect()))
    }

    /// Who has the keys; nobody while they are not here.
    fn with_keys(&mut self, keys: MlsId) -> Result<BTreeSet<AgentId>, SessionError> {
        match self.mls.members(keys) {
            Ok((_, members)) => Ok(members.into_iter().collect()),
            Err(x0x_mls::GroupError::Unknown) => Ok(BTreeSet::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the members of the keys those of the state, as far as this agent can. Whoever changes the state
    /// does it at once; the others when it is still to be done after a while, by [`turn`](Self::turn).
    ///
    /// # Errors
    /// [`SessionError::Mls`].
    pub fn follow(&mut self, group: GroupId) -> Result<(), SessionError> {
        let (view, own) = (self.view(group)?, self.agent());
        let Some(keys) = self.slot(group)?.keys else { return Ok(()) };
        let may = view.role(&own).is_some_and(|role| role <= Role::Member) && !view.withdrawn;
        if !may || !self.with_keys(keys)?.contains(&own) {
            return Ok(());
        }
        let (many, few) = self.difference(group)?;
        let slot = self.slot(group)?;
        let packages: Vec<VerifiedKeyPackage> =
            few.iter().filter_map(|agent| slot.packages.remove(agent)).collect();
        if many.is_empty() && packages.is_empty() {
            return self.say_again(group);
        }
        let added: Vec<AgentId> = packages.iter().map(|package| package.agent).collect();
        let rests_on = self.heads_stamp(group);
        self.mls.stamp(keys, &rests_on)?;
        let made = self.mls.commit(keys, packages, &many)?;
        self.hand_over(group, &added, made)?;
        self.say_again(group)
    }

    fn hand_over(
        &mut self,
        group: GroupId,
        added: &[AgentId],
        made: Committed,
    ) -> Result<(), SessionError> {
        self.publish(group, Some(made.commit.id), &LogItem::Frame(made.commit.frame.clone()))?;
        let Some(welcome) = made.welcome else { return Ok(()) };
        let operations = self.chains.lock().chains.get(&group).map(|chain| chain.since(&[]));
        let handover = Handover {
            operations: operations.unwrap_or_default(),
            welcome,
            info: Bytes::new(),
            tree: made.tree.unwrap_or_default(),
        };
        let slot = self.slot(group)?;
        slot.handovers.extend(added.iter().map(|agent| (*agent, handover.clone())));
        Ok(())
    }

    /// How many members come before this agent when something is left to be done; none if it is not its
    /// business. Each waits a while longer than those before it.
    #[must_use]
    pub fn turn(&self, group: GroupId) -> Option<usize> {
        let (view, own) = (self.chains.view(group)?, self.agent());
        let mut able: Vec<(Role, AgentId)> = view
            .active()
            .filter(|(_, role)| *role <= Role::Member)
            .map(|(agent, role)| (role, agent))
            .collect();
        able.sort_unstable();
        able.iter().position(|(_, agent)| *agent == own)
    }

    /// How this agent stands to the others in an encrypted group. It is behind also when it is in the group and has
    /// no keys: a group that became encrypted, or one whose members removed it and then found that it stays.
    ///
    /// # Errors
    /// [`SessionError`] when it is not here.
    pub fn standing(&mut self, group: GroupId) -> Result<Standing, SessionError> {
        let (view, own) = (self.view(group)?, self.agent());
        let Some(keys) = self.slot(group)?.keys else { return Ok(Standing::Current) };
        let inside = self.with_keys(keys)?.contains(&own);
        match inside {
            true if self.hears_later(group, keys)? => Ok(Standing::Behind),
            true => Ok(self.mls.standing(keys)?),
            false if view.role(&own).is_some() && !view.withdrawn => Ok(Standing::Behind),
            false => Ok(Standing::Current),
        }
    }

    /// Whether something waits that was made in a later epoch: who stands where nobody else does sees no commit that
    /// goes beyond its own while the others only write.
    fn hears_later(&mut self, group: GroupId, keys: MlsId) -> Result<bool, SessionError> {
        let (epoch, _) = self.mls.members(keys)?;
        let later = |held: &Held| held.epoch.is_some_and(|of| of > epoch);
        Ok(self.slot(group)?.held.iter().any(later))
    }
}

const UNKNOWN: SessionError = SessionError::Act(ActError::Target("group not found"));

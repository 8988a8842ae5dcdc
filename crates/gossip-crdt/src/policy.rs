//! Who may write: the policy of an object, and the chain of its changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use x0x_core::{AgentId, DecodeError};

use crate::{
    codec::{Decoder, Encoder},
    config::{MAX_CUTS, MAX_POLICY_CHANGES, MAX_WRITERS},
    dot::{ActorTag, Dot, Stamp},
};

/// What an agent may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Writes what the object's type lets everyone write.
    Writer,
    /// Writes, and does what the type reserves to admins. Only the owner changes the policy.
    Admin,
    /// Everything.
    Owner,
}

/// One change of a policy, an operation of the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyChange {
    /// Sets which of its type's rules hold, a number that the type gives a meaning, and whether everyone
    /// who is not removed may write.
    Rules {
        /// The type's number; 0 at first.
        kind: u32,
        /// Everyone may write.
        everyone: bool,
    },
    /// Gives an agent a role, whatever it was before.
    Allow {
        /// The agent.
        agent: AgentId,
        /// It becomes an admin rather than a writer.
        admin: bool,
    },
    /// Takes an agent's role away, and with it all that it wrote beyond what the owner had seen.
    Remove {
        /// The agent.
        agent: AgentId,
        /// The last operation of each of its chains that stays valid; of others none does.
        cut: Vec<Dot>,
    },
}

/// Who may write at one version of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    owner: Option<AgentId>,
    kind: u32,
    everyone: bool,
    roles: BTreeMap<AgentId, Role>,
    removed: BTreeSet<AgentId>,
}

impl Policy {
    /// The policy that an object begins with: its owner writes, or everyone where there is none.
    #[must_use]
    pub fn initial(owner: Option<AgentId>) -> Self {
        Self { owner, everyone: owner.is_none(), ..Self::default() }
    }

    /// Whose object it is; nobody's when whoever knows its name may write.
    #[must_use]
    pub const fn owner(&self) -> Option<AgentId> {
        self.owner
    }

    /// Which of its type's rules hold.
    #[must_use]
    pub const fn kind(&self) -> u32 {
        self.kind
    }

    /// Whether everyone who is not removed may write.
    #[must_use]
    pub const fn everyone(&self) -> bool {
        self.everyone
    }

    /// Agents that were given a role, with it.
    pub fn roles(&self) -> impl Iterator<Item = (AgentId, Role)> + '_ {
        self.roles.iter().map(|(agent, role)| (*agent, *role))
    }

    /// What an agent may do; none when it may not write.
    #[must_use]
    pub fn role(&self, agent: &AgentId) -> Option<Role> {
        if self.owner == Some(*agent) {
            return Some(Role::Owner);
        }
        let everyone = self.everyone && !self.removed.contains(agent);
        self.roles.get(agent).copied().or(everyone.then_some(Role::Writer))
    }

    pub(crate) fn apply(&mut self, change: &PolicyChange) {
        match change {
            PolicyChange::Rules { kind, everyone } => {
                (self.kind, self.everyone) = (*kind, *everyone);
            }
            PolicyChange::Allow { agent, admin } => {
                self.removed.remove(agent);
                let role = if *admin { Role::Admin } else { Role::Writer };
                if self.roles.len() < MAX_WRITERS || self.roles.contains_key(agent) {
                    self.roles.insert(*agent, role);
                }
            }
            PolicyChange::Remove { agent, .. } => {
                self.roles.remove(agent);
                self.removed.insert(*agent);
            }
        }
    }
}

/// A change in its place: the version that it makes, and the operation that carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) stamp: Stamp,
    pub(crate) change: PolicyChange,
}

/// How a change relates to the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adopted {
    /// It is the next version.
    Next,
    /// It is in its place already.
    Known,
    /// It takes the place of another one of its version, which two devices of the owner wrote at once.
    Instead,
    /// Another one has its place.
    Lost,
    /// It names a version that is not the next of any known one, or one too many.
    Refused,
}

/// The changes of a policy by version, and the policy at each. A pure function of the set of the
/// owner's changes: of two of one version the one with the lesser stamp counts.
#[derive(Debug, Clone)]
pub(crate) struct PolicyChain {
    changes: Vec<Placed>,
    /// So many of them are final: nothing takes their places.
    settled: u32,
    initial: Arc<Policy>,
    current: Arc<Policy>,
    /// The earlier version that was asked for last: those who are behind are so together.
    earlier: (u32, Arc<Policy>),
}

impl PolicyChain {
    pub(crate) fn new(owner: Option<AgentId>) -> Self {
        let initial = Arc::new(Policy::initial(owner));
        let (current, earlier) = (Arc::clone(&initial), (0, Arc::clone(&initial)));
        Self { changes: Vec::new(), settled: 0, initial, current, earlier }
    }

    /// The version in force, 0 at first.
    pub(crate) fn version(&self) -> u32 {
        u32::try_from(self.changes.len()).unwrap_or(u32::MAX)
    }

    /// The policy in force.
    pub(crate) const fn current(&self) -> &Arc<Policy> {
        &self.current
    }

    /// The policy of a version.
    pub(crate) fn at(&mut self, version: u32) -> Option<Arc<Policy>> {
        if version > self.version() {
            return None;
        }
        if version == self.version() {
            return Some(Arc::clone(&self.current));
        }
        if self.earlier.0 != version {
            let mut policy = Policy::clone(&self.initial);
            let changes = self.changes.iter().take(version as usize);
            changes.for_each(|placed| policy.apply(&placed.change));
            self.earlier = (version, Arc::new(policy));
        }
        Some(Arc::clone(&self.earlier.1))
    }

    /// The first versions are final.
    pub(crate) fn settle(&mut self, versions: u32) {
        self.settled = versions.min(self.version());
    }

    /// The operations that its changes are.
    pub(crate) fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.changes.iter().map(|placed| placed.stamp.dot)
    }

    /// Whether one more change may be made.
    pub(crate) const fn has_room(&self) -> bool {
        self.changes.len() < MAX_POLICY_CHANGES
    }

    /// The version that somebody has seen who has seen at least another one, by what else it has seen.
    pub(crate) fn seen(&self, at_least: u32, sees: impl Fn(Dot) -> bool) -> u32 {
        let after = self.changes.get(at_least as usize..).unwrap_or_default();
        let more = after.iter().take_while(|placed| sees(placed.stamp.dot)).count();
        at_least.min(self.version()) + u32::try_from(more).unwrap_or(0)
    }

    /// Whether an operation of an author, written when it had seen a version, was not cut off by a
    /// later one.
    pub(crate) fn keeps(&self, version: u32, author: &AgentId, dot: Dot) -> bool {
        let later = self.changes.get(version as usize..).unwrap_or_default();
        later.iter().all(|placed| match &placed.change {
            PolicyChange::Remove { agent, cut } if agent == author => {
                cut.iter().any(|last| last.actor == dot.actor && dot.seq <= last.seq)
            }
            _ => true,
        })
    }

    /// Takes a change that makes a version.
    pub(crate) fn adopt(&mut self, version: u32, placed: Placed) -> Adopted {
        let index = (version as usize).wrapping_sub(1);
        if index > self.changes.len() || index >= MAX_POLICY_CHANGES {
            return Adopted::Refused;
        }
        if let Some(held) = self.changes.get(index) {
            if held.stamp <= placed.stamp || index < self.settled as usize {
                return if *held == placed { Adopted::Known } else { Adopted::Lost };
            }
            // What followed the other one was written on it.
            self.changes.truncate(index);
            let mut policy = Policy::clone(&self.initial);
            self.changes.iter().for_each(|placed| policy.apply(&placed.change));
            self.earlier = (0, Arc::clone(&self.initial));
            self.current = Arc::new(policy);
            self.push(placed);
            return Adopted::Instead;
        }
        self.push(placed);
        Adopted::Next
    }

    fn push(&mut self, placed: Placed) {
        Arc::make_mut(&mut self.current).apply(&placed.change);
        self.changes.push(placed);
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.count(self.changes.len());
        for placed in &self.changes {
            encoder.stamp(placed.stamp);
            encode_change(encoder, &placed.change);
        }
    }

    pub(crate) fn decode(
        owner: Option<AgentId>,
        decoder: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let mut chain = Self::new(owner);
        let changes = decoder.count(20)?;
        if changes > MAX_POLICY_CHANGES {
            return Err(DecodeError::Field("policy"));
        }
        for _ in 0..changes {
            let stamp = decoder.stamp()?;
            chain.push(Placed { stamp, change: decode_change(decoder)? });
        }
        Ok(chain)
    }
}

/// Writes a change in its canonical form.
pub(crate) fn encode_change(encoder: &mut Encoder, change: &PolicyChange) {
    match change {
        PolicyChange::Rules { kind, everyone } => {
            encoder.number(1);
            encoder.number((*kind).into());
            encoder.flag(*everyone);
        }
        PolicyChange::Allow { agent, admin } => {
            encoder.number(2);
            encoder.agent(agent);
            encoder.flag(*admin);
        }
        PolicyChange::Remove { agent, cut } => {
            encoder.number(3);
            encoder.agent(agent);
            encoder.count(cut.len());
            cut.iter().for_each(|dot| encoder.dot(*dot));
        }
    }
}

/// Reads a change.
pub(crate) fn decode_change(decoder: &mut Decoder<'_>) -> Result<PolicyChange, DecodeError> {
    match decoder.number()? {
        1 => Ok(PolicyChange::Rules { kind: decoder.number32()?, everyone: decoder.flag()? }),
        2 => Ok(PolicyChange::Allow { agent: decoder.agent()?, admin: decoder.flag()? }),
        3 => {
            let agent = decoder.agent()?;
            let count = decoder.count(ActorTag::LEN + 1)?;
            if count > MAX_CUTS {
                return Err(DecodeError::Field("cut"));
            }
            let cut = (0..count).map(|_| decoder.dot()).collect::<Result<_, _>>()?;
            Ok(PolicyChange::Remove { agent, cut })
        }
        _ => Err(DecodeError::Field("policy change")),
    }
}

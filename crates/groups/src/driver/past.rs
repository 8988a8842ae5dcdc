//! What was written before an agent came in: members hand it over where the policy lets them.

use x0x_core::AgentId;
use x0x_mls::{Change, Entry, Space};
use zeroize::Zeroizing;

use super::worker::Owned;
use crate::{
    error::{ActError, GroupsError},
    wire::{GroupId, PastText},
};

/// Follows the group's id in the key of the entry that says that what was before is not here yet.
pub(super) const WANTED: &[u8] = b"p";

fn key(group: GroupId) -> Vec<u8> {
    [group.as_bytes().as_slice(), WANTED].concat()
}

impl Owned {
    /// Whether members hand to new ones what is written in a group now.
    pub(super) fn shares(&self, group: GroupId) -> bool {
        let policy = self.groups.view(group).ok().and_then(|view| view.policy);
        policy.is_some_and(|policy| policy.is_encrypted() && policy.shares_history)
    }

    /// This agent came in anew: it wants to know what was written before, if it may.
    pub(crate) fn came_in(&mut self, group: GroupId) -> Result<(), GroupsError> {
        if self.shares(group) {
            let entry = Entry { key: key(group), chunk: 0, value: Zeroizing::default() };
            self.commit(Change::Put(Space::Named, entry))?;
            self.wants_past.insert(group);
        }
        Ok(())
    }

    /// Whether what was before is to be asked for.
    pub(crate) fn wants_past(&mut self, group: GroupId) -> Result<bool, GroupsError> {
        let wants = self.wants_past.contains(&group);
        if wants && !self.shares(group) {
            self.has_past(group)?;
            return Ok(false);
        }
        Ok(wants)
    }

    /// It is not to be asked for any more.
    pub(crate) fn has_past(&mut self, group: GroupId) -> Result<(), GroupsError> {
        self.commit(Change::Cut(Space::Named, key(group), 0))?;
        self.wants_past.remove(&group);
        Ok(())
    }

    /// What an agent may be handed of what was written: a member, of a group whose policy allows it now and
    /// allowed it then.
    pub(crate) fn past_for(
        &self,
        group: GroupId,
        agent: AgentId,
    ) -> Result<Vec<PastText>, GroupsError> {
        let view = self.groups.view(group)?;
        let members = [agent, self.groups.agent()];
        if members.iter().any(|agent| view.role(agent).is_none()) {
            return Err(ActError::Role("not a member").into());
        }
        if !self.shares(group) {
            return Err(ActError::Policy("what was written before is not handed on").into());
        }
        self.history.shared(&*self.store, group)
    }

    /// Takes what a member handed over; how many texts are new.
    pub(crate) fn take_past(
        &mut self,
        group: GroupId,
        by: AgentId,
        texts: &[PastText],
    ) -> Result<usize, GroupsError> {
        let now = self.now();
        let mut past = self.history.precede(&*self.store, group, by, texts, now)?;
        let mut batch = std::mem::take(&mut past.batch);
        batch.push(Change::Cut(Space::Named, key(group), 0));
        self.store.commit(batch)?;
        self.wants_past.remove(&group);
        let new = past.len();
        self.history.preceded(past);
        Ok(new)
    }
}

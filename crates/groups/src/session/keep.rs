//! What is written down of groups, so that a restart loses nothing: their operations. Their keys are MLS'
//! to keep, and what is said in them is the caller's.

use bytes::Bytes;
use x0x_core::AgentId;
use x0x_mls::{GroupId as MlsId, MlsGroups, Pending};

use super::{Happened, NamedGroups, UNKNOWN};
use crate::{
    error::{SessionError, SignedError},
    state::Chain,
    wire::{GroupId, LogItem, OpId, Operation, OperationIn},
};

/// An operation that is to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsaved {
    /// Of which group.
    pub group: GroupId,
    /// Counts the group's operations here, from 0: none builds upon a later one.
    pub number: u32,
    /// The operation.
    pub operation: Bytes,
}

impl<M: MlsGroups> NamedGroups<M> {
    /// The groups that are here.
    #[must_use]
    pub fn ids(&self) -> Vec<GroupId> {
        self.slots.keys().copied().collect()
    }

    /// The newest operations of a group that are here.
    ///
    /// # Errors
    /// [`SessionError`] when it is not here.
    pub fn heads(&self, group: GroupId) -> Result<Vec<OpId>, SessionError> {
        let known = self.chains.lock();
        Ok(known.chains.get(&group).ok_or(UNKNOWN)?.parents())
    }

    /// Puts a group down: nothing of its log is taken any more. Its keys are deleted once that is
    /// [`saved`](Self::saved).
    pub fn forget(&mut self, group: GroupId) {
        self.slots.remove(&group);
        let mut known = self.chains.lock();
        known.chains.remove(&group);
        let of_group = known.by_keys.extract_if(.., |_, named| *named == group);
        self.useless.extend(of_group.map(|(keys, _)| keys));
        drop(known);
        self.forgotten.push(group);
    }

    /// Deletes keys that belong to no group: the process ended before a group was written down, or after it was
    /// put down. Only to be called once every group is restored.
    ///
    /// # Errors
    /// [`SessionError::Mls`].
    pub fn forget_orphans(&mut self) -> Result<(), SessionError> {
        let known: Vec<_> = self.chains.lock().by_keys.keys().copied().collect();
        let orphans = self.mls.ids().into_iter().filter(|keys| !known.contains(keys));
        for keys in orphans.collect::<Vec<_>>() {
            self.mls.forget(keys)?;
        }
        Ok(())
    }

    /// Operations that are not written down yet.
    #[must_use]
    pub fn unsaved(&self) -> Vec<Unsaved> {
        let known = self.chains.lock();
        let mut unsaved = Vec::new();
        for (group, slot) in &self.slots {
            let Some(chain) = known.chains.get(group).filter(|chain| chain.len() > slot.saved)
            else {
                continue;
            };
            for (number, operation) in (slot.saved..).zip(chain.taken_after(slot.saved)) {
                // A group has far fewer.
                let Ok(number) = u32::try_from(number) else { break };
                unsaved.push(Unsaved { group: *group, number, operation: operation.clone() });
            }
        }
        unsaved
    }

    /// Groups that were put down since they were [`saved`](Self::saved).
    #[must_use]
    pub fn forgotten(&self) -> &[GroupId] {
        &self.forgotten
    }

    /// What was unsaved is written down, and what was put down is deleted: what members said of the state may
    /// be forgotten by MLS now.
    ///
    /// # Errors
    /// [`SessionError::Mls`].
    pub fn saved(&mut self) -> Result<(), SessionError> {
        let known = self.chains.lock();
        for (group, slot) in &mut self.slots {
            slot.saved = known.chains.get(group).map_or(0, Chain::len);
        }
        drop(known);
        self.forgotten.clear();
        self.spoken.clear();
        while let Some(keys) = self.useless.pop() {
            match self.mls.forget(keys) {
                // It was told of a group whose keys it never had.
                Ok(()) | Err(x0x_mls::GroupError::Unknown) => {}
                Err(error) => {
                    self.useless.push(keys);
                    return Err(error.into());
                }
            }
        }
        if !self.read.is_empty() {
            let read = std::mem::take(&mut self.read);
            self.mls.acknowledge(&read)?;
        }
        Ok(())
    }

    /// Frames are safe in the group's log, or texts in what the caller keeps.
    ///
    /// # Errors
    /// [`SessionError::Mls`].
    pub fn acknowledge(&mut self, journal: &[u64]) -> Result<(), SessionError> {
        if journal.is_empty() { Ok(()) } else { Ok(self.mls.acknowledge(journal)?) }
    }

    /// Takes a group as it was written down, its operations by their numbers.
    ///
    /// # Errors
    /// [`SessionError`] when what is there is damaged: what builds upon it is lost with it, and to be had from
    /// other members.
    pub fn restore(&mut self, operations: &[Bytes]) -> Result<GroupId, SessionError> {
        let read = |bytes: &Bytes| -> Result<Operation, SessionError> {
            Ok(OperationIn::decode(bytes)?.verify()?)
        };
        let none = SignedError::Content("no operation that founds a group");
        let (first, rest) = operations.split_first().ok_or_else(|| none.clone())?;
        let mut chain = Chain::new(read(first)?).ok_or(none)?;
        let rest: Result<Vec<Operation>, SessionError> = rest.iter().map(read).collect();
        chain.offer_all(rest?);
        let (keys, saved) = (chain.view().mls_group, chain.len());
        let founded = chain.view_at(&[chain.genesis().id]).and_then(|view| view.mls_group);
        if let Some(keys) = keys.filter(|keys| founded == Some(*keys)) {
            self.release(keys);
        }
        let group = self.insert(chain, keys)?;
        if let Some(slot) = self.slots.get_mut(&group) {
            slot.saved = saved;
        }
        Ok(group)
    }

    /// Takes keys from a group that was restored before: this one was founded with them.
    fn release(&mut self, keys: MlsId) {
        let holder = self.chains.lock().by_keys.remove(&keys);
        if let Some(slot) = holder.and_then(|group| self.slots.get_mut(&group)) {
            slot.keys = None;
        }
    }

    /// After the groups were restored: what was to be published when the process ended waits to be published
    /// again, and what members had written is told again.
    pub fn resume(&mut self) -> Vec<(GroupId, Vec<Happened>)> {
        let mut told = Vec::new();
        for (journal, pending) in self.mls.pending() {
            let of = |keys| self.chains.lock().by_keys.get(&keys).copied();
            match pending {
                Pending::Outgoing { group, frame } => {
                    let Some(group) = of(group) else { continue };
                    // There were as many before.
                    let _ = self.publish(group, Some(journal), &LogItem::Frame(frame));
                }
                Pending::Received { group, author, payload, .. } => {
                    let Some(group) = of(group) else { continue };
                    told.push((group, self.read_again(group, journal, author, &payload)));
                }
                _ => {}
            }
        }
        told
    }

    fn read_again(
        &mut self,
        group: GroupId,
        journal: u64,
        author: AgentId,
        payload: &Bytes,
    ) -> Vec<Happened> {
        let mut happened = Vec::new();
        if let Err(error) = self.take_said(group, journal, author, payload, &mut happened) {
            // It stays in the journal.
            drop(error);
        }
        happened
    }
}

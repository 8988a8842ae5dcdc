//! What this agent said within MLS, until the epoch in which it was said cannot fall any more: texts also across
//! a restart, since nobody else may have them. Operations come by comparing.

use prost::Message;
use x0x_mls::{
    GroupId as MlsId, MlsGroups,
    ordering::{MAX_STATES, StateId},
};
use zeroize::Zeroizing;

use super::{MAX_SENT, NamedGroups, Slot};
use crate::{
    error::SessionError,
    wire::{GroupId, LogItem, MemberItem},
};

/// Something that this agent said.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    epoch: u64,
    state: StateId,
    item: Vec<u8>,
}

/// A text of this agent that may have to be said again, to be kept beside the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// The group.
    pub group: GroupId,
    /// The agent's name for the text.
    pub id: [u8; 16],
    /// What [`remember`](NamedGroups::remember) takes after a restart; none when nothing is needed any more.
    pub record: Option<Zeroizing<Vec<u8>>>,
}

#[derive(Clone, PartialEq, Message)]
struct SpokenRecord {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(bytes = "vec", tag = "2")]
    state: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    item: Vec<u8>,
}

/// The name of a text; none of an operation.
fn name(item: &[u8]) -> Option<[u8; 16]> {
    match MemberItem::decode(&item.to_vec().into()) {
        Ok(MemberItem::Text { id, .. }) => Some(id),
        _ => None,
    }
}

impl Sent {
    fn spoken(&self, group: GroupId) -> Option<Spoken> {
        let Self { epoch, state, item } = self;
        let record = SpokenRecord { epoch: *epoch, state: state.to_vec(), item: item.clone() };
        let record = Some(Zeroizing::new(record.encode_to_vec()));
        name(item).map(|id| Spoken { group, id, record })
    }

    const fn may_fall(&self, epoch: u64) -> bool {
        self.epoch + MAX_STATES as u64 > epoch
    }
}

impl Slot {
    /// Notes what was said. The names of texts that are not kept any more.
    fn said(&mut self, sent: Sent) -> Vec<[u8; 16]> {
        let epoch = sent.epoch;
        self.sent.push(sent);
        let surplus = self.sent.len().saturating_sub(MAX_SENT);
        let mut gone: Vec<Sent> = self.sent.drain(..surplus).collect();
        gone.extend(self.sent.extract_if(.., |sent| !sent.may_fall(epoch)));
        gone.iter().filter_map(|sent| name(&sent.item)).collect()
    }
}

impl<M: MlsGroups> NamedGroups<M> {
    /// Encrypts an item to the members, with fresh keys if this agent's may have been used before.
    pub(super) fn say(
        &mut self,
        group: GroupId,
        keys: MlsId,
        item: Vec<u8>,
    ) -> Result<(), SessionError> {
        if self.mls.must_refresh(keys)? {
            self.refresh(group, keys)?;
        }
        let made = self.mls.encrypt(keys, b"", &item)?;
        let ((epoch, _), state) = (self.mls.members(keys)?, self.mls.state(keys)?);
        self.publish(group, Some(made.id), &LogItem::Frame(made.frame))?;
        let sent = Sent { epoch, state, item };
        self.spoken.extend(sent.spoken(group));
        let gone = self.slot(group)?.said(sent);
        self.spoken.extend(gone.into_iter().map(|id| Spoken { group, id, record: None }));
        Ok(())
    }

    /// Texts that are to be kept or given up since these were [`saved`](Self::saved), in order.
    #[must_use]
    pub fn spoken(&self) -> &[Spoken] {
        &self.spoken
    }

    /// Takes what was kept of a text, after its group was restored: it is said again if its epoch fell.
    pub fn remember(&mut self, group: GroupId, id: [u8; 16], record: &[u8]) {
        if self.try_remember(group, id, record).is_none() {
            self.spoken.push(Spoken { group, id, record: None });
        }
    }

    fn try_remember(&mut self, group: GroupId, id: [u8; 16], record: &[u8]) -> Option<()> {
        let SpokenRecord { epoch, state, item } = SpokenRecord::decode(record).ok()?;
        let sent = Sent { epoch, state: state.try_into().ok()?, item };
        let keys = self.slots.get(&group)?.keys?;
        let (now, _) = self.mls.members(keys).ok()?;
        if name(&sent.item) != Some(id) || !sent.may_fall(now) {
            return None;
        }
        let stands = self.mls.stands(keys, &sent.state).ok()?;
        let slot = self.slots.get_mut(&group)?;
        if slot.sent.len() + slot.again.len() >= MAX_SENT {
            return None;
        }
        if stands {
            slot.sent.push(sent)
        } else {
            slot.again.push_back(sent.item)
        }
        Some(())
    }

    /// What was said in epochs that fell has to be said again.
    pub(super) fn unsay(&mut self, group: GroupId, from_epoch: u64) -> Result<(), SessionError> {
        let slot = self.slot(group)?;
        let fell = slot.sent.extract_if(.., |sent| sent.epoch >= from_epoch);
        let fell: Vec<Vec<u8>> = fell.map(|sent| sent.item).collect();
        slot.again.extend(fell);
        Ok(())
    }

    /// Says again what has to be, once nobody has the keys who is not in the group.
    ///
    /// # Errors
    /// [`SessionError`] when the group is not here, or something cannot be said now.
    pub fn say_again(&mut self, group: GroupId) -> Result<(), SessionError> {
        let slot = self.slot(group)?;
        let Some(keys) = slot.keys.filter(|_| !slot.again.is_empty()) else { return Ok(()) };
        let (own, view) = (self.agent(), self.view(group)?);
        let inside = self.mls.members(keys)?.1.contains(&own) && view.role(&own).is_some();
        if !inside || view.withdrawn || !self.difference(group)?.0.is_empty() {
            return Ok(());
        }
        while let Some(item) = self.slot(group)?.again.pop_front() {
            if let Err(error) = self.say(group, keys, item.clone()) {
                self.slot(group)?.again.push_front(item);
                return Err(error);
            }
        }
        Ok(())
    }
}

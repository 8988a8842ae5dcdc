//! What comes from a group's log.

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};
use x0x_mls::{Event, FrameIn, MlsGroups};

use super::{Happened, Held, MAX_HELD, MAX_SEEN, MAX_UNTOLD, NamedGroups, Slot, UNKNOWN};
use crate::{
    error::SessionError,
    wall::Taken,
    wire::{Card, GroupId, LogItem, MemberItem, OperationIn, PublicMessageIn, SignedCard},
};

impl Slot {
    fn hold(&mut self, item: LogItem) {
        if self.held.iter().any(|held| held.item == item) {
            return;
        }
        let epoch = match &item {
            LogItem::Frame(frame) => FrameIn::decode(frame).ok().map(|frame| frame.epoch),
            _ => None,
        };
        self.held.push_back(Held { item, epoch });
        if self.held.len() > MAX_HELD {
            self.held.pop_front();
        }
    }

    /// Whether a message is seen for the first time.
    fn is_new(&mut self, author: AgentId, id: [u8; 16]) -> bool {
        let new = self.seen.insert((author, id));
        if new {
            self.seen_order.push_back((author, id));
            if self.seen_order.len() > MAX_SEEN
                && let Some(oldest) = self.seen_order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
        new
    }
}

impl<M: MlsGroups> NamedGroups<M> {
    /// Takes an item of a group's log, in any order and any number of times.
    ///
    /// # Errors
    /// [`SessionError`] when it does not verify: its author is at fault.
    pub fn receive(&mut self, group: GroupId, bytes: &[u8]) -> Result<Vec<Happened>, SessionError> {
        let item = self.slot(group)?.log.open(bytes)?;
        let mut happened = Vec::new();
        let taken = self.take_item(group, item, &mut happened);
        let settled = taken.and_then(|()| self.settle(group, &mut happened));
        self.told(group, happened, settled)
    }

    /// What happened, with what happened in calls that failed before: a message is decrypted once.
    pub(super) fn told(
        &mut self,
        group: GroupId,
        happened: Vec<Happened>,
        done: Result<(), SessionError>,
    ) -> Result<Vec<Happened>, SessionError> {
        let slot = self.slot(group)?;
        slot.untold.extend(happened);
        // Texts beyond it are still in MLS' journal.
        let surplus = slot.untold.len().saturating_sub(MAX_UNTOLD);
        slot.untold.drain(..surplus);
        done.map(|()| slot.untold.drain(..).collect())
    }

    fn take_item(
        &mut self,
        group: GroupId,
        item: LogItem,
        happened: &mut Vec<Happened>,
    ) -> Result<(), SessionError> {
        match &item {
            LogItem::Operation(bytes) => self.take_encoded(group, bytes, happened),
            LogItem::Message(bytes) => {
                let (id, message) = PublicMessageIn::decode(bytes)?.verify()?;
                let author = message.author;
                let slot = self.slots.get_mut(&group).ok_or(UNKNOWN)?;
                let known = self.chains.lock();
                let chain = known.chains.get(&group).ok_or(UNKNOWN)?;
                match slot.wall.take(chain, id, message)? {
                    Taken::New => happened.push(Happened::Message { id, author }),
                    Taken::Known => {}
                    Taken::NotYet => slot.hold(item),
                }
                Ok(())
            }
            LogItem::Frame(frame) => {
                if self.slot(group)?.keys.is_none() {
                    return Ok(());
                }
                let events = self.mls.process(frame)?;
                if events.contains(&Event::NotYet) {
                    self.slot(group)?.hold(item);
                }
                self.take_events(group, events, happened)
            }
        }
    }

    pub(super) fn take_encoded(
        &mut self,
        group: GroupId,
        bytes: &Bytes,
        happened: &mut Vec<Happened>,
    ) -> Result<(), SessionError> {
        let read = OperationIn::decode(bytes)?;
        let id = read.id();
        if self.chains.lock().chains.get(&group).is_some_and(|chain| chain.get(&id).is_some()) {
            return Ok(());
        }
        if self.take_operation(group, read.verify()?)? {
            happened.push(Happened::State { operation: id });
        }
        Ok(())
    }

    fn take_events(
        &mut self,
        group: GroupId,
        events: Vec<Event>,
        happened: &mut Vec<Happened>,
    ) -> Result<(), SessionError> {
        for event in events {
            match event {
                Event::Message { id, author, payload, .. } => {
                    self.take_said(group, id, author, &payload, happened)?;
                }
                Event::Epoch { self_removed: true, .. } => happened.push(Happened::Out),
                Event::Epoch { epoch, .. } => happened.push(Happened::Epoch { epoch }),
                Event::Expired { epoch } => happened.push(Happened::Unreadable { epoch }),
                Event::Reverted { from_epoch, .. } => self.unsay(group, from_epoch)?,
                // The state says who leaves; nothing else is to be done.
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn take_said(
        &mut self,
        group: GroupId,
        journal: u64,
        author: AgentId,
        payload: &Bytes,
        happened: &mut Vec<Happened>,
    ) -> Result<(), SessionError> {
        match MemberItem::decode(payload) {
            Ok(MemberItem::Operation(bytes)) => {
                // A member may repeat another's operation; that one's own signature counts.
                if self.take_encoded(group, &bytes, happened).is_err() {
                    happened.push(Happened::Refused);
                }
                self.read.push(journal);
            }
            Ok(MemberItem::Text { room, id, payload }) => {
                if self.slot(group)?.is_new(author, id) {
                    happened.push(Happened::Text { journal, author, room, id, payload });
                } else {
                    self.read.push(journal);
                }
            }
            Err(_) => {
                self.read.push(journal);
                happened.push(Happened::Refused);
            }
        }
        Ok(())
    }

    /// Tries what waited, as long as something comes of it.
    pub(super) fn settle(
        &mut self,
        group: GroupId,
        happened: &mut Vec<Happened>,
    ) -> Result<(), SessionError> {
        let mut seen = 0;
        while happened.len() > seen {
            seen = happened.len();
            self.try_held(group, happened)?;
        }
        self.say_again(group)
    }

    /// Tries what waited, once.
    pub(super) fn try_held(
        &mut self,
        group: GroupId,
        happened: &mut Vec<Happened>,
    ) -> Result<(), SessionError> {
        if let Some(keys) = self.slot(group)?.keys {
            let events = self.mls.retry(keys)?;
            self.take_events(group, events, happened)?;
        }
        let held: Vec<Held> = self.slot(group)?.held.drain(..).collect();
        for Held { item, .. } in held {
            // What waited and does not verify is its author's fault, not of what came now.
            let _ = self.take_item(group, item, happened);
        }
        Ok(())
    }

    /// Writes a public message.
    ///
    /// # Errors
    /// [`SessionError::Act`] when this agent may not.
    pub fn write(
        &mut self,
        group: GroupId,
        message: impl FnOnce(&crate::state::Chain, AgentId) -> crate::wire::PublicMessage,
    ) -> Result<[u8; 32], SessionError> {
        let slot = self.slots.get_mut(&group).ok_or(UNKNOWN)?;
        let known = self.chains.lock();
        let chain = known.chains.get(&group).ok_or(UNKNOWN)?;
        let message = message(chain, self.key.public_key().agent_id());
        crate::wall::may_write(chain.view(), &message)?;
        let (id, bytes) = message.sign(&self.key);
        slot.wall.take(chain, id, message)?;
        drop(known);
        self.publish(group, None, &LogItem::Message(bytes))?;
        Ok(id)
    }

    /// The card of a group; none if it may have none, or this agent may not make it.
    ///
    /// # Errors
    /// [`SessionError`] when it is not here.
    pub fn card(&self, group: GroupId, now: WallTime) -> Result<Option<SignedCard>, SessionError> {
        let known = self.chains.lock();
        let chain = known.chains.get(&group).ok_or(UNKNOWN)?;
        Ok(Card::of(chain, self.agent(), now).map(|card| card.sign(&self.key)))
    }

    /// The public messages of a group that are shown now.
    ///
    /// # Errors
    /// [`SessionError`] when it is not here.
    pub fn messages(
        &self,
        group: GroupId,
    ) -> Result<Vec<([u8; 32], crate::wire::PublicMessage)>, SessionError> {
        let (slot, view) = (self.slots.get(&group).ok_or(UNKNOWN)?, self.view(group)?);
        Ok(slot.wall.shown(&view).map(|(id, message)| (id, message.clone())).collect())
    }
}

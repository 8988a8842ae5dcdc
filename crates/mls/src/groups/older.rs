//! States that a member cannot go back to any more, kept so that what was written in them is still read.
//!
//! A log delivers each author's items in order, but not those of one author before those of another: who was
//! away may be given many commits before the messages that were written between them.

use std::collections::VecDeque;

use prost::Message;

use super::{GROUP_KEY, Groups, member_key};
use crate::{
    error::GroupError,
    handle::Event,
    journal::Pending,
    ordering::StateId,
    store::{Change, MlsStore, Space, StoreError},
    wire::{FrameIn, GroupId},
};

/// States of a group that are kept for their messages, beyond those that it can go back to.
pub const MAX_OLDER: usize = 64;
/// Bytes of them; the oldest goes first. Of a large group these are few: a state holds its whole tree.
pub const MAX_OLDER_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Clone, PartialEq, Message)]
pub(super) struct OlderRecord {
    #[prost(bytes = "vec", tag = "1")]
    state: Vec<u8>,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(uint64, tag = "3")]
    epoch: u64,
}

/// A state that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    state: StateId,
    epoch: u64,
    size: u64,
}

/// The states, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Older {
    kept: VecDeque<Kept>,
    /// The first epoch of which no state has given way.
    whole_from: u64,
}

impl Older {
    pub(super) fn contains(&self, state: &StateId) -> bool {
        self.states().any(|kept| kept == *state)
    }

    pub(super) fn states(&self) -> impl Iterator<Item = StateId> + '_ {
        self.kept.iter().map(|kept| kept.state)
    }

    /// The first epoch from which on every state where this member was is kept.
    pub(super) const fn whole_from(&self) -> u64 {
        self.whole_from
    }

    /// Keeps a state. Those that give way for it.
    fn keep(&mut self, state: Kept) -> Vec<StateId> {
        self.kept.push_back(state);
        let mut bytes: u64 = self.kept.iter().map(|kept| kept.size).sum();
        let mut gone = Vec::new();
        while (self.kept.len() > MAX_OLDER || bytes > MAX_OLDER_BYTES)
            && let Some(kept) = self.kept.pop_front()
        {
            bytes -= kept.size;
            self.whole_from = self.whole_from.max(kept.epoch.saturating_add(1));
            gone.push(kept.state);
        }
        gone
    }

    /// Keeps states that are in a store, with their epochs. Those that give way for them.
    pub(super) fn keep_all<S: MlsStore + ?Sized>(
        &mut self,
        store: &S,
        states: impl IntoIterator<Item = (StateId, u64)>,
    ) -> Result<Vec<StateId>, StoreError> {
        let mut gone = Vec::new();
        for (state, epoch) in states {
            let entries = store.load(Space::Epoch(state))?;
            let size = entries.iter().map(|entry| entry.value.len() as u64).sum();
            gone.extend(self.keep(Kept { state, epoch, size }));
        }
        Ok(gone)
    }

    pub(super) fn record(&self) -> Vec<OlderRecord> {
        let record = |&Kept { state, epoch, size }: &Kept| {
            let state = state.to_vec();
            OlderRecord { state, size, epoch }
        };
        self.kept.iter().map(record).collect()
    }

    pub(super) fn read(records: Vec<OlderRecord>) -> Option<Self> {
        let read = |OlderRecord { state, size, epoch }: OlderRecord| {
            Some(Kept { state: state.try_into().ok()?, epoch, size })
        };
        let kept = records.into_iter().map(read).collect::<Option<_>>()?;
        Some(Self { kept, whole_from: 0 })
    }
}

impl<S: MlsStore> Groups<S> {
    /// What is to be said of a message that was made in a state which is not known here.
    pub(super) fn unknown_state(&self, frame: &FrameIn) -> Event {
        let Some(slot) = self.slots.get(&frame.group) else { return Event::Nothing };
        if frame.epoch >= slot.ordering.oldest() {
            self.metrics.not_yet.inc();
            return Event::NotYet;
        }
        let fell = slot.ordering.is_lost(&frame.state) || slot.fell.contains(&frame.state);
        if frame.epoch < slot.began || fell {
            return Event::Nothing;
        }
        self.metrics.expired.inc();
        Event::Expired { epoch: frame.epoch }
    }

    /// Whether this member has keys of the group now.
    pub(super) fn is_inside(&mut self, group: GroupId) -> bool {
        let loaded = self.load(group).ok();
        loaded.and_then(|slot| slot.live.as_ref()).is_some_and(|live| live.group.is_active())
    }

    pub(super) fn forget_group(&mut self, group: GroupId) -> Result<(), GroupError> {
        let slot = self.slots.get(&group).ok_or(GroupError::Unknown)?;
        let states = slot.ordering.links().map(|link| link.state).chain(slot.older.states());
        let mut batch: Vec<Change> =
            states.map(|state| Change::Drop(Space::Epoch(state))).collect();
        batch.push(Change::Cut(Space::Member, member_key(GROUP_KEY, &group.0), 0));
        let journalled: Vec<u64> = self
            .journal
            .pending()
            .into_iter()
            .filter(|(_, pending)| match pending {
                Pending::Outgoing { group: of, .. } | Pending::Received { group: of, .. } => {
                    *of == group
                }
            })
            .map(|(id, _)| id)
            .collect();
        batch.extend(crate::journal::Journal::acknowledge(&journalled));
        self.write(group, batch)?;
        self.journal.forget(&journalled);
        self.slots.remove(&group);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_states_give_way_by_number_and_by_size() {
        let mut older = Older::default();
        let state = |n: usize| [n as u8; 32];
        let of = |n: usize, size| Kept { state: state(n), epoch: n as u64, size };
        for n in 0..MAX_OLDER {
            assert_eq!(older.keep(of(n, 10)), Vec::<StateId>::new());
        }
        assert_eq!(older.whole_from(), 0);
        assert_eq!(older.keep(of(100, 10)), [state(0)]);
        assert_eq!(older.whole_from(), 1);
        assert!(older.contains(&state(1)) && !older.contains(&state(0)));
        let again = Older::read(older.record()).expect("as it was written");
        assert_eq!(again.kept, older.kept);
        let gone = older.keep(of(101, MAX_OLDER_BYTES - 10));
        assert_eq!(gone.len(), MAX_OLDER - 1, "one small one has room beside it");
        assert!(older.contains(&state(100)) && older.contains(&state(101)));
        older.keep(of(102, MAX_OLDER_BYTES + 1));
        assert_eq!(older.states().count(), 0, "none is larger than all may be");
    }
}

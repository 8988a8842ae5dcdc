//! Signed records: each neighbour's own statement of where and how it can be reached. The newest counts,
//! and what is told of it in shuffles comes from it.

use std::collections::BTreeMap;

use x0x_core::MachineId;
use x0x_transport::{ReachClass, SignedRecord};

use super::HyParView;
use crate::{
    peer::{Hint, Peer},
    wire::Message,
};

/// Most records kept of others: those of the neighbours, and the newest of former ones.
pub const MAX_RECORDS: usize = 32;

/// This node's record and those of others.
#[derive(Debug, Default)]
pub(super) struct Records {
    own: Option<SignedRecord>,
    others: BTreeMap<MachineId, SignedRecord>,
}

impl Records {
    /// How many of others are known.
    pub(super) fn len(&self) -> usize {
        self.others.len()
    }
}

impl HyParView {
    /// A peer's record, if it is known.
    #[must_use]
    pub fn record(&self, id: MachineId) -> Option<&SignedRecord> {
        self.records.others.get(&id)
    }

    /// This node has a new record: the neighbours get it.
    pub(super) fn on_own_record(&mut self, record: SignedRecord) {
        if record.record().machine != self.local || self.records.own.as_ref() == Some(&record) {
            return;
        }
        self.records.own = Some(record);
        let neighbours: Vec<MachineId> = self.active.ids().collect();
        for id in neighbours {
            self.introduce(id);
        }
    }

    /// Gives a new neighbour this node's record.
    pub(super) fn introduce(&mut self, to: MachineId) {
        if let Some(record) = self.records.own.clone() {
            self.send(to, Message::Record(record));
        }
    }

    /// The entry of this node in its shuffles.
    pub(super) fn own_entry(&self) -> Peer {
        let own = Peer::new(self.local, self.own_addresses.iter().copied());
        own.with_hint(self.records.own.as_ref().map(Hint::of).unwrap_or_default())
    }

    /// A peer's record of itself. It goes before what its session hello said, and an older one before
    /// nothing.
    pub(super) fn on_record(&mut self, from: MachineId, record: SignedRecord) {
        let Some(session) = self.sessions.get_mut(&from) else { return };
        let newest = self.records.others.get(&from).map(|known| known.record().seq);
        if record.record().machine != from || newest.is_some_and(|seq| seq >= record.record().seq) {
            return self.metrics.refused_records.inc();
        }
        let stated = record.record().addresses.iter().copied();
        let known = session.peer.addresses().iter().copied();
        let peer = Peer::new(from, stated.chain(known)).with_hint(Hint::of(&record));
        session.peer = peer.named_over(session.path);
        let peer = session.peer.clone();
        self.active.update(&peer);
        self.passive.update(&peer);
        self.records.others.insert(from, record);
        if self.records.others.len() > MAX_RECORDS {
            self.forget_a_record();
        }
    }

    /// Drops the oldest record of those that are no neighbours; there are more records than neighbours.
    fn forget_a_record(&mut self) {
        let others = self.records.others.iter();
        let oldest =
            others.min_by_key(|(id, record)| (self.active.contains(**id), record.record().seq));
        if let Some(id) = oldest.map(|(id, _)| *id) {
            self.records.others.remove(&id);
        }
    }

    /// Whether a further neighbour of this class may be taken: half of a view that only relays reach
    /// would hang on few machines.
    pub(super) fn admits_reach(&self, reach: ReachClass) -> bool {
        reach != ReachClass::RelayOnly || self.active.relayed() < self.config.active_max / 2
    }
}

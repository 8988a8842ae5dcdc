//! The ids that each sending machine used lately, so that a retry is not delivered twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use x0x_core::MachineId;

use crate::wire::MessageId;

/// Ids remembered for one sending machine; the oldest goes first.
pub const MAX_IDS_PER_PEER: usize = 4096;
/// Ids that a machine may keep whatever others do.
pub const MIN_IDS_PER_PEER: usize = 64;
/// Ids remembered for all machines together (about 12 MiB), besides the [`MIN_IDS_PER_PEER`] of
/// each. Past it, machines without a session are forgotten first, the longest gone before others;
/// then a sender replaces its own oldest ids.
pub const MAX_IDS: usize = 256 * 1024;
/// Machines without a session whose ids are still remembered; the longest gone is forgotten first.
pub const MAX_ABSENT_PEERS: usize = 1024;

#[derive(Debug, Default)]
struct Window {
    order: VecDeque<MessageId>,
    ids: BTreeSet<MessageId>,
    /// Its place in [`Dedup::absent`], when the machine has no session.
    absent_since: Option<u64>,
}

/// The windows of all machines.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    windows: BTreeMap<MachineId, Window>,
    absent: BTreeMap<u64, MachineId>,
    departures: u64,
    total: usize,
}

impl Dedup {
    /// Whether the machine used the id lately.
    pub(super) fn contains(&self, peer: MachineId, id: MessageId) -> bool {
        self.windows.get(&peer).is_some_and(|window| window.ids.contains(&id))
    }

    /// Records an id; false when it was there already.
    pub(super) fn insert(&mut self, peer: MachineId, id: MessageId) -> bool {
        if self.contains(peer, id) {
            return false;
        }
        while self.total >= MAX_IDS && self.forget_longest_absent() {}
        let full = self.total >= MAX_IDS;
        let window = self.windows.entry(peer).or_default();
        let cap = if full { MIN_IDS_PER_PEER } else { MAX_IDS_PER_PEER };
        // At the cap the new id takes the place of the oldest one; a window that grew while there
        // was space keeps its length.
        if window.order.len() >= cap
            && let Some(oldest) = window.order.pop_front()
        {
            window.ids.remove(&oldest);
            self.total -= 1;
        }
        window.order.push_back(id);
        window.ids.insert(id);
        self.total += 1;
        true
    }

    /// Forgets an id that was not taken after all.
    pub(super) fn remove(&mut self, peer: MachineId, id: MessageId) {
        let Some(window) = self.windows.get_mut(&peer) else { return };
        if window.ids.remove(&id) {
            window.order.retain(|kept| *kept != id);
            self.total -= 1;
        }
    }

    /// The machine has a session: its ids stay.
    pub(super) fn arrived(&mut self, peer: MachineId) {
        if let Some(window) = self.windows.get_mut(&peer)
            && let Some(since) = window.absent_since.take()
        {
            self.absent.remove(&since);
        }
    }

    /// The machine's session ended: its ids stay while there is space.
    pub(super) fn left(&mut self, peer: MachineId) {
        let Some(window) = self.windows.get_mut(&peer) else { return };
        if window.absent_since.is_none() {
            self.departures += 1;
            window.absent_since = Some(self.departures);
            self.absent.insert(self.departures, peer);
        }
        while self.absent.len() > MAX_ABSENT_PEERS && self.forget_longest_absent() {}
    }

    fn forget_longest_absent(&mut self) -> bool {
        let Some((_, peer)) = self.absent.pop_first() else { return false };
        if let Some(window) = self.windows.remove(&peer) {
            self.total -= window.order.len();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> MachineId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        MachineId::new(bytes)
    }

    fn id(n: u32) -> MessageId {
        u128::from(n).to_be_bytes()
    }

    #[test]
    fn one_machine_keeps_its_last_ids() {
        let mut dedup = Dedup::default();
        let last = u32::try_from(MAX_IDS_PER_PEER).expect("small");
        assert!((0..=last).all(|n| dedup.insert(peer(1), id(n))));
        assert!(!dedup.insert(peer(1), id(1)), "still in the window");
        assert!(dedup.insert(peer(1), id(0)), "the oldest was forgotten");
        assert!(dedup.insert(peer(2), id(1)), "ids of machines are apart");
        assert_eq!(dedup.total, MAX_IDS_PER_PEER + 1);
    }

    #[test]
    fn absent_machines_are_forgotten_first_and_present_ones_are_safe() {
        let mut dedup = Dedup::default();
        dedup.insert(peer(1), id(1));
        dedup.insert(peer(2), id(1));
        dedup.left(peer(2));
        let ids = u32::try_from(MAX_IDS_PER_PEER).expect("small");
        let flooders = u32::try_from(MAX_IDS / MAX_IDS_PER_PEER).expect("small") + 8;
        for flooder in 100..100 + flooders {
            for n in 0..ids {
                dedup.insert(peer(flooder), id(n));
            }
        }
        assert!(dedup.total <= MAX_IDS + flooders as usize * MIN_IDS_PER_PEER);
        assert!(!dedup.insert(peer(1), id(1)), "a present machine keeps its ids");
        assert!(dedup.insert(peer(2), id(1)), "an absent one made room");
    }

    #[test]
    fn absent_machines_are_capped_and_return() {
        let mut dedup = Dedup::default();
        dedup.insert(peer(0), id(0));
        dedup.left(peer(0));
        dedup.arrived(peer(0));
        let cap = u32::try_from(MAX_ABSENT_PEERS).expect("small");
        for n in 1..=cap + 1 {
            dedup.insert(peer(n), id(n));
            dedup.left(peer(n));
        }
        assert_eq!(dedup.absent.len(), MAX_ABSENT_PEERS);
        assert!(!dedup.insert(peer(0), id(0)));
        assert!(dedup.insert(peer(1), id(1)));
        assert!(!dedup.insert(peer(cap), id(cap)));
    }
}

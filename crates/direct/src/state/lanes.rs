//! The sender's side of lanes: those whose messages may be sent now.

use std::collections::BTreeMap;

use x0x_core::{AgentId, MachineId};

/// Sender and recipient.
pub(super) type LaneKey = (AgentId, AgentId);

/// Lanes that are open at once; beyond it the one that began longest ago is closed, and begins again
/// with what its sender sends next as the first.
pub const MAX_OPEN_LANES: usize = 4096;

/// Lanes that have begun and of which no message failed since. What is not here is closed, so that
/// forgetting one costs an attempt, never the order.
#[derive(Debug, Default)]
pub(super) struct OpenLanes {
    lanes: BTreeMap<(MachineId, LaneKey), u64>,
    by_age: BTreeMap<u64, (MachineId, LaneKey)>,
    opened: u64,
}

impl OpenLanes {
    /// A message that begins a lane is on its way.
    pub(super) fn open(&mut self, machine: MachineId, lane: LaneKey) {
        self.close(machine, lane);
        while self.lanes.len() >= MAX_OPEN_LANES
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.lanes.remove(&oldest);
        }
        self.opened += 1;
        self.lanes.insert((machine, lane), self.opened);
        self.by_age.insert(self.opened, (machine, lane));
    }

    /// A message of a lane failed, and what comes behind it must not be sent.
    pub(super) fn close(&mut self, machine: MachineId, lane: LaneKey) {
        if let Some(age) = self.lanes.remove(&(machine, lane)) {
            self.by_age.remove(&age);
        }
    }

    /// What was on its way to a machine is lost.
    pub(super) fn close_all(&mut self, machine: MachineId) {
        let lowest = AgentId::new([0; 32]);
        let of_machine = self.lanes.range((machine, (lowest, lowest))..);
        let of_machine = of_machine.take_while(|((other, _), _)| *other == machine);
        let closed: Vec<LaneKey> = of_machine.map(|((_, lane), _)| *lane).collect();
        for lane in closed {
            self.close(machine, lane);
        }
    }

    /// Whether what comes behind others of a lane may be sent.
    pub(super) fn is_open(&self, machine: MachineId, lane: LaneKey) -> bool {
        self.lanes.contains_key(&(machine, lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::machine;

    fn lane(n: u32) -> LaneKey {
        let mut to = [0; 32];
        to[..4].copy_from_slice(&n.to_be_bytes());
        (AgentId::new([0; 32]), AgentId::new(to))
    }

    #[test]
    fn lanes_of_one_machine_close_together() {
        let mut lanes = OpenLanes::default();
        for n in 1..=3 {
            lanes.open(machine(n), lane(0));
            lanes.open(machine(n), lane(1));
        }
        lanes.close(machine(1), lane(0));
        lanes.close_all(machine(2));
        let open = |n, at| lanes.is_open(machine(n), lane(at));
        assert!(!open(1, 0) && open(1, 1) && !open(2, 0) && !open(2, 1) && open(3, 0));
        assert_eq!(lanes.lanes.len(), lanes.by_age.len());
    }

    #[test]
    fn the_oldest_is_closed_at_the_cap() {
        let mut lanes = OpenLanes::default();
        let cap = u32::try_from(MAX_OPEN_LANES).expect("small");
        (0..cap).for_each(|n| lanes.open(machine(1), lane(n)));
        lanes.open(machine(1), lane(0));
        lanes.open(machine(1), lane(cap));
        assert!(lanes.is_open(machine(1), lane(0)), "it began again");
        assert!(!lanes.is_open(machine(1), lane(1)) && lanes.is_open(machine(1), lane(cap)));
        assert_eq!((lanes.lanes.len(), lanes.by_age.len()), (MAX_OPEN_LANES, MAX_OPEN_LANES));
    }
}

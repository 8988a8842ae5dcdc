//! Names and times that unit tests share.

use x0x_core::{AgentId, MachineId, Tick, WallTime};

use crate::wire::MessageId;

/// A moment of 2027.
pub(crate) const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);

pub(crate) fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

pub(crate) fn machine(n: u8) -> MachineId {
    MachineId::new([n; 32])
}

pub(crate) fn id(n: u64) -> MessageId {
    u128::from(n).to_be_bytes()
}

pub(crate) fn at(secs: u64) -> Tick {
    Tick::from_millis(secs * 1000)
}

//! Contacts, the machines they were seen on, and where an agent runs now.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use x0x_core::{AgentId, MAX_ADDRESSES, MachineId, PeerAddr, UserId, WallTime};

use crate::level::{IdentityType, Level};

/// Most contacts. Adding more is refused: a contact is somebody's decision and never makes room.
pub const MAX_CONTACTS: usize = 4096;
/// Most machines on record for one contact. The one not seen for longest goes first, a pinned one
/// never.
pub const MAX_MACHINES: usize = 16;
/// Most machines that an agent runs on at once, as far as anybody keeps track.
pub const MAX_PLACES: usize = 8;
/// Longest label in bytes.
pub const MAX_LABEL: usize = 128;

/// Wall time in files and answers: whole seconds, as clients of this format expect.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use x0x_core::WallTime;

    pub(super) fn serialize<S: Serializer>(time: &WallTime, s: S) -> Result<S::Ok, S::Error> {
        time.as_secs().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<WallTime, D::Error> {
        Ok(WallTime::default() + Duration::from_secs(u64::deserialize(d)?))
    }

    pub(super) mod optional {
        use super::*;

        pub(in super::super) fn serialize<S: Serializer>(
            time: &Option<WallTime>,
            s: S,
        ) -> Result<S::Ok, S::Error> {
            time.map(WallTime::as_secs).serialize(s)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<Option<WallTime>, D::Error> {
            let seconds = Option::<u64>::deserialize(d)?;
            Ok(seconds.map(|seconds| WallTime::default() + Duration::from_secs(seconds)))
        }
    }
}

/// A machine that a contact runs or ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineRecord {
    /// The machine.
    pub machine_id: MachineId,
    /// A name for it; at most [`MAX_LABEL`] bytes.
    pub label: Option<String>,
    /// When it was put on record.
    #[serde(with = "seconds")]
    pub first_seen: WallTime,
    /// When the contact was last proven on it, or when it was put on record by hand.
    #[serde(with = "seconds")]
    pub last_seen: WallTime,
    /// The contact is accepted from this machine, and from no other that is not pinned too.
    pub pinned: bool,
    /// Where a card said that it may be reached; at most [`MAX_ADDRESSES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<SocketAddr>,
}

impl MachineRecord {
    pub(crate) const fn new(machine_id: MachineId, now: WallTime) -> Self {
        Self {
            machine_id,
            label: None,
            first_seen: now,
            last_seen: now,
            pinned: false,
            addresses: Vec::new(),
        }
    }
}

/// Where an agent runs, by its own signed bindings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sighting {
    /// The greatest generation of its bindings: see
    /// [`AgentBinding::generation`](x0x_identity::AgentBinding::generation).
    pub generation: u64,
    /// The machines with a binding of that generation, the latest last; at most [`MAX_PLACES`].
    pub machines: Vec<MachineId>,
    /// The user who certified it, when it said so itself. Kept beyond the certificate, so that the
    /// user's revocation still counts; to be shown is [`user`](Self::user).
    pub user_id: Option<UserId>,
    /// When the certificate ends, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_until: Option<u64>,
}

impl Sighting {
    /// Whether the agent has left this machine.
    pub(crate) fn superseded(&self, machine: &MachineId) -> bool {
        self.generation > 0 && !self.machines.is_empty() && !self.machines.contains(machine)
    }

    /// The user behind the agent, while their certificate holds.
    #[must_use]
    pub fn user(&self, now: WallTime) -> Option<UserId> {
        self.user_id.filter(|_| self.user_until.is_some_and(|until| now.as_secs() < until))
    }

    pub(crate) fn certified(&mut self, user: UserId, until: WallTime) {
        let until = until.as_secs();
        let same = self.user_id == Some(user);
        self.user_until = Some(self.user_until.filter(|_| same).map_or(until, |at| at.max(until)));
        self.user_id = Some(user);
    }

    pub(crate) fn add(&mut self, machine: MachineId) {
        if self.machines.last() == Some(&machine) {
            return;
        }
        self.machines.retain(|known| *known != machine);
        if self.machines.len() >= MAX_PLACES {
            self.machines.remove(0);
        }
        self.machines.push(machine);
    }
}

/// An agent that somebody here has decided about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// The agent.
    pub agent_id: AgentId,
    /// How much it is trusted.
    pub trust_level: Level,
    /// What it is known by.
    pub identity_type: IdentityType,
    /// A name for it; at most [`MAX_LABEL`] bytes.
    pub label: Option<String>,
    /// When it became a contact.
    #[serde(with = "seconds")]
    pub added_at: WallTime,
    /// When it was last proven on any machine.
    #[serde(with = "seconds::optional")]
    pub last_seen: Option<WallTime>,
    /// Its machines; at most [`MAX_MACHINES`].
    pub machines: Vec<MachineRecord>,
    /// Where it runs now.
    pub sighting: Sighting,
}

impl Contact {
    pub(crate) const fn new(agent_id: AgentId, sighting: Sighting, now: WallTime) -> Self {
        Self {
            agent_id,
            trust_level: Level::Unknown,
            identity_type: IdentityType::Anonymous,
            label: None,
            added_at: now,
            last_seen: None,
            machines: Vec::new(),
            sighting,
        }
    }

    /// The record of a machine.
    #[must_use]
    pub fn machine(&self, machine: &MachineId) -> Option<&MachineRecord> {
        self.machines.iter().find(|record| record.machine_id == *machine)
    }

    pub(crate) fn machine_mut(&mut self, machine: &MachineId) -> Option<&mut MachineRecord> {
        self.machines.iter_mut().find(|record| record.machine_id == *machine)
    }

    /// Where the last card about the contact said that it is; where it named no address, the machine that was
    /// seen last.
    #[must_use]
    pub fn place(&self) -> Option<PeerAddr> {
        let told = self.machines.iter().find(|record| !record.addresses.is_empty());
        let place = told.or_else(|| self.machines.iter().max_by_key(|record| record.last_seen))?;
        Some(PeerAddr::known(place.machine_id, place.addresses.iter().copied()))
    }

    /// A card says that a machine on record may be reached at these addresses, at most [`MAX_ADDRESSES`]. What
    /// an earlier card said counts no longer.
    pub(crate) fn put_place(&mut self, machine: &MachineId, addresses: &[SocketAddr]) {
        for record in &mut self.machines {
            record.addresses.clear();
            if record.machine_id == *machine {
                record.addresses.extend(addresses.iter().take(MAX_ADDRESSES));
            }
        }
    }

    /// Whether the contact is accepted from this machine, as far as pins go. `None` when it is not
    /// pinned.
    pub(crate) fn pinned_to(&self, machine: &MachineId) -> Option<bool> {
        (self.identity_type == IdentityType::Pinned)
            .then(|| self.machine(machine).is_some_and(|record| record.pinned))
    }

    /// Sets the level; a contact that is raised is anonymous no longer.
    pub(crate) fn set_level(&mut self, level: Level) {
        self.trust_level = level;
        if level >= Level::Known && self.identity_type == IdentityType::Anonymous {
            self.identity_type = IdentityType::Known;
        }
    }

    /// Whether a machine can be put on record: not when all others are pinned.
    pub(crate) fn has_room(&self) -> bool {
        self.machines.len() < MAX_MACHINES || self.machines.iter().any(|record| !record.pinned)
    }

    /// Puts a machine on record, if there is [room](Self::has_room).
    pub(crate) fn add_machine(&mut self, record: MachineRecord) {
        if self.machines.len() >= MAX_MACHINES {
            let free = self.machines.iter().enumerate().filter(|(_, record)| !record.pinned);
            let Some((oldest, _)) = free.min_by_key(|(_, record)| record.last_seen) else { return };
            self.machines.remove(oldest);
        }
        self.machines.push(record);
    }

    /// Puts a machine on record again on which the contact is known to run.
    pub(crate) fn recall(&mut self, machine: MachineId, now: WallTime) {
        let runs_there = self.sighting.machines.contains(&machine);
        if runs_there && self.machine(&machine).is_none() && self.has_room() {
            self.add_machine(MachineRecord::new(machine, now));
        }
    }

    /// The contact was proven on a machine.
    pub(crate) fn seen_on(&mut self, machine: MachineId, now: WallTime) {
        self.last_seen = self.last_seen.max(Some(now));
        if let Some(record) = self.machine_mut(&machine) {
            record.last_seen = record.last_seen.max(now);
            return;
        }
        // Without room it is not put on record, which changes no decision.
        self.add_machine(MachineRecord::new(machine, now));
    }
}

//! What is known of one agent's presence.

use std::{collections::BTreeSet, time::Duration};

use x0x_core::{AgentId, MachineId, Tick, WallTime};

use crate::{
    chain::Value,
    config::PresenceConfig,
    detector::Detector,
    session::SignedSession,
    wire::{Beacon, Sighting},
};

/// Whether an agent is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum PresenceState {
    /// Nothing was ever seen of it.
    #[default]
    Unknown,
    /// It was there and is gone.
    Offline,
    /// It is overdue: it may be gone.
    Away,
    /// It is there.
    Online,
}

impl PresenceState {
    /// Online, or merely overdue.
    #[must_use]
    pub fn is_present(self) -> bool {
        self >= Self::Away
    }
}

/// What is known of an agent's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The agent.
    pub agent: AgentId,
    /// The machine of its session, if that is known.
    pub machine: Option<MachineId>,
    /// Whether it is there.
    pub state: PresenceState,
    /// When it was last known to be there, by this machine's clock; zero when it never was.
    pub last_seen: WallTime,
    /// Whether there is a session with it.
    pub reachable: bool,
}

impl Status {
    /// Of an agent that nothing is known of.
    #[must_use]
    pub const fn unknown(agent: AgentId) -> Self {
        let (state, last_seen) = (PresenceState::Unknown, WallTime::from_millis(0));
        Self { agent, machine: None, state, last_seen, reachable: false }
    }
}

/// A session record and how far its chain was revealed.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) record: SignedSession,
    pub(super) index: u32,
    pub(super) value: Value,
    /// The goodbye, once it was said.
    pub(super) farewell: Option<Value>,
}

impl Known {
    pub(super) const fn new(record: SignedSession) -> Self {
        let value = record.session().anchor();
        Self { record, index: 0, value, farewell: None }
    }

    /// The latest that can be told, and what marks it as told.
    pub(super) fn latest(&self) -> Option<(Beacon, u32)> {
        let session = self.record.id();
        match self.farewell {
            Some(value) => Some((Beacon { session, index: 0, value }, u32::MAX)),
            None if self.index == 0 => None,
            None => Some((Beacon { session, index: self.index, value: self.value }, self.index)),
        }
    }

    /// For the answer to a walk.
    pub(super) fn sighting(&self) -> Option<Sighting> {
        let (beacon, _) = self.latest()?;
        Some(Sighting { record: self.record.encode(), beacon })
    }
}

/// One agent.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) agent: AgentId,
    pub(super) known: Option<Known>,
    /// Sessions in which it is proven.
    pub(super) links: BTreeSet<MachineId>,
    pub(super) detector: Detector,
    /// The last beacon that counted as a sign of life, since a session with it began.
    pub(super) heard: Option<Tick>,
    /// That came as an answer to a walk; nobody near goes on telling.
    pub(super) glimpsed: bool,
    /// When it was last tried to reach it, lest it be taken for gone wrongly.
    pub(super) probed: Option<Tick>,
    /// When the last session with it ended.
    pub(super) lost: Option<Tick>,
    /// Who brought the last sign of life.
    pub(super) via: Option<MachineId>,
    pub(super) left: bool,
    pub(super) last_seen: WallTime,
    pub(super) machine: Option<MachineId>,
    pub(super) state: PresenceState,
    /// What the application was told.
    pub(super) told: PresenceState,
    /// When the verdict may change.
    pub(super) due: Option<Tick>,
}

impl Subject {
    pub(super) const fn new(agent: AgentId, period: Duration) -> Self {
        Self {
            agent,
            known: None,
            links: BTreeSet::new(),
            detector: Detector::new(period),
            heard: None,
            glimpsed: false,
            probed: None,
            lost: None,
            via: None,
            left: false,
            last_seen: WallTime::from_millis(0),
            machine: None,
            state: PresenceState::Unknown,
            told: PresenceState::Unknown,
            due: None,
        }
    }

    /// A session with it begins: the best sign of life.
    pub(super) fn linked(&mut self, peer: MachineId, wall: WallTime) {
        self.links.insert(peer);
        self.machine = Some(peer);
        (self.heard, self.lost, self.left) = (None, None, false);
        self.last_seen = self.last_seen.max(wall);
    }

    /// A session with it ended.
    pub(super) fn unlinked(&mut self, now: Tick, peer: MachineId, wall: WallTime) {
        if self.links.remove(&peer) && self.links.is_empty() {
            self.lost = Some(now);
            self.last_seen = self.last_seen.max(wall);
        }
    }

    /// Takes a newer session's record; false when the one that is known is as new.
    pub(super) fn adopt(&mut self, record: SignedSession) -> bool {
        let session = record.session();
        let newest = self.known.as_ref().is_none_or(|known| {
            known.record.id() != record.id() && known.record.session().started <= session.started
        });
        if newest {
            self.detector = Detector::new(session.period);
            self.machine = Some(session.machine);
            self.left = false;
            self.known = Some(Known::new(record));
        }
        newest
    }

    /// A session with it does not count any more, as if there were none.
    pub(super) fn disown_link(&mut self, peer: MachineId) {
        if self.links.remove(&peer) && self.machine == Some(peer) {
            let known = self.known.as_ref().map(|known| known.record.session().machine);
            self.machine = self.links.first().copied().or(known);
        }
    }

    /// What its session said does not count any more, as if it had never been heard.
    pub(super) fn disown(&mut self) -> Option<Known> {
        let known = self.known.take()?;
        let on = known.record.session();
        self.detector = Detector::new(on.period);
        (self.heard, self.via) = (None, None);
        (self.left, self.glimpsed) = (false, false);
        if self.machine == Some(on.machine) {
            self.machine = self.links.first().copied();
        }
        Some(known)
    }

    /// Whether it is there, and when that may change without news.
    pub(super) fn verdict(
        &self,
        now: Tick,
        config: &PresenceConfig,
    ) -> (PresenceState, Option<Tick>) {
        use PresenceState::{Away, Offline, Online, Unknown};
        if self.left {
            return (Offline, None);
        }
        let (suspect, mut condemn) = self.detector.bounds();
        if self.glimpsed {
            // The next walk may see it again; silence until then says nothing, unless it was looked for.
            let sought = self.probed.is_some() && self.probed >= self.heard;
            let patience = if sought { self.detector.longest() } else { config.walk_interval * 2 };
            condemn = condemn.max(patience);
        }
        match (self.links.is_empty(), self.heard, self.lost) {
            (false, None, _) => (Online, None),
            (false, Some(heard), _) if now < heard + suspect => (Online, Some(heard + suspect)),
            // The session lives, but whoever speaks for the agent does not.
            (false, Some(_), _) => (Away, None),
            (true, heard, Some(lost)) if heard.is_none_or(|heard| heard <= lost) => {
                let end = lost + config.grace;
                if now < end { (Away, Some(end)) } else { (Offline, None) }
            }
            (true, Some(heard), _) if now < heard + suspect => (Online, Some(heard + suspect)),
            (true, Some(heard), _) if now < heard + condemn => (Away, Some(heard + condemn)),
            (true, None, _) if self.known.is_none() => (Unknown, None),
            (true, _, _) => (Offline, None),
        }
    }

    /// This node slept: nothing that happened meanwhile was the other's fault.
    pub(super) fn pardon(&mut self, late: Duration, now: Tick) {
        for at in [&mut self.heard, &mut self.lost].into_iter().flatten() {
            *at = (*at + late).min(now);
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            agent: self.agent,
            machine: self.machine,
            state: self.state,
            last_seen: self.last_seen,
            reachable: !self.links.is_empty(),
        }
    }
}

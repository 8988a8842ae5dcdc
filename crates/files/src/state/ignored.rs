//! Offers of agents that trust denies: answered as if nobody had looked at them yet, so that who is denied
//! hears what a stranger would. Nothing is kept of them but their ids.

use std::collections::BTreeMap;

use x0x_core::{AgentId, MachineId, Tick};
use x0x_trust::Action;

use super::FilesMachine;
use crate::{
    config::MAX_OFFERS_PER_STRANGER,
    id::TransferId,
    wire::{OfferIn, Standing, Status},
};

/// Machines whose offers are told apart. The one that offered longest ago makes room, and is told of none
/// then: what it hears on a new session is less than a stranger would.
pub(super) const MAX_IGNORED_MACHINES: usize = 256;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Ignored {
    machines: BTreeMap<MachineId, Of>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Of {
    last: u64,
    offers: BTreeMap<TransferId, AgentId>,
}

impl Ignored {
    pub(super) const fn new() -> Self {
        Self { machines: BTreeMap::new(), clock: 0 }
    }

    fn of(&self, peer: MachineId) -> impl Iterator<Item = (&TransferId, &AgentId)> {
        self.machines.get(&peer).into_iter().flat_map(|of| &of.offers)
    }

    fn contains(&self, peer: MachineId, id: &TransferId) -> bool {
        self.of(peer).any(|(known, _)| known == id)
    }

    /// How many an agent on a machine has.
    pub(super) fn count(&self, peer: MachineId, agent: &AgentId) -> usize {
        self.of(peer).filter(|(_, of)| *of == agent).count()
    }

    fn insert(&mut self, peer: MachineId, id: TransferId, agent: AgentId) {
        self.clock += 1;
        let oldest = self.machines.iter().min_by_key(|(_, of)| of.last).map(|(peer, _)| *peer);
        if self.machines.len() >= MAX_IGNORED_MACHINES
            && !self.machines.contains_key(&peer)
            && let Some(oldest) = oldest
        {
            self.machines.remove(&oldest);
        }
        let of = self.machines.entry(peer).or_default();
        of.last = self.clock;
        of.offers.insert(id, agent);
    }

    fn remove(&mut self, peer: MachineId, id: &TransferId) {
        if let Some(of) = self.machines.get_mut(&peer) {
            of.offers.remove(id);
            if of.offers.is_empty() {
                self.machines.remove(&peer);
            }
        }
    }
}

/// What a stranger hears whose offer nobody has looked at yet.
pub(super) const fn unseen(id: TransferId) -> Status {
    Status { id, standing: Standing::Offered, verified: 0, reason: String::new() }
}

impl FilesMachine {
    /// Answers an offer that is not known of an agent that is denied on this machine.
    pub(super) fn ignore(&mut self, now: Tick, peer: MachineId, offer: &OfferIn) {
        if !self.ignored.contains(peer, &offer.id) {
            // At most as many as a stranger may have, of each agent that the session proves.
            debug_assert!(self.ignored.count(peer, &offer.from) < MAX_OFFERS_PER_STRANGER);
            self.ignored.insert(peer, offer.id, offer.from);
            return self.send_status(peer, unseen(offer.id));
        }
        let session = self.sessions.get_mut(&peer);
        if session.is_none_or(|session| !session.repeats.take(now)) {
            return self.metrics.refused_rate.inc();
        }
        self.send_status(peer, unseen(offer.id));
    }

    /// Whether a machine offered this for nothing, and trust still denies its agent there.
    pub(super) fn is_ignored(&self, peer: MachineId, id: &TransferId) -> bool {
        self.ignored.of(peer).any(|(known, agent)| known == id && self.denies(peer, agent))
    }

    /// The sender says how such a transfer stands; false when it is none. One that ended leaves no trace.
    pub(super) fn heard_of_ignored(
        &mut self,
        peer: MachineId,
        id: &TransferId,
        pending: bool,
    ) -> bool {
        let ignored = self.is_ignored(peer, id);
        if ignored && !pending {
            self.ignored.remove(peer, id);
        }
        ignored
    }

    /// A machine came up: it hears of its offers, as a stranger would.
    pub(super) fn meet_ignored(&mut self, peer: MachineId) {
        let of = self.ignored.of(peer);
        let (still, over): (Vec<_>, Vec<_>) =
            of.map(|(id, agent)| (*id, *agent)).partition(|(_, agent)| self.denies(peer, agent));
        for (id, _) in over {
            self.ignored.remove(peer, &id);
        }
        let Some(session) = self.sessions.get(&peer) else { return };
        let proven = |(_, agent): &(TransferId, AgentId)| session.agents.contains(agent);
        let told: Vec<_> = still.into_iter().filter(proven).map(|(id, _)| id).collect();
        for id in told {
            self.send_status(peer, unseen(id));
        }
    }

    fn denies(&self, peer: MachineId, agent: &AgentId) -> bool {
        !self.policy.decide(agent, Some(&peer), Action::FileOffer).allowed()
    }
}

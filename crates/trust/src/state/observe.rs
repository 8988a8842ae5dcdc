//! What sessions and announcements show: where agents run, and who stands behind them.

use std::cmp::Ordering;

use super::*;

/// What a verified binding tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Observation {
    /// The agent runs there.
    Current,
    /// It moved there, from where it was before.
    Moved,
    /// It has moved elsewhere since: the binding is of the past and is to be refused.
    Superseded,
    /// It says that it moved, but it is pinned to other machines: refused until somebody changes the
    /// pin.
    Refused,
}

impl TrustState {
    /// A binding was verified: the agent runs on a machine. Nobody becomes a contact by this.
    pub fn observe(
        &mut self,
        binding: &AgentBinding,
        now: WallTime,
        events: &mut Vec<TrustEvent>,
    ) -> Observation {
        let AgentBinding { agent, machine, generation, .. } = *binding;
        let Some(contact) = self.contacts.get_mut(&agent) else {
            let mut sighting = self.strangers.get(&agent).cloned().unwrap_or_default();
            let from = sighting.machines.last().copied();
            let observation = take(&mut sighting, machine, generation);
            self.remember(agent, sighting);
            if observation == Observation::Moved {
                events.push(TrustEvent::Moved { agent, from, to: machine, refused: false });
            }
            return observation;
        };
        let from = contact.sighting.machines.last().copied();
        let newer = generation > contact.sighting.generation;
        if contact.pinned_to(&machine) == Some(false) {
            let told =
                self.refused_moves.get(&agent).is_some_and(|(before, _)| *before >= generation);
            if newer && !told {
                self.refused_moves.insert(agent, (generation, machine));
                events.push(TrustEvent::Moved { agent, from, to: machine, refused: true });
            }
            return Observation::Refused;
        }
        let observation = take(&mut contact.sighting, machine, generation);
        if observation != Observation::Superseded {
            contact.seen_on(machine, now);
        }
        if observation == Observation::Moved {
            events.push(TrustEvent::Moved { agent, from, to: machine, refused: false });
        }
        observation
    }

    /// An agent showed a verified certificate of its user, which ends at `until`.
    pub fn observe_user(&mut self, agent: AgentId, user: UserId, until: WallTime) {
        if let Some(contact) = self.contacts.get_mut(&agent) {
            contact.sighting.certified(user, until);
            return;
        }
        let mut sighting = self.strangers.get(&agent).cloned().unwrap_or_default();
        sighting.certified(user, until);
        self.remember(agent, sighting);
    }

    /// Keeps a stranger's whereabouts.
    pub(super) fn remember(&mut self, agent: AgentId, sighting: Sighting) {
        if self.strangers.insert(agent, sighting).is_some() {
            return;
        }
        self.order.push_back(agent);
        if self.order.len() > MAX_STRANGERS
            && let Some(first) = self.order.pop_front()
        {
            self.strangers.remove(&first);
        }
    }
}

fn take(sighting: &mut Sighting, machine: MachineId, generation: u64) -> Observation {
    match generation.cmp(&sighting.generation) {
        Ordering::Less => Observation::Superseded,
        Ordering::Equal => {
            sighting.add(machine);
            Observation::Current
        }
        Ordering::Greater => {
            let moved = !sighting.machines.is_empty() && sighting.machines != [machine];
            sighting.generation = generation;
            sighting.machines = vec![machine];
            if moved { Observation::Moved } else { Observation::Current }
        }
    }
}

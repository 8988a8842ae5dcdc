//! Which machine to send to for an agent: an index over the sessions that are up, so that a send does
//! not look through all of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{PoisonError, RwLock},
};

use x0x_core::{AgentId, MachineId};

/// The index. As large as the sessions and the agents that each proved; written by the driver alone.
#[derive(Debug, Default)]
pub(crate) struct Routes(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    machines: HashMap<AgentId, BTreeSet<MachineId>>,
    agents: HashMap<MachineId, Vec<AgentId>>,
}

impl Routes {
    /// A session with a machine that proved these agents begins.
    pub(crate) fn up(&self, machine: MachineId, agents: &[AgentId]) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.forget(machine);
        for agent in agents {
            state.machines.entry(*agent).or_default().insert(machine);
        }
        state.agents.insert(machine, agents.to_vec());
    }

    /// The session with a machine ended.
    pub(crate) fn down(&self, machine: MachineId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).forget(machine);
    }

    /// A machine whose session proved the agent: the one with the lowest id.
    pub(crate) fn machine_of(&self, agent: AgentId) -> Option<MachineId> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        state.machines.get(&agent)?.first().copied()
    }
}

impl State {
    fn forget(&mut self, machine: MachineId) {
        for agent in self.agents.remove(&machine).unwrap_or_default() {
            let Some(machines) = self.machines.get_mut(&agent) else { continue };
            machines.remove(&machine);
            if machines.is_empty() {
                self.machines.remove(&agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{agent, machine};

    #[test]
    fn the_index_follows_the_sessions() {
        let routes = Routes::default();
        routes.up(machine(2), &[agent(1), agent(2)]);
        routes.up(machine(1), &[agent(1)]);
        assert_eq!(routes.machine_of(agent(1)), Some(machine(1)));
        assert_eq!(routes.machine_of(agent(2)), Some(machine(2)));
        routes.down(machine(1));
        assert_eq!(routes.machine_of(agent(1)), Some(machine(2)));
        // A session in the place of another one, with other agents.
        routes.up(machine(2), &[agent(3)]);
        assert_eq!(routes.machine_of(agent(1)), None);
        assert_eq!(routes.machine_of(agent(3)), Some(machine(2)));
        routes.down(machine(2));
        routes.down(machine(2));
        let state = routes.0.read().expect("not poisoned");
        assert!(state.machines.is_empty() && state.agents.is_empty());
    }
}

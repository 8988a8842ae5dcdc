//! How often agents that cannot be reached where they are known to be are looked for.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use x0x_core::{AgentId, Tick};

/// Most agents remembered; the one that may be looked for soonest is forgotten.
const MAX_SOUGHT: usize = 1024;
/// Pauses between the searches for one agent: doubled each time, until it was reached.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LAST_PAUSE: Duration = Duration::from_secs(600);

/// When each agent may be looked for again. Every layer that wants to reach an agent asks for a search, and
/// a search costs the network dozens of dials: an agent that is away must not cost them at each attempt.
#[derive(Debug, Default)]
pub(crate) struct Sought(Mutex<BTreeMap<AgentId, Turn>>);

#[derive(Debug, Clone, Copy)]
struct Turn {
    at: Tick,
    pause: Duration,
}

impl Sought {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AgentId, Turn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an agent may be looked for now; if so, this is the search.
    pub(crate) fn take(&self, now: Tick, agent: AgentId) -> bool {
        let mut turns = self.lock();
        if let Some(turn) = turns.get_mut(&agent) {
            let due = turn.at <= now;
            if due {
                turn.at = now + turn.pause;
                turn.pause = (turn.pause * 2).min(LAST_PAUSE);
            }
            return due;
        }
        if turns.len() >= MAX_SOUGHT
            && let Some(first) = turns.iter().min_by_key(|(_, turn)| turn.at).map(|(of, _)| *of)
        {
            turns.remove(&first);
        }
        turns.insert(agent, Turn { at: now + FIRST_PAUSE, pause: FIRST_PAUSE * 2 });
        true
    }

    /// An agent was reached: the next time that it is lost is another one.
    pub(crate) fn reached(&self, agent: &AgentId) {
        self.lock().remove(agent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(n: u64) -> AgentId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        AgentId::new(id)
    }

    #[test]
    fn one_agent_is_looked_for_more_and_more_seldom_until_it_was_reached() {
        let sought = Sought::default();
        let searches = |from: u64, to: u64| {
            let seconds = (from..to).map(|second| Tick::from_millis(second * 1000));
            seconds.filter(|now| sought.take(*now, agent(1))).count()
        };
        assert_eq!(searches(0, 300), 5, "at 0, 10, 30, 70 and 150 seconds");
        assert_eq!(searches(86_400, 2 * 86_400), 145, "after 320 seconds, then every ten minutes");
        sought.reached(&agent(1));
        assert_eq!(searches(172_800, 172_830), 2);
    }

    #[test]
    fn many_agents_take_no_more_room_than_there_is() {
        let (sought, now) = (Sought::default(), Tick::from_millis(1000));
        assert!(sought.take(now + FIRST_PAUSE, agent(0)));
        for n in 1..5000 {
            assert!(sought.take(now, agent(n)));
        }
        assert_eq!(sought.lock().len(), MAX_SOUGHT);
        assert!(!sought.take(now + FIRST_PAUSE, agent(0)), "who waits longest stays");
    }
}

//! Who holds a task: what was done with it, replayed in the order of the operations' times.
//!
//! The steps are kept, sorted, and the present follows from them alone. So replicas with the same steps
//! agree whatever came first, and a claim that turns out to have been forestalled is found out as lost
//! the moment the earlier one arrives.

use std::time::Duration;

use x0x_core::{AgentId, WallTime};

use crate::Stamp;

/// Most steps of one task. The earliest are kept: further ones are without effect, on every replica,
/// and are refused where they are made.
pub const MAX_STEPS: usize = 1024;
/// The shortest lease.
pub const MIN_LEASE: Duration = Duration::from_secs(1);
/// The longest lease.
pub const MAX_LEASE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The lease of a claim that names none.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(3600);

/// What an agent does with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Takes it, for this long from the operation's time on.
    Claim(Duration),
    /// Holds it for this long from the operation's time on; of its holder only.
    Renew(Duration),
    /// Gives it back; of its holder only.
    Release,
    /// Says that it is done. Somebody must hold it, or have held it last.
    Complete,
    /// Opens it again after it was done.
    Reopen,
}

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Phase {
    /// Nobody holds it.
    #[default]
    Open,
    /// Somebody holds it, or let the lease pass while nobody else claimed it.
    Held {
        /// Who.
        agent: AgentId,
        /// Since when.
        since: WallTime,
        /// Until when; who claims it from then on holds it.
        until: WallTime,
    },
    /// It is done.
    Done {
        /// Who says so.
        agent: AgentId,
        /// When.
        at: WallTime,
    },
}

impl Phase {
    /// What a step at this time makes of it; none when it has no effect.
    pub(crate) fn after(self, agent: AgentId, time: WallTime, action: Action) -> Option<Self> {
        match (self, action) {
            (Self::Open, Action::Claim(lease)) => {
                Some(Self::Held { agent, since: time, until: time + lease })
            }
            (
                Self::Held { agent: holder, since, until },
                Action::Claim(lease) | Action::Renew(lease),
            ) if holder == agent => {
                Some(Self::Held { agent, since, until: until.max(time + lease) })
            }
            (Self::Held { until, .. }, Action::Claim(lease)) if until <= time => {
                Some(Self::Held { agent, since: time, until: time + lease })
            }
            (Self::Held { agent: holder, .. }, Action::Release) if holder == agent => {
                Some(Self::Open)
            }
            (Self::Held { .. }, Action::Complete) => Some(Self::Done { agent, at: time }),
            (Self::Done { .. }, Action::Reopen) => Some(Self::Open),
            _ => None,
        }
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub stamp: Stamp,
    /// By whom.
    pub author: AgentId,
    /// What.
    pub action: Action,
    /// Whether it took effect.
    pub applied: bool,
}

impl Step {
    /// Its time by itself.
    #[must_use]
    pub const fn time(&self) -> WallTime {
        WallTime::from_millis(self.stamp.millis)
    }
}

/// The steps of a task in the order of their times, and the present that follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Life {
    steps: Vec<Step>,
    phase: Phase,
}

impl Life {
    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.steps.len() >= MAX_STEPS
    }

    /// Agents whose claims of what is held now did not hold.
    pub(crate) fn lost(&self) -> Vec<AgentId> {
        let Phase::Held { agent: holder, since, .. } = self.phase else { return Vec::new() };
        let lost = |step: &&Step| {
            let claim = matches!(step.action, Action::Claim(_));
            claim && !step.applied && step.time() >= since && step.author != holder
        };
        let mut agents: Vec<_> = self.steps.iter().filter(lost).map(|step| step.author).collect();
        agents.sort_unstable();
        agents.dedup();
        agents
    }

    /// Adds a step. Gives those that it changed, itself among them unless it was too many: each as it
    /// is now.
    pub(crate) fn insert(&mut self, stamp: Stamp, author: AgentId, action: Action) -> Vec<Step> {
        let place = self.steps.partition_point(|step| step.stamp < stamp);
        if self.steps.get(place).is_some_and(|step| step.stamp == stamp) || place >= MAX_STEPS {
            return Vec::new();
        }
        self.steps.insert(place, Step { stamp, author, action, applied: false });
        self.steps.truncate(MAX_STEPS);
        let start = if place + 1 == self.steps.len() { place } else { 0 };
        let mut phase = if start == 0 { Phase::Open } else { self.phase };
        let mut changed = Vec::new();
        for (index, step) in self.steps.iter_mut().enumerate().skip(start) {
            let next = phase.after(step.author, step.time(), step.action);
            let applied = next.is_some();
            phase = next.unwrap_or(phase);
            if index == place || applied != step.applied {
                step.applied = applied;
                changed.push(*step);
            }
        }
        self.phase = phase;
        changed
    }

    /// The life of these steps. Those that are no steps of a life in order are refused.
    pub(crate) fn restore(steps: Vec<(Stamp, AgentId, Action)>) -> Option<Self> {
        let sorted = steps.is_sorted_by(|one, two| one.0 < two.0);
        if steps.len() > MAX_STEPS || !sorted {
            return None;
        }
        let mut life = Self::default();
        for (stamp, author, action) in steps {
            life.insert(stamp, author, action);
        }
        Some(life)
    }
}

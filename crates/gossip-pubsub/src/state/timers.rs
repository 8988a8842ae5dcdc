//! Which timers there are, and what runs when they are due.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use x0x_core::{MachineId, Tick, TopicId};

use super::PubSubMachine;

/// How often congestion is looked at while there is some.
pub(super) const CONGESTION: Duration = Duration::from_millis(500);

/// How often retention by age is looked at, at most.
pub(super) const SWEEP: Duration = Duration::from_secs(60);

/// How often a mode with a floor of eager links enforces it.
pub(super) const ENFORCE: Duration = Duration::from_secs(1);

/// A timer; there is at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Heads are to be announced on a link.
    Heads(MachineId),
    /// A link may go on that had sent as much as it may.
    Throttle(MachineId),
    /// A topic without subscribers may be dropped.
    Grace(TopicId),
    /// The oldest of a topic may be past the retention.
    Age(TopicId),
    /// The oldest ephemeral run of a topic is to go.
    Ephemeral(TopicId),
    /// A congested topic may be so no more.
    Congestion(TopicId),
    /// A topic is to be compared with a link, as it regularly is.
    Reconcile(TopicId),
    /// A topic is to be compared with a link once more.
    Compare(TopicId),
    /// A topic may have too few links.
    Search(TopicId),
    /// The store is told what is past the retention.
    Expire,
    /// The floor of eager links is enforced.
    Enforce,
}

/// The timers in the order in which they are due. At most a few for each topic and link.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Tick, Timer)>,
    at: BTreeMap<Timer, Tick>,
}

impl Timers {
    /// Sets a timer, in place of the same one that waits.
    pub(super) fn set(&mut self, at: Tick, timer: Timer) {
        if let Some(before) = self.at.insert(timer, at) {
            self.due.remove(&(before, timer));
        }
        self.due.insert((at, timer));
    }

    /// Sets a timer unless it waits already.
    pub(super) fn once(&mut self, at: Tick, timer: Timer) {
        if !self.at.contains_key(&timer) {
            self.set(at, timer);
        }
    }

    /// The topic is gone, and with it what was to be done about it.
    pub(super) fn drop_topic(&mut self, topic: TopicId) {
        let all: [fn(TopicId) -> Timer; 7] = [
            Timer::Grace,
            Timer::Age,
            Timer::Ephemeral,
            Timer::Congestion,
            Timer::Reconcile,
            Timer::Compare,
            Timer::Search,
        ];
        all.into_iter().for_each(|timer| self.cancel(timer(topic)));
    }

    /// The link is gone.
    pub(super) fn drop_link(&mut self, peer: MachineId) {
        self.cancel(Timer::Heads(peer));
        self.cancel(Timer::Throttle(peer));
    }

    fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    pub(super) fn next(&self) -> Option<Tick> {
        self.due.first().map(|(at, _)| *at)
    }

    fn pop(&mut self, now: Tick) -> Option<Timer> {
        self.due.first().filter(|(at, _)| *at <= now)?;
        let (_, timer) = self.due.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }
}

impl PubSubMachine {
    pub(super) fn run_timers(&mut self) {
        while let Some(timer) = self.timers.pop(self.now) {
            match timer {
                Timer::Heads(peer) => self.wake_link(peer),
                Timer::Throttle(peer) => self.resume(peer),
                Timer::Grace(topic) => self.drop_unused(&topic),
                Timer::Age(topic) => self.sweep_age(&topic),
                Timer::Ephemeral(topic) => self.expire_ephemeral(&topic),
                Timer::Congestion(topic) => self.update_congestion(&topic),
                Timer::Reconcile(topic) => self.reconcile(&topic),
                Timer::Compare(topic) => self.compare(&topic),
                Timer::Search(topic) => self.search(&topic),
                Timer::Expire => self.expire_stored(),
                Timer::Enforce => self.enforce_floor(),
            }
        }
        while let Some(key) = self.missing.due(self.now) {
            self.overdue(key);
        }
    }

    /// Lets a link go on that had sent as much as it may.
    fn resume(&mut self, peer: MachineId) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.throttle_at = None;
            link.runs_throttled = false;
            link.topics_throttled = false;
        }
        self.wake_link(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_is_set_again_runs_once() {
        let topic = TopicId::new([1; 32]);
        let (mut timers, timer) = (Timers::default(), Timer::Search(topic));
        (1..100).for_each(|n| timers.set(Tick::from_millis(n), timer));
        timers.once(Tick::from_millis(1), timer);
        timers.once(Tick::from_millis(5), Timer::Age(topic));
        assert_eq!(timers.next(), Some(Tick::from_millis(5)));
        assert_eq!(timers.pop(Tick::from_millis(5)), Some(Timer::Age(topic)));
        assert_eq!(timers.pop(Tick::from_millis(98)), None);
        assert_eq!(timers.pop(Tick::from_millis(99)), Some(timer));
        timers.set(Tick::ZERO, Timer::Grace(topic));
        timers.drop_topic(topic);
        assert_eq!((timers.next(), timers.len(), timers.at.len()), (None, 0, 0));
    }
}

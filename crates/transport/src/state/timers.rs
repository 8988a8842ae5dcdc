//! Named timers in time order.

use std::collections::{BTreeMap, BTreeSet};

use x0x_core::Tick;

/// One timer per name; bounded by what the names stand for.
#[derive(Debug)]
pub(super) struct Timers<T: Ord + Copy> {
    due: BTreeMap<T, Tick>,
    order: BTreeSet<(Tick, T)>,
}

impl<T: Ord + Copy> Timers<T> {
    pub(super) fn new() -> Self {
        Self { due: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Sets or moves a timer.
    pub(super) fn set(&mut self, name: T, at: Tick) {
        self.cancel(name);
        self.due.insert(name, at);
        self.order.insert((at, name));
    }

    pub(super) fn cancel(&mut self, name: T) {
        if let Some(at) = self.due.remove(&name) {
            self.order.remove(&(at, name));
        }
    }

    /// When a timer is due, if it is set.
    pub(super) fn at(&self, name: T) -> Option<Tick> {
        self.due.get(&name).copied()
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
        self.order.clear();
    }

    pub(super) fn next(&self) -> Option<Tick> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the first timer due at `now`.
    pub(super) fn pop_due(&mut self, now: Tick) -> Option<T> {
        let (at, name) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.cancel(name);
        Some(name)
    }
}

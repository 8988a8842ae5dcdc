//! The machine between: contexts that join two others.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use x0x_core::{MachineId, Tick};

use super::{
    ANSWER_TIME, Leg, Output, Received, RelayConfig, RelayMetrics, close, legs_of, next_name,
};
use crate::wire::{ContextId, RelayRefusal, RelayStep};

#[derive(Debug)]
struct Context {
    /// Who asked, and who was asked.
    legs: [Leg; 2],
    open: bool,
}

/// All contexts between others.
#[derive(Debug)]
pub(super) struct Server {
    local: MachineId,
    config: RelayConfig,
    metrics: Arc<RelayMetrics>,
    contexts: BTreeMap<u64, Context>,
    /// The context of each end.
    legs: BTreeMap<Leg, u64>,
    /// Those that are not open, and when they are given up.
    waiting: BTreeMap<u64, Tick>,
    last: ContextId,
    last_number: u64,
}

impl Server {
    pub(super) fn new(local: MachineId, config: RelayConfig, metrics: Arc<RelayMetrics>) -> Self {
        let (contexts, legs, waiting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { local, config, metrics, contexts, legs, waiting, last: 1, last_number: 0 }
    }

    /// Contexts that a machine asked for; with one peer, if it is given.
    fn asked_by(&self, client: MachineId, with: Option<MachineId>) -> usize {
        let asked = legs_of(&self.legs, client).filter(|((_, name), _)| name % 2 == 0);
        let contexts = asked.filter_map(|(_, number)| self.contexts.get(number));
        contexts.filter(|context| with.is_none_or(|peer| context.legs[1].0 == peer)).count()
    }

    pub(super) fn open(
        &mut self,
        out: &mut VecDeque<Output>,
        now: Tick,
        received: &Received,
        leg: Leg,
        target: MachineId,
    ) {
        let (metrics, config) = (&self.metrics, &self.config);
        let full = self.contexts.len() >= config.max_contexts
            || self.asked_by(leg.0, None) >= config.max_contexts_per_client
            || self.asked_by(leg.0, Some(target)) >= config.max_contexts_per_pair;
        let (counter, why) = if self.legs.contains_key(&leg) {
            return metrics.refused_name.inc();
        } else if !config.enabled {
            (&metrics.refused_off, RelayRefusal::Unwilling)
        } else if target == self.local || target == leg.0 {
            (&metrics.refused_self, RelayRefusal::Unwilling)
        } else if received.named.is_none() {
            (&metrics.refused_not_connected, RelayRefusal::NotConnected)
        } else if !received.direct || received.named == Some(false) {
            (&metrics.refused_nested, RelayRefusal::Nested)
        } else if !received.willing {
            (&metrics.refused_unwilling, RelayRefusal::Unwilling)
        } else if full {
            (&metrics.refused_limit, RelayRefusal::Limit)
        } else {
            let legs = &self.legs;
            let context = next_name(&mut self.last, |name| legs.contains_key(&(target, name)));
            self.last_number += 1;
            let (number, other) = (self.last_number, (target, context));
            self.waiting.insert(number, now + ANSWER_TIME);
            self.contexts.insert(number, Context { legs: [leg, other], open: false });
            self.legs.extend([(leg, number), (other, number)]);
            let step = RelayStep::Incoming { context, from: leg.0 };
            return out.push_back(Output::Send { to: target, step });
        };
        counter.inc();
        close(out, leg, true, why);
    }

    /// The machine that was asked agrees.
    pub(super) fn accepted(&mut self, out: &mut VecDeque<Output>, leg: Leg) {
        let number = self.legs.get(&leg).copied();
        let context = number.and_then(|number| Some((number, self.contexts.get_mut(&number)?)));
        let waiting = context.filter(|(_, context)| context.legs[1] == leg);
        let Some((number, context)) = waiting else { return self.metrics.refused_unasked.inc() };
        if self.waiting.remove(&number).is_none() {
            return self.metrics.refused_unasked.inc();
        }
        context.open = true;
        self.metrics.opened.inc();
        let legs = context.legs;
        out.push_back(Output::Join { number, legs });
        let (to, context) = legs[0];
        out.push_back(Output::Send { to, step: RelayStep::Ok { context } });
    }

    /// Ends a context. Whoever ended it needs not be told.
    fn end(&mut self, out: &mut VecDeque<Output>, number: u64, by: Option<Leg>, why: RelayRefusal) {
        let Some(context) = self.contexts.remove(&number) else { return };
        self.waiting.remove(&number);
        for leg in context.legs {
            self.legs.remove(&leg);
            if by != Some(leg) {
                close(out, leg, true, why);
            }
        }
        if context.open {
            self.metrics.closed.inc();
            out.push_back(Output::Part(number));
        }
    }

    pub(super) fn closed(&mut self, out: &mut VecDeque<Output>, leg: Leg, why: RelayRefusal) {
        if let Some(number) = self.legs.get(&leg).copied() {
            self.end(out, number, Some(leg), why);
        }
    }

    pub(super) fn gone(&mut self, out: &mut VecDeque<Output>, machine: MachineId) {
        let ended: Vec<(Leg, u64)> =
            legs_of(&self.legs, machine).map(|(leg, number)| (*leg, *number)).collect();
        for (leg, number) in ended {
            self.end(out, number, Some(leg), RelayRefusal::NotConnected);
        }
    }

    pub(super) fn idle(&mut self, out: &mut VecDeque<Output>, number: u64) {
        if self.contexts.contains_key(&number) {
            self.metrics.closed_idle.inc();
            self.end(out, number, None, RelayRefusal::Idle);
        }
    }

    pub(super) fn on_timeout(&mut self, out: &mut VecDeque<Output>, now: Tick) {
        let late = self.waiting.iter().filter(|(_, until)| **until <= now);
        let late: Vec<u64> = late.map(|(number, _)| *number).collect();
        late.into_iter().for_each(|number| self.end(out, number, None, RelayRefusal::NotConnected));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.contexts.len()
    }

    pub(super) fn next(&self) -> Option<Tick> {
        self.waiting.values().min().copied()
    }
}

//! The ends of contexts: whoever asks for them, and whoever is asked.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use x0x_core::{MachineId, Tick};

use super::{
    Leg, MAX_ASKED, MAX_OWN, MAX_PER_RELAY, MAX_SOUGHT, Output, Received, RelayConfig,
    RelayMetrics, SEEK_TIME, SESSION_TIME, close, legs_of, next_name,
};
use crate::wire::{ContextId, RelayRefusal, RelayStep};

/// Machines asked at once, and the time after which a further one is asked in case these are gone.
const AT_ONCE: usize = 3;
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Sought {
    relays: VecDeque<MachineId>,
    /// When another one is asked.
    more_at: Tick,
    deadline: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A relay was asked.
    Asked,
    Open,
}

#[derive(Debug)]
pub(super) struct Own {
    peer: MachineId,
    stage: Stage,
    /// Of one that a relay brought: since when there is no session over it. The relay's word is all there is of
    /// the peer until then.
    empty_since: Option<Tick>,
}

/// All contexts of which this machine is an end.
#[derive(Debug)]
pub(super) struct Client {
    local: MachineId,
    config: RelayConfig,
    metrics: Arc<RelayMetrics>,
    sought: BTreeMap<MachineId, Sought>,
    pub(super) own: BTreeMap<Leg, Own>,
    last: ContextId,
}

impl Client {
    pub(super) fn new(local: MachineId, config: RelayConfig, metrics: Arc<RelayMetrics>) -> Self {
        let (sought, own) = (BTreeMap::new(), BTreeMap::new());
        Self { local, config, metrics, sought, own, last: 0 }
    }

    fn asked_for(&self, of: impl Fn(&ContextId) -> bool) -> usize {
        self.own.keys().filter(|(_, context)| of(context)).count()
    }

    fn over(&mut self, out: &mut VecDeque<Output>, peer: MachineId, found: Option<Leg>) {
        self.sought.remove(&peer);
        let outcome = if found.is_some() { &self.metrics.found } else { &self.metrics.failed };
        outcome.inc();
        out.push_back(Output::Over { peer, found });
    }

    pub(super) fn seek(
        &mut self,
        out: &mut VecDeque<Output>,
        now: Tick,
        peer: MachineId,
        mut relays: Vec<MachineId>,
    ) {
        if self.sought.contains_key(&peer) {
            return;
        }
        self.metrics.sought.inc();
        relays.retain(|relay| *relay != peer && *relay != self.local);
        // One that joined the two a while ago did not bring them together: the others get their time first.
        let known = |relay: &MachineId| legs_of(&self.own, *relay).any(|(_, own)| own.peer == peer);
        relays.sort_by_key(known);
        let fresh = relays.iter().filter(|relay| !known(relay)).count();
        relays.truncate(MAX_ASKED);
        if relays.is_empty() || !self.config.use_others || self.sought.len() >= MAX_SOUGHT {
            return self.over(out, peer, None);
        }
        let (relays, deadline) = (relays.into(), now + SEEK_TIME);
        self.sought.insert(peer, Sought { relays, more_at: now + PATIENCE, deadline });
        for _ in 0..fresh.clamp(1, AT_ONCE) {
            self.ask_next(out, peer);
        }
        self.give_up_if_done(out, peer);
    }

    fn ask_next(&mut self, out: &mut VecDeque<Output>, peer: MachineId) {
        let Some(sought) = self.sought.get_mut(&peer) else { return };
        let Some(relay) = sought.relays.pop_front() else { return };
        if self.asked_for(|context| context % 2 == 0) >= MAX_OWN {
            return self.metrics.refused_limit.inc();
        }
        let own = &self.own;
        let context = next_name(&mut self.last, |name| own.contains_key(&(relay, name)));
        self.own.insert((relay, context), Own { peer, stage: Stage::Asked, empty_since: None });
        let step = RelayStep::Open { context, target: peer };
        out.push_back(Output::Send { to: relay, step });
    }

    fn asked(&self, peer: MachineId) -> impl Iterator<Item = Leg> {
        let asked = self.own.iter().filter(move |(_, own)| own.peer == peer);
        asked.filter(|(_, own)| own.stage == Stage::Asked).map(|(leg, _)| *leg)
    }

    fn give_up_if_done(&mut self, out: &mut VecDeque<Output>, peer: MachineId) {
        let nobody_left = self.sought.get(&peer).is_some_and(|sought| sought.relays.is_empty());
        if nobody_left && self.asked(peer).next().is_none() {
            self.over(out, peer, None);
        }
    }

    /// Takes back what was asked of others for a peer.
    fn take_back(&mut self, out: &mut VecDeque<Output>, peer: MachineId) {
        let asked: Vec<Leg> = self.asked(peer).collect();
        for leg in asked {
            self.own.remove(&leg);
            close(out, leg, false, RelayRefusal::Over);
        }
    }

    pub(super) fn unwanted(&mut self, out: &mut VecDeque<Output>, peer: MachineId) {
        if self.sought.remove(&peer).is_some() {
            self.take_back(out, peer);
        }
    }

    /// A relay has joined this machine with the peer for which it was asked.
    pub(super) fn accepted(&mut self, out: &mut VecDeque<Output>, leg: Leg) {
        let own = self.own.get_mut(&leg).filter(|own| own.stage == Stage::Asked);
        let Some(own) = own else { return self.metrics.refused_unasked.inc() };
        own.stage = Stage::Open;
        let peer = own.peer;
        self.take_back(out, peer);
        out.push_back(Output::Open { leg, peer });
        self.over(out, peer, Some(leg));
    }

    /// There is a session over a context.
    pub(super) fn in_use(&mut self, leg: Leg) {
        if let Some(own) = self.own.get_mut(&leg) {
            own.empty_since = None;
        }
    }

    fn empty(&self) -> impl Iterator<Item = (Tick, Leg)> {
        self.own.iter().filter_map(|(leg, own)| Some((own.empty_since?, *leg)))
    }

    /// Makes room for a context that a relay brings: the oldest one without a session goes, of that relay if it has
    /// its share, else of the one that has most of them. Gives whether there is room.
    fn make_room(&mut self, out: &mut VecDeque<Output>, relay: MachineId) -> bool {
        let at_relay = legs_of(&self.own, relay).filter(|((_, name), _)| name % 2 == 1).count();
        let of = if at_relay >= MAX_PER_RELAY {
            Some(relay)
        } else if self.asked_for(|context| context % 2 == 1) >= MAX_OWN {
            let mut counts: BTreeMap<MachineId, usize> = BTreeMap::new();
            self.empty().for_each(|(_, (of, _))| *counts.entry(of).or_default() += 1);
            counts.into_iter().max_by_key(|(_, count)| *count).map(|(of, _)| of)
        } else {
            return true;
        };
        let oldest = self.empty().filter(|(_, (at, _))| Some(*at) == of).min();
        let Some((_, leg)) = oldest else { return false };
        self.metrics.evicted.inc();
        self.end(out, leg, RelayRefusal::Limit);
        true
    }

    fn end(&mut self, out: &mut VecDeque<Output>, leg: Leg, why: RelayRefusal) {
        if self.own.remove(&leg).is_some() {
            out.push_back(Output::Close(leg));
            close(out, leg, false, why);
        }
    }

    /// A relay asks on behalf of a peer.
    pub(super) fn incoming(
        &mut self,
        out: &mut VecDeque<Output>,
        now: Tick,
        received: &Received,
        leg: Leg,
        peer: MachineId,
    ) {
        let (counter, why) = if !self.config.use_others {
            (&self.metrics.refused_off, RelayRefusal::Unwilling)
        } else if peer == self.local || peer == leg.0 {
            (&self.metrics.refused_self, RelayRefusal::Unwilling)
        } else if !received.direct {
            (&self.metrics.refused_nested, RelayRefusal::Nested)
        } else if !received.willing {
            (&self.metrics.refused_unwilling, RelayRefusal::Unwilling)
        } else if self.own.contains_key(&leg) {
            return self.metrics.refused_name.inc();
        } else if !self.make_room(out, leg.0) {
            (&self.metrics.refused_limit, RelayRefusal::Limit)
        } else {
            self.metrics.accepted.inc();
            self.own.insert(leg, Own { peer, stage: Stage::Open, empty_since: Some(now) });
            out.push_back(Output::Open { leg, peer });
            let step = RelayStep::Ok { context: leg.1 };
            return out.push_back(Output::Send { to: leg.0, step });
        };
        counter.inc();
        close(out, leg, false, why);
    }

    /// A relay refused, or ended a context.
    pub(super) fn closed(&mut self, out: &mut VecDeque<Output>, leg: Leg) {
        let Some(own) = self.own.remove(&leg) else { return };
        match own.stage {
            Stage::Open => out.push_back(Output::Close(leg)),
            Stage::Asked => {
                self.ask_next(out, own.peer);
                self.give_up_if_done(out, own.peer);
            }
        }
    }

    pub(super) fn gone(&mut self, out: &mut VecDeque<Output>, machine: MachineId) {
        let legs: Vec<Leg> = legs_of(&self.own, machine).map(|(leg, _)| *leg).collect();
        legs.into_iter().for_each(|leg| self.closed(out, leg));
    }

    pub(super) fn unused(&mut self, out: &mut VecDeque<Output>, leg: Leg) {
        if self.own.get(&leg).is_some_and(|own| own.stage == Stage::Open) {
            self.end(out, leg, RelayRefusal::Idle);
        }
    }

    pub(super) fn on_timeout(&mut self, out: &mut VecDeque<Output>, now: Tick) {
        let empty = self.empty().filter(|(since, _)| now.since(*since) >= SESSION_TIME);
        let empty: Vec<Leg> = empty.map(|(_, leg)| leg).collect();
        for leg in empty {
            self.metrics.closed_empty.inc();
            self.end(out, leg, RelayRefusal::Idle);
        }
        let late = self.sought.iter().filter(|(_, sought)| sought.deadline <= now);
        let late: Vec<MachineId> = late.map(|(peer, _)| *peer).collect();
        for peer in late {
            self.take_back(out, peer);
            self.over(out, peer, None);
        }
        let due = self.sought.iter_mut().filter(|(_, sought)| sought.more_at <= now);
        let due: Vec<MachineId> = due
            .map(|(peer, sought)| {
                sought.more_at = now + PATIENCE;
                *peer
            })
            .collect();
        due.into_iter().for_each(|peer| self.ask_next(out, peer));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.own.len()
    }

    pub(super) fn next(&self) -> Option<Tick> {
        let due = |sought: &Sought| match sought.relays.is_empty() {
            true => sought.deadline,
            false => sought.deadline.min(sought.more_at),
        };
        let empty = self.empty().map(|(since, _)| since + SESSION_TIME);
        self.sought.values().map(due).chain(empty).min()
    }
}

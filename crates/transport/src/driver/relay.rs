//! Carries contexts out: between sessions, packets and dials.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use x0x_core::{Machine, MachineId, Tick, TokenBucket};

use super::{
    Actor,
    ways::{Carrier, Pair, Ways, read_datagrams},
};
use crate::{
    config::MAX_SESSIONS,
    relay::{
        IDLE_AFTER, Input, Leg, Output, Received, RelayConfig, RelayMetrics, Relays,
        quota::ClientQuota,
    },
    sock::table::is_relayed,
    state::{self, LinkId},
    table::Session,
    wire::{ControlOut, RelayStep},
};

/// Steps that one peer may send at once, and the time in which another is earned. An honest end needs two for each
/// context; a relay, as many as others ask it for.
const STEPS_BURST: u32 = 64;
const STEPS_REFILL: Duration = Duration::from_millis(250);
/// How often it is looked for contexts that nobody uses.
const IDLE_CHECK: Duration = Duration::from_secs(10);
/// Silence after which an end closes its context itself: its relay did not, or did not say so.
const UNUSED_AFTER: Duration = Duration::from_secs(180);
/// Most machines whose use of this relay is remembered.
const MAX_QUOTAS: usize = 4 * MAX_SESSIONS;

/// How many steps a peer may send.
pub(super) const fn rate(now: Tick) -> TokenBucket {
    TokenBucket::new(STEPS_BURST, STEPS_REFILL, now)
}

/// Whether a session can carry the packets of others: no relay carries it itself, and its link takes datagrams.
pub(super) fn carries(session: &Session) -> bool {
    session.link().has_datagrams() && !is_relayed(session.link().remote_address())
}

/// The contexts of a node, and what carries them.
#[derive(Debug)]
pub(super) struct Relaying {
    machine: Relays,
    config: RelayConfig,
    carriers: BTreeMap<MachineId, (LinkId, Arc<Carrier>)>,
    pairs: BTreeMap<u64, Arc<Pair>>,
    /// At most [`MAX_QUOTAS`], besides those of machines that have contexts.
    quotas: BTreeMap<MachineId, Arc<Mutex<ClientQuota>>>,
    idle_check_at: Tick,
}

impl Relaying {
    pub(super) fn new(local: MachineId, config: &RelayConfig, metrics: Arc<RelayMetrics>) -> Self {
        Self {
            machine: Relays::new(local, config.clone(), metrics),
            config: config.clone(),
            carriers: BTreeMap::new(),
            pairs: BTreeMap::new(),
            quotas: BTreeMap::new(),
            idle_check_at: Tick::ZERO,
        }
    }

    pub(super) fn next(&self) -> Option<Tick> {
        let busy = !self.carriers.is_empty();
        self.machine.poll_timeout().into_iter().chain(busy.then_some(self.idle_check_at)).min()
    }

    /// What a machine may have forwarded. In a full table, whoever used least of it today and has no context
    /// gives way: it loses least.
    fn quota(&mut self, now: Tick, client: MachineId) -> Arc<Mutex<ClientQuota>> {
        if self.quotas.len() >= MAX_QUOTAS && !self.quotas.contains_key(&client) {
            let used = |quota: &Mutex<ClientQuota>| {
                quota.lock().unwrap_or_else(PoisonError::into_inner).used(now)
            };
            let idle = self.quotas.iter().filter(|(_, quota)| Arc::strong_count(quota) == 1);
            let least = idle.min_by_key(|(_, quota)| used(quota)).map(|(machine, _)| *machine);
            least.map(|machine| self.quotas.remove(&machine));
        }
        let fresh = || Arc::new(Mutex::new(ClientQuota::new(&self.config, now)));
        self.quotas.entry(client).or_insert_with(fresh).clone()
    }

    fn join(&mut self, now: Tick, number: u64, legs: [Leg; 2]) {
        let quotas = legs.map(|(machine, _)| self.quota(now, machine));
        let end = |(machine, context): Leg| Some((&self.carriers.get(&machine)?.1, context));
        let [Some(first), Some(second)] = legs.map(end) else { return };
        self.pairs.insert(number, Ways::join(now, [first, second], quotas));
    }
}

impl Actor {
    /// Those that can bring this machine and a peer before each other, nearest first.
    pub(super) fn helpers(&self, peer: MachineId) -> Vec<MachineId> {
        let sessions = self.context.table.all();
        let direct = sessions
            .iter()
            .filter(|session| session.peer != peer && !is_relayed(session.link().remote_address()));
        let mut helpers: Vec<_> = direct.map(|s| (s.link().rtt(), s.peer)).collect();
        helpers.sort_unstable();
        helpers.into_iter().map(|(_, peer)| peer).collect()
    }

    /// A peer is to be reached by way of another machine. One by way of which it is not reached any more comes
    /// last.
    pub(super) fn seek_relay(&mut self, peer: MachineId, lost: Option<MachineId>) {
        let mut relays = self.helpers(peer);
        relays.retain(|relay| self.context.table.get(relay).is_some_and(|s| carries(&s)));
        relays.sort_by_key(|relay| Some(*relay) == lost);
        self.relaying.machine.handle(self.now(), Input::Seek { peer, relays });
        self.carry_relays();
    }

    pub(super) fn relay_unwanted(&mut self, peer: MachineId) {
        self.relaying.machine.handle(self.now(), Input::Unwanted(peer));
        self.carry_relays();
    }

    pub(super) fn on_relay(&mut self, link: LinkId, step: RelayStep) {
        let now = self.now();
        let Some(handle) = self.links.get_mut(&link) else { return };
        if !handle.relays.take(now) {
            return self.context.metrics.relay.steps_dropped.inc();
        }
        let Some(session) = handle.session.clone() else { return };
        let mut received = Received::new(session.peer, step);
        received.direct = carries(&session);
        let policy = &self.context.policy;
        if let RelayStep::Open { target: named, .. } | RelayStep::Incoming { from: named, .. } =
            step
        {
            received.named = self.context.table.get(&named).map(|session| carries(&session));
            received.willing = !policy.refuses(&named) && !policy.refuses(&session.peer);
        }
        if matches!(step, RelayStep::Incoming { .. }) {
            self.tell_ways_in_use(now);
        }
        self.relaying.machine.handle(now, Input::Received(received));
        self.carry_relays();
    }

    /// Ways that sessions are on prove that the relay's word about their peers was true.
    pub(super) fn tell_ways_in_use(&mut self, now: Tick) {
        let sessions = self.links.values().filter(|handle| handle.session.is_some());
        let on_ways =
            sessions.map(|handle| handle.link.remote_address()).filter(|a| is_relayed(*a));
        let legs: Vec<Leg> = on_ways.filter_map(|way| self.context.ways.leg(way)).collect();
        for leg in legs {
            self.relaying.machine.handle(now, Input::InUse(leg));
        }
    }

    pub(super) fn on_relay_timeout(&mut self, now: Tick) {
        if self.relaying.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.tell_ways_in_use(now);
        }
        self.relaying.machine.handle_timeout(now);
        if now >= self.relaying.idle_check_at {
            self.relaying.idle_check_at = now + IDLE_CHECK;
            let pairs = self.relaying.pairs.iter();
            let idle = pairs.filter(|(_, pair)| now.since(pair.used()) >= IDLE_AFTER);
            let idle: Vec<u64> = idle.map(|(number, _)| *number).collect();
            for number in idle {
                self.relaying.machine.handle(now, Input::Idle(number));
            }
            let micros = now.as_micros().saturating_sub(UNUSED_AFTER.as_micros() as u64);
            for leg in self.context.ways.unused_since(Tick::from_micros(micros)) {
                self.relaying.machine.handle(now, Input::Unused(leg));
            }
        }
        self.carry_relays();
    }

    /// Ends the contexts of sessions that came to be relayed themselves.
    pub(super) fn check_carriers(&mut self) {
        let carriers = self.relaying.carriers.iter();
        let relayed = carriers.filter(|(_, (_, c))| is_relayed(c.link.remote_address()));
        let relayed: Vec<MachineId> = relayed.map(|(machine, _)| *machine).collect();
        relayed.into_iter().for_each(|machine| self.carrier_gone(machine));
    }

    /// A machine carries no packets any more.
    pub(super) fn carrier_gone(&mut self, machine: MachineId) {
        self.relaying.machine.handle(self.now(), Input::Gone(machine));
        self.carry_relays();
        if let Some((_, carrier)) = self.relaying.carriers.remove(&machine) {
            carrier.end();
        }
    }

    /// The carrier of a machine with which there is a session.
    fn carrier(&mut self, machine: MachineId) -> Option<(LinkId, Arc<Carrier>)> {
        if let Some((id, carrier)) = self.relaying.carriers.get(&machine) {
            return Some((*id, carrier.clone()));
        }
        let session = self.context.table.get(&machine)?;
        let is_it = |session_of: &Option<Arc<Session>>| {
            session_of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &session))
        };
        let (id, _) = self.links.iter().find(|(_, handle)| is_it(&handle.session))?;
        let carrier = Arc::new(Carrier::new(session.link()));
        self.context.tasks.spawn(read_datagrams(self.context.clone(), carrier.clone()));
        let id = *id;
        self.relaying.carriers.insert(machine, (id, carrier.clone()));
        Some((id, carrier))
    }

    pub(super) fn carry_relays(&mut self) {
        let now = self.now();
        while let Some(output) = self.relaying.machine.poll_output() {
            match output {
                Output::Send { to, step } => {
                    let message = ControlOut::Relay(step).encode();
                    let queued = self.context.table.with(&to, |session| session.control(message));
                    if queued != Some(true) {
                        self.context.metrics.control_replies_dropped.inc();
                    }
                }
                Output::Open { leg, .. } => {
                    if let Some((id, carrier)) = self.carrier(leg.0) {
                        self.context.ways.open(now, leg, id.0, carrier);
                    }
                }
                Output::Close(leg) => {
                    if let Some(way) = self.context.ways.close(leg) {
                        self.on_way_closed(way, leg.0);
                    }
                }
                Output::Join { number, legs } => {
                    // Both have to be there before packets come.
                    let _ = legs.map(|(machine, _)| self.carrier(machine));
                    self.relaying.join(now, number, legs);
                }
                Output::Part(number) => {
                    if let Some(pair) = self.relaying.pairs.remove(&number) {
                        Ways::part(&pair);
                    }
                }
                Output::Over { peer, found } => self.on_relay_found(peer, found),
            }
        }
    }

    fn on_relay_found(&mut self, peer: MachineId, found: Option<Leg>) {
        let found: Option<SocketAddr> = found.and_then(|leg| self.context.ways.address(leg));
        if let Some(way) = found {
            // A session goes there once the peer has answered from there.
            self.probe_session(peer, way);
        }
        self.handle(state::Input::Relayed { peer, found });
    }
}

//! Two machines behind address translators that send to each other at once, so that each translator takes
//! the other's packets for answers.
//!
//! A machine that cannot reach a peer asks those with which it has sessions. One that has a session with
//! the peer, too, brings both ends' addresses and halves of a key before each other, adds where it sees them,
//! and knows how long each has to wait. Then both send probes, which are small and authenticated; the end that
//! asked dials the first address that answers.
//!
//! Whoever takes part trusts nobody's addresses: packets go only where a machine may name a place to
//! another, at most once in ten seconds to each, and few of them.

mod candidates;
mod coordinator;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use x0x_core::{Machine, MachineId, Tick, TokenBucket};

pub(crate) use self::candidates::Victims;
#[cfg(feature = "tokio")]
pub(crate) use self::candidates::may_listen;
pub use self::candidates::{MAX_VICTIMS, VICTIM_REST};
use self::coordinator::Coordinator;
use crate::{
    rates::PeerRates,
    sock::{FlowId, FlowKeys, packet::FLOW_SECRET_LEN},
    wire::{Offer, Punch, Refusal, RoundId},
};

/// Most peers that are wanted at once.
pub const MAX_WANTED: usize = 32;
/// Most machines that are asked for one peer.
pub const MAX_HELPERS: usize = 9;
/// Most agreements that this machine is in at once.
pub const MAX_ROUNDS: usize = 64;
/// When a peer about whom nobody gave an answer is given up: losses on the way take that long at worst.
pub const WANT_LIFETIME: Duration = Duration::from_secs(10);
/// When a peer that agreed and was not reached is given up: all probes of both ends had their time.
pub const PROBE_TIME: Duration = Duration::from_secs(3);
/// How long probes of an agreement are answered.
pub const ROUND_LIFETIME: Duration = Duration::from_secs(5);

/// Machines asked at a time.
const HELPERS_AT_ONCE: usize = 3;
/// Agreements that others ask of this machine: at once, and the time in which another is earned.
const ANSWER_BURST: u32 = 20;
const ANSWER_REFILL: Duration = Duration::from_secs(3);
/// And those that one helper may bring.
const BROUGHT_BURST: u32 = 6;
const BROUGHT_REFILL: Duration = Duration::from_secs(10);
/// BLAKE3 context under which both seeds become the probes' keys.
const KEY_CONTEXT: &str = "x0x transport punch keys 1";

/// A machine with which there is a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Which one.
    pub machine: MachineId,
    /// Where its packets come from.
    pub address: SocketAddr,
    /// Where it sees this machine, if it said so.
    pub observed: Option<SocketAddr>,
    /// The round trip.
    pub rtt: Duration,
}

impl Place {
    /// A machine at the end of a session.
    #[must_use]
    pub const fn new(
        machine: MachineId,
        address: SocketAddr,
        observed: Option<SocketAddr>,
        rtt: Duration,
    ) -> Self {
        Self { machine, address, observed, rtt }
    }
}

/// A step of an agreement that a session's peer sent, with what this machine knows of whom it names.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Received {
    /// Who sent it.
    pub from: Place,
    /// What it says.
    pub punch: Punch,
    /// The session with the peer named in it, if there is one.
    pub peer: Option<Place>,
    /// Whether this machine wants anything to do with that peer.
    pub willing: bool,
    /// Where this machine may be.
    pub own: Vec<SocketAddr>,
    /// Fresh and secret.
    pub seed: [u8; 32],
}

impl Received {
    /// A step, with what is known.
    #[must_use]
    pub const fn new(
        from: Place,
        punch: Punch,
        peer: Option<Place>,
        willing: bool,
        own: Vec<SocketAddr>,
        seed: [u8; 32],
    ) -> Self {
        Self { from, punch, peer, willing, own, seed }
    }
}

/// What the world tells [`Punches`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// A peer is to be reached.
    Want {
        /// Whom.
        peer: MachineId,
        /// Fresh, and the second one secret.
        fresh: (RoundId, [u8; 32]),
        /// Whom to ask, best first.
        helpers: Vec<MachineId>,
        /// Where this machine may be.
        own: Vec<SocketAddr>,
    },
    /// It is not wanted any more, or it was reached.
    Unwanted(MachineId),
    /// A step of an agreement arrived.
    Received(Box<Received>),
    /// A probe of a flow was answered.
    Validated {
        /// Which flow.
        flow: FlowId,
        /// Where.
        address: SocketAddr,
    },
}

/// What [`Punches`] asks of the world.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Output {
    /// The peer is there, and sends at once with this machine.
    Agreed(MachineId),
    /// Send a step of an agreement on a session.
    Send {
        /// To whom.
        to: MachineId,
        /// What.
        punch: Punch,
    },
    /// Answer probes of this flow.
    Open(FlowKeys),
    /// Do so no longer.
    Close(FlowId),
    /// Find out whether the flow's peer answers at an address.
    Probe {
        /// Which flow.
        flow: FlowId,
        /// Where.
        address: SocketAddr,
    },
    /// A peer that asked for this machine answers at this address.
    Reached {
        /// Who.
        peer: MachineId,
        /// Where.
        address: SocketAddr,
    },
    /// A wanted peer answers at this address, or it cannot be reached this way.
    Over {
        /// Whom.
        peer: MachineId,
        /// Where.
        found: Option<SocketAddr>,
    },
}

counters! {
    /// What became of agreements to send at once.
    PunchMetrics, "transport_punches_", {
        wanted = "Peers for which others were asked.",
        found = "Peers that then answered.",
        failed = "Peers that were not reached.",
        answered = "Agreements that others asked of this machine.",
        forwarded = "Agreements brought before others.",
        refused_not_connected = "Agreements not forwarded because there is no session with the other end.",
        refused_rate = "Agreements refused because too many were asked for.",
        refused_unwilling = "Agreements refused with machines that are refused, or with the asker itself.",
        refused_unasked = "Answers to nothing that was asked.",
        dropped = "Steps of agreements dropped because their sender sent too many.",
        addresses_refused = "Addresses that nobody may name, or that were sent to a moment ago.",
    }
}

#[derive(Debug)]
struct Wanted {
    round: RoundId,
    seed: [u8; 32],
    own: Vec<SocketAddr>,
    helpers: VecDeque<MachineId>,
    /// Who was asked; each may answer once.
    asked: BTreeSet<MachineId>,
    accepted: bool,
    deadline: Tick,
    /// When it is given up, whoever accepts.
    until: Tick,
}

#[derive(Debug)]
struct Round {
    id: RoundId,
    peer: MachineId,
    /// Whether this end asked, and so dials.
    asked: bool,
    /// Where to send the first packets, and when.
    begin: Option<(Tick, Vec<SocketAddr>)>,
    deadline: Tick,
}

/// The agreements of one machine, in all three roles.
#[derive(Debug)]
pub struct Punches {
    local: MachineId,
    wanted: BTreeMap<MachineId, Wanted>,
    rounds: BTreeMap<FlowId, Round>,
    coordinator: Coordinator,
    victims: Victims,
    answers: TokenBucket,
    brought: PeerRates,
    metrics: Arc<PunchMetrics>,
    outputs: VecDeque<Output>,
}

impl Punches {
    /// No agreements yet, for this machine.
    #[must_use]
    pub fn new(local: MachineId, metrics: Arc<PunchMetrics>) -> Self {
        Self {
            local,
            wanted: BTreeMap::new(),
            rounds: BTreeMap::new(),
            coordinator: Coordinator::default(),
            victims: Victims::default(),
            answers: TokenBucket::new(ANSWER_BURST, ANSWER_REFILL, Tick::ZERO),
            brought: PeerRates::new(BROUGHT_BURST, BROUGHT_REFILL),
            metrics,
            outputs: VecDeque::new(),
        }
    }

    fn send(&mut self, to: MachineId, punch: Punch) {
        self.outputs.push_back(Output::Send { to, punch });
    }

    fn want(
        &mut self,
        now: Tick,
        peer: MachineId,
        (round, seed): (RoundId, [u8; 32]),
        mut helpers: Vec<MachineId>,
        own: Vec<SocketAddr>,
    ) {
        if self.wanted.contains_key(&peer) {
            return;
        }
        helpers.retain(|helper| *helper != peer);
        helpers.truncate(MAX_HELPERS);
        self.metrics.wanted.inc();
        if helpers.is_empty() || self.wanted.len() >= MAX_WANTED {
            return self.over(peer, None);
        }
        let (helpers, asked) = (helpers.into(), BTreeSet::new());
        let deadline = now + WANT_LIFETIME;
        let until = deadline;
        let wanted = Wanted { round, seed, own, helpers, asked, accepted: false, deadline, until };
        self.wanted.insert(peer, wanted);
        self.ask_more(peer);
    }

    fn ask_more(&mut self, peer: MachineId) {
        let Some(wanted) = self.wanted.get_mut(&peer) else { return };
        while wanted.asked.len() < HELPERS_AT_ONCE
            && let Some(helper) = wanted.helpers.pop_front()
        {
            wanted.asked.insert(helper);
            let offer = Offer::new(wanted.round, peer, wanted.seed, wanted.own.clone());
            self.outputs.push_back(Output::Send { to: helper, punch: Punch::Ask(offer) });
        }
        if wanted.asked.is_empty() && !wanted.accepted {
            self.over(peer, None);
        }
    }

    /// Nobody that was asked has brought a peer that answers: others are, while there is time.
    fn late(&mut self, now: Tick, peer: MachineId) {
        let Some(wanted) = self.wanted.get_mut(&peer) else { return };
        if wanted.helpers.is_empty() || wanted.until <= now {
            return self.over(peer, None);
        }
        wanted.asked.clear();
        wanted.deadline = wanted.until;
        self.ask_more(peer);
    }

    fn over(&mut self, peer: MachineId, found: Option<SocketAddr>) {
        self.wanted.remove(&peer);
        let outcome = if found.is_some() { &self.metrics.found } else { &self.metrics.failed };
        outcome.inc();
        self.outputs.push_back(Output::Over { peer, found });
    }

    fn refuse(&mut self, to: MachineId, offer: &Offer, why: Refusal) {
        match why {
            Refusal::NotConnected => &self.metrics.refused_not_connected,
            Refusal::Rate => &self.metrics.refused_rate,
            _ => &self.metrics.refused_unwilling,
        }
        .inc();
        self.send(to, Punch::Refuse { round: offer.round, peer: offer.peer, why });
    }

    fn received(&mut self, now: Tick, received: &Received) {
        let from = received.from.machine;
        match &received.punch {
            Punch::Ask(offer) => self.on_ask(now, received, offer),
            Punch::Forward(offer) => self.on_forward(now, received, offer),
            Punch::Accept(offer) => {
                if self.coordinator.take([offer.peer, from], offer.round, now) {
                    self.pass_on(now, received, offer, Punch::Accept);
                } else {
                    self.on_accept(now, received, offer);
                }
            }
            Punch::Refuse { round, peer, why } => {
                if self.coordinator.take([*peer, from], *round, now) {
                    self.send(*peer, Punch::Refuse { round: *round, peer: from, why: *why });
                } else {
                    self.on_refuse(from, *peer, *round);
                }
            }
        }
    }

    fn on_ask(&mut self, now: Tick, received: &Received, offer: &Offer) {
        let from = received.from;
        if offer.peer == self.local || offer.peer == from.machine {
            return self.refuse(from.machine, offer, Refusal::Unwilling);
        }
        let Some(peer) = received.peer else {
            return self.refuse(from.machine, offer, Refusal::NotConnected);
        };
        if !self.coordinator.admit(now, [from.machine, peer.machine], offer.round) {
            return self.refuse(from.machine, offer, Refusal::Rate);
        }
        self.metrics.forwarded.inc();
        let mut offer = offer.clone();
        let wait = (from.rtt + peer.rtt) / 2;
        offer.wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        self.pass_on(now, received, &offer, Punch::Forward);
    }

    /// Brings an offer before the other end, with what this machine sees itself.
    fn pass_on(&mut self, now: Tick, received: &Received, offer: &Offer, step: fn(Offer) -> Punch) {
        let mut passed = offer.clone();
        passed.peer = received.from.machine;
        let to = received.peer.as_ref();
        let (addresses, refused) = candidates::stamped(&received.from, to, &offer.addresses);
        let (addresses, resting) = self.victims.spare(now, addresses, 1);
        self.metrics.addresses_refused.add((refused + resting) as u64);
        passed.addresses = addresses;
        self.send(offer.peer, step(passed));
    }

    fn on_forward(&mut self, now: Tick, received: &Received, offer: &Offer) {
        let from = received.from.machine;
        let known = |round: &Round| round.id == offer.round && round.peer == offer.peer;
        if self.rounds.values().any(known) {
            // By way of another machine it came sooner.
            return;
        }
        if !received.willing || offer.peer == self.local {
            return self.refuse(from, offer, Refusal::Unwilling);
        }
        let may = self.rounds.len() < MAX_ROUNDS && self.brought.take(now, from);
        if !may || !self.answers.take(now) {
            return self.refuse(from, offer, Refusal::Rate);
        }
        self.metrics.answered.inc();
        let seeds = [offer.seed, received.seed];
        let keys = flow_keys(offer.round, [offer.peer, self.local], seeds, false);
        let wait = Duration::from_millis(offer.wait_ms.into());
        self.begin(now, now + wait, received, offer, keys);
        let own = candidates::shown(&received.from, &offer.addresses, &received.own);
        let answer = Offer::new(offer.round, offer.peer, received.seed, own);
        self.send(from, Punch::Accept(answer));
    }

    fn on_accept(&mut self, now: Tick, received: &Received, offer: &Offer) {
        let wanted = self.wanted.get_mut(&offer.peer).filter(|wanted| wanted.round == offer.round);
        let Some(wanted) = wanted else { return self.metrics.refused_unasked.inc() };
        if !wanted.asked.remove(&received.from.machine) {
            return self.metrics.refused_unasked.inc();
        }
        if self.rounds.len() >= MAX_ROUNDS {
            return;
        }
        // Whoever brings the answer may have made it up: each gets its time, and the first probe that is
        // answered decides.
        wanted.accepted = true;
        wanted.deadline = wanted.until.min(now + PROBE_TIME);
        let seeds = [wanted.seed, offer.seed];
        let keys = flow_keys(offer.round, [self.local, offer.peer], seeds, true);
        self.begin(now, now, received, offer, keys);
        self.outputs.push_back(Output::Agreed(offer.peer));
    }

    fn on_refuse(&mut self, from: MachineId, peer: MachineId, round: RoundId) {
        let wanted = self.wanted.get_mut(&peer).filter(|wanted| wanted.round == round);
        if wanted.is_some_and(|wanted| wanted.asked.remove(&from)) {
            self.ask_more(peer);
        } else {
            self.metrics.refused_unasked.inc();
        }
    }

    /// Both ends have agreed: probes are answered from now on, and sent from `at` on.
    fn begin(&mut self, now: Tick, at: Tick, received: &Received, offer: &Offer, keys: FlowKeys) {
        let given = offer.addresses.len();
        let usable = candidates::usable(&received.from, &offer.addresses, &received.own);
        let asked = matches!(received.punch, Punch::Accept(_));
        // What this machine asked for is bounded by its own wishes, and nobody can keep it from a peer by
        // naming the peer's addresses elsewhere.
        let sure = if asked { usable.len() } else { 0 };
        let (addresses, _) = self.victims.spare(now, usable, sure);
        self.metrics.addresses_refused.add((given - addresses.len()) as u64);
        let round = Round {
            id: offer.round,
            peer: offer.peer,
            asked,
            begin: Some((at, addresses)),
            deadline: at + ROUND_LIFETIME,
        };
        self.rounds.insert(keys.flow(), round);
        self.outputs.push_back(Output::Open(keys));
        self.handle_timeout(now);
    }

    fn validated(&mut self, flow: FlowId, address: SocketAddr) {
        let Some(Round { peer, id, asked, .. }) = self.rounds.get(&flow) else { return };
        let (peer, id) = (*peer, *id);
        if !asked {
            self.outputs.push_back(Output::Reached { peer, address });
        } else if self.wanted.get(&peer).is_some_and(|wanted| wanted.round == id) {
            self.over(peer, Some(address));
        }
    }
}

/// Both ends' keys. Who asked comes first.
fn flow_keys(round: RoundId, ends: [MachineId; 2], seeds: [[u8; 32]; 2], asked: bool) -> FlowKeys {
    let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
    hasher.update(&round);
    for end in ends {
        hasher.update(end.as_bytes());
    }
    for seed in seeds {
        hasher.update(&seed);
    }
    let mut secret = [0; FLOW_SECRET_LEN];
    hasher.finalize_xof().fill(&mut secret);
    FlowKeys::new(&secret, asked)
}

impl Machine for Punches {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::Want { peer, fresh, helpers, own } => self.want(now, peer, fresh, helpers, own),
            Input::Unwanted(peer) => drop(self.wanted.remove(&peer)),
            Input::Received(received) => self.received(now, &received),
            Input::Validated { flow, address } => self.validated(flow, address),
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        let mut due = Vec::new();
        let mut over = Vec::new();
        for (flow, round) in &mut self.rounds {
            if let Some((_, addresses)) = round.begin.take_if(|(at, _)| *at <= now) {
                due.extend(addresses.into_iter().map(|address| (*flow, address)));
            }
            if round.deadline <= now {
                over.push(*flow);
            }
        }
        for (flow, address) in due {
            self.outputs.push_back(Output::Probe { flow, address });
        }
        for flow in over {
            self.rounds.remove(&flow);
            self.outputs.push_back(Output::Close(flow));
        }
        let late = self.wanted.iter().filter(|(_, wanted)| wanted.deadline <= now);
        let late: Vec<MachineId> = late.map(|(peer, _)| *peer).collect();
        late.into_iter().for_each(|peer| self.late(now, peer));
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let begins = self.rounds.values().filter_map(|round| Some(round.begin.as_ref()?.0));
        let ends = self.rounds.values().map(|round| round.deadline);
        let wanted = self.wanted.values().map(|wanted| wanted.deadline);
        begins.chain(ends).chain(wanted).min()
    }
}

#[cfg(test)]
mod tests;

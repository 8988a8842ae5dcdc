//! Whether this machine is reached by somebody to whom it never sent anything.
//!
//! That peers see an address says where packets come from, not that others may send there: a translator or a
//! firewall may let in only whom this machine wrote to. So a session's peer is asked to have a third machine
//! send one probe there. If it arrives, and its sender is in a network that this machine did not write to, the
//! address is reachable by anybody.
//!
//! Nobody's word counts: what counts is the probe, which carries keys that this machine chose, and which is
//! confirmed from where it came. Nobody is made to send to others: a helper passes on only addresses at which
//! it sees the asker itself, and one packet of 64 bytes goes there for a message that is larger.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use x0x_core::{Machine, MachineId, Scope, Tick, TokenBucket, dialable, may_name};

use crate::{
    prefix::Prefix,
    punch::{Place, Victims},
    rates::PeerRates,
    sock::{FlowId, FlowKeys, packet::FLOW_SECRET_LEN},
    wire::{DialBack, DialBackStep, RoundId},
};

/// Most addresses of this machine that are looked after.
pub const MAX_ADDRESSES: usize = 8;
/// Most networks that this machine is known to have written to; the one longest ago gives way.
pub const MAX_WRITTEN_TO: usize = 1024;
/// Most probes for others that are under way.
pub const MAX_PROBES: usize = 16;
/// How long a network counts as written to: longer than translators remember (RFC 4787 §4.3).
pub const WRITTEN_FOR: Duration = Duration::from_secs(900);
/// When an address that was reached is looked at again: before what was found ends.
pub const CHECK_AGAIN: Duration = Duration::from_secs(720);
/// How long a probe is waited for.
pub const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The pause after an address that was not reached; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(20);
const LAST_PAUSE: Duration = Duration::from_secs(1800);
/// How long a machine that sends a probe answers for it.
const PROBE_TIME: Duration = Duration::from_secs(3);
/// What one peer may ask for at once, and the time in which another is earned.
const ASKED_BURST: u32 = 4;
const ASKED_REFILL: Duration = Duration::from_secs(30);
/// Probes for others at once, whoever asks, and the time in which another is earned.
const PROBES_BURST: u32 = 16;
const PROBES_REFILL: Duration = Duration::from_secs(3);
/// Ports below belong to services that no peer is.
const FIRST_PORT: u16 = 1024;
/// BLAKE3 context under which a seed becomes the probes' keys.
const KEY_CONTEXT: &str = "x0x transport dial back keys 1";

/// What the world tells [`DialBacks`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// How things stand, from time to time.
    Status {
        /// This machine's addresses on the internet, as far as they are confirmed.
        addresses: Vec<SocketAddr>,
        /// The sessions.
        sessions: Vec<Place>,
        /// Fresh, and secret.
        fresh: (RoundId, [u8; 32]),
    },
    /// This machine sends to an address of its own accord.
    WritesTo(SocketAddr),
    /// A step arrived.
    Received {
        /// From a session's peer.
        from: Place,
        /// What it says.
        step: DialBackStep,
        /// The sessions.
        sessions: Vec<Place>,
        /// A random number.
        pick: u64,
    },
    /// A probe of a flow came, and was confirmed from there.
    Validated {
        /// Which flow.
        flow: FlowId,
        /// From where.
        from: SocketAddr,
        /// Where its sender sees this machine.
        seen: SocketAddr,
    },
}

/// What [`DialBacks`] asks of, or tells, the world.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Output {
    /// Send a step on a session.
    Send {
        /// To whom.
        to: MachineId,
        /// What.
        step: DialBackStep,
    },
    /// Answer probes of this flow.
    Open(FlowKeys),
    /// Do so no longer.
    Close(FlowId),
    /// Send one probe.
    Probe {
        /// Of which flow.
        flow: FlowId,
        /// Where.
        address: SocketAddr,
    },
    /// Somebody to whom this machine did not write reached it at this address.
    Reachable(SocketAddr),
}

counters! {
    /// What became of questions whether machines are reachable.
    DialBackMetrics, "transport_dial_backs_", {
        asked = "Peers that were asked to have this machine probed.",
        reached = "Probes that came from a network to which nothing was sent: the address is reachable.",
        inconclusive = "Probes that came from where something was sent, or to another address.",
        unanswered = "Questions after which no probe came.",
        forwarded = "Questions of others that were passed on.",
        probed = "Probes sent for others.",
        refused_address = "Questions for an address that is not the asker's, or that nobody may name.",
        refused_nobody = "Questions that could be passed on to nobody.",
        refused_rate = "Questions refused because there were too many.",
    }
}

#[derive(Debug)]
struct Asked {
    address: SocketAddr,
    helper: Prefix,
    deadline: Tick,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    at: Tick,
    pause: Duration,
}

/// The questions of one machine, in all three roles.
#[derive(Debug)]
pub struct DialBacks {
    turns: BTreeMap<SocketAddr, Turn>,
    /// At most one question at a time.
    asked: Option<(FlowId, Asked)>,
    written_to: BTreeMap<Prefix, Tick>,
    rates: PeerRates,
    probes: BTreeMap<FlowId, Tick>,
    probe_rate: TokenBucket,
    victims: Victims,
    metrics: Arc<DialBackMetrics>,
    outputs: VecDeque<Output>,
}

impl DialBacks {
    /// Nothing asked yet.
    #[must_use]
    pub fn new(metrics: Arc<DialBackMetrics>) -> Self {
        Self {
            turns: BTreeMap::new(),
            asked: None,
            written_to: BTreeMap::new(),
            rates: PeerRates::new(ASKED_BURST, ASKED_REFILL),
            probes: BTreeMap::new(),
            probe_rate: TokenBucket::new(PROBES_BURST, PROBES_REFILL, Tick::ZERO),
            victims: Victims::default(),
            metrics,
            outputs: VecDeque::new(),
        }
    }

    fn writes_to(&mut self, now: Tick, address: SocketAddr) {
        let network = Prefix::of(address.ip());
        if self.written_to.len() >= MAX_WRITTEN_TO && !self.written_to.contains_key(&network) {
            self.written_to.retain(|_, at| now.since(*at) < WRITTEN_FOR);
            let oldest = self.written_to.iter().min_by_key(|(_, at)| **at).map(|(n, _)| *n);
            if self.written_to.len() >= MAX_WRITTEN_TO
                && let Some(oldest) = oldest
            {
                self.written_to.remove(&oldest);
            }
        }
        self.written_to.insert(network, now);
    }

    /// Whether this machine has sent anything to the network of an address of its own accord, as far back as translators
    /// and firewalls remember.
    #[must_use]
    pub fn wrote_to(&self, now: Tick, address: SocketAddr) -> bool {
        let written = self.written_to.get(&Prefix::of(address.ip()));
        written.is_some_and(|at| now.since(*at) < WRITTEN_FOR)
    }

    fn status(
        &mut self,
        now: Tick,
        addresses: &[SocketAddr],
        sessions: &[Place],
        (round, seed): (RoundId, [u8; 32]),
    ) {
        sessions.iter().for_each(|session| self.writes_to(now, session.address));
        self.turns.retain(|address, _| addresses.contains(address));
        for address in addresses.iter().take(MAX_ADDRESSES) {
            self.turns.entry(*address).or_insert(Turn { at: now, pause: FIRST_PAUSE });
        }
        if self.asked.is_some() {
            return;
        }
        // It passes on only where it sees this machine itself.
        let sees = |session: &Place, address: SocketAddr| {
            let ip = session.observed.map(|observed| observed.ip().to_canonical());
            ip == Some(address.ip()) && is_global(session.address)
        };
        // An address that nobody sees, as a gateway may name one, keeps no other from its turn.
        let helped = |address| sessions.iter().any(|session| sees(session, address));
        let due = self.turns.iter().filter(|(address, turn)| turn.at <= now && helped(**address));
        let due = due.min_by_key(|(_, turn)| turn.at);
        let Some(address) = due.map(|(address, _)| *address) else { return };
        let helpers: Vec<&Place> =
            sessions.iter().filter(|session| sees(session, address)).collect();
        let chosen = usize::from(round[0]) % helpers.len().max(1);
        let Some(helper) = helpers.get(chosen) else { return };
        let keys = flow_keys(round, &seed, true);
        let asked = Asked {
            address,
            helper: Prefix::wide(helper.address.ip()),
            deadline: now + ANSWER_TIME,
        };
        self.asked = Some((keys.flow(), asked));
        self.metrics.asked.inc();
        let step = DialBackStep::Ask(DialBack { round, seed, address });
        self.outputs.extend([Output::Open(keys), Output::Send { to: helper.machine, step }]);
    }

    /// The question is over; `reached` says with which answer, if there was one.
    fn over(&mut self, now: Tick, reached: Option<bool>) {
        let Some((flow, asked)) = self.asked.take() else { return };
        self.outputs.push_back(Output::Close(flow));
        let turn = self.turns.get_mut(&asked.address);
        if reached == Some(true) {
            self.metrics.reached.inc();
            self.outputs.push_back(Output::Reachable(asked.address));
            turn.into_iter()
                .for_each(|turn| *turn = Turn { at: now + CHECK_AGAIN, pause: FIRST_PAUSE });
            return;
        }
        let outcome =
            if reached.is_some() { &self.metrics.inconclusive } else { &self.metrics.unanswered };
        outcome.inc();
        if let Some(turn) = turn {
            turn.at = now + turn.pause;
            turn.pause = (turn.pause * 2).min(LAST_PAUSE);
        }
    }

    fn validated(&mut self, now: Tick, flow: FlowId, from: SocketAddr, seen: SocketAddr) {
        let Some((_, asked)) = self.asked.as_ref().filter(|(known, _)| *known == flow) else {
            return;
        };
        let fresh = !self.wrote_to(now, from);
        let third = Prefix::wide(from.ip()) != asked.helper;
        let reached = seen == asked.address && is_global(from) && third && fresh;
        // By the answer to its probe this machine has written there.
        self.writes_to(now, from);
        self.over(now, Some(reached));
    }

    /// A peer asks to be probed by somebody else.
    fn on_ask(&mut self, now: Tick, from: &Place, ask: DialBack, sessions: &[Place], pick: u64) {
        let own = from.address.ip().to_canonical() == ask.address.ip();
        if !own || !may_be_probed(ask.address) {
            return self.metrics.refused_address.inc();
        }
        if !self.rates.take(now, from.machine) {
            return self.metrics.refused_rate.inc();
        }
        let network = Prefix::wide(from.address.ip());
        let elsewhere = |place: &&Place| {
            place.machine != from.machine
                && is_global(place.address)
                && Prefix::wide(place.address.ip()) != network
                && place.address.is_ipv4() == ask.address.is_ipv4()
        };
        let others: Vec<&Place> = sessions.iter().filter(elsewhere).collect();
        let chosen = usize::try_from(pick % others.len().max(1) as u64).unwrap_or(0);
        let Some(other) = others.get(chosen) else {
            return self.metrics.refused_nobody.inc();
        };
        self.metrics.forwarded.inc();
        let step = DialBackStep::Forward(ask);
        self.outputs.push_back(Output::Send { to: other.machine, step });
    }

    /// A peer asks for a probe to a third machine.
    fn on_forward(&mut self, now: Tick, from: &Place, ask: DialBack) {
        if !may_be_probed(ask.address) || !may_name(from.address, ask.address) {
            return self.metrics.refused_address.inc();
        }
        if !self.rates.take(now, from.machine)
            || self.probes.len() >= MAX_PROBES
            || !self.probe_rate.take(now)
            || self.victims.spare(now, vec![ask.address], 0).0.is_empty()
        {
            return self.metrics.refused_rate.inc();
        }
        let keys = flow_keys(ask.round, &ask.seed, false);
        let (flow, address) = (keys.flow(), ask.address);
        if self.probes.insert(flow, now + PROBE_TIME).is_some() {
            return;
        }
        self.metrics.probed.inc();
        self.writes_to(now, address);
        self.outputs.extend([Output::Open(keys), Output::Probe { flow, address }]);
    }
}

fn is_global(address: SocketAddr) -> bool {
    Scope::of(address.ip()) == Some(Scope::Global)
}

fn may_be_probed(address: SocketAddr) -> bool {
    dialable(address).is_some() && is_global(address) && address.port() >= FIRST_PORT
}

/// Both ends' keys. The end that asked is the first.
fn flow_keys(round: RoundId, seed: &[u8; 32], asked: bool) -> FlowKeys {
    let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
    hasher.update(&round);
    hasher.update(seed);
    let mut secret = [0; FLOW_SECRET_LEN];
    hasher.finalize_xof().fill(&mut secret);
    FlowKeys::new(&secret, asked)
}

impl Machine for DialBacks {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::Status { addresses, sessions, fresh } => {
                self.status(now, &addresses, &sessions, fresh);
            }
            Input::WritesTo(address) => self.writes_to(now, address),
            Input::Received { from, step, sessions, pick } => match step {
                DialBackStep::Ask(ask) => self.on_ask(now, &from, ask, &sessions, pick),
                DialBackStep::Forward(ask) => self.on_forward(now, &from, ask),
            },
            Input::Validated { flow, from, seen } => self.validated(now, flow, from, seen),
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        if self.asked.as_ref().is_some_and(|(_, asked)| asked.deadline <= now) {
            self.over(now, None);
        }
        let over: Vec<FlowId> =
            self.probes.extract_if(.., |_, until| *until <= now).map(|(flow, _)| flow).collect();
        self.outputs.extend(over.into_iter().map(Output::Close));
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let asked = self.asked.as_ref().map(|(_, asked)| asked.deadline);
        self.probes.values().copied().chain(asked).min()
    }
}

#[cfg(test)]
mod tests;

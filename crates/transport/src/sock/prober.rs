//! The machine that finds out at which addresses a peer answers.
//!
//! A probe is answered to where it came from, and the answer is confirmed the same way: after one round trip
//! the asking end knows that the path works, after one and a half the other end does. Only packets
//! that carry the flow's authentication are answered, each with one of the same size, so that whoever forges
//! source addresses gains nothing; a bucket for each flow bounds even that.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use x0x_core::{Machine, SeededRng, Tick, TokenBucket, dialable};

use super::{
    packet::{FlowId, FlowKeys, Nonce, PROBE_LEN, Probe, ProbeIn, Step},
    table::is_detour,
};

/// Most flows; further ones are refused.
pub const MAX_FLOWS: usize = 512;
/// Most addresses of one flow that are probed at once; further ones are refused.
pub const MAX_PROBED: usize = 16;
/// Most addresses of one flow from which probes came and were not confirmed yet; the oldest gives way.
pub const MAX_CHALLENGES: usize = 8;
/// When the packets to an address are sent, in milliseconds: dense at first, since the other end's
/// translator may let them in only after its own first packet.
pub const SCHEDULE_MS: [u64; 7] = [0, 20, 50, 100, 200, 400, 800];
/// When an address that did not answer is given up.
pub const GIVE_UP: Duration = Duration::from_millis(1600);

/// Packets that are sent although the first was answered: the answer's confirmation may be lost.
const AT_LEAST: usize = 2;
/// How long an answer waits for its confirmation.
const CHALLENGE_LIFETIME: Duration = Duration::from_secs(3);
/// Answers to one flow at once, and the time in which another is earned.
const ANSWER_BURST: u32 = 64;
const ANSWER_REFILL: Duration = Duration::from_millis(20);

/// What the world tells the [`Prober`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// Packets of this flow are answered from now on.
    Open(FlowKeys),
    /// The flow is over.
    Close(FlowId),
    /// Whether the flow's peer answers at an address is to be found out.
    Probe {
        /// Of whom.
        flow: FlowId,
        /// Where. Whoever asks has checked that packets may be sent there.
        address: SocketAddr,
    },
    /// The same, with a single packet.
    ProbeOnce {
        /// Of whom.
        flow: FlowId,
        /// Where.
        address: SocketAddr,
    },
    /// A packet arrived.
    Received {
        /// From where.
        from: SocketAddr,
        /// The packet.
        packet: ProbeIn,
    },
}

/// What the [`Prober`] asks of, or tells, the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send a packet.
    Send {
        /// Where.
        to: SocketAddr,
        /// What.
        packet: [u8; PROBE_LEN],
    },
    /// The peer receives and answers at this address.
    Validated(Validated),
    /// It did not answer there in time.
    Failed {
        /// Whose peer.
        flow: FlowId,
        /// Where.
        address: SocketAddr,
    },
}

/// A path that works in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Validated {
    /// Whose peer it leads to.
    pub flow: FlowId,
    /// The peer's end.
    pub address: SocketAddr,
    /// This machine's end, as the peer sees it.
    pub seen: SocketAddr,
    /// The round trip.
    pub rtt: Duration,
    /// Whether this end asked.
    pub asked: bool,
}

counters! {
    /// What probes cost and came to.
    ProbeMetrics, "transport_probes_", {
        sent = "Probe packets sent.",
        received = "Probe packets received.",
        validated = "Paths that probes showed to work.",
        failed = "Addresses that did not answer.",
        refused_unknown_flow = "Probe packets of no known flow.",
        refused_forged = "Probe packets whose authentication does not hold.",
        refused_unasked = "Answers and confirmations of nothing that was asked.",
        refused_elsewhere = "Answers from another address than the one asked.",
        refused_rate = "Probes not answered because too many came.",
        refused_source = "Probes from addresses that no machine has.",
        refused_limit = "Flows and addresses not probed because there are too many.",
        challenges_evicted = "Answers forgotten unconfirmed for later ones.",
    }
}

#[derive(Debug)]
struct Asked {
    /// Of the first packet; the others' follow it.
    nonce: Nonce,
    sent: Vec<Tick>,
    begun: Tick,
    answered: bool,
    /// Packets that are sent at most.
    most: usize,
}

#[derive(Debug)]
struct Challenge {
    from: SocketAddr,
    nonce: Nonce,
    sent: Tick,
}

#[derive(Debug)]
struct Flow {
    keys: FlowKeys,
    asked: BTreeMap<SocketAddr, Asked>,
    challenges: VecDeque<Challenge>,
    answers: TokenBucket,
}

/// Probes, answers and confirmations of all flows.
#[derive(Debug)]
pub struct Prober {
    flows: BTreeMap<FlowId, Flow>,
    rng: SeededRng,
    metrics: Arc<ProbeMetrics>,
    outputs: VecDeque<Output>,
}

impl Prober {
    /// No flows yet. `rng` is for nonces, which have to differ; what authenticates is the flows' keys.
    #[must_use]
    pub fn new(rng: SeededRng, metrics: Arc<ProbeMetrics>) -> Self {
        Self { flows: BTreeMap::new(), rng, metrics, outputs: VecDeque::new() }
    }

    fn open(&mut self, now: Tick, keys: FlowKeys) {
        if self.flows.len() >= MAX_FLOWS || self.flows.contains_key(&keys.flow()) {
            return self.metrics.refused_limit.inc();
        }
        let answers = TokenBucket::new(ANSWER_BURST, ANSWER_REFILL, now);
        let (asked, challenges) = (BTreeMap::new(), VecDeque::new());
        self.flows.insert(keys.flow(), Flow { keys, asked, challenges, answers });
    }

    fn ask(&mut self, now: Tick, id: FlowId, address: SocketAddr, most: usize) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if let Some(asked) = flow.asked.get(&address)
            && !asked.answered
        {
            return;
        }
        if flow.asked.len() >= MAX_PROBED {
            flow.asked.retain(|_, asked| !asked.answered);
        }
        if flow.asked.len() >= MAX_PROBED {
            return self.metrics.refused_limit.inc();
        }
        let nonce = self.rng.next_u64();
        let asked = Asked { nonce, sent: Vec::new(), begun: now, answered: false, most };
        flow.asked.insert(address, asked);
        self.send_due(now, id);
    }

    /// Sends what the schedule has for now, and gives up what had its time.
    fn send_due(&mut self, now: Tick, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let mut over = Vec::new();
        for (address, asked) in &mut flow.asked {
            if now.since(asked.begun) >= GIVE_UP {
                over.push((*address, asked.answered));
                continue;
            }
            while asked.next_at().is_some_and(|at| at <= now) {
                let nonce = asked.nonce.wrapping_add(asked.sent.len() as u64);
                asked.sent.push(now);
                let packet = Probe::new(Step::Probe, 0, nonce, *address).encode(&flow.keys);
                self.metrics.sent.inc();
                self.outputs.push_back(Output::Send { to: *address, packet });
            }
        }
        for (address, answered) in over {
            flow.asked.remove(&address);
            if !answered {
                self.metrics.failed.inc();
                self.outputs.push_back(Output::Failed { flow: id, address });
            }
        }
    }

    fn received(&mut self, now: Tick, from: SocketAddr, packet: &ProbeIn) {
        self.metrics.received.inc();
        let id = packet.flow();
        let Some(flow) = self.flows.get(&id) else {
            return self.metrics.refused_unknown_flow.inc();
        };
        let Some(probe) = packet.verify(&flow.keys) else {
            return self.metrics.refused_forged.inc();
        };
        if dialable(from).is_none() && !is_detour(from) {
            return self.metrics.refused_source.inc();
        }
        match probe.step {
            Step::Probe => self.on_probe(now, id, from, probe.nonce),
            Step::Answer => self.on_answer(now, id, from, &probe),
            Step::Confirm => self.on_confirm(now, id, from, &probe),
        }
    }

    fn on_probe(&mut self, now: Tick, id: FlowId, from: SocketAddr, echo: Nonce) {
        let fresh = self.rng.next_u64();
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if !flow.answers.take(now) {
            return self.metrics.refused_rate.inc();
        }
        let known = flow.challenges.iter().find(|challenge| challenge.from == from);
        let nonce = match known {
            Some(challenge) => challenge.nonce,
            None => {
                if flow.challenges.len() >= MAX_CHALLENGES {
                    flow.challenges.pop_front();
                    self.metrics.challenges_evicted.inc();
                }
                flow.challenges.push_back(Challenge { from, nonce: fresh, sent: now });
                fresh
            }
        };
        let packet = Probe::new(Step::Answer, echo, nonce, from).encode(&flow.keys);
        self.metrics.sent.inc();
        self.outputs.push_back(Output::Send { to: from, packet });
    }

    fn on_answer(&mut self, now: Tick, id: FlowId, from: SocketAddr, probe: &Probe) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let number = |asked: &Asked| {
            let number = usize::try_from(probe.echo.wrapping_sub(asked.nonce)).ok()?;
            asked.sent.get(number).copied()
        };
        let mut asked =
            flow.asked.iter_mut().filter_map(|(a, asked)| Some((*a, number(asked)?, asked)));
        let Some((address, sent, asked)) = asked.next() else {
            return self.metrics.refused_unasked.inc();
        };
        if address != from {
            // A path that differs with its direction would break as soon as a translator forgets.
            return self.metrics.refused_elsewhere.inc();
        }
        let first = !std::mem::replace(&mut asked.answered, true);
        let packet = Probe::new(Step::Confirm, probe.nonce, 0, from).encode(&flow.keys);
        self.metrics.sent.inc();
        self.outputs.push_back(Output::Send { to: from, packet });
        if first {
            let (seen, rtt) = (probe.seen, now.since(sent));
            self.validated(Validated { flow: id, address, seen, rtt, asked: true });
        }
    }

    fn on_confirm(&mut self, now: Tick, id: FlowId, from: SocketAddr, probe: &Probe) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let is_it = |challenge: &Challenge| challenge.from == from && challenge.nonce == probe.echo;
        let Some(at) = flow.challenges.iter().position(is_it) else {
            return self.metrics.refused_unasked.inc();
        };
        let Some(challenge) = flow.challenges.remove(at) else { return };
        let (seen, rtt) = (probe.seen, now.since(challenge.sent));
        self.validated(Validated { flow: id, address: from, seen, rtt, asked: false });
    }

    fn validated(&mut self, validated: Validated) {
        self.metrics.validated.inc();
        self.outputs.push_back(Output::Validated(validated));
    }
}

impl Asked {
    fn next_at(&self) -> Option<Tick> {
        if self.answered && self.sent.len() >= AT_LEAST {
            return None;
        }
        let after = SCHEDULE_MS.iter().take(self.most).nth(self.sent.len())?;
        Some(self.begun + Duration::from_millis(*after))
    }
}

impl Machine for Prober {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::Open(keys) => self.open(now, keys),
            Input::Close(flow) => drop(self.flows.remove(&flow)),
            Input::Probe { flow, address } => self.ask(now, flow, address, SCHEDULE_MS.len()),
            Input::ProbeOnce { flow, address } => self.ask(now, flow, address, 1),
            Input::Received { from, packet } => self.received(now, from, &packet),
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        let asking: Vec<FlowId> = self.flows.keys().copied().collect();
        for id in asking {
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.challenges.retain(|c| now.since(c.sent) < CHALLENGE_LIFETIME);
            }
            self.send_due(now, id);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let flows = self.flows.values();
        let asked = flows.clone().flat_map(|flow| flow.asked.values());
        let sends = asked.map(|asked| asked.next_at().unwrap_or(asked.begun + GIVE_UP));
        let challenges = flows.flat_map(|flow| &flow.challenges);
        sends.chain(challenges.map(|challenge| challenge.sent + CHALLENGE_LIFETIME)).min()
    }
}

#[cfg(test)]
mod tests;

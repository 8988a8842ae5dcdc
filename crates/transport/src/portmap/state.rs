//! The machine of one lease.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use x0x_core::{Machine, Scope, Tick};

use super::{
    PortMapMetrics,
    wire::{AnswerIn, MapProtocol, Nonce, natpmp_address, natpmp_map, pcp_map},
};

/// For how long a port is asked; no lease counts for longer.
pub const LIFETIME: Duration = Duration::from_secs(3600);
/// Shorter leases are refused: a gateway does not make this machine ask all the time.
pub const MIN_LIFETIME: Duration = Duration::from_secs(60);

/// Questions of one protocol before it counts as unknown there: 0, 0.5, 1.5 and 3.5 s, answered until 7.5 s.
const MAX_TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// From a failure to the next attempt; twice as long after each further one.
const MIN_PAUSE: Duration = Duration::from_secs(60);
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// Ports below are of services; peers do not probe them.
const MIN_PORT: u16 = 1024;

/// The way to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The gateway.
    pub gateway: Ipv4Addr,
    /// This machine's address on its link.
    pub own: Ipv4Addr,
}

/// A port of a gateway that leads here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// Who granted it.
    pub way: Way,
    /// How.
    pub protocol: MapProtocol,
    /// The address on the internet, as the gateway says.
    pub external: SocketAddr,
    /// When it ends, unless it is renewed.
    pub until: Tick,
}

/// What the machine hears.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// The way to the internet, or that there is none with a gateway.
    Way {
        /// The way.
        way: Option<Way>,
        /// Fresh, and secret.
        nonce: Nonce,
    },
    /// A packet from the gateway.
    Received(Vec<u8>),
    /// The port is not wanted any more.
    Release,
}

/// What the machine asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// A packet for the gateway.
    Send {
        /// The way there.
        way: Way,
        /// The packet.
        packet: Vec<u8>,
    },
    /// The lease from now on.
    Lease(Option<Lease>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No gateway.
    Idle,
    /// A question is open, and repeated at the timer.
    Asking,
    /// Until the timer.
    Waiting,
}

/// Asks one gateway at a time for one port.
#[derive(Debug)]
pub struct PortMap {
    port: u16,
    metrics: Arc<PortMapMetrics>,
    way: Option<(Way, Nonce)>,
    phase: Phase,
    protocol: MapProtocol,
    tries: u32,
    timer: Option<Tick>,
    pause: Duration,
    lease: Option<Lease>,
    /// The two halves of NAT-PMP's answer.
    address: Option<Ipv4Addr>,
    mapped: Option<(u16, u32)>,
    outputs: VecDeque<Output>,
}

impl PortMap {
    /// For this UDP port of the machine.
    #[must_use]
    pub fn new(port: u16, metrics: Arc<PortMapMetrics>) -> Self {
        Self {
            port,
            metrics,
            way: None,
            phase: Phase::Idle,
            protocol: MapProtocol::Pcp,
            tries: 0,
            timer: None,
            pause: MIN_PAUSE,
            lease: None,
            address: None,
            mapped: None,
            outputs: VecDeque::new(),
        }
    }

    fn way(&mut self, now: Tick, way: Option<Way>, nonce: Nonce) {
        if self.way.map(|(known, _)| known) == way {
            return;
        }
        self.lose();
        self.way = way.map(|way| (way, nonce));
        self.pause = MIN_PAUSE;
        (self.phase, self.timer) = (Phase::Idle, None);
        if self.way.is_some() {
            self.begin(now);
        }
    }

    fn begin(&mut self, now: Tick) {
        let renewed = self.lease.map(|lease| lease.protocol);
        self.ask_by(now, renewed.unwrap_or(MapProtocol::Pcp));
    }

    fn ask_by(&mut self, now: Tick, protocol: MapProtocol) {
        (self.phase, self.protocol, self.tries) = (Phase::Asking, protocol, 0);
        (self.address, self.mapped) = (None, None);
        self.ask(now);
    }

    fn ask(&mut self, now: Tick) {
        let suggested = match self.lease.map(|lease| lease.external) {
            Some(SocketAddr::V4(external)) => (*external.ip(), external.port()),
            _ => (Ipv4Addr::UNSPECIFIED, self.port),
        };
        if self.protocol == MapProtocol::NatPmp {
            self.send(natpmp_address());
        }
        self.send_map(suggested, LIFETIME.as_secs());
        self.timer = Some(now + FIRST_WAIT * (1 << self.tries));
        self.tries += 1;
    }

    /// The question for a mapping, or for its end.
    fn send_map(&mut self, suggested: (Ipv4Addr, u16), seconds: u64) {
        let Some((way, nonce)) = self.way else { return };
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        let packet = match self.protocol {
            MapProtocol::Pcp => pcp_map(nonce, way.own, self.port, suggested, seconds),
            MapProtocol::NatPmp => natpmp_map(self.port, suggested.1, seconds),
        };
        self.send(packet);
    }

    fn send(&mut self, packet: Vec<u8>) {
        let Some((way, _)) = self.way else { return };
        self.metrics.asked.inc();
        self.outputs.push_back(Output::Send { way, packet });
    }

    fn give_back(&mut self) {
        self.metrics.released.inc();
        self.send_map((Ipv4Addr::UNSPECIFIED, 0), 0);
    }

    fn lose(&mut self) {
        if self.lease.take().is_some() {
            self.metrics.lost.inc();
            self.outputs.push_back(Output::Lease(None));
        }
    }

    /// Until the next attempt: a lease is used while it lasts.
    fn wait(&mut self, now: Tick) {
        let pause = match self.lease {
            Some(lease) => (lease.until.since(now) / 2).max(MIN_LIFETIME / 2),
            None => {
                let pause = self.pause;
                self.pause = (pause * 2).min(MAX_PAUSE);
                pause
            }
        };
        (self.phase, self.timer) = (Phase::Waiting, Some(now + pause));
    }

    fn unanswered(&mut self, now: Tick) {
        if self.protocol == MapProtocol::Pcp && self.lease.is_none() {
            return self.ask_by(now, MapProtocol::NatPmp);
        }
        self.metrics.unanswered.inc();
        self.wait(now);
    }

    fn received(&mut self, now: Tick, packet: &[u8]) {
        let Ok(answer) = AnswerIn::decode(packet) else {
            return self.metrics.refused_malformed.inc();
        };
        let (own, asked) = (self.way.map(|(_, nonce)| nonce), self.protocol);
        if self.phase != Phase::Asking {
            return self.metrics.refused_unasked.inc();
        }
        match (asked, answer) {
            (
                MapProtocol::Pcp,
                AnswerIn::Mapping { nonce, internal, address, external, lifetime },
            ) if Some(nonce) == own && internal == self.port => {
                self.granted(now, address, external, lifetime);
            }
            (MapProtocol::Pcp, AnswerIn::OtherVersion) => self.ask_by(now, MapProtocol::NatPmp),
            (MapProtocol::Pcp, AnswerIn::PcpRefusal { nonce }) if Some(nonce) == own => {
                self.refused(now);
            }
            (MapProtocol::NatPmp, AnswerIn::Address(address)) => {
                self.address = Some(address);
                self.both_halves(now);
            }
            (MapProtocol::NatPmp, AnswerIn::Port { internal, external, lifetime })
                if internal == self.port =>
            {
                self.mapped = Some((external, lifetime));
                self.both_halves(now);
            }
            (MapProtocol::NatPmp, AnswerIn::NatPmpRefusal | AnswerIn::OtherVersion) => {
                self.refused(now);
            }
            _ => self.metrics.refused_unasked.inc(),
        }
    }

    fn refused(&mut self, now: Tick) {
        self.metrics.refused_by_gateway.inc();
        self.wait(now);
    }

    fn both_halves(&mut self, now: Tick) {
        if let (Some(address), Some((port, lifetime))) = (self.address, self.mapped) {
            self.granted(now, address.into(), port, lifetime);
        }
    }

    fn granted(&mut self, now: Tick, address: IpAddr, port: u16, seconds: u32) {
        let lifetime = Duration::from_secs(seconds.into()).min(LIFETIME);
        let refusal = if !address.is_ipv4() || Scope::of(address) != Some(Scope::Global) {
            Some(&self.metrics.refused_address)
        } else if port < MIN_PORT {
            Some(&self.metrics.refused_port)
        } else if lifetime < MIN_LIFETIME {
            Some(&self.metrics.refused_lifetime)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            refusal.inc();
            self.give_back();
            self.lose();
            return self.wait(now);
        }
        let Some((way, _)) = self.way else { return };
        self.metrics.mapped.inc();
        self.pause = MIN_PAUSE;
        let external = SocketAddr::new(address, port);
        let lease = Lease { way, protocol: self.protocol, external, until: now + lifetime };
        self.lease = Some(lease);
        self.outputs.push_back(Output::Lease(Some(lease)));
        self.wait(now);
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease {
            self.protocol = lease.protocol;
            self.give_back();
            self.outputs.push_back(Output::Lease(None));
        }
        (self.lease, self.way, self.phase, self.timer) = (None, None, Phase::Idle, None);
    }
}

impl Machine for PortMap {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::Way { way, nonce } => self.way(now, way, nonce),
            Input::Received(packet) => self.received(now, &packet),
            Input::Release => self.release(),
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        if self.lease.is_some_and(|lease| lease.until <= now) {
            self.lose();
        }
        if self.timer.is_none_or(|timer| now < timer) {
            return;
        }
        match self.phase {
            Phase::Idle => self.timer = None,
            Phase::Asking if self.tries < MAX_TRIES => self.ask(now),
            Phase::Asking => self.unanswered(now),
            Phase::Waiting => self.begin(now),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        self.timer.into_iter().chain(self.lease.map(|lease| lease.until)).min()
    }
}

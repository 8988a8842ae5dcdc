//! The simulated network: hosts, sessions, latency, bandwidth, queues, partitions, translators.
//!
//! A session is an ordered, reliable stream in each direction. A frame leaves when its host's
//! processor and uplink are free, and arrives a latency later when the receiver's downlink is free;
//! what waits for that beyond the queue's bound is refused, and the sender hears when there is room.

mod session;

use bytes::Bytes;
use x0x_core::{PeerAddr, Tick};

use super::{
    ids::{self, NOBODY, Node},
    scenario::NetworkPart,
};
use crate::Sim;

pub(super) use session::{Link, Session};

/// What kind of traffic a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// The overlay's own messages.
    Membership,
    /// Messages with payload.
    Payload,
    /// What the gossip protocol says beside payload.
    Control,
}

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame reaches one end of a session.
    Frame { session: Session, side: u8, class: Class, size: u32, frame: Bytes },
    /// A dial reaches its target.
    Open { from: Node, to: Node, run: u32 },
    /// The answer to a dial reaches the dialler.
    Opened { at: Node, session: Session, run: u32 },
    /// A dial failed.
    Refused { at: Node, to: Node, run: u32 },
    /// One end of a session learns that it is over.
    Closed { session: Session, side: u8 },
    /// A queue that refused a frame has room again.
    Writable { session: Session, side: u8 },
    /// A timer of a node.
    Wake { node: Node, run: u32 },
    /// A host that was busy goes on with what waits for it.
    Resume { node: Node },
    /// The signer of a node is done.
    Signed { node: Node, run: u32 },
}

/// Who can be dialled by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// By everybody.
    Public,
    /// By everybody but those behind a symmetric translator.
    Punchable,
    /// By nobody; it dials public hosts only.
    Hidden,
}

impl Reach {
    /// Whether a host of this kind reaches one of the other kind.
    const fn dials(self, other: Self) -> bool {
        matches!(
            (self, other),
            (_, Self::Public) | (Self::Public | Self::Punchable, Self::Punchable)
        )
    }
}

/// A machine on the network.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) alive: bool,
    /// Counts its starts; timers and dials of an earlier one are void.
    pub(super) run: u32,
    pub(super) reach: Reach,
    /// Partition: hosts with different numbers do not reach each other.
    pub(super) island: u8,
    region: u8,
    /// Bytes per second, up and down.
    pub(super) bandwidth: u64,
    /// Added to each latency from and to it, in microseconds.
    pub(super) extra_latency: u32,
    /// When its uplink, downlink and processor are free.
    up: Tick,
    down: Tick,
    pub(super) busy: Tick,
    /// Its sessions by peer, sorted.
    pub(super) sessions: Vec<(Node, Session)>,
    /// Events that wait for the processor.
    pub(super) inbox: std::collections::VecDeque<Event>,
    /// Its dials under way.
    pub(super) dials: Vec<(Node, PeerAddr)>,
}

/// Bytes and frames sent so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) membership: u64,
    pub(super) payload: u64,
    pub(super) control: u64,
    pub(super) frames: u64,
}

impl Sent {
    /// Bytes of all kinds.
    pub(super) const fn total(&self) -> u64 {
        self.membership + self.payload + self.control
    }
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no session.
    NoSession,
    /// Its queue is full; a `Writable` follows.
    Full,
}

/// The network and its clock.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) sim: Sim<Event>,
    pub(super) hosts: Vec<Host>,
    pub(super) links: Vec<Link>,
    free: Vec<u32>,
    model: NetworkPart,
    first_sybil: Node,
    pub(super) sent: Sent,
    pub(super) refused: u64,
    pub(super) lost: u64,
    pub(super) failed_dials: u64,
    pub(super) opened: u64,
}

impl Net {
    pub(super) fn new(seed: u64, model: NetworkPart, first_sybil: Node) -> Self {
        Self {
            sim: Sim::new(seed),
            hosts: Vec::new(),
            links: Vec::new(),
            free: Vec::new(),
            model,
            first_sybil,
            sent: Sent::default(),
            refused: 0,
            lost: 0,
            failed_dials: 0,
            opened: 0,
        }
    }

    pub(super) const fn now(&self) -> Tick {
        self.sim.now()
    }

    /// Adds a host, not yet alive.
    pub(super) fn add(&mut self) -> Node {
        let region = self.sim.rng().below(self.model.latency_ms.len().max(1)) as u8;
        // The first is the contact of last resort.
        let reach = if self.hosts.is_empty() { Reach::Public } else { self.draw_reach() };
        self.hosts.push(Host {
            alive: false,
            run: 0,
            reach,
            island: 0,
            region,
            bandwidth: self.model.bytes_per_second(),
            extra_latency: 0,
            up: Tick::ZERO,
            down: Tick::ZERO,
            busy: Tick::ZERO,
            sessions: Vec::new(),
            inbox: std::collections::VecDeque::new(),
            dials: Vec::new(),
        });
        (self.hosts.len() - 1) as Node
    }

    fn draw_reach(&mut self) -> Reach {
        let hidden = self.sim.rng().chance(self.model.hidden);
        let punchable = self.sim.rng().chance(self.model.punchable);
        match (hidden, punchable) {
            (true, _) => Reach::Hidden,
            (false, true) => Reach::Punchable,
            (false, false) => Reach::Public,
        }
    }

    pub(super) fn host(&self, node: Node) -> &Host {
        &self.hosts[node as usize]
    }

    pub(super) fn host_mut(&mut self, node: Node) -> &mut Host {
        &mut self.hosts[node as usize]
    }

    pub(super) fn address(&self, node: Node) -> std::net::SocketAddr {
        ids::address(node, self.first_sybil)
    }

    pub(super) fn is_sybil(&self, node: Node) -> bool {
        node >= self.first_sybil
    }

    /// The host that an event concerns; none when it is void.
    pub(super) fn target(&self, event: &Event) -> Option<Node> {
        match event {
            Event::Frame { session, side, .. }
            | Event::Closed { session, side }
            | Event::Writable { session, side } => self.end(*session, *side),
            Event::Open { to, .. } => Some(*to),
            Event::Opened { at, .. } | Event::Refused { at, .. } => Some(*at),
            Event::Wake { node, .. } | Event::Resume { node } | Event::Signed { node, .. } => {
                Some(*node)
            }
        }
    }

    /// Occupies a host's processor: what it does next leaves when that is done.
    pub(super) fn charge(&mut self, node: Node, micros: u64) {
        let now = self.now();
        let host = self.host_mut(node);
        host.busy = host.busy.max(now) + std::time::Duration::from_micros(micros);
    }

    /// The one-way latency of a new path between two hosts, in microseconds.
    fn draw_latency(&mut self, a: Node, b: Node) -> u32 {
        let (a, b) = (self.host(a), self.host(b));
        let extra = a.extra_latency + b.extra_latency;
        let range = self.model.path(a.region.into(), b.region.into());
        let micros = self.sim.rng().range(range.start, range.end);
        u32::try_from(micros).unwrap_or(u32::MAX).saturating_add(extra)
    }

    /// Offers a frame to the queue of a session.
    pub(super) fn send(
        &mut self,
        from: Node,
        to: Node,
        class: Class,
        size: usize,
        frame: Bytes,
    ) -> Result<(), Refusal> {
        let session = self.session(from, to).ok_or(Refusal::NoSession)?;
        let jitter = self.sim.rng().range(0, self.model.jitter_micros());
        let now = self.sim.now();
        let side = self.links[session.slot()].side_of(to);
        let (up, down) = (self.host(from).bandwidth, self.host(to).bandwidth);
        let slowest = up.min(down).max(1);
        let size32 = u32::try_from(size).unwrap_or(u32::MAX);
        let lane = &mut self.links[session.slot()].lanes[usize::from(side)];
        let queued = lane.done.since(now).as_micros() as u64 * slowest / 1_000_000;
        if lane.paused || queued > self.model.queue_bytes() {
            self.refused += 1;
            if !lane.paused {
                lane.paused = true;
                let half = self.model.queue_bytes() / 2 * 1_000_000 / slowest;
                let at = Tick::from_micros(lane.done.as_micros().saturating_sub(half));
                let side = 1 - side;
                self.sim.schedule(at, Event::Writable { session, side });
            }
            return Err(Refusal::Full);
        }
        self.count(class, size as u64);
        if self.host(from).island != self.host(to).island {
            self.lost += 1;
            return Ok(());
        }
        let transfer = |bytes_per_second: u64| {
            std::time::Duration::from_micros(size as u64 * 1_000_000 / bytes_per_second.max(1))
        };
        let host = self.host_mut(from);
        let left = host.busy.max(host.up).max(now) + transfer(up);
        host.up = left;
        let latency = u64::from(self.links[session.slot()].latency) + jitter;
        let landed = left + std::time::Duration::from_micros(latency);
        let host = self.host_mut(to);
        host.down = host.down.max(landed) + transfer(down);
        let arrives = host.down;
        let lane = &mut self.links[session.slot()].lanes[usize::from(side)];
        lane.arrives = lane.arrives.max(arrives);
        lane.done = Tick::from_micros(arrives.as_micros().saturating_sub(latency)).max(left);
        let at = lane.arrives;
        let event = Event::Frame { session, side, class, size: size32, frame };
        self.sim.schedule(at, event);
        Ok(())
    }

    const fn count(&mut self, class: Class, size: u64) {
        self.sent.frames += 1;
        match class {
            Class::Membership => self.sent.membership += size,
            Class::Payload => self.sent.payload += size,
            Class::Control => self.sent.control += size,
        }
    }

    /// Loses a frame that would have gone as a datagram.
    pub(super) fn loses_datagram(&mut self) -> bool {
        self.model.datagram_loss > 0.0 && self.sim.rng().chance(self.model.datagram_loss)
    }

    /// When a silent peer is noticed.
    fn draw_detection(&mut self) -> std::time::Duration {
        let range = self.model.detection();
        std::time::Duration::from_micros(self.sim.rng().range(range.start, range.end))
    }

    /// Opens a session to whoever listens at an address. The result comes as `Opened` or `Refused`,
    /// and ends the entry in [`Host::dials`].
    pub(super) fn dial(&mut self, from: Node, to: PeerAddr) {
        let target = to.addresses.first().and_then(|at| ids::node_at(*at, self.first_sybil));
        let target = target.filter(|to| *to != from && (*to as usize) < self.hosts.len());
        let target = target.unwrap_or(NOBODY);
        let run = self.host(from).run;
        self.host_mut(from).dials.push((target, to));
        if target != NOBODY
            && let Some(session) = self.session(from, target)
        {
            let now = self.now();
            self.sim.schedule(now, Event::Opened { at: from, session, run });
            return;
        }
        if target != NOBODY && self.reaches(from, target) {
            // One round trip and a half, after which the listener knows the dialler.
            let latency = u64::from(self.draw_latency(from, target));
            let at = self.now() + std::time::Duration::from_micros(latency * 3);
            self.sim.schedule(at, Event::Open { from, to: target, run });
        } else {
            let at = self.now() + self.model.dial_timeout();
            self.sim.schedule(at, Event::Refused { at: from, to: target, run });
        }
    }

    fn reaches(&self, from: Node, to: Node) -> bool {
        let (a, b) = (self.host(from), self.host(to));
        b.alive && a.island == b.island && a.reach.dials(b.reach)
    }
}

//! The simulated network: hosts, sessions, latency, bandwidth, queues, partitions, translators.
//!
//! A session is an ordered, reliable stream in each direction. A frame leaves when its host's
//! processor and uplink are free, and lands a latency later, where it waits for the receiver's
//! downlink in the order of landing. What a session has under way beyond the queue's bound is refused,
//! and the sender hears when half of that has arrived: so a slow line at either end holds back each of
//! the sessions that share it.

mod session;

use std::{
    hash::{Hash, Hasher as _},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{MachineId, PeerAddr, SeededRng, Tick};

use super::{
    ids::{self, NOBODY, Node},
    queue::Queue,
    scenario::NetworkPart,
};
use crate::TraceHash;

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

/// Something that will happen to a node.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame reaches one end of a session; `down` when it has passed the downlink there.
    Frame { session: Session, side: u8, class: Class, down: bool, size: u32, frame: Bytes },
    /// A dial reaches its target.
    Open { from: Node, run: u32 },
    /// The answer to a dial reaches the dialler.
    Opened { session: Session, run: u32 },
    /// A dial failed.
    Refused { to: Node, run: u32 },
    /// One end of a session learns that it is over.
    Closed { session: Session, side: u8 },
    /// A queue that refused a frame has room again.
    Writable { session: Session, side: u8 },
    /// A timer of a node.
    Wake { run: u32 },
    /// A host that was busy goes on with what waits for it.
    Resume,
    /// The signer of a node is done.
    Signed { run: u32 },
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
    /// Bytes per second, up and down; not 0.
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
    pub(super) dials: Vec<Dial>,
}

/// Who wants a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// The overlay.
    Overlay,
    /// The gossip protocol, which looks for peers of a topic.
    Gossip,
}

/// A dial under way.
#[derive(Debug)]
pub(super) struct Dial {
    /// [`NOBODY`] when no host has the address.
    pub(super) target: Node,
    pub(super) to: PeerAddr,
    pub(super) caller: Caller,
}

impl Host {
    /// How long its line takes for so many bytes.
    const fn transfer(&self, size: usize) -> Duration {
        Duration::from_micros(size as u64 * 1_000_000 / self.bandwidth)
    }
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
    pub(super) queue: Queue<Event>,
    pub(super) rng: SeededRng,
    trace: TraceHash,
    ids: Vec<MachineId>,
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
            queue: Queue::new(Duration::from_micros(model.shortest_path())),
            rng: SeededRng::from_number(seed),
            trace: TraceHash::default(),
            ids: Vec::new(),
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
        self.queue.now()
    }

    /// Adds something that happened now to the trace.
    pub(super) fn record(&mut self, what: impl Hash) {
        self.now().hash(&mut self.trace);
        what.hash(&mut self.trace);
    }

    /// Digest of everything recorded so far: two runs with equal ones did the same.
    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    /// Adds a host, not yet alive.
    pub(super) fn add(&mut self) -> Node {
        let region = self.rng.below(self.model.latency_ms.len().max(1)) as u8;
        // The first is the contact of last resort.
        let reach = if self.hosts.is_empty() { Reach::Public } else { self.draw_reach() };
        self.ids.push(ids::machine_id(self.hosts.len() as Node));
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
        let hidden = self.rng.chance(self.model.hidden);
        let punchable = self.rng.chance(self.model.punchable);
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

    /// The id of a node's machine.
    pub(super) fn id(&self, node: Node) -> MachineId {
        self.ids[node as usize]
    }

    pub(super) fn address(&self, node: Node) -> std::net::SocketAddr {
        ids::address(node, self.first_sybil)
    }

    pub(super) fn is_sybil(&self, node: Node) -> bool {
        node >= self.first_sybil
    }

    /// Whether an event that reaches a node is not void by now.
    pub(super) fn concerns(&self, node: Node, event: &Event) -> bool {
        match event {
            Event::Frame { session, side, .. }
            | Event::Closed { session, side }
            | Event::Writable { session, side } => self.end(*session, *side) == Some(node),
            Event::Opened { run, .. }
            | Event::Refused { run, .. }
            | Event::Wake { run }
            | Event::Signed { run } => self.host(node).run == *run,
            Event::Open { .. } | Event::Resume => true,
        }
    }

    /// Occupies a host's processor: what it does next leaves when that is done.
    pub(super) fn charge(&mut self, node: Node, micros: u64) {
        let now = self.now();
        let host = self.host_mut(node);
        host.busy = host.busy.max(now) + Duration::from_micros(micros);
    }

    /// The one-way latency of a new path between two hosts, in microseconds.
    fn draw_latency(&mut self, a: Node, b: Node) -> u32 {
        let (a, b) = (self.host(a), self.host(b));
        let extra = a.extra_latency + b.extra_latency;
        let range = self.model.path(a.region.into(), b.region.into());
        let micros = self.rng.range(range.start, range.end);
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
        let jitter = self.rng.range(0, self.model.jitter_micros());
        let link = &mut self.links[session.slot()];
        let side = link.side_of(to);
        let latency = u64::from(link.latency) + jitter;
        let lane = &mut link.lanes[usize::from(side)];
        if lane.paused || lane.under_way > self.model.queue_bytes() {
            lane.paused = true;
            self.refused += 1;
            return Err(Refusal::Full);
        }
        self.count(class, size as u64);
        if self.host(from).island != self.host(to).island {
            self.lost += 1;
            return Ok(());
        }
        let (now, down) = (self.now(), self.host(to).transfer(size));
        let host = self.host_mut(from);
        host.up = host.busy.max(host.up).max(now) + host.transfer(size);
        let landed = host.up + Duration::from_micros(latency);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let lane = &mut self.links[session.slot()].lanes[usize::from(side)];
        lane.arrives = lane.arrives.max(landed + down);
        lane.under_way += u64::from(size);
        let at = lane.arrives;
        let event = Event::Frame { session, side, class, down: false, size, frame };
        self.queue.schedule(to, at, event);
        Ok(())
    }

    /// A frame landed: when it has passed the downlink, which is now unless others came before it.
    pub(super) fn land(&mut self, node: Node, size: u32) -> Tick {
        let now = self.now();
        let host = self.host_mut(node);
        let takes = host.transfer(size as usize);
        let free = host.down.as_micros() + takes.as_micros() as u64;
        host.down = now.max(Tick::from_micros(free));
        host.down
    }

    /// A frame of a session was taken: there may be room for more.
    pub(super) fn taken(&mut self, session: Session, side: u8, size: u32) {
        let room = self.model.queue_bytes() / 2;
        let at = self.now();
        let Some(link) = self.links.get_mut(session.slot()).filter(|link| link.is(session)) else {
            return;
        };
        let lane = &mut link.lanes[usize::from(side)];
        lane.under_way = lane.under_way.saturating_sub(size.into());
        if lane.paused && !lane.told && lane.under_way <= room {
            lane.told = true;
            let side = 1 - side;
            let (sender, latency) = (link.ends[usize::from(side)], link.latency);
            let at = at + Duration::from_micros(latency.into());
            self.queue.schedule(sender, at, Event::Writable { session, side });
        }
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
        self.model.datagram_loss > 0.0 && self.rng.chance(self.model.datagram_loss)
    }

    /// When a silent peer is noticed.
    fn draw_detection(&mut self) -> Duration {
        let range = self.model.detection();
        Duration::from_micros(self.rng.range(range.start, range.end))
    }

    /// Opens a session to whoever listens at an address. The result comes as `Opened` or `Refused`,
    /// and ends the entry in [`Host::dials`].
    pub(super) fn dial(&mut self, from: Node, to: PeerAddr, caller: Caller) {
        let target = to.addresses.first().and_then(|at| ids::node_at(*at, self.first_sybil));
        let target = target.filter(|to| *to != from && (*to as usize) < self.hosts.len());
        let target = target.unwrap_or(NOBODY);
        let run = self.host(from).run;
        self.host_mut(from).dials.push(Dial { target, to, caller });
        if target != NOBODY
            && let Some(session) = self.session(from, target)
        {
            let now = self.now();
            self.queue.schedule(from, now, Event::Opened { session, run });
            return;
        }
        if target != NOBODY && self.reaches(from, target) {
            // One round trip and a half, after which the listener knows the dialler.
            let latency = u64::from(self.draw_latency(from, target));
            let at = self.now() + Duration::from_micros(latency * 3);
            self.queue.schedule(target, at, Event::Open { from, run });
        } else {
            let at = self.now() + self.model.dial_timeout();
            self.queue.schedule(from, at, Event::Refused { to: target, run });
        }
    }

    fn reaches(&self, from: Node, to: Node) -> bool {
        let (a, b) = (self.host(from), self.host(to));
        b.alive && a.island == b.island && a.reach.dials(b.reach)
    }
}

#[cfg(test)]
mod tests;

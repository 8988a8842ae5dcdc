//! The overlay: machines with a few neighbours, which know a share of the others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, Machine, MachineId, PeerAddr, SeededRng, Tick, WallTime};
use x0x_identity::{AcceptAll, SecretKey, testing::key};
use x0x_rendezvous::{
    Finder, FinderConfig, FinderInput, FinderOutput, Frame, Record, SignedRecord, Stamp, Subject,
    testing::{invented, random_machine},
};

pub(crate) const START: WallTime = WallTime::from_millis(1_800_000_000_000);
const LATENCY: Duration = Duration::from_millis(50);
/// Two round trips: the connection, and the hellos.
const DIAL: Duration = Duration::from_millis(200);

/// How a node treats others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Takes everything, answers nothing.
    Silent,
    /// Claims to hold what it does not, tells forged records and machines that do not exist.
    Liar,
}

pub(crate) struct Node {
    pub(crate) finder: Finder,
    key: SecretKey,
    pub(crate) manner: Manner,
    pub(crate) found: Vec<(u64, Tick, Record)>,
    pub(crate) done: Vec<(u64, Tick)>,
    pub(crate) refused: Vec<u64>,
}

enum Event {
    Input(FinderInput),
    Timer,
    /// The dial of a machine ends.
    Dialled(usize),
    Failed(MachineId),
}

pub(crate) struct Overlay {
    pub(crate) now: Tick,
    pub(crate) nodes: Vec<Node>,
    pub(crate) rng: SeededRng,
    numbers: BTreeMap<MachineId, usize>,
    links: BTreeSet<(usize, usize)>,
    neighbors: BTreeSet<(usize, usize)>,
    queue: BinaryHeap<Reverse<(Tick, u64, usize)>>,
    events: BTreeMap<u64, Event>,
    timers: Vec<Option<Tick>>,
    sent: u64,
    pub(crate) dials: u64,
}

/// Spread evenly, as hashes are.
pub(crate) fn machine(n: usize) -> MachineId {
    random_machine(&mut SeededRng::from_number(n as u64))
}

/// Each machine in a network of its own.
pub(crate) fn address(n: usize) -> PeerAddr {
    let ip = [60 + (n / 256) as u8, (n % 256) as u8, 1, 1];
    PeerAddr::known(machine(n), [SocketAddr::from((ip, 5483))])
}

impl Overlay {
    /// `count` nodes, each with a few neighbours, which knows `known` others.
    pub(crate) fn new(count: usize, known: usize, seed: u64) -> Self {
        println!("seed {seed}");
        let mut rng = SeededRng::from_number(seed);
        let node = |n: usize| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
            Node {
                finder: Finder::new(machine(n), FinderConfig::default(), Arc::new(AcceptAll), seed),
                key: key(n as u64),
                manner: Manner::Honest,
                found: Vec::new(),
                done: Vec::new(),
                refused: Vec::new(),
            }
        };
        let nodes = (0..count).map(node).collect();
        let mut overlay = Self {
            now: Tick::ZERO,
            nodes,
            rng,
            numbers: (0..count).map(|n| (machine(n), n)).collect(),
            links: BTreeSet::new(),
            neighbors: BTreeSet::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            timers: vec![None; count],
            sent: 0,
            dials: 0,
        };
        for n in 0..count {
            for _ in 0..3.min(count - 1) {
                let other = overlay.rng.below(count);
                overlay.neighbors.insert((n.min(other), n.max(other)));
            }
            overlay.neighbors.insert((n.min((n + 1) % count), n.max((n + 1) % count)));
            let others = (0..known).map(|_| address(overlay.rng.below(count))).collect();
            overlay.input(n, FinderInput::Volunteers(others));
        }
        overlay.neighbors.retain(|(a, b)| a != b);
        for (a, b) in overlay.neighbors.clone() {
            overlay.link(a, b);
        }
        overlay
    }

    pub(crate) fn agent(&self, n: usize) -> AgentId {
        self.nodes[n].key.public_key().agent_id()
    }

    pub(crate) fn wall(&self) -> WallTime {
        START + self.now.since(Tick::ZERO)
    }

    pub(crate) fn link(&mut self, a: usize, b: usize) {
        if !self.links.insert((a, b)) {
            return;
        }
        self.links.insert((b, a));
        for (n, peer) in [(a, b), (b, a)] {
            let agents = vec![self.agent(peer)];
            let (peer, address) = (machine(peer), address(peer));
            let remote = address.addresses[0];
            self.input(n, FinderInput::Up { peer, agents, address, remote });
        }
    }

    /// Its finder starts anew, with nothing but its links and a few addresses.
    pub(crate) fn restart(&mut self, n: usize, known: usize) {
        let seed = [self.rng.below(256) as u8; 32];
        let finder = Finder::new(machine(n), FinderConfig::default(), Arc::new(AcceptAll), seed);
        self.nodes[n].finder = finder;
        let count = self.nodes.len();
        let others = (0..known).map(|_| address(self.rng.below(count))).collect();
        self.input(n, FinderInput::Volunteers(others));
        let peers: Vec<usize> =
            self.links.iter().filter(|(from, _)| *from == n).map(|(_, to)| *to).collect();
        for peer in peers {
            let (agents, address) = (vec![self.agent(peer)], address(peer));
            let (peer, remote) = (machine(peer), address.addresses[0]);
            self.input(n, FinderInput::Up { peer, agents, address, remote });
        }
    }

    /// The transport closes what is idle: all but the neighbours.
    pub(crate) fn close_idle(&mut self) {
        let idle: Vec<_> = self
            .links
            .iter()
            .copied()
            .filter(|(a, b)| !self.neighbors.contains(&(*a.min(b), *a.max(b))))
            .collect();
        for (a, b) in idle {
            self.links.remove(&(a, b));
            self.input(a, FinderInput::Down(machine(b)));
        }
    }

    /// The record of a node.
    pub(crate) fn record(&self, n: usize, subject: Subject) -> SignedRecord {
        let stamp = Stamp { announced_at: self.wall(), counter: 1 };
        let (key, addresses) = (&self.nodes[n].key, address(n).addresses);
        SignedRecord::issue(key, machine(n), 0, subject, &addresses, stamp)
    }

    pub(crate) fn input(&mut self, n: usize, input: FinderInput) {
        if let FinderInput::Message { peer, frame } = &input
            && self.nodes[n].manner != Manner::Honest
            && self.misbehave(n, *peer, frame)
        {
            return;
        }
        let (now, wall) = (self.now, self.wall());
        let finder = &mut self.nodes[n].finder;
        finder.handle(now, FinderInput::Wall(wall));
        finder.handle(now, input);
        self.carry_out(n);
    }

    /// True when the frame is dealt with.
    fn misbehave(&mut self, n: usize, peer: MachineId, frame: &Bytes) -> bool {
        let silent = self.nodes[n].manner == Manner::Silent;
        match Frame::decode(frame) {
            Ok(Frame::Lookup { .. }) if silent => {}
            Ok(Frame::Lookup { key, id, .. }) => {
                let referrals = invented(&mut self.rng, &key);
                let record = || vec![0xab; 5600].into();
                // Every other answer tells no record, which would give it away.
                let sealed = (0..self.rng.below(2)).map(|_| record()).collect();
                let answer = Frame::Found { key, id, sealed, referrals, holds: true };
                self.send(n, peer, answer.encode());
            }
            Ok(Frame::Store { key, .. }) => {
                self.send(n, peer, Frame::Stored { key, kept: true }.encode());
            }
            _ => return false,
        }
        true
    }

    fn carry_out(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].finder.poll_output() {
            match output {
                FinderOutput::Send { peer, frame } => self.send(n, peer, frame),
                FinderOutput::Dial(address) => {
                    self.dials += 1;
                    let peer = address.id.expect("named");
                    match self.numbers.get(&peer).copied() {
                        Some(to) => self.at(DIAL, n, Event::Dialled(to)),
                        None => self.at(Duration::from_secs(6), n, Event::Failed(peer)),
                    }
                }
                FinderOutput::Sign(subject) => {
                    let record = Box::new(self.record(n, subject));
                    let publish =
                        FinderInput::Publish { subject, near: record.clone(), far: record };
                    self.input(n, publish);
                }
                FinderOutput::Found { ticket, record } => {
                    let found = (ticket, self.now, record.record().clone());
                    self.nodes[n].found.push(found);
                }
                FinderOutput::Done { ticket } => self.nodes[n].done.push((ticket, self.now)),
                FinderOutput::Busy { ticket } => self.nodes[n].refused.push(ticket),
                _ => {}
            }
        }
        let timer = self.nodes[n].finder.poll_timeout();
        if let Some(at) = timer.filter(|at| self.timers[n].is_none_or(|set| *at < set)) {
            self.timers[n] = Some(at);
            self.at(at.since(self.now), n, Event::Timer);
        }
    }

    fn send(&mut self, from: usize, peer: MachineId, frame: Bytes) {
        if let Some(to) = self.numbers.get(&peer).copied()
            && self.links.contains(&(from, to))
        {
            let input = FinderInput::Message { peer: machine(from), frame };
            self.at(LATENCY, to, Event::Input(input));
        }
    }

    fn at(&mut self, after: Duration, n: usize, event: Event) {
        self.sent += 1;
        self.events.insert(self.sent, event);
        self.queue.push(Reverse((self.now + after, self.sent, n)));
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, number, n))) =
            self.queue.peek().copied().filter(|Reverse((at, ..))| *at <= end)
        {
            self.queue.pop();
            self.now = at;
            match self.events.remove(&number) {
                Some(Event::Input(input)) => self.input(n, input),
                Some(Event::Timer) => {
                    self.timers[n] = None;
                    let (now, wall) = (self.now, self.wall());
                    let finder = &mut self.nodes[n].finder;
                    finder.handle(now, FinderInput::Wall(wall));
                    finder.handle_timeout(now);
                    self.carry_out(n);
                }
                Some(Event::Dialled(to)) => self.link(n, to),
                Some(Event::Failed(peer)) => self.input(n, FinderInput::DialFailed(peer)),
                None => {}
            }
        }
        self.now = end;
    }
}

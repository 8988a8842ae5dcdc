//! N machines joined by simulated sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::Hash,
    time::Duration,
};

use x0x_core::{Machine, Tick};

use crate::{Fate, LinkModel, Network, Sim, Stats};

/// A simulated node, by its place in the swarm.
pub type NodeId = usize;

/// More outputs than this from one input is a livelock.
const MAX_OUTPUTS: usize = 100_000;

/// Translates one kind of machine to and from the simulated network.
pub trait Adapter {
    /// The machine under test.
    type Machine: Machine;
    /// What travels in a session. Its hash enters the trace.
    type Message: Clone + Hash;
    /// What the machine wants back with the result of a dial.
    type Dial;
    /// What the machine tells its user.
    type Event;

    /// Makes the machine of a node that starts, with a seed of its own.
    fn machine(&mut self, node: NodeId, seed: u64) -> Self::Machine;

    /// Turns a network event into an input, if the machine cares.
    fn input(
        &mut self,
        node: NodeId,
        event: NetEvent<Self::Message, Self::Dial>,
    ) -> Option<<Self::Machine as Machine>::Input>;

    /// Turns an output into effects.
    fn output(
        &mut self,
        node: NodeId,
        output: <Self::Machine as Machine>::Output,
        effects: &mut Vec<Effect<Self::Message, Self::Dial, Self::Event>>,
    );
}

/// What the network tells a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetEvent<M, D> {
    /// A session with this peer begins.
    Up(NodeId),
    /// A message from a peer whose session is up.
    Message {
        /// Who sent it.
        from: NodeId,
        /// What it sent.
        message: M,
    },
    /// The session with this peer ended.
    Down(NodeId),
    /// A dial ended: the peer reached, or nobody. `Up` comes before a success.
    Dialled {
        /// As given to [`Effect::Connect`].
        dial: D,
        /// The peer reached.
        peer: Option<NodeId>,
    },
}

/// What a node asks of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect<M, D, E> {
    /// Sends a message over the session with a peer.
    Send {
        /// The peer.
        to: NodeId,
        /// The message.
        message: M,
    },
    /// Opens a session.
    Connect {
        /// The node at the address dialled, if there is one.
        to: Option<NodeId>,
        /// Given back in [`NetEvent::Dialled`].
        dial: D,
    },
    /// Closes the session with a peer.
    Disconnect {
        /// The peer.
        to: NodeId,
    },
    /// Tells the test something.
    Emit(E),
}

enum Event<M, D> {
    Arrive { from: NodeId, to: NodeId, generation: u64, message: M },
    Open { from: NodeId, to: NodeId, run: u32, dial: Option<D> },
    Opened { at: NodeId, peer: NodeId, generation: u64, run: u32, dial: Option<D> },
    Refused { at: NodeId, run: u32, dial: Option<D> },
    Closed { at: NodeId, peer: NodeId, generation: u64 },
    Wake { node: NodeId, run: u32 },
}

struct Node<M> {
    machine: Option<M>,
    /// Counts starts, so that nothing meant for an earlier life reaches a later one.
    run: u32,
    /// Peers with a session as this node sees it, and the session's number.
    sessions: BTreeMap<NodeId, u64>,
    wake: Option<Tick>,
}

/// Machines in a simulated network.
pub struct Swarm<A: Adapter> {
    adapter: A,
    sim: Sim<Event<A::Message, A::Dial>>,
    network: Network,
    nodes: Vec<Node<A::Machine>>,
    /// When the last ordered message between two nodes arrives.
    lanes: BTreeMap<(NodeId, NodeId), Tick>,
    generations: u64,
    /// Sessions that at least one side knows to be over.
    ended: BTreeSet<u64>,
    events: Vec<(Tick, NodeId, A::Event)>,
    stats: Stats,
}

impl<A: Adapter> fmt::Debug for Swarm<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swarm")
            .field("nodes", &self.nodes.len())
            .field("sim", &self.sim)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl<A: Adapter> Swarm<A> {
    /// An empty swarm.
    #[must_use]
    pub fn new(seed: u64, model: LinkModel, adapter: A) -> Self {
        Self {
            adapter,
            sim: Sim::new(seed),
            network: Network::new(model),
            nodes: Vec::new(),
            lanes: BTreeMap::new(),
            generations: 0,
            ended: BTreeSet::new(),
            events: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Adds a node and starts its machine.
    pub fn add(&mut self) -> NodeId {
        let node = self.nodes.len();
        self.nodes.push(Node { machine: None, run: 0, sessions: BTreeMap::new(), wake: None });
        self.start(node);
        node
    }

    /// Starts a stopped or crashed node anew, with no memory. Does nothing when it runs.
    pub fn start(&mut self, node: NodeId) {
        if self.nodes[node].machine.is_some() {
            return;
        }
        let seed = self.sim.rng().next_u64();
        let machine = self.adapter.machine(node, seed);
        let entry = &mut self.nodes[node];
        entry.machine = Some(machine);
        entry.run += 1;
        entry.wake = None;
        self.sim.record(("start", node));
        self.settle(node);
    }

    /// Stops a node; its peers hear of it at once, behind what it sent before.
    pub fn stop(&mut self, node: NodeId) {
        for (peer, generation) in self.halt(node) {
            let at = self.lane(node, peer);
            self.sim.schedule(at, Event::Closed { at: peer, peer: node, generation });
        }
    }

    /// Ends a node without a word; its peers notice after the model's detection time.
    pub fn crash(&mut self, node: NodeId) {
        for (peer, generation) in self.halt(node) {
            self.doom(peer, node, generation);
        }
    }

    /// Cuts nodes off from all others. Sessions across the cut end after the detection time, even
    /// when the cut is healed before.
    pub fn isolate(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.network.isolate(nodes);
        for at in 0..self.nodes.len() {
            let sessions = self.nodes[at].sessions.clone();
            for (peer, generation) in sessions {
                if self.network.is_cut(at, peer) {
                    self.doom(at, peer, generation);
                }
            }
        }
    }

    /// Removes every partition.
    pub fn heal(&mut self) {
        self.network.heal();
    }

    /// The link model, to change it for what is sent from now on.
    pub const fn model_mut(&mut self) -> &mut LinkModel {
        self.network.model_mut()
    }

    /// Opens a session as if `from` had dialled, without asking its machine.
    pub fn connect(&mut self, from: NodeId, to: NodeId) {
        self.dial(from, Some(to), None);
    }

    /// Closes a session as if `from` had asked for it.
    pub fn disconnect(&mut self, from: NodeId, to: NodeId) {
        if let Some(generation) = self.nodes[from].sessions.get(&to).copied() {
            let at = self.lane(from, to);
            self.sim.schedule(at, Event::Closed { at: to, peer: from, generation });
            let now = self.sim.now();
            self.sim.schedule(now, Event::Closed { at: from, peer: to, generation });
        }
    }

    /// Gives an input to a running node's machine, now.
    pub fn input(&mut self, node: NodeId, input: <A::Machine as Machine>::Input) {
        let now = self.sim.now();
        if let Some(machine) = &mut self.nodes[node].machine {
            machine.handle(now, input);
            self.settle(node);
        }
    }

    /// Lets virtual time pass.
    pub fn run_for(&mut self, time: Duration) {
        let deadline = self.sim.now() + time;
        while let Some(event) = self.sim.next_until(deadline) {
            self.stats.events += 1;
            self.process(event);
        }
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Tick {
        self.sim.now()
    }

    /// The machine of a running node.
    #[must_use]
    pub fn machine(&self, node: NodeId) -> Option<&A::Machine> {
        self.nodes.get(node)?.machine.as_ref()
    }

    /// The running nodes, in order.
    pub fn running(&self) -> impl Iterator<Item = (NodeId, &A::Machine)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(id, node)| Some((id, node.machine.as_ref()?)))
    }

    /// Whether a node sees a session with a peer.
    #[must_use]
    pub fn has_session(&self, node: NodeId, peer: NodeId) -> bool {
        self.nodes.get(node).is_some_and(|node| node.sessions.contains_key(&peer))
    }

    /// Takes what machines emitted since the last call, with the time and the node.
    pub fn take_events(&mut self) -> Vec<(Tick, NodeId, A::Event)> {
        std::mem::take(&mut self.events)
    }

    /// The adapter.
    pub const fn adapter_mut(&mut self) -> &mut A {
        &mut self.adapter
    }

    /// What the network did so far.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Digest of the whole run so far; the same seed and calls give the same one.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.sim.trace_hash()
    }

    fn halt(&mut self, node: NodeId) -> BTreeMap<NodeId, u64> {
        let entry = &mut self.nodes[node];
        if entry.machine.take().is_some() {
            self.sim.record(("halt", node));
        }
        let sessions = std::mem::take(&mut self.nodes[node].sessions);
        self.ended.extend(sessions.values());
        sessions
    }

    /// Ends one side of a session after the detection time.
    fn doom(&mut self, at: NodeId, peer: NodeId, generation: u64) {
        let notice = self.sim.now() + self.network.detection(self.sim.rng());
        self.sim.schedule(notice, Event::Closed { at, peer, generation });
    }

    /// When the next ordered thing from `from` reaches `to`.
    fn lane(&mut self, from: NodeId, to: NodeId) -> Tick {
        let latency = self.network.latency(self.sim.rng());
        self.ordered(from, to, latency)
    }

    fn ordered(&mut self, from: NodeId, to: NodeId, latency: Duration) -> Tick {
        let at = self.sim.now() + latency;
        let last = self.lanes.entry((from, to)).or_default();
        *last = at.max(*last);
        *last
    }

    fn dial(&mut self, from: NodeId, to: Option<NodeId>, dial: Option<A::Dial>) {
        let run = self.nodes[from].run;
        let reached = to.filter(|to| {
            self.nodes.get(*to).is_some_and(|node| node.machine.is_some())
                && !self.network.is_cut(from, *to)
                && *to != from
        });
        if let Some(to) = reached {
            let at = self.lane(from, to);
            self.sim.schedule(at, Event::Open { from, to, run, dial });
        } else {
            let at = self.sim.now() + self.network.model().dial_timeout;
            self.sim.schedule(at, Event::Refused { at: from, run, dial });
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: A::Message) {
        self.stats.sent += 1;
        let Some(generation) = self.nodes[from].sessions.get(&to).copied() else {
            self.stats.undeliverable += 1;
            return;
        };
        if self.network.is_cut(from, to) {
            self.stats.lost += 1;
            return;
        }
        let now = self.sim.now();
        match self.network.fate(self.sim.rng()) {
            Fate::Lost => self.stats.lost += 1,
            Fate::Ordered(delay) => {
                let at = self.ordered(from, to, delay);
                self.sim.schedule(at, Event::Arrive { from, to, generation, message });
            }
            Fate::Unordered(delays) => {
                for delay in delays {
                    let message = message.clone();
                    self.sim.schedule(now + delay, Event::Arrive { from, to, generation, message });
                }
            }
        }
    }

    fn process(&mut self, event: Event<A::Message, A::Dial>) {
        match event {
            Event::Arrive { from, to, generation, message } => {
                if self.nodes[to].sessions.get(&from) != Some(&generation) {
                    self.stats.undeliverable += 1;
                    return;
                }
                self.stats.delivered += 1;
                self.sim.record(("message", from, to, &message));
                self.tell(to, NetEvent::Message { from, message });
            }
            Event::Open { from, to, run, dial } => self.accept(from, to, run, dial),
            Event::Opened { at, peer, generation, run, dial } => {
                if self.nodes[at].run != run || self.nodes[at].machine.is_none() {
                    return;
                }
                if self.ended.contains(&generation) {
                    self.stats.failed_dials += 1;
                    return self.tell_dialled(at, dial, None);
                }
                self.begin(at, peer, generation);
                self.tell_dialled(at, dial, Some(peer));
            }
            Event::Refused { at, run, dial } => {
                if self.nodes[at].run == run {
                    self.stats.failed_dials += 1;
                    self.tell_dialled(at, dial, None);
                }
            }
            Event::Closed { at, peer, generation } => self.end(at, peer, generation),
            Event::Wake { node, run } => self.wake(node, run),
        }
    }

    /// A dial reaches the acceptor, which gets the session first.
    fn accept(&mut self, from: NodeId, to: NodeId, run: u32, dial: Option<A::Dial>) {
        if self.nodes[to].machine.is_none() || self.nodes[from].run != run {
            let at = self.sim.now() + self.network.model().dial_timeout;
            self.sim.schedule(at, Event::Refused { at: from, run, dial });
            return;
        }
        let shared = self.nodes[to].sessions.get(&from);
        // The dialler sees it too, or is about to: one session for two dials.
        let shared = shared.copied().filter(|generation| !self.ended.contains(generation));
        let generation = shared.unwrap_or_else(|| {
            self.generations += 1;
            self.stats.sessions += 1;
            self.generations
        });
        // First the answer, then what the acceptor sends into the new session.
        let at = self.lane(to, from);
        self.sim.schedule(at, Event::Opened { at: from, peer: to, generation, run, dial });
        self.begin(to, from, generation);
    }

    /// A session begins on one side, replacing an older one.
    fn begin(&mut self, at: NodeId, peer: NodeId, generation: u64) {
        match self.nodes[at].sessions.get(&peer).copied() {
            Some(old) if old >= generation => return,
            Some(old) => self.end(at, peer, old),
            None => {}
        }
        self.nodes[at].sessions.insert(peer, generation);
        self.sim.record(("up", at, peer));
        self.tell(at, NetEvent::Up(peer));
    }

    fn end(&mut self, at: NodeId, peer: NodeId, generation: u64) {
        if self.nodes[at].sessions.get(&peer) == Some(&generation) {
            self.nodes[at].sessions.remove(&peer);
            self.ended.insert(generation);
            self.sim.record(("down", at, peer));
            self.tell(at, NetEvent::Down(peer));
        }
    }

    fn wake(&mut self, node: NodeId, run: u32) {
        let now = self.sim.now();
        let entry = &mut self.nodes[node];
        if entry.run != run || entry.wake.is_none_or(|at| at > now) {
            return;
        }
        entry.wake = None;
        if let Some(machine) = &mut entry.machine {
            if machine.poll_timeout().is_some_and(|at| at <= now) {
                machine.handle_timeout(now);
                self.stats.timeouts += 1;
                self.sim.record(("timeout", node));
            }
            self.settle(node);
        }
    }

    fn tell_dialled(&mut self, node: NodeId, dial: Option<A::Dial>, peer: Option<NodeId>) {
        if let Some(dial) = dial {
            self.tell(node, NetEvent::Dialled { dial, peer });
        }
    }

    fn tell(&mut self, node: NodeId, event: NetEvent<A::Message, A::Dial>) {
        if self.nodes[node].machine.is_some()
            && let Some(input) = self.adapter.input(node, event)
        {
            self.input(node, input);
        }
    }

    /// Carries out all outputs, then arms the node's timer.
    fn settle(&mut self, node: NodeId) {
        let mut effects = Vec::new();
        for count in 0.. {
            let Some(output) = self.nodes[node].machine.as_mut().and_then(Machine::poll_output)
            else {
                break;
            };
            assert!(
                count < MAX_OUTPUTS,
                "node {node} never falls silent; seed {}",
                self.sim.seed()
            );
            self.adapter.output(node, output, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Send { to, message } => self.send(node, to, message),
                    Effect::Connect { to, dial } => self.dial(node, to, Some(dial)),
                    Effect::Disconnect { to } => self.disconnect(node, to),
                    Effect::Emit(event) => self.events.push((self.sim.now(), node, event)),
                }
            }
        }
        let entry = &mut self.nodes[node];
        let timeout = entry.machine.as_ref().and_then(Machine::poll_timeout);
        if let Some(at) = timeout
            && entry.wake.is_none_or(|armed| at < armed)
        {
            entry.wake = Some(at);
            let run = entry.run;
            self.sim.schedule(at, Event::Wake { node, run });
        }
    }
}

//! A small world: a few machines joined by bounded queues, in virtual time and in an order drawn
//! from a seed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, Machine as _, MachineId, PeerAddr, SeededRng, Tick, TopicId, WallTime};
use x0x_gossip_pubsub::{
    Delivery, Input, Limits, Message, NetworkId, Output, PubSubMachine, PubSubMetrics,
    PublishError, Publisher, Start, SubscriptionId, epoch_at,
};
use x0x_identity::{SecretKey, testing};

pub(crate) const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);
pub(crate) const NETWORK: &str = "test";

pub(crate) struct Node {
    pub(crate) key: SecretKey,
    pub(crate) machine: PubSubMachine,
    pub(crate) publisher: Publisher,
    pub(crate) received: BTreeMap<SubscriptionId, Vec<Delivery>>,
    full: BTreeSet<SubscriptionId>,
    limits: Limits,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Tick,
    pub(crate) rng: SeededRng,
    /// Messages that a queue holds before it is busy.
    pub(crate) capacity: usize,
    /// How often a subscriber's channel is full.
    pub(crate) refusals: f64,
    pub(crate) links: BTreeSet<(usize, usize)>,
    pub(crate) disconnects: Vec<(usize, MachineId)>,
    /// Frames to hostile peers, which only talk.
    pub(crate) sent: Vec<(usize, MachineId, Bytes)>,
    /// Peers that are to be dialled.
    pub(crate) dials: Vec<PeerAddr>,
    /// Sessions that are needed although the overlay does not need them.
    pub(crate) held: BTreeSet<MachineId>,
    /// Entries accepted for publishing, by topic and author and epoch.
    pub(crate) published: BTreeMap<(TopicId, AgentId, u64), u64>,
    queues: BTreeMap<(usize, usize), VecDeque<Bytes>>,
    busy: BTreeSet<(usize, usize)>,
    restarts: u64,
    /// Nodes whose clocks are behind.
    pub(crate) behind: BTreeMap<usize, Duration>,
}

impl Node {
    fn new(index: usize, epoch: u64, limits: Limits) -> Self {
        let key = testing::key(index as u64);
        let network = NetworkId::from_name(NETWORK);
        let public = key.public_key().clone();
        let metrics = Arc::new(PubSubMetrics::default());
        Self {
            machine: PubSubMachine::new(network, public.clone(), limits.clone(), metrics),
            publisher: Publisher::new(network, public.agent_id(), epoch, limits.clone()),
            key,
            received: BTreeMap::new(),
            full: BTreeSet::new(),
            limits,
        }
    }

    pub(crate) fn messages(&self, id: SubscriptionId) -> Vec<&Message> {
        let messages = self.received[&id].iter();
        messages
            .filter_map(|delivery| match delivery {
                Delivery::Message(message) => Some(message),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn missed(&self, id: SubscriptionId) -> u64 {
        let missed = self.received[&id].iter().map(|delivery| match delivery {
            Delivery::Lagged { missed } => *missed,
            _ => 0,
        });
        missed.sum()
    }
}

pub(crate) fn machine_id(index: usize) -> MachineId {
    MachineId::new([u8::try_from(index).expect("a small world") + 1; 32])
}

fn index_of(id: MachineId) -> usize {
    usize::from(id.as_bytes()[0]) - 1
}

impl World {
    pub(crate) fn new(nodes: usize, seed: u64, limits: &Limits) -> Self {
        let mut world = Self {
            nodes: (0..nodes).map(|n| Node::new(n, epoch_at(WALL, 0), limits.clone())).collect(),
            now: Tick::from_millis(1),
            rng: SeededRng::from_number(seed),
            capacity: 4,
            refusals: 0.1,
            links: BTreeSet::new(),
            disconnects: Vec::new(),
            sent: Vec::new(),
            dials: Vec::new(),
            held: BTreeSet::new(),
            published: BTreeMap::new(),
            queues: BTreeMap::new(),
            busy: BTreeSet::new(),
            restarts: 0,
            behind: BTreeMap::new(),
        };
        for node in 0..nodes {
            world.input(node, Input::Wall(WALL));
        }
        world
    }

    /// Gives a node limits of its own, before anything else happens to it.
    pub(crate) fn limit(&mut self, node: usize, limits: Limits) {
        self.nodes[node] = Node::new(node, epoch_at(WALL, 0), limits);
        self.input(node, Input::Wall(WALL));
    }

    /// A ring with a chord when there are more than three.
    pub(crate) fn ring(nodes: usize, seed: u64, limits: &Limits) -> Self {
        let mut world = Self::new(nodes, seed, limits);
        for a in 0..nodes {
            world.link(a, (a + 1) % nodes);
        }
        if nodes > 3 {
            world.link(0, 2);
        }
        world
    }

    pub(crate) fn wall(&self) -> WallTime {
        WALL + self.now.since(Tick::ZERO)
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) {
        self.nodes[node].machine.handle(self.now, input);
        self.drain(node);
    }

    pub(crate) fn link(&mut self, a: usize, b: usize) {
        let pair = (a.min(b), a.max(b));
        if a != b && self.links.insert(pair) {
            self.input(a, Input::LinkUp(machine_id(b)));
            self.input(b, Input::LinkUp(machine_id(a)));
        }
    }

    pub(crate) fn unlink(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))) {
            for pair in [(a, b), (b, a)] {
                self.queues.remove(&pair);
                self.busy.remove(&pair);
            }
            self.input(a, Input::LinkDown(machine_id(b)));
            self.input(b, Input::LinkDown(machine_id(a)));
        }
    }

    pub(crate) fn subscribe(
        &mut self,
        node: usize,
        topic: TopicId,
        start: Start,
    ) -> SubscriptionId {
        let state = &mut self.nodes[node];
        let id = state.machine.subscribe(self.now, topic, start).expect("room");
        state.received.insert(id, Vec::new());
        self.drain(node);
        id
    }

    pub(crate) fn publish(
        &mut self,
        node: usize,
        topic: TopicId,
        text: &str,
    ) -> Result<u64, PublishError> {
        let wall = self.wall();
        let state = &mut self.nodes[node];
        state.publisher.publish(wall, topic, Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Lets the signer of a node do one run.
    pub(crate) fn sign(&mut self, node: usize) -> bool {
        let state = &mut self.nodes[node];
        let Some(unsigned) = state.publisher.next_run() else { return false };
        let run = unsigned.sign(&state.key).expect("the author's key");
        state.publisher.signed(&run);
        let body = run.body();
        let key = (body.topic(), body.author(), body.epoch());
        self.published.insert(key, body.last_seq());
        self.input(node, Input::Signed(Arc::new(run)));
        true
    }

    /// The process of a node is killed and starts again, without links.
    pub(crate) fn restart(&mut self, node: usize) {
        let linked: Vec<_> =
            self.links.iter().copied().filter(|pair| pair.0 == node || pair.1 == node).collect();
        linked.into_iter().for_each(|(a, b)| self.unlink(a, b));
        // Twice in one millisecond is told apart by what is drawn at random.
        self.restarts += 1;
        let epoch = epoch_at(self.wall() + Duration::from_millis(1), self.restarts);
        self.nodes[node] = Node::new(node, epoch, self.nodes[node].limits.clone());
        let wall = self.wall();
        self.input(node, Input::Wall(wall));
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        for node in 0..self.nodes.len() {
            let behind = self.behind.get(&node).copied().unwrap_or_default();
            let wall = self.wall().as_millis() - u64::try_from(behind.as_millis()).expect("small");
            self.input(node, Input::Wall(WallTime::from_millis(wall)));
            if self.nodes[node].machine.poll_timeout().is_some_and(|at| at <= self.now) {
                self.nodes[node].machine.handle_timeout(self.now);
                self.drain(node);
            }
        }
    }

    /// Delivers the oldest message of a queue drawn at random.
    pub(crate) fn deliver(&mut self) -> bool {
        let full: Vec<_> =
            self.queues.iter().filter(|(_, queue)| !queue.is_empty()).map(|(k, _)| *k).collect();
        if full.is_empty() {
            return false;
        }
        let (from, to) = full[self.rng.below(full.len())];
        let queue = self.queues.get_mut(&(from, to)).expect("just found");
        let message = queue.pop_front().expect("not empty");
        if queue.is_empty() && self.busy.remove(&(from, to)) {
            self.input(from, Input::Writable(machine_id(to)));
        }
        self.input(to, Input::Frame { peer: machine_id(from), message });
        true
    }

    pub(crate) fn ready(&mut self) {
        for node in 0..self.nodes.len() {
            for id in std::mem::take(&mut self.nodes[node].full) {
                self.input(node, Input::SubscriberReady(id));
            }
        }
    }

    /// Runs until nothing is left to do before the next timer.
    pub(crate) fn settle_now(&mut self) {
        while (0..self.nodes.len()).any(|node| self.sign(node)) || self.deliver() {}
    }

    /// Runs until nothing is left to do, timers included.
    pub(crate) fn settle(&mut self) {
        for _ in 0..40 {
            self.settle_now();
            self.refusals = 0.0;
            self.ready();
            self.advance(Duration::from_millis(500));
        }
    }

    /// Carries the outputs of a machine out.
    pub(crate) fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].machine.poll_output() {
            match output {
                Output::Send { peer, message } => self.send(node, peer, message),
                Output::Verify(pending) => {
                    let checked = Input::Verified(pending.verify());
                    self.nodes[node].machine.handle(self.now, checked);
                }
                Output::Deliver { subscription, batch } => {
                    let state = &mut self.nodes[node];
                    if self.rng.chance(self.refusals) {
                        state.full.insert(subscription);
                        state.machine.handle(self.now, Input::SubscriberFull(subscription));
                    } else {
                        state.received.get_mut(&subscription).expect("subscribed").extend(batch);
                    }
                }
                Output::Congestion { topic, congested } => {
                    self.nodes[node].publisher.set_congested(topic, congested);
                }
                Output::FirstHop { .. } | Output::Appended { .. } => {}
                Output::Disconnect(peer) => self.disconnects.push((node, peer)),
                Output::Dial(address) => self.dials.push(address),
                Output::Hold { peer, held: true } => assert!(self.held.insert(peer)),
                Output::Hold { peer, held: false } => assert!(self.held.remove(&peer)),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn send(&mut self, node: usize, peer: MachineId, message: Bytes) {
        let pair = (node, index_of(peer));
        if pair.1 >= self.nodes.len() {
            self.sent.push((node, peer, message));
            return;
        }
        let queue = self.queues.entry(pair).or_default();
        if queue.len() >= self.capacity {
            self.busy.insert(pair);
            self.nodes[node].machine.handle(self.now, Input::SendRefused(peer));
        } else {
            queue.push_back(message);
        }
    }

    /// Every subscription got every published entry of its topic once, in the order of its author.
    pub(crate) fn assert_complete(
        &self,
        subscriptions: &[(usize, TopicId, SubscriptionId)],
        seed: u64,
    ) {
        for (node, topic, id) in subscriptions {
            let mut heads = BTreeMap::new();
            for message in self.nodes[*node].messages(*id) {
                let head = heads.entry((message.topic, message.author, message.epoch)).or_insert(0);
                *head += 1;
                assert_eq!(message.seq, *head, "seed {seed}: node {node} order or duplicate");
            }
            let expected: BTreeMap<_, _> = self
                .published
                .iter()
                .filter(|((of, _, _), _)| of == topic)
                .map(|(key, seq)| (*key, *seq))
                .collect();
            assert_eq!(heads, expected, "seed {seed}: node {node} incomplete");
            assert_eq!(self.nodes[*node].missed(*id), 0, "seed {seed}: node {node} lagged");
        }
    }

    /// A hostile peer says something.
    pub(crate) fn frame(&mut self, node: usize, from: usize, message: Bytes) {
        self.input(node, Input::Frame { peer: machine_id(from), message });
    }

    /// Kinds of the frames to a hostile peer, which are forgotten by that.
    pub(crate) fn kinds_to(&mut self, peer: usize) -> Vec<u32> {
        let peer = machine_id(peer);
        let to = self.sent.extract_if(.., |(_, to, _)| *to == peer);
        to.map(|(_, _, frame)| crate::frames::kind(&frame)).collect()
    }

    pub(crate) fn counter(&self, node: usize, name: &str) -> u64 {
        let metrics = self.nodes[node].machine.metrics().snapshot();
        metrics.iter().find(|metric| metric.name == name).expect("a metric").value
    }
}

//! Makes what nodes run.

use std::{collections::HashMap, sync::Arc, time::Duration};

use x0x_core::{TopicId, WallTime};
use x0x_gossip_crdt::CrdtMetrics;
use x0x_gossip_membership::HyParView;
use x0x_gossip_pubsub::{
    Dissemination, Limits, LoadLimits, NetworkId, PubSubMachine, PubSubMetrics, Publisher, Start,
    epoch_at, testing::RunForge, topic_id,
};
use x0x_groups::Operation;
use x0x_identity::{PublicKey, SecretKey, testing};

use super::{
    announce::{self, Reader},
    hostile::{self, Habit},
    ids::{self, Node},
    objects::Replica,
    production::{Author, Disk, Production},
    protocol::Protocol,
    reference::{gossipsub::Gossipsub, plumtree::Plumtree},
    scenario::{GossipPart, Mode, Scenario},
};

/// Name of the simulated network and its one topic.
const NAME: &str = "simulation";

/// The number of the test key that all listeners share, who never publish.
const LISTENER: u64 = u64::MAX;

/// Makes overlays and protocols by a scenario.
pub(super) struct Factory {
    network: NetworkId,
    topic: TopicId,
    limits: Limits,
    scenario: Scenario,
    listener: PublicKey,
    keys: HashMap<Node, Arc<SecretKey>>,
    /// Public keys of all who publish, shared by all machines.
    known: Vec<PublicKey>,
    /// Counts what all machines of the run do.
    pub(super) metrics: Arc<PubSubMetrics>,
    /// The same of their replicas.
    replicas: Arc<CrdtMetrics>,
    /// Who founds the group, where there is one, and how.
    founding: Option<(Node, Operation)>,
}

/// What a protocol is made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    pub(super) node: Node,
    pub(super) seed: u64,
    /// By the node's clock.
    pub(super) wall: WallTime,
    pub(super) subscribes: bool,
    pub(super) publishes: bool,
    pub(super) habit: Habit,
}

impl Factory {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            network: NetworkId::from_name(NAME),
            topic: topic_id(NAME),
            limits: limits(&scenario.gossip),
            scenario: scenario.clone(),
            listener: testing::key(LISTENER).public_key().clone(),
            keys: HashMap::new(),
            known: Vec::new(),
            metrics: Arc::default(),
            replicas: Arc::default(),
            founding: None,
        }
    }

    pub(super) fn overlay(&self, node: Node, seed: u64) -> HyParView {
        let config = self.scenario.overlay.config();
        HyParView::new(ids::machine_id(node), config, seed_bytes(seed))
            .expect("a scenario's overlay was checked")
    }

    pub(super) fn protocol(&mut self, role: Role, disk: Option<Disk>) -> Box<dyn Protocol> {
        if role.habit != Habit::Honest {
            let forge =
                RunForge::new(testing::key(role.node.into()), self.network, self.topic, role.wall);
            let inner = self.production(role, None);
            return hostile::make(inner, role, &self.scenario.hostile, forge);
        }
        match self.scenario.gossip.mode {
            Mode::Gossipsub => Box::new(Gossipsub::new(role.seed)),
            Mode::Iroh => Box::new(Plumtree::new(role.seed)),
            _ => Box::new(self.production(role, disk)),
        }
    }

    /// Makes the keys of all who will publish; the first of them founds the group, if there is one.
    pub(super) fn introduce(&mut self, authors: &[Node], now: WallTime) {
        let keys = authors.iter().map(|node| (*node, Arc::new(testing::key((*node).into()))));
        self.keys.extend(keys);
        self.known = authors.iter().map(|node| self.keys[node].public_key().clone()).collect();
        let owner = authors.first().filter(|_| self.scenario.announces);
        self.founding = owner.map(|node| (*node, announce::founded(&self.keys[node], now)));
    }

    fn production(&mut self, role: Role, disk: Option<Disk>) -> Production {
        let author = role.publishes.then(|| self.author(role));
        let key = author.as_ref().map_or(&self.listener, |author| author.key.public_key());
        let me = key.agent_id();
        let objects = self.scenario.objects.as_ref().filter(|_| role.subscribes);
        let replica = objects.map(|part| Replica::new(self.topic, me, part.keys, &self.replicas));
        let founding = self.founding.as_ref().filter(|_| role.subscribes);
        let reader = founding.map(|(owner, operation)| {
            let own = (*owner == role.node).then(|| operation.clone());
            Reader::new(operation.group(), own)
        });
        let (limits, metrics) = (self.limits.clone(), Arc::clone(&self.metrics));
        let machine = PubSubMachine::new(self.network, key.clone(), limits, metrics);
        let mut machine = machine.seeded(seed_bytes(role.seed));
        if disk.is_some() {
            machine = machine.stored();
        }
        // A decoded key takes 32 KiB: each machine having its own of each author would be too much.
        self.known.iter().for_each(|key| machine.know(key.clone()));
        Production {
            machine,
            network: self.network,
            topic: self.topic,
            limits: LoadLimits::from(&self.limits),
            author,
            replica,
            reader,
            start: disk.as_ref().map_or(Start::Retained, Disk::start),
            disk,
            subscribes: role.subscribes,
            strangers: Vec::new(),
            signing: std::collections::VecDeque::new(),
            from: None,
            mute: false,
        }
    }

    fn author(&mut self, role: Role) -> Author {
        let key = self.keys.entry(role.node);
        let key = Arc::clone(key.or_insert_with(|| Arc::new(testing::key(role.node.into()))));
        let epoch = epoch_at(role.wall, role.seed);
        let agent = key.public_key().agent_id();
        let publisher = Publisher::new(self.network, agent, epoch, self.limits.clone());
        Author { key, publisher, epoch }
    }
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

fn limits(part: &GossipPart) -> Limits {
    let mut limits = Limits::default();
    limits.dissemination = match part.mode {
        Mode::Flood => Dissemination::Flood,
        Mode::EagerFloor6 => Dissemination::EagerFloor(6),
        _ => Dissemination::Tree,
    };
    limits.redundant_links = part.redundant_links.unwrap_or(limits.redundant_links);
    limits.hop_threshold = part.hop_threshold.map_or(limits.hop_threshold, Into::into);
    limits.topic_entries = part.topic_entries.unwrap_or(limits.topic_entries);
    if let Some(seconds) = part.retention_s {
        limits.retention = Duration::from_secs_f64(seconds);
    }
    limits
}

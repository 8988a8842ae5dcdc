//! Agents for tests, and hostile peers made of the layers themselves: what an [`Agent`] would never say, they do.
//!
//! Agent `n` has the test key `n`, and its machine the test key `100 + n`.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{AgentId, Clock, MachineId, Protocol, SystemClock, WallTime};
use x0x_gossip_membership::{Membership, MembershipConfig};
use x0x_gossip_pubsub::{Gossip, GossipConfig, PubSub, testing, topic_id};
use x0x_identity::{AcceptAll, SignedBinding, testing::key};
use x0x_rendezvous::{Announcement, Stamp};
use x0x_transport::{
    ClosedNode, LocalHello, Node, SessionConfig, Transport,
    quic::{QuicConfig, QuicEngine},
};

use crate::{Agent, AgentConfig};

/// How long a hostile peer waits for somebody who listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// What most things here are valid for.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// An agent of its own on loopback, with its keys and data in a folder of this name.
///
/// # Panics
/// When it does not start.
pub async fn start_agent(folder: &Path, name: &str, bootstrap: &[SocketAddr]) -> Agent {
    let folder = folder.join(name);
    let mut config = AgentConfig::new(folder.join("keys"), folder.join("data"));
    config.bind = SocketAddr::from(([127, 0, 0, 1], 0));
    config.bootstrap = bootstrap.to_vec();
    Agent::builder(config).start().await.expect("the agent starts")
}

/// The clock of this machine.
#[must_use]
pub fn now() -> WallTime {
    SystemClock::new().wall()
}

/// Agent `n`.
#[must_use]
pub fn agent(n: u64) -> AgentId {
    key(n).public_key().agent_id()
}

/// The machine with test key `n`.
#[must_use]
pub fn machine(n: u64) -> MachineId {
    key(n).public_key().machine_id()
}

/// That of agent `n` on its machine, for a day.
#[must_use]
pub fn binding(n: u64) -> SignedBinding {
    SignedBinding::issue(&key(n), machine(100 + n), now(), DAY)
}

/// An announcement of agent `of` on its machine, with an address where nobody answers.
#[must_use]
pub fn announcement(of: u64, at: WallTime, counter: u64) -> Announcement {
    Announcement {
        agent: agent(of),
        machine: machine(100 + of),
        user: None,
        addresses: vec![SocketAddr::from(([127, 0, 0, 1], 9))],
        stamp: Stamp { announced_at: at, counter },
    }
}

/// Sessions over QUIC of the machine with test key `100 + n`, which shows these bindings.
///
/// # Panics
/// Where loopback has no free port.
#[must_use]
pub fn node(n: u64, bindings: Vec<Bytes>) -> Node {
    closed_node(n, bindings).open()
}

fn closed_node(n: u64, bindings: Vec<Bytes>) -> ClosedNode {
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    let engine = QuicEngine::bind(QuicConfig::new(bind, key(100 + n))).expect("a free port");
    let hello = LocalHello::new("x0x", [n as u8; 16], bindings);
    let (clock, policy) = (Arc::new(SystemClock::new()), Arc::new(AcceptAll));
    Node::prepare(engine, SessionConfig::default(), hello, clock, policy)
}

/// Agent `n` on its machine, which says on gossip what it likes.
#[derive(Debug)]
pub struct Mallory {
    node: Node,
    membership: Membership,
    gossip: Gossip,
}

impl Mallory {
    /// Joins the network through these addresses.
    ///
    /// # Panics
    /// Where loopback has no free port.
    #[must_use]
    pub fn start(n: u64, bootstrap: Vec<SocketAddr>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let closed = closed_node(n, vec![binding(n).encode()]);
        let node = closed.node().clone();
        let transport: Arc<dyn Transport> = Arc::new(node.clone());
        let settings = MembershipConfig { bootstrap, ..MembershipConfig::default() };
        let membership =
            Membership::start(transport.clone(), settings, clock.clone(), [n as u8; 32])
                .expect("a fresh transport");
        let mut settings = GossipConfig::new("x0x", n);
        settings.neighbors = Some(Arc::new(membership.clone()));
        let gossip =
            Gossip::start(transport, Arc::new(key(n)), settings, clock).expect("a fresh transport");
        Self { node: closed.open(), membership, gossip }
    }

    /// Publishes on a topic, whatever it is, as soon as somebody listens: whoever only publishes keeps nothing for those
    /// who come later.
    ///
    /// # Panics
    /// Where nobody listens, or the payload is too large for anybody.
    pub async fn say(&self, topic: &str, payload: Bytes) {
        self.gossip.ready(topic_id(topic), 1, PATIENCE).await.expect("somebody listens");
        self.gossip.publish(topic_id(topic), payload).await.expect("accepted");
    }

    /// Sends a frame of pub/sub to a neighbour, whatever it is.
    ///
    /// # Panics
    /// Where there is no session with it, or it takes nothing.
    pub async fn send(&self, to: MachineId, frame: Bytes) {
        self.node.send(to, Protocol::Pubsub, frame).await.expect("sent");
    }

    /// Subscribes a topic, and gives everything that a hostile peer may send on it.
    ///
    /// # Panics
    /// Where there is no session, or nobody reads the topic.
    pub async fn attacks(&self, to: MachineId, topic: &str) -> Vec<testing::HostileCase> {
        let (topic, mut n) = (topic_id(topic), 10_000);
        // Whoever says what it reads takes frames from here: before, there may be a session and no link.
        self.gossip.ready(topic, 1, PATIENCE).await.expect("somebody listens");
        self.send(to, testing::subscribe_frame(topic)).await;
        testing::hostile_cases("x0x", topic, now(), || {
            n += 1;
            key(n)
        })
    }

    /// Ends every layer.
    pub async fn stop(self) {
        self.gossip.shutdown().await;
        self.membership.shutdown().await;
        self.node.shutdown().await;
    }
}

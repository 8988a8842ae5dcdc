//! Finding over real sessions on the in-memory engine, on tokio's paused clock.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use x0x_core::{AgentId, Clock, MachineId, PeerAddr, Protocol, TopicId};
use x0x_gossip_pubsub::testing::LocalHub;
use x0x_identity::{AcceptAll, AgentBinding, BindingPolicy, Shown};
use x0x_rendezvous::{
    Candidates, Discovery, DiscoveryConfig, FindError, FinderConfig, Finding, FindingParts,
    LocalAgent, MAX_SEARCHES,
};
use x0x_transport::{
    BoxFuture, Inbound, Node, SessionInfo, Transport,
    error::{DialError, InboundTaken, SendError},
    testing::{
        LinkModel, MemoryNetwork, TokioClock, address, agent_key, eventually, key, machine, node,
    },
};

const PATIENCE: Duration = Duration::from_secs(3);
/// Machines that do not exist.
const ABSENT: std::ops::Range<u64> = 100..122;

/// Machines by number.
#[derive(Debug)]
struct Known(Vec<u64>);

impl Candidates for Known {
    fn candidates(&self) -> BoxFuture<'_, Vec<PeerAddr>> {
        let peers = self.0.iter().map(|n| PeerAddr::known(machine(*n), [address(*n)])).collect();
        Box::pin(std::future::ready(peers))
    }
}

struct Host {
    node: Arc<Node>,
    finding: Finding,
    /// It listens at another address now: that of the machine with forty more.
    moved: Arc<AtomicBool>,
}

fn agent(n: u64) -> AgentId {
    key(agent_key(n)).public_key().agent_id()
}

/// A node whose dials of machines that were never there wait for an answer for good.
#[derive(Debug)]
struct Hopeful(Arc<Node>);

impl Transport for Hopeful {
    fn local_id(&self) -> MachineId {
        self.0.local_id()
    }

    fn local_addresses(&self) -> Vec<SocketAddr> {
        self.0.local_addresses()
    }

    fn connect(&self, to: PeerAddr) -> BoxFuture<'_, Result<SessionInfo, DialError>> {
        if ABSENT.map(machine).any(|absent| to.id == Some(absent)) {
            return Box::pin(std::future::pending());
        }
        self.0.connect(to)
    }

    fn disconnect(&self, peer: MachineId) {
        self.0.disconnect(peer);
    }

    fn try_send(
        &self,
        peer: MachineId,
        protocol: Protocol,
        message: Bytes,
    ) -> Result<(), SendError> {
        self.0.try_send(peer, protocol, message)
    }

    fn send(
        &self,
        peer: MachineId,
        protocol: Protocol,
        message: Bytes,
    ) -> BoxFuture<'_, Result<(), SendError>> {
        self.0.send(peer, protocol, message)
    }

    fn inbound(&self, protocol: Protocol) -> Result<Inbound, InboundTaken> {
        self.0.inbound(protocol)
    }

    fn session(&self, peer: MachineId) -> Option<SessionInfo> {
        self.0.session(peer)
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        self.0.sessions()
    }
}

fn host(network: &MemoryNetwork, n: u64, known: Vec<u64>, policy: Arc<dyn BindingPolicy>) -> Host {
    let node = Arc::new(node(network, n));
    let transport = Arc::new(Hopeful(Arc::clone(&node)));
    let moved = Arc::new(AtomicBool::new(false));
    let is_moved = Arc::clone(&moved);
    let parts = FindingParts {
        key: key(agent_key(n)),
        generation: n,
        policy,
        addresses: Box::new(move || {
            vec![address(if is_moved.load(Ordering::Relaxed) { n + 40 } else { n })]
        }),
        candidates: Arc::new(Known(known)),
        clock: Arc::new(TokioClock::new()),
        // The test addresses are private ones, of one site.
        config: FinderConfig { allow_loopback: true, ..FinderConfig::default() },
        seed: [n as u8; 32],
    };
    let finding = Finding::start(transport, parts).expect("starts");
    Host { node, finding, moved }
}

/// Ten hosts, each of which knows the next two.
async fn ring() -> Vec<Host> {
    ring_with(&(Arc::new(AcceptAll) as Arc<dyn BindingPolicy>)).await
}

async fn ring_with(policy: &Arc<dyn BindingPolicy>) -> Vec<Host> {
    let network = MemoryNetwork::new(1, LinkModel::default());
    let hosts: Vec<Host> = (0..10)
        .map(|n| host(&network, n, vec![(n + 1) % 10, (n + 2) % 10], policy.clone()))
        .collect();
    for host in &hosts {
        eventually("filed", async || host.finding.metrics().copies_kept.value() >= 3).await;
    }
    hosts
}

#[tokio::test(start_paused = true)]
async fn agents_are_found_by_id() {
    let hosts = ring().await;
    for n in [3, 5, 8] {
        let found = hosts[0].finding.agent(agent(n), None, PATIENCE).await.expect("open");
        let record = found.expect("found");
        assert_eq!((record.agent, record.machine), (agent(n), machine(n)));
        assert_eq!(record.addresses, [address(n)]);
        let target = PeerAddr::known(record.machine, record.addresses);
        let session = hosts[0].node.connect(target).await.expect("connects");
        assert!(session.agents.contains(&agent(n)));
    }
    let before = Instant::now();
    assert_eq!(hosts[0].finding.agent(agent(77), None, PATIENCE).await, Ok(None));
    assert!(before.elapsed() <= PATIENCE);
    hosts[0].finding.shutdown().await;
    let closed = hosts[0].finding.agent(agent(3), None, PATIENCE).await;
    assert_eq!(closed, Err(FindError::Closed));
}

#[tokio::test(start_paused = true)]
async fn subscribers_are_found_until_they_leave() {
    let hosts = ring().await;
    let topic = TopicId::new([4; 32]);
    let before = hosts[6].finding.metrics().copies_kept.value();
    hosts[6].finding.offer(topic).await;
    eventually("filed", async || hosts[6].finding.metrics().copies_kept.value() > before).await;
    let found = hosts[1].finding.subscribers(topic, PATIENCE).await.expect("open");
    assert_eq!(found.iter().map(|record| record.machine).collect::<Vec<_>>(), [machine(6)]);
    hosts[6].finding.withdraw(topic).await;
}

#[tokio::test(start_paused = true)]
async fn discovery_finds_whom_it_has_not_heard_of() {
    let hosts = ring().await;
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let hub = LocalHub::default();
    let start = |n: u64| {
        let local = LocalAgent {
            key: key(agent_key(n)),
            machine: machine(n),
            generation: 0,
            user: None,
            addresses: Box::new(move || vec![address(n)]),
        };
        let pubsub = Arc::new(hub.author(agent(n)));
        let config = DiscoveryConfig { allow_loopback: true, ..DiscoveryConfig::default() };
        Discovery::start(pubsub, local, Arc::new(AcceptAll), clock.clone(), config)
    };
    let discovery = start(0).await.expect("starts").with_finding(hosts[0].finding.clone());
    assert_eq!(discovery.agent(&agent(7)).await, None);
    let found = discovery.find(agent(7), PATIENCE).await.expect("open").expect("found");
    assert_eq!((found.machine, &found.addresses[..]), (machine(7), &[address(7)][..]));
    assert_eq!(discovery.agent(&agent(7)).await, Some(found), "kept");

    // An agent that appears while it is looked for is heard at once.
    let waits = tokio::spawn({
        let discovery = discovery.clone();
        async move { discovery.find(agent(50), Duration::from_secs(30)).await }
    });
    tokio::task::yield_now().await;
    let other = start(50).await.expect("starts");
    let heard = waits.await.expect("no panic").expect("open").expect("heard");
    assert_eq!(heard.machine, machine(50));
    let before = Instant::now();
    assert_eq!(discovery.find(agent(51), PATIENCE).await, Ok(None));
    assert!(before.elapsed() <= PATIENCE);
    drop(other);

    // Whoever waits for one that nobody knows hears it also when the search was over long before.
    let waits = tokio::spawn({
        let discovery = discovery.clone();
        async move { discovery.wait_for(agent(53), Duration::from_secs(3600)).await }
    });
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert!(!waits.is_finished(), "it has patience left");
    let other = start(53).await.expect("starts");
    let heard = waits.await.expect("no panic").expect("open").expect("heard");
    assert_eq!(heard.machine, machine(53));
    assert_eq!(discovery.wait_for(agent(54), PATIENCE).await, Ok(None));
    drop(other);

    // Without searches there are still announcements.
    hosts[0].finding.shutdown().await;
    let waits = tokio::spawn({
        let discovery = discovery.clone();
        async move { discovery.find(agent(52), Duration::from_secs(30)).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let other = start(52).await.expect("starts");
    let heard = waits.await.expect("no panic").expect("open").expect("heard");
    assert_eq!(heard.machine, machine(52));
    drop(other);
}

/// Accepts each agent on machines of these generations only.
#[derive(Debug, Default)]
struct From(AtomicU64);

impl BindingPolicy for From {
    fn accepts(&self, binding: &AgentBinding, shown: Shown) -> bool {
        assert_eq!(shown, Shown::Record);
        binding.generation >= self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn records_of_a_machine_that_was_left_are_not_found() {
    let policy = Arc::new(From::default());
    let hosts = ring_with(&(policy.clone() as Arc<dyn BindingPolicy>)).await;
    let find = async |n| hosts[0].finding.agent(agent(n), None, PATIENCE).await.expect("open");
    assert_eq!(find(3).await.map(|record| record.generation), Some(3));
    policy.0.store(6, Ordering::Relaxed);
    assert_eq!(find(4).await, None);
    assert!(hosts[0].finding.metrics().refused_policy.value() > 0);
    assert_eq!(find(7).await.map(|record| record.generation), Some(7));
}

#[tokio::test(start_paused = true)]
async fn machines_that_are_gone_do_not_keep_from_those_that_are_there() {
    let network = MemoryNetwork::new(2, LinkModel::default());
    let accept = || Arc::new(AcceptAll) as Arc<dyn BindingPolicy>;
    let (holder, sought) =
        (host(&network, 1, vec![2], accept()), host(&network, 2, vec![1], accept()));
    eventually("filed", async || sought.finding.metrics().copies_kept.value() >= 1).await;
    // One that is there among two dozen that are not, all of which its own filing dials too.
    let known: Vec<u64> = ABSENT.chain([1]).collect();
    let finder = host(&network, 0, known, accept());
    eventually("they are known", async || finder.finding.metrics().volunteers.value() > 20).await;
    let found = finder.finding.agent(agent(2), None, PATIENCE).await.expect("open");
    assert_eq!(found.map(|record| record.machine), Some(machine(2)));
    drop(holder);
}

#[tokio::test(start_paused = true)]
async fn records_follow_an_address_that_changes() {
    let hosts = ring().await;
    hosts[4].moved.store(true, Ordering::Relaxed);
    let find = async || hosts[0].finding.agent(agent(4), None, PATIENCE).await.expect("open");
    let there = |record: &x0x_rendezvous::Record| record.addresses == [address(44)];
    // Looked at every three seconds, and believed the second time.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(find().await.as_ref().is_some_and(there));
}

#[tokio::test(start_paused = true)]
async fn too_many_searches_are_refused_and_not_answered_with_nothing() {
    let hosts = ring().await;
    let many = (0..MAX_SEARCHES as u64 + 10).map(|n| {
        let finding = hosts[0].finding.clone();
        tokio::spawn(async move { finding.agent(agent(1000 + n), None, PATIENCE).await })
    });
    let many: Vec<_> = many.collect();
    let mut refused = 0;
    for search in many {
        match search.await.expect("no panic") {
            Err(FindError::Busy) => refused += 1,
            other => assert_eq!(other, Ok(None)),
        }
    }
    assert_eq!(refused, 10);
    assert!(hosts[0].finding.agent(agent(5), None, PATIENCE).await.expect("open").is_some());
}

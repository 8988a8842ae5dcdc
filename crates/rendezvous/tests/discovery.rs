//! Nodes that find each other over an in-memory pubsub, in virtual time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use x0x_core::{AgentId, Clock, MachineId, Tick, WallTime};
use x0x_gossip_pubsub::{PubSub, testing::LocalHub, topic_id};
use x0x_identity::{AcceptAll, AgentBinding, BindingPolicy, Shown, SignedBinding, testing::key};
use x0x_rendezvous::{
    ANNOUNCE_TOPIC, AnnounceError, Announcement, Discovery, DiscoveryConfig, LocalAgent, Stamp,
};

const START: WallTime = WallTime::from_millis(1_800_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// The paused clock of the runtime.
#[derive(Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Tick {
        Tick::ZERO + self.0.elapsed()
    }

    fn wall(&self) -> WallTime {
        START + self.0.elapsed()
    }
}

/// Refuses whom the test names, and keeps the generations that it was asked about.
#[derive(Debug, Default)]
struct Policy {
    refused: Mutex<Vec<AgentId>>,
    shown: Mutex<BTreeMap<AgentId, u64>>,
}

impl BindingPolicy for Policy {
    fn accepts(&self, binding: &AgentBinding, shown: Shown) -> bool {
        assert_eq!(shown, Shown::Announcement);
        self.shown.lock().expect("not poisoned").insert(binding.agent, binding.generation);
        !self.refused.lock().expect("not poisoned").contains(&binding.agent)
    }
}

struct World {
    clock: Arc<dyn Clock>,
    hub: LocalHub,
    policy: Arc<Policy>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(VirtualClock(Instant::now()));
        Self { clock, hub: LocalHub::default(), policy: Arc::default() }
    }

    /// A node whose agent is key `n` and whose machine is key `100 + n`.
    async fn node(&self, n: u64) -> Discovery {
        let local = LocalAgent {
            key: key(n),
            machine: machine(n),
            generation: n,
            user: None,
            addresses: Box::new(move || vec![address(n)]),
        };
        let pubsub = Arc::new(self.hub.author(agent(n)));
        let policy = Arc::clone(&self.policy) as Arc<dyn BindingPolicy>;
        let (clock, config) = (self.clock.clone(), DiscoveryConfig::default());
        Discovery::start(pubsub, local, policy, clock, config).await.expect("starts")
    }
}

fn agent(n: u64) -> AgentId {
    key(n).public_key().agent_id()
}

fn machine(n: u64) -> MachineId {
    key(100 + n).public_key().machine_id()
}

fn address(n: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 5000 + n as u16))
}

/// Waits for a condition in virtual time.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(MINUTE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn ids(discovery: &Discovery, unfiltered: bool) -> Vec<AgentId> {
    discovery.agents(unfiltered).await.into_iter().map(|known| known.agent).collect()
}

fn sorted<const N: usize>(numbers: [u64; N]) -> Vec<AgentId> {
    let mut ids = numbers.map(agent).to_vec();
    ids.sort();
    ids
}

#[tokio::test(start_paused = true)]
async fn nodes_find_each_other_and_forget_who_left() {
    let world = World::new();
    let (one, two) = (world.node(1).await, world.node(2).await);
    for node in [&one, &two] {
        eventually("both known", async || ids(node, false).await == sorted([1, 2])).await;
    }
    let known = one.agent(&agent(2)).await.expect("known");
    assert_eq!(known.machine, machine(2));
    assert_eq!(known.addresses, [address(2)]);
    assert!(known.announced_at >= START && known.last_seen <= world.clock.wall());

    two.shutdown().await;
    sleep(20 * MINUTE).await;
    assert_eq!(ids(&one, false).await, [agent(1)], "one still announces itself");
    assert_eq!(ids(&one, true).await, sorted([1, 2]));
    assert_eq!(one.agent(&agent(2)).await.map(|known| known.agent), Some(agent(2)));
    assert_eq!(one.agent(&agent(3)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_late_joiner_learns_what_is_retained() {
    let world = World::new();
    let one = world.node(1).await;
    eventually("announced", async || one.metrics().announced.value() == 1).await;
    // The heartbeat is far; only the retained announcements can tell.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(one.metrics().announced.value(), 2);
    let two = world.node(2).await;
    eventually("retained", async || ids(&two, false).await == sorted([1, 2])).await;
    assert_eq!(one.metrics().announced.value(), 2);
    let replayed = two.metrics().kept.value() + two.metrics().replayed.value();
    assert!(replayed >= 2, "{replayed}");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_continue() {
    let world = World::new();
    let one = world.node(1).await;
    sleep(60 * MINUTE).await;
    let announced = one.metrics().announced.value();
    assert!((12..=15).contains(&announced), "{announced} in an hour");
}

#[tokio::test(start_paused = true)]
async fn announcing_on_request_is_answered_at_once() {
    let world = World::new();
    let before = Instant::now();
    let one = world.node(1).await;
    assert_eq!(one.announce().await, Ok(()), "right at the start");
    sleep(MINUTE).await;
    let announced = one.metrics().announced.value();
    for _ in 0..100 {
        assert_eq!(one.announce().await, Ok(()));
    }
    assert_eq!(before.elapsed(), MINUTE, "no time passed");
    assert_eq!(one.metrics().announced.value(), announced + 1, "one covers them all");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(one.announce().await, Ok(()));
    assert_eq!(one.metrics().announced.value(), announced + 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_announced_in_its_turn() {
    let world = World::new();
    let port = Arc::new(AtomicU16::new(1));
    let local = LocalAgent {
        key: key(1),
        machine: machine(1),
        generation: 0,
        user: None,
        addresses: Box::new({
            let port = port.clone();
            move || vec![SocketAddr::from(([10, 0, 0, 1], port.load(Ordering::Relaxed)))]
        }),
    };
    let pubsub = Arc::new(world.hub.author(agent(1)));
    let (policy, clock) = (Arc::new(AcceptAll), world.clock.clone());
    let one = Discovery::start(pubsub, local, policy, clock, DiscoveryConfig::default())
        .await
        .expect("starts");
    sleep(MINUTE).await;
    let before = Instant::now();
    assert_eq!(one.announce().await, Ok(()));
    port.store(2, Ordering::Relaxed);
    let announced = one.metrics().announced.value();
    let answers = [one.clone(), one.clone(), one.clone()]
        .map(|one| tokio::spawn(async move { one.announce().await }));
    for answer in answers {
        assert_eq!(answer.await.expect("no panic"), Ok(()));
    }
    assert_eq!(before.elapsed().as_secs(), 1, "never twice within a second");
    assert_eq!(one.metrics().announced.value(), announced + 1, "one for all three");
    let told = async |port: u16| {
        let moved = [SocketAddr::from(([10, 0, 0, 1], port))];
        eventually("told", async || {
            one.agent(&agent(1)).await.is_some_and(|known| known.addresses == moved)
        })
        .await;
    };
    told(2).await;
    // Without being asked, long before the next heartbeat.
    port.store(3, Ordering::Relaxed);
    told(3).await;
}

#[tokio::test(start_paused = true)]
async fn private_addresses_are_not_announced_beside_global_ones() {
    let world = World::new();
    let one = world.node(1).await;
    let far = SocketAddr::from(([198, 51, 100, 7], 1));
    let local = LocalAgent {
        key: key(2),
        machine: machine(2),
        generation: 0,
        user: None,
        addresses: Box::new(move || vec![address(2), far]),
    };
    let pubsub = Arc::new(world.hub.author(agent(2)));
    let (policy, clock) = (Arc::new(AcceptAll), world.clock.clone());
    let _two = Discovery::start(pubsub, local, policy, clock, DiscoveryConfig::default())
        .await
        .expect("starts");
    eventually("known", async || one.agent(&agent(2)).await.is_some()).await;
    let known = one.agent(&agent(2)).await.expect("known");
    assert_eq!(known.addresses, [far], "the reader would have believed the other too");
}

#[tokio::test(start_paused = true)]
async fn addresses_of_other_sites_are_not_believed() {
    let world = World::new();
    let one = world.node(1).await;
    let wall = world.clock.wall();
    let binding = SignedBinding::issue(&key(2), machine(2), wall, MINUTE);
    let far = SocketAddr::from(([198, 51, 100, 7], 1));
    let news = Announcement {
        agent: agent(2),
        machine: machine(2),
        user: None,
        addresses: vec![SocketAddr::from(([192, 168, 1, 1], 80)), address(2), far],
        stamp: Stamp { announced_at: wall, counter: 1 },
    };
    let hub = world.hub.author(agent(2));
    hub.try_publish(topic_id(ANNOUNCE_TOPIC), news.encode(&binding)).expect("takes it");
    eventually("known", async || one.agent(&agent(2)).await.is_some()).await;
    let known = one.agent(&agent(2)).await.expect("known");
    assert_eq!(known.addresses, [address(2), far], "this node is in 10.0.0.0/16 itself");
    assert_eq!(one.metrics().addresses_dropped.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_busy_pubsub_is_told_and_tried_again() {
    let world = World::new();
    world.hub.set_busy(true);
    let one = world.node(1).await;
    assert_eq!(one.announce().await, Err(AnnounceError::Busy));
    assert_eq!(one.metrics().announced.value(), 0);
    world.hub.set_busy(false);
    eventually("announced", async || one.metrics().announced.value() > 0).await;
    assert!(one.metrics().announce_failed.value() > 0);
    assert_eq!(ids(&one, false).await, [agent(1)]);
}

#[tokio::test(start_paused = true)]
async fn false_announcements_are_counted_and_not_listed() {
    let world = World::new();
    let one = world.node(1).await;
    let wall = world.clock.wall();
    let binding = SignedBinding::issue(&key(2), machine(2), wall, MINUTE);
    let honest = Announcement {
        agent: agent(2),
        machine: machine(2),
        user: None,
        addresses: vec![address(2), SocketAddr::from(([127, 0, 0, 1], 1))],
        stamp: Stamp { announced_at: wall, counter: 1 },
    };
    let topic = topic_id(ANNOUNCE_TOPIC);
    let publish = |author: u64, payload: Bytes| {
        world.hub.author(agent(author)).try_publish(topic, payload).expect("takes it");
    };
    publish(2, Bytes::from_static(b"nonsense"));
    publish(3, honest.encode(&binding));
    let future = Stamp { announced_at: wall + 60 * MINUTE, counter: 1 };
    publish(2, Announcement { stamp: future, ..honest.clone() }.encode(&binding));
    publish(2, Announcement { machine: machine(3), ..honest.clone() }.encode(&binding));
    let metrics = one.metrics();
    eventually("all refused", async || {
        metrics.refused_malformed.value()
            + metrics.refused_author.value()
            + metrics.refused_future.value()
            + metrics.refused_binding.value()
            == 4
    })
    .await;
    assert_eq!(one.agent(&agent(2)).await, None);
    assert_eq!(metrics.refused_malformed.value(), 1);
    assert_eq!(metrics.refused_author.value(), 1);
    assert_eq!(metrics.refused_future.value(), 1);
    assert_eq!(metrics.refused_binding.value(), 1);

    publish(2, honest.encode(&binding));
    publish(2, honest.encode(&binding));
    eventually("replayed", async || metrics.replayed.value() == 1).await;
    assert_eq!(one.agent(&agent(2)).await.expect("known").addresses, [address(2)]);
    assert_eq!(metrics.addresses_dropped.value(), 1);
    let snapshot = metrics.snapshot();
    let value = |name| snapshot.iter().find(|metric| metric.name == name).expect("there").value;
    assert_eq!(value("discovery_agents"), ids(&one, true).await.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn agents_met_in_sessions_are_known() {
    let world = World::new();
    let one = world.node(1).await;
    one.observe_session(vec![agent(5), agent(6)], machine(5), vec![address(5)]).await;
    eventually("all known", async || ids(&one, false).await == sorted([1, 5, 6])).await;
    let known = one.agent(&agent(6)).await.expect("known");
    assert_eq!((known.machine, known.addresses), (machine(5), vec![address(5)]));
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_is_forgotten_and_not_heard_again() {
    let world = World::new();
    let (one, two) = (world.node(1).await, world.node(2).await);
    eventually("known", async || one.agent(&agent(2)).await.is_some()).await;
    assert_eq!(world.policy.shown.lock().expect("not poisoned").get(&agent(2)), Some(&2));

    world.policy.refused.lock().expect("not poisoned").push(agent(2));
    one.forget(vec![agent(2), agent(9)]).await;
    let before = one.metrics().refused_policy.value();
    eventually("announced again", async || two.announce().await.is_ok()).await;
    eventually("refused", async || one.metrics().refused_policy.value() > before).await;
    assert_eq!(one.agent(&agent(2)).await, None);
    world.policy.refused.lock().expect("not poisoned").clear();
    sleep(10 * MINUTE).await;
    assert!(one.agent(&agent(2)).await.is_some(), "with the next heartbeat");
    two.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_stopped_dropped_or_cut_off() {
    let world = World::new();
    let topic = topic_id(ANNOUNCE_TOPIC);
    let (one, two) = (world.node(1).await, world.node(2).await);
    assert_eq!(world.hub.subscriptions(topic), 2);

    one.shutdown().await;
    assert_eq!(one.announce().await, Err(AnnounceError::Closed));
    assert_eq!(one.agents(true).await, []);
    one.observe_session(vec![agent(5)], machine(5), vec![]).await;
    assert_eq!(world.hub.subscriptions(topic), 1);

    drop(two);
    eventually("unsubscribed", async || world.hub.subscriptions(topic) == 0).await;

    let three = world.node(3).await;
    world.hub.close();
    eventually("closed", async || three.announce().await == Err(AnnounceError::Closed)).await;
}

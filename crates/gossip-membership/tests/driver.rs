//! Membership over the in-memory transport, on tokio's paused clock.

#![cfg(feature = "tokio")]

use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{MachineId, Metric, PeerAddr, Protocol, WallTime};
use x0x_gossip_membership::{
    ConfigError, Membership, MembershipConfig, Message, NeighborEvent, Neighbors, OverlayConfig,
    Peer, error::StartError,
};
use x0x_transport::{
    Node, ReachClass, SessionConfig, Transport,
    testing::{LinkModel, MemoryNetwork, TokioClock, address, hello, key, machine, node, record},
};

const DEADLINE: Duration = Duration::from_secs(120);

struct Machine {
    transport: Node,
    membership: Membership,
}

fn start(network: &MemoryNetwork, n: u64, config: MembershipConfig) -> Machine {
    let transport = node(network, n);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    let clock = Arc::new(TokioClock::new());
    let membership = Membership::start(Arc::new(transport.clone()), config, clock, seed);
    Machine { transport, membership: membership.expect("the first consumer") }
}

fn via(n: u64) -> MembershipConfig {
    MembershipConfig { bootstrap: vec![address(n)], ..MembershipConfig::default() }
}

fn cached(file: &Path) -> MembershipConfig {
    MembershipConfig { cache_file: Some(file.to_owned()), ..MembershipConfig::default() }
}

impl Machine {
    fn active(&self) -> BTreeSet<MachineId> {
        self.membership.active_view().into_iter().collect()
    }

    fn counter(&self, name: &str) -> u64 {
        let snapshot = self.membership.metrics().snapshot();
        snapshot.iter().find(|Metric { name: n, .. }| *n == name).expect("a metric").value
    }

    async fn shutdown(&self) {
        self.membership.shutdown().await;
        self.transport.shutdown().await;
    }
}

/// Waits in virtual time until the condition holds.
async fn until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let start = tokio::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<MachineId> {
    numbers.into_iter().map(machine).collect()
}

#[tokio::test(start_paused = true)]
async fn five_machines_become_a_full_mesh() {
    let network = MemoryNetwork::new(1, LinkModel::default());
    let machines: Vec<Machine> = (0..5)
        .map(|n| start(&network, n, if n == 0 { MembershipConfig::default() } else { via(0) }))
        .collect();
    let full = |machine: &Machine| machine.active().len() == 4;
    let took = until("full mesh", || machines.iter().all(full)).await;
    assert!(took < Duration::from_secs(5), "{took:?} of virtual time");
    let passive = machines[1].membership.passive_view().await.expect("running");
    assert!(passive.iter().all(|peer| !machines[1].active().contains(&peer.id.expect("known"))));
    let known = machines[1].membership.known().await.expect("running");
    assert!(known.iter().all(|peer| !machines[1].active().contains(&peer.id())));
    for machine in &machines {
        machine.shutdown().await;
    }
    assert!(machines[0].membership.passive_view().await.is_err(), "closed");
}

#[tokio::test(start_paused = true)]
async fn consumers_hear_of_neighbours_that_come_leave_and_vanish() {
    let network = MemoryNetwork::new(2, LinkModel::default());
    let machines = [
        start(&network, 0, MembershipConfig::default()),
        start(&network, 1, via(0)),
        start(&network, 2, via(0)),
    ];
    let mut events = machines[0].membership.events();
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        match events.recv().await.expect("running") {
            NeighborEvent::Up(id) => assert!(seen.insert(id)),
            event => panic!("{event:?}"),
        }
    }
    let mut late = machines[0].membership.events();
    assert!(matches!(late.recv().await, Some(NeighborEvent::Up(_))));
    until("full mesh", || machines.iter().all(|m| m.active().len() == 2)).await;

    machines[2].shutdown().await;
    assert_eq!(events.recv().await, Some(NeighborEvent::Down(machine(2))));
    // The transport alone goes down: no leave is heard, only the end of the session.
    machines[1].transport.shutdown().await;
    assert_eq!(events.recv().await, Some(NeighborEvent::Down(machine(1))));
    machines[0].shutdown().await;
    assert_eq!(events.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_machine_rejoins_from_its_cache_alone() {
    let network = MemoryNetwork::new(3, LinkModel::default());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("peer_cache").join("peers.json");
    let first = start(&network, 0, MembershipConfig::default());
    let second = start(&network, 1, via(0));
    let config = MembershipConfig { bootstrap: vec![address(0)], ..cached(&file) };
    let third = start(&network, 2, config);
    until("full mesh", || third.active().len() == 2).await;
    third.shutdown().await;
    assert!(third.counter("membership_cache_saved") >= 1);
    until("third is gone", || first.active() == ids([1]) && second.active() == ids([0])).await;

    // The bootstrap machine is gone too; only the cache knows the way.
    first.shutdown().await;
    let third = start(&network, 2, cached(&file));
    until("rejoined", || third.active() == ids([1]) && second.active() == ids([2])).await;
    third.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_cache_tells_who_was_dialled_from_who_came() {
    let network = MemoryNetwork::new(8, LinkModel::default());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = [0, 1].map(|n| folder.path().join(format!("{n}.json")));
    let first = start(&network, 0, cached(&files[0]));
    let second =
        start(&network, 1, MembershipConfig { bootstrap: vec![address(0)], ..cached(&files[1]) });
    until("linked", || second.active() == ids([0]) && first.active() == ids([1])).await;
    second.shutdown().await;
    first.shutdown().await;
    for (file, dialled) in files.iter().zip([false, true]) {
        let json: serde_json::Value =
            serde_json::from_slice(&fs::read(file).expect("written")).expect("valid");
        let peers = json["peers"].as_array().expect("a list");
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0]["dialled"], dialled);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_names_no_address_nearer_than_where_it_is() {
    let network = MemoryNetwork::new(9, LinkModel::default());
    let victim = start(&network, 0, MembershipConfig::default());
    let enemy = node(&network, 1);
    enemy.connect(PeerAddr::unknown(address(0))).await.expect("reachable");
    let say = |message: Message| {
        enemy.try_send(machine(0), Protocol::Membership, message.encode()).expect("queued");
    };
    say(Message::Join);
    until("joined", || victim.active() == ids([1])).await;
    // The memory network is a private one: that its peers name others of it is fine.
    let told = ["127.0.0.1:1", "169.254.1.1:1", "10.0.0.9:1"].map(|a| a.parse().expect("valid"));
    let entries = vec![Peer::new(machine(9), told)];
    say(Message::Shuffle { id: 1, ttl: 1, entries });
    until("refused", || victim.counter("membership_refused_addresses") == 2).await;
    enemy.shutdown().await;
    victim.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_cache_is_put_aside_and_the_machine_starts() {
    let network = MemoryNetwork::new(4, LinkModel::default());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("peers.json");
    fs::write(&file, "not json").expect("writable");
    let first = start(&network, 0, MembershipConfig::default());
    let config = MembershipConfig { bootstrap: vec![address(0)], ..cached(&file) };
    let second = start(&network, 1, config);
    until("linked", || second.active() == ids([0])).await;
    assert!(folder.path().join("peers.json.corrupt").exists());
    until("cache written again", || file.exists()).await;
    second.shutdown().await;
    first.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn hostile_bytes_are_counted_and_do_no_harm() {
    let network = MemoryNetwork::new(5, LinkModel::default());
    let victim = start(&network, 0, MembershipConfig::default());
    let enemy = node(&network, 1);
    let session = enemy.connect(PeerAddr::unknown(address(0))).await.expect("reachable");
    assert_eq!(session.peer, machine(0));
    let join = Bytes::from_static(&[0x0a, 0]);
    let too_large = Bytes::from(vec![0; 5000]);
    for message in [Bytes::from_static(b"\xff\xff"), too_large, Bytes::new(), join] {
        enemy.try_send(machine(0), Protocol::Membership, message).expect("queued");
    }
    until("joined", || victim.active() == ids([1])).await;
    assert_eq!(victim.counter("membership_refused_malformed"), 3);
    enemy.disconnect(machine(0));
    until("left", || victim.active().is_empty()).await;
    enemy.shutdown().await;
    victim.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_cannot_work_says_why() {
    let network = MemoryNetwork::new(6, LinkModel::default());
    let machine = start(&network, 0, MembershipConfig::default());
    let again = |config| {
        let transport = Arc::new(machine.transport.clone());
        Membership::start(transport, config, Arc::new(TokioClock::new()), [0; 32]).map(drop)
    };
    assert!(matches!(again(MembershipConfig::default()), Err(StartError::Inbound(_))));
    let overlay = OverlayConfig { active_max: 99, ..OverlayConfig::default() };
    let broken = again(MembershipConfig { overlay, ..MembershipConfig::default() });
    assert_eq!(broken, Err(StartError::Config(ConfigError("active_max"))));
    machine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_the_actor() {
    let network = MemoryNetwork::new(7, LinkModel::default());
    let first = start(&network, 0, MembershipConfig::default());
    let second = start(&network, 1, via(0));
    until("linked", || second.active() == ids([0])).await;
    let Machine { transport, membership } = first;
    let mut events = membership.events();
    assert_eq!(events.recv().await, Some(NeighborEvent::Up(machine(1))));
    drop(membership);
    assert_eq!(events.recv().await, Some(NeighborEvent::Down(machine(1))));
    assert_eq!(events.recv().await, None);
    until("told", || second.active().is_empty()).await;
    second.shutdown().await;
    transport.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn neighbours_exchange_their_records() {
    let network = MemoryNetwork::new(1, LinkModel::default());
    let start_signing = |n: u64, config| {
        let engine = network.engine(machine(n), address(n)).with_key(key(n));
        let clock = Arc::new(TokioClock::new());
        let hello = hello(n, 0);
        let transport = Node::start(engine, SessionConfig::default(), hello, clock.clone());
        let seed = [n as u8; 32];
        let membership = Membership::start(Arc::new(transport.clone()), config, clock, seed);
        Machine { transport, membership: membership.expect("the first consumer") }
    };
    let a = start_signing(1, MembershipConfig::default());
    let b = start_signing(2, via(1));
    let known = |machine: &Machine| machine.counter("membership_records") == 1;
    until("both have the record of the other", || known(&a) && known(&b)).await;
    // One signed long ago, and a flood of them.
    let old = record(2, ReachClass::Public, WallTime::from_millis(1_000_000));
    let old = Message::Record(old).encode();
    for _ in 0..10 {
        let sent = b.transport.send(machine(1), Protocol::Membership, old.clone()).await;
        sent.expect("connected");
    }
    until("the old ones are refused", || a.counter("membership_refused_records") >= 1).await;
    until("the flood is cut", || a.counter("membership_refused_rate") >= 5).await;
    assert_eq!(a.counter("membership_records"), 1);
    a.shutdown().await;
    b.shutdown().await;
}

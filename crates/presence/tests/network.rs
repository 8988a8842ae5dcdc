//! Real sessions over the in-memory engine, on tokio's paused clock.

#![cfg(feature = "tokio")]

use std::{sync::Arc, time::Duration};

use x0x_core::{AgentId, PeerAddr};
use x0x_gossip_membership::testing::StaticNeighbors;
use x0x_presence::{
    Open, Presence, PresenceConfig, PresenceEvent, PresenceParts, PresenceState, PresenceView,
    testing::Board,
};
use x0x_transport::{
    Node, Transport,
    testing::{
        LinkModel, MemoryNetwork, TokioClock, address, agent_key, eventually, key, machine, node,
    },
};

const PATIENCE: Duration = Duration::from_secs(5);

fn agent(n: u64) -> AgentId {
    key(agent_key(n)).public_key().agent_id()
}

struct Host {
    node: Arc<Node>,
    presence: Presence,
}

fn host(network: &MemoryNetwork, n: u64, neighbors: &[u64]) -> Host {
    let node = Arc::new(node(network, n));
    let neighbors = StaticNeighbors::new(neighbors.iter().map(|n| machine(*n)));
    let parts = PresenceParts {
        key: key(agent_key(n)),
        neighbors: Some(Arc::new(neighbors)),
        visibility: Arc::new(Open),
        clock: Arc::new(TokioClock::new()),
        config: PresenceConfig::default(),
        seed: [n as u8; 32],
    };
    let presence = Presence::start(Arc::<Node>::clone(&node), parts).expect("starts");
    Host { node, presence }
}

async fn connect(from: &Host, to: u64) {
    let target = PeerAddr::known(machine(to), [address(to)]);
    from.node.connect(target).await.expect("connects");
}

async fn state(host: &Host, n: u64) -> PresenceState {
    host.presence.status(agent(n)).await.state
}

#[tokio::test(start_paused = true)]
async fn agents_are_seen_coming_and_going() {
    let network = MemoryNetwork::new(1, LinkModel::default());
    let a = host(&network, 1, &[2]);
    let b = host(&network, 2, &[1, 3]);
    let c = host(&network, 3, &[2]);
    let mut events = a.presence.events();
    a.presence.watch(vec![agent(3)]).await;
    connect(&a, 2).await;
    connect(&c, 2).await;
    eventually("seen through a friend", async || state(&a, 3).await == PresenceState::Online).await;
    assert_eq!(a.presence.social().await.len(), 1);
    let network_view = a.presence.network().await;
    assert!(network_view.iter().any(|status| status.agent == agent(2) && status.reachable));

    c.presence.shutdown().await;
    eventually("the goodbye", async || state(&a, 3).await == PresenceState::Offline).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&PresenceState::Offline) {
        if let Some(PresenceEvent::Changed(status)) = events.next().await
            && status.agent == agent(3)
        {
            seen.push(status.state);
        }
    }
    assert_eq!(seen, [PresenceState::Online, PresenceState::Offline]);

    a.presence.shutdown().await;
    assert_eq!(a.presence.of(agent(2)).await.state, PresenceState::Unknown, "closed");
    assert!(a.presence.find(vec![], 1, PATIENCE).await.is_err());
    let mut after = a.presence.events();
    assert_eq!(after.next().await, None);
    drop((b, c));
}

#[tokio::test(start_paused = true)]
async fn a_walk_finds_a_friend_of_a_friend() {
    let network = MemoryNetwork::new(1, LinkModel::default());
    let a = host(&network, 1, &[2]);
    let b = host(&network, 2, &[1, 3]);
    let c = host(&network, 3, &[2]);
    connect(&a, 2).await;
    connect(&c, 2).await;
    eventually("b sees c's beacon", async || b.presence.metrics().beacons_accepted.value() >= 2)
        .await;
    let found = a.presence.find(vec![agent(3)], 2, PATIENCE).await.expect("open");
    assert_eq!(found.iter().map(|status| status.agent).collect::<Vec<_>>(), [agent(3)]);
    let before = tokio::time::Instant::now();
    let none = a.presence.find(vec![agent(9)], 2, PATIENCE).await.expect("open");
    assert_eq!((none.len(), before.elapsed().as_secs()), (0, 5));
    drop(c);
}

#[tokio::test(start_paused = true)]
async fn the_fake_tells_what_it_is_told() {
    let board = Board::default();
    let mut events = board.events();
    let status = x0x_presence::Status::unknown(agent(1));
    board.set(status);
    assert_eq!(events.next().await, Some(PresenceEvent::Changed(status)));
    assert_eq!(board.status(agent(1)).await, status);
    tokio::time::sleep(Duration::ZERO).await;
}

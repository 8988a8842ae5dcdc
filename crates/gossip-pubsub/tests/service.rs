//! The service over real sessions: in memory on a paused clock, and over QUIC on loopback.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{Clock, MachineId, PeerAddr, Protocol, TopicId};
use x0x_gossip_pubsub::{
    Delivery, Gossip, GossipConfig, Limits, Message, PubSub, PublishError, Start, StartError,
    SubscribeError, Subscription,
    testing::{hostile_cases, subscribe_frame},
    topic_id,
};
use x0x_identity::testing::key;
use x0x_transport::{
    Node, SessionConfig, Transport,
    quic::{QuicConfig, QuicEngine},
    testing::{LinkModel, MemoryNetwork, TokioClock, address, hello, machine, node},
};

const NETWORK: &str = "test";

/// A machine with its service.
struct Peer {
    node: Node,
    gossip: Gossip,
}

fn gossip(n: u64, node: &Node, limits: Limits) -> Gossip {
    let transport: Arc<dyn Transport> = Arc::new(node.clone());
    let key = Arc::new(key(500 + n));
    let clock = Arc::new(TokioClock::new());
    let mut config = GossipConfig::new(NETWORK, n);
    config.limits = limits;
    Gossip::start(transport, key, config, clock).expect("the first service")
}

fn peer(network: &MemoryNetwork, n: u64) -> Peer {
    let node = node(network, n);
    let gossip = gossip(n, &node, Limits::default());
    Peer { node, gossip }
}

async fn connect(from: &Node, to: u64) {
    from.connect(PeerAddr::known(machine(to), [address(to)])).await.expect("a session");
}

/// A line of peers, each connected to the next.
async fn line(seed: u64, count: u64) -> (MemoryNetwork, Vec<Peer>) {
    let network = MemoryNetwork::new(seed, LinkModel::default());
    let peers: Vec<Peer> = (1..=count).map(|n| peer(&network, n)).collect();
    for (n, peer) in (2..=count).zip(&peers) {
        connect(&peer.node, n).await;
    }
    (network, peers)
}

async fn subscribe(gossip: &Gossip, topic: TopicId) -> Subscription {
    gossip.subscribe(topic, Start::Retained).await.expect("a subscription")
}

async fn message(subscription: &mut Subscription) -> Message {
    let next = tokio::time::timeout(Duration::from_secs(30), subscription.next());
    match next.await.expect("a delivery in time") {
        Some(Delivery::Message(message)) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

fn counter(gossip: &Gossip, name: &str) -> u64 {
    let metrics = gossip.metrics().snapshot();
    metrics.iter().find(|metric| metric.name == name).expect("a counter").value
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), met).await.unwrap_or_else(|_| panic!("{what}"));
}

fn number(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

#[tokio::test(start_paused = true)]
async fn messages_cross_a_line_both_ways_and_reach_their_author() {
    let (_network, peers) = line(1, 3).await;
    let topic = topic_id("hello");
    let mut subscriptions = Vec::new();
    for peer in &peers {
        subscriptions.push(subscribe(&peer.gossip, topic).await);
    }
    let ends = [&peers[0].gossip, &peers[2].gossip];
    for end in ends {
        assert_eq!(end.publish(topic, "hi".into()).await.map(|p| p.seq), Ok(1));
    }
    for subscription in &mut subscriptions {
        let mut authors = [message(subscription).await.author, message(subscription).await.author];
        authors.sort();
        let mut expected = ends.map(Gossip::author);
        expected.sort();
        assert_eq!(authors, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_arrives_complete_and_in_order_even_when_read_late() {
    const COUNT: u32 = 5_000;
    let (_network, peers) = line(2, 3).await;
    let topic = topic_id("burst");
    let mut far = subscribe(&peers[2].gossip, topic).await;
    let _relay = subscribe(&peers[1].gossip, topic).await;
    let mut accepted = Vec::new();
    for n in 0..COUNT {
        accepted.push(peers[0].gossip.accept(topic, number(n)).await.expect("accepted"));
    }
    for (seq, accepted) in (1..).zip(accepted) {
        assert_eq!(accepted.published().await.map(|published| published.seq), Ok(seq));
    }
    until("everything arrived", || {
        counter(&peers[2].gossip, "pubsub_entries_accepted") == u64::from(COUNT)
    })
    .await;
    for n in 0..COUNT {
        let message = message(&mut far).await;
        assert_eq!((message.seq, &message.payload), (u64::from(n) + 1, &number(n)));
    }
    assert_eq!(far.next_ready(), None);
    let signed = counter(&peers[0].gossip, "pubsub_runs_signed");
    assert!(signed < u64::from(COUNT), "{signed} signatures");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_busy_and_publish_waits_for_room() {
    let (_network, peers) = line(3, 1).await;
    let (gossip, topic) = (&peers[0].gossip, topic_id("busy"));
    // Nothing runs in between, so the queue fills up.
    let refused = loop {
        if let Err(error) = gossip.try_publish(topic, Bytes::new()) {
            break error;
        }
    };
    assert_eq!(refused, PublishError::Busy);
    let seq = gossip.publish(topic, Bytes::new()).await.map(|published| published.seq);
    assert_eq!(seq, Ok(Limits::default().pending_topic_entries as u64 + 1));
    let too_large = gossip.try_publish(topic, vec![0; 1024 * 1024].into());
    assert!(matches!(too_large, Err(PublishError::TooLarge { .. })));
}

#[tokio::test(start_paused = true)]
async fn shutdown_hands_over_what_was_accepted_and_closes() {
    let (_network, peers) = line(4, 2).await;
    let topic = topic_id("end");
    let mut subscription = subscribe(&peers[1].gossip, topic).await;
    peers[0].gossip.publish(topic, number(0)).await.expect("accepted");
    assert_eq!(message(&mut subscription).await.payload, number(0));
    let mut own = subscribe(&peers[0].gossip, topic).await;
    for n in 1..300 {
        peers[0].gossip.publish(topic, number(n)).await.expect("accepted");
    }
    peers[0].gossip.shutdown().await;
    for n in 1..300 {
        assert_eq!(message(&mut subscription).await.payload, number(n));
    }
    for n in 0..300 {
        assert_eq!(message(&mut own).await.payload, number(n));
    }
    assert_eq!(own.next().await, None);
    let gossip = &peers[0].gossip;
    assert_eq!(gossip.publish(topic, Bytes::new()).await, Err(PublishError::Closed));
    let subscribed = gossip.subscribe(topic, Start::Live).await;
    assert!(matches!(subscribed, Err(SubscribeError::Closed)));
    assert!(gossip.equivocations().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_room_in_a_peer_s_queue() {
    let (_network, peers) = line(8, 2).await;
    let topic = topic_id("large");
    let mut subscription = subscribe(&peers[1].gossip, topic).await;
    peers[0].gossip.publish(topic, number(0)).await.expect("accepted");
    message(&mut subscription).await;
    // More than a session queues.
    for _ in 0..200 {
        peers[0].gossip.publish(topic, vec![7; 60_000].into()).await.expect("accepted");
    }
    peers[0].gossip.shutdown().await;
    assert!(counter(&peers[0].gossip, "pubsub_sends_refused") > 0, "a queue was full");
    for seq in 2..=201 {
        assert_eq!(message(&mut subscription).await.seq, seq);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_a_subscription_unsubscribes_here_and_at_the_neighbour() {
    let (_network, peers) = line(5, 2).await;
    let topic = topic_id("drop");
    let mut kept = subscribe(&peers[0].gossip, topic).await;
    let mut dropped = subscribe(&peers[1].gossip, topic).await;
    peers[0].gossip.publish(topic, number(1)).await.expect("accepted");
    message(&mut dropped).await;
    drop(dropped);
    until("unsubscribed", || counter(&peers[1].gossip, "pubsub_subscriptions") == 0).await;
    until("the log is dropped", || counter(&peers[1].gossip, "pubsub_topics") == 0).await;
    peers[0].gossip.publish(topic, number(2)).await.expect("accepted");
    message(&mut kept).await;
    message(&mut kept).await;
    assert_eq!(counter(&peers[0].gossip, "pubsub_runs_sent"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broken_link_resumes_and_a_second_service_is_refused() {
    let (network, peers) = line(6, 2).await;
    let topic = topic_id("flap");
    let mut subscription = subscribe(&peers[1].gossip, topic).await;
    for n in 0..100 {
        if n % 25 == 13 {
            network.break_links(machine(1), machine(2));
        }
        peers[0].gossip.publish(topic, number(n)).await.expect("accepted");
    }
    connect(&peers[0].node, 2).await;
    for n in 0..100 {
        assert_eq!(message(&mut subscription).await.payload, number(n));
    }
    let transport: Arc<dyn Transport> = Arc::new(peers[0].node.clone());
    let clock = Arc::new(TokioClock::new());
    let second = Gossip::start(transport, Arc::new(key(9)), GossipConfig::new(NETWORK, 0), clock);
    assert!(matches!(second, Err(StartError::InboundTaken)));
}

/// Sends every attack from a raw session and waits for its counter; an honest message still passes.
async fn attack(hostile: &Node, victim: &Gossip, at: MachineId) {
    let topic = topic_id("attacked");
    let mut subscription = subscribe(victim, topic).await;
    let mut n = 10_000;
    let wall = TokioClock::new().wall();
    let cases = hostile_cases(NETWORK, topic, wall, || {
        n += 1;
        key(n)
    });
    let send = |frame| async move {
        hostile.send(at, Protocol::Pubsub, frame).await.expect("sent");
    };
    send(subscribe_frame(topic)).await;
    for case in cases {
        let before = counter(victim, case.counter);
        for frame in case.frames {
            send(frame).await;
        }
        until(case.name, || counter(victim, case.counter) > before).await;
        for payload in case.delivered {
            assert_eq!(message(&mut subscription).await.payload, payload, "{}", case.name);
        }
    }
    victim.publish(topic, "fine".into()).await.expect("accepted");
    assert_eq!(message(&mut subscription).await.payload, "fine");
    assert_eq!(victim.equivocations().await.len(), 3);
    assert_eq!(counter(victim, "pubsub_peers_disconnected"), 0);
    // A few forgeries more end the session.
    for _ in 0..10 {
        let _ = hostile.send(at, Protocol::Pubsub, Bytes::from_static(&[0xff])).await;
    }
    until("disconnected", || counter(victim, "pubsub_peers_disconnected") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn attacks_are_refused_in_memory() {
    let network = MemoryNetwork::new(7, LinkModel::default());
    let victim = peer(&network, 1);
    let hostile = node(&network, 2);
    connect(&hostile, 1).await;
    attack(&hostile, &victim.gossip, machine(1)).await;
}

#[tokio::test]
async fn attacks_are_refused_over_quic() {
    let start = |n: u64| {
        let bind = "127.0.0.1:0".parse().expect("an address");
        let engine = QuicEngine::bind(QuicConfig::new(bind, key(n))).expect("a socket");
        let clock = Arc::new(TokioClock::new());
        Node::start(engine, SessionConfig::default(), hello(n, 0), clock)
    };
    let (victim, hostile) = (start(1), start(2));
    let gossip = gossip(1, &victim, Limits::default());
    let to = PeerAddr::known(victim.local_id(), victim.local_addresses());
    hostile.connect(to).await.expect("a session");
    attack(&hostile, &gossip, victim.local_id()).await;
    gossip.shutdown().await;
    hostile.shutdown().await;
    victim.shutdown().await;
}

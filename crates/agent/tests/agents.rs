//! Whole agents in one process over real QUIC on loopback.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use x0x_agent::{
    Agent, AgentConfig, AgentId, ConnectKind, Delivery, DirectError, DirectEvent, SendDirectError,
    Subscription, testing::start_agent,
};
use x0x_transport::testing::eventually;

const PATIENCE: Duration = Duration::from_secs(30);

async fn next_payload(subscription: &mut Subscription) -> (AgentId, Bytes) {
    match tokio::time::timeout(PATIENCE, subscription.next()).await {
        Ok(Some(Delivery::Message(message))) => (message.author, message.payload),
        other => panic!("expected a message, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_and_direct_between_agents_that_bootstrap_from_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let alice = start_agent(folder.path(), "alice", &[]).await;
    let hub = alice.local_addresses();
    let bob = start_agent(folder.path(), "bob", &hub).await;
    let carol = start_agent(folder.path(), "carol", &hub).await;
    for agent in [&alice, &bob, &carol] {
        eventually("a full mesh", async || agent.sessions().len() == 2).await;
    }

    let mut subscriptions = Vec::new();
    for agent in [&alice, &bob, &carol] {
        subscriptions.push(agent.subscribe("news").await.expect("a subscription"));
    }
    for n in 0..200_u32 {
        let payload = Bytes::copy_from_slice(&n.to_be_bytes());
        bob.publish("news", payload).await.expect("published");
    }
    for subscription in &mut subscriptions {
        for n in 0..200_u32 {
            let (author, payload) = next_payload(subscription).await;
            assert_eq!(author, bob.agent_id());
            assert_eq!(payload[..], n.to_be_bytes());
        }
    }

    let mut mail = carol.direct_events();
    let receipt = bob.send_direct(carol.agent_id(), "psst".into()).await.expect("acknowledged");
    assert!(!receipt.loopback);
    let Some(DirectEvent::Message(message)) = mail.next().await else {
        panic!("no message");
    };
    assert_eq!(message.number, 1);
    assert_eq!((message.from, &message.payload[..]), (bob.agent_id(), &b"psst"[..]));
    assert_eq!(message.machine, bob.machine_id());

    let own = carol.send_direct(carol.agent_id(), "note".into()).await.expect("loopback");
    assert!(own.loopback);
    let stranger = AgentId::new([9; 32]);
    assert!(matches!(
        bob.send_direct(stranger, "x".into()).await,
        Err(SendDirectError::NotFound(id)) if id == stranger
    ));
    let huge = Bytes::from(vec![0; 16 * 1024 * 1024 + 1]);
    assert!(matches!(
        bob.send_direct(carol.agent_id(), huge).await,
        Err(SendDirectError::Direct(DirectError::TooLarge { .. }))
    ));
    let large = Bytes::from(vec![7; 16 * 1024 * 1024]);
    bob.send_direct(carol.agent_id(), large.clone()).await.expect("16 MiB pass");
    mail.next().await.expect("the note");
    assert!(matches!(
        mail.next().await,
        Some(DirectEvent::Message(message)) if message.payload == large
    ));

    for agent in [&carol, &bob, &alice] {
        agent.shutdown().await;
    }
    assert!(mail.next().await.is_none(), "readers end with the agent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_discover_each_other_and_connect() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let alice = start_agent(folder.path(), "alice", &[]).await;
    let bob = start_agent(folder.path(), "bob", &alice.local_addresses()).await;

    let found = alice.find(bob.agent_id(), PATIENCE).await.expect("open").expect("bob is found");
    assert_eq!((found.agent, found.machine), (bob.agent_id(), bob.machine_id()));
    let outcome = alice.connect(bob.agent_id()).await;
    assert_eq!(outcome.kind, ConnectKind::AlreadyConnected);
    assert_eq!(outcome.addr.map(|addr| addr.ip()), Some([127, 0, 0, 1].into()));
    let outcome = alice.connect(AgentId::new([5; 32])).await;
    assert_eq!(outcome.kind, ConnectKind::NotFound);
    alice.announce().await.expect("announced");
    let metrics: BTreeMap<_, _> = bob.metrics().into_iter().map(|m| (m.name, m.value)).collect();
    assert!(metrics.len() > 20, "every layer reports: {metrics:?}");

    bob.shutdown().await;
    eventually("alice sees bob leave", async || alice.sessions().is_empty()).await;
    let outcome = alice.connect(bob.agent_id()).await;
    assert_eq!(outcome.kind, ConnectKind::Unreachable);
    alice.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_keeps_its_identity_and_rejoins_from_its_peer_cache() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let alice = start_agent(folder.path(), "alice", &[]).await;
    let bob = start_agent(folder.path(), "bob", &alice.local_addresses()).await;
    eventually("bob joins", async || bob.neighbors().contains(&alice.machine_id())).await;
    let (agent, machine) = (bob.agent_id(), bob.machine_id());
    bob.shutdown().await;

    let bob = start_agent(folder.path(), "bob", &[]).await;
    assert_eq!((bob.agent_id(), bob.machine_id()), (agent, machine));
    eventually("bob is back", async || alice.session_of(agent).is_some()).await;
    let mut news = bob.subscribe("late").await.expect("a subscription");
    alice.publish("late", "welcome back".into()).await.expect("published");
    assert_eq!(next_payload(&mut news).await.1, "welcome back");
    bob.shutdown().await;
    alice.shutdown().await;
}

#[tokio::test]
async fn damaged_keys_and_bad_topics_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let alice = start_agent(folder.path(), "alice", &[]).await;
    assert!(alice.publish("", Bytes::new()).await.is_err());
    assert!(alice.subscribe(&"x".repeat(1025)).await.is_err());
    assert!(alice.publish("big", Bytes::from(vec![0; 1 << 20])).await.is_err());
    alice.shutdown().await;
    alice.shutdown().await;
    assert!(alice.publish("late", Bytes::new()).await.is_err(), "refused after shutdown");

    let key = folder.path().join("alice/keys/agent.key");
    std::fs::write(&key, b"not a key").expect("overwritten");
    let dir = folder.path().join("alice");
    let config = AgentConfig::new(dir.join("keys"), dir.join("data"));
    let error = Agent::builder(config).start().await.expect_err("a damaged key is refused");
    assert!(error.to_string().contains("agent.key"), "{error}");
    assert_eq!(std::fs::read(&key).expect("still there"), b"not a key");
}

//! The life of a session between nodes over the engine in memory, on virtual time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use x0x_core::{PeerAddr, Protocol};
use x0x_identity::{AcceptAll, SignedBinding, testing::key};
use x0x_transport::{
    Inbound, InboundEvent, LocalHello, Node, SessionConfig, Side, Transport,
    error::{DialError, SendError},
    testing::{
        EPOCH, LinkModel, MemoryNetwork, TokioClock, address, agent_key, eventually, hello,
        machine, node,
    },
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn network() -> MemoryNetwork {
    MemoryNetwork::new(1, LinkModel::default())
}

fn start(network: &MemoryNetwork, n: u64, hello: LocalHello) -> Node {
    let engine = network.engine(machine(n), address(n));
    Node::start(engine, SessionConfig::default(), hello, Arc::new(TokioClock::new()))
}

fn at(n: u64) -> PeerAddr {
    PeerAddr::known(machine(n), [address(n)])
}

async fn next(inbound: &mut Inbound) -> InboundEvent {
    let event = tokio::time::timeout(Duration::from_secs(60), inbound.recv());
    event.await.expect("an event in time").expect("the node runs")
}

/// The next event as text: `up`, `down`, or the message.
async fn told(inbound: &mut Inbound) -> String {
    match next(inbound).await {
        InboundEvent::Up(_) => "up".into(),
        InboundEvent::Down(_) => "down".into(),
        InboundEvent::Message { message, .. } => String::from_utf8_lossy(&message).into_owned(),
        other => format!("{other:?}"),
    }
}

/// Peers come, and are asked for, before the layers above are there: they wait, and nothing that they say is lost.
#[tokio::test(start_paused = true)]
async fn before_it_is_opened_a_node_has_no_sessions() {
    let network = network();
    let engine = network.engine(machine(1), address(1));
    let (clock, policy) = (Arc::new(TokioClock::new()), Arc::new(AcceptAll));
    let closed = Node::prepare(engine, SessionConfig::default(), hello(1, 0), clock, policy);
    let b = node(&network, 2);
    let greeting = tokio::spawn({
        let b = b.clone();
        async move {
            b.connect(at(1)).await.expect("connects once it is open");
            b.send(machine(1), Protocol::Direct, Bytes::from_static(b"hello")).await
        }
    });
    let asking = tokio::spawn({
        let a = closed.node().clone();
        async move { a.connect(at(2)).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((closed.node().sessions().len(), b.sessions().len()), (0, 0));
    let mut late = closed.node().inbound(Protocol::Direct).expect("free");
    let a = closed.open();
    assert_eq!(told(&mut late).await, "up");
    assert_eq!(told(&mut late).await, "hello");
    greeting.await.expect("ends").expect("sent");
    asking.await.expect("ends").expect("connected");
    a.shutdown().await;
    b.shutdown().await;

    let engine = network.engine(machine(3), address(3));
    let (clock, policy) = (Arc::new(TokioClock::new()), Arc::new(AcceptAll));
    let never = Node::prepare(engine, SessionConfig::default(), hello(3, 0), clock, policy);
    let node = never.node().clone();
    drop(never);
    assert!(matches!(node.connect(at(1)).await, Err(DialError::Closed)));
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn up_messages_and_down_come_in_order() {
    let network = network();
    let (a, b) = (node(&network, 1), node(&network, 2));
    let mut at_b = b.inbound(Protocol::Direct).expect("free");
    let session = a.connect(at(2)).await.expect("connects");
    assert_eq!((session.peer, session.side), (machine(2), Side::Dialer));
    assert_eq!(session.agents, [key(agent_key(2)).public_key().agent_id()]);
    assert_eq!(session.listen_addresses, [address(2)]);
    assert_eq!(a.connect(at(2)).await.expect("the same").generation, session.generation);
    assert_eq!(a.sessions().len(), 1);

    for text in ["one", "two", "three"] {
        a.send(machine(2), Protocol::Direct, Bytes::from_static(text.as_bytes()))
            .await
            .expect("connected");
    }
    for expected in ["up", "one", "two", "three"] {
        assert_eq!(told(&mut at_b).await, expected);
    }
    // A receiver taken late hears of the session first, with or without messages.
    let mut at_a = a.inbound(Protocol::Direct).expect("free");
    assert!(a.inbound(Protocol::Direct).is_err(), "one consumer");
    assert_eq!(told(&mut at_a).await, "up");
    b.try_send(machine(1), Protocol::Direct, Bytes::from_static(b"back")).expect("connected");
    assert_eq!(told(&mut at_a).await, "back");

    eventually("each end hears its address", async || {
        let seen = |node: &Node, of: u64| node.session(machine(of))?.observed_address;
        seen(&a, 2) == Some(address(1)) && seen(&b, 1) == Some(address(2))
    })
    .await;
    a.ping(machine(2)).await.expect("answered");

    a.disconnect(machine(2));
    assert_eq!(told(&mut at_a).await, "down");
    assert_eq!(told(&mut at_b).await, "down");
    assert!(a.sessions().is_empty() && b.sessions().is_empty());
    let refused = a.try_send(machine(2), Protocol::Direct, Bytes::new());
    assert_eq!(refused, Err(SendError::NotConnected));
    assert_eq!(a.ping(machine(2)).await, Err(SendError::NotConnected));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(a.sessions().is_empty(), "what was ended on purpose stays ended");
}

#[tokio::test(start_paused = true)]
async fn messages_without_a_consumer_are_dropped_and_counted() {
    let network = network();
    let (a, b) = (node(&network, 1), node(&network, 2));
    a.connect(at(2)).await.expect("connects");
    for _ in 0..3 {
        a.try_send(machine(2), Protocol::Pubsub, Bytes::from_static(b"x")).expect("room");
    }
    eventually("counted", async || b.metrics().frames_unclaimed.value() == 3).await;
    let mut inbound = b.inbound(Protocol::Pubsub).expect("free");
    assert_eq!(told(&mut inbound).await, "up");
    a.try_send(machine(2), Protocol::Pubsub, Bytes::from_static(b"y")).expect("room");
    assert_eq!(told(&mut inbound).await, "y");
    let max = Protocol::Pubsub.class().max_message();
    let long = Bytes::from(vec![0; max + 1]);
    let refused = a.try_send(machine(2), Protocol::Pubsub, long.clone());
    assert_eq!(refused, Err(SendError::TooLarge { len: max + 1, max }));
    a.send(machine(2), Protocol::Pubsub, long.slice(1..)).await.expect("the largest passes");
    assert_eq!(told(&mut inbound).await.len(), max);
    let refused = a.try_send(machine(2), Protocol::Control, Bytes::new());
    assert_eq!(refused, Err(SendError::Reserved(Protocol::Control)));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_machine_replaces_its_session_at_once() {
    for restarted in [1, 2] {
        let network = network();
        let (stays, mut node_r) = (3 - restarted, node(&network, restarted));
        let node_s = node(&network, stays);
        let mut inbound = node_s.inbound(Protocol::Membership).expect("free");
        node_s.connect(at(restarted)).await.expect("connects");
        assert_eq!(told(&mut inbound).await, "up");

        network.kill(machine(restarted));
        node_r.shutdown().await;
        let restart = Instant::now();
        node_r = start(&network, restarted, hello(restarted, 1));
        node_r.connect(at(stays)).await.expect("connects");
        assert_eq!(told(&mut inbound).await, "down");
        assert_eq!(told(&mut inbound).await, "up");
        assert!(restart.elapsed() < Duration::from_secs(1), "{restarted}: not by the idle timeout");
        assert_eq!(node_s.sessions().len(), 1);
        node_r.ping(machine(stays)).await.expect("one link");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_only_one_end_lost_is_replaced() {
    for lost in [1, 2] {
        let network = network();
        let (a, b) = (node(&network, 1), node(&network, 2));
        a.connect(at(2)).await.expect("connects");
        let keeps = 3 - lost;
        let (loser, keeper) = if lost == 1 { (&a, &b) } else { (&b, &a) };
        eventually("up at both ends", async || keeper.sessions().len() == 1).await;
        // The close of one end does not get through.
        network.partition(machine(1), machine(2));
        loser.disconnect(machine(keeps));
        eventually("lost at one end", async || loser.sessions().is_empty()).await;
        network.heal(machine(1), machine(2));
        assert_eq!(keeper.sessions().len(), 1);
        let start = Instant::now();
        loser.connect(at(keeps)).await.expect("connects");
        assert!(start.elapsed() < Duration::from_secs(2), "{lost}: not by the idle timeout");
        loser.ping(machine(keeps)).await.expect("one link");
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_ends_the_session_and_healing_reopens_it() {
    let network = network();
    let (a, b) = (node(&network, 1), node(&network, 2));
    let mut at_a = a.inbound(Protocol::Membership).expect("free");
    let mut at_b = b.inbound(Protocol::Membership).expect("free");
    a.connect(at(2)).await.expect("connects");
    assert_eq!(told(&mut at_a).await, "up");
    assert_eq!(told(&mut at_b).await, "up");
    network.partition(machine(1), machine(2));
    let cut = Instant::now();
    assert_eq!(told(&mut at_a).await, "down");
    assert_eq!(told(&mut at_b).await, "down");
    assert!(cut.elapsed() >= Duration::from_secs(15));
    tokio::time::sleep(Duration::from_secs(20)).await;
    network.heal(machine(1), machine(2));
    assert_eq!(told(&mut at_a).await, "up");
    assert_eq!(told(&mut at_b).await, "up");
    a.ping(machine(2)).await.expect("one link");
    assert!(a.metrics().reconnects.value() + b.metrics().reconnects.value() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_short_partition_is_only_a_pause() {
    let network = network();
    let (a, b) = (node(&network, 1), node(&network, 2));
    let mut at_b = b.inbound(Protocol::Direct).expect("free");
    let before = a.connect(at(2)).await.expect("connects").generation;
    assert_eq!(told(&mut at_b).await, "up");
    network.partition(machine(1), machine(2));
    a.try_send(machine(2), Protocol::Direct, Bytes::from_static(b"late")).expect("room");
    tokio::time::sleep(Duration::from_secs(10)).await;
    network.heal(machine(1), machine(2));
    assert_eq!(told(&mut at_b).await, "late");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(a.session(machine(2)).expect("still up").generation, before);
}

#[tokio::test(start_paused = true)]
async fn other_networks_are_refused() {
    let network = network();
    let a = node(&network, 1);
    let b = start(&network, 2, LocalHello::new("other", [2; 16], Vec::new()));
    let error = a.connect(at(2)).await.expect_err("refused");
    assert!(
        matches!(error, DialError::PeerMisbehaved("another network") | DialError::ClosedByPeer(_)),
        "{error}"
    );
    let refusals = |node: &Node| node.metrics().hellos_refused_network.value();
    eventually("counted", async || refusals(&a) + refusals(&b) > 0).await;
    assert!(a.sessions().is_empty() && b.sessions().is_empty());
    assert!(matches!(a.connect(at(2)).await, Err(DialError::BackingOff { .. })));
    assert_eq!(a.metrics().dial_failures_backoff.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn bindings_that_do_not_hold_are_refused() {
    let agent = key(agent_key(2));
    let foreign = SignedBinding::issue(&agent, machine(3), EPOCH, DAY).encode();
    let expired = SignedBinding::issue(&agent, machine(2), EPOCH, Duration::from_secs(1)).encode();
    let mut forged = SignedBinding::issue(&agent, machine(2), EPOCH, DAY).encode().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for (binding, is_expired) in [(foreign, false), (expired, true), (forged.into(), false)] {
        let network = network();
        let a = node(&network, 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let b = start(&network, 2, LocalHello::new("test", [2; 16], vec![binding]));
        a.connect(at(2)).await.expect_err("refused");
        let metrics = a.metrics();
        eventually("counted", async || {
            metrics.hellos_refused_expired.value() == u64::from(is_expired)
                && metrics.hellos_refused_binding.value() == u64::from(!is_expired)
        })
        .await;
        // The arbiter may have taken the link before it hears of the refusal.
        eventually("no session", async || a.sessions().is_empty() && b.sessions().is_empty()).await;
        // With a binding that holds, the next session shows the agent.
        let good = SignedBinding::issue(&agent, machine(2), EPOCH, DAY);
        b.set_bindings(vec![good.encode()]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let session = a.connect(at(2)).await.expect("connects");
        assert_eq!(session.agents, [good.binding().agent]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_tells_everybody_and_can_be_repeated() {
    let network = network();
    let (a, b) = (node(&network, 1), node(&network, 2));
    let mut at_a = a.inbound(Protocol::Direct).expect("free");
    let mut at_b = b.inbound(Protocol::Direct).expect("free");
    a.connect(at(2)).await.expect("connects");
    assert_eq!(told(&mut at_b).await, "up");
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { a.connect(at(9)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::join!(a.shutdown(), a.shutdown());
    assert_eq!(waiting.await.expect("no panic"), Err(DialError::Closed));
    assert_eq!(a.connect(at(2)).await, Err(DialError::Closed));
    assert_eq!((told(&mut at_a).await, told(&mut at_a).await), ("up".into(), "down".into()));
    assert!(at_a.recv().await.is_none(), "the receiver ends");
    assert!(a.inbound(Protocol::Pubsub).expect("free").recv().await.is_none());
    assert_eq!(told(&mut at_b).await, "down");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(b.metrics().reconnects.value(), 0, "a peer that left is not redialled");
    drop(b);
    assert!(at_b.recv().await.is_none(), "a dropped node ends too");
}

#[tokio::test(start_paused = true)]
async fn idle_sessions_are_let_go_and_held_or_used_ones_are_not() {
    let network = network();
    let engine = network.engine(machine(1), address(1));
    let mut config = SessionConfig::default();
    config.idle_soft_cap = 1;
    let a = Node::start(engine, config, hello(1, 1), Arc::new(TokioClock::new()));
    let _taken = a.inbound(Protocol::Direct).expect("free");
    let others: Vec<Node> = (2..=5).map(|n| node(&network, n)).collect();
    for n in 2..=5 {
        a.connect(at(n)).await.expect("connects");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    a.hold(machine(2), Protocol::Membership, true);
    let message = Bytes::from_static(b"in use");
    for _ in 0..6 {
        others[1].send(machine(1), Protocol::Direct, message.clone()).await.expect("connected");
        // Until its session is closed.
        let _ = others[2].send(machine(1), Protocol::Membership, message.clone()).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    // Of the two that are idle, the one opened last stays; membership messages are no use.
    let peers: Vec<_> = a.sessions().iter().map(|session| session.peer).collect();
    assert!(peers.contains(&machine(2)) && peers.contains(&machine(3)), "{peers:?}");
    assert_eq!((peers.len(), peers.contains(&machine(5))), (3, true));
    a.hold(machine(2), Protocol::Membership, false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(a.sessions().len(), 1, "nothing is used any more, and one may stay");
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_a_newcomer_takes_the_place_of_an_idle_session_that_nobody_holds() {
    let network = network();
    let engine = network.engine(machine(1), address(1));
    let mut config = SessionConfig::default();
    config.max_sessions = 3;
    let a = Node::start(engine, config, hello(1, 1), Arc::new(TokioClock::new()));
    let _taken = a.inbound(Protocol::Direct).expect("free");
    let others: Vec<Node> = (2..=5).map(|n| node(&network, n)).collect();
    for n in 2..=4 {
        a.connect(at(n)).await.expect("connects");
    }
    // A peer of a topic, and a neighbour; nobody sends anything.
    a.hold(machine(2), Protocol::Pubsub, true);
    a.hold(machine(3), Protocol::Membership, true);
    assert!(a.connect(at(5)).await.is_err(), "all were used lately");
    tokio::time::sleep(Duration::from_secs(60)).await;
    others[3].connect(at(1)).await.expect("a place was made");
    let mut expected = [2, 3, 5].map(machine);
    expected.sort_unstable();
    eventually("the newcomer has the place of 4", async || {
        let peers: Vec<_> = a.sessions().iter().map(|session| session.peer).collect();
        peers == expected
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dial_ends_with_its_last_caller() {
    let network = network();
    let (a, _b) = (node(&network, 1), node(&network, 2));
    network.partition(machine(1), machine(2));
    let wait = Duration::from_millis(500);
    let (first, second) = tokio::join!(
        tokio::time::timeout(wait, a.connect(at(2))),
        tokio::time::timeout(2 * wait, a.connect(at(2))),
    );
    assert!(first.is_err() && second.is_err(), "nobody answers");
    eventually("given up", async || a.metrics().dials_given_up.value() == 1).await;
    assert_eq!(a.metrics().dials.value(), 1, "the two shared it");
    network.heal(machine(1), machine(2));
    a.connect(at(2)).await.expect("connects at once");
}

#[tokio::test(start_paused = true)]
async fn another_machine_at_the_address_is_refused_on_both_sides() {
    let network = network();
    let (a, b) = (node(&network, 1), node(&network, 2));
    let wrong = a.connect(PeerAddr::known(machine(3), [address(2)])).await;
    assert!(matches!(wrong, Err(DialError::PeerMisbehaved(_))), "{wrong:?}");
    assert!(a.sessions().is_empty() && b.sessions().is_empty());
    assert_eq!(a.connect(at(2)).await.expect("who it is").peer, machine(2));
}

//! The service between machines, over real sessions in memory and in virtual time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;
use x0x_core::{AgentId, MachineId, PeerAddr, Protocol};
use x0x_direct::{
    Direct, DirectConfig, DirectError, DirectMetrics, Inbox, MAX_PAYLOAD, RefuseReason,
    wire::{FrameIn, MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_MESSAGES, MessageIn, Terms},
};
use x0x_transport::{
    InboundEvent, Node, Transport,
    testing::{LinkModel, MemoryNetwork, TokioClock, address, machine, node},
};

/// A machine with its one agent.
struct Peer {
    node: Node,
    id: MachineId,
    agent: AgentId,
}

/// Machines 0 to `count`, each in a session with machine 0.
async fn star(network: &MemoryNetwork, count: u64) -> Vec<Peer> {
    let nodes: Vec<Node> = (0..count).map(|n| node(network, n)).collect();
    let mut peers = Vec::new();
    for (node, n) in nodes.into_iter().zip(0..) {
        let other = if n == 0 { 1 } else { 0 };
        let dialled = PeerAddr::known(machine(other), [address(other)]);
        node.connect(dialled).await.expect("the network is up");
        peers.push(Peer { node, id: machine(n), agent: AgentId::new([0; 32]) });
    }
    for n in 0..peers.len() {
        let other = usize::from(n == 0);
        peers[n].agent = agents(&peers[other].node, peers[n].id).await[0];
    }
    peers
}

/// The agents that a node saw proven by a peer.
async fn agents(node: &Node, peer: MachineId) -> Vec<AgentId> {
    let seen = async {
        loop {
            if let Some(session) = node.session(peer) {
                return session.agents;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), seen).await.expect("a session at both ends")
}

impl Peer {
    fn start(&self, configure: impl FnOnce(&mut DirectConfig)) -> (Direct, Inbox) {
        let mut config = DirectConfig::new(vec![self.agent]);
        configure(&mut config);
        let transport = Arc::new(self.node.clone());
        Direct::start(transport, config, Arc::new(TokioClock::new())).expect("nobody else did")
    }
}

fn network() -> MemoryNetwork {
    MemoryNetwork::new(1, LinkModel::default())
}

/// Sends numbered messages in order, and waits for all of them.
async fn burst(direct: Direct, from: AgentId, to: (MachineId, AgentId), count: u32) {
    let mut sent = Vec::new();
    for n in 0..count {
        let payload = n.to_be_bytes().to_vec().into();
        let sending = direct.queue(direct.new_id(), to.0, from, to.1, payload).await;
        sent.push(sending.expect("it is queued"));
    }
    for sending in sent {
        sending.await.expect("it is acknowledged");
    }
}

async fn receive(inbox: &mut Inbox, count: u32) {
    for n in 0..count {
        let message = inbox.next().await.expect("the service runs");
        assert_eq!(message.payload[..], n.to_be_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn messages_cross_in_order_both_ways() {
    let network = network();
    let peers = star(&network, 2).await;
    let ((a, mut a_inbox), (b, mut b_inbox)) = (peers[0].start(|_| {}), peers[1].start(|_| {}));
    let (to_a, to_b) = ((peers[0].id, peers[0].agent), (peers[1].id, peers[1].agent));
    tokio::join!(
        burst(a.clone(), peers[0].agent, to_b, 2000),
        burst(b.clone(), peers[1].agent, to_a, 2000),
        receive(&mut a_inbox, 2000),
        receive(&mut b_inbox, 2000),
    );
    for direct in [&a, &b] {
        let acks = direct.metrics().acks_sent.value();
        assert!(acks < 1000, "{acks} acknowledgement frames for 2000 messages");
    }
    a.send(to_b.0, peers[0].agent, to_b.1, vec![3; MAX_PAYLOAD].into()).await.expect("it fits");
    let large = b_inbox.next().await.expect("it arrived");
    assert!(large.payload.len() == MAX_PAYLOAD && large.payload.iter().all(|byte| *byte == 3));
    assert_eq!((large.machine, large.from), (peers[0].id, peers[0].agent));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_stops_its_senders_and_not_its_own_messages() {
    let network = network();
    let peers = star(&network, 2).await;
    let (a, mut a_inbox) = peers[0].start(|config| config.inbox_messages = 1);
    let (b, mut b_inbox) = peers[1].start(|_| {});
    let (to_a, to_b) = ((peers[0].id, peers[0].agent), (peers[1].id, peers[1].agent));
    let count = MAX_IN_FLIGHT_MESSAGES as u32 + 500;
    let stalled = tokio::spawn(burst(b.clone(), peers[1].agent, to_a, count));
    let flows = async {
        tokio::join!(burst(a.clone(), peers[0].agent, to_b, 3000), receive(&mut b_inbox, 3000))
    };
    timeout(Duration::from_secs(20), flows).await.expect("acknowledgements flow");
    assert_eq!(b.metrics().acknowledged.value(), 1, "the inbox has room for one");
    assert!(a.metrics().held.value() <= MAX_IN_FLIGHT_MESSAGES as u64);
    assert!(!stalled.is_finished());
    receive(&mut a_inbox, count).await;
    stalled.await.expect("all were acknowledged");
    assert_eq!(a.metrics().refused_busy.value(), 0);
}

#[tokio::test(start_paused = true)]
async fn past_the_cap_senders_try_again_and_everything_else_goes_on() {
    let network = network();
    let peers = star(&network, 4).await;
    let (a, mut inbox) = peers[0].start(|config| config.inbox_messages = 1);
    let to = (peers[0].id, peers[0].agent);
    // A window each: more bytes than may be held.
    let count = MAX_IN_FLIGHT_BYTES >> 20;
    let mut services = Vec::new();
    let mut senders = Vec::new();
    for peer in &peers[1..] {
        let (direct, inbox) = peer.start(|_| {});
        for n in 0..count {
            let (direct, from) = (direct.clone(), peer.agent);
            let payload = Bytes::from(vec![n as u8; 1 << 20]);
            senders.push(tokio::spawn(async move {
                let id = direct.new_id();
                let mut refused = 0;
                loop {
                    let sent = direct.send_with_id(id, to.0, from, to.1, Bytes::clone(&payload));
                    match sent.await {
                        Err(error) if error.is_busy() => refused += 1,
                        outcome => break outcome.map(|_| refused),
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }));
        }
        services.push((direct, inbox));
    }
    let busy = async {
        while a.metrics().refused_busy.value() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), busy).await.expect("the cap is reached");

    // The full machine sends, reads its answers and learns of a session.
    let newcomer = node(&network, 9);
    newcomer.connect(PeerAddr::known(to.0, [address(0)])).await.expect("it is up");
    let agent = agents(&peers[0].node, machine(9)).await[0];
    let newcomer = Peer { node: newcomer, id: machine(9), agent };
    let (newcomer_service, news) = newcomer.start(|_| {});
    services.push((newcomer_service, news));
    for (peer, (_, inbox)) in peers[1..].iter().chain([&newcomer]).zip(&mut services) {
        let sent = a.send(peer.id, to.1, peer.agent, "hello".into());
        timeout(Duration::from_secs(1), sent).await.expect("in time").expect("it is acknowledged");
        assert_eq!(inbox.try_next().map(|message| message.payload), Some("hello".into()));
    }

    let mut received = BTreeSet::new();
    for _ in 0..senders.len() {
        let message = inbox.next().await.expect("the service runs");
        assert!(received.insert((message.machine, message.payload[0])), "each arrives once");
    }
    let mut refused = 0;
    for sender in senders {
        refused += sender.await.expect("it ends").expect("it is acknowledged");
    }
    assert_eq!(refused, a.metrics().refused_busy.value());
}

#[tokio::test(start_paused = true)]
async fn retries_across_broken_sessions_deliver_each_message_once() {
    let network = network();
    let peers = star(&network, 2).await;
    let (a, _a_inbox) = peers[0].start(|_| {});
    let (_b, mut inbox) = peers[1].start(|_| {});
    let (from, to) = (peers[0].agent, (peers[1].id, peers[1].agent));
    let breaker = {
        let (network, a, b) = (network.clone(), peers[0].id, peers[1].id);
        tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(30)).await;
                network.break_links(a, b);
            }
        })
    };
    let mut senders = Vec::new();
    for n in 0..400_u32 {
        let direct = a.clone();
        senders.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(u64::from(n))).await;
            let id = direct.new_id();
            loop {
                let payload = n.to_be_bytes().to_vec().into();
                match direct.send_with_id(id, to.0, from, to.1, payload).await {
                    Ok(receipt) => break assert_eq!(receipt.id, id),
                    Err(DirectError::Unconfirmed | DirectError::NotConnected) => {}
                    Err(error) => panic!("{error}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    for sender in senders {
        timeout(Duration::from_secs(120), sender).await.expect("in time").expect("acknowledged");
    }
    breaker.await.expect("it ends");
    let mut received: Vec<_> =
        std::iter::from_fn(|| inbox.try_next()).map(|message| message.payload).collect();
    received.sort();
    let expected: Vec<_> = (0..400_u32).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(received, expected);
    assert!(a.metrics().not_connected.value() + a.metrics().unconfirmed.value() > 0);
}

#[tokio::test(start_paused = true)]
async fn the_machine_of_an_agent_is_known_while_it_has_a_session() {
    let network = network();
    let peers = star(&network, 2).await;
    let (a, _a_inbox) = peers[0].start(|_| {});
    let (_b, mut inbox) = peers[1].start(|_| {});
    let until = async |expected: Option<MachineId>| {
        let known = async {
            while a.machine_of(peers[1].agent) != expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), known).await.expect("the index follows");
    };
    until(Some(peers[1].id)).await;
    assert_eq!(a.machine_of(AgentId::new([9; 32])), None);
    let sent = a.send(peers[1].id, peers[0].agent, peers[1].agent, "x".into()).await;
    assert!(sent.is_ok() && inbox.next().await.is_some());
    peers[0].node.disconnect(peers[1].id);
    until(None).await;
}

#[tokio::test(start_paused = true)]
async fn agents_are_checked_against_the_session() {
    let network = network();
    let peers = star(&network, 2).await;
    let (a, _a_inbox) = peers[0].start(|_| {});
    let (b, _b_inbox) = peers[1].start(|_| {});
    let (stranger, to) = (AgentId::new([9; 32]), (peers[1].id, peers[1].agent));
    let refused = |reason| Err(DirectError::Refused(reason));
    let sent = a.send(to.0, stranger, to.1, "x".into()).await;
    assert_eq!(sent, refused(RefuseReason::SenderNotProven));
    let sent = a.send(to.0, peers[0].agent, stranger, "x".into()).await;
    assert_eq!(sent, refused(RefuseReason::UnknownRecipient));
    assert_eq!(b.metrics().refused_sender_not_proven.value(), 1);
    assert_eq!(b.metrics().refused_unknown_recipient.value(), 1);
    a.send(to.0, peers[0].agent, to.1, "x".into()).await.expect("the session goes on");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_the_protocol_loses_its_session() {
    let network = network();
    let peers = star(&network, 2).await;
    let (b, mut inbox) = peers[1].start(|_| {});
    let mut hostile = peers[0].node.inbound(Protocol::Direct).expect("no service runs there");
    let up = hostile.recv().await;
    assert!(matches!(up, Some(InboundEvent::Up(_))));
    for seq in [1, 3] {
        let (from, to) = (peers[0].agent, peers[1].agent);
        let (id, payload, terms) = ([1; 16], "x".into(), Terms::default());
        let message = MessageIn { epoch: 1, seq, id, from, to, payload, terms };
        let frame = FrameIn::Message(message).encode();
        peers[0].node.send(peers[1].id, Protocol::Direct, frame).await.expect("it is queued");
    }
    assert!(inbox.next().await.is_some());
    let down = async { while !matches!(hostile.recv().await, Some(InboundEvent::Down(_))) {} };
    timeout(Duration::from_secs(5), down).await.expect("the session ends");
    let metrics: &DirectMetrics = b.metrics();
    assert_eq!((metrics.broken_sequence.value(), metrics.delivered.value()), (1, 1));
}

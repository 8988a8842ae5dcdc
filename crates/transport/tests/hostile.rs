//! Peers that break the rules of the session protocol, driven by hand over links in memory.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{PeerAddr, Protocol, StreamClass};
use x0x_transport::{
    Inbound, InboundEvent, Node, SessionConfig, Transport, TransportMetrics,
    frame::{FrameDecoder, FrameEncoder},
    link::{Engine, Link, LinkClosed, RecvStream, SendStream},
    testing::{
        LinkModel, MemoryEngine, MemoryNetwork, TokioClock, address, eventually, hello, machine,
        node,
    },
    wire::{
        CloseCode, ControlIn, ControlOut, HelloOut, NetworkTag, Offer, Punch, RelayRefusal,
        RelayStep,
    },
};

/// A peer without a node behind it.
struct Peer {
    _engine: MemoryEngine,
    link: Box<dyn Link>,
    control: Box<dyn SendStream>,
    /// The node's control stream: giving it up would end the link.
    heard: Option<Box<dyn RecvStream>>,
}

impl Peer {
    /// Connects as machine 2 to machine 1 and opens its control stream.
    async fn dial(network: &MemoryNetwork) -> Self {
        let engine = network.engine(machine(2), address(2));
        let link = engine.dial(address(1), Some(machine(1))).await.expect("there");
        let control = open(&*link, StreamClass::Control).await;
        Self { _engine: engine, link, control, heard: None }
    }

    /// Makes the link a session, whichever end is the arbiter.
    async fn session(network: &MemoryNetwork) -> Self {
        let mut peer = Self::dial(network).await;
        peer.say(&good_hello()).await;
        if machine(2) > machine(1) {
            peer.hear(|message| matches!(message, ControlIn::Hello(_))).await;
            peer.say(&ControlOut::Keep(1)).await;
        } else {
            peer.hear(|message| matches!(message, ControlIn::Keep(_))).await;
        }
        peer
    }

    async fn say(&mut self, message: &ControlOut) {
        write(&mut *self.control, Protocol::Control, message.encode()).await;
    }

    /// Reads the node's control stream until a message like this.
    async fn hear(&mut self, wanted: impl Fn(&ControlIn) -> bool) {
        let stream = self.link.accept().await.expect("the node opens its control stream");
        let stream = self.heard.insert(stream);
        let class = stream.read(1).await.expect("open").expect("a class byte");
        assert_eq!(class[..], [StreamClass::Control as u8]);
        let mut decoder = FrameDecoder::new(StreamClass::Control);
        let mut first = true;
        loop {
            decoder.push(stream.read(usize::MAX).await.expect("open").expect("more"));
            while let Some(frame) = decoder.next_frame().expect("well-formed") {
                let message = ControlIn::decode(&frame.message, first).expect("well-formed");
                if wanted(&message) {
                    return;
                }
                first = false;
            }
        }
    }

    async fn is_closed_with(&self, code: CloseCode) {
        let closed = tokio::time::timeout(Duration::from_secs(60), self.link.closed());
        assert_eq!(closed.await.expect("in time"), LinkClosed::Peer(code));
    }
}

fn good_hello() -> ControlOut {
    let mut out = HelloOut::new(NetworkTag::of("test"), [2; 16]);
    out.bindings = hello(2, 0).bindings;
    ControlOut::Hello(out)
}

async fn open(link: &dyn Link, class: StreamClass) -> Box<dyn SendStream> {
    let mut stream = link.open(0).await.expect("up");
    raw(&mut *stream, &[class as u8]).await;
    stream
}

async fn raw(stream: &mut dyn SendStream, bytes: &[u8]) {
    stream.write_all(&mut [Bytes::copy_from_slice(bytes)]).await.expect("up");
}

async fn write(stream: &mut dyn SendStream, protocol: Protocol, message: Bytes) {
    let mut encoder = FrameEncoder::default();
    encoder.frame(protocol, message);
    stream.write_all(encoder.chunks()).await.expect("up");
}

fn world() -> (MemoryNetwork, Node) {
    let network = MemoryNetwork::new(7, LinkModel::default());
    let node = node(&network, 1);
    (network, node)
}

async fn counted(node: &Node, counter: impl Fn(&TransportMetrics) -> u64) {
    eventually("counted", async || counter(node.metrics()) == 1).await;
    assert!(node.sessions().is_empty(), "refused");
}

#[tokio::test(start_paused = true)]
async fn frames_over_the_limit_close_the_link() {
    for class in [StreamClass::Control, StreamClass::Direct, StreamClass::Gossip] {
        let (network, node) = world();
        let mut peer = Peer::session(&network).await;
        eventually("up", async || node.sessions().len() == 1).await;
        let huge = [0xff, 0xff, 0xff, 0x7f];
        if class == StreamClass::Control {
            raw(&mut *peer.control, &huge).await;
        } else {
            let mut stream = open(&*peer.link, class).await;
            raw(&mut *stream, &huge).await;
        }
        peer.is_closed_with(CloseCode::Misbehaved).await;
        counted(&node, |metrics| metrics.frames_too_large.value()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn protocols_stay_in_their_class() {
    let (network, node) = world();
    let peer = Peer::session(&network).await;
    let mut stream = open(&*peer.link, StreamClass::Gossip).await;
    write(&mut *stream, Protocol::Direct, Bytes::from_static(b"x")).await;
    peer.is_closed_with(CloseCode::Misbehaved).await;
    counted(&node, |metrics| metrics.frames_wrong_class.value()).await;
}

#[tokio::test(start_paused = true)]
async fn a_class_has_one_stream() {
    let (network, node) = world();
    let peer = Peer::session(&network).await;
    let _first = open(&*peer.link, StreamClass::Direct).await;
    let _second = open(&*peer.link, StreamClass::Direct).await;
    peer.is_closed_with(CloseCode::Misbehaved).await;
    counted(&node, |metrics| metrics.streams_refused.value()).await;
}

#[tokio::test(start_paused = true)]
async fn silent_streams_hold_nobody_else_up() {
    let (network, node) = world();
    let mut inbound = node.inbound(Protocol::Direct).expect("free");
    let peer = Peer::session(&network).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(peer.link.open(0).await.expect("up"));
    }
    let mut stream = open(&*peer.link, StreamClass::Direct).await;
    write(&mut *stream, Protocol::Direct, Bytes::from_static(b"x")).await;
    assert!(matches!(inbound.recv().await, Some(InboundEvent::Up(_))));
    assert!(matches!(inbound.recv().await, Some(InboundEvent::Message { .. })));
}

#[tokio::test(start_paused = true)]
async fn nothing_but_control_comes_before_the_session() {
    let (network, node) = world();
    let mut peer = Peer::dial(&network).await;
    write(&mut *peer.control, Protocol::Membership, Bytes::from_static(b"x")).await;
    peer.is_closed_with(CloseCode::Misbehaved).await;
    counted(&node, |metrics| metrics.control_refused.value()).await;

    let (network, node) = world();
    let mut inbound = node.inbound(Protocol::Direct).expect("free");
    let peer = Peer::dial(&network).await;
    let mut stream = open(&*peer.link, StreamClass::Direct).await;
    write(&mut *stream, Protocol::Direct, Bytes::from_static(b"early")).await;
    peer.is_closed_with(CloseCode::Timeout).await;
    assert!(inbound.try_recv().is_err(), "not read without a session");
    counted(&node, |metrics| metrics.links_timed_out.value()).await;
}

#[tokio::test(start_paused = true)]
async fn control_messages_keep_their_turn_and_size() {
    let first = [ControlOut::Keep(1), ControlOut::Ping(1)];
    for message in first {
        let (network, node) = world();
        let mut peer = Peer::dial(&network).await;
        peer.say(&message).await;
        peer.is_closed_with(CloseCode::Misbehaved).await;
        counted(&node, |metrics| metrics.control_refused.value()).await;
    }
    for later in [good_hello(), ControlOut::Keep(1)] {
        let (network, node) = world();
        let mut peer = Peer::session(&network).await;
        peer.say(&later).await;
        peer.is_closed_with(CloseCode::Misbehaved).await;
        counted(&node, |metrics| metrics.control_refused.value()).await;
    }
    let (network, node) = world();
    let mut peer = Peer::dial(&network).await;
    write(&mut *peer.control, Protocol::Control, vec![0; 60_000].into()).await;
    peer.is_closed_with(CloseCode::Misbehaved).await;
    counted(&node, |metrics| metrics.hellos_refused_malformed.value()).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_later_version_adds_is_skipped() {
    let (network, node) = world();
    let mut inbound = node.inbound(Protocol::Direct).expect("free");
    let mut peer = Peer::session(&network).await;
    // A kind of control message, a protocol and a class of their own.
    write(&mut *peer.control, Protocol::Control, Bytes::from_static(&[0x7a, 1, 0])).await;
    let mut later = peer.link.open(0).await.expect("up");
    raw(&mut *later, &[99, 1, 2, 3]).await;
    let mut stream = open(&*peer.link, StreamClass::Direct).await;
    raw(&mut *stream, &[2, 200, 0, 0]).await;
    write(&mut *stream, Protocol::Direct, Bytes::from_static(b"known")).await;
    assert!(matches!(inbound.recv().await, Some(InboundEvent::Up(_))));
    let Some(InboundEvent::Message { message, .. }) = inbound.recv().await else {
        panic!("the known message");
    };
    assert_eq!(message, "known");
    let metrics = node.metrics();
    eventually("counted", async || {
        metrics.frames_unknown_protocol.value() == 1
            && metrics.streams_unknown_class.value() == 1
            && metrics.control_unknown.value() == 1
    })
    .await;
    assert_eq!(node.sessions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_given_up_ends_the_link() {
    for reset_by_reader in [true, false] {
        let (network, node) = world();
        let peer = Peer::session(&network).await;
        eventually("up", async || node.sessions().len() == 1).await;
        if reset_by_reader {
            node.try_send(machine(2), Protocol::Direct, Bytes::from_static(b"x")).expect("up");
            let accepted = async {
                loop {
                    let mut stream = peer.link.accept().await.expect("up");
                    let class = stream.read(1).await.expect("open").expect("a class byte");
                    if class[..] == [StreamClass::Direct as u8] {
                        return stream;
                    }
                }
            };
            drop(accepted.await);
            // The node finds out when it writes.
            node.try_send(machine(2), Protocol::Direct, Bytes::from_static(b"y")).expect("up");
            peer.is_closed_with(CloseCode::Misbehaved).await;
            counted(&node, |metrics| metrics.streams_given_up.value()).await;
        } else {
            // A stream that ends is no offence: the peer has nothing more to say in its class.
            drop(open(&*peer.link, StreamClass::Direct).await);
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(node.sessions().len(), 1);
        }
    }
}

/// The head of a direct message of 8 MiB and more of it than is free.
async fn begin_large(peer: &Peer) -> Box<dyn SendStream> {
    let mut stream = open(&*peer.link, StreamClass::Direct).await;
    raw(&mut *stream, &[0x80, 0x80, 0x80, 0x04, Protocol::Direct as u8]).await;
    raw(&mut *stream, &vec![0; 600 * 1024]).await;
    stream
}

#[tokio::test(start_paused = true)]
async fn a_large_message_that_stops_arriving_ends_the_link() {
    let (network, node) = world();
    let peer = Peer::session(&network).await;
    let stream = begin_large(&peer).await;
    peer.is_closed_with(CloseCode::Timeout).await;
    counted(&node, |metrics| metrics.frames_stalled.value()).await;
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn half_messages_share_one_budget() {
    let network = MemoryNetwork::new(7, LinkModel::default());
    let mut config = SessionConfig::default();
    // The least there is: one of the largest.
    config.direct_assembly_bytes = 0;
    let engine = network.engine(machine(1), address(1));
    let node = Node::start(engine, config, hello(1, 0), Arc::new(TokioClock::new()));
    let mut inbound = node.inbound(Protocol::Direct).expect("free");
    let mut gossip = node.inbound(Protocol::Pubsub).expect("free");
    let peer = Peer::session(&network).await;
    let _half = begin_large(&peer).await;
    let honest = x0x_transport::testing::node(&network, 3);
    honest.connect(PeerAddr::known(machine(1), [address(1)])).await.expect("connects");
    let large = Bytes::from(vec![3; 12 << 20]);
    let small = Bytes::from_static(b"small");
    honest.send(machine(1), Protocol::Direct, small.clone()).await.expect("up");
    honest.send(machine(1), Protocol::Direct, large.clone()).await.expect("up");
    honest.send(machine(1), Protocol::Pubsub, small.clone()).await.expect("up");
    let next = async |inbound: &mut Inbound| loop {
        let event = inbound.recv().await.expect("the node runs");
        if let InboundEvent::Message { message, .. } = event {
            return message;
        }
    };
    assert_eq!(next(&mut inbound).await, small);
    assert_eq!(next(&mut gossip).await, small, "another class has a budget of its own");
    let wait = tokio::time::timeout(Duration::from_secs(10), next(&mut inbound));
    assert!(wait.await.is_err(), "the budget is taken");
    peer.is_closed_with(CloseCode::Timeout).await;
    assert_eq!(next(&mut inbound).await, large, "who waits for the budget has its turn");
}

/// Who drips as fast as it must has its turn cut short for others.
#[tokio::test(start_paused = true)]
async fn a_slow_large_message_gives_way_to_who_waits() {
    let network = MemoryNetwork::new(7, LinkModel::default());
    let mut config = SessionConfig::default();
    config.direct_assembly_bytes = 0;
    let engine = network.engine(machine(1), address(1));
    let node = Node::start(engine, config, hello(1, 0), Arc::new(TokioClock::new()));
    let mut inbound = node.inbound(Protocol::Direct).expect("free");
    let peer = Peer::session(&network).await;
    let mut slow = begin_large(&peer).await;
    let drip = async {
        let piece = || Bytes::from(vec![0; 300 * 1024]);
        while slow.write_all(&mut [piece()]).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    };
    let honest = x0x_transport::testing::node(&network, 3);
    honest.connect(PeerAddr::known(machine(1), [address(1)])).await.expect("connects");
    let large = Bytes::from(vec![3; 12 << 20]);
    honest.send(machine(1), Protocol::Direct, large.clone()).await.expect("up");
    let arrives = async {
        loop {
            if let Some(InboundEvent::Message { message, .. }) = inbound.recv().await {
                return message;
            }
        }
    };
    let both = async { tokio::join!(drip, peer.is_closed_with(CloseCode::Timeout), arrives) };
    let ((), (), message) =
        tokio::time::timeout(Duration::from_secs(70), both).await.expect("within a minute");
    assert_eq!(message, large);
    assert_eq!(node.metrics().frames_slow.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_agreements_is_dropped_and_the_session_goes_on() {
    let (network, node) = world();
    let mut peer = Peer::session(&network).await;
    for n in 0..5000_u32 {
        let mut round = [0; 16];
        round[..4].copy_from_slice(&n.to_be_bytes());
        let bogus = (0..8).map(|m| (n.wrapping_mul(0x9e37_79b9) ^ m).to_be_bytes());
        let bogus = bogus.map(|ip| std::net::SocketAddr::from((ip, 5483))).collect();
        let offer = Offer::new(round, machine(9), [1; 32], bogus);
        peer.say(&ControlOut::Punch(Punch::Ask(offer.clone()))).await;
        peer.say(&ControlOut::Punch(Punch::Forward(offer))).await;
    }
    let punches = &node.metrics().punches;
    let taken = || {
        punches.refused_not_connected.value()
            + punches.answered.value()
            + punches.refused_rate.value()
    };
    eventually("all came", async || punches.dropped.value() + taken() == 10_000).await;
    assert!(taken() < 200 && punches.answered.value() < 30, "{} taken", taken());
    assert_eq!(node.sessions().len(), 1);
}

/// Relay this machine with itself, with the asker, with one that is not there; let it be relayed by a session that cannot;
/// answers about nothing.
#[tokio::test(start_paused = true)]
async fn a_flood_of_bogus_contexts_is_refused_and_the_session_goes_on() {
    let (network, node) = world();
    let mut peer = Peer::session(&network).await;
    let why = RelayRefusal::Over;
    for n in 1..=1000_u32 {
        let (even, odd) = (2 * n, 2 * n + 1);
        for step in [
            RelayStep::Open { context: even, target: node.local_id() },
            RelayStep::Open { context: even, target: machine(2) },
            RelayStep::Open { context: even, target: machine(9) },
            RelayStep::Incoming { context: odd, from: machine(9) },
            RelayStep::Ok { context: even },
            RelayStep::Ok { context: odd },
            RelayStep::Close { context: even, from_relay: n % 2 == 0, why },
        ] {
            peer.say(&ControlOut::Relay(step)).await;
        }
    }
    let relay = &node.metrics().relay;
    let refused = || {
        relay.refused_self.value()
            + relay.refused_not_connected.value()
            + relay.refused_nested.value()
            + relay.refused_unasked.value()
    };
    eventually("all came", async || relay.steps_dropped.value() > 6800).await;
    assert!((20..200).contains(&refused()), "{} refused", refused());
    assert!(relay.refused_self.value() > 0 && relay.refused_not_connected.value() > 0);
    assert_eq!((relay.opened.value(), relay.accepted.value()), (0, 0));
    assert_eq!(node.sessions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_keeps_no_session() {
    let network = MemoryNetwork::new(7, LinkModel::default());
    let mut config = SessionConfig::default();
    config.idle_soft_cap = 0;
    let engine = network.engine(machine(1), address(1));
    let _node = Node::start(engine, config, hello(1, 0), Arc::new(TokioClock::new()));
    let peer = Peer::session(&network).await;
    let mut stream = open(&*peer.link, StreamClass::Gossip).await;
    let chatter = async {
        let mut encoder = FrameEncoder::default();
        loop {
            encoder.frame(Protocol::Pubsub, Bytes::from_static(b"me"));
            if stream.write_all(encoder.chunks()).await.is_err() {
                return;
            }
            encoder.clear();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::join!(chatter, peer.is_closed_with(CloseCode::Disconnected));
}

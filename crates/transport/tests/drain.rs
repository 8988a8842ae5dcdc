//! What was queued reaches the peer when a session ends in peace, on both engines' terms.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use x0x_core::{PeerAddr, Protocol};
use x0x_transport::{
    Inbound, InboundEvent, Node, SessionConfig, Transport,
    error::SendError,
    testing::{LinkModel, MemoryNetwork, TokioClock, address, hello, machine},
};

const COUNT: u32 = 200;

fn slow() -> LinkModel {
    let latency = Duration::from_millis(20)..Duration::from_millis(40);
    LinkModel { latency, window: 64 * 1024, ..LinkModel::default() }
}

fn start(network: &MemoryNetwork, n: u64) -> Node {
    let engine = network.engine(machine(n), address(n));
    Node::start(engine, SessionConfig::default(), hello(n, 0), Arc::new(TokioClock::new()))
}

async fn pair(network: &MemoryNetwork) -> (Node, Node) {
    let (a, b) = (start(network, 1), start(network, 2));
    a.connect(PeerAddr::known(machine(2), [address(2)])).await.expect("connects");
    (a, b)
}

fn queue_all(node: &Node, to: x0x_core::MachineId) {
    for n in 0..COUNT {
        for protocol in [Protocol::Direct, Protocol::Membership] {
            let message = [&n.to_be_bytes()[..], &[0; 500]].concat().into();
            node.try_send(to, protocol, message).expect("room");
        }
    }
}

/// `Up`, all the messages in order, `Down`.
async fn took_all(inbound: &mut Inbound) {
    let mut next = 0;
    while let Some(event) = inbound.recv().await {
        match event {
            InboundEvent::Message { message, .. } => {
                assert_eq!(message[..4], u32::to_be_bytes(next));
                next += 1;
            }
            InboundEvent::Down(_) => break,
            _ => {}
        }
    }
    assert_eq!(next, COUNT, "all that was queued");
}

#[tokio::test(start_paused = true)]
async fn shutdown_and_disconnect_send_what_is_queued() {
    for shutdown in [true, false] {
        let network = MemoryNetwork::new(4, slow());
        let (a, b) = pair(&network).await;
        let mut direct = b.inbound(Protocol::Direct).expect("free");
        let mut membership = b.inbound(Protocol::Membership).expect("free");
        queue_all(&a, machine(2));
        let start = Instant::now();
        if shutdown {
            a.shutdown().await;
            assert!(start.elapsed() < Duration::from_secs(1));
        } else {
            a.disconnect(machine(2));
        }
        took_all(&mut direct).await;
        took_all(&mut membership).await;
        assert!(start.elapsed() < Duration::from_secs(1));
        let refused = a.try_send(machine(2), Protocol::Direct, Bytes::new());
        assert_eq!(refused, Err(SendError::NotConnected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_delays_the_end_by_a_second() {
    let network = MemoryNetwork::new(5, slow());
    let (a, _b) = pair(&network).await;
    network.partition(machine(1), machine(2));
    queue_all(&a, machine(2));
    let start = Instant::now();
    a.shutdown().await;
    assert!(start.elapsed() <= Duration::from_millis(1100), "{:?}", start.elapsed());
}

#[cfg(feature = "quic")]
mod quic {
    use std::net::SocketAddr;

    use x0x_identity::testing::key;
    use x0x_transport::quic::{QuicConfig, QuicEngine};

    use super::*;

    fn start(n: u64) -> Node {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let engine = QuicEngine::bind(QuicConfig::new(loopback, key(n))).expect("loopback binds");
        Node::start(engine, SessionConfig::default(), hello(n, 0), Arc::new(TokioClock::new()))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn shutdown_and_disconnect_send_what_is_queued() {
        for shutdown in [true, false] {
            let (a, b) = (start(1), start(2));
            let mut direct = b.inbound(Protocol::Direct).expect("free");
            let mut membership = b.inbound(Protocol::Membership).expect("free");
            let to = PeerAddr::known(b.local_id(), b.local_addresses());
            a.connect(to).await.expect("connects");
            queue_all(&a, b.local_id());
            if shutdown {
                a.shutdown().await;
            } else {
                a.disconnect(b.local_id());
            }
            took_all(&mut direct).await;
            took_all(&mut membership).await;
            tokio::join!(a.shutdown(), b.shutdown());
        }
    }
}

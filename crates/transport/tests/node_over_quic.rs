//! Nodes over the QUIC engine on loopback: the flow control is real.
#![cfg(feature = "quic")]

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use x0x_core::{PeerAddr, Protocol};
use x0x_identity::testing::key;
use x0x_transport::{
    InboundEvent, Node, SessionConfig, Transport,
    quic::{QuicConfig, QuicEngine},
    testing::{TokioClock, eventually, hello},
};

#[tokio::test]
async fn a_lagging_consumer_stops_its_senders_only() {
    let start = |n| {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let engine = QuicEngine::bind(QuicConfig::new(loopback, key(n))).expect("loopback binds");
        Node::start(engine, SessionConfig::default(), hello(n, 0), Arc::new(TokioClock::new()))
    };
    let (a, b) = (start(1), start(2));
    let mut direct = b.inbound(Protocol::Direct).expect("free");
    let to = b.local_id();
    a.connect(PeerAddr::known(to, b.local_addresses())).await.expect("connects");
    const COUNT: u32 = 60;
    let message = |n: u32| [Bytes::copy_from_slice(&n.to_be_bytes()), vec![0; 1 << 20].into()];
    let sender = tokio::spawn({
        let a = a.clone();
        async move {
            for n in 0..COUNT {
                let message = message(n).concat().into();
                a.send(to, Protocol::Direct, message).await.expect("connected");
            }
        }
    });
    // The queue fills up; the consumer's budget is 32 MiB.
    eventually("the sender waits", async || {
        let refused = a.try_send(to, Protocol::Pubsub, Bytes::new());
        refused.is_ok() && direct.len() >= 32 && a.ping(to).await.is_ok()
    })
    .await;
    assert!(!sender.is_finished());
    let mut next = 0;
    while next < COUNT {
        if let Some(InboundEvent::Message { message, .. }) = direct.recv().await {
            assert_eq!(message[..4], next.to_be_bytes());
            next += 1;
        }
    }
    sender.await.expect("all were taken");
    tokio::join!(a.shutdown(), b.shutdown());
}

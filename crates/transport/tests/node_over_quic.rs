//! Nodes over the QUIC engine on loopback: the same races as in memory, and real flow control.
#![cfg(feature = "quic")]

mod common;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use common::{Counts, Faults, Seed, World, race, seeds};
use x0x_core::{Clock, PeerAddr, Protocol};
use x0x_identity::testing::key;
use x0x_transport::{
    InboundEvent, Node, SessionConfig, Transport,
    link::Engine,
    quic::{QuicConfig, QuicEngine},
    testing::{TokioClock, eventually, hello},
};

fn bind(end: u64, at: SocketAddr) -> QuicEngine {
    QuicEngine::bind(QuicConfig::new(at, key(end))).expect("the port is free")
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

struct Quic {
    /// Where each end listens; a restarted end takes its port again.
    ports: Mutex<[SocketAddr; 2]>,
    clock: TokioClock,
}

impl World for Quic {
    type Engine = QuicEngine;

    async fn engine(&self, end: usize) -> QuicEngine {
        let mut ports = self.ports.lock().expect("no panic");
        let engine = bind(end as u64 + 1, ports[end]);
        ports[end] = engine.local_addresses()[0];
        engine
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    /// A handshake on loopback takes a few milliseconds.
    fn spread(&self) -> Duration {
        Duration::from_millis(4)
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(200)
    }

    /// Loopback breaks nothing.
    fn break_links(&self) {}

    async fn vanish(&self, _end: usize, node: Node) {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_dials_leave_one_session() {
    let seeds = seeds(3000..3020);
    let several = seeds.len() > 1;
    let mut races = Vec::new();
    for seed in seeds {
        races.push(tokio::spawn(async move {
            let _seed = Seed(seed);
            let world = Quic { ports: Mutex::new([any_port(); 2]), clock: TokioClock::new() };
            race(&world, seed, Faults { losses: false, restarts: seed % 4 == 0 }).await
        }));
    }
    let mut total = Counts::default();
    for race in races {
        total += race.await.expect("a race failed; its seed is above");
    }
    assert!(!several || total.duplicates > 0, "too tame: {total:?}");
}

#[tokio::test]
async fn a_lagging_consumer_stops_its_senders_only() {
    let start = |n| {
        let engine = bind(n, any_port());
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

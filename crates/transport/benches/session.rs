//! Messages through two nodes over QUIC on loopback, both in this process on one thread: what
//! sessions cost above the engine.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};
use x0x_core::{MachineId, PeerAddr, Protocol, SystemClock};
use x0x_identity::testing::key;
use x0x_transport::{
    Inbound, InboundEvent, LocalHello, Node, SessionConfig, Transport,
    quic::{QuicConfig, QuicEngine},
};

/// Messages of one measurement, with their size.
const ROUNDS: [(usize, usize); 3] = [(10_000, 64), (10_000, 256), (256, 64 << 10)];

/// A session and the receiver at its other end.
struct Pair {
    sender: Node,
    receiver: Node,
    to: MachineId,
    inbound: Inbound,
}

fn start(n: u64) -> Node {
    let loopback = ([127, 0, 0, 1], 0).into();
    let engine = QuicEngine::bind(QuicConfig::new(loopback, key(n))).expect("loopback binds");
    let hello = LocalHello::random("bench", Vec::new()).expect("randomness");
    Node::start(engine, SessionConfig::default(), hello, Arc::new(SystemClock::new()))
}

async fn pair() -> Pair {
    let (sender, receiver) = (start(1), start(2));
    let inbound = receiver.inbound(Protocol::Pubsub).expect("first taker");
    let to = receiver.local_id();
    let at = PeerAddr::known(to, receiver.local_addresses());
    sender.connect(at).await.expect("connects");
    Pair { sender, receiver, to, inbound }
}

async fn transfer(pair: &mut Pair, count: usize, message: &Bytes) {
    let send = async {
        for _ in 0..count {
            let sent = pair.sender.send(pair.to, Protocol::Pubsub, message.clone());
            sent.await.expect("session is up");
        }
    };
    let receive = async {
        let (mut events, mut received) = (Vec::with_capacity(256), 0);
        while received < count {
            pair.inbound.recv_many(&mut events, 256).await;
            let messages = events.drain(..);
            received += messages.filter(|e| matches!(e, InboundEvent::Message { .. })).count();
        }
    };
    tokio::join!(send, receive);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn sessions(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut pair = runtime.block_on(pair());
    let mut group = criterion.benchmark_group("session");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    for (count, size) in ROUNDS {
        let message = Bytes::from(vec![7; size]);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count} messages of {size} B"), |bencher| {
            bencher.iter(|| runtime.block_on(transfer(&mut pair, count, &message)));
        });
    }
    group.finish();
    runtime.block_on(async { tokio::join!(pair.sender.shutdown(), pair.receiver.shutdown()) });
}

criterion_group!(benches, sessions);
criterion_main!(benches);

//! A link of the engine beside a raw quinn stream on the same machine: what our layer, its windows
//! and its socket settings cost or gain. Both ends run in this process.

mod raw;

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use x0x_identity::testing::key;
use x0x_transport::{
    link::{Engine, Link},
    quic::{QuicConfig, QuicEngine},
};

use self::raw::{loopback, raw_pair};

/// Bytes of one transfer.
const TRANSFER: usize = 16 << 20;
/// Payload sizes: a bulk chunk, and a small message.
const CHUNKS: [usize; 2] = [64 << 10, 1 << 10];
/// Bytes that a frame has before its payload.
const HEADER: usize = 5;

/// The chunks of one transfer, each a header and a payload as sessions write them.
fn frames(payload: usize) -> Vec<[Bytes; 2]> {
    let frame = [Bytes::from(vec![7; HEADER]), Bytes::from(vec![7; payload])];
    vec![frame; TRANSFER / payload]
}

async fn link_pair() -> (QuicEngine, QuicEngine, Box<dyn Link>, Box<dyn Link>) {
    let bind = |n| QuicEngine::bind(QuicConfig::new(loopback(), key(n))).expect("loopback binds");
    let (a, b) = (bind(1), bind(2));
    let (dialled, accepted) = tokio::join!(a.dial(b.local_addresses()[0], None), b.accept());
    let (dialled, accepted) = (dialled.expect("dial succeeds"), accepted.expect("engine is open"));
    // As a session does.
    dialled.trust();
    accepted.trust();
    (a, b, dialled, accepted)
}

async fn over_link(from: &dyn Link, to: &dyn Link, payload: usize) -> usize {
    let mut stream = from.open(0).await.expect("link is up");
    let send = async move {
        for mut frame in frames(payload) {
            stream.write_all(&mut frame).await.expect("link is up");
        }
    };
    let receive = async {
        let mut stream = to.accept().await.expect("link is up");
        let mut total = 0;
        while let Some(bytes) = stream.read(usize::MAX).await.expect("link is up") {
            total += bytes.len();
        }
        total
    };
    tokio::join!(send, receive).1
}

async fn over_raw(from: &quinn::Connection, to: &quinn::Connection, payload: usize) -> usize {
    let mut stream = from.open_uni().await.expect("connection is up");
    let send = async move {
        for mut frame in frames(payload) {
            stream.write_all_chunks(&mut frame).await.expect("connection is up");
        }
    };
    let receive = async {
        let mut stream = to.accept_uni().await.expect("connection is up");
        let mut total = 0;
        while let Some(chunk) = stream.read_chunk(usize::MAX, true).await.expect("up") {
            total += chunk.bytes.len();
        }
        total
    };
    tokio::join!(send, receive).1
}

fn transfers(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (_a, _b, dialled, accepted) = runtime.block_on(link_pair());
    let (_endpoints, raw_dialled, raw_accepted) = runtime.block_on(raw_pair());
    for payload in CHUNKS {
        let mut group = c.benchmark_group(format!("frames of {payload} bytes"));
        group.sample_size(10).warm_up_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements((TRANSFER / payload) as u64));
        group.bench_function("link", |b| {
            b.iter(|| black_box(runtime.block_on(over_link(&*dialled, &*accepted, payload))));
        });
        group.bench_function("raw quinn", |b| {
            b.iter(|| black_box(runtime.block_on(over_raw(&raw_dialled, &raw_accepted, payload))));
        });
        group.finish();
    }
}

criterion_group!(benches, transfers);
criterion_main!(benches);

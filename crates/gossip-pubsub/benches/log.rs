//! From publishing to delivery in one process, with signatures: what batches are worth.

use std::{hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use x0x_core::{Machine as _, MachineId, SystemClock, Tick, WallTime};
use x0x_gossip_pubsub::{
    Input, Limits, NetworkId, Output, PubSubMachine, PubSubMetrics, Publisher, Start, epoch_at,
    topic_id,
};
use x0x_identity::{SecretKey, testing::key};

const COUNT: u64 = 1024;
const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);

/// An author and a subscriber, joined by a link that never refuses.
struct Pair {
    key: SecretKey,
    publisher: Publisher,
    author: PubSubMachine,
    reader: PubSubMachine,
}

fn peer(n: u8) -> MachineId {
    MachineId::new([n; 32])
}

impl Pair {
    fn new() -> Self {
        let network = NetworkId::from_name("bench");
        let (key, limits) = (key(1), Limits::default());
        let machine = |n| {
            let public = x0x_identity::testing::key(n).public_key().clone();
            let metrics = Arc::new(PubSubMetrics::default());
            let mut machine = PubSubMachine::new(network, public, limits.clone(), metrics);
            machine.handle(Tick::ZERO, Input::Wall(WALL));
            machine
        };
        let (mut author, mut reader) = (machine(1), machine(2));
        reader.subscribe(Tick::ZERO, topic_id("bench"), Start::Retained).expect("room");
        author.handle(Tick::ZERO, Input::LinkUp(peer(2)));
        reader.handle(Tick::ZERO, Input::LinkUp(peer(1)));
        let id = key.public_key().agent_id();
        let publisher = Publisher::new(network, id, epoch_at(WALL, 0), limits);
        let mut pair = Self { key, publisher, author, reader };
        pair.exchange();
        pair
    }

    /// Carries frames both ways and counts what the subscriber gets.
    fn exchange(&mut self) -> u64 {
        let mut delivered = 0;
        loop {
            let to_reader = carry(&mut self.author, &mut delivered);
            let to_author = carry(&mut self.reader, &mut delivered);
            if to_reader.is_empty() && to_author.is_empty() {
                return delivered;
            }
            for message in to_reader {
                self.reader.handle(Tick::ZERO, Input::Frame { peer: peer(1), message });
            }
            for message in to_author {
                self.author.handle(Tick::ZERO, Input::Frame { peer: peer(2), message });
            }
        }
    }

    /// Publishes, letting the signer run after every `every` entries.
    fn publish(&mut self, every: u64) -> u64 {
        let payload = Bytes::from_static(&[7; 256]);
        let mut delivered = 0;
        for n in 1..=COUNT {
            self.publisher.publish(WALL, topic_id("bench"), payload.clone()).expect("room");
            if n % every == 0 {
                while let Some(unsigned) = self.publisher.next_run() {
                    let run = unsigned.sign(&self.key).expect("the author's key");
                    self.publisher.signed(&run);
                    self.author.handle(Tick::ZERO, Input::Signed(Arc::new(run)));
                }
                delivered += self.exchange();
            }
        }
        delivered
    }
}

fn carry(machine: &mut PubSubMachine, delivered: &mut u64) -> Vec<Bytes> {
    let mut sent = Vec::new();
    while let Some(output) = machine.poll_output() {
        match output {
            Output::Send { message, .. } => sent.push(message),
            Output::Verify(pending) => {
                machine.handle(Tick::ZERO, Input::Verified(pending.verify()));
            }
            Output::Deliver { batch, .. } => *delivered += batch.map(black_box).count() as u64,
            _ => {}
        }
    }
    sent
}

fn publish_to_delivery(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish to delivery, 256 B");
    group.throughput(Throughput::Elements(COUNT)).sample_size(10);
    for (name, every) in [("single", 1), ("batches of 64", 64)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                Pair::new,
                |mut pair| assert_eq!(pair.publish(every), COUNT),
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    if std::env::args().any(|argument| argument == "--bench") {
        print_ratio();
    }
}

/// What the two rates above come to, measured once more in one go.
fn print_ratio() {
    let clock = SystemClock::new();
    let [single, batched] = [1, 64].map(|every| {
        let mut pair = Pair::new();
        let start = x0x_core::Clock::now(&clock);
        pair.publish(every);
        x0x_core::Clock::now(&clock).since(start).max(Duration::from_micros(1))
    });
    println!("batch signing is {:.1} times as fast", single.as_secs_f64() / batched.as_secs_f64());
}

fn accept(c: &mut Criterion) {
    let mut group = c.benchmark_group("publisher");
    group.throughput(Throughput::Elements(COUNT));
    let author = key(1).public_key().agent_id();
    let network = NetworkId::from_name("bench");
    group.bench_function("accept", |b| {
        b.iter_batched(
            || Publisher::new(network, author, epoch_at(WALL, 0), Limits::default()),
            |mut publisher| {
                for _ in 0..COUNT {
                    let payload = Bytes::from_static(&[7; 256]);
                    black_box(publisher.publish(WALL, topic_id("bench"), payload)).expect("room");
                }
                publisher
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, publish_to_delivery, accept);
criterion_main!(benches);

//! Operations applied in one process, and a large replica as bytes.

use std::{convert::Infallible, hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use x0x_core::{AgentId, Machine as _, Tick, TopicId, WallTime};
use x0x_gossip_crdt::{
    Entry, Input, Object, ObjectMachine,
    kv::{KvOp, KvStore, Put},
    testing::{Sample, SampleOp},
};

const OBJECT: TopicId = TopicId::new([9; 32]);
const ME: AgentId = AgentId::new([1; 32]);
const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);
const COUNT: u64 = 10_000;

fn machine<T: Object>() -> ObjectMachine<T> {
    ObjectMachine::new(OBJECT, None, ME, Arc::default())
}

fn write<T: Object>(machine: &mut ObjectMachine<T>, seq: u64, op: &T::Op) {
    let prepared = machine.prepare::<Infallible>(WALL, op).expect("prepared");
    for payload in prepared.payloads {
        machine.handle(Tick::ZERO, Input::Accepted { write: Some(seq), epoch: 1, seq });
        let entry = Entry { author: ME, epoch: 1, seq, time: WALL, payload };
        machine.handle(Tick::ZERO, Input::Entry(entry));
    }
    while machine.poll_output().is_some() {}
}

fn filled<T: Object>(count: u64, op: impl Fn(u64) -> T::Op) -> ObjectMachine<T> {
    let mut machine = machine();
    (1..=count).for_each(|seq| write(&mut machine, seq, &op(seq)));
    machine
}

fn put(name: u64) -> KvOp {
    KvOp::Put(Put::new(name.to_string(), "a value of 32 bytes, more or less"))
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(COUNT)).sample_size(10);
    let set = |seq: u64| SampleOp::Add((seq % 1000).to_string());
    let map = |seq: u64| SampleOp::Put((seq % 1000).to_string(), "value".to_owned());
    group.bench_function("set", |b| b.iter(|| black_box(filled::<Sample>(COUNT, set))));
    group.bench_function("map", |b| b.iter(|| black_box(filled::<Sample>(COUNT, map))));
    let store = |seq: u64| put(seq % 1000);
    group.bench_function("store", |b| b.iter(|| black_box(filled::<KvStore>(COUNT, store))));
    group.finish();
}

fn replica<T: Object>(c: &mut Criterion, name: &str, op: impl Fn(u64) -> T::Op) {
    let mut group = c.benchmark_group(format!("{name} of 100k"));
    group.sample_size(10);
    let large = filled::<T>(100_000, op);
    let encoded = large.encode();
    group.bench_function("encode", |b| b.iter(|| black_box(large.encode())));
    group.bench_function("restore", |b| {
        b.iter(|| {
            ObjectMachine::<T>::restore(OBJECT, None, ME, Arc::default(), black_box(&encoded))
        });
    });
    group.finish();
}

fn replicas(c: &mut Criterion) {
    replica::<Sample>(c, "set", |seq| SampleOp::Add(seq.to_string()));
    replica::<KvStore>(c, "store", put);
}

criterion_group!(benches, apply, replicas);
criterion_main!(benches);

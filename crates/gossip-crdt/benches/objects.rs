//! Operations applied in one process, and a large replica as bytes.

use std::{convert::Infallible, hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use x0x_core::{AgentId, Machine as _, Tick, TopicId, WallTime};
use x0x_gossip_crdt::{
    Entry, Input, ObjectMachine,
    testing::{Sample, SampleOp},
};

const OBJECT: TopicId = TopicId::new([9; 32]);
const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);
const COUNT: u64 = 10_000;

fn machine() -> ObjectMachine<Sample> {
    ObjectMachine::new(OBJECT, None, AgentId::new([1; 32]), Arc::default())
}

fn write(machine: &mut ObjectMachine<Sample>, seq: u64, op: &SampleOp) {
    let prepared = machine.prepare::<Infallible>(WALL, op).expect("prepared");
    for payload in prepared.payloads {
        machine.handle(Tick::ZERO, Input::Accepted { write: Some(seq), epoch: 1, seq });
        let author = AgentId::new([1; 32]);
        let entry = Entry { author, epoch: 1, seq, time: WALL, payload };
        machine.handle(Tick::ZERO, Input::Entry(entry));
    }
    while machine.poll_output().is_some() {}
}

fn filled(count: u64, op: impl Fn(u64) -> SampleOp) -> ObjectMachine<Sample> {
    let mut machine = machine();
    (1..=count).for_each(|seq| write(&mut machine, seq, &op(seq)));
    machine
}

fn objects(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(COUNT)).sample_size(10);
    let set = |seq: u64| SampleOp::Add((seq % 1000).to_string());
    let map = |seq: u64| SampleOp::Put((seq % 1000).to_string(), "value".to_owned());
    group.bench_function("set", |b| b.iter(|| black_box(filled(COUNT, set))));
    group.bench_function("map", |b| b.iter(|| black_box(filled(COUNT, map))));
    group.finish();
    let mut group = c.benchmark_group("replica");
    group.sample_size(10);
    let large = filled(100_000, |seq| SampleOp::Add(seq.to_string()));
    group.bench_function("encode 100k elements", |b| b.iter(|| black_box(large.encode())));
    let encoded = large.encode();
    group.bench_function("restore 100k elements", |b| {
        b.iter(|| {
            let me = AgentId::new([1; 32]);
            ObjectMachine::<Sample>::restore(OBJECT, None, me, Arc::default(), black_box(&encoded))
        });
    });
    group.finish();
}

criterion_group!(benches, objects);
criterion_main!(benches);

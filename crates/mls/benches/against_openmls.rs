//! Ours beside openmls alone, in one run: a message written and read, and a member added.
//!
//! openmls keeps its state in its own memory storage, ours in the memory store: no disk in either.
//! Where ours does more (the credential's agent, the journal, the seal over a commit, the tree and its
//! hash) it is in its figure.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use x0x_mls::{Event, GroupId, MlsGroups, Suite};

mod stock;
use stock::{Ours, Stock, ours, package, packages, verified};

const PAYLOAD: [u8; 256] = [7; 256];
/// Messages after which a layer above would acknowledge.
const ACKNOWLEDGED_EACH: usize = 32;

fn our_pair(others: u64) -> (GroupId, Ours, Ours) {
    let ((mut a, _), (mut b, _)) = (ours(1), ours(2));
    let group = a.create(Suite::Hybrid).expect("creates");
    let mut all = vec![package(&mut b)];
    all.extend(packages(1000, others));
    let added = a.commit(group, verified(&all), &[]).expect("adds");
    b.join(&added.welcome.expect("a welcome"), added.tree.as_deref()).expect("joins");
    (group, a, b)
}

fn stock_pair(others: u64) -> (Stock, Stock) {
    let (mut a, mut b) = (Stock::create(1), Stock::create(2));
    if others > 0 {
        let read = a.read_packages(&packages(1000, others));
        a.add(read);
    }
    b.join(&mut a);
    (a, b)
}

fn acknowledge(of: &mut Ours) {
    let ids: Vec<u64> = of.pending().into_iter().map(|(id, _)| id).collect();
    of.acknowledge(&ids).expect("acknowledges");
}

fn message(c: &mut Criterion) {
    let mut figures = c.benchmark_group("message");
    figures.throughput(Throughput::Elements(1));
    for others in [0, 126] {
        let members = others + 2;
        let (group, mut a, mut b) = our_pair(others);
        let mut since = 0;
        figures.bench_function(format!("ours/{members}"), |bench| {
            bench.iter(|| {
                let sent = a.encrypt(group, b"", &PAYLOAD).expect("encrypts");
                let events = b.process(&sent.frame).expect("decrypts");
                assert!(matches!(&events[0], Event::Message { .. }));
                since += 1;
                if since == ACKNOWLEDGED_EACH {
                    since = 0;
                    acknowledge(&mut a);
                    acknowledge(&mut b);
                }
            });
        });
        let (mut a, mut b) = stock_pair(others);
        figures.bench_function(format!("openmls/{members}"), |bench| {
            bench.iter(|| {
                let sent = a.encrypt(&PAYLOAD);
                assert_eq!(b.decrypt(&sent).len(), PAYLOAD.len());
            });
        });
    }
    figures.finish();
}

/// Times additions one after the other, each of another agent, to a group of about this size.
fn add(c: &mut Criterion) {
    const MEMBERS: u64 = 512;
    let others = packages(1000, MEMBERS - 1);
    let mut figures = c.benchmark_group("add");
    figures.sample_size(10);
    let (mut a, _) = ours(1);
    let group = a.create(Suite::Hybrid).expect("creates");
    a.commit(group, verified(&others), &[]).expect("adds");
    let mut next = 100_000;
    figures.bench_function(format!("ours/{MEMBERS}"), |bench| {
        bench.iter_custom(|count| {
            let mut took = Duration::ZERO;
            for _ in 0..count {
                next += 1;
                let who = verified(&packages(next, 1));
                let begun = Instant::now();
                black_box(a.commit(group, who, &[]).expect("adds"));
                took += begun.elapsed();
                acknowledge(&mut a);
            }
            took
        });
    });
    let mut a = Stock::create(1);
    let read = a.read_packages(&others);
    a.add(read);
    figures.bench_function(format!("openmls/{MEMBERS}"), |bench| {
        bench.iter_custom(|count| {
            let mut took = Duration::ZERO;
            for _ in 0..count {
                next += 1;
                let who = a.read_packages(&packages(next, 1));
                let begun = Instant::now();
                black_box(a.add(who));
                black_box(a.group.export_ratchet_tree());
                took += begun.elapsed();
            }
            took
        });
    });
    figures.finish();
}

criterion_group!(benches, message, add);
criterion_main!(benches);

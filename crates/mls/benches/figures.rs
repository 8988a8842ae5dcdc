//! What a group of 500 takes in one process: time, bytes on the wire and bytes written, as a table.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use x0x_mls::{GroupId, MlsGroups, Suite, testing::MemoryStore};

#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod stock;
use stock::{Ours, ours, package, packages, verified};

const MEMBERS: u64 = 500;
const TIMES: usize = 15;
const PAYLOAD: [u8; 256] = [7; 256];

/// Does it some times: the median of its times, and the last's bytes on the wire and written.
fn median(
    store: &MemoryStore,
    times: usize,
    mut what: impl FnMut() -> usize,
) -> (Duration, usize, u64) {
    let (mut took, mut wire, mut written) = (Vec::new(), 0, 0);
    for _ in 0..times {
        let (before, begun) = (store.bytes_written(), Instant::now());
        wire = what();
        took.push(begun.elapsed());
        written = store.bytes_written() - before;
    }
    took.sort_unstable();
    (took[times / 2], wire, written)
}

fn row(what: &str, (took, wire, written): (Duration, usize, u64)) {
    println!("| {what} | {:.2} | {wire} | {written} |", took.as_secs_f64() * 1e3);
}

fn acknowledge(of: &mut Ours) {
    let ids: Vec<u64> = of.pending().into_iter().map(|(id, _)| id).collect();
    of.acknowledge(&ids).expect("acknowledges");
}

/// A group with a second member that has joined.
fn group_of(members: u64) -> (GroupId, [(Ours, Arc<MemoryStore>); 2]) {
    let ((mut a, sa), (mut b, sb)) = (ours(1), ours(2));
    let group = a.create(Suite::Hybrid).expect("creates");
    let mut all = vec![package(&mut b)];
    all.extend(packages(1000, members - 2));
    let who = verified(&all);
    let (mut welcome, mut tree) = (None, None);
    let added = median(&sa, 1, || {
        let made = a.commit(group, who.clone(), &[]).expect("adds");
        (welcome, tree) = (made.welcome, made.tree);
        made.commit.frame.len()
    });
    let sizes = (welcome.as_ref().map_or(0, |w| w.len()), tree.as_ref().map_or(0, |t| t.len()));
    row(&format!("add {} at once (welcome {}, tree {})", members - 1, sizes.0, sizes.1), added);
    let welcome = welcome.expect("a welcome");
    row(
        "join by the welcome",
        median(&sb, 1, || {
            b.join(&welcome, tree.as_deref()).expect("joins");
            welcome.len()
        }),
    );
    (group, [(a, sa), (b, sb)])
}

fn messages(group: GroupId, a: &mut (Ours, Arc<MemoryStore>), b: &mut (Ours, Arc<MemoryStore>)) {
    let mut sent = Vec::new();
    let written = median(&a.1, TIMES, || {
        sent.push(a.0.encrypt(group, b"", &PAYLOAD).expect("encrypts").frame);
        sent[0].len()
    });
    row("write a message of 256 bytes", written);
    let mut next = sent.iter();
    let read = median(&b.1, TIMES, || {
        b.0.process(next.next().expect("sent")).expect("reads");
        0
    });
    row("read it", read);
    acknowledge(&mut a.0);
    acknowledge(&mut b.0);
}

fn main() {
    for members in [2, 32, MEMBERS] {
        println!(
            "\nA group of {members}:\n\n| what | ms | bytes sent | bytes written |\n|---|---|---|---|"
        );
        let (group, [mut a, mut b]) = group_of(members);
        messages(group, &mut a, &mut b);
        let mut commits = Vec::new();
        let refreshed = median(&a.1, TIMES / 3, || {
            commits.push(a.0.refresh(group).expect("refreshes").frame);
            commits[0].len()
        });
        row("commit fresh keys", refreshed);
        let mut next = commits.iter();
        let applied = median(&b.1, TIMES / 3, || {
            b.0.process(next.next().expect("made")).expect("applies");
            0
        });
        row("apply it", applied);
        let mut who = 200_000;
        let mut welcome = 0;
        let waiting: Vec<_> = (0..TIMES / 3)
            .map(|_| {
                who += 1;
                verified(&packages(who, 1))
            })
            .collect();
        let mut waiting = waiting.into_iter();
        let added = median(&a.1, TIMES / 3, || {
            let made = a.0.commit(group, waiting.next().expect("made"), &[]).expect("adds");
            welcome = made.welcome.map_or(0, |w| w.len());
            made.commit.frame.len()
        });
        row(&format!("add one (welcome {welcome})"), added);
        println!("\nThe member's store holds {} bytes of it.", a.1.bytes_held());
    }
    let (mut a, store) = ours(3);
    println!("\nA group of one:\n\n| what | ms | bytes sent | bytes written |\n|---|---|---|---|");
    row(
        "create",
        median(&store, TIMES, || {
            a.create(Suite::Hybrid).expect("creates");
            0
        }),
    );
}

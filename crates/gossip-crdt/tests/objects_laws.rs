//! The types through the law checker: any order, repetition, loss that is made good, crashes, owners who
//! allow and remove writers.

use std::time::Duration;

use x0x_core::SeededRng;
use x0x_gossip_crdt::{
    WriteContext,
    kv::{KvOp, KvStore, Put},
    tasks::{Action, Fields, Spot, TaskList, TaskOp},
    testing::{Laws, check_laws},
};

/// Cases of each: `PROPTEST_CASES`, or few enough for every day.
fn cases() -> u64 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(3_000)
}

fn task_op(rng: &mut SeededRng, list: &TaskList, _: &WriteContext<'_>) -> TaskOp {
    let tasks = list.in_order();
    let fields = Fields { title: Some("t".to_owned()), ..Fields::default() };
    let Some(task) = tasks.get(rng.below(tasks.len())).filter(|_| rng.chance(0.8)) else {
        return list.add(fields, Spot::End).expect("room");
    };
    let lease = Duration::from_millis(rng.range(1000, 5000));
    let actions = [
        Action::Claim(lease),
        Action::Renew(lease),
        Action::Release,
        Action::Complete,
        Action::Reopen,
    ];
    match rng.below(8) {
        0 => TaskOp::Delete(task.id()),
        1 => TaskOp::Edit(task.id(), fields),
        _ => TaskOp::Step(task.id(), actions[rng.below(actions.len())]),
    }
}

fn store_op(rng: &mut SeededRng, _: &KvStore, _: &WriteContext<'_>) -> KvOp {
    let key = rng.below(3).to_string();
    if rng.chance(0.2) {
        return KvOp::Delete(key);
    }
    let ttl = rng.chance(0.3).then(|| Duration::from_millis(rng.range(1000, 5000)));
    KvOp::Put(Put { ttl, ..Put::new(key, rng.next_u64().to_be_bytes().to_vec()) })
}

#[test]
fn task_lists_obey_the_laws() {
    check_laws::<TaskList>(&Laws::new(1, cases()), task_op);
    check_laws::<TaskList>(&Laws::new(1, cases()).owned(), task_op);
    check_laws::<TaskList>(&Laws::new(1, cases()).checkpoints(), task_op);
}

#[test]
fn stores_obey_the_laws() {
    check_laws::<KvStore>(&Laws::new(1, cases()), store_op);
    check_laws::<KvStore>(&Laws::new(1, cases()).owned(), store_op);
    check_laws::<KvStore>(&Laws::new(1, cases()).checkpoints(), store_op);
}

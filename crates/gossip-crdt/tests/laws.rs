//! The framework by its own law checker, with a type that has one of each part.

use x0x_core::SeededRng;
use x0x_gossip_crdt::{
    WriteContext,
    testing::{Laws, Sample, SampleOp, check_laws},
};

fn random(rng: &mut SeededRng, _: &Sample, _: &WriteContext<'_>) -> SampleOp {
    let word = |rng: &mut SeededRng| ["a", "b", "c"][rng.below(3)].to_owned();
    match rng.below(7) {
        0 => SampleOp::Title(word(rng)),
        1 => SampleOp::Put(word(rng), word(rng)),
        2 => SampleOp::Delete(word(rng)),
        3 => SampleOp::Add(word(rng)),
        4 => SampleOp::Remove(word(rng)),
        5 => SampleOp::Step(rng.range(0, 9) as i64 - 4),
        _ => SampleOp::Reset,
    }
}

/// Cases of each: `PROPTEST_CASES`, or as many as are asked for at least.
fn cases() -> u64 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

#[test]
fn replicas_of_an_open_object_agree() {
    check_laws::<Sample>(&Laws::new(1, cases()), random);
}

#[test]
fn replicas_of_an_owned_object_agree_on_who_may_write() {
    check_laws::<Sample>(&Laws::new(1_000_000, cases()).owned(), random);
}

#[test]
fn replicas_of_an_owned_object_agree_on_checkpoints() {
    check_laws::<Sample>(&Laws::new(2_000_000, cases()).checkpoints(), random);
}

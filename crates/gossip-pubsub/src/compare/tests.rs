//! Two logs against each other, whatever they hold.

use std::sync::Arc;

use proptest::prelude::*;
use x0x_core::WallTime;
use x0x_identity::{SecretKey, testing};

use super::*;
use crate::{
    log::Route,
    run::{NetworkId, Run, topic_id},
    testing::RunForge,
};

/// A log with one run in each of these epochs of one author.
fn log(epochs: impl IntoIterator<Item = u64>) -> TopicLog {
    // Many chains stand for many authors: signing for as many would take long.
    static RUN: std::sync::OnceLock<(SecretKey, Vec<Arc<Run>>)> = std::sync::OnceLock::new();
    let (key, runs) = RUN.get_or_init(|| {
        let wall = WallTime::from_millis(1_800_000_000_000);
        let forge = RunForge::new(testing::key(1), NetworkId::from_name("c"), topic_id("c"), wall);
        let authors = (0..40_u64).map(|n| RunForge { key: testing::key(n), ..forge.clone() });
        let runs = authors.flat_map(|author| {
            (0..10).map(move |epoch| {
                let author = RunForge { epoch, ..author.clone() };
                Arc::new(author.run(None, &[b"x"]))
            })
        });
        (forge.key.clone(), runs.collect())
    });
    let mut log = TopicLog::default();
    for epoch in epochs {
        let run = &runs[usize::try_from(epoch).expect("small") % runs.len()];
        if log.head(&run.body().author(), run.body().epoch()) == 0 {
            log.append(Arc::clone(run), key.public_key(), Route::default(), 0);
        }
    }
    log
}

/// What each of two logs learns of the other, and how many messages that took.
fn reconcile(a: &TopicLog, b: &TopicLog) -> ([Vec<Head>; 2], usize) {
    let mut learnt = [Vec::new(), Vec::new()];
    let (mut ranges, mut turn, mut messages) = (begin(a), 1, 0);
    while !ranges.is_empty() {
        messages += 1;
        assert!(messages < 20 && ranges.len() <= MAX_RANGES);
        let (told, next) = answer([a, b][turn], ranges);
        learnt[turn].extend(told);
        (ranges, turn) = (next, 1 - turn);
    }
    (learnt, messages)
}

#[test]
fn equal_logs_need_one_message_and_a_few_differences_a_few() {
    let (a, b) = (log(0..400), log(0..400));
    let (learnt, messages) = reconcile(&a, &b);
    assert_eq!((learnt, messages), ([Vec::new(), Vec::new()], 1));
    let (learnt, messages) = reconcile(&a, &log((0..400).filter(|n| *n != 77)));
    assert!(learnt[1].len() <= 2 * LIST && messages <= 4, "{messages}");
    let (learnt, _) = reconcile(&a, &log([]));
    assert_eq!(learnt[1].len(), 400, "a late joiner learns all");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn both_learn_all_that_they_lack(
        a in prop::collection::btree_set(0_u64..400, 0..400),
        b in prop::collection::btree_set(0_u64..400, 0..400),
    ) {
        let (a, b) = (log(a), log(b));
        let (learnt, _) = reconcile(&a, &b);
        for (mine, theirs, learnt) in [(&a, &b, &learnt[0]), (&b, &a, &learnt[1])] {
            for head in theirs.all_heads() {
                let lacks = mine.head(&head.author, head.epoch) < head.seq;
                prop_assert!(!lacks || learnt.contains(&head));
            }
        }
    }
}

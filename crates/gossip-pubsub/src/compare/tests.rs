//! Two logs against each other, whatever they hold.

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;
use x0x_core::WallTime;
use x0x_identity::{SecretKey, testing};

use super::*;
use crate::{
    log::Route,
    run::{NetworkId, Run, topic_id},
    testing::RunForge,
    wire::RangesIn,
};

/// How many chains there are to choose from: one for each of the authors' epochs.
const CHAINS: u64 = 8000;

/// A log with one run in each of these chains.
fn log(chains: impl IntoIterator<Item = u64>) -> TopicLog {
    static RUN: std::sync::OnceLock<(SecretKey, Vec<Arc<Run>>)> = std::sync::OnceLock::new();
    let (key, runs) = RUN.get_or_init(|| {
        let wall = WallTime::from_millis(1_800_000_000_000);
        let forge = RunForge::new(testing::key(1), NetworkId::from_name("c"), topic_id("c"), wall);
        let authors = (0..CHAINS / 25).map(|n| RunForge { key: testing::key(n), ..forge.clone() });
        let runs = authors.flat_map(|author| {
            (0..25).map(move |epoch| {
                let author = RunForge { epoch, ..author.clone() };
                Arc::new(author.run(None, &[b"x"]))
            })
        });
        (forge.key.clone(), runs.collect())
    });
    let mut log = TopicLog::default();
    for chain in chains {
        let run = &runs[usize::try_from(chain).expect("small")];
        if log.head(&run.body().author(), run.body().epoch()) == 0 {
            log.append(Arc::clone(run), key.public_key(), Route::default(), 0);
        }
    }
    log
}

/// A log as it is compared with a peer of which nothing else is known.
fn with(log: &TopicLog) -> Compared<'_> {
    static NONE: Gone = Gone::new();
    Compared::new(log, &NONE)
}

/// What each of two logs learns of the other in one comparison, and how many messages that took. All
/// of them find room in the queue of a link that nothing else waits for.
fn compare(a: &TopicLog, b: &TopicLog, pivot: usize) -> ([Vec<Head>; 2], usize, bool) {
    let mut learnt = [Vec::new(), Vec::new()];
    let (mut ranges, mut turn, mut messages, mut all) = (begin(with(a)), 1, 0, true);
    while !ranges.is_empty() {
        messages += 1;
        assert!(messages < 20 && ranges.len() <= MAX_RANGES);
        let frame = RangesIn { topic: topic_id("c"), ranges };
        assert!(frame.items() <= MAX_CONTROL_ITEMS, "{}", frame.items());
        let Answer { told, ranges: next, left, .. } =
            answer(with([a, b][turn]), frame.ranges, pivot);
        learnt[turn].extend(told);
        all &= !left;
        (ranges, turn) = (next, 1 - turn);
    }
    (learnt, messages, all)
}

/// The same where one comparison tells everything.
fn reconcile(a: &TopicLog, b: &TopicLog) -> ([Vec<Head>; 2], usize) {
    let (learnt, messages, all) = compare(a, b, 0);
    assert!(all);
    (learnt, messages)
}

/// However many chains differ, each comparison tells of some, wherever they are.
#[test]
fn thousands_of_differences_are_told_in_a_few_comparisons() {
    let all: BTreeSet<u64> = (0..CHAINS).collect();
    let lacking =
        |every: u64| -> BTreeSet<u64> { all.iter().copied().filter(|n| n % every != 1).collect() };
    for (chains, every) in [(5000, 5), (6000, 6), (8000, 40), (8000, 2)] {
        let full = log(all.range(..chains).copied());
        let mut have: BTreeSet<u64> = lacking(every).range(..chains).copied().collect();
        let names: BTreeMap<(AgentId, u64), u64> = (0..chains)
            .flat_map(|n| log([n]).all_heads().into_iter().map(move |h| ((h.author, h.epoch), n)))
            .collect();
        let mut comparisons = 0;
        while (have.len() as u64) < chains {
            comparisons += 1;
            assert!(comparisons <= 12, "{chains} chains: {} told", have.len());
            let mine = log(have.iter().copied());
            let (learnt, ..) = if comparisons % 2 == 0 {
                compare(&mine, &full, comparisons * 7)
            } else {
                let (learnt, messages, all) = compare(&full, &mine, comparisons * 7);
                let [theirs, mine] = learnt;
                ([mine, theirs], messages, all)
            };
            let before = have.len();
            have.extend(learnt[0].iter().map(|head| names[&(head.author, head.epoch)]));
            assert!(have.len() > before, "{chains} chains: nothing told");
        }
    }
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

//! The log against a plain list of what was appended.

use proptest::prelude::*;
use x0x_core::WallTime;
use x0x_identity::testing::key;

use super::*;
use crate::{
    run::{NetworkId, topic_id},
    testing::RunForge,
};

const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);

fn forge(author: u64) -> RunForge {
    RunForge::new(key(author), NetworkId::from_name("log"), topic_id("log"), WALL)
}

/// Chains of runs of 1 to 3 entries for two authors, signed once for all cases.
fn chains() -> &'static [Vec<Run>; 2] {
    static CHAINS: std::sync::OnceLock<[Vec<Run>; 2]> = std::sync::OnceLock::new();
    CHAINS.get_or_init(|| {
        [1, 2].map(|author| {
            let forge = forge(author);
            let mut runs: Vec<Run> = Vec::new();
            for n in 0..40 {
                let payloads: &[&[u8]] = &[b"a", b"bb", b"ccc"];
                runs.push(forge.run(runs.last(), &payloads[..1 + n % 3]));
            }
            runs
        })
    })
}

fn relation(log: &TopicLog, run: &Run) -> Relation {
    log.relation(run.body(), run.signature())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn positions_sums_and_relations_hold(ops in prop::collection::vec(0_u8..5, 1..100)) {
        let mut log = TopicLog::default();
        let mut next = [0, 0];
        let mut model: VecDeque<(&Run, u64)> = VecDeque::new();
        let mut end = 0;
        for op in ops {
            if let Some(author) = [0, 0, 1, 1].get(usize::from(op)).copied() {
                let Some(run) = chains()[author].get(next[author]) else { continue };
                prop_assert_eq!(relation(&log, run), Relation::Next);
                if let Some(later) = chains()[author].get(next[author] + 1) {
                    let head = run.body().first_seq - 1;
                    prop_assert_eq!(relation(&log, later), Relation::Gap { head });
                }
                log.append(Arc::new(run.clone()), key(author as u64 + 1).public_key(), Route::default(), 0);
                prop_assert_eq!(relation(&log, run), Relation::Duplicate);
                next[author] += 1;
                model.push_back((run, end));
                end += run.len();
            } else if let Some((run, _)) = model.pop_front() {
                let evicted = log.evict().expect("as the model");
                prop_assert_eq!(evicted.hash(), run.hash());
                prop_assert_eq!(relation(&log, run), Relation::Old);
                let body = run.body();
                prop_assert!(log.find(&body.author, body.epoch, body.first_seq).is_none());
            }
            prop_assert_eq!(log.end(), end);
            prop_assert_eq!(log.base(), model.front().map_or(end, |(_, start)| *start));
            prop_assert_eq!(log.entries(), model.iter().map(|(run, _)| run.len()).sum::<u64>());
            let bytes: usize = model.iter().map(|(run, _)| run.size()).sum();
            prop_assert_eq!(log.bytes(), bytes as u64);
            for (run, start) in &model {
                let body = run.body();
                let last = body.last_seq();
                prop_assert_eq!(log.position(&body.author, body.epoch, last), Some(*start));
                prop_assert_eq!(log.at(*start).map(|item| item.start), Some(*start));
                prop_assert_eq!(log.at(start + run.len() - 1).map(|item| item.start), Some(*start));
                prop_assert_eq!(log.head(&body.author, body.epoch) >= last, true);
            }
            prop_assert_eq!(log.from(0).count(), model.len());
        }
    }
}

#[test]
fn relations_tell_authors_faults_apart() {
    let forge = forge(3);
    let first = forge.run(None, &[b"1", b"2"]);
    let public = forge.key.public_key();
    let mut log = TopicLog::default();
    log.append(Arc::new(first.clone()), public, Route::default(), 0);

    let same_signed_again = forge.run(None, &[b"1", b"2"]);
    assert_ne!(same_signed_again.signature(), first.signature());
    assert_eq!(relation(&log, &same_signed_again), Relation::Duplicate);
    assert_eq!(relation(&log, &forge.run(None, &[b"1"])), Relation::Duplicate);
    assert_eq!(relation(&log, &forge.run(None, &[b"1", b"x"])), Relation::Conflict);
    assert_eq!(relation(&log, &forge.run(None, &[b"x"])), Relation::Conflict);
    assert_eq!(relation(&log, &forge.run(None, &[b"1", b"2", b"3"])), Relation::Overlap);
    assert_eq!(relation(&log, &forge.run(None, &[b"1", b"x", b"3"])), Relation::Conflict);
    assert_eq!(relation(&log, &forge.run_at(3, EntryHash::GENESIS, &[b"3"])), Relation::Fork);
    let mut back_in_time = forge.clone();
    back_in_time.wall = WallTime::from_millis(WALL.as_millis() - 1);
    assert_eq!(relation(&log, &back_in_time.run(Some(&first), &[b"3"])), Relation::Mischained);
    assert_eq!(relation(&log, &forge.run(Some(&first), &[b"3"])), Relation::Next);

    log.block(&forge.author());
    assert_eq!(relation(&log, &forge.run(Some(&first), &[b"3"])), Relation::Blocked);
    assert!(log.is_blocked(&forge.author()));
}

#[test]
fn the_newest_epochs_are_kept_and_idle_authors_are_forgotten() {
    let mut log = TopicLog::default();
    let mut forge = forge(4);
    let epochs: Vec<u64> = (10..12 + MAX_EPOCHS as u64).collect();
    for epoch in &epochs {
        forge.epoch = *epoch;
        let run = forge.run(None, &[b"x"]);
        assert_eq!(relation(&log, &run), Relation::Next);
        log.append(Arc::new(run), forge.key.public_key(), Route::default(), 0);
    }
    forge.epoch = 11;
    assert_eq!(relation(&log, &forge.run(None, &[b"x"])), Relation::Old);
    forge.epoch = 12;
    assert_eq!(relation(&log, &forge.run(None, &[b"x"])), Relation::Duplicate);
    assert_eq!(log.all_heads().len(), MAX_EPOCHS);
    assert_eq!(log.spare(), MAX_EPOCHS - FREE_EPOCHS);
    assert_eq!(log.fingerprint().chains() as usize, MAX_EPOCHS);
    log.forget_key(&forge.author());
    assert_eq!((log.authors(), log.idle_authors()), (1, 0), "runs of it are retained");
    while log.evict().is_some() {}
    assert_eq!(*log.fingerprint(), Fingerprint::default());
    assert_eq!((log.bytes(), log.base()), (0, log.end()));
    assert_eq!(log.idle().count(), log.idle_authors());
    assert_eq!(log.idle_authors(), 1);
    // A former author has no key, but its runs are still known to be old.
    log.forget_key(&forge.author());
    assert_eq!((log.authors(), log.idle_authors(), log.former_authors()), (0, 0, 1));
    assert!(log.key(&forge.author()).is_none());
    assert_eq!(relation(&log, &forge.run(None, &[b"x"])), Relation::Old);
    log.forget_former(WALL);
    assert_eq!(log.former_authors(), 1, "its latest entry is from then");
    log.forget_former(WallTime::from_millis(WALL.as_millis() + 1));
    assert_eq!(log.former_authors(), 0);
}

#[test]
fn a_floor_is_a_run_with_nothing_older_that_counts() {
    let forge = forge(5);
    let first = forge.run(None, &[b"1"]);
    let mut later = forge.clone();
    later.wall = WallTime::from_millis(WALL.as_millis() + 1000);
    let second = later.run(Some(&first), &[b"2"]);
    let mut log = TopicLog::default();
    log.append(Arc::new(first.clone()), forge.key.public_key(), Route::default(), 0);
    log.append(Arc::new(second.clone()), forge.key.public_key(), Route::default(), 0);
    assert!(log.is_floor(&first, WALL));
    assert!(!log.is_floor(&second, WALL));
    assert!(log.is_floor(&second, WallTime::from_millis(WALL.as_millis() + 1)), "first expired");
    log.evict();
    assert!(log.is_floor(&second, WALL));
}

//! The log against a plain list of what was appended.

use std::collections::VecDeque;

use proptest::prelude::*;
use x0x_core::{SeededRng, WallTime};
use x0x_identity::testing::key;

use super::*;
use crate::{
    run::{EntryHash, NetworkId, topic_id},
    subscriber::{Delivery, Start, Subscriber},
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

/// Reads to the end: who published which number, and how many were missed.
fn read(reader: &mut Subscriber, log: &TopicLog, got: &mut Vec<(AgentId, u64)>, missed: &mut u64) {
    loop {
        let batch = reader.next_batch(log);
        if batch.is_empty() {
            return;
        }
        for delivery in batch {
            match delivery {
                Delivery::Message(message) => got.push((message.author, message.seq)),
                Delivery::Lagged { missed: count } => *missed += count,
            }
        }
    }
}

fn shares(log: &TopicLog) -> u64 {
    log.authors.values().map(Author::share).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn readers_get_or_are_told_of_everything(ops in prop::collection::vec(0_u8..8, 1..200)) {
        let mut log = TopicLog::default();
        let mut next = [0, 0];
        let mut reader = Subscriber::waiting(topic_id("log"), Start::Retained);
        reader.begin(&log, Start::Retained, HybridTime::default());
        let (mut got, mut missed) = (Vec::new(), 0);
        for op in ops {
            match op {
                0..4 => {
                    let author = usize::from(op % 2);
                    if let Some(run) = chains()[author].get(next[author]) {
                        next[author] += 1;
                        let key = key(author as u64 + 1);
                        log.append(Arc::new(run.clone()), key.public_key(), Route::default(), 0);
                    }
                }
                4 => drop(log.evict()),
                5 => drop(log.evict_oldest()),
                6 => {
                    let middle = log.from(0).nth(log.items.len() / 2).map(|item| item.start);
                    drop(middle.and_then(|position| log.expel(position)));
                }
                _ => read(&mut reader, &log, &mut got, &mut missed),
            }
            prop_assert!(log.holes.len() <= log.items.len() + 1);
            let bytes: u64 = log.items.values().map(|item| item.run.size() as u64).sum();
            prop_assert_eq!((log.bytes(), log.shared), (bytes, shares(&log)));
        }
        read(&mut reader, &log, &mut got, &mut missed);
        prop_assert_eq!(got.len() as u64 + missed, log.end());
        got.sort_unstable();
        prop_assert!(got.windows(2).all(|pair| pair[0] != pair[1]), "one twice");
        // One that begins now is not told of what was removed before.
        let mut late = Subscriber::waiting(topic_id("log"), Start::Retained);
        late.begin(&log, Start::Retained, HybridTime::default());
        let (mut rest, mut told) = (Vec::new(), 0);
        read(&mut late, &log, &mut rest, &mut told);
        prop_assert_eq!((rest.len() as u64, told), (log.entries(), 0));
    }

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
                let evicted = log.evict_oldest().expect("as the model");
                prop_assert_eq!(evicted.item.run.hash(), run.hash());
                prop_assert!(evicted.oldest);
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
    // The author signed it, if anybody did: who forwards it need not have the entry before.
    assert_eq!(relation(&log, &back_in_time.run(Some(&first), &[b"3"])), Relation::Fork);
    assert_eq!(relation(&log, &forge.run(Some(&first), &[b"3"])), Relation::Next);

    log.block(&forge.author());
    assert_eq!(relation(&log, &forge.run(Some(&first), &[b"3"])), Relation::Blocked);
    assert!(log.is_blocked(&forge.author()));
}

#[test]
fn the_newest_epochs_are_kept_and_idle_authors_are_forgotten() {
    let mut log = TopicLog::default();
    let mut forge = forge(4);
    let kept = 30;
    for epoch in 10..12 + kept as u64 {
        forge.epoch = epoch;
        let run = forge.run(None, &[b"x"]);
        assert_eq!(relation(&log, &run), Relation::Next);
        log.append(Arc::new(run), forge.key.public_key(), Route::default(), 0);
    }
    for oldest in [10, 11] {
        assert_eq!(log.passing_epochs(&forge.author()).1, Some(oldest));
        for place in log.places(&forge.author(), Some(oldest)) {
            log.expel(place);
        }
        log.forget_epoch(&forge.author(), oldest);
    }
    forge.epoch = 11;
    assert_eq!(relation(&log, &forge.run(None, &[b"x"])), Relation::Old);
    forge.epoch = 12;
    assert_eq!(relation(&log, &forge.run(None, &[b"x"])), Relation::Duplicate);
    assert_eq!((log.all_heads().len(), log.entries()), (kept, kept as u64));
    assert_eq!(log.spare(), kept - FREE_EPOCHS);
    assert_eq!(log.fingerprint().chains() as usize, kept);
    log.forget_key(&forge.author());
    assert_eq!((log.authors(), log.idle_authors()), (1, 0), "runs of it are retained");
    while log.evict().is_some() {}
    assert_eq!(log.fingerprint().chains() as usize, kept, "others may retain what is gone here");
    assert!(log.all_heads().iter().all(|head| head.gone));
    log.expire(WALL);
    assert_eq!(log.fingerprint().chains() as usize, kept, "not past the retention");
    log.expire(WallTime::from_millis(WALL.as_millis() + 1));
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

fn append(log: &mut TopicLog, forge: &RunForge, run: &Run) -> Vec<u64> {
    let replaced = log.append(Arc::new(run.clone()), forge.key.public_key(), Route::default(), 0);
    replaced.iter().map(|item| item.start).collect()
}

#[test]
fn a_flood_takes_room_from_its_author_only() {
    let (quiet, loud) = (forge(6), forge(7));
    let mut log = TopicLog::default();
    let kept = quiet.run(None, &[b"kept"]);
    append(&mut log, &quiet, &kept);
    let mut last: Option<Run> = None;
    for _ in 0..20 {
        let run = loud.run(last.as_ref(), &[&b"flood"[..]; 3]);
        append(&mut log, &loud, &run);
        last = Some(run);
    }
    append(&mut log, &quiet, &quiet.run(Some(&kept), &[b"new"]));
    for _ in 0..18 {
        let removed = log.evict().expect("a run");
        assert_eq!(removed.item.run.body().author, loud.author());
        assert!(!removed.oldest);
    }
    assert_eq!(log.entries(), 2 + 2 * 3);
    assert_eq!(log.base(), 0, "the oldest is still there");
    assert_eq!(log.lost(0, log.end(), 0), Some(18 * 3));
}

#[test]
fn the_newest_run_of_the_latest_class_takes_the_place_of_its_authors_others() {
    let mut author = forge(8);
    author.epoch = Retention::Latest.epoch(author.epoch);
    let other = RunForge { key: key(9), ..author.clone() };
    let standard = forge(8);
    let mut log = TopicLog::default();
    append(&mut log, &other, &other.run(None, &[b"theirs"]));
    append(&mut log, &standard, &standard.run(None, &[b"stays"]));
    let first = author.run(None, &[b"1"]);
    assert_eq!(append(&mut log, &author, &first), [] as [u64; 0]);
    let second = author.run(Some(&first), &[b"2", b"3"]);
    assert_eq!(append(&mut log, &author, &second), [2]);
    // What is not the next is no gap, and no fingerprint tells what was before.
    let later = author.run_at(9, EntryHash::new([9; 32]), &[b"9"]);
    assert_eq!(relation(&log, &later), Relation::Next);
    assert_eq!(append(&mut log, &author, &later), [3]);
    let mut joiner = TopicLog::default();
    assert_eq!(relation(&joiner, &later), Relation::Next);
    append(&mut joiner, &author, &later);
    append(&mut joiner, &standard, &standard.run(None, &[b"stays"]));
    append(&mut joiner, &other, &other.run(None, &[b"theirs"]));
    assert_eq!(joiner.fingerprint(), log.fingerprint());
    assert!(log.items.values().all(|item| item.missed == 0));
    assert_eq!((log.entries(), log.lost(0, log.end(), 0)), (3, None));
    assert_eq!(relation(&log, &second), Relation::Old);
    // A later epoch takes the place of the one before, which is not wanted any more.
    let restarted = RunForge { epoch: author.epoch + (1 << 20), ..author.clone() };
    assert_eq!(append(&mut log, &restarted, &restarted.run(None, &[b"new"])), [5]);
    assert_eq!(relation(&log, &author.run_at(10, later.hash(), &[b"10"])), Relation::Old);
    assert!(!log.takes(&author.author(), author.epoch));
    assert!(log.takes(&author.author(), restarted.epoch));
    assert_eq!(log.fingerprint().chains(), 3);
}

#[test]
fn readers_of_a_stored_log_wait_for_the_store() {
    let author = forge(10);
    let fleeting = RunForge { epoch: Retention::Ephemeral.epoch(author.epoch), ..author.clone() };
    let mut log = TopicLog::new(1);
    log.follow_store();
    append(&mut log, &fleeting, &fleeting.run(None, &[b"at once"]));
    assert_eq!((log.readable(), log.unstored_bytes()), (1, 0));
    let first = author.run(None, &[b"1", b"2"]);
    append(&mut log, &author, &first);
    append(&mut log, &fleeting, &fleeting.run_at(2, EntryHash::GENESIS, &[b"behind it"]));
    assert_eq!(log.readable(), 1, "the order stays");
    assert!(log.unstored_bytes() >= first.size() as u64);
    log.set_stored(3);
    assert_eq!((log.readable(), log.unstored_bytes()), (4, 0), "and what is not stored follows");
}

#[test]
fn there_are_never_more_holes_than_retained_runs_and_one() {
    for seed in 0..4 {
        let mut rng = SeededRng::from_number(seed);
        let mut log = TopicLog::default();
        let mut chains: Vec<(RunForge, Option<Run>)> = (20..26).map(|n| (forge(n), None)).collect();
        for (author, _) in &mut chains[..3] {
            author.epoch = Retention::Latest.epoch(author.epoch);
        }
        for step in 0..120 {
            let (author, last) = &mut chains[rng.below(6)];
            let run = author.run(last.as_ref(), &[b"1"]);
            append(&mut log, author, &run);
            *last = Some(run);
            if rng.chance(0.5) {
                let positions: Vec<u64> = log.items.keys().copied().collect();
                log.expel(positions[rng.below(positions.len())]);
            }
            let (holes, runs) = (log.holes.len(), log.items.len());
            assert!(holes <= runs + 1, "seed {seed}, step {step}: {holes} holes, {runs} runs");
        }
    }
}

//! The fake keeps the contract, its faults are what they say, and what a store gives back is checked.

use std::{sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use x0x_core::WallTime;
use x0x_identity::{SIGNATURE_LEN, testing::key};

use super::{
    LoadLimits, LogChange, LogStore, MemoryLogStore, RestoredTopic, StoreError, StoredChain,
    StoredRun, StoredTopic, check_log_store,
    follow::{Followed, Follower, MAX_LOADS},
    restore::RestoredRun,
};
use crate::{
    config::{Limits, MAX_WAITING_CHANGES},
    run::{NetworkId, Run, topic_id},
    subscriber::Cursor,
    testing::RunForge,
};

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    check_log_store(|| Arc::new(MemoryLogStore::new())).await;
}

#[tokio::test]
async fn the_fake_waits_fails_and_decays_on_demand() {
    let store = MemoryLogStore::new();
    let topic = topic_id("a");
    let wall = WallTime::from_millis(1_800_000_000_000);
    let forge = RunForge::new(key(1), NetworkId::from_name("contract"), topic, wall);
    let run = Arc::new(forge.run(None, &[b"1"]));
    let append = LogChange::Append {
        incarnation: 1,
        position: 0,
        missed: 0,
        begins: true,
        run: Arc::clone(&run),
        key: forge.key.public_key().clone(),
    };
    store.pause();
    let mut commit = store.commit(vec![append.clone()]);
    assert!(matches!(poll_once(&mut commit).await, Poll::Pending));
    store.resume();
    commit.await.unwrap();
    assert_eq!(store.commits(), 1);

    store.fail_with(Some(StoreError::Full));
    assert_eq!(store.commit(vec![append]).await, Err(StoreError::Full));
    let limits = LoadLimits::from(&Limits::default());
    assert_eq!(store.load(topic, limits).await, Err(StoreError::Full));
    store.fail_with(None);
    store.damage(&topic);
    let held = store.load(topic, limits).await.unwrap().unwrap();
    assert_ne!(held.runs[0].run, run.encoded());
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context)))
        .await
}

/// Four runs of two entries in a row, by author `n`, from an even position on.
fn chain(n: u64) -> (RunForge, Vec<Run>) {
    let wall = WallTime::from_millis(1_800_000_000_000);
    let forge = RunForge::new(key(n), NetworkId::from_name("contract"), topic_id("a"), wall);
    let mut runs: Vec<Run> = Vec::new();
    for _ in 0..4 {
        runs.push(forge.run(runs.last(), &[b"1", b"2"]));
    }
    (forge, runs)
}

fn stored(runs: &[&Run], forges: &[&RunForge]) -> StoredTopic {
    let stored = (0_u64..).zip(runs).map(|(at, run)| StoredRun {
        position: at * 2,
        missed: 0,
        begins: at == 0,
        run: run.encoded().clone(),
    });
    let key = |forge: &&RunForge| {
        let key = Bytes::copy_from_slice(forge.key.public_key().as_bytes());
        (forge.author(), key)
    };
    StoredTopic {
        incarnation: 5,
        end: runs.len() as u64 * 2,
        gone: 0,
        runs: stored.collect(),
        chains: runs.last().map(|run| StoredChain::after(run)).into_iter().collect(),
        keys: forges.iter().map(key).collect(),
        blocked: Vec::new(),
    }
}

fn checked(stored: StoredTopic) -> RestoredTopic {
    stored.check(NetworkId::from_name("contract"), topic_id("a"))
}

fn places(restored: &RestoredTopic) -> Vec<(u64, u64)> {
    restored.runs.iter().map(|run| (run.position, run.missed)).collect()
}

#[test]
fn one_signature_vouches_for_a_chain() {
    let ((one, first), (two, second)) = (chain(1), chain(2));
    let mixed: Vec<&Run> = first.iter().zip(&second).flat_map(|(a, b)| [a, b]).collect();
    let restored = checked(stored(&mixed, &[&one, &two]));
    assert_eq!((restored.runs(), restored.refused(), restored.verified), (8, 0, 2));
    assert_eq!((restored.incarnation, restored.end, restored.keys.len()), (5, 16, 2));
    assert!(restored.former.is_empty(), "the runs tell the heads");
    let encoded = |run: &RestoredRun| run.run.encoded().clone();
    assert!(restored.runs.iter().map(encoded).eq(mixed.iter().map(|run| run.encoded().clone())));
}

#[test]
fn a_head_without_runs_stays() {
    let (_, runs) = chain(1);
    let mut topic = stored(&[&runs[3]], &[]);
    topic.runs.clear();
    let restored = checked(topic);
    assert_eq!(restored.former, [StoredChain::after(&runs[3])]);
}

#[test]
fn gaps_cost_a_signature_and_are_told() {
    let (forge, runs) = chain(1);
    let restored = checked(stored(&[&runs[0], &runs[2], &runs[3]], &[&forge]));
    assert_eq!(places(&restored), [(0, 0), (2, 2), (4, 0)]);
    assert_eq!(restored.verified, 2);
}

#[test]
fn what_does_not_check_is_left_out() {
    let (forge, runs) = chain(1);
    let all: Vec<&Run> = runs.iter().collect();
    let damage = |index: usize, at_end: usize| {
        let mut topic = stored(&all, &[&forge]);
        let mut bytes = topic.runs[index].run.to_vec();
        let at = bytes.len() - at_end;
        bytes[at] ^= 1;
        topic.runs[index].run = bytes.into();
        checked(topic)
    };
    // The signature is at the end; only the newest run's is looked at.
    assert_eq!(places(&damage(3, 1)), [(0, 0), (2, 0), (4, 0)], "the chain ends earlier");
    // The payload is before the signature.
    let restored = damage(1, SIGNATURE_LEN + 4);
    assert_eq!(places(&restored), [(0, 0), (4, 2), (6, 0)], "what is missed is told");
    assert_eq!(restored.refused(), 1);
    assert_eq!(places(&damage(3, SIGNATURE_LEN + 4)), [(0, 0), (2, 0), (4, 0)]);

    let mut strange = stored(&all, &[&forge]);
    strange.keys[0].1 = Bytes::copy_from_slice(key(2).public_key().as_bytes());
    assert_eq!((checked(strange).runs(), 4), (0, 4), "a key of somebody else");
    let elsewhere = stored(&all, &[&forge]).check(NetworkId::from_name("b"), topic_id("a"));
    assert_eq!((elsewhere.runs(), elsewhere.refused()), (0, 4), "another network");
    let elsewhere = stored(&all, &[&forge]).check(NetworkId::from_name("contract"), topic_id("b"));
    assert_eq!((elsewhere.runs(), elsewhere.refused()), (0, 4), "another topic");
}

#[test]
fn places_that_overlap_or_pass_the_end_are_left_out() {
    let (forge, runs) = chain(1);
    let all: Vec<&Run> = runs.iter().collect();
    let mut topic = stored(&all, &[&forge]);
    topic.runs[1].position = 1;
    assert_eq!(places(&checked(topic.clone())), [(0, 0), (4, 2), (6, 0)]);
    topic.end = 7;
    assert_eq!(places(&checked(topic.clone())), [(0, 0), (4, 2)]);
    topic.runs[0].position = u64::MAX;
    assert_eq!(checked(topic).refused(), 2, "the others stand");
    // The same run in two places counts once.
    let twice = checked(stored(&[&runs[0], &runs[0], &runs[1]], &[&forge]));
    assert_eq!((twice.runs(), twice.refused()), (2, 1));
}

fn follower(store: &Arc<MemoryLogStore>) -> Follower {
    let network = NetworkId::from_name("contract");
    Follower::new(Arc::clone(store) as _, network, &Limits::default())
}

fn append(forge: &RunForge, position: u64, run: &Run) -> LogChange {
    LogChange::Append {
        incarnation: 1,
        position,
        missed: 0,
        begins: position == 0,
        run: Arc::new(run.clone()),
        key: forge.key.public_key().clone(),
    }
}

#[tokio::test]
async fn what_gathers_during_a_commit_goes_with_the_next() {
    let store = Arc::new(MemoryLogStore::new());
    let mut follower = follower(&store);
    let (forge, runs) = chain(1);
    assert!(follower.is_idle());
    store.pause();
    assert_eq!(follower.push(append(&forge, 0, &runs[0])), 1);
    assert!(poll_once(&mut Box::pin(follower.next())).await.is_pending());
    for (n, run) in (1..).zip(&runs[1..]) {
        assert_eq!(follower.push(append(&forge, n * 2, run)), n + 1);
    }
    store.resume();
    for expected in [1, 4] {
        let Followed::Committed { through, result, .. } = follower.next().await else {
            panic!("a commit");
        };
        assert_eq!((through, result), (expected, Ok(())));
    }
    assert_eq!(store.commits(), 2);
    assert!(follower.is_idle());
    assert!(poll_once(&mut Box::pin(follower.next())).await.is_pending(), "nothing to do");
}

#[tokio::test]
async fn a_load_sees_what_was_pushed_before_it() {
    let store = Arc::new(MemoryLogStore::new());
    let mut follower = follower(&store);
    let (forge, runs) = chain(1);
    follower.load(topic_id("b"));
    follower.push(append(&forge, 0, &runs[0]));
    assert!(poll_once(&mut Box::pin(follower.next())).await.is_ready(), "committed");
    follower.push(append(&forge, 2, &runs[1]));
    follower.load(topic_id("a"));
    let (mut loaded, mut committed) = (Vec::new(), 0);
    while !follower.is_idle() {
        match follower.next().await {
            Followed::Loaded { topic, result } => {
                loaded.push((topic, result.unwrap().map_or(0, |restored| restored.runs())));
            }
            Followed::Committed { through, .. } => committed = through,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(loaded, [(topic_id("b"), 0), (topic_id("a"), 2)]);
    assert_eq!(committed, 2);
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_and_do_not_end_it() {
    let store = Arc::new(MemoryLogStore::new());
    let mut follower = follower(&store);
    let (forge, runs) = chain(1);
    let topic = topic_id("a");
    follower.push(append(&forge, 0, &runs[0]));
    let Followed::Committed { ends, .. } = follower.next().await else { panic!("a commit") };
    assert_eq!(ends, [(topic, Cursor::new(1, 2))].into(), "where the log ends");
    // What may pass is tried again, ever more seldom, until it does.
    store.fail_with(Some(StoreError::Io("a cable".into())));
    follower.push(append(&forge, 2, &runs[1]));
    follower.load(topic);
    let (mut retries, mut failed) = (0, 0);
    while retries < 9 {
        match follower.next().await {
            Followed::Committed { through, result, .. } => {
                assert_eq!((through, result.is_err()), (2, true));
                failed += 1;
            }
            Followed::LoadFailed { topic: of, .. } => {
                assert_eq!(of, topic);
                retries += 1;
            }
            Followed::Holed(of) => assert_eq!(of, topic),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(failed, 1, "a change is tried again a few times only");
    assert!(follower.is_idle(), "a topic that cannot be read holds no shutdown back");
    store.fail_with(None);
    let Followed::Loaded { result, .. } = follower.next().await else { panic!("loaded") };
    assert_eq!(result.unwrap().map(|restored| restored.runs()), Some(1));
    // What is damaged will not be whole again.
    store.fail_with(Some(StoreError::Corrupt("a bit".into())));
    follower.load(topic);
    let Followed::Loaded { result, .. } = follower.next().await else { panic!("told") };
    assert!(result.is_err());
}

#[tokio::test]
async fn it_is_full_before_it_holds_much() {
    let store = Arc::new(MemoryLogStore::new());
    let mut follower = follower(&store);
    let (forge, runs) = chain(1);
    store.pause();
    let mut pushed = 0;
    while !follower.is_full() {
        follower.push(append(&forge, pushed, &runs[0]));
        pushed += 1;
    }
    let each = runs[0].size() as u64;
    assert_eq!(pushed, Limits::default().unstored_bytes / each + 1, "by bytes");
    assert!(poll_once(&mut Box::pin(follower.next())).await.is_pending());
    assert!(!follower.is_full(), "they are on their way");
    let change = LogChange::Remove { topic: topic_id("a"), position: 1 };
    (0..MAX_WAITING_CHANGES).for_each(|_| {
        follower.push(change.clone());
    });
    assert!(follower.is_behind(), "by their number");
    store.resume();
    while !follower.is_idle() {
        follower.next().await;
    }
    (0..MAX_LOADS).for_each(|_| follower.load(topic_id("a")));
    assert!(follower.is_full());
}

#[tokio::test(start_paused = true)]
async fn what_was_not_stored_is_asked_for_again_topic_by_topic() {
    let store = Arc::new(MemoryLogStore::new());
    let mut follower = follower(&store);
    let (forge, runs) = chain(1);
    store.fail_with(Some(StoreError::Full));
    follower.push(append(&forge, 0, &runs[0]));
    follower.push(LogChange::DropTopic { topic: topic_id("b") });
    let Followed::Committed { result, .. } = follower.next().await else { panic!("a commit") };
    assert!(result.is_err());
    store.fail_with(None);
    let mut holed = Vec::new();
    while holed.len() < 2 {
        match follower.next().await {
            Followed::Holed(topic) => {
                follower.push(append(&forge, 0, &runs[0]));
                holed.push(topic);
            }
            Followed::Committed { result, .. } => assert_eq!(result, Ok(())),
            other => panic!("unexpected {other:?}"),
        }
    }
    holed.sort_unstable();
    let mut both = [topic_id("a"), topic_id("b")];
    both.sort_unstable();
    assert_eq!(holed, both);
}

/// How long after the last event the follower asks for a topic again; it gets it.
async fn asked_again(follower: &mut Follower, change: &LogChange) -> Duration {
    let since = tokio::time::Instant::now();
    while !matches!(follower.next().await, Followed::Holed(_)) {}
    follower.push(change.clone());
    since.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_on_to_fail_is_asked_ever_more_seldom() {
    let store = Arc::new(MemoryLogStore::new());
    let mut follower = follower(&store);
    let (forge, runs) = chain(1);
    let change = append(&forge, 0, &runs[0]);
    store.fail_with(Some(StoreError::Full));
    follower.push(change.clone());
    let mut pauses = Vec::new();
    for _ in 0..9 {
        pauses.push(asked_again(&mut follower, &change).await.as_secs());
    }
    assert_eq!(pauses, [11, 21, 41, 81, 161, 321, 641, 641, 641], "with a second of retries");
    // As soon as it takes anything it is given the rest.
    let Followed::Committed { .. } = follower.next().await else { panic!("a commit") };
    store.fail_with(None);
    follower.push(append(&forge, 2, &runs[1]));
    assert!(asked_again(&mut follower, &change).await < Duration::from_secs(12));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_for_a_moment_is_tried_again() {
    let store = Arc::new(MemoryLogStore::new());
    let mut follower = follower(&store);
    let (forge, runs) = chain(1);
    store.fail_with(Some(StoreError::Full));
    follower.push(append(&forge, 0, &runs[0]));
    assert!(poll_once(&mut Box::pin(follower.next())).await.is_pending(), "not given up at once");
    follower.push(append(&forge, 2, &runs[1]));
    store.fail_with(None);
    for expected in [1, 2] {
        let Followed::Committed { through, result, .. } = follower.next().await else {
            panic!("a commit");
        };
        assert_eq!((through, result), (expected, Ok(())));
    }
    let held = store.load(topic_id("a"), LoadLimits::from(&Limits::default())).await;
    assert_eq!(
        held.unwrap().map(|held| held.runs.len()),
        Some(2),
        "in their order, without a hole"
    );
}

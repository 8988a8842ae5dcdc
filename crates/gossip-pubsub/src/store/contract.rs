//! What every [`LogStore`] must do, as checks that each implementation's tests run.

use std::sync::Arc;

use x0x_core::{TopicId, WallTime};
use x0x_identity::testing::key;

use crate::retention::Retention;

use super::{HeldOf, LoadLimits, LogChange, LogStore, StoredChain, StoredTopic};
use crate::{
    run::{NetworkId, Run, topic_id},
    testing::RunForge,
};

/// Nothing is left out.
const ALL: LoadLimits = LoadLimits { bytes: u64::MAX, runs: usize::MAX, chains: usize::MAX };

/// When the runs of these checks are from, in milliseconds.
const THEN: u64 = 1_800_000_000_000;

/// Checks a store. `fresh` gives an empty one each time.
///
/// # Panics
/// When the store does not keep the contract.
pub async fn check_log_store(mut fresh: impl FnMut() -> Arc<dyn LogStore>) {
    what_is_appended_comes_back(&*fresh()).await;
    heads_and_positions_outlive_runs(&*fresh()).await;
    an_incarnation_ends_the_one_before(&*fresh()).await;
    loads_are_limited(&*fresh()).await;
    the_old_expires(&*fresh()).await;
    the_durable_stays(&*fresh()).await;
    what_went_is_marked(&*fresh()).await;
    blocks_and_drops(&*fresh()).await;
    positions_reach_beyond_what_is_stored(&*fresh()).await;
    loads_follow_commits(&*fresh()).await;
    an_authors_topics_are_found(&*fresh()).await;
}

/// A forge of author `n` in a topic, whose runs are `age` milliseconds older than others.
fn forge(n: u64, topic: TopicId, age: u64) -> RunForge {
    let wall = WallTime::from_millis(THEN - age);
    RunForge::new(key(n), NetworkId::from_name("contract"), topic, wall)
}

fn append(forge: &RunForge, position: u64, run: &Run) -> LogChange {
    LogChange::Append {
        incarnation: 7,
        position,
        missed: position / 2,
        begins: position == 0,
        run: Arc::new(run.clone()),
        key: forge.key.public_key().clone(),
    }
}

async fn commit(store: &dyn LogStore, changes: Vec<LogChange>) {
    store.commit(changes).await.expect("the commit succeeds");
}

async fn load(store: &dyn LogStore, topic: TopicId) -> Option<StoredTopic> {
    store.load(topic, ALL).await.expect("the load succeeds")
}

async fn held(store: &dyn LogStore, topic: TopicId) -> StoredTopic {
    load(store, topic).await.expect("the topic is held")
}

fn positions(topic: &StoredTopic) -> Vec<u64> {
    topic.runs.iter().map(|run| run.position).collect()
}

async fn what_is_appended_comes_back(store: &dyn LogStore) {
    let (topic, other) = (topic_id("a"), topic_id("b"));
    assert_eq!(load(store, topic).await, None, "nothing is held at first");
    commit(store, Vec::new()).await;
    let (one, two) = (forge(1, topic, 0), forge(2, topic, 0));
    let first = one.run(None, &[b"1", b"2"]);
    let second = two.run(None, &[b""]);
    let third = one.run(Some(&first), &[b"3"]);
    let changes = vec![append(&one, 0, &first), append(&two, 2, &second)];
    commit(store, changes.clone()).await;
    commit(store, changes).await;
    commit(store, vec![append(&one, 3, &third)]).await;
    let elsewhere = forge(1, other, 0);
    commit(store, vec![append(&elsewhere, 0, &elsewhere.run(None, &[b"x"]))]).await;

    let topic = held(store, topic).await;
    assert_eq!((topic.incarnation, topic.end), (7, 4));
    assert_eq!(positions(&topic), [0, 2, 3]);
    for (stored, run) in topic.runs.iter().zip([&first, &second, &third]) {
        assert_eq!(stored.run, run.encoded());
        assert_eq!((stored.missed, stored.begins), (stored.position / 2, stored.position == 0));
    }
    let mut chains = vec![StoredChain::after(&second), StoredChain::after(&third)];
    chains.sort_by_key(|chain| chain.author);
    assert_eq!(topic.chains, chains);
    let keys: Vec<_> = topic.keys.iter().map(|(author, key)| (*author, key.to_vec())).collect();
    let mut expected =
        [&one, &two].map(|forge| (forge.author(), forge.key.public_key().as_bytes().to_vec()));
    expected.sort();
    assert_eq!(keys, expected, "each key once");
    assert!(topic.blocked.is_empty());
    assert_eq!(positions(&held(store, other).await), [0], "topics are apart");
}

async fn heads_and_positions_outlive_runs(store: &dyn LogStore) {
    let id = topic_id("a");
    let forge = forge(1, id, 0);
    let first = forge.run(None, &[b"1", b"2"]);
    let second = forge.run(Some(&first), &[b"3"]);
    let third = forge.run(Some(&second), &[b"4"]);
    let runs = [(0, &first), (2, &second), (3, &third)];
    commit(store, runs.map(|(at, run)| append(&forge, at, run)).into()).await;
    commit(store, vec![LogChange::EvictTo { topic: id, position: 1 }]).await;
    assert_eq!(positions(&held(store, id).await), [2, 3], "what begins before goes");
    commit(store, vec![LogChange::Remove { topic: id, position: 3 }]).await;
    let topic = held(store, id).await;
    assert_eq!((positions(&topic), topic.end), (vec![2], 4));
    assert_eq!(topic.chains, [StoredChain::after(&third)]);
    commit(store, vec![LogChange::EvictTo { topic: id, position: 4 }]).await;
    let topic = held(store, id).await;
    assert_eq!((topic.runs.len(), topic.keys.len(), topic.end), (0, 0, 4));
    assert_eq!(topic.chains, [StoredChain::after(&third)]);
    let fourth = forge.run(Some(&third), &[b"5"]);
    commit(store, vec![append(&forge, 4, &fourth)]).await;
    let topic = held(store, id).await;
    assert_eq!((positions(&topic), topic.keys.len(), topic.end), (vec![4], 1, 5));
    assert_eq!(topic.chains, [StoredChain::after(&fourth)]);
    // Of a topic that is not held there is nothing to take.
    let unknown = topic_id("b");
    commit(store, vec![LogChange::EvictTo { topic: unknown, position: 9 }]).await;
    commit(store, vec![LogChange::Remove { topic: unknown, position: 9 }]).await;
    assert_eq!(load(store, unknown).await, None);
}

async fn an_incarnation_ends_the_one_before(store: &dyn LogStore) {
    let id = topic_id("a");
    let (one, two) = (forge(1, id, 0), forge(2, id, 0));
    commit(store, vec![append(&one, 0, &one.run(None, &[b"1", b"2", b"3"]))]).await;
    commit(store, vec![LogChange::Block { topic: id, author: one.author() }]).await;
    let mut next = append(&two, 0, &two.run(None, &[b"1"]));
    if let LogChange::Append { incarnation, .. } = &mut next {
        *incarnation = u64::MAX;
    }
    commit(store, vec![next]).await;
    let topic = held(store, id).await;
    assert_eq!((topic.incarnation, topic.end, topic.runs.len()), (u64::MAX, 1, 1));
    assert_eq!((topic.chains.len(), topic.blocked.len()), (1, 0));
}

async fn loads_are_limited(store: &dyn LogStore) {
    let id = topic_id("a");
    let forges = [forge(1, id, 30), forge(2, id, 20), forge(3, id, 10)];
    let runs = forges.each_ref().map(|forge| forge.run(None, &[b"payload"]));
    let changes = (0..).zip(forges.iter().zip(&runs));
    commit(store, changes.map(|(at, (forge, run))| append(forge, at, run)).collect()).await;
    let size = runs[2].encoded().len() as u64;
    for (bytes, runs, expected) in [
        (size * 2, 9, vec![1, 2]),
        (size * 2 - 1, 9, vec![2]),
        (size * 9, 1, vec![2]),
        (0, 9, vec![]),
    ] {
        let limits = LoadLimits { bytes, runs, chains: 2 };
        let topic = store.load(id, limits).await.expect("the load succeeds").expect("it is held");
        assert_eq!(positions(&topic), expected, "the newest");
        assert_eq!((topic.keys.len(), topic.end), (expected.len(), 3), "keys of what is loaded");
        let mut newest = [forges[1].author(), forges[2].author()];
        newest.sort();
        assert_eq!(topic.chains.iter().map(|chain| chain.author).collect::<Vec<_>>(), newest);
    }
}

async fn the_old_expires(store: &dyn LogStore) {
    let (id, other) = (topic_id("a"), topic_id("b"));
    let (old, new) = (forge(1, id, 5000), forge(2, id, 0));
    let elsewhere = forge(1, other, 5000);
    let changes = vec![
        append(&new, 0, &new.run(None, &[b"1"])),
        append(&old, 1, &old.run(None, &[b"1"])),
        append(&elsewhere, 0, &elsewhere.run(None, &[b"1"])),
        LogChange::Block { topic: id, author: old.author() },
    ];
    commit(store, changes).await;
    let expire = |age| LogChange::Expire { before: WallTime::from_millis(THEN - age) };
    commit(store, vec![expire(6000)]).await;
    assert_eq!(positions(&held(store, id).await), [0, 1], "not as old yet");
    commit(store, vec![expire(1000)]).await;
    let topic = held(store, id).await;
    assert_eq!((positions(&topic), topic.end), (vec![0], 2), "in any order of arrival");
    assert_eq!((topic.chains.len(), topic.keys.len(), topic.blocked.len()), (1, 1, 0));
    assert_eq!(load(store, other).await, None, "nothing is left of it");
    let again = forge(1, other, 0);
    commit(store, vec![append(&again, 9, &again.run(None, &[b"2"]))]).await;
    let topic = held(store, other).await;
    assert_eq!((positions(&topic), topic.keys.len(), topic.end), (vec![9], 1, 10));
}

async fn the_durable_stays(store: &dyn LogStore) {
    let id = topic_id("a");
    let durable = forge(1, id, 5000).of_class(Retention::Durable);
    let old = forge(2, id, 5000);
    let changes = vec![
        append(&durable, 0, &durable.run(None, &[b"1"])),
        append(&old, 1, &old.run(None, &[b"1"])),
    ];
    commit(store, changes).await;
    commit(store, vec![LogChange::Expire { before: WallTime::from_millis(THEN - 1000) }]).await;
    let topic = held(store, id).await;
    assert_eq!((positions(&topic), topic.chains.len(), topic.keys.len()), (vec![0], 1, 1));
}

async fn what_went_is_marked(store: &dyn LogStore) {
    let id = topic_id("a");
    let durable = forge(1, id, 0).of_class(Retention::Durable);
    let (old, new) = (forge(2, id, 5000), forge(3, id, 0));
    let first = new.run(None, &[b"1", b"2"]);
    let changes = vec![
        append(&durable, 0, &durable.run(None, &[b"1"])),
        append(&new, 1, &first),
        append(&old, 3, &old.run(None, &[b"1", b"2", b"3"])),
        append(&new, 6, &new.run(Some(&first), &[b"3"])),
    ];
    commit(store, changes.clone()).await;
    assert_eq!(held(store, id).await.gone, 0);
    commit(store, vec![LogChange::Replace { topic: id, position: 6 }]).await;
    assert_eq!(held(store, id).await.gone, 0, "nobody misses what was replaced");
    let remove = LogChange::Remove { topic: id, position: 1 };
    commit(store, vec![remove.clone()]).await;
    assert_eq!(held(store, id).await.gone, 3);
    commit(store, vec![remove, LogChange::Remove { topic: id, position: 2 }]).await;
    assert_eq!(held(store, id).await.gone, 3, "nothing was there");
    commit(store, vec![LogChange::Expire { before: WallTime::from_millis(THEN - 1000) }]).await;
    let topic = held(store, id).await;
    assert_eq!((positions(&topic), topic.gone), (vec![0], 6));
    commit(store, vec![LogChange::DropTopic { topic: id }]).await;
    commit(store, changes).await;
    assert_eq!(held(store, id).await.gone, 0, "another life");
}

async fn blocks_and_drops(store: &dyn LogStore) {
    let id = topic_id("a");
    let forge = forge(1, id, 0);
    let block = |n| LogChange::Block { topic: id, author: key(n).public_key().agent_id() };
    commit(store, vec![block(1)]).await;
    assert_eq!(load(store, id).await, None, "of a topic that is not held");
    let mut changes = vec![append(&forge, 0, &forge.run(None, &[b"1"]))];
    changes.extend([3, 1, 2, 1].map(block));
    commit(store, changes).await;
    let mut blocked = [1, 2, 3].map(|n| key(n).public_key().agent_id());
    blocked.sort();
    assert_eq!(held(store, id).await.blocked, blocked);
    let drop = LogChange::DropTopic { topic: id };
    commit(store, vec![drop.clone(), drop]).await;
    assert_eq!(load(store, id).await, None);
    let changes = vec![
        append(&forge, 3, &forge.run(None, &[b"1"])),
        LogChange::DropTopic { topic: id },
        append(&forge, 5, &forge.run(None, &[b"1"])),
    ];
    commit(store, changes).await;
    let topic = held(store, id).await;
    assert_eq!((positions(&topic), topic.end, topic.blocked.len()), (vec![5], 6, 0), "in order");
}

async fn positions_reach_beyond_what_is_stored(store: &dyn LogStore) {
    let id = topic_id("a");
    let forge = forge(1, id, 0);
    let reach = |incarnation, position| LogChange::Reach { topic: id, incarnation, position };
    commit(store, vec![reach(7, 50)]).await;
    assert_eq!(load(store, id).await, None, "of a topic that is not held");
    commit(store, vec![append(&forge, 0, &forge.run(None, &[b"1"])), reach(7, 90)]).await;
    commit(store, vec![reach(8, 900), reach(7, 40)]).await;
    let topic = held(store, id).await;
    assert_eq!((positions(&topic), topic.end), (vec![0], 90));
}

async fn loads_follow_commits(store: &dyn LogStore) {
    let id = topic_id("a");
    let forge = forge(1, id, 0);
    let mut position = 0;
    let mut last: Option<Run> = None;
    for _ in 0..20 {
        let run = forge.run(last.as_ref(), &[b"1"]);
        let changes = vec![append(&forge, position, &run)];
        let (committed, loaded) = tokio::join!(biased; store.commit(changes), store.load(id, ALL));
        committed.expect("the commit succeeds");
        let topic = loaded.expect("the load succeeds").expect("it is held");
        position += 1;
        assert_eq!(topic.end, position);
        last = Some(run);
    }
}

async fn an_authors_topics_are_found(store: &dyn LogStore) {
    let ids = [topic_id("a"), topic_id("b"), topic_id("c")];
    let author = forge(1, ids[0], 0).author();
    let none = store.held_of(author, 9).await.expect("it can be read");
    assert_eq!(none, HeldOf::default());
    for (id, age) in ids.into_iter().zip([20, 0, 10]) {
        let (own, other) = (forge(1, id, age), forge(2, id, 0));
        let runs = [(0, &own, own.run(None, &[b"1"])), (1, &other, other.run(None, &[b"1"]))];
        let changes = runs.iter().map(|(at, forge, run)| append(forge, *at, run)).collect();
        commit(store, changes).await;
    }
    let foreign = forge(2, topic_id("d"), 0);
    commit(store, vec![append(&foreign, 0, &foreign.run(None, &[b"1"]))]).await;
    let held = store.held_of(author, 9).await.expect("it can be read");
    assert_eq!(held.topics, [ids[1], ids[2], ids[0]], "the latest first");
    assert_eq!(held.epoch, StoredChain::after(&forge(1, ids[1], 0).run(None, &[b"1"])).epoch);
    let held = store.held_of(author, 2).await.expect("it can be read");
    assert_eq!(held.topics, [ids[1], ids[2]]);
}

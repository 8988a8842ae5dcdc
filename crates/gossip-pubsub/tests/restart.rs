//! Logs that outlive their service, cursors, and who is a link: over in-memory sessions.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{MachineId, PeerAddr, TopicId};
use x0x_gossip_membership::testing::StaticNeighbors;
use x0x_gossip_pubsub::{
    Cursor, Delivery, Gossip, GossipConfig, LoadLimits, LogChange, LogStore, MemoryLogStore,
    Message, PubSub, PublishError, Retention, RunIn, Start, StoreError, Subscription, WaitError,
    topic_id,
};
use x0x_identity::testing::key;
use x0x_transport::{
    Node, Transport,
    testing::{LinkModel, MemoryNetwork, TokioClock, address, machine, node},
};

const NETWORK: &str = "test";
const SHORT: Duration = Duration::from_secs(30);

fn start(n: u64, node: &Node, with: impl FnOnce(&mut GossipConfig)) -> Gossip {
    let transport: Arc<dyn Transport> = Arc::new(node.clone());
    let mut config = GossipConfig::new(NETWORK, n);
    with(&mut config);
    let clock = Arc::new(TokioClock::new());
    Gossip::start(transport, Arc::new(key(500 + n)), config, clock).expect("the first service")
}

fn stored(n: u64, node: &Node, store: &Arc<MemoryLogStore>) -> Gossip {
    let store: Arc<dyn LogStore> = Arc::<MemoryLogStore>::clone(store);
    start(n, node, |config| config.store = Some(store))
}

async fn connect(from: &Node, to: u64) {
    from.connect(PeerAddr::known(machine(to), [address(to)])).await.expect("a session");
}

async fn next(subscription: &mut Subscription) -> Delivery {
    let next = tokio::time::timeout(SHORT, subscription.next());
    next.await.expect("in time").expect("a delivery")
}

async fn message(subscription: &mut Subscription) -> Message {
    match next(subscription).await {
        Delivery::Message(message) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

fn number(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

async fn publish(gossip: &Gossip, topic: TopicId, numbers: std::ops::Range<u32>) {
    for n in numbers {
        gossip.publish(topic, number(n)).await.expect("published");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_service_goes_on_with_its_log_and_cursors() {
    let (network, store) = (MemoryNetwork::new(1, LinkModel::default()), Arc::default());
    let topic = topic_id("kept");
    let first = node(&network, 1);
    let gossip = stored(1, &first, &store);
    let mut subscription = gossip.subscribe(topic, Start::Retained).await.expect("subscribed");
    publish(&gossip, topic, 0..10).await;
    let mut cursor = None;
    for n in 0..6 {
        let message = message(&mut subscription).await;
        assert_eq!(message.payload, number(n));
        cursor = Some(message.cursor);
    }
    gossip.shutdown().await;
    first.shutdown().await;

    let again = node(&network, 1);
    let on_disk: Arc<dyn LogStore> = Arc::<MemoryLogStore>::clone(&store);
    let gossip = start(1, &again, |config| {
        // The clock stands still here, so that only this tells the epochs apart.
        (config.store, config.seed) = (Some(on_disk), 77);
    });
    let after = Start::After(cursor.expect("six messages"));
    let mut resumed = gossip.subscribe(topic, after).await.expect("subscribed");
    let mut all = gossip.subscribe(topic, Start::Retained).await.expect("subscribed");
    let published = gossip.publish(topic, number(10)).await.expect("published");
    assert_eq!(published.seq, 1, "another epoch");
    for n in 6..11 {
        assert_eq!(message(&mut resumed).await.payload, number(n));
    }
    let mut last = None;
    for n in 0..11 {
        let message = message(&mut all).await;
        assert_eq!(message.payload, number(n));
        assert!(last < Some(message.cursor), "places only grow");
        last = Some(message.cursor);
    }
    assert_eq!(published.cursor, last);
    // The stored entries go to a late joiner, though their author's service is another by now.
    let late = node(&network, 2);
    let joiner = start(2, &late, |_| {});
    connect(&late, 1).await;
    let mut joined = joiner.subscribe(topic, Start::Retained).await.expect("subscribed");
    let mut numbers = Vec::new();
    for _ in 0..11 {
        numbers.push(message(&mut joined).await.payload);
    }
    numbers.sort();
    assert_eq!(numbers, (0..11).map(number).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_another_log_begins_anew_and_says_so() {
    let network = MemoryNetwork::new(2, LinkModel::default());
    let node = node(&network, 1);
    let gossip = start(1, &node, |_| {});
    let topic = topic_id("other");
    let _kept = gossip.subscribe(topic, Start::Live).await.expect("subscribed");
    publish(&gossip, topic, 0..3).await;
    let start = Start::After(Cursor::new(77, 2));
    let mut astray = gossip.subscribe(topic, start).await.expect("subscribed");
    assert_eq!(next(&mut astray).await, Delivery::Lagged { missed: 0 });
    for n in 0..3 {
        assert_eq!(message(&mut astray).await.payload, number(n));
    }
}

#[tokio::test(start_paused = true)]
async fn published_means_stored_and_a_failing_store_is_told() {
    let (network, store) = (MemoryNetwork::new(3, LinkModel::default()), Arc::default());
    let node = node(&network, 1);
    let gossip = stored(1, &node, &store);
    let topic = topic_id("durable");
    publish(&gossip, topic, 0..1).await;
    store.pause();
    let accepted = gossip.accept(topic, number(1)).await.expect("accepted");
    let mut published = std::pin::pin!(accepted.published());
    let early = tokio::time::timeout(Duration::from_secs(5), &mut published).await;
    assert!(early.is_err(), "not before it is stored");
    store.resume();
    assert_eq!(published.await.map(|published| published.seq), Ok(2));
    store.fail_with(Some(StoreError::Full));
    assert_eq!(gossip.publish(topic, number(2)).await, Err(PublishError::NotStored));
    store.fail_with(None);
    assert_eq!(gossip.publish(topic, number(3)).await.map(|published| published.seq), Ok(4));
}

/// The classes of the runs that a store holds of a topic, and the numbers in them.
#[tokio::test(start_paused = true)]
async fn what_a_failing_store_did_not_take_is_stored_once_it_can() {
    let (network, store) = (MemoryNetwork::new(31, LinkModel::default()), Arc::default());
    let node = node(&network, 1);
    let gossip = stored(1, &node, &store);
    let topic = topic_id("holed");
    publish(&gossip, topic, 0..2).await;
    store.fail_with(Some(StoreError::Full));
    let refused = gossip.publish(topic, number(2)).await.map(drop);
    assert_eq!(refused, Err(PublishError::NotStored));
    store.fail_with(None);
    publish(&gossip, topic, 3..4).await;
    let all = (0..4).map(number).collect::<Vec<_>>();
    let entries = async |store: &MemoryLogStore| -> Vec<Bytes> {
        held(store, topic).await.into_iter().flat_map(|(_, payloads)| payloads).collect()
    };
    assert_eq!(entries(&store).await.len(), 3, "a hole");
    let mended = async {
        while entries(&store).await != all {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SHORT, mended).await.expect("mended in time");
}

async fn held(store: &MemoryLogStore, topic: TopicId) -> Vec<(Retention, Vec<Bytes>)> {
    let limits = LoadLimits { bytes: u64::MAX, runs: usize::MAX, chains: usize::MAX };
    let held = store.load(topic, limits).await.expect("it loads");
    let runs = held.into_iter().flat_map(|held| held.runs);
    let runs = runs.map(|held| RunIn::decode(held.run).expect("a run"));
    let payloads = |run: &RunIn| -> Vec<Bytes> {
        run.body().entries().iter().map(|entry| entry.payload.clone()).collect()
    };
    runs.map(|run| (run.body().retention(), payloads(&run))).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_got_does_not_come_again_after_a_crash() {
    let (network, store) = (MemoryNetwork::new(7, LinkModel::default()), Arc::default());
    let (author, other) = (node(&network, 1), node(&network, 2));
    let topic = topic_id("once");
    let publisher = start(1, &author, |_| {});
    let reader = stored(2, &other, &store);
    let _source = publisher.subscribe(topic, Start::Retained).await.expect("subscribed");
    let mut subscription = reader.subscribe(topic, Start::Retained).await.expect("subscribed");
    connect(&other, 1).await;
    publish(&publisher, topic, 0..3).await;
    let mut cursor = None;
    for n in 0..3 {
        let message = message(&mut subscription).await;
        assert_eq!(message.payload, number(n));
        cursor = Some(message.cursor);
    }
    // The store stops taking anything: what comes now is in the log, and would be lost by a crash.
    store.pause();
    publish(&publisher, topic, 3..6).await;
    while reader.snapshot().await.topics[0].entries < 6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let early = tokio::time::timeout(SHORT, subscription.next()).await;
    assert!(early.is_err(), "delivered before it was stored: {early:?}");
    // The crash: another service begins with what the store has.
    let crashed = Arc::new(store.copy());
    other.shutdown().await;
    let again = node(&network, 2);
    let resumed = stored(2, &again, &crashed);
    connect(&again, 1).await;
    let after = Start::After(cursor.expect("three messages"));
    let mut subscription = resumed.subscribe(topic, after).await.expect("subscribed");
    for n in 3..6 {
        assert_eq!(message(&mut subscription).await.payload, number(n), "once, and none missing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_read_now_is_read_later() {
    let (network, store) = (MemoryNetwork::new(8, LinkModel::default()), Arc::default());
    let topic = topic_id("later");
    let first = node(&network, 1);
    let gossip = stored(1, &first, &store);
    publish(&gossip, topic, 0..5).await;
    gossip.shutdown().await;
    first.shutdown().await;
    store.fail_with(Some(StoreError::Io("a cable".into())));
    let again = node(&network, 1);
    let gossip = stored(1, &again, &store);
    let mut subscription = gossip.subscribe(topic, Start::Retained).await.expect("subscribed");
    let early = tokio::time::timeout(SHORT, subscription.next()).await;
    assert!(early.is_err(), "nothing is given up: {early:?}");
    store.fail_with(None);
    for n in 0..5 {
        assert_eq!(message(&mut subscription).await.payload, number(n));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_makes_publishing_busy_and_stops_no_other_topic() {
    let (network, store) = (MemoryNetwork::new(9, LinkModel::default()), Arc::default());
    let node = node(&network, 1);
    let gossip = stored(1, &node, &store);
    let (full, other) = (topic_id("full"), topic_id("other"));
    publish(&gossip, full, 0..1).await;
    publish(&gossip, other, 0..1).await;
    let mut live = gossip.subscribe(other, Start::Live).await.expect("subscribed");
    store.pause();
    let mut accepted = 0;
    let large = Bytes::from(vec![7; 60_000]);
    loop {
        match gossip.try_publish(full, large.clone()) {
            Ok(()) => accepted += 1,
            Err(PublishError::Busy) => break,
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!((60..400).contains(&accepted), "{accepted} of 60 kB were accepted");
    // What needs no store goes on.
    let fleeting = gossip.accept_as(other, Retention::Ephemeral, number(1)).await;
    fleeting.expect("accepted").published().await.expect("published");
    assert_eq!(message(&mut live).await.payload, number(1));
    store.resume();
    gossip.publish(full, large).await.expect("there is room again");
}

#[tokio::test(start_paused = true)]
async fn classes_are_kept_as_they_say() {
    let (network, store) = (MemoryNetwork::new(10, LinkModel::default()), Arc::default());
    let (here, there) = (node(&network, 1), node(&network, 2));
    let (gossip, other) = (stored(1, &here, &store), start(2, &there, |_| {}));
    connect(&here, 2).await;
    let topic = topic_id("classes");
    let mut first = other.subscribe(topic, Start::Retained).await.expect("subscribed");
    let _kept = gossip.subscribe(topic, Start::Live).await.expect("subscribed");
    let mut n = 0;
    let passing = [Retention::Standard, Retention::Latest, Retention::Ephemeral];
    for _ in 0..4 {
        for retention in passing {
            let accepted = gossip.accept_as(topic, retention, number(n)).await.expect("accepted");
            accepted.published().await.expect("published");
            let message = message(&mut first).await;
            assert_eq!((message.payload, message.retention), (number(n), retention));
            n += 1;
        }
    }
    let standard = |n| (Retention::Standard, vec![number(n)]);
    let latest = (Retention::Latest, vec![number(10)]);
    let expected = [standard(0), standard(3), standard(6), standard(9), latest];
    assert_eq!(held(&store, topic).await, expected);
    // A late subscriber gets what is kept, of the ephemeral ones for a minute.
    let mut soon = gossip.subscribe(topic, Start::Retained).await.expect("subscribed");
    for expected in [0, 2, 3, 5, 6, 8, 9, 10, 11] {
        let message = message(&mut soon).await;
        assert_eq!((message.payload, message.gap), (number(expected), 0));
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    for gossip in [&gossip, &other] {
        let mut late = gossip.subscribe(topic, Start::Retained).await.expect("subscribed");
        for expected in [0, 3, 6, 9, 10] {
            assert_eq!(message(&mut late).await.payload, number(expected));
        }
    }
    let topics = [&gossip, &other].map(|gossip| gossip.snapshot());
    for topics in futures_pair(topics).await {
        assert_eq!((topics.topics[0].entries, topics.topics[0].chains), (5, 2));
    }
}

/// Two snapshots.
async fn futures_pair<F: Future>([one, two]: [F; 2]) -> [F::Output; 2] {
    [one.await, two.await]
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_dropped_is_read_again() {
    let (network, store) = (MemoryNetwork::new(4, LinkModel::default()), Arc::default());
    let (here, there) = (node(&network, 1), node(&network, 2));
    let (gossip, author) = (stored(1, &here, &store), start(2, &there, |_| {}));
    connect(&here, 2).await;
    let topic = topic_id("again");
    let mut first = gossip.subscribe(topic, Start::Retained).await.expect("subscribed");
    publish(&author, topic, 0..5).await;
    for n in 0..5 {
        assert_eq!(message(&mut first).await.payload, number(n));
    }
    drop(first);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(gossip.snapshot().await.topics.is_empty(), "dropped from memory");
    author.shutdown().await;
    there.shutdown().await;
    let mut again = gossip.subscribe(topic, Start::Retained).await.expect("subscribed");
    for n in 0..5 {
        assert_eq!(message(&mut again).await.payload, number(n));
    }
}

/// Three services in a triangle of sessions whose neighbours are a line.
#[tokio::test(start_paused = true)]
async fn neighbours_are_links_and_others_are_not() {
    let network = MemoryNetwork::new(5, LinkModel::default());
    let nodes: Vec<Node> = (1..=3).map(|n| node(&network, n)).collect();
    let near = |peers: &[u64]| {
        let peers: Vec<MachineId> = peers.iter().map(|n| machine(*n)).collect();
        Arc::new(StaticNeighbors::new(peers))
    };
    let neighbors = [near(&[2]), near(&[1, 3]), near(&[2])];
    let gossips: Vec<Gossip> = (1..)
        .zip(nodes.iter().zip(&neighbors))
        .map(|(n, (node, neighbors))| {
            let neighbors = Arc::<StaticNeighbors>::clone(neighbors);
            start(n, node, |config| config.neighbors = Some(neighbors))
        })
        .collect();
    for (from, to) in [(0, 2), (1, 3), (2, 1)] {
        connect(&nodes[from], to).await;
    }
    let topic = topic_id("line");
    let mut subscriptions = Vec::new();
    for gossip in &gossips {
        subscriptions.push(gossip.subscribe(topic, Start::Retained).await.expect("subscribed"));
    }
    assert_eq!(gossips[1].ready(topic, 2, SHORT).await, Ok(2));
    assert_eq!(gossips[1].ready(topic, 3, Duration::from_secs(1)).await, Err(WaitError::Timeout));
    let published = gossips[0].publish(topic, number(7)).await.expect("published");
    assert_eq!(published.neighbors, 1, "the session with the third is no link");
    gossips[0].first_hop(topic, &published, SHORT).await.expect("the second has it");
    for subscription in &mut subscriptions {
        assert_eq!(message(subscription).await.payload, number(7));
    }
    // The overlay moves the third from the second to the first.
    neighbors[1].down(machine(3));
    neighbors[2].down(machine(2));
    neighbors[0].up(machine(3));
    neighbors[2].up(machine(1));
    assert_eq!(gossips[0].ready(topic, 2, SHORT).await, Ok(2));
    gossips[2].publish(topic, number(8)).await.expect("published");
    for subscription in &mut subscriptions {
        assert_eq!(message(subscription).await.payload, number(8));
    }
    let snapshot = gossips[1].snapshot().await;
    let links: Vec<_> = snapshot.links.iter().map(|link| (link.peer, link.neighbor)).collect();
    assert_eq!(links, [(machine(1), true)]);
    assert_eq!(snapshot.topics[0].eager, 1);
}

/// Two subscribers whose only neighbour does not subscribe find each other through it.
#[tokio::test(start_paused = true)]
async fn subscribers_that_are_no_neighbours_link_up() {
    let network = MemoryNetwork::new(6, LinkModel::default());
    let nodes: Vec<Node> = (1..=3).map(|n| node(&network, n)).collect();
    let gossips: Vec<Gossip> = (1..)
        .zip(nodes.iter().zip([vec![2], vec![1, 3], vec![2]]))
        .map(|(n, (node, near))| {
            let near = StaticNeighbors::new(near.into_iter().map(machine));
            start(n, node, |config| config.neighbors = Some(Arc::new(near)))
        })
        .collect();
    connect(&nodes[1], 1).await;
    connect(&nodes[1], 3).await;
    let topic = topic_id("apart");
    let mut one = gossips[0].subscribe(topic, Start::Retained).await.expect("subscribed");
    let mut three = gossips[2].subscribe(topic, Start::Retained).await.expect("subscribed");
    assert_eq!(gossips[0].ready(topic, 1, SHORT * 4).await, Ok(1));
    gossips[0].publish(topic, number(1)).await.expect("published");
    gossips[2].publish(topic, number(2)).await.expect("published");
    let mut got = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        got[0].push(message(&mut one).await.payload);
        got[1].push(message(&mut three).await.payload);
    }
    got.iter_mut().for_each(|got| got.sort());
    assert_eq!(got, [[number(1), number(2)], [number(1), number(2)]]);
    let links = gossips[0].snapshot().await.links;
    assert!(links.iter().any(|link| link.peer == machine(3) && !link.neighbor));
    // The topic was all that they had in common.
    drop(one);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(gossips[0].snapshot().await.links.iter().all(|link| link.neighbor));
}

/// Nobody subscribed here, before or after: what was acknowledged still goes to peers that do.
#[tokio::test(start_paused = true)]
async fn what_was_published_without_a_subscriber_is_carried_after_a_restart() {
    let (network, store) = (MemoryNetwork::new(11, LinkModel::default()), Arc::default());
    let topic = topic_id("carried");
    let first = node(&network, 1);
    let gossip = stored(1, &first, &store);
    publish(&gossip, topic, 0..5).await;
    gossip.shutdown().await;
    first.shutdown().await;
    let again = node(&network, 1);
    let _carrier = stored(1, &again, &store);
    let there = node(&network, 2);
    let reader = start(2, &there, |_| {});
    connect(&there, 1).await;
    let mut subscription = reader.subscribe(topic, Start::Retained).await.expect("subscribed");
    for n in 0..5 {
        assert_eq!(message(&mut subscription).await.payload, number(n));
    }
}

/// A cursor from before everything was evicted is told that something is missing.
#[tokio::test(start_paused = true)]
async fn a_cursor_is_told_what_went_before_a_restart() {
    let (network, store) = (MemoryNetwork::new(12, LinkModel::default()), Arc::default());
    let topic = topic_id("gone");
    let first = node(&network, 1);
    let gossip = stored(1, &first, &store);
    let mut subscription = gossip.subscribe(topic, Start::Retained).await.expect("subscribed");
    publish(&gossip, topic, 0..10).await;
    let cursor = message(&mut subscription).await.cursor;
    gossip.shutdown().await;
    first.shutdown().await;
    let evict = LogChange::EvictTo { topic, position: 10 };
    store.commit(vec![evict]).await.expect("committed");
    let again = node(&network, 1);
    let gossip = stored(1, &again, &store);
    let after = Start::After(cursor);
    let mut resumed = gossip.subscribe(topic, after).await.expect("subscribed");
    assert_eq!(next(&mut resumed).await, Delivery::Lagged { missed: 0 });
    publish(&gossip, topic, 10..11).await;
    assert_eq!(message(&mut resumed).await.payload, number(10));
}

/// What is kept for ever stays in front of what retention takes, so that the log's beginning tells nothing.
#[tokio::test(start_paused = true)]
async fn a_cursor_before_what_was_evicted_is_told_after_a_restart() {
    let (network, store) = (MemoryNetwork::new(13, LinkModel::default()), Arc::default());
    let topic = topic_id("evicted");
    let begin = |n, node: &Node, store: &Arc<MemoryLogStore>| {
        let store: Arc<dyn LogStore> = Arc::<MemoryLogStore>::clone(store);
        start(n, node, |config| {
            config.store = Some(store);
            config.limits.topic_entries = 4;
        })
    };
    let first = node(&network, 1);
    let gossip = begin(1, &first, &store);
    let mut subscription = gossip.subscribe(topic, Start::Retained).await.expect("subscribed");
    let kept = gossip.accept_as(topic, Retention::Durable, number(0)).await.expect("accepted");
    kept.published().await.expect("published");
    let early = message(&mut subscription).await.cursor;
    let mut late = early;
    for n in 1..11 {
        publish(&gossip, topic, n..n + 1).await;
        let message = message(&mut subscription).await;
        assert_eq!(message.payload, number(n));
        late = message.cursor;
    }
    gossip.shutdown().await;
    first.shutdown().await;
    let held = held(&store, topic).await;
    assert!(held.len() < 11 && held[0].0 == Retention::Durable, "{held:?}");

    let again = node(&network, 1);
    let gossip = begin(1, &again, &store);
    let mut resumed = gossip.subscribe(topic, Start::After(early)).await.expect("subscribed");
    assert_eq!(next(&mut resumed).await, Delivery::Lagged { missed: 0 });
    for (_, payloads) in &held[1..] {
        assert_eq!(message(&mut resumed).await.payload, payloads[0], "told once, then the rest");
    }
    // Who had read all of it misses nothing, and is told nothing.
    let mut current = gossip.subscribe(topic, Start::After(late)).await.expect("subscribed");
    publish(&gossip, topic, 11..12).await;
    assert_eq!(message(&mut current).await.payload, number(11));
    assert_eq!(message(&mut resumed).await.payload, number(11));
}

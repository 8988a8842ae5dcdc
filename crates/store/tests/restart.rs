//! The gossip service over the store: what was published survives restarts, and readers go on where
//! they were.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{PeerAddr, TopicId};
use x0x_gossip_pubsub::{
    Cursor, Delivery, Gossip, GossipConfig, Message, PubSub as _, Start, Subscription, topic_id,
};
use x0x_identity::testing::key;
use x0x_store::{SqliteStore, StoreConfig};
use x0x_transport::{
    Node, Transport,
    testing::{LinkModel, MemoryNetwork, TokioClock, address, machine, node},
};

/// Goes on through restarts, as time does.
static CLOCK: OnceLock<Arc<TokioClock>> = OnceLock::new();

/// A machine with its service and its disk.
struct Peer {
    node: Node,
    gossip: Gossip,
    store: Option<SqliteStore>,
}

impl Peer {
    async fn start(network: &MemoryNetwork, n: u64, disk: Option<&Path>) -> Self {
        let store = match disk {
            Some(disk) => Some(SqliteStore::open(StoreConfig::at(disk)).await.unwrap()),
            None => None,
        };
        let node = node(network, n);
        let mut config = GossipConfig::new("test", n);
        config.store = store.clone().map(|store| Arc::new(store) as _);
        let transport: Arc<dyn Transport> = Arc::new(node.clone());
        let clock = Arc::clone(CLOCK.get_or_init(|| Arc::new(TokioClock::new())));
        let gossip = Gossip::start(transport, Arc::new(key(n)), config, clock).unwrap();
        Self { node, gossip, store }
    }

    async fn connect(&self, to: u64) {
        self.node.connect(PeerAddr::known(machine(to), [address(to)])).await.unwrap();
    }

    async fn subscribe(&self, topic: TopicId, start: Start) -> Subscription {
        self.gossip.subscribe(topic, start).await.unwrap()
    }

    async fn publish(&self, topic: TopicId, numbers: std::ops::Range<u32>) {
        let mut accepted = Vec::new();
        for n in numbers {
            let payload = Bytes::copy_from_slice(&n.to_be_bytes());
            accepted.push(self.gossip.accept(topic, payload).await.unwrap());
        }
        for entry in accepted {
            entry.published().await.unwrap();
        }
    }

    fn count(&self, name: &str) -> u64 {
        let metrics = self.gossip.metrics().snapshot();
        metrics.iter().find(|metric| metric.name == name).expect("the metric exists").value
    }

    async fn stop(self) {
        self.gossip.shutdown().await;
        self.node.shutdown().await;
        if let Some(store) = self.store {
            store.close().await.unwrap();
        }
    }
}

async fn message(subscription: &mut Subscription) -> Message {
    let next = tokio::time::timeout(Duration::from_secs(20), subscription.next());
    match next.await.expect("a delivery in time") {
        Some(Delivery::Message(message)) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

/// Reads these numbers in this order and nothing else; returns the place behind the last.
async fn read(subscription: &mut Subscription, numbers: std::ops::Range<u32>) -> Cursor {
    let mut cursor = None;
    for n in numbers {
        let message = message(subscription).await;
        assert_eq!(message.payload[..], n.to_be_bytes());
        cursor = Some(message.cursor);
    }
    cursor.expect("something was read")
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_before_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("1.db"), dir.path().join("2.db"));
    let network = MemoryNetwork::new(1, LinkModel::default());
    let topic = topic_id("news");
    let author = Peer::start(&network, 1, Some(&one)).await;
    let reader = Peer::start(&network, 2, Some(&two)).await;
    reader.connect(1).await;
    let _own = author.subscribe(topic, Start::Retained).await;
    let mut subscription = reader.subscribe(topic, Start::Retained).await;
    author.publish(topic, 0..200).await;
    let cursor = read(&mut subscription, 0..120).await;
    let all = read(&mut subscription, 120..200).await;
    assert!(all > cursor);
    reader.stop().await;

    author.publish(topic, 200..300).await;
    let reader = Peer::start(&network, 2, Some(&two)).await;
    let mut subscription = reader.subscribe(topic, Start::After(cursor)).await;
    read(&mut subscription, 120..200).await;
    assert_eq!(reader.count("pubsub_entries_accepted"), 0, "that was on the disk");
    reader.connect(1).await;
    read(&mut subscription, 200..300).await;
    assert_eq!(reader.count("pubsub_entries_accepted"), 100, "only what is new is sent again");
    let mut late = reader.subscribe(topic, Start::Retained).await;
    read(&mut late, 0..300).await;
    author.publish(topic, 300..310).await;
    read(&mut subscription, 300..310).await;
    read(&mut late, 300..310).await;
    assert_eq!((subscription.next_ready(), late.next_ready()), (None, None));
    reader.stop().await;
    author.stop().await;
}

#[tokio::test]
async fn an_author_serves_after_its_restart_what_it_published_before() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("1.db");
    let network = MemoryNetwork::new(2, LinkModel::default());
    let topic = topic_id("news");
    let author = Peer::start(&network, 1, Some(&disk)).await;
    author.publish(topic, 0..50).await;
    author.stop().await;

    let author = Peer::start(&network, 1, Some(&disk)).await;
    let joiner = Peer::start(&network, 2, None).await;
    joiner.connect(1).await;
    let mut own = author.subscribe(topic, Start::Retained).await;
    let mut subscription = joiner.subscribe(topic, Start::Retained).await;
    read(&mut subscription, 0..50).await;
    author.publish(topic, 50..60).await;
    read(&mut subscription, 50..60).await;
    read(&mut own, 0..60).await;
    assert_eq!((subscription.next_ready(), own.next_ready()), (None, None));
    author.stop().await;
    joiner.stop().await;
}

#[tokio::test]
async fn an_old_disk_costs_nothing_that_neighbours_hold() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, old) = (dir.path().join("2.db"), dir.path().join("old.db"));
    let network = MemoryNetwork::new(3, LinkModel::default());
    let topic = topic_id("news");
    let author = Peer::start(&network, 1, None).await;
    let _own = author.subscribe(topic, Start::Retained).await;
    let reader = Peer::start(&network, 2, Some(&disk)).await;
    reader.connect(1).await;
    let mut subscription = reader.subscribe(topic, Start::Retained).await;
    author.publish(topic, 0..100).await;
    let cursor = read(&mut subscription, 0..100).await;
    reader.stop().await;
    fs::copy(&disk, &old).unwrap();

    let reader = Peer::start(&network, 2, Some(&disk)).await;
    reader.connect(1).await;
    let mut subscription = reader.subscribe(topic, Start::After(cursor)).await;
    author.publish(topic, 100..200).await;
    read(&mut subscription, 100..200).await;
    reader.stop().await;

    let reader = Peer::start(&network, 2, Some(&old)).await;
    reader.connect(1).await;
    let mut subscription = reader.subscribe(topic, Start::After(cursor)).await;
    let mut late = reader.subscribe(topic, Start::Retained).await;
    read(&mut subscription, 100..200).await;
    read(&mut late, 0..200).await;
    author.publish(topic, 200..210).await;
    read(&mut subscription, 200..210).await;
    assert_eq!(subscription.next_ready(), None);
    reader.stop().await;
    author.stop().await;
}

#[tokio::test]
async fn a_damaged_disk_is_filled_again_by_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("2.db");
    let network = MemoryNetwork::new(4, LinkModel::default());
    let topic = topic_id("news");
    let author = Peer::start(&network, 1, None).await;
    let _own = author.subscribe(topic, Start::Retained).await;
    let reader = Peer::start(&network, 2, Some(&disk)).await;
    reader.connect(1).await;
    let mut subscription = reader.subscribe(topic, Start::Retained).await;
    author.publish(topic, 0..100).await;
    let cursor = read(&mut subscription, 0..100).await;
    reader.stop().await;
    let mut bytes = fs::read(&disk).unwrap();
    bytes[4096..].fill(0xff);
    fs::write(&disk, bytes).unwrap();

    let reader = Peer::start(&network, 2, Some(&disk)).await;
    reader.connect(1).await;
    let mut subscription = reader.subscribe(topic, Start::After(cursor)).await;
    let first = tokio::time::timeout(Duration::from_secs(20), subscription.next()).await.unwrap();
    assert_eq!(first, Some(Delivery::Lagged { missed: 0 }), "the reader is told");
    read(&mut subscription, 0..100).await;
    author.publish(topic, 100..110).await;
    read(&mut subscription, 100..110).await;
    reader.stop().await;

    // And it is on the disk again.
    let reader = Peer::start(&network, 2, Some(&disk)).await;
    let mut late = reader.subscribe(topic, Start::Retained).await;
    read(&mut late, 0..110).await;
    reader.stop().await;
    author.stop().await;
}

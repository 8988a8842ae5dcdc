//! What the tests share: an author's runs one after another, and loads of everything.

#![allow(unreachable_pub, reason = "a module of several test programs")]

use std::{path::Path, sync::Arc};

use x0x_core::{TopicId, WallTime};
use x0x_gossip_pubsub::{
    LoadLimits, LogChange, LogStore as _, NetworkId, Run, StoredTopic, testing::RunForge, topic_id,
};
use x0x_identity::testing::key;
use x0x_store::{SqliteStore, StoreConfig};

/// Nothing is left out of a load.
pub const ALL: LoadLimits = LoadLimits { bytes: u64::MAX, runs: usize::MAX, chains: usize::MAX };

/// The time of the runs that a fresh author makes.
pub const THEN: WallTime = WallTime::from_millis(1_800_000_000_000);

/// An author who publishes to one topic, and its log so far.
#[derive(Debug)]
pub struct Author {
    pub forge: RunForge,
    pub last: Option<Arc<Run>>,
    pub position: u64,
}

impl Author {
    pub fn new(n: u64, topic: &str) -> Self {
        let forge = RunForge::new(key(n), NetworkId::from_name("test"), topic_id(topic), THEN);
        Self { forge, last: None, position: 0 }
    }

    pub fn topic(&self) -> TopicId {
        self.forge.topic
    }

    /// The next run of these payloads, appended.
    pub fn append(&mut self, payloads: &[&[u8]]) -> LogChange {
        let run = Arc::new(self.forge.run(self.last.as_deref(), payloads));
        let append = LogChange::Append {
            incarnation: 1,
            position: self.position,
            missed: 0,
            begins: self.position == 0,
            run: Arc::clone(&run),
            key: self.forge.key.public_key().clone(),
        };
        self.position += payloads.len() as u64;
        self.last = Some(run);
        append
    }
}

pub async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(StoreConfig::at(path)).await.expect("the store opens")
}

/// What the store holds of a topic.
pub async fn held(store: &SqliteStore, topic: TopicId) -> Option<StoredTopic> {
    store.load(topic, ALL).await.expect("the topic loads")
}

/// A counter of the store.
pub fn count(store: &SqliteStore, name: &str) -> u64 {
    let metrics = store.metrics().snapshot();
    metrics.iter().find(|metric| metric.name == name).expect("the metric exists").value
}

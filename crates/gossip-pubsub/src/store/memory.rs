//! The fake: everything in ordered maps, with faults and delays on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;
use x0x_core::{AgentId, TopicId, WallTime};
use x0x_transport::BoxFuture;

use crate::retention::Retention;

use super::{
    HeldOf, LoadLimits, LogChange, LogStore, StoreError, StoredChain, StoredRun, StoredTopic,
};

/// A [`LogStore`] that lives as long as the value: a restart is a new service on the same one.
#[derive(Debug)]
pub struct MemoryLogStore {
    held: Mutex<Held>,
    paused: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Held {
    topics: BTreeMap<TopicId, Topic>,
    failure: Option<StoreError>,
    commits: u64,
}

#[derive(Debug, Clone, Default)]
struct Topic {
    incarnation: u64,
    end: u64,
    gone: u64,
    runs: BTreeMap<u64, Row>,
    chains: BTreeMap<(AgentId, u64), StoredChain>,
    keys: BTreeMap<AgentId, Bytes>,
    blocked: BTreeSet<AgentId>,
}

#[derive(Debug, Clone)]
struct Row {
    author: AgentId,
    /// Of its last entry.
    time: WallTime,
    /// It is kept whatever its time.
    durable: bool,
    /// Position after its last entry.
    end: u64,
    run: StoredRun,
}

impl Default for MemoryLogStore {
    fn default() -> Self {
        Self { held: Mutex::default(), paused: watch::Sender::new(false) }
    }
}

impl MemoryLogStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets commits and loads wait until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.paused.send_replace(true);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// Refuses every commit and load with this error; `None` ends it.
    pub fn fail_with(&self, failure: Option<StoreError>) {
        self.held().failure = failure;
    }

    /// Another store that holds what this one does now, as a crash would leave it.
    #[must_use]
    pub fn copy(&self) -> Self {
        let held = Held { topics: self.held().topics.clone(), failure: None, commits: 0 };
        Self { held: Mutex::new(held), paused: watch::Sender::new(false) }
    }

    /// Commits that succeeded.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.held().commits
    }

    /// Damages the newest run of a topic, as a failing disk would.
    pub fn damage(&self, topic: &TopicId) {
        let mut held = self.held();
        let newest = held.topics.get_mut(topic).and_then(|topic| topic.runs.last_entry());
        if let Some(mut newest) = newest {
            let run = &mut newest.get_mut().run.run;
            let mut bytes = run.to_vec();
            if let Some(byte) = bytes.last_mut() {
                *byte ^= 1;
            }
            *run = bytes.into();
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ready(&self) {
        // The sender lives as long as this store, so that waiting cannot fail.
        drop(self.paused.subscribe().wait_for(|paused| !paused).await);
    }
}

impl LogStore for MemoryLogStore {
    fn load(
        &self,
        topic: TopicId,
        limits: LoadLimits,
    ) -> BoxFuture<'_, Result<Option<StoredTopic>, StoreError>> {
        Box::pin(async move {
            self.ready().await;
            let held = self.held();
            held.failure.clone().map_or(Ok(()), Err)?;
            Ok(held.topics.get(&topic).map(|topic| topic.load(limits)))
        })
    }

    fn held_of(&self, author: AgentId, most: usize) -> BoxFuture<'_, Result<HeldOf, StoreError>> {
        Box::pin(async move {
            self.ready().await;
            let held = self.held();
            held.failure.clone().map_or(Ok(()), Err)?;
            Ok(held.of(author, most))
        })
    }

    fn commit(&self, changes: Vec<LogChange>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.ready().await;
            let mut held = self.held();
            held.failure.clone().map_or(Ok(()), Err)?;
            changes.into_iter().for_each(|change| held.apply(change));
            held.commits += 1;
            Ok(())
        })
    }
}

impl Held {
    fn of(&self, author: AgentId, most: usize) -> HeldOf {
        let chains = |topic: &Topic| {
            let own = topic.chains.range((author, 0)..=(author, u64::MAX));
            own.map(|(_, chain)| (chain.time, chain.epoch)).collect::<Vec<_>>()
        };
        let mut topics = Vec::new();
        let mut epoch = 0;
        for (id, topic) in &self.topics {
            let own = chains(topic);
            topics.extend(own.iter().map(|(time, _)| *time).max().map(|time| (time, *id)));
            epoch = own.iter().map(|(_, epoch)| *epoch).max().unwrap_or(0).max(epoch);
        }
        topics.sort_unstable_by(|one, two| two.cmp(one));
        topics.truncate(most);
        HeldOf { topics: topics.into_iter().map(|(_, id)| id).collect(), epoch }
    }

    fn apply(&mut self, change: LogChange) {
        match change {
            LogChange::Append { incarnation, position, missed, begins, run, key } => {
                let topic = self.topics.entry(run.body().topic()).or_default();
                if topic.incarnation != incarnation {
                    *topic = Topic { incarnation, ..Topic::default() };
                }
                let chain = StoredChain::after(&run);
                let (author, time) = (chain.author, chain.time.wall());
                let end = position + run.body().entries().len() as u64;
                topic.end = topic.end.max(end);
                let head = topic.chains.entry((author, chain.epoch)).or_insert(chain);
                if chain.head > head.head {
                    *head = chain;
                }
                topic.keys.insert(author, Bytes::copy_from_slice(key.as_bytes()));
                let durable = run.body().retention() == Retention::Durable;
                let run = StoredRun { position, missed, begins, run: run.encoded().clone() };
                topic.runs.insert(position, Row { author, time, durable, end, run });
            }
            LogChange::EvictTo { topic, position } => {
                if let Some(topic) = self.topics.get_mut(&topic) {
                    topic.runs = topic.runs.split_off(&position);
                }
            }
            LogChange::Remove { topic, position } => {
                if let Some(topic) = self.topics.get_mut(&topic)
                    && let Some(row) = topic.runs.remove(&position)
                {
                    topic.gone = topic.gone.max(row.end);
                }
            }
            LogChange::Replace { topic, position } => {
                if let Some(topic) = self.topics.get_mut(&topic) {
                    topic.runs.remove(&position);
                }
            }
            LogChange::Reach { topic, incarnation, position } => {
                if let Some(topic) = self.topics.get_mut(&topic)
                    && topic.incarnation == incarnation
                {
                    topic.end = topic.end.max(position);
                }
            }
            LogChange::Block { topic, author } => {
                if let Some(topic) = self.topics.get_mut(&topic) {
                    topic.blocked.insert(author);
                }
            }
            LogChange::DropTopic { topic } => drop(self.topics.remove(&topic)),
            LogChange::Expire { before } => self.topics.retain(|_, topic| topic.expire(before)),
        }
    }
}

impl Topic {
    fn load(&self, limits: LoadLimits) -> StoredTopic {
        let mut bytes = 0;
        let newest = self.runs.values().rev().take(limits.runs).take_while(|row| {
            bytes += row.run.run.len() as u64;
            bytes <= limits.bytes
        });
        let mut rows: Vec<_> = newest.collect();
        rows.reverse();
        let authors: BTreeSet<_> = rows.iter().map(|row| row.author).collect();
        let mut chains: Vec<_> = self.chains.values().copied().collect();
        chains.sort_by_key(|chain| std::cmp::Reverse((chain.time, chain.author, chain.epoch)));
        chains.truncate(limits.chains);
        chains.sort_by_key(|chain| (chain.author, chain.epoch));
        let keys = self.keys.iter().filter(|(author, _)| authors.contains(author));
        StoredTopic {
            incarnation: self.incarnation,
            end: self.end,
            gone: self.gone,
            runs: rows.into_iter().map(|row| row.run.clone()).collect(),
            chains,
            keys: keys.map(|(author, key)| (*author, key.clone())).collect(),
            blocked: self.blocked.iter().copied().collect(),
        }
    }

    /// Whether something is left.
    fn expire(&mut self, before: WallTime) -> bool {
        let durable = |epoch: &u64| Retention::of_epoch(*epoch) == Retention::Durable;
        let old = self.runs.extract_if(.., |_, row| !row.durable && row.time < before);
        self.gone = old.map(|(_, row)| row.end).max().unwrap_or(0).max(self.gone);
        self.chains.retain(|(_, epoch), chain| durable(epoch) || chain.time.wall() >= before);
        let known: BTreeSet<_> = self.chains.keys().map(|(author, _)| *author).collect();
        self.blocked.retain(|author| known.contains(author));
        self.keys.retain(|author, _| known.contains(author));
        !self.chains.is_empty()
    }
}

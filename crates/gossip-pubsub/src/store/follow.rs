//! Between the actor and the store: changes in their order, one commit at a time, so that what
//! gathers during one goes with the next.

use std::{collections::VecDeque, future, sync::Arc, task::Poll};

use x0x_core::TopicId;
use x0x_transport::BoxFuture;

use super::{LoadLimits, LogChange, LogStore, RestoredTopic, StoreError};
use crate::run::NetworkId;

/// Changes that may wait for the commit under way; the actor takes nothing more from peers then.
pub(crate) const MAX_WAITING_CHANGES: usize = 8192;

/// Encoded bytes of runs in them, treated alike.
pub(crate) const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;

/// What the store did.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The changes up to this number are committed, or are lost to it: with an error they are not
    /// tried again, since what follows stands without them.
    Committed { through: u64, result: Result<(), StoreError> },
    /// What is held of a topic, checked; nothing, or why that is not known.
    Loaded { topic: TopicId, result: Result<Option<Box<RestoredTopic>>, StoreError> },
}

type Commit = BoxFuture<'static, Result<(), StoreError>>;
type Load = BoxFuture<'static, Result<Option<Box<RestoredTopic>>, StoreError>>;

/// Lets a store follow the logs in memory. It belongs to the actor, which polls it.
pub(crate) struct Follower {
    store: Arc<dyn LogStore>,
    network: NetworkId,
    limits: LoadLimits,
    waiting: Vec<LogChange>,
    waiting_bytes: usize,
    /// Changes pushed, and those of them that were handed to the store.
    pushed: u64,
    handed: u64,
    /// Topics to load, each after the changes pushed before it.
    wanted: VecDeque<(u64, TopicId)>,
    commit: Option<(u64, Commit)>,
    load: Option<(TopicId, Load)>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { store, pushed, handed, .. } = self;
        f.debug_struct("Follower")
            .field("store", store)
            .field("pushed", pushed)
            .field("handed", handed)
            .finish_non_exhaustive()
    }
}

impl Follower {
    pub(crate) fn new(store: Arc<dyn LogStore>, network: NetworkId, limits: LoadLimits) -> Self {
        Self {
            store,
            network,
            limits,
            waiting: Vec::new(),
            waiting_bytes: 0,
            pushed: 0,
            handed: 0,
            wanted: VecDeque::new(),
            commit: None,
            load: None,
        }
    }

    /// Takes a change. Returns its number, which a later [`Followed::Committed`] reaches.
    pub(crate) fn push(&mut self, change: LogChange) -> u64 {
        if let LogChange::Append { run, .. } = &change {
            self.waiting_bytes += run.encoded().len();
        }
        self.waiting.push(change);
        self.pushed += 1;
        self.pushed
    }

    /// Loads a topic, with every change that was pushed before. There is one answer to each call, in
    /// their order.
    pub(crate) fn load(&mut self, topic: TopicId) {
        self.wanted.push_back((self.pushed, topic));
    }

    /// Whether so much waits that nothing more should come in.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING_CHANGES || self.waiting_bytes >= MAX_WAITING_BYTES
    }

    /// Whether nothing is under way or waits.
    pub(crate) fn is_idle(&self) -> bool {
        let busy = self.commit.is_some() || self.load.is_some();
        !busy && self.waiting.is_empty() && self.wanted.is_empty()
    }

    /// What the store did next. Pending while there is nothing to do; loses nothing when it is
    /// dropped.
    pub(crate) async fn next(&mut self) -> Followed {
        future::poll_fn(|context| {
            self.start();
            if let Some((through, commit)) = &mut self.commit
                && let Poll::Ready(result) = commit.as_mut().poll(context)
            {
                let through = *through;
                self.commit = None;
                return Poll::Ready(Followed::Committed { through, result });
            }
            // After the commit, so that the store got that first.
            if let Some((topic, load)) = &mut self.load
                && let Poll::Ready(result) = load.as_mut().poll(context)
            {
                let topic = *topic;
                self.load = None;
                return Poll::Ready(Followed::Loaded { topic, result });
            }
            Poll::Pending
        })
        .await
    }

    /// Starts what can be started.
    fn start(&mut self) {
        if self.commit.is_none() && !self.waiting.is_empty() {
            let (store, changes) = (Arc::clone(&self.store), std::mem::take(&mut self.waiting));
            self.waiting_bytes = 0;
            self.handed = self.pushed;
            let commit = Box::pin(async move { store.commit(changes).await });
            self.commit = Some((self.handed, commit));
        }
        if self.load.is_none()
            && self.wanted.front().is_some_and(|(after, _)| *after <= self.handed)
            && let Some((_, topic)) = self.wanted.pop_front()
        {
            let (store, limits) = (Arc::clone(&self.store), self.limits);
            self.load = Some((topic, Box::pin(load(store, self.network, topic, limits))));
        }
    }
}

/// Loads a topic and checks it, off the actor's thread.
async fn load(
    store: Arc<dyn LogStore>,
    network: NetworkId,
    topic: TopicId,
    limits: LoadLimits,
) -> Result<Option<Box<RestoredTopic>>, StoreError> {
    let Some(stored) = store.load(topic, limits).await? else { return Ok(None) };
    let check = tokio::task::spawn_blocking(move || Box::new(stored.check(network, topic)));
    check.await.map(Some).map_err(|error| StoreError::Internal(error.to_string().into()))
}

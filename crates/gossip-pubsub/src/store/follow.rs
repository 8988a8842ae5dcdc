//! Between the actor and the store: changes in their order, one commit at a time, so that what
//! gathers during one goes with the next.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Sleep;
use x0x_core::{AgentId, TopicId};
use x0x_transport::BoxFuture;

use super::{HeldOf, LoadLimits, LogChange, LogStore, RestoredTopic, StoreError};
use crate::{
    config::{Limits, MAX_OWN_TOPICS, MAX_WAITING_CHANGES},
    run::NetworkId,
    subscriber::Cursor,
};

/// Topics that wait to be read; nothing more is signed then, which could need another.
pub(crate) const MAX_LOADS: usize = 256;

/// How long after a failed read a topic is read again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How long after a failed commit it is tried again: a store that is full may make room, one that was
/// damaged begins anew, and what is not stored is a hole in its author's chain for ever.
const RETRIES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];

/// Most topics of which changes are not stored and are to be; of more of them, some keep their holes.
const MAX_HOLED: usize = 1024;

/// How long after a commit failed for good what is held of its topics is stored again: at first, and at most
/// for a store that goes on to fail.
const MEND: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(640));

/// What the store did.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The changes up to this number are committed, or are lost to it: with an error they were tried
    /// several times and are not again, since what follows stands without them.
    Committed {
        through: u64,
        /// Where the logs end of which runs are in them.
        ends: BTreeMap<TopicId, Cursor>,
        result: Result<(), StoreError>,
    },
    /// A topic could not be read now, after so many failures before; it will be read again.
    LoadFailed { topic: TopicId, error: StoreError, failures: u32 },
    /// What is held of a topic, checked; nothing, or that it is damaged.
    Loaded { topic: TopicId, result: Result<Option<Box<RestoredTopic>>, StoreError> },
    /// What is held of the author that was asked for.
    Own(HeldOf),
    /// Changes of a topic were not stored: all that is in its log is to be pushed again.
    Holed(TopicId),
}

type Own = BoxFuture<'static, HeldOf>;
type Commit = BoxFuture<'static, Result<(), StoreError>>;
type Load = BoxFuture<'static, Result<Option<Box<RestoredTopic>>, StoreError>>;

/// Lets a store follow the logs in memory. It belongs to the actor, which polls it.
pub(crate) struct Follower {
    store: Arc<dyn LogStore>,
    network: NetworkId,
    limits: LoadLimits,
    waiting: Vec<LogChange>,
    /// Where the logs end with the runs that wait.
    ends: BTreeMap<TopicId, Cursor>,
    /// Bytes of the runs that wait, and how many of them are too many.
    bytes: u64,
    max_bytes: u64,
    /// Topics of which changes are not stored, and when that is mended.
    holed: BTreeSet<TopicId>,
    mend: Option<Pin<Box<Sleep>>>,
    /// Commits that failed since one succeeded.
    failures: u32,
    /// Changes pushed, and those of them that were handed to the store.
    pushed: u64,
    handed: u64,
    /// Topics to load.
    wanted: VecDeque<Wanted>,
    /// Topics to load again, and when.
    again: Vec<(Pin<Box<Sleep>>, Wanted)>,
    commit: Option<UnderWay>,
    load: Option<(Wanted, Load)>,
    own: Option<Own>,
}

/// A topic to load.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    topic: TopicId,
    /// After the change with this number.
    after: u64,
    /// How often that failed.
    failures: u32,
}

/// A commit.
struct UnderWay {
    through: u64,
    ends: BTreeMap<TopicId, Cursor>,
    topics: BTreeSet<TopicId>,
    commit: Commit,
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
    pub(crate) fn new(store: Arc<dyn LogStore>, network: NetworkId, limits: &Limits) -> Self {
        Self {
            store,
            network,
            limits: LoadLimits::from(limits),
            bytes: 0,
            max_bytes: limits.unstored_bytes,
            holed: BTreeSet::new(),
            mend: None,
            failures: 0,
            waiting: Vec::new(),
            ends: BTreeMap::new(),
            pushed: 0,
            handed: 0,
            wanted: VecDeque::new(),
            again: Vec::new(),
            commit: None,
            load: None,
            own: None,
        }
    }

    /// Asks what is held of an author.
    pub(crate) fn asking_for(mut self, author: AgentId) -> Self {
        self.own = Some(Box::pin(held_of(Arc::clone(&self.store), author)));
        self
    }

    /// Takes a change. Returns its number, which a later [`Followed::Committed`] reaches.
    pub(crate) fn push(&mut self, change: LogChange) -> u64 {
        if let LogChange::Append { incarnation, position, run, .. } = &change {
            let body = run.body();
            let end = Cursor::new(*incarnation, position + body.entries().len() as u64);
            self.ends.insert(body.topic(), end);
            self.bytes += run.size() as u64;
        }
        self.waiting.push(change);
        self.pushed += 1;
        self.pushed
    }

    /// Loads a topic, with every change that was pushed before. There is one answer to each call, in
    /// their order.
    pub(crate) fn load(&mut self, topic: TopicId) {
        self.wanted.push_back(Wanted { topic, after: self.pushed, failures: 0 });
    }

    /// Whether so much waits that nothing more should be added.
    pub(crate) fn is_full(&self) -> bool {
        let loads = self.wanted.len() + self.again.len() + usize::from(self.load.is_some());
        self.is_behind() || loads >= MAX_LOADS
    }

    /// Whether so many changes wait, or so many bytes, that peers should bring no more. The logs do not
    /// tell: of what was replaced meanwhile they hold nothing.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting.len() >= MAX_WAITING_CHANGES || self.bytes > self.max_bytes
    }

    /// Whether nothing is under way or waits, but for topics that cannot be read.
    pub(crate) fn is_idle(&self) -> bool {
        let busy = self.commit.is_some() || self.load.is_some();
        !busy && self.waiting.is_empty() && self.wanted.is_empty()
    }

    /// What the store did next. Pending while there is nothing to do; loses nothing when it is
    /// dropped.
    pub(crate) async fn next(&mut self) -> Followed {
        future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Followed> {
        let due = self.again.extract_if(.., |(at, _)| at.as_mut().poll(context).is_ready());
        self.wanted.extend(due.map(|(_, wanted)| wanted));
        self.start();
        if let Some(own) = &mut self.own
            && let Poll::Ready(held) = own.as_mut().poll(context)
        {
            self.own = None;
            return Poll::Ready(Followed::Own(held));
        }
        if let Some(under_way) = &mut self.commit
            && let Poll::Ready(result) = under_way.commit.as_mut().poll(context)
            && let Some(UnderWay { through, ends, topics, .. }) = self.commit.take()
        {
            if result.is_ok() && std::mem::take(&mut self.failures) > 0 && !self.holed.is_empty() {
                self.mend = Some(Box::pin(tokio::time::sleep(MEND.0)));
            }
            // A store that is closed takes nothing any more.
            if result.as_ref().is_err_and(|error| *error != StoreError::Closed) {
                self.holed.extend(topics);
                while self.holed.len() > MAX_HOLED {
                    self.holed.pop_last();
                }
                let after = MEND.0.saturating_mul(1 << self.failures.min(16)).min(MEND.1);
                self.failures += 1;
                self.mend = Some(Box::pin(tokio::time::sleep(after)));
            }
            return Poll::Ready(Followed::Committed { through, ends, result });
        }
        // One after the other, so that no more than one topic is on its way again.
        if self.commit.is_none()
            && let Some(mend) = &mut self.mend
            && mend.as_mut().poll(context).is_ready()
        {
            if let Some(topic) = self.holed.pop_first() {
                self.mend = Some(Box::pin(tokio::time::sleep(Duration::ZERO)));
                return Poll::Ready(Followed::Holed(topic));
            }
            self.mend = None;
        }
        // After the commit, so that the store got that first.
        if let Some((wanted, load)) = &mut self.load
            && let Poll::Ready(result) = load.as_mut().poll(context)
        {
            let wanted = *wanted;
            self.load = None;
            return Poll::Ready(self.loaded(wanted, result));
        }
        Poll::Pending
    }

    /// Only what is known to be damaged is given up; anything else may pass.
    fn loaded(
        &mut self,
        wanted: Wanted,
        result: Result<Option<Box<RestoredTopic>>, StoreError>,
    ) -> Followed {
        let topic = wanted.topic;
        match result {
            Ok(_) | Err(StoreError::Corrupt(_)) => Followed::Loaded { topic, result },
            Err(error) => {
                let after = AGAIN.0.saturating_mul(1 << wanted.failures.min(16)).min(AGAIN.1);
                let again = Wanted { failures: wanted.failures + 1, ..wanted };
                self.again.push((Box::pin(tokio::time::sleep(after)), again));
                Followed::LoadFailed { topic, error, failures: wanted.failures }
            }
        }
    }

    /// Starts what can be started.
    fn start(&mut self) {
        if self.commit.is_none() && !self.waiting.is_empty() {
            let (store, changes) = (Arc::clone(&self.store), std::mem::take(&mut self.waiting));
            self.handed = self.pushed;
            let (through, ends) = (self.handed, std::mem::take(&mut self.ends));
            let topics = changes.iter().filter_map(LogChange::topic).collect();
            self.bytes = 0;
            let commit = Box::pin(commit(store, changes));
            self.commit = Some(UnderWay { through, ends, topics, commit });
        }
        if self.load.is_none()
            && self.wanted.front().is_some_and(|wanted| wanted.after <= self.handed)
            && let Some(wanted) = self.wanted.pop_front()
        {
            let (store, limits) = (Arc::clone(&self.store), self.limits);
            let load = Box::pin(load(store, self.network, wanted.topic, limits));
            self.load = Some((wanted, load));
        }
    }
}

/// Commits changes, and tries again a few times what may pass.
async fn commit(store: Arc<dyn LogStore>, changes: Vec<LogChange>) -> Result<(), StoreError> {
    for pause in RETRIES {
        match store.commit(changes.clone()).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Closed) => return Err(StoreError::Closed),
            Err(error) => tracing::debug!(%error, "changes of the logs are not stored yet"),
        }
        tokio::time::sleep(pause).await;
    }
    store.commit(changes).await
}

/// What is held of an author, as soon as it can be read.
async fn held_of(store: Arc<dyn LogStore>, author: AgentId) -> HeldOf {
    let mut pause = AGAIN.0;
    loop {
        match store.held_of(author, MAX_OWN_TOPICS).await {
            Ok(held) => return held,
            Err(error @ (StoreError::Corrupt(_) | StoreError::Closed)) => {
                tracing::warn!(%error, "what this author published before is not found");
                return HeldOf::default();
            }
            Err(error) => tracing::debug!(%error, "own topics cannot be read; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN.1);
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

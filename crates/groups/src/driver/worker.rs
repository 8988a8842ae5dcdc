//! The thread that owns the groups: cryptography and its transactions keep no other task waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use x0x_core::{AgentId, Clock, WallTime};
use x0x_identity::SecretKey;
use x0x_mls::{Batch, Change, Entry, Groups, MlsMetrics, MlsStore, Space};
use zeroize::Zeroizing;

use super::{
    history::{Addition, History, Written},
    past,
    stats::GroupStats,
    subscribed,
};
use crate::{
    directory::{MAX_SUBSCRIPTIONS, Subscribed},
    error::GroupsError,
    metrics::GroupsMetrics,
    session::{Happened, NamedGroups},
    wire::{GroupId, Handover},
};

/// Where the groups are kept.
pub type Store = Arc<dyn MlsStore + Sync>;
/// Opens it; at the first use, so that an agent without groups has no file of them.
pub type OpenStore = Box<dyn FnOnce() -> Result<Store, String> + Send>;

/// Jobs that wait for the thread; callers wait beyond it.
const JOBS: usize = 64;

type Job = Box<dyn FnOnce(&mut Owned) + Send>;

/// What the thread owns.
pub(crate) struct Owned {
    pub(crate) groups: NamedGroups<Groups<Store>>,
    pub(crate) history: History,
    /// Of the groups that are here.
    pub(crate) stats: BTreeMap<GroupId, GroupStats>,
    /// The shards of cards that were read when it was opened.
    pub(crate) subscribed: Vec<Subscribed>,
    /// Groups of which what was written before this agent came in is still to be asked for.
    pub(super) wants_past: BTreeSet<GroupId>,
    metrics: Arc<GroupsMetrics>,
    pub(super) store: Store,
    clock: Arc<dyn Clock>,
}

impl Owned {
    fn open(
        store: Store,
        Shared { key, clock, metrics, mls: of_mls }: Shared,
    ) -> Result<Self, GroupsError> {
        let mls = Groups::open(Arc::clone(&store), Arc::clone(&key), clock.wall())?;
        // Nobody else sets it.
        let _ = of_mls.set(mls.metrics());
        let mut groups = NamedGroups::over(mls, key);
        let mut kept: BTreeMap<GroupId, BTreeMap<u32, Bytes>> = BTreeMap::new();
        let (mut spoken, mut subscribed) = (Vec::new(), Vec::new());
        let mut wants_past = BTreeSet::new();
        for entry in store.load(Space::Named)? {
            match named(&entry.key) {
                Some((group, Named::Operation(number))) => {
                    let operation = Bytes::copy_from_slice(&entry.value);
                    kept.entry(group).or_default().insert(number, operation);
                }
                Some((group, Named::Spoken(id))) => spoken.push((group, id, entry.value)),
                Some((group, Named::WantsPast)) => drop(wants_past.insert(group)),
                None => subscribed.extend(subscribed::read(&entry)),
            }
        }
        subscribed.truncate(MAX_SUBSCRIPTIONS);
        let mut whole = true;
        for (group, operations) in kept {
            let operations: Vec<Bytes> = operations.into_values().collect();
            // Each is on its own: a damaged one costs no other.
            if let Err(error) = groups.restore(&operations) {
                tracing::warn!(%group, %error, "a stored group is damaged");
                whole = false;
            }
        }
        // Of a damaged group the keys may still be of use.
        if whole {
            groups.forget_orphans()?;
        }
        for (group, id, record) in spoken {
            groups.remember(group, id, &record);
        }
        wants_past.retain(|group| groups.ids().contains(group));
        let told = groups.resume();
        let (history, stats) = (History::default(), BTreeMap::new());
        let mut owned =
            Self { groups, history, stats, subscribed, wants_past, metrics, store, clock };
        for (group, happened) in told {
            owned.keep(group, happened)?;
        }
        Ok(owned)
    }

    pub(crate) fn now(&self) -> WallTime {
        self.clock.wall()
    }

    /// Writes what changed, before anything that rests on it leaves.
    pub(crate) fn save(&mut self) -> Result<(), GroupsError> {
        self.save_with(Batch::new())
    }

    /// The same in one transaction with something else.
    fn save_with(&mut self, mut batch: Batch) -> Result<(), GroupsError> {
        for group in self.groups.forgotten() {
            batch.push(Change::Drop(Space::History(*group.as_bytes())));
            self.stats.remove(group);
            self.wants_past.remove(group);
            let entries = self.store.load(Space::Named)?.into_iter();
            let own = entries.filter(|entry| entry.key.starts_with(group.as_bytes()));
            batch.extend(own.map(|entry| Change::Cut(Space::Named, entry.key, 0)));
        }
        for unsaved in self.groups.unsaved() {
            let key = [unsaved.group.as_bytes().as_slice(), &unsaved.number.to_be_bytes()].concat();
            let value = Zeroizing::new(unsaved.operation.to_vec());
            batch.push(Change::Put(Space::Named, Entry { key, chunk: 0, value }));
        }
        for spoken in self.groups.spoken() {
            let key = [spoken.group.as_bytes().as_slice(), &spoken.id].concat();
            batch.push(match &spoken.record {
                Some(value) => {
                    Change::Put(Space::Named, Entry { key, chunk: 0, value: value.clone() })
                }
                None => Change::Cut(Space::Named, key, 0),
            });
        }
        if !batch.is_empty() {
            self.store.commit(batch)?;
        }
        Ok(self.groups.saved()?)
    }

    /// Writes what belongs to no group.
    pub(crate) fn commit(&self, change: Change) -> Result<(), GroupsError> {
        Ok(self.store.commit(vec![change])?)
    }

    /// Takes items of a group's log. What members wrote is in the history once this returns.
    pub(crate) fn receive(
        &mut self,
        group: GroupId,
        items: &[(AgentId, Bytes)],
    ) -> Result<Vec<Happened>, GroupsError> {
        let mut happened = Vec::new();
        for (author, item) in items {
            self.metrics.taken.inc();
            let stats = self.stats.entry(group).or_default();
            stats.taken += 1;
            match self.groups.receive(group, item) {
                Ok(events) => happened.extend(events),
                Err(error) => {
                    stats.refused(&error, &self.metrics);
                    tracing::debug!(%group, author = %author.short(), %error, "an item of a group is refused");
                    happened.push(Happened::Refused);
                }
            }
        }
        self.keep(group, happened)
    }

    /// Comes into a group by what was handed over.
    pub(crate) fn enter(
        &mut self,
        group: GroupId,
        handover: &Handover,
    ) -> Result<Vec<Happened>, GroupsError> {
        let new = !self.groups.ids().contains(&group);
        let happened = self.groups.enter(group, handover)?;
        if new {
            self.came_in(group)?;
        }
        self.keep(group, happened)
    }

    /// Takes operations that another member had.
    pub(crate) fn catch_up(
        &mut self,
        group: GroupId,
        operations: &[Bytes],
    ) -> Result<Vec<Happened>, GroupsError> {
        let happened = self.groups.catch_up(group, operations)?;
        self.keep(group, happened)
    }

    /// Writes down what members wrote, and acknowledges it to MLS. What happened, without what was written down
    /// before.
    fn keep(
        &mut self,
        group: GroupId,
        happened: Vec<Happened>,
    ) -> Result<Vec<Happened>, GroupsError> {
        let (at, shared) = (self.now(), self.shares(group));
        let (mut read, mut told) = (Vec::new(), Vec::new());
        for event in happened {
            let stats = self.stats.entry(group).or_default();
            stats.happened(&event, at, &self.metrics);
            if let Happened::Text { journal, author, room, id, payload } = &event {
                read.push(*journal);
                let text = Written { author: *author, room, id: *id, payload, at, shared };
                let Some(addition) = self.history.add(&*self.store, group, &text)? else {
                    continue;
                };
                self.write(addition)?;
            }
            told.push(event);
        }
        self.save()?;
        self.groups.acknowledge(&read)?;
        Ok(told)
    }

    fn write(&mut self, mut addition: Addition) -> Result<(), GroupsError> {
        self.save_with(std::mem::take(&mut addition.batch))?;
        self.history.added(addition);
        Ok(())
    }

    /// Says something to the members, and writes it down.
    pub(crate) fn send(
        &mut self,
        group: GroupId,
        room: &str,
        id: [u8; 16],
        payload: &Bytes,
    ) -> Result<(), GroupsError> {
        self.groups.send(group, room, id, payload.clone())?;
        let (author, at, shared) = (self.groups.agent(), self.now(), self.shares(group));
        let text = Written { author, room, id, payload, at, shared };
        match self.history.add(&*self.store, group, &text)? {
            Some(addition) => self.write(addition),
            None => self.save(),
        }
    }

    /// What was written in a group, as far as it is kept.
    pub(crate) fn read(&mut self, group: GroupId) -> Result<Vec<super::Text>, GroupsError> {
        self.history.read(&*self.store, group)
    }
}

/// What of a group an entry is.
enum Named {
    /// The operation of this number.
    Operation(u32),
    /// A text of this agent that may have to be said again.
    Spoken([u8; 16]),
    /// What was written before this agent came in is to be asked for.
    WantsPast,
}

fn named(key: &[u8]) -> Option<(GroupId, Named)> {
    let (group, name) = key.split_first_chunk::<32>()?;
    if name == past::WANTED {
        return Some((GroupId::new(*group), Named::WantsPast));
    }
    let number = name.try_into().map(|number| Named::Operation(u32::from_be_bytes(number)));
    let named = number.or_else(|_| name.try_into().map(Named::Spoken)).ok()?;
    Some((GroupId::new(*group), named))
}

/// Reaches the thread. It begins with the first job.
pub(crate) struct Worker {
    state: Mutex<State>,
    shared: Shared,
}

/// What the thread needs to open the groups.
#[derive(Clone)]
struct Shared {
    key: Arc<SecretKey>,
    clock: Arc<dyn Clock>,
    metrics: Arc<GroupsMetrics>,
    /// Those of MLS, once it is opened.
    mls: Arc<OnceLock<Arc<MlsMetrics>>>,
}

enum State {
    Idle(OpenStore),
    Running(mpsc::Sender<Job>),
    Ended,
}

impl Worker {
    pub(crate) fn new(
        open: OpenStore,
        key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
        metrics: Arc<GroupsMetrics>,
    ) -> Self {
        let shared = Shared { key, clock, metrics, mls: Arc::default() };
        Self { state: Mutex::new(State::Idle(open)), shared }
    }

    /// The counters of MLS: all zero before it is opened.
    pub(crate) fn mls_metrics(&self) -> Arc<MlsMetrics> {
        self.shared.mls.get().map(Arc::clone).unwrap_or_default()
    }

    /// Whether there was a job yet.
    pub(crate) fn runs(&self) -> bool {
        matches!(*self.lock(), State::Running(_))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> Result<mpsc::Sender<Job>, GroupsError> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Ended) {
            State::Running(jobs) => {
                *state = State::Running(jobs.clone());
                Ok(jobs)
            }
            State::Ended => Err(GroupsError::Closed),
            State::Idle(open) => {
                let (jobs, queue) = mpsc::channel(JOBS);
                let shared = self.shared.clone();
                let run = move || own(open, shared, queue);
                let spawned = thread::Builder::new().name("x0x-groups".to_owned()).spawn(run);
                spawned.map_err(|error| GroupsError::Unusable(error.to_string()))?;
                *state = State::Running(jobs.clone());
                Ok(jobs)
            }
        }
    }

    /// Has the thread do something, and waits for what came of it.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Owned) -> Result<R, GroupsError> + Send + 'static,
    ) -> Result<R, GroupsError> {
        let jobs = self.jobs()?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |owned| drop(reply.send(job(owned))));
        jobs.send(job).await.map_err(|_| GroupsError::Closed)?;
        answer.await.unwrap_or(Err(GroupsError::Closed))
    }

    /// Nothing more is done than what waits already.
    pub(crate) fn close(&self) {
        *self.lock() = State::Ended;
    }
}

fn own(open: OpenStore, shared: Shared, mut queue: mpsc::Receiver<Job>) {
    let opened = open().map_err(GroupsError::Unusable);
    match opened.and_then(|store| Owned::open(store, shared)) {
        Ok(mut owned) => {
            while let Some(job) = queue.blocking_recv() {
                job(&mut owned);
            }
        }
        // Whoever waits is told that it is closed.
        Err(error) => tracing::error!(%error, "the groups cannot be opened"),
    }
}

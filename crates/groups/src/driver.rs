//! The tokio shell: a task for each group's log, one thread that owns all groups, and what other agents ask.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, broadcast, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{AgentId, Clock, WallTime};
use x0x_gossip_pubsub::PubSub;
use x0x_identity::SecretKey;

mod cards;
mod compare;
mod follow;
mod fragments;
mod history;
mod past;
mod questions;
mod stats;
pub(crate) mod subscribed;
mod worker;

pub use cards::MAX_OWN_SHARDS;
pub(crate) use cards::{Cards, From as CardFrom};
pub use fragments::{Fragments, MAX_PARTIAL, MAX_PARTIAL_BYTES, PART, split};
pub use stats::GroupStats;
pub use worker::{OpenStore, Store};

/// What the thread owns of the groups.
pub(crate) type Groups = crate::session::NamedGroups<x0x_mls::Groups<Store>>;

use crate::{
    courier::Courier,
    directory::Subscribed,
    error::GroupsError,
    metrics::GroupsMetrics,
    session::Happened,
    wire::{GroupId, OpId},
};
use worker::Worker;

/// Longest wait for the last that is published in a group.
const PUBLISHED: Duration = Duration::from_secs(5);
/// Events that wait for a slow listener before it misses some.
const EVENTS: usize = 1024;

/// Something that a member wrote in an encrypted group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Text {
    /// Counts the texts of the group here, from 0.
    pub number: u64,
    /// Who wrote it.
    pub author: AgentId,
    /// In which room; empty for the first.
    pub room: String,
    /// Its author's name for it.
    pub id: [u8; 16],
    /// When it came, or was written here.
    pub at: WallTime,
    /// What.
    pub payload: Bytes,
    /// The member that handed it over, who alone says that its author wrote it; none of what was read in the log.
    pub handed_by: Option<AgentId>,
}

/// What happened in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEvent {
    /// Where.
    pub group: GroupId,
    /// What.
    pub kind: GroupEventKind,
}

/// Kinds of [`GroupEvent`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupEventKind {
    /// This agent came into it, or founded it.
    Entered,
    /// Its state is another.
    State {
        /// By this operation.
        operation: OpId,
    },
    /// It has other keys.
    Epoch {
        /// The epoch now.
        epoch: u64,
    },
    /// A member wrote.
    Text {
        /// Who.
        author: AgentId,
        /// In which room.
        room: String,
        /// What.
        payload: Bytes,
    },
    /// A member wrote something that cannot be read here: see [`Happened::Unreadable`].
    Unreadable {
        /// The epoch in which it was written.
        epoch: u64,
    },
    /// A public message is shown.
    Message {
        /// Its id.
        id: [u8; 32],
    },
    /// What was written before this agent came in is in the history now.
    Past {
        /// Who handed it over.
        by: AgentId,
        /// Texts that are new here.
        texts: usize,
    },
    /// This agent is not in it any more.
    Left,
}

impl GroupEventKind {
    fn of(happened: Happened) -> Option<Self> {
        Some(match happened {
            Happened::State { operation } => Self::State { operation },
            Happened::Text { author, room, payload, .. } => Self::Text { author, room, payload },
            Happened::Message { id, .. } => Self::Message { id },
            Happened::Epoch { epoch } => Self::Epoch { epoch },
            Happened::Unreadable { epoch } => Self::Unreadable { epoch },
            Happened::Out => Self::Left,
            Happened::Refused => return None,
        })
    }
}

/// Whom the layer above lets do what.
pub trait Admittance: Send + Sync + 'static {
    /// Whether an agent may ask anything.
    fn may_ask(&self, agent: &AgentId) -> bool;

    /// Whether an agent may bring this one into a group that it did not ask for.
    fn may_bring(&self, agent: &AgentId) -> bool;

    /// Whether what an agent writes is shown.
    fn may_speak(&self, agent: &AgentId) -> bool;

    /// Whether an agent's key was revoked for everybody: it has no place in any group.
    fn is_revoked(&self, agent: &AgentId) -> bool;
}

/// What the service is made of.
pub struct GroupsConfig {
    /// Where the groups' logs are.
    pub pubsub: Arc<dyn PubSub>,
    /// Asks other agents.
    pub courier: Arc<dyn Courier>,
    /// Whom it lets do what.
    pub admittance: Arc<dyn Admittance>,
    /// This agent's key.
    pub key: Arc<SecretKey>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Opens where they are kept.
    pub open: OpenStore,
}

/// What handles and tasks share.
pub(crate) struct Inner {
    pub(crate) worker: Worker,
    pub(crate) me: AgentId,
    pub(crate) key: Arc<SecretKey>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) courier: Arc<dyn Courier>,
    pub(crate) admittance: Arc<dyn Admittance>,
    pub(crate) events: broadcast::Sender<GroupEvent>,
    pub(crate) cards: Cards,
    pub(crate) metrics: Arc<GroupsMetrics>,
    pubsub: Arc<dyn PubSub>,
    logs: Mutex<BTreeMap<GroupId, Following>>,
    /// Groups into which somebody may bring this agent: since when it asks for it, and whom it asked.
    pub(crate) wanted: Mutex<BTreeMap<GroupId, (WallTime, AgentId)>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What a log's task is told from outside.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    /// There is something to publish.
    work: Notify,
    /// Somebody who has operations that are not here.
    ahead: Mutex<Option<AgentId>>,
}

impl Wake {
    fn ahead(&self) -> MutexGuard<'_, Option<AgentId>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log's task.
struct Following {
    wake: Arc<Wake>,
    /// Changes whenever everything is published that there was.
    published: watch::Receiver<()>,
    stop: CancellationToken,
}

impl fmt::Debug for GroupsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupsConfig").field("courier", &self.courier).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").field("agent", &self.me.short()).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn new(config: GroupsConfig) -> Arc<Self> {
        let GroupsConfig { pubsub, courier, admittance, key, clock, open } = config;
        let me = key.public_key().agent_id();
        let metrics = Arc::<GroupsMetrics>::default();
        let worker = Worker::new(open, Arc::clone(&key), Arc::clone(&clock), Arc::clone(&metrics));
        Arc::new(Self {
            worker,
            me,
            key,
            clock,
            courier,
            admittance,
            events: broadcast::Sender::new(EVENTS),
            cards: Cards::default(),
            metrics,
            pubsub,
            logs: Mutex::default(),
            wanted: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    fn logs(&self) -> MutexGuard<'_, BTreeMap<GroupId, Following>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wanted(&self) -> MutexGuard<'_, BTreeMap<GroupId, (WallTime, AgentId)>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the logs of all groups that are here, and reads the cards of the shards that it read before.
    pub(crate) async fn follow_all(self: &Arc<Self>) -> Result<(), GroupsError> {
        let opened = self
            .worker
            .run(|owned| Ok((owned.groups.ids(), std::mem::take(&mut owned.subscribed))));
        let (groups, subscribed) = opened.await?;
        for Subscribed { kind, shard, key, since } in subscribed {
            if self.cards.directory().subscribe(kind, shard, key, since).is_some() {
                self.watch((kind, shard), false);
            }
        }
        for group in groups {
            self.follow(group);
        }
        Ok(())
    }

    /// Follows a group's log, if it is not followed yet.
    pub(crate) fn follow(self: &Arc<Self>, group: GroupId) {
        let mut logs = self.logs();
        if logs.contains_key(&group) || self.stop.is_cancelled() {
            return;
        }
        let (wake, stop) = (Arc::<Wake>::default(), self.stop.child_token());
        let (done, published) = watch::channel(());
        let following = follow::Following::new(self, group, Arc::clone(&wake), done, stop.clone());
        logs.insert(group, Following { wake, published, stop });
        drop(logs);
        self.tasks.spawn(following.run());
    }

    /// Whether a group's log is followed.
    pub(crate) fn follows(&self, group: &GroupId) -> bool {
        self.logs().contains_key(group)
    }

    /// Does not follow a log any more.
    pub(crate) fn unfollow(&self, group: GroupId) {
        if let Some(following) = self.logs().remove(&group) {
            following.stop.cancel();
        }
    }

    /// There is something to publish.
    pub(crate) fn wake(&self, group: GroupId) {
        if let Some(following) = self.logs().get(&group) {
            following.wake.work.notify_one();
        }
    }

    /// An agent has operations of a group that are not here.
    pub(crate) fn is_ahead(&self, group: GroupId, agent: AgentId) {
        if let Some(following) = self.logs().get(&group) {
            *following.wake.ahead() = Some(agent);
        }
    }

    /// Waits a while until everything is published that there is to be now.
    pub(crate) async fn published(&self, group: GroupId) {
        let following =
            self.logs().get(&group).map(|log| (log.wake.clone(), log.published.clone()));
        let Some((wake, mut published)) = following else { return };
        // The first time may have begun before.
        for _ in 0..2 {
            published.mark_unchanged();
            wake.work.notify_one();
            if !matches!(timeout(PUBLISHED, published.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    pub(crate) fn tell(&self, group: GroupId, happened: Vec<Happened>) {
        for event in happened {
            let silent = match &event {
                Happened::Text { author, .. } | Happened::Message { author, .. } => {
                    !self.admittance.may_speak(author)
                }
                _ => false,
            };
            if let Some(kind) = GroupEventKind::of(event).filter(|_| !silent) {
                self.note(group, kind);
            }
        }
    }

    pub(crate) fn note(&self, group: GroupId, kind: GroupEventKind) {
        // Nobody may listen.
        let _ = self.events.send(GroupEvent { group, kind });
    }

    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.worker.close();
    }
}

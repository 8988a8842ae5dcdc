//! What users hold: the objects of an agent, and a replica of one.

use std::{
    any::Any,
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{AgentId, Clock, TopicId};
use x0x_gossip_pubsub::PubSub;

use crate::{
    config::{MAX_COMMANDS, MAX_OBJECTS, MAX_OPEN},
    descriptor::Descriptor,
    dot::Dot,
    driver::{self, Command, Decide, Failure, Parts, Scope},
    error::{OpenError, WriteError},
    metrics::CrdtMetrics,
    notes::{self, Notes, Watch},
    object::{Object, WriteContext},
    policy::{Policy, PolicyChange},
    state::{Change, Refusal},
    store::CrdtStore,
};

/// What the objects of an agent are started with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ObjectsConfig {
    /// Where operations go and come from.
    pub pubsub: Arc<dyn PubSub>,
    /// Where replicas survive a restart.
    pub store: Arc<dyn CrdtStore>,
    /// Who writes: the author of that pubsub.
    pub me: AgentId,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl ObjectsConfig {
    /// What it takes.
    #[must_use]
    pub fn new(
        pubsub: Arc<dyn PubSub>,
        store: Arc<dyn CrdtStore>,
        me: AgentId,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { pubsub, store, me, clock }
    }
}

/// The replicated objects of an agent. Clones share them.
#[derive(Debug, Clone)]
pub struct Objects(Arc<Inner>);

struct Inner {
    config: ObjectsConfig,
    metrics: Arc<CrdtMetrics>,
    open: Mutex<BTreeMap<TopicId, Slot>>,
    /// Held while one is opened, so that none is opened twice.
    opening: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("me", &self.config.me).finish_non_exhaustive()
    }
}

/// An open object: its replica, whatever its type.
struct Slot {
    replica: Box<dyn Any + Send>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// An object that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Known {
    /// Which.
    pub object: Descriptor,
    /// Whether it is open.
    pub open: bool,
}

impl Objects {
    /// Starts without an open object. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(config: ObjectsConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            metrics: Arc::default(),
            open: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Opens an object, which creates or joins it: there is no difference. It is remembered, and kept in
    /// step until it is [closed](Self::close). Returns once what the local log holds is applied, or a
    /// part of that if it is much.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open<T: Object>(&self, object: Descriptor) -> Result<Replica<T>, OpenError> {
        let inner = &self.0;
        if !object.is_valid() || object.kind != T::KIND {
            return Err(if object.kind == T::KIND { OpenError::Name } else { OpenError::Type });
        }
        let id = object.id();
        let _alone = inner.opening.lock().await;
        if let Some(replica) = inner.find::<T>(&id)? {
            return Ok(replica);
        }
        if inner.stop.is_cancelled() {
            return Err(OpenError::Closed);
        }
        let store = &inner.config.store;
        let known = store.objects().await?;
        let is_known = known.iter().any(|known| known.id() == id);
        if inner.slots().len() >= MAX_OPEN || (!is_known && known.len() >= MAX_OBJECTS) {
            return Err(OpenError::Limit);
        }
        store.remember(object.clone()).await?;
        let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
        // Numbers rise across runs, with room for a million notes a second; below 2^53, which JavaScript
        // can count to.
        let (teller, notes) = notes::notes((inner.config.clock.wall().as_secs() << 20) + 1);
        let (stop, tasks) = (inner.stop.child_token(), TaskTracker::new());
        let parts = Parts {
            object: object.clone(),
            config: inner.config.clone(),
            metrics: Arc::clone(&inner.metrics),
            commands: inbox,
            notes: teller,
            stop: stop.clone(),
            known: is_known,
        };
        let (ready, opened) = oneshot::channel();
        let task = inner.tasks.track_future(driver::run::<T>(parts, ready));
        tasks.spawn(task);
        tasks.close();
        opened.await.map_err(|_| OpenError::Closed)??;
        let replica = Replica { object: Arc::new(object), commands, notes };
        let slot = Slot { replica: Box::new(replica.clone()), stop, tasks };
        inner.slots().insert(id, slot);
        inner.metrics.open.set(inner.slots().len() as u64);
        Ok(replica)
    }

    /// Opens an object that is known by its id.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_known<T: Object>(&self, id: TopicId) -> Result<Replica<T>, OpenError> {
        if let Some(replica) = self.0.find::<T>(&id)? {
            return Ok(replica);
        }
        let known = self.0.config.store.objects().await?;
        let object = known.into_iter().find(|object| object.id() == id);
        self.open(object.ok_or(OpenError::Unknown)?).await
    }

    /// The objects that are known.
    ///
    /// # Errors
    /// [`OpenError::Store`].
    pub async fn known(&self) -> Result<Vec<Known>, OpenError> {
        let objects = self.0.config.store.objects().await?;
        let slots = self.0.slots();
        let known = objects.into_iter().map(|object| {
            let open = slots.contains_key(&object.id());
            Known { object, open }
        });
        Ok(known.collect())
    }

    /// Closes an object: its replica is saved, and not kept in step any more. Returns whether it was
    /// open.
    pub async fn close(&self, id: TopicId) -> bool {
        let slot = self.0.slots().remove(&id);
        self.0.metrics.open.set(self.0.slots().len() as u64);
        let Some(slot) = slot else { return false };
        slot.stop.cancel();
        slot.tasks.wait().await;
        true
    }

    /// Closes an object and forgets it here. Others keep it.
    ///
    /// # Errors
    /// [`OpenError::Store`].
    pub async fn forget(&self, id: TopicId) -> Result<(), OpenError> {
        self.close(id).await;
        Ok(self.0.config.store.forget(id).await?)
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<CrdtMetrics> {
        &self.0.metrics
    }

    /// Closes all objects.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.slots().clear();
    }
}

impl Inner {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<TopicId, Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replica of an object that is open and runs.
    fn find<T: Object>(&self, id: &TopicId) -> Result<Option<Replica<T>>, OpenError> {
        let mut slots = self.slots();
        let Some(slot) = slots.get(id) else { return Ok(None) };
        let replica = slot.replica.downcast_ref::<Replica<T>>().ok_or(OpenError::Type)?;
        if replica.commands.is_closed() {
            slots.remove(id);
            return Ok(None);
        }
        Ok(Some(replica.clone()))
    }
}

/// What a replica is like now.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// Operations applied.
    pub applied: u64,
    /// Operations that wait for others.
    pub pending: usize,
    /// Operations that all replicas skip.
    pub invalid: u64,
    /// The last of those, the oldest first.
    pub refusals: Vec<Refusal>,
    /// Chains that wrote in it.
    pub actors: usize,
    /// Own writes on their way.
    pub in_flight: usize,
    /// Bytes of content, nearly.
    pub bytes: usize,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// It is being rebuilt, and shows what was before.
    pub rebuilding: bool,
    /// Times that the log lacked entries, since the object was opened.
    pub lagged: u64,
    /// Equal on replicas that processed the same operations.
    pub hash: [u8; 32],
    /// The checkpoint that the replica stands on, by its number; 0 when there is none.
    pub checkpoint: u64,
}

/// What a watcher is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Note<E> {
    /// An operation was applied.
    Changed(Change<E>),
    /// The policy changed.
    Policy(Arc<Policy>),
    /// What was told before is not what holds, since operations turned out to be invalid: read anew.
    Rebuilt,
    /// The watcher was too slow for so many notes: read anew.
    Lagged(u64),
}

/// A replica of an open object. Clones share it.
pub struct Replica<T: Object> {
    object: Arc<Descriptor>,
    commands: mpsc::Sender<Command<T>>,
    notes: Notes<T::Event>,
}

impl<T: Object> Clone for Replica<T> {
    fn clone(&self) -> Self {
        let (object, commands) = (Arc::clone(&self.object), self.commands.clone());
        Self { object, commands, notes: self.notes.clone() }
    }
}

impl<T: Object> fmt::Debug for Replica<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("object", &self.object).finish_non_exhaustive()
    }
}

impl<T: Object> Replica<T> {
    /// Which object.
    #[must_use]
    pub fn object(&self) -> &Descriptor {
        &self.object
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.object.id()
    }

    /// Writes an operation whatever the state is. Answered once it is in the log, stored, and applied
    /// here. A call that is dropped may have written it.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write(&self, op: T::Op) -> Result<Dot, WriteError<Infallible>> {
        self.send(Scope::Nothing, Box::new(move |_, _| Some(op))).await.map_err(|failure| {
            match failure {
                Failure::Declined => WriteError::Closed,
                Failure::Error(error) => error,
            }
        })
    }

    /// Decides by the state what to write, when all own writes before it are applied and before any
    /// other is: a compare-and-set against what is seen here. Concurrent writes of others may still
    /// come, and the type decides between them.
    ///
    /// # Errors
    /// [`WriteError::Condition`] with what `decide` returned; else as [`write`](Self::write).
    pub async fn write_with<R: Send + 'static>(
        &self,
        decide: impl FnOnce(&T, &WriteContext<'_>) -> Result<T::Op, R> + Send + 'static,
    ) -> Result<Dot, WriteError<R>> {
        self.write_in(Scope::Everything, decide).await
    }

    /// The same, where `decide` looks at one part of the state only, and writes in it only: own writes to other parts
    /// may be on their way. So many of them share a signature. The name of a part is the caller's.
    ///
    /// # Errors
    /// As [`write_with`](Self::write_with).
    pub async fn write_part_with<R: Send + 'static>(
        &self,
        part: &str,
        decide: impl FnOnce(&T, &WriteContext<'_>) -> Result<T::Op, R> + Send + 'static,
    ) -> Result<Dot, WriteError<R>> {
        self.write_in(Scope::Part(part.into()), decide).await
    }

    async fn write_in<R: Send + 'static>(
        &self,
        scope: Scope,
        decide: impl FnOnce(&T, &WriteContext<'_>) -> Result<T::Op, R> + Send + 'static,
    ) -> Result<Dot, WriteError<R>> {
        let (declined, reason) = oneshot::channel();
        let decide: Decide<T> = Box::new(move |state, cx| match decide(state, cx) {
            Ok(op) => Some(op),
            Err(reason) => {
                // Who does not wait any more does not want to know.
                let _ = declined.send(reason);
                None
            }
        });
        match self.send(scope, decide).await {
            Ok(dot) => Ok(dot),
            Err(Failure::Declined) => {
                Err(reason.await.map_or(WriteError::Closed, WriteError::Condition))
            }
            Err(Failure::Error(error)) => Err(widen(&error)),
        }
    }

    async fn send(&self, scope: Scope, decide: Decide<T>) -> Result<Dot, Failure> {
        let closed = || Failure::Error(WriteError::Closed);
        let (reply, answer) = oneshot::channel();
        let command = Command::Write { scope, decide, reply };
        self.commands.send(command).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Changes the policy: the owner alone can.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn change_policy(&self, change: PolicyChange) -> Result<Dot, WriteError<Infallible>> {
        self.send_change(Box::new(move |_| change)).await
    }

    /// Removes an agent, with all of it that is not seen here.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn remove(&self, agent: AgentId) -> Result<Dot, WriteError<Infallible>> {
        self.send_change(Box::new(move |machine| PolicyChange::Remove {
            agent,
            cut: machine.cut(&agent),
        }))
        .await
    }

    async fn send_change(
        &self,
        change: driver::Changing<T>,
    ) -> Result<Dot, WriteError<Infallible>> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Policy { change, reply };
        self.commands.send(command).await.map_err(|_| WriteError::Closed)?;
        match answer.await {
            Ok(Ok(dot)) => Ok(dot),
            Ok(Err(Failure::Error(error))) => Err(error),
            Ok(Err(Failure::Declined)) | Err(_) => Err(WriteError::Closed),
        }
    }

    /// Reads the state. None once the object is closed. What is read should be little: the replica waits.
    pub async fn read<U: Send + 'static>(
        &self,
        read: impl FnOnce(&T) -> U + Send + 'static,
    ) -> Option<U> {
        let (reply, answer) = oneshot::channel();
        let read = Box::new(move |state: &T| {
            // Who does not wait any more does not want to know.
            let _ = reply.send(read(state));
        });
        self.commands.send(Command::Read(read)).await.ok()?;
        answer.await.ok()
    }

    /// What happens to the object from now on, or after the note of this number. A place that is not known
    /// any more is told with [`Note::Lagged`].
    #[must_use]
    pub fn watch(&self, after: Option<u64>) -> Watch<T::Event> {
        self.notes.watch(after)
    }

    /// What it is like; none once it is closed. Hashes the whole state.
    pub async fn status(&self) -> Option<Status> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Status(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// The same error for a caller with a condition.
fn widen<R>(error: &WriteError<Infallible>) -> WriteError<R> {
    match error {
        WriteError::Condition(never) => match *never {},
        WriteError::Refused(reason) => WriteError::Refused(*reason),
        WriteError::TooLarge { len } => WriteError::TooLarge { len: *len },
        WriteError::Full => WriteError::Full,
        WriteError::Busy => WriteError::Busy,
        WriteError::Interrupted => WriteError::Interrupted,
        WriteError::Log(error) => WriteError::Log(*error),
        WriteError::Closed => WriteError::Closed,
    }
}

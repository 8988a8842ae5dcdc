//! Task lists and key-value stores in the composition: which there are here, and what they are called.

mod unstored;

use std::{
    fmt,
    marker::PhantomData,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use x0x_core::{AgentId, Clock, DecodeError, WallTime};
use x0x_gossip_crdt::{
    CrdtStore, Decoder, Descriptor, Encoder, MAX_OPEN, Objects, ObjectsConfig, OpenError,
    PolicyChange, Replica, Status, WriteContext, kv::KvStore, tasks::TaskList,
};
use x0x_identity::private_file::{self, Access};
use x0x_store::SqliteStore;

use crate::{Agent, AgentConfig, Storage};
use unstored::Unstored;

pub use x0x_gossip_crdt::{Change, Note, Object, Policy, Watch, WriteError};

/// Longest topic of an object in bytes.
pub const MAX_OBJECT_TOPIC: usize = 128;
/// Longest title of an object in bytes.
pub const MAX_TITLE: usize = 256;
/// Most objects of an agent, task lists and stores together.
pub const MAX_SHARED: usize = MAX_OPEN;
/// The file of their names in the data folder.
pub(crate) const OBJECTS: &str = "objects";
/// Its largest size in bytes.
const MAX_FILE: usize = 256 * 1024;
/// Version of its format.
const FORMAT: u64 = 1;

/// What names an object of a kind on the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its topic: 1 to [`MAX_OBJECT_TOPIC`] bytes without `@`, `/` and control characters.
    pub topic: String,
    /// Whose it is; nobody's when whoever knows the topic may write.
    pub owner: Option<AgentId>,
}

impl ObjectName {
    /// Reads a name as it is shown: the topic, and where there is an owner `@` and its id.
    ///
    /// # Errors
    /// [`ObjectError::Name`].
    pub fn parse(text: &str) -> Result<Self, ObjectError> {
        let (topic, owner) = match text.rsplit_once('@') {
            Some((topic, owner)) => {
                let owner = owner.parse();
                (topic, Some(owner.map_err(|_| ObjectError::Name("the owner is no agent id"))?))
            }
            None => (text, None),
        };
        let reserved = |letter: char| matches!(letter, '@' | '/') || letter.is_control();
        if topic.is_empty() || topic.len() > MAX_OBJECT_TOPIC || topic.chars().any(reserved) {
            let text = "a topic has 1 to 128 bytes without `@`, `/` and control characters";
            return Err(ObjectError::Name(text));
        }
        Ok(Self { topic: topic.to_owned(), owner })
    }

    fn descriptor(&self, kind: &str) -> Descriptor {
        match self.owner {
            Some(owner) => Descriptor::owned(kind, &self.topic, owner),
            None => Descriptor::open(kind, &self.topic),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.topic)?;
        match self.owner {
            Some(owner) => write!(f, "@{owner}"),
            None => Ok(()),
        }
    }
}

/// An object was not opened or changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// What names it does not.
    #[error("{0}")]
    Name(&'static str),
    /// There are as many as there may be.
    #[error("limit reached: task lists and stores (at most {MAX_SHARED})")]
    Limit,
    /// It could not be read or stored here.
    #[error("not stored: {0}")]
    Store(String),
    /// The change of its policy was refused.
    #[error(transparent)]
    Write(#[from] WriteError<std::convert::Infallible>),
    /// The agent is stopping, or the object was left.
    #[error("the object is closed")]
    Closed,
}

impl From<OpenError> for ObjectError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Limit => Self::Limit,
            OpenError::Closed => Self::Closed,
            error => Self::Store(error.to_string()),
        }
    }
}

/// Who may write to a new object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Writers {
    /// Whoever knows its topic; it has no owner.
    Everyone,
    /// Whoever knows its name; this agent owns it.
    OwnedByAll,
    /// This agent alone.
    Owner,
    /// This agent, and these.
    Listed(Vec<AgentId>),
}

/// What is created.
#[derive(Debug, Clone)]
pub struct NewObject {
    /// Its topic, or the whole name of an object of another agent, which is joined.
    pub topic: String,
    /// What it is called here.
    pub title: String,
    /// Who may write.
    pub writers: Writers,
    /// Which rules of its type hold, such as [`Rules::kind`](x0x_gossip_crdt::kv::Rules::kind).
    pub kind: u32,
}

/// An object that this agent keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    kind: String,
    name: ObjectName,
    title: String,
}

/// The objects that this agent keeps, on disk.
#[derive(Debug)]
pub(crate) struct Registry {
    records: Mutex<Vec<Record>>,
    file: Option<PathBuf>,
    /// Held while the file is written, so that the last state is the one that stays.
    writing: tokio::sync::Mutex<()>,
}

impl Registry {
    /// Reads what was kept. A file that cannot be read is told and begun anew: the objects are still
    /// with others, and in the log.
    pub(crate) fn open(file: Option<PathBuf>) -> Self {
        let kept = file.as_ref().map(|file| private_file::read(file, MAX_FILE));
        let records = match kept {
            Some(Ok(Some(bytes))) => decode(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "the names of shared objects are damaged");
                Vec::new()
            }),
            Some(Err(error)) => {
                tracing::warn!(%error, "the names of shared objects cannot be read");
                Vec::new()
            }
            Some(Ok(None)) | None => Vec::new(),
        };
        Self { records: Mutex::new(records), file, writing: tokio::sync::Mutex::default() }
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is kept.
    async fn save(&self) -> Result<(), ObjectError> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let _alone = self.writing.lock().await;
        let bytes = encode(&self.records());
        let write = move || private_file::replace(&file, &bytes, Access::Owner);
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ObjectError::Store(error.to_string())),
            Err(_) => Err(ObjectError::Closed),
        }
    }
}

fn encode(records: &[Record]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.number(FORMAT);
    encoder.count(records.len());
    for Record { kind, name, title } in records {
        encoder.text(kind);
        encoder.text(&name.to_string());
        encoder.text(title);
    }
    encoder.finish()
}

fn decode(bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    if decoder.number()? != FORMAT {
        return Err(DecodeError::Field("format"));
    }
    let mut records = Vec::new();
    for _ in 0..decoder.count(3)?.min(MAX_SHARED) {
        let kind = decoder.text(64)?.to_owned();
        let name = ObjectName::parse(decoder.text(MAX_OBJECT_TOPIC + 65)?);
        let title = decoder.text(MAX_TITLE)?.to_owned();
        records.push(Record { kind, name: name.map_err(|_| DecodeError::Field("name"))?, title });
    }
    Ok(records)
}

/// The objects of one type that this agent keeps. Clones share them.
pub struct Shared<T> {
    objects: Objects,
    registry: Arc<Registry>,
    me: AgentId,
    clock: Arc<dyn Clock>,
    object: PhantomData<fn() -> T>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            registry: Arc::clone(&self.registry),
            me: self.me,
            clock: Arc::clone(&self.clock),
            object: PhantomData,
        }
    }
}

impl<T: Object> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("kind", &T::KIND).finish_non_exhaustive()
    }
}

impl<T: Object> Shared<T> {
    pub(crate) fn new(
        objects: &Objects,
        registry: &Arc<Registry>,
        me: AgentId,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self {
            objects: objects.clone(),
            registry: Arc::clone(registry),
            me,
            clock: Arc::clone(clock),
            object: PhantomData,
        }
    }

    /// Their names with their titles.
    #[must_use]
    pub fn list(&self) -> Vec<(ObjectName, String)> {
        let records = self.registry.records();
        let own = records.iter().filter(|record| record.kind == T::KIND);
        own.map(|record| (record.name.clone(), record.title.clone())).collect()
    }

    /// One of them, by its name, or by its topic alone where only one has that.
    ///
    /// # Errors
    /// [`ObjectError`]: it cannot be opened.
    pub async fn get(&self, name: &str) -> Result<Option<SharedObject<T>>, ObjectError> {
        let found = {
            let list = self.list();
            let exact = list.iter().find(|(known, _)| known.to_string() == name);
            let mut of_topic = list.iter().filter(|(known, _)| known.topic == name);
            let only = of_topic.next().filter(|_| of_topic.next().is_none());
            exact.or(only).cloned()
        };
        match found {
            Some((name, title)) => self.open(name, title).await.map(Some),
            None => Ok(None),
        }
    }

    async fn open(&self, name: ObjectName, title: String) -> Result<SharedObject<T>, ObjectError> {
        let descriptor = name.descriptor(T::KIND);
        // One that is open is found at once, also while another one is being opened.
        let replica = match self.objects.open_known(descriptor.id()).await {
            Err(OpenError::Unknown) => self.objects.open(descriptor).await?,
            found => found?,
        };
        Ok(SharedObject { name, title, replica, me: self.me, clock: Arc::clone(&self.clock) })
    }

    /// Opens what was kept, so that it is in step with others.
    pub(crate) async fn open_all(&self) {
        for (name, title) in self.list() {
            if let Err(error) = self.open(name.clone(), title).await {
                tracing::warn!(%error, %name, "a shared object is not opened");
            }
        }
    }

    /// Joins an object of another agent, or the open one of a topic. Returns also whether it is new here.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn join(
        &self,
        name: &str,
        title: Option<String>,
    ) -> Result<(SharedObject<T>, bool), ObjectError> {
        let name = ObjectName::parse(name)?;
        let title = title.unwrap_or_else(|| name.topic.clone());
        self.keep(name, title).await
    }

    /// Creates an object of this agent, or joins the one that is named. To do it again changes nothing but
    /// what is missing of its policy.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn create(&self, new: NewObject) -> Result<(SharedObject<T>, bool), ObjectError> {
        let mut name = ObjectName::parse(&new.topic)?;
        if name.owner.is_some_and(|owner| owner != self.me) || new.writers == Writers::Everyone {
            return self.keep(name, new.title).await;
        }
        name.owner = Some(self.me);
        let (object, is_new) = self.keep(name, new.title).await?;
        let policy = object.status().await?.policy;
        let everyone = new.writers == Writers::OwnedByAll;
        if (policy.kind(), policy.everyone()) != (new.kind, everyone) {
            let change = PolicyChange::Rules { kind: new.kind, everyone };
            object.replica.change_policy(change).await?;
        }
        if let Writers::Listed(agents) = new.writers {
            for agent in agents {
                if !policy.roles().any(|(known, _)| known == agent) {
                    object.allow(agent).await?;
                }
            }
        }
        Ok((object, is_new))
    }

    async fn keep(
        &self,
        name: ObjectName,
        title: String,
    ) -> Result<(SharedObject<T>, bool), ObjectError> {
        if title.len() > MAX_TITLE {
            return Err(ObjectError::Name("a name has at most 256 bytes"));
        }
        let known = self.list().into_iter().find(|(known, _)| *known == name);
        if let Some((name, title)) = known {
            return Ok((self.open(name, title).await?, false));
        }
        if self.registry.records().len() >= MAX_SHARED {
            return Err(ObjectError::Limit);
        }
        let object = self.open(name.clone(), title.clone()).await?;
        {
            let mut records = self.registry.records();
            let record = Record { kind: T::KIND.to_owned(), name, title };
            // Another call may have kept it, or taken the last room, meanwhile.
            if !records.iter().any(|known| known.kind == T::KIND && known.name == record.name) {
                records.push(record);
            }
        }
        self.registry.save().await?;
        Ok((object, true))
    }

    /// Forgets an object here; others keep it.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn leave(&self, object: &SharedObject<T>) -> Result<(), ObjectError> {
        let gone = |record: &Record| record.kind == T::KIND && record.name == object.name;
        self.registry.records().retain(|record| !gone(record));
        self.registry.save().await?;
        Ok(self.objects.forget(object.replica.id()).await?)
    }
}

/// An object that is shared with other agents.
#[derive(Debug, Clone)]
pub struct SharedObject<T: Object> {
    name: ObjectName,
    title: String,
    replica: Replica<T>,
    me: AgentId,
    clock: Arc<dyn Clock>,
}

impl<T: Object> SharedObject<T> {
    /// What names it.
    #[must_use]
    pub const fn name(&self) -> &ObjectName {
        &self.name
    }

    /// What it is called here.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// This agent.
    #[must_use]
    pub const fn me(&self) -> AgentId {
        self.me
    }

    /// Reads its state, with the time.
    ///
    /// # Errors
    /// [`ObjectError::Closed`].
    pub async fn read<U: Send + 'static>(
        &self,
        read: impl FnOnce(&T, WallTime) -> U + Send + 'static,
    ) -> Result<U, ObjectError> {
        let now = self.clock.wall();
        self.replica.read(move |state| read(state, now)).await.ok_or(ObjectError::Closed)
    }

    /// Decides by the state what to write. Returns once it is stored and applied here, with what the
    /// state is like then.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write<R: Send + 'static>(
        &self,
        decide: impl FnOnce(&T, &WriteContext<'_>) -> Result<T::Op, R> + Send + 'static,
    ) -> Result<x0x_gossip_crdt::Dot, WriteError<R>> {
        self.replica.write_with(decide).await
    }

    /// The same, where `decide` looks at one part of the state only, such as a key, and writes in it only: own writes to
    /// other parts do not wait for it, nor it for them.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write_part<R: Send + 'static>(
        &self,
        part: &str,
        decide: impl FnOnce(&T, &WriteContext<'_>) -> Result<T::Op, R> + Send + 'static,
    ) -> Result<x0x_gossip_crdt::Dot, WriteError<R>> {
        self.replica.write_part_with(part, decide).await
    }

    /// What happens to it from now on, or after the note of this number.
    #[must_use]
    pub fn watch(&self, after: Option<u64>) -> Watch<T::Event> {
        self.replica.watch(after)
    }

    /// How it stands here.
    ///
    /// # Errors
    /// [`ObjectError::Closed`].
    pub async fn status(&self) -> Result<Status, ObjectError> {
        self.replica.status().await.ok_or(ObjectError::Closed)
    }

    /// Lets an agent write; of its owner only.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn allow(&self, agent: AgentId) -> Result<(), ObjectError> {
        let change = PolicyChange::Allow { agent, admin: false };
        self.replica.change_policy(change).await?;
        Ok(())
    }

    /// Lets an agent write no more. What is seen of it here stays. Of its owner only.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn remove(&self, agent: AgentId) -> Result<(), ObjectError> {
        self.replica.remove(agent).await?;
        Ok(())
    }
}

/// The objects of an agent, and those of each type.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) all: Objects,
    task_lists: Shared<TaskList>,
    stores: Shared<KvStore>,
}

/// Starts the layer. What was kept is opened by [`open_kept`].
pub(crate) async fn start_objects(
    config: &AgentConfig,
    gossip: &Arc<x0x_gossip_pubsub::Gossip>,
    store: Option<&SqliteStore>,
    me: AgentId,
    clock: &Arc<dyn Clock>,
) -> Kept {
    let store: Arc<dyn CrdtStore> = match store {
        Some(store) => Arc::new(store.clone()),
        None => Arc::new(Unstored),
    };
    let pubsub = Arc::<x0x_gossip_pubsub::Gossip>::clone(gossip);
    let objects = Objects::start(ObjectsConfig::new(pubsub, store, me, Arc::clone(clock)));
    let file = (config.storage == Storage::Disk).then(|| config.data_dir.join(OBJECTS));
    let opened = tokio::task::spawn_blocking(move || Registry::open(file)).await;
    // Only a runtime that is shutting down does not run it.
    let registry = Arc::new(opened.unwrap_or_else(|_| Registry::open(None)));
    let task_lists = Shared::new(&objects, &registry, me, clock);
    let stores = Shared::new(&objects, &registry, me, clock);
    Kept { all: objects, task_lists, stores }
}

/// Opens what was kept, so that it is in step with others.
pub(crate) async fn open_kept(agent: Agent, stop: tokio_util::sync::CancellationToken) {
    let open = async {
        agent.task_lists().open_all().await;
        agent.stores().open_all().await;
    };
    stop.run_until_cancelled(open).await;
}

impl Agent {
    /// The task lists of this agent.
    #[must_use]
    pub fn task_lists(&self) -> &Shared<TaskList> {
        &self.inner.objects.task_lists
    }

    /// The key-value stores of this agent.
    #[must_use]
    pub fn stores(&self) -> &Shared<KvStore> {
        &self.inner.objects.stores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_come_back() {
        let owner = AgentId::new([7; 32]);
        for name in [
            ObjectName { topic: "board".to_owned(), owner: None },
            ObjectName { topic: "a b".to_owned(), owner: Some(owner) },
        ] {
            assert_eq!(ObjectName::parse(&name.to_string()).expect("read"), name);
        }
        for bad in ["", "a/b", "a@b", "a@", "\n", &"x".repeat(129), &format!("@{owner}")] {
            assert!(ObjectName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_read_again_and_damage_is_survived() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(OBJECTS);
        let registry = Registry::open(Some(file.clone()));
        let name = ObjectName { topic: "board".to_owned(), owner: Some(AgentId::new([7; 32])) };
        let record = Record { kind: "kv/1".to_owned(), name, title: "Our board".to_owned() };
        registry.records().push(record.clone());
        registry.save().await.expect("saved");
        assert_eq!(*Registry::open(Some(file.clone())).records(), [record]);
        std::fs::write(&file, b"\xff").expect("written");
        assert!(Registry::open(Some(file)).records().is_empty());
        assert!(Registry::open(None).records().is_empty());
    }
}

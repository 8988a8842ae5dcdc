//! Transfers without disks and networks: a store in memory that fails at will, and two machines with a
//! session.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use x0x_core::{AgentId, MachineId, PeerAddr};
use x0x_transport::{
    Node, Transport as _,
    testing::{LinkModel, MemoryNetwork, TokioClock, address, agent_key, key, machine, node},
};
use x0x_trust::testing::FakePolicy;

use crate::{
    Blob, FileStore, Files, FilesConfig, Part, Record, Seeks, TransferId, WorkError, numbered,
    ranges::RangeSet,
};

/// Where received files go on a [`MemoryStore`].
pub const DOWNLOADS: &str = "/downloads";

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    disk: Mutex<Disk>,
    /// Whoever is held may go on.
    released: Condvar,
}

#[derive(Debug, Default)]
struct Disk {
    records: BTreeMap<TransferId, Vec<u8>>,
    files: BTreeMap<PathBuf, File>,
    capacity: Option<u64>,
    /// Writes until one fails, and how.
    fail: Option<(u64, Fault)>,
    dead: bool,
    failing_syncs: u32,
    /// What does not get on for now, and how many threads wait for that.
    held: Option<Hold>,
    waiting: usize,
    on_crash: Option<Hook>,
    clock: u64,
}

/// What a disk lets wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hold {
    /// Reading.
    Reads,
    /// Making durable.
    Syncs,
}

/// What is done at a crash.
struct Hook(Box<dyn Fn() + Send>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

#[derive(Debug, Default, Clone)]
struct File {
    bytes: Vec<u8>,
    modified: u64,
    /// Bytes that are not durable yet.
    unsynced: RangeSet,
    /// Bytes that the disk believes to be durable, and that are not.
    lost: RangeSet,
}

impl File {
    fn new(bytes: Vec<u8>, modified: u64) -> Self {
        let unsynced = RangeSet::of(0..bytes.len() as u64);
        Self { bytes, modified, unsynced, lost: RangeSet::new() }
    }

    fn is_durable(&self) -> bool {
        self.unsynced.is_empty() && self.lost.is_empty()
    }
}

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Half of it is done, and nothing happens after it: the process was killed.
    Crash,
    /// Half of it is done, and it fails; the next succeeds.
    Short,
}

impl MemoryStore {
    /// An empty disk of any size.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, once it lets this get on.
    fn pass(&self, what: Hold) -> MutexGuard<'_, Disk> {
        let mut disk = self.lock();
        while disk.held == Some(what) {
            disk.waiting += 1;
            disk = self.0.released.wait(disk).unwrap_or_else(PoisonError::into_inner);
            disk.waiting -= 1;
        }
        disk
    }

    /// Lets everything of a kind wait from now on, or nothing. Whoever waits does so on a thread, while
    /// which tokio's paused clock stands still.
    pub fn hold(&self, what: Option<Hold>) {
        self.lock().held = what;
        self.0.released.notify_all();
    }

    /// Whether somebody waits because of [`hold`](Self::hold).
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.lock().waiting > 0
    }

    /// Puts a file of the user there.
    pub fn put(&self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) {
        let mut disk = self.lock();
        disk.clock += 1;
        let file = File::new(bytes.into(), disk.clock);
        disk.files.insert(path.as_ref().to_owned(), file);
    }

    /// The bytes of a file.
    #[must_use]
    pub fn get(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.lock().files.get(path.as_ref()).map(|file| file.bytes.clone())
    }

    /// The paths of all files, those of transfers included.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().files.keys().cloned().collect()
    }

    /// The paths of files that are not durable.
    #[must_use]
    pub fn unsynced(&self) -> Vec<PathBuf> {
        let disk = self.lock();
        let unsynced = disk.files.iter().filter(|(_, file)| !file.is_durable());
        unsynced.map(|(path, _)| path.clone()).collect()
    }

    /// How many bytes all files together may have.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Lets the write after `writes` others fail.
    pub fn fail_after(&self, writes: u64, fault: Fault) {
        self.lock().fail = Some((writes, fault));
    }

    /// Lets the next so many attempts to make a file durable fail. As with a real disk, what was written
    /// before is only durable when it is written again.
    pub fn fail_syncs(&self, count: u32) {
        self.lock().failing_syncs = count;
    }

    /// Does something at a [`Fault::Crash`], before anybody learns of it: such as to cut the machine off,
    /// so that it cannot say what a dead process does not.
    pub fn on_crash(&self, hook: impl Fn() + Send + 'static) {
        self.lock().on_crash = Some(Hook(Box::new(hook)));
    }

    /// Whether a [`Fault::Crash`] happened.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.lock().dead
    }

    /// The disk as a new process finds it.
    #[must_use]
    pub fn restarted(&self) -> Self {
        let disk = self.lock();
        let disk = Disk {
            records: disk.records.clone(),
            files: disk.files.clone(),
            capacity: disk.capacity,
            clock: disk.clock,
            ..Disk::default()
        };
        Self(Arc::new(Shared { disk: Mutex::new(disk), released: Condvar::new() }))
    }
}

fn crashed() -> WorkError {
    WorkError::Disk("the process was killed".into())
}

impl Disk {
    /// How much of a write of `len` bytes is done, and how it ends.
    fn write(&mut self, len: usize) -> (usize, Result<(), WorkError>) {
        if self.dead {
            return (0, Err(crashed()));
        }
        match &mut self.fail {
            Some((0, fault)) => {
                let fault = *fault;
                self.fail = None;
                self.dead = fault == Fault::Crash;
                if let Some(hook) = self.on_crash.as_ref().filter(|_| fault == Fault::Crash) {
                    hook.0();
                }
                (len / 2, Err(crashed()))
            }
            Some((left, _)) => {
                *left -= 1;
                (len, Ok(()))
            }
            None => (len, Ok(())),
        }
    }

    fn sync(&mut self) -> Result<(), WorkError> {
        match self.failing_syncs.checked_sub(1) {
            Some(left) => {
                self.failing_syncs = left;
                Err(crashed())
            }
            None => Ok(()),
        }
    }

    fn free(&self) -> u64 {
        let used: u64 = self.files.values().map(|file| file.bytes.len() as u64).sum();
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used))
    }
}

fn part_path(record: &Record, part: Part) -> PathBuf {
    let folder = record.folder.clone().unwrap_or_else(|| PathBuf::from(DOWNLOADS));
    match part {
        Part::Content => folder.join(format!(".{}.part", record.id)),
        Part::Values => folder.join(format!(".{}.values", record.id)),
        Part::Name => folder.join(format!(".{}.name", record.id)),
        Part::Tree => PathBuf::from(format!("/state/{}.tree", record.id)),
    }
}

impl FileStore for MemoryStore {
    fn load(&self) -> Result<Vec<Record>, WorkError> {
        let disk = self.lock();
        Ok(disk.records.values().filter_map(|bytes| Record::decode(bytes).ok()).collect())
    }

    fn save(&self, record: &Record) -> Result<(), WorkError> {
        let mut disk = self.lock();
        // A record is there whole or not at all.
        disk.write(0).1?;
        disk.records.insert(record.id, record.encode());
        Ok(())
    }

    fn forget(&self, record: &Record) -> Result<(), WorkError> {
        self.discard(record)?;
        self.lock().records.remove(&record.id);
        Ok(())
    }

    fn discard(&self, record: &Record) -> Result<(), WorkError> {
        let mut disk = self.lock();
        disk.write(0).1?;
        for part in [Part::Content, Part::Values, Part::Tree] {
            disk.files.remove(&part_path(record, part));
        }
        Ok(())
    }

    fn source(&self, path: &Path) -> Result<Box<dyn Blob>, WorkError> {
        let there = self.lock().files.contains_key(path);
        let blob = MemoryBlob { disk: self.clone(), path: path.to_owned() };
        if there { Ok(Box::new(blob)) } else { Err(WorkError::SourceGone("not there".into())) }
    }

    fn part(&self, record: &Record, part: Part) -> Result<Box<dyn Blob>, WorkError> {
        let path = part_path(record, part);
        let mut disk = self.lock();
        if disk.dead {
            return Err(crashed());
        }
        disk.files.entry(path.clone()).or_default();
        Ok(Box::new(MemoryBlob { disk: self.clone(), path }))
    }

    fn publish(&self, record: &Record) -> Result<PathBuf, WorkError> {
        let mut disk = self.lock();
        disk.write(0).1?;
        let part = part_path(record, Part::Content);
        let content = disk.files.get(&part).cloned().unwrap_or_default();
        let folder = part.parent().map(Path::to_owned).unwrap_or_default();
        let names = (2..).map(|number| numbered(&record.name, number));
        let names = std::iter::once(record.name.clone()).chain(names);
        let mut paths = names.map(|name| folder.join(name));
        let free = |path: &PathBuf| !disk.files.contains_key(path);
        let path = paths.find(free).ok_or_else(crashed)?;
        disk.files.insert(path.clone(), content);
        Ok(path)
    }

    fn free(&self, _: Option<&Path>) -> Result<u64, WorkError> {
        Ok(self.lock().free())
    }
}

#[derive(Debug)]
struct MemoryBlob {
    disk: MemoryStore,
    path: PathBuf,
}

impl Blob for MemoryBlob {
    fn stat(&self) -> Result<(u64, u64), WorkError> {
        let disk = self.disk.lock();
        let file = disk.files.get(&self.path);
        let file = file.ok_or_else(|| WorkError::SourceGone("not there".into()))?;
        Ok((file.bytes.len() as u64, file.modified))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, WorkError> {
        let disk = self.disk.pass(Hold::Reads);
        let Some(file) = disk.files.get(&self.path) else { return Ok(0) };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.bytes.len());
        let count = buffer.len().min(file.bytes.len() - start);
        buffer[..count].copy_from_slice(&file.bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), WorkError> {
        let mut disk = self.disk.lock();
        let (done, result) = disk.write(bytes.len());
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let len = disk.files.get(&self.path).map_or(0, |file| file.bytes.len());
        let grows = (start + done).saturating_sub(len) as u64;
        if grows > disk.free() {
            return Err(WorkError::NoSpace);
        }
        let Some(file) = disk.files.get_mut(&self.path) else { return result };
        if file.bytes.len() < start + done {
            file.bytes.resize(start + done, 0);
        }
        file.bytes[start..start + done].copy_from_slice(&bytes[..done]);
        let written = start as u64..(start + done) as u64;
        file.lost.remove(written.clone());
        file.unsynced.insert(written);
        result
    }

    fn twin(&self) -> Result<Box<dyn Blob>, WorkError> {
        Ok(Box::new(Self { disk: self.disk.clone(), path: self.path.clone() }))
    }

    fn sync(&self) -> Result<(), WorkError> {
        let mut disk = self.disk.pass(Hold::Syncs);
        let synced = disk.sync();
        if let Some(file) = disk.files.get_mut(&self.path) {
            let unsynced = std::mem::take(&mut file.unsynced);
            if synced.is_err() {
                file.lost.extend(&unsynced);
            }
        }
        synced
    }
}

/// A machine with one agent, its files, and its disk.
#[derive(Debug)]
#[non_exhaustive]
pub struct Peer {
    /// Its transport.
    pub node: Node,
    /// Its id.
    pub machine: MachineId,
    /// Its agent.
    pub agent: AgentId,
    /// Its service.
    pub files: Files,
    /// Its disk.
    pub disk: MemoryStore,
    /// How it sees other agents.
    pub policy: FakePolicy,
    /// Whom its transfers miss.
    pub seeks: Seeks,
}

/// The agent of the `n`-th test machine.
#[must_use]
pub fn agent(n: u64) -> AgentId {
    key(agent_key(n)).public_key().agent_id()
}

/// The `n`-th test machine on a network, with a disk.
///
/// # Panics
/// When the service does not start, and outside a tokio runtime.
pub async fn peer(network: &MemoryNetwork, n: u64, disk: MemoryStore) -> Peer {
    let mut config = FilesConfig::new(vec![agent(n)]);
    config.keep_free = 0;
    peer_with(network, n, disk, config).await
}

/// The same with other settings.
///
/// # Panics
/// As [`peer`].
pub async fn peer_with(
    network: &MemoryNetwork,
    n: u64,
    disk: MemoryStore,
    config: FilesConfig,
) -> Peer {
    let node = node(network, n);
    let policy = FakePolicy::new();
    let started = Files::start(
        Arc::new(node.clone()),
        Arc::new(disk.clone()),
        Arc::new(policy.clone()),
        Arc::new(TokioClock::new()),
        config,
    );
    let Ok((files, seeks)) = started.await else { unreachable!("nobody else uses the node") };
    Peer { node, machine: machine(n), agent: agent(n), files, disk, policy, seeks }
}

/// Opens a session from one test machine to another.
///
/// # Panics
/// When the network does not let it.
pub async fn connect(from: &Peer, n: u64) {
    let target = PeerAddr::known(machine(n), [address(n)]);
    if let Err(error) = from.node.connect(target).await {
        unreachable!("the network is up: {error}");
    }
}

/// The first two test machines, in a session.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn pair(seed: u64) -> (Peer, Peer) {
    let network = MemoryNetwork::new(seed, LinkModel::default());
    let alice = peer(&network, 1, MemoryStore::new()).await;
    let bob = peer(&network, 2, MemoryStore::new()).await;
    connect(&alice, 2).await;
    (alice, bob)
}

impl Peer {
    /// The process ends without a word.
    pub async fn kill(self, network: &MemoryNetwork) -> MemoryStore {
        network.kill(self.machine);
        self.files.shutdown().await;
        self.node.shutdown().await;
        self.disk.restarted()
    }

    /// Waits until a transfer is in some state.
    ///
    /// # Panics
    /// When it is not after two minutes of tokio's time.
    pub async fn wait_for(
        &self,
        id: TransferId,
        what: &str,
        mut holds: impl FnMut(&crate::TransferInfo) -> bool,
    ) {
        x0x_transport::testing::eventually(what, async || {
            self.files.transfer(id).await.is_some_and(|info| holds(&info))
        })
        .await;
    }
}

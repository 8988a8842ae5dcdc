//! What users hold.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{broadcast, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{AgentId, Clock, Machine, Protocol, SeededRng};
use x0x_transport::{Transport, ask, error::InboundTaken};
use x0x_trust::Policy;

use crate::{
    config::FilesConfig,
    driver::{self, Command, Parts},
    error::{ChangeTransferError, SendFileError, WorkError},
    id::TransferId,
    metrics::FilesMetrics,
    name::MAX_NAME,
    record::{Direction, FileEvent, Phase, Record, TransferInfo},
    state::{Change, Changed, FilesMachine, Input},
    store::FileStore,
    wire::{MAX_MEDIA_TYPE, MAX_OFFERED_NAME},
};

/// Commands on their way to the driver.
const MAX_COMMANDS: usize = 64;
/// Events that a reader may fall behind before it is told that it missed some.
pub const MAX_UNREAD_EVENTS: usize = 256;
/// Agents that are to be looked for and were not yet; further ones are named again later.
pub const MAX_SEEKS: usize = 64;

/// File transfers did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartFilesError {
    /// Another consumer holds the transport's protocol.
    #[error(transparent)]
    Taken(#[from] InboundTaken),
    /// The records of earlier transfers cannot be read.
    #[error("records of transfers: {0}")]
    Records(WorkError),
}

/// A file to send.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendFile {
    /// To whom.
    pub to: AgentId,
    /// Which file: the absolute path of a regular file.
    pub path: PathBuf,
    /// The name that it is offered under; that of the path, if none.
    pub name: Option<String>,
    /// Its SHA-256, if known: the transfer fails when the file has another one.
    pub sha256: Option<[u8; 32]>,
    /// What kind of file it is; may be empty.
    pub media_type: String,
}

impl SendFile {
    /// A file under its own name.
    #[must_use]
    pub fn new(to: AgentId, path: impl Into<PathBuf>) -> Self {
        Self { to, path: path.into(), name: None, sha256: None, media_type: String::new() }
    }
}

/// Agents without a session that transfers need: for whoever can find them.
pub type Seeks = mpsc::Receiver<AgentId>;

/// Sends and receives files. Cheap to clone; all clones are the same service, which goes on until
/// [`shutdown`](Self::shutdown) or until the last clone is dropped.
#[derive(Clone)]
pub struct Files(Arc<Inner>);

struct Inner {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<FileEvent>,
    store: Arc<dyn FileStore>,
    metrics: Arc<FilesMetrics>,
    ids: Mutex<SeededRng>,
    local: Option<AgentId>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Files {
    /// Starts the service over a transport, and takes up the transfers of earlier runs.
    ///
    /// # Errors
    /// [`StartFilesError`].
    pub async fn start(
        transport: Arc<dyn Transport>,
        store: Arc<dyn FileStore>,
        policy: Arc<dyn Policy>,
        clock: Arc<dyn Clock>,
        config: FilesConfig,
    ) -> Result<(Self, Seeks), StartFilesError> {
        let reader = store.clone();
        let loaded = tokio::task::spawn_blocking(move || reader.load()).await;
        let records = loaded
            .unwrap_or_else(|_| Err(WorkError::Disk("not read".into())))
            .map_err(StartFilesError::Records)?;
        let (control, content) =
            (transport.inbound(Protocol::Files)?, transport.inbound(Protocol::FileContent)?);
        let metrics = Arc::new(FilesMetrics::default());
        let (local, keep_free) = (config.local_agents.first().copied(), config.keep_free);
        let mut machine = FilesMachine::new(config, policy, metrics.clone());
        machine.set_wall(clock.wall());
        machine.handle(clock.now(), Input::Loaded(records));
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let events = broadcast::Sender::new(MAX_UNREAD_EVENTS);
        let (seeks, wanted) = mpsc::channel(MAX_SEEKS);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        driver::spawn(Parts {
            machine,
            transport,
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            keep_free,
            commands: receiver,
            control,
            content,
            events: events.clone(),
            seeks,
            stop: stop.clone(),
            tasks: tasks.clone(),
        });
        let mut seed = [0; 32];
        // Ids only have to differ. Without the system's randomness, the clock makes them differ
        // from those of earlier runs.
        if getrandom::fill(&mut seed).is_err() {
            seed[..8].copy_from_slice(&clock.wall().as_millis().to_le_bytes());
        }
        let ids = Mutex::new(SeededRng::from_seed(seed));
        let inner = Inner { commands, events, store, metrics, ids, local, clock, stop, tasks };
        Ok((Self(Arc::new(inner)), wanted))
    }

    /// Offers a file. Returns once the transfer is kept; it is read for its hashes, offered and sent
    /// after that, and outlives this process.
    ///
    /// # Errors
    /// [`SendFileError`].
    pub async fn send(&self, file: SendFile) -> Result<TransferId, SendFileError> {
        let inner = &*self.0;
        if !file.path.is_absolute() {
            return Err(SendFileError::NotAbsolute);
        }
        if file.path.to_str().is_none() {
            return Err(SendFileError::Unreadable("the path is not Unicode".into()));
        }
        let (store, path) = (inner.store.clone(), file.path.clone());
        let look = move || store.source(&path).and_then(|source| source.stat());
        let looked = tokio::task::spawn_blocking(look).await;
        let (size, modified) = match looked {
            Ok(Ok(stat)) => stat,
            Ok(Err(WorkError::SourceGone(why))) if why == NOT_A_FILE => {
                return Err(SendFileError::NotAFile);
            }
            Ok(Err(WorkError::SourceGone(why))) => return Err(SendFileError::Unreadable(why)),
            Ok(Err(WorkError::SourceProtected(why))) => return Err(SendFileError::Protected(why)),
            Ok(Err(error)) => return Err(SendFileError::Unreadable(error.to_string())),
            Err(_) => return Err(SendFileError::Closed),
        };
        let base = file.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut name = file.name.or(base).unwrap_or_default();
        shorten(&mut name, MAX_OFFERED_NAME.min(MAX_NAME * 2));
        let mut media_type = file.media_type;
        shorten(&mut media_type, MAX_MEDIA_TYPE);
        let record = Record {
            id: self.new_id(),
            direction: Direction::Sending,
            peer: file.to,
            machine: None,
            local: inner.local.ok_or(SendFileError::Closed)?,
            name,
            size,
            root: None,
            sha256: file.sha256,
            media_type,
            phase: Phase::Preparing,
            reason: None,
            started: inner.clock.wall(),
            ended: None,
            source: Some(file.path),
            modified,
            folder: None,
            output: None,
        };
        let record = Box::new(record);
        let sent = ask(&inner.commands, |reply| Command::Send { record, reply }).await;
        sent.unwrap_or(Err(SendFileError::Closed))
    }

    fn new_id(&self) -> TransferId {
        let mut ids = self.0.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&ids.next_u64().to_le_bytes());
        id[8..].copy_from_slice(&ids.next_u64().to_le_bytes());
        // Marked as a random UUID, which is what it looks like.
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        TransferId::new(id)
    }

    /// Accepts, rejects, cancels, pauses or resumes a transfer. Returns once that is kept on disk.
    ///
    /// # Errors
    /// [`ChangeTransferError`].
    pub async fn change(
        &self,
        id: TransferId,
        change: Change,
    ) -> Result<Changed, ChangeTransferError> {
        let changed = ask(&self.0.commands, |reply| Command::Change { id, change, reply }).await;
        changed.unwrap_or(Err(ChangeTransferError::Closed))
    }

    /// Every transfer that has not ended, and those that ended last, by id; none after the end.
    pub async fn transfers(&self) -> Vec<TransferInfo> {
        ask(&self.0.commands, Command::List).await.unwrap_or_default()
    }

    /// One transfer.
    pub async fn transfer(&self, id: TransferId) -> Option<TransferInfo> {
        ask(&self.0.commands, |reply| Command::Show { id, reply }).await.flatten()
    }

    /// Trust in an agent changed, or in any: transfers that it does not allow any more end at once.
    pub async fn reconsider(&self, agent: Option<AgentId>) {
        // A service that is closed ends them when it starts again.
        let _ = self.0.commands.send(Command::Reconsider(agent)).await;
    }

    /// What happens from now on. A reader that falls behind by [`MAX_UNREAD_EVENTS`] misses the oldest
    /// and is told how many.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<FileEvent> {
        self.0.events.subscribe()
    }

    /// What the service counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<FilesMetrics> {
        &self.0.metrics
    }

    /// Ends the service, and waits until everything that was promised is on disk. Transfers go on in
    /// the next run.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// What a store says of a path that is there and no regular file.
pub(crate) const NOT_A_FILE: &str = "not a regular file";

fn shorten(text: &mut String, max: usize) {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("local", &self.0.local).finish_non_exhaustive()
    }
}

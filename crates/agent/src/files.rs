//! Files in the composition: who is sought for them, and what the user may ask.

use std::{collections::BTreeSet, sync::Arc};

use tokio::{
    sync::broadcast::{self, error::RecvError},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock};
use x0x_files::{
    Change, ChangeTransferError, Changed, DiskStore, FileEvent, Files, FilesConfig, Seeks,
    SendFile, SendFileError, TransferId, TransferInfo,
};
use x0x_identity::MACHINE_FILE;
use x0x_transport::Transport;
use x0x_trust::Trust;

use crate::{
    Agent, AgentConfig, StartError,
    builder::{DATABASE, layer},
};

/// Records of transfers in the data folder.
const TRANSFERS: &str = "transfers";
/// Received files in the data folder.
const DOWNLOADS: &str = "downloads";
/// Files by which the folders of any agent are known.
const MARKERS: [&str; 2] = [MACHINE_FILE, DATABASE];
/// Agents that are looked for at once.
const MAX_SOUGHT: usize = 8;

impl Agent {
    /// Offers a file to an agent. Returns once the transfer is on disk; it goes on by itself, also after
    /// a restart, whenever the recipient can be reached.
    ///
    /// # Errors
    /// [`SendFileError`].
    pub async fn send_file(&self, file: SendFile) -> Result<TransferId, SendFileError> {
        self.inner.files.send(file).await
    }

    /// Accepts, rejects, cancels, pauses or resumes a transfer.
    ///
    /// # Errors
    /// [`ChangeTransferError`].
    pub async fn change_transfer(
        &self,
        id: TransferId,
        change: Change,
    ) -> Result<Changed, ChangeTransferError> {
        self.inner.files.change(id, change).await
    }

    /// The transfers that have not ended, and those that ended last, by id.
    pub async fn transfers(&self) -> Vec<TransferInfo> {
        self.inner.files.transfers().await
    }

    /// One transfer.
    pub async fn transfer(&self, id: TransferId) -> Option<TransferInfo> {
        self.inner.files.transfer(id).await
    }

    /// What happens to transfers from now on.
    #[must_use]
    pub fn file_events(&self) -> FileEvents {
        FileEvents(self.inner.files.events())
    }
}

/// What happens to transfers, as it happens.
#[derive(Debug)]
pub struct FileEvents(broadcast::Receiver<FileEvent>);

impl FileEvents {
    /// The next event, or how many were missed because they were not taken in time; `None` at the end.
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<FileEvent, u64>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(missed)) => Some(Err(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Starts the layer, which takes up the transfers of earlier runs.
pub(crate) async fn start_files(
    config: &AgentConfig,
    agent: AgentId,
    transport: &Arc<dyn Transport>,
    trust: &Trust,
    clock: &Arc<dyn Clock>,
) -> Result<(Files, Seeks), StartError> {
    let downloads = config.downloads.clone().unwrap_or_else(|| config.data_dir.join(DOWNLOADS));
    let own = [&config.identity_dir, &config.data_dir].into_iter().chain(&config.user_key);
    let store = DiskStore::new(config.data_dir.join(TRANSFERS), downloads);
    let own = own.chain(&config.private_files).cloned();
    let store = Arc::new(store.protecting(own).protecting_marked(MARKERS));
    let mut settings = FilesConfig::new(vec![agent]);
    settings.accept.clone_from(&config.accept_files);
    settings.keep_free = config.files_keep_free;
    let (transport, clock) = (Arc::clone(transport), Arc::clone(clock));
    Files::start(transport, store, Arc::new(trust.clone()), clock, settings)
        .await
        .map_err(layer("files"))
}

/// Opens sessions to agents that transfers need, until it is stopped.
pub(crate) async fn seek(agent: Agent, mut seeks: Seeks, stop: CancellationToken) {
    let (mut sought, mut tasks) = (BTreeSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(found) = tasks.join_next() => {
                // A panic there has been told already, and does not say of whom.
                match found {
                    Ok(found) => drop(sought.remove(&found)),
                    Err(_) => sought.clear(),
                }
            }
            wanted = seeks.recv(), if tasks.len() < MAX_SOUGHT => match wanted {
                Some(wanted) if sought.insert(wanted) => {
                    let agent = agent.clone();
                    tasks.spawn(async move {
                        let outcome = agent.connect(wanted).await;
                        tracing::debug!(agent = %wanted.short(), kind = ?outcome.kind, "sought for a file");
                        wanted
                    });
                }
                Some(_) => {}
                None => return,
            },
        }
    }
}

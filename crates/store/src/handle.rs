//! What users hold.

use std::{sync::Arc, thread};

use tokio::sync::{Mutex, mpsc, oneshot};
use x0x_core::TopicId;
use x0x_gossip_pubsub::{LoadLimits, LogChange, LogStore, StoreError, StoredTopic};
use x0x_transport::BoxFuture;

use crate::{
    config::{MAX_COMMANDS, StoreConfig},
    error::{OpenError, store_error},
    load::load,
    metrics::StoreMetrics,
    schema,
    writer::{Command, Commit, Writer},
};

/// Stack of the writer's thread in bytes: SQLite needs little.
const STACK: usize = 512 * 1024;

/// An open database; clones share it. It closes when the last is dropped, after everything that was
/// handed to it is committed; [`close`](Self::close) waits for that.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    commands: mpsc::Sender<Command>,
    config: Arc<StoreConfig>,
    /// One load at a time bounds the memory that loads take.
    loading: Arc<Mutex<()>>,
    metrics: Arc<StoreMetrics>,
}

impl SqliteStore {
    /// Opens the database, or makes it. A damaged one is renamed to `<name>.corrupt-<n>`, with a
    /// warning, and a new one begins.
    ///
    /// # Errors
    /// [`OpenError`]: the path is of no use; nothing there was changed.
    pub async fn open(config: StoreConfig) -> Result<Self, OpenError> {
        let metrics = Arc::new(StoreMetrics::default());
        let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
        let (reply, opened) = oneshot::channel();
        let path = config.path.clone();
        let store = Self {
            commands,
            config: Arc::new(config.clone()),
            loading: Arc::default(),
            metrics: Arc::clone(&metrics),
        };
        thread::Builder::new()
            .name("x0x-store".to_owned())
            .stack_size(STACK)
            .spawn(move || Writer::run(config, inbox, metrics, reply))
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        opened.await.map_err(|_| OpenError::Store { path, source: StoreError::Closed })??;
        Ok(store)
    }

    /// Commits everything that was handed over before, writes the journal back and closes the file.
    /// What is asked of the store afterwards is refused.
    ///
    /// # Errors
    /// [`StoreError`]: the file did not close well, which loses nothing that was committed.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ask(Command::Close).await
    }

    /// What is counted.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<StoreMetrics> {
        &self.metrics
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn read(
        &self,
        topic: TopicId,
        limits: LoadLimits,
    ) -> Result<Option<StoredTopic>, StoreError> {
        let file = self.ask(Command::Barrier).await?;
        let alone = Arc::clone(&self.loading).lock_owned().await;
        let (config, metrics) = (Arc::clone(&self.config), Arc::clone(&self.metrics));
        let task = tokio::task::spawn_blocking(move || {
            let _alone = alone;
            schema::open_reader(&config)
                .and_then(|connection| load(&connection, topic, limits, &metrics))
        });
        let loaded = task.await.map_err(|error| StoreError::Internal(error.to_string().into()))?;
        let error = match loaded {
            Ok(topic) => return Ok(topic),
            Err(error) => store_error(&error),
        };
        self.metrics.failed(&error);
        if let StoreError::Corrupt(reason) = &error {
            // A writer that is gone has nothing to replace.
            drop(self.commands.send(Command::Damaged(file, Arc::clone(reason))).await);
        }
        Err(error)
    }
}

impl LogStore for SqliteStore {
    fn load(
        &self,
        topic: TopicId,
        limits: LoadLimits,
    ) -> BoxFuture<'_, Result<Option<StoredTopic>, StoreError>> {
        Box::pin(self.read(topic, limits))
    }

    fn commit(&self, changes: Vec<LogChange>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.ask(|reply| Command::Commit(Commit { changes, reply })))
    }
}

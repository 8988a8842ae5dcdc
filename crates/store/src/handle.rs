//! What users hold.

use std::{sync::Arc, thread};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use x0x_core::{AgentId, TopicId};
use x0x_direct::{
    DirectMessage, MessageId,
    mail::{
        HistoryPage, HistoryQuery, Letter, MailChange, MailError, MailOutcome, MailStore,
        StoredMail,
    },
};
use x0x_gossip_pubsub::{HeldOf, LoadLimits, LogChange, LogStore, StoreError, StoredTopic};
use x0x_transport::{BoxFuture, ask};

use crate::{
    config::{MAX_COMMANDS, StoreConfig, TAIL_BATCH_TIME},
    error::{OpenError, store_error},
    load::{held_of, load},
    mail_read,
    metrics::StoreMetrics,
    reader::Readers,
    schema,
    tail::{Appended, Tail},
    writer::{Command, Commit, MailCommit, Writer},
};

/// Stack of the writer's thread in bytes: SQLite needs little.
const STACK: usize = 512 * 1024;

/// An open database; clones share it. It closes when the last is dropped, after everything that was
/// handed to it is committed; [`close`](Self::close) waits for that.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    commands: mpsc::Sender<Command>,
    tail: Tail,
    config: Arc<StoreConfig>,
    readers: Readers,
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
        let shared = (Arc::new(config.clone()), Arc::clone(&metrics));
        thread::Builder::new()
            .name("x0x-store".to_owned())
            .stack_size(STACK)
            .spawn(move || Writer::run(config, inbox, metrics, reply))
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let closed = |_| OpenError::Store { path, source: StoreError::Closed };
        let tail = opened.await.map_err(closed)??;
        let (config, metrics) = shared;
        Ok(Self { commands, tail, config, readers: Readers::default(), metrics })
    }

    /// Commits everything that was handed over before, writes the journal back and closes the file.
    /// What is asked of the store afterwards is refused.
    ///
    /// # Errors
    /// [`StoreError`]: the file did not close well, which loses nothing that was committed.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        self.ask(Command::Close).await
    }

    /// What is counted.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<StoreMetrics> {
        &self.metrics
    }

    pub(crate) async fn read_mail<T: Send + 'static>(
        &self,
        read: impl Fn(&Connection, &StoreMetrics) -> rusqlite::Result<T> + Send + Sync + 'static,
    ) -> Result<T, MailError> {
        self.read(false, read).await.map_err(mail_error)
    }

    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        ask(&self.commands, command).await.ok_or(StoreError::Closed)?
    }

    async fn hold(&self, changes: Vec<LogChange>) -> Result<(), StoreError> {
        if self.commands.is_closed() {
            return Err(StoreError::Closed);
        }
        let Some(appended) = self.tail.append(&changes) else {
            return self.hold_through(changes).await;
        };
        self.metrics.commits.inc();
        match appended {
            Appended::First => {
                // The timer does not keep the store open.
                let commands = self.commands.downgrade();
                tokio::spawn(async move {
                    tokio::time::sleep(TAIL_BATCH_TIME).await;
                    if let Some(commands) = commands.upgrade() {
                        drop(commands.send(Command::Apply).await);
                    }
                });
            }
            // With so many commands waiting the writer applies it soon anyway.
            Appended::Enough => drop(self.commands.try_send(Command::Apply)),
            Appended::More => {}
        }
        Ok(())
    }

    /// Makes changes hold by a transaction, since the tail does not take them.
    async fn hold_through(&self, changes: Vec<LogChange>) -> Result<(), StoreError> {
        let through = Through(Some(&self.tail));
        let (reply, answer) = oneshot::channel();
        let command = Command::Commit(Commit { changes, reply });
        self.commands.send(command).await.map_err(|_| StoreError::Closed)?;
        through.sent();
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Reads with a connection that only reads, one reader at a time. When that finds the file damaged, what could
    /// be carried over into the new one is read.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        tail: bool,
        read: impl Fn(&Connection, &StoreMetrics) -> rusqlite::Result<T> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let read = Arc::new(read);
        let again = Arc::clone(&read);
        let first =
            self.try_read(tail, move |connection: &_, metrics: &_| read(connection, metrics));
        match first.await {
            Err(StoreError::Corrupt(_)) => {
                let read = move |connection: &_, metrics: &_| again(connection, metrics);
                self.try_read(tail, read).await
            }
            result => result,
        }
    }

    /// The same, once.
    async fn try_read<T: Send + 'static>(
        &self,
        tail: bool,
        read: impl FnOnce(&Connection, &StoreMetrics) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.ask(|reply| Command::Barrier { tail, reply }).await?;
        let mut slot = self.readers.turn().await;
        let (config, metrics) = (Arc::clone(&self.config), Arc::clone(&self.metrics));
        let task = tokio::task::spawn_blocking(move || {
            let kept = slot.take(file).map(Ok);
            let connection = kept.unwrap_or_else(|| schema::open_reader(&config))?;
            let found = read(&connection, &metrics)?;
            slot.keep(file, connection);
            Ok(found)
        });
        let loaded = task.await.map_err(|error| StoreError::Internal(error.to_string().into()))?;
        self.readers.close_later();
        let error = match loaded {
            Ok(found) => return Ok(found),
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

/// A commit that goes through the writer and is not there yet. Whose caller goes away before is
/// withdrawn, and nothing waits for it.
struct Through<'a>(Option<&'a Tail>);

impl Through<'_> {
    /// The writer has it, and says when it is done.
    fn sent(mut self) {
        self.0 = None;
    }
}

impl Drop for Through<'_> {
    fn drop(&mut self) {
        if let Some(tail) = self.0 {
            tail.done_through(1);
        }
    }
}

impl LogStore for SqliteStore {
    fn load(
        &self,
        topic: TopicId,
        limits: LoadLimits,
    ) -> BoxFuture<'_, Result<Option<StoredTopic>, StoreError>> {
        Box::pin(self.try_read(true, move |connection: &_, metrics: &_| {
            load(connection, topic, limits, metrics)
        }))
    }

    fn held_of(&self, author: AgentId, most: usize) -> BoxFuture<'_, Result<HeldOf, StoreError>> {
        Box::pin(
            self.try_read(true, move |connection: &_, _: &_| held_of(connection, author, most)),
        )
    }

    fn commit(&self, changes: Vec<LogChange>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.hold(changes))
    }
}

impl MailStore for SqliteStore {
    fn load(&self) -> BoxFuture<'_, Result<StoredMail, MailError>> {
        Box::pin(self.read_mail(|connection, _| mail_read::load(connection)))
    }

    fn commit(
        &self,
        changes: Vec<MailChange>,
    ) -> BoxFuture<'_, Result<Vec<MailOutcome>, MailError>> {
        Box::pin(async move {
            let commit = self.ask(|reply| Command::Mail(MailCommit { changes, reply }));
            commit.await.map_err(mail_error)
        })
    }

    fn mail(
        &self,
        after: u64,
        limit: usize,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Vec<DirectMessage>, MailError>> {
        Box::pin(self.read_mail(move |connection, metrics| {
            mail_read::mail(connection, (after, limit, bytes), metrics)
        }))
    }

    fn mail_by_number(
        &self,
        numbers: Vec<u64>,
    ) -> BoxFuture<'_, Result<Vec<DirectMessage>, MailError>> {
        Box::pin(self.read_mail(move |connection, metrics| {
            mail_read::mail_by_number(connection, &numbers, metrics)
        }))
    }

    fn letters(&self, numbers: Vec<u64>) -> BoxFuture<'_, Result<Vec<Letter>, MailError>> {
        Box::pin(self.read_mail(move |connection, metrics| {
            mail_read::letters(connection, &numbers, metrics)
        }))
    }

    fn letter(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Letter>, MailError>> {
        Box::pin(self.read_mail(move |connection, _| mail_read::letter(connection, &id)))
    }

    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<HistoryPage, MailError>> {
        Box::pin(async move {
            if !query.words.is_empty() {
                // In steps, so that commits do not wait for all of it.
                while self.ask(Command::Index).await.map_err(mail_error)? {}
            }
            self.read_mail(move |connection, _| mail_read::history(connection, &query)).await
        })
    }
}

pub(crate) fn mail_error(error: StoreError) -> MailError {
    match error {
        StoreError::Full => MailError::Full,
        StoreError::Closed => MailError::Closed,
        other => MailError::Failed(other.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::Pin,
        task::{Context, Poll},
    };

    use x0x_core::TopicId;

    use super::*;

    fn change(position: u64) -> LogChange {
        LogChange::Reach { topic: TopicId::new([7; 32]), incarnation: 1, position }
    }

    async fn is_done<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> bool {
        let poll = |cx: &mut Context<'_>| Poll::Ready(future.as_mut().poll(cx).is_ready());
        poll_fn(poll).await
    }

    #[tokio::test]
    async fn a_commit_that_is_dropped_before_the_writer_has_it_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = StoreConfig::at(dir.path().join("x0x.db"));
        let (tail, _) = Tail::open(&config);
        // A writer that is busy: nothing is taken from its commands.
        let (commands, mut waiting) = mpsc::channel(1);
        let store = SqliteStore {
            commands,
            tail: tail.clone(),
            config: Arc::new(config),
            readers: Readers::default(),
            metrics: Arc::default(),
        };
        let commit = |position| -> Pin<Box<dyn Future<Output = _> + '_>> {
            Box::pin(store.hold(vec![change(position)]))
        };
        let (mut first, mut second) = (commit(1), commit(2));
        assert!(!is_done(&mut first).await, "nothing was replayed, so it goes through");
        assert!(!is_done(&mut second).await, "the commands are full");
        drop((first, second));
        assert!(matches!(waiting.try_recv(), Ok(Command::Commit(_))));
        tail.done_through(1);
        tail.replayed(0);
        assert_eq!(tail.append(&[change(3)]), Some(Appended::First), "nothing is waited for");
    }
}

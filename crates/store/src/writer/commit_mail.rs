//! What the writer does with mail: a commit is a transaction, shared by all that wait.

use rusqlite::Connection;
use tokio::sync::oneshot;
use x0x_direct::mail::{MailChange, MailOutcome};
use x0x_gossip_pubsub::StoreError;

use super::{Command, Writer, transaction};
use crate::{
    config::{MAX_GROUP_BYTES, MAX_GROUP_CHANGES},
    error::store_error,
};

/// Changes of mail that hold together, and who hears what they came to.
#[derive(Debug)]
pub(crate) struct MailCommit {
    pub(crate) changes: Vec<MailChange>,
    pub(crate) reply: oneshot::Sender<Result<Vec<MailOutcome>, StoreError>>,
}

/// Bytes of a row beside its payload, nearly.
const ROW: u64 = 256;

impl MailCommit {
    /// Bytes that it adds to the file, nearly.
    fn bytes(&self) -> u64 {
        let bytes = |change: &MailChange| match change {
            MailChange::Receive(message) => message.payload.len() as u64 + ROW,
            MailChange::Post(letter) => letter.payload.len() as u64 + ROW,
            _ => 0,
        };
        self.changes.iter().map(bytes).sum()
    }
}

impl Writer {
    /// Commits this and what waits behind it, up to the size of a group. Returns the command after
    /// them.
    pub(super) fn commit_mail(&mut self, first: MailCommit) -> Option<Command> {
        let (mut changes, mut bytes) = (first.changes.len(), first.bytes());
        let (mut group, mut next) = (vec![first], None);
        while changes < MAX_GROUP_CHANGES && bytes < MAX_GROUP_BYTES {
            match self.commands.try_recv() {
                Ok(Command::Mail(commit)) => {
                    changes += commit.changes.len();
                    bytes += commit.bytes();
                    group.push(commit);
                }
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let mut result = self.connect().and_then(|()| self.try_commit_mail(&group));
        if matches!(result, Err(StoreError::Full)) && self.make_room(bytes) {
            result = self.try_commit_mail(&group);
        }
        match &result {
            Ok(_) => {
                self.metrics.commits.add(group.len() as u64);
                self.metrics.transactions.inc();
                self.metrics.full.set(0);
                self.metrics.changes.add(changes as u64);
                self.metrics.mail_bytes.add(bytes);
                self.unseen_bytes += bytes;
                self.journal.note(&self.config, bytes);
            }
            Err(error) => {
                group.iter().for_each(|_| self.metrics.failed(error));
                tracing::debug!(%error, "a commit of mail failed");
                if let StoreError::Corrupt(reason) = error {
                    self.replace(reason);
                }
            }
        }
        answer(group, result);
        if self.unseen_bytes >= super::LOOK_AFTER.min(self.config.cap() / 16) {
            self.look();
        }
        self.step();
        next
    }

    /// What each change came to, by commit.
    fn try_commit_mail(
        &mut self,
        group: &[MailCommit],
    ) -> Result<Vec<Vec<MailOutcome>>, StoreError> {
        let mut pruning = self.pruning;
        let adds =
            |change: &MailChange| matches!(change, MailChange::Receive(_) | MailChange::Post(_));
        let flushes =
            self.config.flushes_mail() && group.iter().flat_map(|commit| &commit.changes).any(adds);
        if flushes {
            self.set_flushing(true)?;
        }
        let outcomes = self.mail_transaction(|mail, connection| {
            let mut outcomes = Vec::with_capacity(group.len());
            for commit in group {
                let mut of_commit = Vec::with_capacity(commit.changes.len());
                for change in &commit.changes {
                    if let MailChange::Prune { retention, now } = change {
                        pruning = Some((*retention, *now));
                    }
                    of_commit.push(mail.apply(connection, change)?);
                }
                outcomes.push(of_commit);
            }
            mail.finish(connection)?;
            Ok(outcomes)
        });
        if flushes {
            // What follows is flushed, too, if this fails: slower, and no less safe.
            let _ = self.set_flushing(false);
        }
        if outcomes.is_ok() {
            self.pruning = pruning;
        }
        outcomes
    }

    /// Whether each commit waits for the disk from now on.
    fn set_flushing(&self, flushing: bool) -> Result<(), StoreError> {
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let level = if flushing { "FULL" } else { "NORMAL" };
        let set = connection.pragma_update(None, "synchronous", level);
        set.map_err(|error| store_error(&error))
    }

    fn mail_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut crate::mail::MailTables, &Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let mail = &mut self.mail;
        let result = transaction(connection, |connection| work(mail, connection));
        if result.is_err() {
            self.mail.forget();
        }
        result.map_err(|error| store_error(&error))
    }

    /// Lets some more texts be searched. Returns whether there are more.
    pub(super) fn index_mail(&mut self) -> Result<bool, StoreError> {
        self.connect()?;
        self.mail_transaction(|mail, connection| mail.index(connection))
    }

    /// One step of what retention does not keep of the mail, if something is left to prune.
    pub(super) fn prune_mail(&mut self) {
        let Some((retention, now)) = self.pruning else { return };
        let pruned =
            self.mail_transaction(|mail, connection| mail.prune(connection, retention, now));
        // What fails now is pruned by the next round.
        if !matches!(pruned, Ok(true)) {
            self.pruning = None;
        }
    }
}

fn answer(group: Vec<MailCommit>, result: Result<Vec<Vec<MailOutcome>>, StoreError>) {
    // A caller that is gone does not want to know.
    match result {
        Ok(outcomes) => {
            for (commit, outcomes) in group.into_iter().zip(outcomes) {
                drop(commit.reply.send(Ok(outcomes)));
            }
        }
        Err(error) => {
            for commit in group {
                drop(commit.reply.send(Err(error.clone())));
            }
        }
    }
}

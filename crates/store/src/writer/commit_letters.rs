//! What the writer does with letters of others, and with what is known of the own ones.

use tokio::sync::oneshot;
use x0x_direct::letters::LetterChange;
use x0x_gossip_pubsub::StoreError;

use super::{LOOK_AFTER, Writer, transaction};
use crate::{error::store_error, letters};

/// Changes that hold together, and who hears of it.
#[derive(Debug)]
pub(crate) struct LettersCommit {
    pub(crate) changes: Vec<LetterChange>,
    pub(crate) reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Writer {
    /// Commits changes in a transaction of their own.
    pub(super) fn commit_letters(&mut self, commit: LettersCommit) {
        let LettersCommit { changes, reply } = commit;
        let bytes = letters::bytes(&changes);
        let mut result = self.connect().and_then(|()| self.try_commit_letters(&changes));
        if matches!(result, Err(StoreError::Full)) && self.make_room(bytes) {
            result = self.try_commit_letters(&changes);
        }
        match &result {
            Ok(()) => {
                self.metrics.commits.inc();
                self.metrics.transactions.inc();
                self.metrics.full.set(0);
                self.metrics.changes.add(changes.len() as u64);
                self.unseen_bytes += bytes;
                self.journal.note(&self.config, bytes);
            }
            Err(error) => {
                self.metrics.failed(error);
                if let StoreError::Corrupt(reason) = error {
                    self.replace(reason);
                }
            }
        }
        // A caller that is gone does not want to know.
        drop(reply.send(result));
        if self.unseen_bytes >= LOOK_AFTER.min(self.config.cap() / 16) {
            self.look();
        }
        self.step();
    }

    fn try_commit_letters(&self, changes: &[LetterChange]) -> Result<(), StoreError> {
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let result = transaction(connection, |connection| letters::apply(connection, changes));
        result.map_err(|error| store_error(&error))
    }
}

//! What the writer does with replicated objects.

use tokio::sync::oneshot;
use x0x_gossip_pubsub::StoreError;

use super::{LOOK_AFTER, Writer, transaction};
use crate::{
    error::store_error,
    objects::{self, ObjectChange},
};

/// A change, and who hears of it.
#[derive(Debug)]
pub(crate) struct ObjectsCommit {
    pub(crate) change: ObjectChange,
    pub(crate) reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Writer {
    /// Commits a change in a transaction of its own.
    pub(super) fn commit_object(&mut self, commit: ObjectsCommit) {
        let ObjectsCommit { change, reply } = commit;
        let bytes = objects::bytes(&change);
        let mut result = self.connect().and_then(|()| self.try_commit_object(&change));
        if matches!(result, Err(StoreError::Full)) && self.make_room(bytes) {
            result = self.try_commit_object(&change);
        }
        match &result {
            Ok(()) => {
                self.metrics.commits.inc();
                self.metrics.transactions.inc();
                self.metrics.full.set(0);
                self.metrics.changes.inc();
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

    fn try_commit_object(&self, change: &ObjectChange) -> Result<(), StoreError> {
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let result = transaction(connection, |connection| objects::apply(connection, change));
        result.map_err(|error| store_error(&error))
    }
}

//! Records on their way to the disk: one batch at a time, answers after what they depend on.

use std::collections::{BTreeMap, BTreeSet};

use tokio::{sync::oneshot, task::JoinHandle};

use super::Shared;
use crate::{
    error::{ChangeTransferError, SendFileError, WorkError},
    id::TransferId,
    record::Record,
    state::{Changed, Input},
    store::FileStore,
};

type SendReply = oneshot::Sender<Result<TransferId, SendFileError>>;
type ChangeReply = oneshot::Sender<Result<Changed, ChangeTransferError>>;

/// Who waits for an answer of the machine.
pub(super) enum Answer {
    Send(SendReply),
    Change(TransferId, ChangeReply),
}

/// What is to be done about one transfer, in this order; of several records the last one. An id that was
/// forgotten may be a new transfer's.
#[derive(Default)]
struct Entry {
    forget: Option<Record>,
    save: Option<Record>,
    discard: Option<Record>,
}

/// Answers that wait until the records before them are kept.
enum Pending {
    Send(SendReply, Result<TransferId, SendFileError>),
    Change(TransferId, ChangeReply, Result<Changed, ChangeTransferError>),
}

/// As many entries wait as there are transfers, and as many answers as callers.
pub(super) struct Journal {
    shared: Shared,
    entries: BTreeMap<TransferId, Entry>,
    answers: Vec<Pending>,
    writing: Option<JoinHandle<BTreeSet<TransferId>>>,
    /// Of the batch that is being written.
    waiting: Vec<Pending>,
    results: Vec<Input>,
}

impl Journal {
    pub(super) const fn new(shared: Shared) -> Self {
        Self {
            shared,
            entries: BTreeMap::new(),
            answers: Vec::new(),
            writing: None,
            waiting: Vec::new(),
            results: Vec::new(),
        }
    }

    pub(super) fn save(&mut self, record: Record) {
        let entry = self.entries.entry(record.id).or_default();
        entry.save = Some(record);
    }

    pub(super) fn discard(&mut self, record: Record) {
        let entry = self.entries.entry(record.id).or_default();
        entry.discard = Some(record);
    }

    pub(super) fn forget(&mut self, record: Record) {
        let entry = self.entries.entry(record.id).or_default();
        *entry = Entry { forget: Some(record), ..Entry::default() };
    }

    pub(super) fn answer_send(
        &mut self,
        reply: SendReply,
        result: Result<TransferId, SendFileError>,
    ) {
        self.answers.push(Pending::Send(reply, result));
    }

    pub(super) fn answer_change(
        &mut self,
        id: TransferId,
        reply: ChangeReply,
        result: Result<Changed, ChangeTransferError>,
    ) {
        self.answers.push(Pending::Change(id, reply, result));
    }

    pub(super) const fn is_busy(&self) -> bool {
        self.writing.is_some()
    }

    /// Begins with the next batch, unless one is being written.
    pub(super) fn start(&mut self) {
        if self.writing.is_some() {
            return;
        }
        if self.entries.is_empty() {
            let answers = std::mem::take(&mut self.answers);
            answers.into_iter().for_each(|pending| self.tell(pending, &BTreeSet::new()));
            return;
        }
        let entries = std::mem::take(&mut self.entries);
        self.waiting = std::mem::take(&mut self.answers);
        let store = self.shared.store.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || write(&*store, entries)));
    }

    /// Waits for the end of the batch that is being written; forever when there is none. Cancel safe.
    pub(super) async fn finished(&mut self) {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        // A panic there is a bug of the store, which counts as nothing kept.
        let written = writing.await;
        self.writing = None;
        let waiting = std::mem::take(&mut self.waiting);
        let failed = written.unwrap_or_else(|_| {
            let named = |pending: &Pending| match pending {
                Pending::Send(_, result) => result.as_ref().ok().copied(),
                Pending::Change(id, ..) => Some(*id),
            };
            waiting.iter().filter_map(named).collect()
        });
        waiting.into_iter().for_each(|pending| self.tell(pending, &failed));
        self.results.extend(failed.into_iter().map(Input::Unsaved));
    }

    /// What the machine is to hear.
    pub(super) fn take_results(&mut self) -> Vec<Input> {
        std::mem::take(&mut self.results)
    }

    /// Answers; a caller that is gone needs none.
    fn tell(&mut self, pending: Pending, failed: &BTreeSet<TransferId>) {
        let unsaved = || "the disk did not take the record".to_owned();
        match pending {
            Pending::Send(reply, Ok(id)) if failed.contains(&id) => {
                // What the caller was not promised is not sent either.
                let change = crate::state::Change::Cancel;
                self.results.push(Input::Change { ticket: 0, id, change });
                let _ = reply.send(Err(SendFileError::Storage(unsaved())));
            }
            Pending::Send(reply, result) => drop(reply.send(result)),
            Pending::Change(id, reply, Ok(_)) if failed.contains(&id) => {
                let _ = reply.send(Err(ChangeTransferError::Storage(unsaved())));
            }
            Pending::Change(_, reply, result) => drop(reply.send(result)),
        }
    }
}

/// Carries a batch out, and names those whose record the disk did not take.
fn write(store: &dyn FileStore, entries: BTreeMap<TransferId, Entry>) -> BTreeSet<TransferId> {
    let mut failed = BTreeSet::new();
    for (id, Entry { forget, save, discard }) in entries {
        // What is left behind takes room and does no other harm.
        if let Some(Err(error)) = forget.map(|record| store.forget(&record)) {
            log_leftover(id, &error);
        }
        let saved = save.as_ref().map_or(Ok(()), |record| store.save(record));
        if let Err(error) = saved {
            tracing::warn!(%id, %error, "the record of a transfer is not kept");
            failed.insert(id);
            continue;
        }
        let dropped = discard.as_ref().map_or(Ok(()), |record| store.discard(record));
        if let Err(error) = dropped {
            log_leftover(id, &error);
        }
    }
    failed
}

fn log_leftover(id: TransferId, error: &WorkError) {
    tracing::warn!(%id, %error, "files of a transfer are left behind");
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use x0x_core::{AgentId, WallTime};

    use super::*;
    use crate::{
        record::{Direction, Phase},
        testing::MemoryStore,
    };

    #[test]
    fn what_is_saved_after_it_was_forgotten_is_kept() {
        let id = TransferId::new([1; 16]);
        let record = Record {
            id,
            direction: Direction::Receiving,
            peer: AgentId::new([1; 32]),
            machine: None,
            local: AgentId::new([2; 32]),
            name: "f".into(),
            size: 0,
            root: None,
            sha256: None,
            media_type: String::new(),
            phase: Phase::Offered,
            reason: None,
            started: WallTime::from_millis(0),
            ended: None,
            source: None,
            modified: 0,
            folder: None,
            output: None,
        };
        let store = MemoryStore::new();
        store.save(&record).expect("saved");
        let entry =
            Entry { forget: Some(record.clone()), save: Some(record.clone()), discard: None };
        assert!(write(&store, BTreeMap::from([(id, entry)])).is_empty());
        assert_eq!(store.load(), Ok(vec![record]));
    }
}

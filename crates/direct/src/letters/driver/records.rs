//! What the store is to know of letters, in order: what cannot be recorded now is recorded later.

use std::{collections::VecDeque, time::Duration};

use x0x_core::Tick;

use super::{
    super::{holder::Held, store::LetterChange},
    Driver, work,
};
use crate::mail::MailError;

/// Records that wait for the store. Of those beyond it, deletions are made anew from what the store
/// has; all others are made again by themselves, or only missed.
pub(super) const MAX_RECORDS: usize = 4096;
/// Records that one commit makes.
const RECORD_BATCH: usize = 256;
/// The first pause after a commit failed; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(320);

#[derive(Debug, Default)]
pub(super) struct Records {
    changes: VecDeque<LetterChange>,
    /// The store is busy with some of them.
    is_busy: bool,
    failures: u32,
    retry_at: Option<Tick>,
    /// A deletion had no room: what the store has more than the machine is to be deleted.
    is_swept: Swept,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Swept {
    #[default]
    Yes,
    No,
    Looking,
}

impl Records {
    /// When to try again.
    pub(super) const fn retry_at(&self) -> Option<Tick> {
        self.retry_at
    }

    /// Whether the store has heard of all of it.
    pub(super) fn is_done(&self) -> bool {
        self.changes.is_empty() && !self.is_busy
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Tries again at once.
    pub(super) const fn hurry(&mut self) {
        (self.retry_at, self.failures) = (None, 0);
    }

    fn failed(&mut self, now: Tick) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LAST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + pause);
    }
}

impl Driver {
    pub(super) fn record(&mut self, changes: Vec<LetterChange>) {
        let records = &mut self.records;
        for change in changes {
            if records.changes.len() < MAX_RECORDS {
                records.changes.push_back(change);
                continue;
            }
            self.metrics.records_dropped.inc();
            if matches!(change, LetterChange::Remove { .. }) {
                records.is_swept = Swept::No;
            }
        }
    }

    /// One commit at a time, so that they keep their order.
    pub(super) fn commit_records(&mut self) {
        let now = self.now();
        let records = &mut self.records;
        if records.is_busy || records.retry_at.is_some_and(|at| at > now) {
            return;
        }
        records.retry_at = None;
        let batch = records.changes.len().min(RECORD_BATCH);
        // What was deleted and is kept anew meanwhile is not to be deleted.
        let is_stale = |change: &LetterChange| match change {
            LetterChange::Remove { tag, digest } => self.holder.holds(*tag, *digest),
            _ => false,
        };
        let changes = records.changes.drain(..batch).filter(|change| !is_stale(change));
        let changes: Vec<LetterChange> = changes.collect();
        if !changes.is_empty() {
            records.is_busy = true;
            self.work.push(work::record(&self.shared, changes));
        } else if records.changes.is_empty() && records.is_swept == Swept::No {
            records.is_swept = Swept::Looking;
            records.is_busy = true;
            self.work.push(work::held(&self.shared));
        }
    }

    /// What failed is tried again, before anything else.
    pub(super) fn recorded(&mut self, changes: Vec<LetterChange>, result: Result<(), MailError>) {
        let now = self.now();
        self.records.is_busy = false;
        match result {
            Ok(()) => self.records.hurry(),
            Err(error) => {
                tracing::debug!(%error, "what became of letters is not recorded yet");
                self.metrics.records_failed.inc();
                for change in changes.into_iter().rev() {
                    self.records.changes.push_front(change);
                }
                self.records.failed(now);
            }
        }
    }

    /// Deletes what the store has and the machine does not know.
    pub(super) fn looked(&mut self, stored: Result<Vec<Held>, MailError>) {
        let now = self.now();
        self.records.is_busy = false;
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                tracing::debug!(%error, "letters of others that were deleted are still stored");
                self.records.is_swept = Swept::No;
                return self.records.failed(now);
            }
        };
        self.records.hurry();
        if self.records.is_swept == Swept::Looking {
            self.records.is_swept = Swept::Yes;
        }
        let gone = stored.iter().filter(|held| !self.holder.holds(held.tag, held.digest));
        let remove = |held: &Held| LetterChange::Remove { tag: held.tag, digest: held.digest };
        let gone: Vec<LetterChange> = gone.map(remove).collect();
        self.metrics.swept.add(gone.len() as u64);
        self.record(gone);
    }
}

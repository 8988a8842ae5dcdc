//! Work beside the driver: hashing, reading, sending, storing.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    sync::{Mutex, OwnedMutexGuard, mpsc},
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Report, Shared, Work};
use crate::{
    config::WINDOW,
    error::WorkError,
    id::TransferId,
    io::{self, Receiving},
    ranges::RangeSet,
    record::Record,
    state::Input,
    store::FileStore,
    wire::SliceIn,
};

/// What a storing task is given.
pub(super) enum Job {
    Store(SliceIn),
    Finish,
}

/// More than a window has, so that what was asked for always finds room.
const MAX_JOBS_WAITING: usize = *WINDOW.end() as usize + 16;

/// Groups that are stored in one go.
const STORED_AT_ONCE: usize = 16;

/// The task that stores a file's groups. What it does is stopped when this is dropped.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    _stop: DropGuard,
}

/// A file as it was opened last.
#[derive(Clone)]
pub(super) struct Opening {
    /// What a task reports of an opening before is no news.
    number: u64,
    /// Held by the task that is busy with the file, also after it was told to stop.
    file: Arc<Mutex<Durability>>,
}

/// What is known of a file beside what can be read of it.
#[derive(Default)]
struct Durability {
    /// The disk failed to make some of it durable, and may believe that it is: it is to be written again.
    is_lost: bool,
}

pub(super) fn panicked() -> WorkError {
    WorkError::Disk("the work was not finished".into())
}

impl Work {
    /// Reads a file for its hashes, when it is its turn.
    pub(super) fn prepare(&mut self, record: Record) {
        let given_up = self.shared.stop.child_token();
        self.prepares.insert(record.id, given_up.clone());
        let (shared, turns) = (self.shared.clone(), self.preparing.clone());
        self.shared.tasks.spawn(async move {
            let id = record.id;
            let turn = tokio::select! {
                turn = turns.acquire_owned() => turn,
                () = given_up.cancelled() => return,
            };
            let store = shared.store.clone();
            let token = given_up.clone();
            let work =
                spawn_blocking(move || io::prepare(&*store, &record, || token.is_cancelled()));
            let result = work.await.unwrap_or_else(|_| Err(panicked()));
            drop(turn);
            if !given_up.is_cancelled() {
                shared.report(Input::Prepared { id, result }).await;
            }
        });
    }

    /// A transfer that ended needs no work any more.
    pub(super) fn give_up(&mut self, id: TransferId) {
        self.writers.remove(&id);
        self.openings.remove(&id);
        if let Some(prepare) = self.prepares.remove(&id) {
            prepare.cancel();
        }
    }

    pub(super) fn look_for_space(&self, id: TransferId, folder: Option<PathBuf>) {
        let shared = self.shared.clone();
        self.shared.tasks.spawn(async move {
            let store = shared.store.clone();
            let work = spawn_blocking(move || store.free(folder.as_deref()));
            let free = work.await.unwrap_or_else(|_| Err(panicked()));
            shared.report(Input::Space { id, free }).await;
        });
    }

    /// Starts the task that stores a file's groups.
    pub(super) fn open(&mut self, record: Record) {
        let (jobs, waiting) = mpsc::channel(MAX_JOBS_WAITING);
        let stop = self.shared.stop.child_token();
        let writer = Writer { jobs, _stop: stop.clone().drop_guard() };
        self.writers.insert(record.id, writer);
        self.next_opening += 1;
        let opening = self
            .openings
            .entry(record.id)
            .or_insert_with(|| Opening { number: 0, file: Arc::default() });
        opening.number = self.next_opening;
        let storing = Storing { shared: self.shared.clone(), opening: opening.clone(), stop };
        self.shared.tasks.spawn(storing.run(record, waiting));
    }

    /// Whether a report is of the latest opening of its file, if it is of any.
    pub(super) fn is_current(&self, opening: Option<(TransferId, u64)>) -> bool {
        opening.is_none_or(|(id, number)| {
            self.openings.get(&id).is_some_and(|opening| opening.number == number)
        })
    }

    pub(super) fn store(&self, slice: SliceIn) {
        let (id, group) = (slice.id, slice.group);
        let writer = self.writers.get(&id);
        if writer.is_none_or(|writer| writer.jobs.try_send(Job::Store(slice)).is_err()) {
            tracing::debug!(%id, group, "nobody stores the group; it is asked for again");
        }
    }

    pub(super) fn finish(&self, id: TransferId) {
        if let Some(writer) = self.writers.get(&id) {
            // There is room: everything before was stored.
            let _ = writer.jobs.try_send(Job::Finish);
        }
    }
}

impl Shared {
    /// Tells the driver; it needs no results any more once it is stopped.
    pub(super) async fn report(&self, input: Input) {
        self.report_of(None, input).await;
    }

    async fn report_of(&self, opening: Option<(TransferId, u64)>, input: Input) {
        tokio::select! {
            _ = self.results.send(Report { opening, input }) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// Opens a file when it is its turn and stores what comes, until the driver closes it.
struct Storing {
    shared: Shared,
    opening: Opening,
    stop: CancellationToken,
}

/// Making durable what was written so far, while more comes.
type Syncing = JoinHandle<Result<(), WorkError>>;

impl Storing {
    async fn run(self, record: Record, jobs: mpsc::Receiver<Job>) {
        let id = record.id;
        // The task before this one may still be busy with the file.
        let mut durability = tokio::select! {
            durability = self.opening.file.clone().lock_owned() => durability,
            () = self.stop.cancelled() => return,
        };
        let Some(opened) = self.open(record, durability.is_lost).await else { return };
        let file = match opened {
            Ok((file, there)) => {
                durability.is_lost = false;
                self.report(Input::Opened { id, result: Ok(there) }, id).await;
                file
            }
            Err(error) => return self.report(Input::Opened { id, result: Err(error) }, id).await,
        };
        let mut syncing = None;
        let failed = self.store(id, file, jobs, (&mut durability, &mut syncing)).await;
        if let Err(error) = failed {
            durability.is_lost |= error == WorkError::Unsynced;
            self.report(Input::Finished { id, result: Err(error) }, id).await;
        }
        // Whoever opens the file next has to know how that ended.
        if let Some(syncing) = syncing {
            tokio::select! {
                failed = has_failed(syncing) => durability.is_lost |= failed,
                // Nobody does in this run.
                () = self.shared.stop.cancelled() => {}
            }
        }
    }

    async fn report(&self, input: Input, id: TransferId) {
        self.shared.report_of(Some((id, self.opening.number)), input).await;
    }

    /// Nothing when it is stopped before its turn.
    async fn open(
        &self,
        record: Record,
        rewrite: bool,
    ) -> Option<Result<(Receiving, RangeSet), WorkError>> {
        let _turn = tokio::select! {
            turn = self.shared.opening.clone().acquire_owned() => turn,
            () = self.stop.cancelled() => return None,
        };
        let (store, room) = (self.shared.store.clone(), self.shared.room.clone());
        let stop = self.stop.clone();
        let open = move || Receiving::open(&*store, record, room, rewrite, || stop.is_cancelled());
        Some(spawn_blocking(open).await.unwrap_or_else(|_| Err(panicked())))
    }

    /// Stores what comes. What waits is stored together, on a thread that is free again after it.
    async fn store(
        &self,
        id: TransferId,
        mut file: Receiving,
        mut jobs: mpsc::Receiver<Job>,
        (durability, syncing): (&mut OwnedMutexGuard<Durability>, &mut Option<Syncing>),
    ) -> Result<(), WorkError> {
        let mut waiting = Vec::with_capacity(STORED_AT_ONCE);
        while jobs.recv_many(&mut waiting, STORED_AT_ONCE).await > 0 {
            let ends = waiting.iter().any(|job| matches!(job, Job::Finish));
            if let Some(done) = syncing.take_if(|syncing| ends || syncing.is_finished())
                && has_failed(done).await
            {
                return Err(WorkError::Unsynced);
            }
            let (store, stopped) = (self.shared.store.clone(), self.stop.clone());
            let batch = std::mem::take(&mut waiting);
            let work = spawn_blocking(move || {
                let run = |job: Job| job.run(id, &mut file, &*store, &stopped);
                let results: Vec<_> = batch.into_iter().map(run).collect();
                (file, results)
            });
            // A panic there has taken the file along.
            let (back, results) = work.await.map_err(|_| panicked())?;
            file = back;
            if syncing.is_none()
                && let Some(twin) = file.sync_ahead()
            {
                *syncing = Some(spawn_blocking(move || twin.sync()));
            }
            for input in results {
                durability.is_lost |=
                    matches!(input, Input::Finished { result: Err(WorkError::Unsynced), .. });
                self.report(input, id).await;
            }
        }
        Ok(())
    }
}

async fn has_failed(syncing: Syncing) -> bool {
    syncing.await.unwrap_or_else(|_| Err(panicked())).is_err()
}

impl Job {
    fn run(
        self,
        id: TransferId,
        file: &mut Receiving,
        store: &dyn FileStore,
        stop: &CancellationToken,
    ) -> Input {
        match self {
            Self::Store(slice) => {
                let group = slice.group;
                Input::Stored { id, group, result: file.store(store, slice) }
            }
            Self::Finish => {
                let result = file.finish(store, || stop.is_cancelled());
                Input::Finished { id, result }
            }
        }
    }
}

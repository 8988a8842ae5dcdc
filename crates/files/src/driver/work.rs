//! Work beside the driver: hashing, reading, sending, storing.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Shared, Work};
use crate::{
    config::WINDOW,
    error::WorkError,
    id::TransferId,
    io::{self, Receiving},
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

/// Files that the disk failed to make durable, and that are written again: no more than there are transfers.
#[derive(Clone, Default)]
pub(super) struct Unsynced(Arc<Mutex<BTreeSet<TransferId>>>);

impl Unsynced {
    fn note(&self, id: TransferId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    pub(super) fn take(&self, id: TransferId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
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
        self.shared.unsynced.take(id);
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
        self.shared.tasks.spawn(write(self.shared.clone(), record, waiting, stop));
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
        tokio::select! {
            _ = self.results.send(input) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// Opens a file when it is its turn and stores what comes, until the driver closes it. What waits is stored
/// together, on a thread that is free again after it.
async fn write(
    shared: Shared,
    record: Record,
    mut jobs: mpsc::Receiver<Job>,
    stop: CancellationToken,
) {
    let id = record.id;
    let turn = tokio::select! {
        turn = shared.opening.clone().acquire_owned() => turn,
        () = stop.cancelled() => return,
    };
    let (store, room, stopped) = (shared.store.clone(), shared.room.clone(), stop.clone());
    let rewrite = shared.unsynced.take(id);
    let open = move || Receiving::open(&*store, record, room, rewrite, || stopped.is_cancelled());
    let opened = spawn_blocking(open).await;
    drop(turn);
    let (mut file, there) = match opened.unwrap_or_else(|_| Err(panicked())) {
        Ok(opened) => opened,
        Err(error) => return shared.report(Input::Opened { id, result: Err(error) }).await,
    };
    shared.report(Input::Opened { id, result: Ok(there) }).await;
    let mut waiting = Vec::with_capacity(STORED_AT_ONCE);
    let mut syncing: Option<JoinHandle<Result<(), WorkError>>> = None;
    while jobs.recv_many(&mut waiting, STORED_AT_ONCE).await > 0 {
        let ends = waiting.iter().any(|job| matches!(job, Job::Finish));
        if let Some(done) = syncing.take_if(|syncing| ends || syncing.is_finished())
            && done.await.unwrap_or_else(|_| Err(panicked())).is_err()
        {
            shared.unsynced.note(id);
            let result = Err(WorkError::Unsynced);
            return shared.report(Input::Finished { id, result }).await;
        }
        let (store, stopped) = (shared.store.clone(), stop.clone());
        let batch = std::mem::take(&mut waiting);
        let work = spawn_blocking(move || {
            let run = |job: Job| job.run(id, &mut file, &*store, &stopped);
            let results: Vec<_> = batch.into_iter().map(run).collect();
            (file, results)
        });
        // A panic there has taken the file along.
        let Ok((back, results)) = work.await else {
            return shared.report(Input::Finished { id, result: Err(panicked()) }).await;
        };
        file = back;
        if syncing.is_none()
            && let Some(twin) = file.sync_ahead()
        {
            syncing = Some(spawn_blocking(move || twin.sync()));
        }
        for input in results {
            if matches!(input, Input::Finished { result: Err(WorkError::Unsynced), .. }) {
                shared.unsynced.note(id);
            }
            shared.report(input).await;
        }
    }
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

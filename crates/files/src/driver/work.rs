//! Work beside the driver: hashing, reading, sending, storing.

use std::{ops::Range, path::PathBuf};

use tokio::{sync::mpsc, task::spawn_blocking};
use x0x_core::{MachineId, Protocol};

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

fn panicked() -> WorkError {
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
        if let Some(prepare) = self.prepares.remove(&id) {
            prepare.cancel();
        }
    }

    /// Reads groups and sends them.
    pub(super) fn serve(
        &mut self,
        peer: MachineId,
        session: u64,
        record: Record,
        groups: Range<u64>,
    ) {
        let shared = self.shared.clone();
        self.shared.tasks.spawn(async move {
            let id = record.id;
            let result = shared.send_groups(peer, record, groups).await;
            shared.report(Input::Served { peer, session, id, result }).await;
        });
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
        self.writers.insert(record.id, jobs);
        self.shared.tasks.spawn(write(self.shared.clone(), record, waiting));
    }

    pub(super) fn store(&self, slice: SliceIn) {
        let (id, group) = (slice.id, slice.group);
        let writer = self.writers.get(&id);
        if writer.is_none_or(|writer| writer.try_send(Job::Store(slice)).is_err()) {
            tracing::debug!(%id, group, "nobody stores the group; it is asked for again");
        }
    }

    pub(super) fn finish(&self, id: TransferId) {
        if let Some(writer) = self.writers.get(&id) {
            // There is room: everything before was stored.
            let _ = writer.try_send(Job::Finish);
        }
    }
}

impl Shared {
    /// Tells the driver; it needs no results any more once it is stopped.
    async fn report(&self, input: Input) {
        tokio::select! {
            _ = self.results.send(input) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn send_groups(
        &self,
        peer: MachineId,
        record: Record,
        groups: Range<u64>,
    ) -> Result<u64, WorkError> {
        let store = self.store.clone();
        let lens: u64 = groups.clone().map(|g| crate::tree::group_len(record.size, g) as u64).sum();
        let read = spawn_blocking(move || io::frames(&*store, &record, groups));
        let frames = read.await.unwrap_or_else(|_| Err(panicked()))?;
        for frame in frames {
            let sent = tokio::select! {
                sent = self.transport.send(peer, Protocol::FileContent, frame) => sent,
                () = self.stop.cancelled() => return Err(WorkError::Disconnected),
            };
            sent.map_err(|_| WorkError::Disconnected)?;
        }
        Ok(lens)
    }
}

/// Opens a file and stores what comes, until the driver closes it. What waits is stored together, on a
/// thread that is free again after it.
async fn write(shared: Shared, record: Record, mut jobs: mpsc::Receiver<Job>) {
    let id = record.id;
    let (store, keep_free) = (shared.store.clone(), shared.keep_free);
    let opened = spawn_blocking(move || Receiving::open(&*store, record, keep_free)).await;
    let (mut file, there) = match opened.unwrap_or_else(|_| Err(panicked())) {
        Ok(opened) => opened,
        Err(error) => return shared.report(Input::Opened { id, result: Err(error) }).await,
    };
    shared.report(Input::Opened { id, result: Ok(there) }).await;
    let mut waiting = Vec::with_capacity(STORED_AT_ONCE);
    while jobs.recv_many(&mut waiting, STORED_AT_ONCE).await > 0 {
        let store = shared.store.clone();
        let batch = std::mem::take(&mut waiting);
        let work = spawn_blocking(move || {
            let results: Vec<_> =
                batch.into_iter().map(|job| job.run(id, &mut file, &*store)).collect();
            (file, results)
        });
        // A panic there has taken the file along.
        let Ok((back, results)) = work.await else {
            return shared.report(Input::Finished { id, result: Err(panicked()) }).await;
        };
        file = back;
        for input in results {
            shared.report(input).await;
        }
    }
}

impl Job {
    fn run(self, id: TransferId, file: &mut Receiving, store: &dyn FileStore) -> Input {
        match self {
            Self::Store(slice) => {
                let group = slice.group;
                Input::Stored { id, group, result: file.store(store, slice) }
            }
            Self::Finish => Input::Finished { id, result: file.finish(store) },
        }
    }
}

//! Content on its way to one machine, in order: so its running hash goes on, and nobody else waits for it.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};
use x0x_core::{MachineId, Protocol};
use x0x_transport::error::SendError;

use super::{Shared, work::panicked};
use crate::{
    config::{JOB_GROUPS, JOBS_PER_PEER, TAKE_DEADLINE},
    error::WorkError,
    io::Sources,
    record::Record,
    state::Input,
    tree::group_len,
};

/// A machine that takes longer for a group is slow.
const SLOW: Duration = Duration::from_millis(200);
/// How long files stay open after the last job.
const KEEP_OPEN: Duration = Duration::from_secs(5);

/// Groups to send.
pub(super) struct Job {
    pub(super) record: Record,
    pub(super) groups: Range<u64>,
}

/// The lanes of the sessions in which something was sent, by machine.
#[derive(Default)]
pub(super) struct Lanes(BTreeMap<MachineId, (u64, mpsc::Sender<Job>)>);

impl Lanes {
    /// Puts a job at the end of a session's lane.
    pub(super) fn put(&mut self, shared: &Shared, peer: MachineId, session: u64, job: Job) {
        let lane = self.0.get(&peer).filter(|(number, _)| *number == session);
        let sender = match lane {
            Some((_, sender)) => sender.clone(),
            None => {
                let (sender, jobs) = mpsc::channel(JOBS_PER_PEER);
                self.0.insert(peer, (session, sender.clone()));
                shared.tasks.spawn(run(shared.clone(), peer, session, jobs));
                sender
            }
        };
        // There is room: the machine gives out no more at a time.
        let _ = sender.try_send(job);
    }

    /// The session ended.
    pub(super) fn close(&mut self, peer: MachineId) {
        self.0.remove(&peer);
    }
}

async fn run(shared: Shared, peer: MachineId, session: u64, mut jobs: mpsc::Receiver<Job>) {
    let mut lane = Lane { shared, peer, slow: false, sources: Sources::default() };
    loop {
        let job = match timeout(KEEP_OPEN, jobs.recv()).await {
            Ok(job) => job,
            Err(_) => {
                lane.sources = Sources::default();
                jobs.recv().await
            }
        };
        let Some(Job { record, groups }) = job else { return };
        let (id, mut left) = (record.id, groups);
        let size = record.size;
        let first = left.start;
        let result = lane.send(Arc::new(record), &mut left).await;
        let sent = (first..left.start).map(|group| group_len(size, group) as u64).sum();
        lane.shared.report(Input::Served { peer, session, id, sent, left, result }).await;
    }
}

struct Lane {
    shared: Shared,
    peer: MachineId,
    /// One group is read at a time then, so that little waits for a machine that takes its time.
    slow: bool,
    sources: Sources,
}

impl Lane {
    /// Reads groups and sends them; those that went leave `left`.
    async fn send(&mut self, record: Arc<Record>, left: &mut Range<u64>) -> Result<(), WorkError> {
        while !left.is_empty() {
            let count = if self.slow { 1 } else { JOB_GROUPS }.min(left.end - left.start);
            let memory = self.shared.memory.clone();
            let mut memory = tokio::select! {
                // Of a closed semaphore, which this one never is.
                memory = memory.acquire_many_owned(count as u32) => memory.map_err(|_| panicked())?,
                () = self.shared.stop.cancelled() => return Err(WorkError::Disconnected),
            };
            for frame in self.read(&record, left.start..left.start + count).await? {
                self.send_frame(frame).await?;
                left.start += 1;
                drop(memory.split(1));
            }
        }
        Ok(())
    }

    async fn read(
        &mut self,
        record: &Arc<Record>,
        groups: Range<u64>,
    ) -> Result<Vec<Bytes>, WorkError> {
        let (store, record) = (self.shared.store.clone(), record.clone());
        let mut sources = std::mem::take(&mut self.sources);
        let work = spawn_blocking(move || {
            let frames = sources.frames(&*store, &record, groups);
            (sources, frames)
        });
        let (sources, frames) = work.await.map_err(|_| panicked())?;
        self.sources = sources;
        frames
    }

    async fn send_frame(&mut self, frame: Bytes) -> Result<(), WorkError> {
        let (transport, peer) = (self.shared.transport.clone(), self.peer);
        let send = |frame: &Bytes| transport.send(peer, Protocol::FileContent, frame.clone());
        let sent = tokio::select! {
            sent = timeout(SLOW, send(&frame)) => sent,
            () = self.shared.stop.cancelled() => return Err(WorkError::Disconnected),
        };
        self.slow = sent.is_err();
        if let Ok(sent) = sent {
            return sent.map_err(|_| WorkError::Disconnected);
        }
        let sent = tokio::select! {
            sent = timeout(TAKE_DEADLINE, send(&frame)) => sent,
            () = self.shared.stop.cancelled() => return Err(WorkError::Disconnected),
        };
        if let Ok(sent) = sent {
            return sent.map_err(|_| WorkError::Disconnected);
        }
        // The transport says when a machine that was refused takes something again.
        match transport.try_send(peer, Protocol::FileContent, frame) {
            Ok(()) => Ok(()),
            Err(SendError::Busy) => Err(WorkError::Stalled),
            Err(_) => Err(WorkError::Disconnected),
        }
    }
}

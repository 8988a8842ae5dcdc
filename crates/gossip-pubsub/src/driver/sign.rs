//! What the driver gives the signer, and when.

use std::{future, sync::Arc};

use tokio::task::JoinHandle;
use x0x_core::{Machine as _, Tick};

use crate::{
    config::MAX_RUN_ENTRIES,
    error::VerifyError,
    retention::Retention,
    run::{Run, UnsignedRun},
    state::Input,
    store::follow::Follower,
};

use super::Driver;

pub(super) type Signing = JoinHandle<Result<Run, VerifyError>>;

impl Driver {
    pub(super) fn signed(&mut self, now: Tick, run: Run) {
        self.shared.publisher().signed(&run);
        // The topic's chain may be forgotten now, which a waiting publisher may need.
        self.shared.room.notify_waiters();
        self.machine.handle(now, Input::Signed(Arc::new(run)));
    }

    /// Gives the signer the next run. One that is not full waits until the run before of its topic is
    /// stored, since the callers of that one are only answered then, and a little longer for those
    /// who come again: each signature, and each check of it at every subscriber, costs as much as
    /// hundreds of entries.
    pub(super) fn sign_next(&mut self, now: Tick) {
        if self.signing.is_some() || self.store.as_ref().is_some_and(Follower::is_full) {
            return;
        }
        let (unstored, gather) = (&self.unstored, &self.gather);
        let may = |topic, retention, entries| {
            entries >= MAX_RUN_ENTRIES
                || retention == Retention::Ephemeral
                || (gather.is_enough(now, &topic, entries)
                    && !unstored.iter().any(|(_, run)| run.topic == topic))
        };
        let mut publisher = self.shared.publisher();
        publisher.wait_for(gather.awaited(now));
        if !publisher.turn_to(may) {
            return;
        }
        drop(publisher);
        if self.gather.is_at_rest(now) && self.shared.publisher().pending() == 1 {
            self.sign_here(now);
        } else {
            self.sign();
        }
    }

    /// Signs at once on this thread: two changes of thread take as long as the signature, and there
    /// is nothing that could overlap with it.
    fn sign_here(&mut self, now: Tick) {
        let Some(run) = self.next_run() else { return };
        match run.sign(&self.key) {
            Ok(run) => self.signed(now, run),
            Err(error) => {
                tracing::error!(%error, "signing failed");
                self.stop.cancel();
            }
        }
    }

    fn next_run(&mut self) -> Option<UnsignedRun> {
        let run = self.shared.publisher().next_run()?;
        self.gather.begins(&run.0.topic(), run.0.entries.len());
        Some(run)
    }

    /// Gives the signer the next run, if it is free.
    pub(super) fn sign(&mut self) {
        if self.signing.is_some() {
            return;
        }
        let Some(run) = self.next_run() else { return };
        self.shared.room.notify_waiters();
        let key = Arc::clone(&self.key);
        self.signing = Some(tokio::task::spawn_blocking(move || run.sign(&key)));
    }
}

/// The signed run; pending while nothing is being signed. `None` when the signer failed, which
/// ends the service: the author's log cannot continue past a gap.
pub(super) async fn finish(signing: &mut Option<Signing>) -> Option<Box<Run>> {
    let Some(task) = signing.as_mut() else { return future::pending().await };
    let result = task.await;
    *signing = None;
    match result {
        Ok(Ok(run)) => Some(Box::new(run)),
        Ok(Err(error)) => {
            tracing::error!(%error, "signing failed");
            None
        }
        Err(error) => {
            tracing::error!(%error, "the signer failed");
            None
        }
    }
}

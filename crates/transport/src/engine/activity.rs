//! Whether anything goes on, so that a node at rest has nothing to look after.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// What is sent so soon after something came is taken for its answer: an acknowledgement (they are delayed
/// by 25 ms at most, RFC 9000 section 18.2). What it should have been instead is sent again, later.
const ANSWER: Duration = Duration::from_millis(50);
/// So many packets that come are not the odd keep-alive, whatever is sent.
const MANY: u64 = 16;

/// Wakes whoever rests at the first packet that is sent of this end's own accord.
#[derive(Debug)]
pub(super) struct Activity {
    origin: Instant,
    resting: AtomicBool,
    /// Milliseconds from `origin` until which what is sent is an answer.
    answers_until: AtomicU64,
    /// Packets that came during the rest.
    came: AtomicU64,
    woken: Notify,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            resting: AtomicBool::default(),
            answers_until: AtomicU64::default(),
            came: AtomicU64::default(),
            woken: Notify::new(),
        }
    }
}

impl Activity {
    /// Nothing is to be looked after until a packet is sent.
    pub(super) fn rest(&self) {
        self.came.store(0, Ordering::Relaxed);
        self.resting.store(true, Ordering::Relaxed);
    }

    /// A packet is sent.
    pub(super) fn sent(&self) {
        if self.is_resting() && self.millis() >= self.answers_until.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Packets came.
    pub(super) fn received(&self, packets: u64) {
        if !self.is_resting() {
            return;
        }
        let until = self.millis() + ANSWER.as_millis() as u64;
        self.answers_until.store(until, Ordering::Relaxed);
        if self.came.fetch_add(packets, Ordering::Relaxed) + packets >= MANY {
            self.wake();
        }
    }

    /// Waits for the end of a rest.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        if self.resting.swap(false, Ordering::Relaxed) {
            self.woken.notify_one();
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_first_packet_after_a_rest_wakes() {
        let activity = Activity::default();
        let woken = || is_ready(activity.woken());
        activity.sent();
        assert!(!woken(), "it was not at rest");
        activity.rest();
        assert!(!woken());
        activity.sent();
        activity.sent();
        assert!(woken() && !woken());
    }

    #[tokio::test(start_paused = true)]
    async fn answers_wake_nobody_and_a_transfer_that_comes_does() {
        let activity = Activity::default();
        let woken = || is_ready(activity.woken());
        activity.rest();
        activity.received(1);
        tokio::time::advance(ANSWER - Duration::from_millis(1)).await;
        activity.sent();
        assert!(!woken(), "an acknowledgement");
        tokio::time::advance(Duration::from_millis(1)).await;
        activity.sent();
        assert!(woken(), "of its own accord");

        activity.rest();
        activity.received(MANY - 1);
        activity.sent();
        assert!(!woken());
        activity.received(1);
        assert!(woken());
        activity.rest();
        activity.received(1);
        assert!(!woken(), "it counts anew");
    }

    /// Whether a future is ready at once.
    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let mut future = std::pin::pin!(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut context).is_ready()
    }
}

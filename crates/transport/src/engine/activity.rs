//! Whether anything is sent, so that a node at rest has nothing to look after.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Wakes whoever rests at the first packet that is sent.
#[derive(Debug, Default)]
pub(super) struct Activity {
    resting: AtomicBool,
    woken: Notify,
}

impl Activity {
    /// Nothing is to be looked after until a packet is sent.
    pub(super) fn rest(&self) {
        self.resting.store(true, Ordering::Relaxed);
    }

    /// A packet is sent.
    pub(super) fn note(&self) {
        if self.resting.load(Ordering::Relaxed) && self.resting.swap(false, Ordering::Relaxed) {
            self.woken.notify_one();
        }
    }

    /// Waits for the first packet after a rest.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_first_packet_after_a_rest_wakes() {
        let activity = Activity::default();
        let woken = || is_ready(activity.woken());
        activity.note();
        assert!(!woken(), "it was not at rest");
        activity.rest();
        assert!(!woken());
        activity.note();
        activity.note();
        assert!(woken() && !woken());
    }

    /// Whether a future is ready at once.
    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let mut future = std::pin::pin!(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut context).is_ready()
    }
}

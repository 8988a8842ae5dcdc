//! Frames on their way to a client: bounded by count and bytes, filled by many tasks, emptied by one.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::Notify;
use x0x_api::{ErrorCode, ws::ServerFrame};
use x0x_core::{BoundedQueue, QueueFull};

/// Most frames that wait.
const MAX_FRAMES: usize = 1024;
/// Most bytes that wait; one larger frame waits alone.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// What the first sessions have together; further ones have the share that this leaves to so many, so
/// that a thousand sessions that do not read hold less than four times this.
const SHARED_BYTES: usize = 256 * 1024 * 1024;
/// Bytes that are taken at once, unless one frame is larger.
const MAX_BATCH: usize = 256 * 1024;

/// The text of a frame.
pub(super) fn text(frame: &ServerFrame) -> Utf8Bytes {
    // Types of this API always serialise; a frame without a type is ignored by clients if not.
    serde_json::to_string(frame).unwrap_or_else(|_| "{}".to_owned()).into()
}

/// The queue.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<BoundedQueue<Utf8Bytes>>,
    filled: Notify,
    emptied: Notify,
    /// The session's reader waits until what the protocol itself has to say is written too.
    flush_wanted: AtomicBool,
    flushed: Notify,
}

impl Outbox {
    /// For a session that is one of so many.
    pub(super) fn new(sessions: usize) -> Self {
        let bytes = (SHARED_BYTES / sessions.max(1)).min(MAX_BYTES);
        Self {
            queue: Mutex::new(BoundedQueue::new(MAX_FRAMES, bytes)),
            filled: Notify::new(),
            emptied: Notify::new(),
            flush_wanted: AtomicBool::new(false),
            flushed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BoundedQueue<Utf8Bytes>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a frame, waiting for room.
    pub(super) async fn push(&self, frame: &ServerFrame) {
        self.push_all([text(frame)]).await;
    }

    /// Appends frames in order, waiting for room.
    pub(super) async fn push_all(&self, frames: impl IntoIterator<Item = Utf8Bytes>) {
        let mut frames = frames.into_iter();
        let mut waiting = frames.next();
        while waiting.is_some() {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Registered before looking, so that room made in between is noticed.
            emptied.as_mut().enable();
            waiting = self.push_what_fits(waiting, &mut frames);
            if waiting.is_some() {
                emptied.await;
            }
        }
    }

    /// Gives back the frame that did not fit.
    fn push_what_fits(
        &self,
        mut waiting: Option<Utf8Bytes>,
        frames: &mut impl Iterator<Item = Utf8Bytes>,
    ) -> Option<Utf8Bytes> {
        let mut queue = self.lock();
        while let Some(frame) = waiting {
            let bytes = frame.len();
            match queue.push(frame, bytes) {
                Ok(()) => waiting = frames.next(),
                Err(QueueFull(frame)) => {
                    waiting = Some(frame);
                    break;
                }
            }
        }
        drop(queue);
        self.filled.notify_one();
        waiting
    }

    /// Waits until the writer has flushed the socket. One caller at a time.
    pub(super) async fn flush(&self) {
        self.flush_wanted.store(true, Ordering::Release);
        self.filled.notify_one();
        self.flushed.notified().await;
    }

    /// Tells who waits for it that the socket was flushed.
    pub(super) fn note_flushed(&self) {
        if self.flush_wanted.swap(false, Ordering::AcqRel) {
            self.flushed.notify_one();
        }
    }

    /// Waits for frames and takes some of them, at least one unless a flush is wanted. Cancel safe.
    pub(super) async fn take(&self) -> Vec<Utf8Bytes> {
        loop {
            let batch = self.try_take();
            if !batch.is_empty() || self.flush_wanted.load(Ordering::Acquire) {
                return batch;
            }
            // One reader only: a permit left by `notify_one` wakes it even if it came before.
            self.filled.notified().await;
        }
    }

    fn try_take(&self) -> Vec<Utf8Bytes> {
        let mut queue = self.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = queue.front() {
            bytes += next.len();
            if bytes > MAX_BATCH && !batch.is_empty() {
                break;
            }
            batch.extend(queue.pop());
        }
        drop(queue);
        if !batch.is_empty() {
            self.emptied.notify_waiters();
        }
        batch
    }
}

/// A command that was not carried out, as a frame.
pub(super) fn error(code: ErrorCode, message: impl Into<String>) -> ServerFrame {
    ServerFrame::Error {
        message: message.into(),
        code,
        id: None,
        index: None,
        request_id: None,
        topic: None,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn frames(numbers: std::ops::Range<usize>) -> Vec<Utf8Bytes> {
        numbers.map(|number| number.to_string().into()).collect()
    }

    #[tokio::test]
    async fn order_is_kept_and_writers_wait() {
        let outbox = std::sync::Arc::new(Outbox::new(1));
        let total = MAX_FRAMES * 3;
        assert!(outbox.take().now_or_never().is_none());
        let writer = tokio::spawn({
            let outbox = std::sync::Arc::clone(&outbox);
            async move { outbox.push_all(frames(0..total)).await }
        });
        let mut seen = Vec::new();
        while seen.len() < total {
            let batch = outbox.take().await;
            assert!(batch.len() <= MAX_FRAMES);
            seen.extend(batch);
        }
        writer.await.expect("pushes all");
        assert_eq!(seen, frames(0..total));
    }

    #[tokio::test]
    async fn a_flush_is_waited_for() {
        let outbox = Outbox::new(1);
        outbox.note_flushed();
        let flush = outbox.flush();
        tokio::pin!(flush);
        assert!(flush.as_mut().now_or_never().is_none(), "nobody has flushed since");
        assert!(outbox.take().await.is_empty());
        outbox.note_flushed();
        assert!(flush.now_or_never().is_some());
        assert!(outbox.take().now_or_never().is_none(), "it was wanted once");
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_a_large_frame_passes_alone() {
        let outbox = Outbox::new(1);
        let large = || Utf8Bytes::from("x".repeat(MAX_BYTES + 1));
        outbox.push_all([large()]).await;
        assert!(outbox.push_all([large()]).now_or_never().is_none());
        assert_eq!(outbox.take().await.len(), 1);
        outbox.push_all([large()]).await;
        let small = Utf8Bytes::from("x".repeat(MAX_BATCH / 2));
        outbox.take().await;
        outbox.push_all([small.clone(), small.clone(), small]).await;
        assert_eq!(outbox.take().await.len(), 2);
        assert_eq!(outbox.take().await.len(), 1);
    }
}

//! One peer's queue of one stream class: filled by callers, emptied by the class's writer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use x0x_core::{BoundedQueue, Protocol, QueueFull};

use crate::config::QueueCaps;

/// Most messages in one write.
const MAX_BATCH: usize = 64;
/// Bytes after which a write takes no further message.
const MAX_BATCH_BYTES: usize = 256 * 1024;

/// Bytes written before the peer took the session, and kept until then; a message over it passes alone.
const MAX_EARLY: usize = 64 * 1024;

/// A message waiting to be written.
pub(crate) type Queued = (Protocol, Bytes);

/// A message that was not queued.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The queue is full; the message comes back.
    Busy(Bytes),
    /// The link or session ended.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    caps: QueueCaps,
    state: Mutex<State>,
    /// Wakes the writer: the queue is no longer empty, or closed.
    ready: Notify,
    /// Wakes one waiting sender; it wakes the next one when there is room left.
    room: Notify,
    /// A refused caller may try again.
    writable: Notify,
    /// Fires when the writer is done.
    drained: CancellationToken,
}

#[derive(Debug)]
struct State {
    queue: BoundedQueue<Queued>,
    /// To be written before these: they went over a link that the peer did not take.
    again: VecDeque<Queued>,
    /// What was written, while it may have to be written again.
    early: Option<Early>,
    /// Counts the links.
    writer: u32,
    closed: bool,
    /// A caller was refused since the queue was last half empty.
    busy: bool,
}

#[derive(Debug, Default)]
struct Early {
    written: Vec<Queued>,
    bytes: usize,
}

impl State {
    /// The next message, unless too many are kept. What is closed is written out.
    fn pop(&mut self) -> Option<Queued> {
        let full = |early: &Early| early.bytes >= MAX_EARLY;
        if !self.closed && self.early.as_ref().is_some_and(full) {
            return None;
        }
        let queued = self.again.pop_front().or_else(|| self.queue.pop())?;
        if let Some(early) = &mut self.early {
            early.bytes += queued.1.len();
            early.written.push(queued.clone());
        }
        Some(queued)
    }
}

impl Outbox {
    pub(crate) fn new(caps: QueueCaps) -> Self {
        let queue = BoundedQueue::new(caps.messages, caps.bytes);
        Self {
            caps,
            state: Mutex::new(State {
                queue,
                again: VecDeque::new(),
                early: None,
                writer: 0,
                closed: false,
                busy: false,
            }),
            ready: Notify::new(),
            room: Notify::new(),
            writable: Notify::new(),
            drained: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is written from now on may have to be written again, on another link.
    pub(crate) fn begin_early(&self) {
        self.lock().early = Some(Early::default());
    }

    /// The peer took the session on the link on which this is written.
    pub(crate) fn confirm(&self) {
        self.lock().early = None;
        self.ready.notify_one();
    }

    /// The peer took the session on another link, and nothing of this one: all of it is for the next writer.
    pub(crate) fn rewind(&self) {
        let mut state = self.lock();
        state.writer += 1;
        let mut again: VecDeque<_> = state.early.take().unwrap_or_default().written.into();
        again.append(&mut state.again);
        state.again = again;
        drop(state);
        self.ready.notify_one();
    }

    /// The writer of a link.
    pub(crate) fn writer(self: &Arc<Self>) -> Writer {
        Writer { number: self.lock().writer, outbox: self.clone() }
    }

    /// Queues without waiting. A refusal is remembered, to report room later.
    pub(crate) fn try_push(&self, protocol: Protocol, message: Bytes) -> Result<(), Refused> {
        let result = self.offer(protocol, message);
        if matches!(result, Err(Refused::Busy(_))) {
            let mut state = self.lock();
            // The writer may have made room in between; then nobody would report it.
            state.busy = true;
            let report = self.take_writable(&mut state);
            drop(state);
            if report {
                self.writable.notify_one();
            }
        }
        result
    }

    /// Queues, waiting for room. Fails when the session ends.
    pub(crate) async fn push(&self, protocol: Protocol, mut message: Bytes) -> Result<(), Refused> {
        let mut waited = false;
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // Registered before the look at the queue, so that no wake-up falls in between.
            room.as_mut().enable();
            match self.offer(protocol, message) {
                Err(Refused::Busy(back)) => message = back,
                result => {
                    if waited {
                        self.room.notify_one();
                    }
                    return result;
                }
            }
            room.await;
            waited = true;
        }
    }

    fn offer(&self, protocol: Protocol, message: Bytes) -> Result<(), Refused> {
        let len = message.len();
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let was_empty = state.queue.is_empty();
        let pushed = state.queue.push((protocol, message), len);
        drop(state);
        match pushed {
            Ok(()) if was_empty => self.ready.notify_one(),
            Ok(()) => {}
            Err(QueueFull((_, message))) => return Err(Refused::Busy(message)),
        }
        Ok(())
    }

    async fn next_batch(&self, writer: u32, batch: &mut Vec<Queued>) -> bool {
        loop {
            let (closed, report) = {
                let mut state = self.lock();
                if state.writer != writer {
                    // The wake-up was for the writer of another link.
                    drop(state);
                    self.ready.notify_one();
                    return false;
                }
                let mut bytes = 0;
                while batch.len() < MAX_BATCH
                    && bytes < MAX_BATCH_BYTES
                    && let Some(queued) = state.pop()
                {
                    bytes += queued.1.len();
                    batch.push(queued);
                }
                (state.closed, self.take_writable(&mut state))
            };
            if report {
                self.writable.notify_one();
            }
            if !batch.is_empty() {
                self.room.notify_one();
                return true;
            }
            if closed {
                return false;
            }
            self.ready.notified().await;
        }
    }

    /// Whether a refused caller should hear now that there is room.
    fn take_writable(&self, state: &mut State) -> bool {
        let half_empty = state.queue.len() <= self.caps.messages / 2
            && state.queue.bytes() <= self.caps.bytes / 2;
        half_empty && std::mem::take(&mut state.busy)
    }

    /// Waits until a caller that was refused may try again.
    pub(crate) async fn writable(&self) {
        self.writable.notified().await;
    }

    /// Refuses everything from now on; what is queued is still written.
    pub(crate) fn finish(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
        self.room.notify_waiters();
    }

    /// Drops what is queued and refuses everything from now on.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        while state.queue.pop().is_some() {}
        state.again.clear();
        drop(state);
        self.ready.notify_one();
        self.room.notify_waiters();
    }

    /// Fires once the writer ended: the peer has all that was queued, or will not get it.
    pub(crate) const fn drained(&self) -> &CancellationToken {
        &self.drained
    }
}

/// The right to write what is queued. When it is dropped, the queue counts as drained, unless it goes on over another link.
#[derive(Debug)]
pub(crate) struct Writer {
    outbox: Arc<Outbox>,
    number: u32,
}

impl Writer {
    /// Waits for messages and moves as many as fit one write into `batch`; false once closed and
    /// empty, or when another link has the session.
    pub(crate) async fn next_batch(&self, batch: &mut Vec<Queued>) -> bool {
        self.outbox.next_batch(self.number, batch).await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let state = self.outbox.lock();
        if state.writer == self.number && (state.early.is_none() || state.closed) {
            self.outbox.drained.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    fn outbox(messages: usize, bytes: usize) -> Arc<Outbox> {
        Arc::new(Outbox::new(QueueCaps { messages, bytes }))
    }

    fn message(len: usize) -> Bytes {
        vec![0; len].into()
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_reported_once_half_is_empty() {
        let outbox = outbox(128, 1 << 20);
        for _ in 0..128 {
            outbox.try_push(Protocol::Direct, message(1)).expect("room");
        }
        assert!(matches!(outbox.try_push(Protocol::Direct, message(1)), Err(Refused::Busy(_))));
        let soon = |outbox: Arc<Outbox>| async move {
            tokio::time::timeout(Duration::from_millis(1), outbox.writable()).await.is_ok()
        };
        assert!(!soon(outbox.clone()).await);
        let (mut batch, writer) = (Vec::new(), outbox.writer());
        assert!(writer.next_batch(&mut batch).await);
        assert_eq!(batch.len(), MAX_BATCH);
        assert!(soon(outbox.clone()).await);
        assert!(!soon(outbox).await, "once");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_senders_all_get_in_or_hear_the_end() {
        let outbox = outbox(4, 1 << 20);
        let senders: Vec<_> = (0..100)
            .map(|_| {
                let outbox = outbox.clone();
                tokio::spawn(
                    async move { outbox.push(Protocol::Pubsub, message(10)).await.is_ok() },
                )
            })
            .collect();
        let (mut batch, mut read, writer) = (Vec::new(), 0, outbox.writer());
        while read < 90 {
            assert!(writer.next_batch(&mut batch).await);
            read += batch.drain(..).count();
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        outbox.close();
        let mut accepted = 0;
        for sender in senders {
            accepted += usize::from(sender.await.expect("no panic"));
        }
        assert!(accepted >= read && accepted <= read + 4, "{accepted} of {read}");
        assert!(!writer.next_batch(&mut batch).await && !outbox.drained().is_cancelled());
        drop(writer);
        assert!(outbox.drained().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_peer_did_not_take_is_written_again() {
        let outbox = outbox(128, 1 << 20);
        outbox.begin_early();
        let first = outbox.writer();
        let push = |n: u8| {
            let message = vec![n; MAX_EARLY / 4].into();
            outbox.try_push(Protocol::Direct, message).expect("room");
        };
        (0..6).for_each(push);
        let numbers = |batch: &mut Vec<Queued>| -> Vec<u8> {
            batch.drain(..).filter_map(|(_, message)| message.first().copied()).collect()
        };
        let mut batch = Vec::new();
        assert!(first.next_batch(&mut batch).await);
        assert_eq!(numbers(&mut batch), [0, 1, 2, 3], "no more is kept");
        let more = tokio::time::timeout(Duration::from_secs(1), first.next_batch(&mut batch));
        assert!(more.await.is_err());
        outbox.rewind();
        let second = outbox.writer();
        assert!(!first.next_batch(&mut batch).await);
        drop(first);
        assert!(!outbox.drained().is_cancelled());
        assert!(second.next_batch(&mut batch).await);
        assert_eq!(numbers(&mut batch), [0, 1, 2, 3, 4, 5], "in order, and nothing is kept now");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_peer_took_is_written_once() {
        let outbox = outbox(128, 1 << 20);
        outbox.begin_early();
        let writer = outbox.writer();
        let push = |n: u8| {
            outbox.try_push(Protocol::Direct, vec![n; MAX_EARLY].into()).expect("room");
        };
        (0..2).for_each(push);
        let mut batch = Vec::new();
        assert!(writer.next_batch(&mut batch).await && batch.drain(..).count() == 1);
        outbox.confirm();
        assert!(writer.next_batch(&mut batch).await && batch.drain(..).count() == 1);
        push(2);
        outbox.finish();
        assert!(writer.next_batch(&mut batch).await && batch.drain(..).count() == 1);
        assert!(!writer.next_batch(&mut batch).await);
    }

    #[tokio::test]
    async fn a_batch_is_bounded_and_an_oversized_message_passes() {
        let outbox = outbox(256, 1 << 20);
        outbox.try_push(Protocol::Direct, message(8 << 20)).expect("an empty queue takes it");
        assert!(matches!(outbox.try_push(Protocol::Direct, message(1)), Err(Refused::Busy(_))));
        let (mut batch, writer) = (Vec::new(), outbox.writer());
        assert!(writer.next_batch(&mut batch).await);
        assert_eq!(batch.drain(..).count(), 1);
        for _ in 0..6 {
            outbox.try_push(Protocol::Direct, message(100_000)).expect("room");
        }
        assert!(writer.next_batch(&mut batch).await);
        assert_eq!(batch.len(), 3);
    }
}

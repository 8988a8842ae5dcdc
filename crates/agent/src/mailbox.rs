//! The bounded mailbox between the direct layer and whoever reads direct messages here.
//!
//! A message that nobody has read is never dropped: when the mailbox is full of such messages,
//! [`Mailbox::push`] waits, the direct layer's inbox fills behind it, and senders are slowed down
//! and finally told. A message that some reader has had may make room for newer ones; a slower
//! reader that missed it is told how many it missed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use x0x_core::{Counter, Metric, MetricKind};
use x0x_direct::DirectMessage;
use x0x_trust::Assessment;

use crate::trust::Gate;

/// Most messages kept.
pub const MAX_MAILBOX_MESSAGES: usize = 1024;
/// Most payload bytes kept; one larger message is taken when the mailbox is empty.
pub const MAX_MAILBOX_BYTES: usize = 32 * 1024 * 1024;
/// Accounted for each message beside its payload.
const MESSAGE_OVERHEAD: usize = 256;

/// What a reader of direct messages gets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DirectEvent {
    /// The next message and its number in this process, from 1.
    Message {
        /// Grows by one per message; [`DirectEvents::resume_after`] takes it.
        number: u64,
        /// The message.
        message: DirectMessage,
    },
    /// This reader was too slow: so many messages made room for newer ones before it read them.
    Lagged {
        /// Messages missed.
        missed: u64,
    },
}

#[derive(Debug)]
struct State {
    messages: VecDeque<DirectMessage>,
    bytes: usize,
    /// Number of the first message kept.
    first: u64,
    /// Messages below this number have been read by someone.
    unread_from: u64,
    closed: bool,
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    fn is_full(&self, bytes: usize) -> bool {
        self.messages.len() >= MAX_MAILBOX_MESSAGES
            || (self.bytes + bytes > MAX_MAILBOX_BYTES && !self.messages.is_empty())
    }

    /// Drops read messages, oldest first, until `bytes` fit.
    fn make_room(&mut self, bytes: usize) {
        while self.is_full(bytes) && self.first < self.unread_from {
            if let Some(old) = self.messages.pop_front() {
                self.bytes -= old.payload.len() + MESSAGE_OVERHEAD;
                self.first += 1;
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
    read: Notify,
    lagged: Counter,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mailbox. Cheap to clone; all clones are the same mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox(Arc<Shared>);

impl Mailbox {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                messages: VecDeque::new(),
                bytes: 0,
                first: 1,
                unread_from: 1,
                closed: false,
            }),
            arrived: Notify::new(),
            read: Notify::new(),
            lagged: Counter::default(),
        }))
    }

    /// Stores a message, waiting while the mailbox is full of unread ones.
    pub(crate) async fn push(&self, message: DirectMessage) {
        let bytes = message.payload.len() + MESSAGE_OVERHEAD;
        let mut message = Some(message);
        loop {
            let read = self.0.read.notified();
            {
                let mut state = self.0.lock();
                state.make_room(bytes);
                if state.closed {
                    return;
                }
                if !state.is_full(bytes)
                    && let Some(message) = message.take()
                {
                    state.bytes += bytes;
                    state.messages.push_back(message);
                    drop(state);
                    self.0.arrived.notify_waiters();
                    return;
                }
            }
            read.await;
        }
    }

    /// A reader that starts at the oldest message nobody has read.
    pub(crate) fn reader(&self) -> DirectEvents {
        let next = self.0.lock().unread_from;
        DirectEvents { shared: Arc::clone(&self.0), next, gate: None }
    }

    /// Ends every reader once it has read what is there, and lets `push` go.
    pub(crate) fn close(&self) {
        self.0.lock().closed = true;
        self.0.arrived.notify_waiters();
        self.0.read.notify_waiters();
    }

    /// Its entries of the metrics snapshot.
    pub(crate) fn metrics(&self) -> [Metric; 2] {
        let kept = self.0.lock().messages.len() as u64;
        [
            Metric {
                name: "mailbox_messages",
                help: "Direct messages kept for readers",
                kind: MetricKind::Gauge,
                value: kept,
            },
            self.0
                .lagged
                .metric("mailbox_messages_lagged", "Direct messages that slow readers missed"),
        ]
    }
}

/// A reader of the direct messages that arrive for this agent. Readers are independent: each sees
/// every message from its start on.
#[derive(Debug)]
pub struct DirectEvents {
    shared: Arc<Shared>,
    next: u64,
    /// Asked again at reading: an agent may have been blocked since its message came.
    gate: Option<Gate>,
}

impl DirectEvents {
    /// Leaves out what the policy refuses.
    pub(crate) fn guarded(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// How the sender of a message stands now.
    #[must_use]
    pub fn assess(&self, message: &DirectMessage) -> Assessment {
        let assess = |gate: &Gate| gate.trust.assess(&message.from, Some(&message.machine));
        self.gate.as_ref().map_or(Assessment::Unknown, assess)
    }

    /// Continues after the message with this number, as far as it is still kept.
    #[must_use]
    pub fn resume_after(mut self, number: u64) -> Self {
        self.next = number.saturating_add(1).min(self.shared.lock().end());
        self
    }

    /// The next message or lag mark; `None` once the agent has shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<DirectEvent> {
        let shared = Arc::clone(&self.shared);
        loop {
            let arrived = shared.arrived.notified();
            tokio::pin!(arrived);
            // Registered before looking, so that a message between the two is not missed.
            arrived.as_mut().enable();
            match self.try_next() {
                Some(Some(DirectEvent::Message { message, .. })) if self.refuses(&message) => {}
                Some(outcome) => return outcome,
                None => arrived.await,
            }
        }
    }

    fn refuses(&self, message: &DirectMessage) -> bool {
        self.gate.as_ref().is_some_and(|gate| !gate.lets_read(message))
    }

    /// What is there now without waiting: `Some(None)` at the end, `None` when nothing is there yet.
    #[expect(clippy::option_option, reason = "the outer layer is readiness, the inner the stream")]
    fn try_next(&mut self) -> Option<Option<DirectEvent>> {
        let mut state = self.shared.lock();
        if self.next < state.first {
            let missed = state.first - self.next;
            self.next = state.first;
            self.shared.lagged.add(missed);
            return Some(Some(DirectEvent::Lagged { missed }));
        }
        let offset = usize::try_from(self.next - state.first).unwrap_or(usize::MAX);
        let Some(message) = state.messages.get(offset).cloned() else {
            return state.closed.then_some(None);
        };
        let number = self.next;
        self.next += 1;
        if state.unread_from < self.next {
            state.unread_from = self.next;
            drop(state);
            self.shared.read.notify_waiters();
        }
        Some(Some(DirectEvent::Message { number, message }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use x0x_core::{AgentId, MachineId, WallTime};

    use super::*;

    fn message(n: usize, len: usize) -> DirectMessage {
        DirectMessage {
            id: (n as u128).to_be_bytes(),
            from: AgentId::new([1; 32]),
            to: AgentId::new([2; 32]),
            machine: MachineId::new([3; 32]),
            payload: Bytes::from(vec![0; len]),
            received_at: WallTime::default(),
        }
    }

    async fn take(reader: &mut DirectEvents) -> (u64, u128) {
        match reader.next().await {
            Some(DirectEvent::Message { number, message }) => {
                (number, u128::from_be_bytes(message.id))
            }
            other => panic!("expected a message, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn unread_messages_wait_for_the_first_reader() {
        let mailbox = Mailbox::new();
        for n in 0..MAX_MAILBOX_MESSAGES {
            mailbox.push(message(n, 10)).await;
        }
        assert!(mailbox.push(message(9999, 10)).now_or_never().is_none(), "full of unread mail");
        let mut reader = mailbox.reader();
        assert_eq!(take(&mut reader).await, (1, 0));
        mailbox.push(message(MAX_MAILBOX_MESSAGES, 10)).await;
        for n in 1..=MAX_MAILBOX_MESSAGES {
            assert_eq!(take(&mut reader).await.1, n as u128);
        }
        assert!(reader.next().now_or_never().is_none());
        mailbox.close();
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed() {
        let mailbox = Mailbox::new();
        let (mut fast, mut slow) = (mailbox.reader(), mailbox.reader());
        for n in 0..MAX_MAILBOX_MESSAGES + 5 {
            mailbox.push(message(n, 10)).await;
            assert_eq!(take(&mut fast).await.1, n as u128);
        }
        assert!(matches!(slow.next().await, Some(DirectEvent::Lagged { missed: 5 })));
        assert_eq!(take(&mut slow).await, (6, 5));
        assert_eq!(mailbox.metrics()[1].value, 5);
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_one_large_message_passes() {
        let mailbox = Mailbox::new();
        mailbox.push(message(0, MAX_MAILBOX_BYTES * 2)).await;
        assert!(mailbox.push(message(1, 10)).now_or_never().is_none());
        let mut reader = mailbox.reader();
        take(&mut reader).await;
        mailbox.push(message(1, 10)).await;
        assert_eq!(take(&mut reader).await, (2, 1));
        assert_eq!(mailbox.metrics()[0].value, 1, "the read one made room");
        let mut resumed = mailbox.reader().resume_after(1);
        assert_eq!(take(&mut resumed).await.0, 2);
    }
}

//! The bounded inbox between the driver and whoever reads the messages.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;
use x0x_core::{AgentId, MachineId, WallTime};

use crate::{config::DirectConfig, state::Room, wire::MessageId};

/// A message for an agent of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectMessage {
    /// Names the message; its sender retries with the same id.
    pub id: MessageId,
    /// The sending agent, proven in the hello of the session that carried the message.
    pub from: AgentId,
    /// The receiving agent, one of this machine's.
    pub to: AgentId,
    /// The sending machine.
    pub machine: MachineId,
    /// The content, at most [`crate::MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
    /// When this machine took the message.
    pub received_at: WallTime,
    /// Its number among the mail of this machine, from 1; 0 when it is not stored.
    pub number: u64,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// Its sender wants to know when it is read.
    pub wants_read: bool,
    /// Its sender was nobody that is known here when it came.
    pub from_stranger: bool,
}

/// Where messages for this machine's agents arrive, each once. Messages of one sending machine are
/// in the order they were sent.
///
/// While it is full, senders are not answered and slow down, and those that fill their share of what
/// may wait are refused as busy. Dropping it refuses all further messages.
pub struct Inbox(Arc<Shared>);

/// The driver's end; dropping it ends the inbox.
pub(crate) struct InboxSender(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    filled: Notify,
    drained: Notify,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    messages: VecDeque<DirectMessage>,
    bytes: usize,
    /// Counts messages taken out.
    taken: u64,
    /// The driver waits for room.
    wanted: bool,
    sender_gone: bool,
    receiver_gone: bool,
}

/// Free room at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    pub(crate) room: Room,
    taken: u64,
}

pub(crate) fn inbox(config: &DirectConfig) -> (InboxSender, Inbox) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        filled: Notify::new(),
        drained: Notify::new(),
        max_messages: config.inbox_messages,
        max_bytes: config.inbox_bytes,
    });
    (InboxSender(shared.clone()), Inbox(shared))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    /// The next message; `None` once the service is closed and all messages were taken.
    ///
    /// Cancel safe: a message is taken only when it is returned.
    pub async fn next(&mut self) -> Option<DirectMessage> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some(message) = self.take(&mut state) {
                    return Some(message);
                }
                if state.sender_gone {
                    return None;
                }
            }
            self.0.filled.notified().await;
        }
    }

    /// The next message, if there is one.
    pub fn try_next(&mut self) -> Option<DirectMessage> {
        let mut state = self.0.lock();
        self.take(&mut state)
    }

    fn take(&self, state: &mut State) -> Option<DirectMessage> {
        let message = state.messages.pop_front()?;
        state.bytes -= message.payload.len();
        state.taken += 1;
        if std::mem::take(&mut state.wanted) {
            self.0.drained.notify_one();
        }
        Some(message)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver_gone = true;
        state.messages.clear();
        self.0.drained.notify_one();
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Inbox")
            .field("messages", &state.messages.len())
            .field("bytes", &state.bytes)
            .finish_non_exhaustive()
    }
}

impl InboxSender {
    /// What fits now; `None` when nobody reads any more.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let state = self.0.lock();
        let room = Room {
            messages: self.0.max_messages.saturating_sub(state.messages.len()),
            bytes: self.0.max_bytes.saturating_sub(state.bytes),
        };
        (!state.receiver_gone).then_some(Snapshot { room, taken: state.taken })
    }

    /// Asks for a wake-up of [`drained`](Self::drained); false when something was taken since the
    /// snapshot already.
    pub(crate) fn want_room(&self, since: Snapshot) -> bool {
        let mut state = self.0.lock();
        state.wanted = state.taken == since.taken && !state.receiver_gone;
        state.wanted
    }

    /// Waits until there may be more room, or nobody reads any more.
    pub(crate) async fn drained(&self) {
        self.0.drained.notified().await;
    }

    /// Adds messages for which a snapshot had room; returns at once.
    pub(crate) fn push(&self, messages: &mut Vec<DirectMessage>) {
        let mut state = self.0.lock();
        if state.receiver_gone {
            messages.clear();
            return;
        }
        let wake = state.messages.is_empty() && !messages.is_empty();
        for message in messages.drain(..) {
            state.bytes += message.payload.len();
            state.messages.push_back(message);
        }
        if wake {
            self.0.filled.notify_one();
        }
    }
}

impl Drop for InboxSender {
    fn drop(&mut self) {
        self.0.lock().sender_gone = true;
        self.0.filled.notify_one();
    }
}

//! Settings and their defaults.

use std::time::Duration;

use x0x_core::AgentId;

use crate::wire::{MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_MESSAGES, MAX_PAYLOAD};

/// Settings of the direct-message service.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DirectConfig {
    /// Agents of this machine: the recipients that it accepts.
    pub local_agents: Vec<AgentId>,
    /// Messages to one machine that may wait for its acknowledgement. At most
    /// [`MAX_IN_FLIGHT_MESSAGES`], which is the default: it covers 20,000 messages per second on a
    /// path of 50 ms.
    pub window_messages: usize,
    /// Payload bytes to one machine that may wait for its acknowledgement. At most
    /// [`MAX_IN_FLIGHT_BYTES`], the default: two messages of the largest size.
    pub window_bytes: usize,
    /// Messages that the inbox holds before senders are slowed down.
    pub inbox_messages: usize,
    /// Payload bytes that the inbox holds before senders are slowed down; at least one message of
    /// the largest size.
    pub inbox_bytes: usize,
    /// How long a send waits for room, for the session and for its acknowledgement together.
    pub send_timeout: Duration,
}

impl DirectConfig {
    /// The defaults, with these recipients.
    #[must_use]
    pub fn new(local_agents: Vec<AgentId>) -> Self {
        Self {
            local_agents,
            window_messages: MAX_IN_FLIGHT_MESSAGES,
            window_bytes: MAX_IN_FLIGHT_BYTES,
            inbox_messages: 1024,
            inbox_bytes: 32 * 1024 * 1024,
            send_timeout: Duration::from_secs(30),
        }
    }

    /// The same settings within what the protocol allows.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.window_messages = self.window_messages.clamp(1, MAX_IN_FLIGHT_MESSAGES);
        self.window_bytes = self.window_bytes.clamp(1, MAX_IN_FLIGHT_BYTES);
        self.inbox_messages = self.inbox_messages.max(1);
        self.inbox_bytes = self.inbox_bytes.max(MAX_PAYLOAD);
        self
    }
}

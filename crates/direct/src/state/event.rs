//! What goes into the machine and what comes out.

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, Tick};

use crate::{
    error::{DirectError, RefuseReason},
    wire::{MessageId, Terms, Verified},
};

/// A message to send.
#[derive(Debug, Clone)]
pub struct SendRequest {
    /// Names the send in [`Output::Resolve`]; greater than any before.
    pub ticket: u64,
    /// Names the message; a retry uses the same id.
    pub id: MessageId,
    /// The receiving machine.
    pub peer: MachineId,
    /// The sending agent.
    pub from: AgentId,
    /// The receiving agent.
    pub to: AgentId,
    /// The content.
    pub payload: Bytes,
    /// How it is to be treated.
    pub terms: Terms,
    /// When the sender stops waiting.
    pub deadline: Tick,
    /// The transport has a session with the peer, which the machine may not have been told of yet.
    pub connected: bool,
}

/// What the world tells the machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// A session begins.
    Up {
        /// With whom.
        peer: MachineId,
        /// Its number here; a later session with the same peer has a greater one.
        generation: u64,
        /// Agents that the peer proved.
        agents: Vec<AgentId>,
    },
    /// A session ended.
    Down(MachineId),
    /// A frame came from a peer.
    Received {
        /// The authenticated sender.
        peer: MachineId,
        /// The frame, not yet decoded.
        frame: Bytes,
    },
    /// The transport did not take the frame of the [`Output::Transmit`] polled last.
    Blocked {
        /// To whom.
        peer: MachineId,
        /// The frame.
        frame: Bytes,
    },
    /// The transport takes frames to the peer again.
    Writable(MachineId),
    /// A local agent sends.
    Send(SendRequest),
    /// What the inbox can take now. No [`Output::Deliver`] may wait to be polled or carried out.
    Room(Room),
    /// What became of messages of [`Output::Deliver`] and [`Output::Ignore`], the oldest unsettled ones first.
    Settled(Vec<Taken>),
    /// Nobody reads the inbox any more.
    InboxClosed,
}

/// Whether a message was taken.
pub type Taken = Result<(), RefuseReason>;

/// Free space of the inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Messages.
    pub messages: usize,
    /// Payload bytes.
    pub bytes: usize,
}

impl Room {
    /// What is left beside something.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// What the machine asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Queue a frame for a peer. When the transport does not take it, [`Input::Blocked`] must be
    /// the next input, before anything else is polled.
    Transmit {
        /// To whom.
        peer: MachineId,
        /// The encoded frame.
        frame: Bytes,
    },
    /// Put a message into the inbox, which has room for it, and store it if it is mail. It is
    /// answered after [`Input::Settled`].
    Deliver {
        /// The machine it came from.
        machine: MachineId,
        /// The message.
        message: Verified,
    },
    /// A message that is not wanted had its turn. It counts as one of [`Input::Settled`], and is told
    /// there as taken once those before it are.
    Ignore,
    /// A send is settled. Each ticket is resolved exactly once.
    Resolve {
        /// The ticket of the request.
        ticket: u64,
        /// The message's id, once the receiver's inbox has it.
        result: Result<MessageId, DirectError>,
    },
    /// The peer breaks the protocol: end its session.
    Disconnect(MachineId),
}

//! What goes into the machine and what comes out.

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, Tick};

use crate::{
    error::DirectError,
    wire::{MessageId, Verified},
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
    /// Nobody reads the inbox any more.
    InboxClosed,
}

/// Free space of the inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Messages.
    pub messages: usize,
    /// Payload bytes.
    pub bytes: usize,
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
    /// Put a message into the inbox, which has room for it. Its acknowledgement follows.
    Deliver {
        /// The machine it came from.
        machine: MachineId,
        /// The message.
        message: Verified,
    },
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

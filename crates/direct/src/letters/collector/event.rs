//! What goes into the machine and what comes out.

use x0x_core::{AgentId, MachineId, WallTime};

use super::super::{letter::Opened, wire::Digest};
use crate::wire::MessageId;

/// A mailbox of this agent: for one sender on one machine, in one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "drivers make them")]
pub struct Mailbox {
    /// The sender.
    pub from: AgentId,
    /// Its machine, which was proven when the mailbox was given.
    pub machine: MachineId,
    /// The number of the period.
    pub period: u64,
}

impl Mailbox {
    /// Whose letters lie in it.
    #[must_use]
    pub const fn sender(&self) -> (AgentId, MachineId) {
        (self.from, self.machine)
    }
}

/// What became of a letter that was given to the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Taken {
    /// It is stored.
    Stored,
    /// It was there already.
    Duplicate,
    /// Its sender is not wanted.
    Unwanted,
    /// There is no room now.
    Busy,
}

/// A letter was delivered although the one before it did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Who sent both.
    pub from: AgentId,
    /// The message that did not come.
    pub missing: MessageId,
    /// The one after it.
    pub next: MessageId,
    /// When it was given up.
    pub at: WallTime,
}

/// What the world tells the machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CollectorInput {
    /// The wall-clock time now. To be told before each turn.
    Wall(WallTime),
    /// A session with a machine that may hold letters begins.
    Up(MachineId),
    /// It ended.
    Down(MachineId),
    /// A machine was asked, after [`CollectorOutput::Ask`]: it owes so many lists.
    Asked {
        /// Who.
        peer: MachineId,
        /// Frames that were sent to it.
        frames: usize,
    },
    /// A holder's list: mailbox, letter, and whether the sender is wanted.
    Listed {
        /// Whose.
        peer: MachineId,
        /// What it has.
        letters: Vec<(Mailbox, Digest, bool)>,
        /// It has more.
        more: bool,
    },
    /// A holder gave a letter that opens.
    Opened {
        /// Who.
        peer: MachineId,
        /// Which letter.
        digest: Digest,
        /// What is in it.
        letter: Box<Opened>,
    },
    /// A holder gave a letter that is the one it listed, and does not open or verify.
    Broken {
        /// Who.
        peer: MachineId,
        /// Which letter.
        digest: Digest,
    },
    /// A holder gave a letter that the clock here takes for expired or for one of the future.
    Untimely {
        /// Who.
        peer: MachineId,
        /// Which letter.
        digest: Digest,
    },
    /// A holder gave something else than the letter.
    Tampered {
        /// Who.
        peer: MachineId,
        /// Which letter.
        digest: Digest,
    },
    /// A holder does not have the letter any more.
    Missing {
        /// Who.
        peer: MachineId,
        /// Which letter.
        digest: Digest,
    },
    /// The answer to [`CollectorOutput::Knows`].
    Known {
        /// Whose message.
        from: (AgentId, MachineId),
        /// Which.
        id: MessageId,
        /// Whether the inbox has or had it.
        known: bool,
    },
    /// The answer to [`CollectorOutput::Deliver`].
    Delivered {
        /// Whose message.
        from: (AgentId, MachineId),
        /// Which.
        id: MessageId,
        /// What became of it.
        taken: Taken,
    },
}

/// What the machine asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollectorOutput {
    /// Ask a machine what it has for this agent.
    Ask(MachineId),
    /// Fetch a letter.
    Fetch {
        /// From whom.
        peer: MachineId,
        /// The mailbox it lies in.
        mailbox: Mailbox,
        /// Which.
        digest: Digest,
    },
    /// Delete letters.
    Delete {
        /// At whom.
        peer: MachineId,
        /// The mailbox they lie in.
        mailbox: Mailbox,
        /// Which.
        digests: Vec<Digest>,
    },
    /// Whether the inbox has or had a message.
    Knows {
        /// Whose.
        from: (AgentId, MachineId),
        /// Which.
        id: MessageId,
    },
    /// Give a letter to the inbox.
    Deliver(Box<Opened>),
}

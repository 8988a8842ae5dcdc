//! What goes into the machine and what comes out.

use x0x_core::{AgentId, MachineId, WallTime};
use x0x_identity::Pickup;

use super::super::{
    letter::After,
    wire::{Digest, Outcome},
};
use crate::{admission::Standing, wire::MessageId};

/// A message that waits for its recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the driver makes them")]
pub struct PendingEntry {
    /// Its number in the outbox.
    pub number: u64,
    /// Its id.
    pub id: MessageId,
    /// Payload bytes.
    pub bytes: u64,
    /// When it is given up.
    pub expires_at: WallTime,
}

/// Why a message that waits for its recipient is not left with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotLeft {
    /// It is longer than [`MAX_LETTER_PAYLOAD`](super::super::MAX_LETTER_PAYLOAD).
    TooLarge,
    /// One that goes before it is.
    BehindTooLarge,
    /// The recipient gave no mailbox yet, or too long ago: it never met this agent on this machine.
    NoMailbox,
}

/// A copy of an own message that a holder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them")]
pub struct Deposit {
    /// The message.
    pub id: MessageId,
    /// Its recipient.
    pub to: AgentId,
    /// Who has the copy.
    pub holder: MachineId,
    /// The copy's name there.
    pub digest: Digest,
    /// What opens the mailbox there in which it lies.
    pub pickup: Pickup,
    /// Until when it is kept.
    pub until: WallTime,
}

/// What the world tells the machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DepositorInput {
    /// The wall-clock time now. To be told before each turn.
    Wall(WallTime),
    /// A copy that an earlier run left with a holder.
    Restore(Deposit),
    /// An agent for which messages wait cannot be reached.
    Unreachable(AgentId),
    /// A session with an agent begins.
    Reachable(AgentId),
    /// A message was posted to an agent.
    Posted(AgentId),
    /// What waits for an agent, in order: the answer to [`DepositorOutput::Look`].
    Pending {
        /// The agent.
        to: AgentId,
        /// What waits.
        letters: Vec<PendingEntry>,
        /// Whether the agent gave a mailbox.
        granted: bool,
        /// By what holders are ranked; none when this agent is no contact of that one.
        places: Option<[u8; 32]>,
    },
    /// The answer to [`DepositorOutput::Seal`]: none when there is no such message to be left any more.
    Sealed {
        /// For whom.
        to: AgentId,
        /// Of which message.
        id: MessageId,
        /// Which letter.
        digest: Option<Digest>,
    },
    /// The other answer to [`DepositorOutput::Seal`]: the message waits still, and cannot be sealed now.
    Unsealed {
        /// For whom.
        to: AgentId,
        /// Which message.
        id: MessageId,
    },
    /// A session with a machine that may hold letters begins.
    Up {
        /// Which.
        peer: MachineId,
        /// How the agents on it stand here.
        standing: Standing,
    },
    /// It ended.
    Down(MachineId),
    /// A holder's answer.
    Deposited {
        /// Whose.
        peer: MachineId,
        /// Of which letter.
        digest: Digest,
        /// What became of it.
        outcome: Outcome,
        /// What opens the mailbox there in which it lies.
        pickup: Pickup,
        /// Until when it is kept, as the holder says.
        until: WallTime,
    },
    /// A message was received, or its time is over.
    Settled(MessageId),
    /// A message will not be sent any more, and was not received.
    Cancelled(MessageId),
}

/// What the machine asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DepositorOutput {
    /// Tell what waits for an agent: [`DepositorInput::Pending`].
    Look(AgentId),
    /// Sign and seal a message, and keep the letter until [`DepositorOutput::Release`].
    Seal {
        /// For whom.
        to: AgentId,
        /// Which message.
        id: MessageId,
        /// Its number in the outbox.
        number: u64,
        /// What goes before it.
        after: Option<After>,
    },
    /// Leave a sealed letter with a machine.
    Deposit {
        /// With whom.
        peer: MachineId,
        /// Which letter.
        digest: Digest,
    },
    /// A sealed letter is not needed any more.
    Release(Digest),
    /// Record that a holder has a copy.
    Note(Deposit),
    /// A holder keeps a copy no longer: it need not be recorded any more.
    Lapsed {
        /// Of which message.
        id: MessageId,
        /// Who.
        holder: MachineId,
    },
    /// Nothing need be recorded of a message any more.
    Forget(MessageId),
    /// Tell a holder that a copy is not needed any more.
    Withdraw {
        /// Whom.
        peer: MachineId,
        /// What opens the mailbox there in which it lies.
        pickup: Pickup,
        /// Which letter.
        digest: Digest,
    },
    /// There are too few holders: find machines that may hold letters.
    Seek {
        /// By what they are ranked: as the mailbox says, if that is known, else by lot.
        places: [u8; 32],
    },
}

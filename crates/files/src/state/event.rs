//! What the machine is told, and what it asks for.

use std::{ops::Range, path::PathBuf};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId};

use crate::{
    error::{ChangeTransferError, SendFileError, WorkError},
    id::TransferId,
    ranges::RangeSet,
    record::{FileEvent, Record},
    tree::Value,
    wire::SliceIn,
};

/// What the user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Take an offered file; into this folder, if not into the usual one.
    Accept {
        /// An absolute path.
        folder: Option<PathBuf>,
    },
    /// Refuse an offer, or withdraw one that nobody answered.
    Reject {
        /// What the other end is told.
        reason: String,
    },
    /// Give a transfer up.
    Cancel,
    /// Stop it for now.
    Pause,
    /// Take it up again.
    Resume,
}

/// What a change came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// Whether the other end was told at once. If not, it is when it is met again.
    pub told: bool,
}

/// A file that was read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Its size in bytes.
    pub size: u64,
    /// Its BLAKE3 hash.
    pub root: Value,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// When it was last changed, in nanoseconds since the Unix epoch.
    pub modified: u64,
}

/// What the world tells the machine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// The transfers of earlier runs, before anything else.
    Loaded(Vec<Record>),
    /// The user sends a file; [`Output::Offered`] answers.
    Send {
        /// Names the caller.
        ticket: u64,
        /// The transfer, with its source, in [`crate::Phase::Preparing`].
        record: Box<Record>,
    },
    /// The user changes a transfer; [`Output::Changed`] answers.
    Change {
        /// Names the caller.
        ticket: u64,
        /// Which transfer.
        id: TransferId,
        /// How.
        change: Change,
    },
    /// A session begins.
    Up {
        /// With which machine.
        peer: MachineId,
        /// Its agents, proven.
        agents: Vec<AgentId>,
    },
    /// It ended.
    Down(MachineId),
    /// A control frame came.
    Frame {
        /// From which machine.
        peer: MachineId,
        /// Its bytes.
        frame: Bytes,
    },
    /// A content frame came.
    Content {
        /// From which machine.
        peer: MachineId,
        /// Its bytes.
        frame: Bytes,
    },
    /// Answers [`Output::Prepare`].
    Prepared {
        /// Which transfer.
        id: TransferId,
        /// What the file is.
        result: Result<Prepared, WorkError>,
    },
    /// Answers [`Output::Serve`].
    Served {
        /// To which machine.
        peer: MachineId,
        /// In which of its sessions, as the machine numbers them.
        session: u64,
        /// Of which transfer.
        id: TransferId,
        /// Bytes handed to the transport.
        sent: u64,
        /// Groups that were not.
        left: Range<u64>,
        /// Why not.
        result: Result<(), WorkError>,
    },
    /// Trust in an agent changed, or in any: what is not allowed any more ends.
    Reconsider(Option<AgentId>),
    /// A machine that took no content takes some again.
    Writable(MachineId),
    /// Answers [`Output::LookForSpace`].
    Space {
        /// For which transfer.
        id: TransferId,
        /// Free bytes.
        free: Result<u64, WorkError>,
    },
    /// Answers [`Output::Open`]: the groups that are there and verified.
    Opened {
        /// Which transfer.
        id: TransferId,
        /// Its groups.
        result: Result<RangeSet, WorkError>,
    },
    /// Answers [`Output::Store`].
    Stored {
        /// Of which transfer.
        id: TransferId,
        /// Which group.
        group: u64,
        /// Whether it was verified and stored.
        result: Result<(), WorkError>,
    },
    /// Answers [`Output::Finish`]: where the file is.
    Finished {
        /// Which transfer.
        id: TransferId,
        /// The file's path.
        result: Result<PathBuf, WorkError>,
    },
    /// A record that the disk did not take.
    Unsaved(TransferId),
}

/// What the machine asks of the world.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send a control frame.
    Transmit {
        /// To which machine.
        peer: MachineId,
        /// Its bytes.
        frame: Bytes,
    },
    /// Keep a record on disk. Comes before the answer that depends on it.
    Save(Box<Record>),
    /// Forget a record and whatever is kept for it, but not the received file.
    Forget(Box<Record>),
    /// Drop what is kept for a transfer that ended, once its record is kept.
    Discard(Box<Record>),
    /// Read a file once: [`Input::Prepared`].
    Prepare(Box<Record>),
    /// Read groups and send them in order: [`Input::Served`].
    Serve {
        /// To which machine.
        peer: MachineId,
        /// In which of its sessions.
        session: u64,
        /// The transfer.
        record: Box<Record>,
        /// Which groups; at least one.
        groups: Range<u64>,
    },
    /// How much room there is for a transfer: [`Input::Space`].
    LookForSpace {
        /// Which transfer.
        id: TransferId,
        /// In which folder, if not in the usual one.
        folder: Option<PathBuf>,
    },
    /// Open what is there of a file and verify it: [`Input::Opened`].
    Open(Box<Record>),
    /// Verify a group and store it: [`Input::Stored`].
    Store(SliceIn),
    /// Give a file its name, after its SHA-256 was checked: [`Input::Finished`].
    Finish(TransferId),
    /// Nothing more is stored for a transfer for now; what goes on for it is stopped. A [`Finish`] that was
    /// asked for is answered all the same.
    ///
    /// [`Finish`]: Self::Finish
    Close(TransferId),
    /// An agent without a session is needed.
    Seek(AgentId),
    /// End the session with a peer that breaks the protocol.
    Disconnect(MachineId),
    /// Answers [`Input::Send`].
    Offered {
        /// Whom.
        ticket: u64,
        /// The outcome.
        result: Result<TransferId, SendFileError>,
    },
    /// Answers [`Input::Change`].
    Changed {
        /// Whom.
        ticket: u64,
        /// The outcome.
        result: Result<Changed, ChangeTransferError>,
    },
    /// Something to show.
    Event(Box<FileEvent>),
}

//! What is known about a transfer: the part that survives a restart, and what is shown of it.

use std::{fmt, path::PathBuf};

use prost::Message;
use x0x_core::{AgentId, DecodeError, MachineId, WallTime, decode_bounded, fixed_bytes};

use crate::{id::TransferId, tree::Value};

/// Largest encoded [`Record`] in bytes.
pub(crate) const MAX_RECORD: usize = 64 * 1024;

/// Which way a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direction {
    /// To another agent.
    Sending,
    /// From another agent.
    Receiving,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The file is read once, to know its hash.
    Preparing,
    /// Offered; not accepted yet.
    Offered,
    /// Accepted, and not whole yet.
    Active,
    /// The same, stopped by this end's user.
    Paused,
    /// The recipient has the file, verified.
    Complete,
    /// Given up.
    Failed,
    /// Not wanted.
    Rejected,
    /// Withdrawn.
    Cancelled,
}

impl Phase {
    /// All, by their numbers on disk.
    const ALL: [Self; 8] = [
        Self::Preparing,
        Self::Offered,
        Self::Active,
        Self::Paused,
        Self::Complete,
        Self::Failed,
        Self::Rejected,
        Self::Cancelled,
    ];

    /// Whether nothing more happens.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Rejected | Self::Cancelled)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preparing => "preparing",
            Self::Offered => "offered",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        })
    }
}

/// A transfer, as it is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its id.
    pub id: TransferId,
    /// Which way the file goes.
    pub direction: Direction,
    /// The agent at the other end.
    pub peer: AgentId,
    /// The machine of that agent which offered the file, or which accepted it, once known. What other
    /// machines of the agent say about the transfer does not count.
    pub machine: Option<MachineId>,
    /// The agent at this end.
    pub local: AgentId,
    /// The file's name: as it is on this machine, or made [safe](crate::safe_name).
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its BLAKE3 hash, once known.
    pub root: Option<Value>,
    /// Its SHA-256, once known.
    pub sha256: Option<[u8; 32]>,
    /// What kind of file the sender says that it is; may be empty.
    pub media_type: String,
    /// How far the transfer is.
    pub phase: Phase,
    /// Why it ended, or what its disk said last, for people; of a peer's word at most, with nothing in it
    /// that steers a terminal.
    pub reason: Option<String>,
    /// When it was offered.
    pub started: WallTime,
    /// When it ended.
    pub ended: Option<WallTime>,
    /// The file that is sent.
    pub source: Option<PathBuf>,
    /// When that file was last changed before it was offered, in nanoseconds since the Unix epoch.
    pub modified: u64,
    /// Where a received file goes, if not into the usual folder.
    pub folder: Option<PathBuf>,
    /// The received file.
    pub output: Option<PathBuf>,
}

/// Why a transfer does not move that was accepted, or that a rule is to accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Waiting {
    /// No session with the other end.
    Peer,
    /// The user at the other end paused it.
    PeerPaused,
    /// The disk is full.
    Space,
    /// The disk failed; it is tried again.
    Disk,
    /// As many files as may be are received already.
    Turn,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "peer",
            Self::PeerPaused => "peer_paused",
            Self::Space => "space",
            Self::Disk => "disk",
            Self::Turn => "turn",
        })
    }
}

/// A transfer at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferInfo {
    /// What is kept of it.
    pub record: Record,
    /// Bytes that the recipient has stored and verified.
    pub verified: u64,
    /// Why an accepted transfer does not move, if so.
    pub waiting: Option<Waiting>,
}

/// Something happened to a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileEvent {
    /// An agent offers a file.
    Offered(TransferInfo),
    /// Bytes went or came, or the transfer was accepted, stopped or taken up again.
    Progress(TransferInfo),
    /// The recipient has the whole file; this end may be either.
    Complete(TransferInfo),
    /// It ended otherwise.
    Ended(TransferInfo),
}

impl FileEvent {
    /// The transfer.
    #[must_use]
    pub const fn info(&self) -> &TransferInfo {
        let (Self::Offered(info) | Self::Progress(info) | Self::Complete(info) | Self::Ended(info)) =
            self;
        info
    }
}

/// The record as it is on disk. Field numbers are never reused.
#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bool, tag = "2")]
    receiving: bool,
    #[prost(bytes = "vec", tag = "3")]
    peer: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    local: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(uint64, tag = "6")]
    size: u64,
    #[prost(bytes = "vec", optional, tag = "7")]
    root: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    sha256: Option<Vec<u8>>,
    #[prost(string, tag = "9")]
    media_type: String,
    #[prost(uint32, tag = "10")]
    phase: u32,
    #[prost(string, optional, tag = "11")]
    reason: Option<String>,
    #[prost(uint64, tag = "12")]
    started: u64,
    #[prost(uint64, optional, tag = "13")]
    ended: Option<u64>,
    #[prost(string, optional, tag = "14")]
    source: Option<String>,
    #[prost(uint64, tag = "15")]
    modified: u64,
    #[prost(string, optional, tag = "16")]
    folder: Option<String>,
    #[prost(string, optional, tag = "17")]
    output: Option<String>,
    #[prost(bytes = "vec", optional, tag = "18")]
    machine: Option<Vec<u8>>,
}

fn text(path: Option<&PathBuf>) -> Option<String> {
    path.map(|path| path.to_string_lossy().into_owned())
}

impl Record {
    /// The form on disk. Paths that are no Unicode are refused before they get here.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let saved = Saved {
            id: self.id.as_bytes().to_vec(),
            receiving: self.direction == Direction::Receiving,
            peer: self.peer.as_bytes().to_vec(),
            local: self.local.as_bytes().to_vec(),
            name: self.name.clone(),
            size: self.size,
            root: self.root.map(|root| root.to_vec()),
            sha256: self.sha256.map(|hash| hash.to_vec()),
            media_type: self.media_type.clone(),
            phase: self.phase as u32,
            reason: self.reason.clone(),
            started: self.started.as_millis(),
            ended: self.ended.map(WallTime::as_millis),
            source: text(self.source.as_ref()),
            modified: self.modified,
            folder: text(self.folder.as_ref()),
            output: text(self.output.as_ref()),
            machine: self.machine.map(|machine| machine.as_bytes().to_vec()),
        };
        saved.encode_to_vec()
    }

    /// Reads the form on disk.
    ///
    /// # Errors
    /// [`DecodeError`] when it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let saved: Saved = decode_bounded(bytes, MAX_RECORD)?;
        let phase = usize::try_from(saved.phase).ok().and_then(|n| Phase::ALL.get(n).copied());
        let hash = |bytes: Option<Vec<u8>>, name| bytes.map(|b| fixed_bytes(&b, name)).transpose();
        Ok(Self {
            id: TransferId::new(fixed_bytes(&saved.id, "id")?),
            direction: if saved.receiving { Direction::Receiving } else { Direction::Sending },
            peer: AgentId::new(fixed_bytes(&saved.peer, "peer")?),
            machine: hash(saved.machine, "machine")?.map(MachineId::new),
            local: AgentId::new(fixed_bytes(&saved.local, "local")?),
            name: saved.name,
            size: saved.size,
            root: hash(saved.root, "root")?,
            sha256: hash(saved.sha256, "sha256")?,
            media_type: saved.media_type,
            phase: phase.ok_or(DecodeError::Field("phase"))?,
            reason: saved.reason,
            started: WallTime::from_millis(saved.started),
            ended: saved.ended.map(WallTime::from_millis),
            source: saved.source.map(PathBuf::from),
            modified: saved.modified,
            folder: saved.folder.map(PathBuf::from),
            output: saved.output.map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_damage_shows() {
        let mut record = Record {
            id: TransferId::new([7; 16]),
            direction: Direction::Receiving,
            peer: AgentId::new([1; 32]),
            machine: Some(MachineId::new([4; 32])),
            local: AgentId::new([2; 32]),
            name: "a.txt".into(),
            size: u64::MAX,
            root: Some([3; 32]),
            sha256: None,
            media_type: String::new(),
            phase: Phase::Cancelled,
            reason: Some("no".into()),
            started: WallTime::from_millis(5),
            ended: Some(WallTime::from_millis(6)),
            source: None,
            modified: 9,
            folder: Some("/x".into()),
            output: Some("/x/a.txt".into()),
        };
        for phase in Phase::ALL {
            record.phase = phase;
            assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
        }
        let bytes = record.encode();
        assert!(Record::decode(&bytes[1..]).is_err() && Record::decode(&[]).is_err());
        assert!(Record::decode(&vec![0; MAX_RECORD + 1]).is_err());
    }
}

//! `/files/*`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use crate::{encoding::Hex64, flag::True};

/// Body of `POST /files/send`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SendFileRequest {
    /// The recipient.
    #[schema(value_type = Hex64)]
    pub agent_id: String,
    /// The file, as an absolute path on the daemon's machine; `forbidden_file` for the keys, the
    /// data and the settings of this or another agent, and for `/proc`, `/sys` and `/dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its SHA-256, if known: the transfer fails when the file has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub sha256: Option<String>,
    /// The name to offer it under, if not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// What kind of file it is, such as `image/png`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// Answer of `POST /files/send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SendFileResponse {
    /// Always true.
    pub ok: True,
    /// The transfer's id, a UUID.
    pub transfer_id: String,
}

/// Body of `POST /files/accept/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcceptFileRequest {
    /// Where the file goes, as an absolute path on the daemon's machine; the daemon's folder of received
    /// files if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_dir: Option<String>,
}

/// Body of `POST /files/reject/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectFileRequest {
    /// What the other end is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer of the calls that change a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeTransferResponse {
    /// Always true.
    pub ok: True,
    /// Present when the other end could not be told at once. It is told when it is met again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Answer of `GET /files/transfers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransfersResponse {
    /// Always true.
    pub ok: True,
    /// The transfers that have not ended, and those that ended last, the oldest first.
    pub transfers: Vec<Transfer>,
}

/// Answer of `GET /files/transfers/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferResponse {
    /// Always true.
    pub ok: True,
    /// The transfer.
    pub transfer: Transfer,
}

/// Which way a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub enum TransferDirection {
    /// To another agent.
    Sending,
    /// From another agent.
    Receiving,
}

/// How far a transfer is, in few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub enum TransferStatus {
    /// Not accepted yet.
    Pending,
    /// Accepted, and not whole yet.
    InProgress,
    /// The recipient has the file, verified.
    Complete,
    /// Given up or withdrawn.
    Failed,
    /// Not wanted.
    Rejected,
}

/// How far a transfer is, and what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TransferState {
    /// The sender reads the file to know its hash.
    Preparing,
    /// Offered; not accepted yet.
    Offered,
    /// Moving.
    Active,
    /// Stopped here.
    Paused,
    /// Stopped at the other end.
    PeerPaused,
    /// The other end is not connected.
    WaitingForPeer,
    /// The disk is full; it goes on when there is room.
    WaitingForSpace,
    /// The disk failed, as `error` says; it is tried again, and nothing is lost.
    WaitingForDisk,
    /// As many files as may be are received already.
    WaitingForTurn,
    /// The recipient has the file, verified.
    Complete,
    /// Given up.
    Failed,
    /// Not wanted.
    Rejected,
    /// Withdrawn.
    Cancelled,
}

/// A transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    /// Its id, a UUID, the same at both ends.
    pub transfer_id: String,
    /// Which way the file goes.
    pub direction: TransferDirection,
    /// The agent at the other end.
    #[schema(value_type = Hex64)]
    pub remote_agent_id: AgentId,
    /// The file's name; one that a sender chose is made safe to use.
    pub filename: String,
    /// What kind of file the sender says that it is; absent when it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Its size in bytes.
    pub total_size: u64,
    /// Bytes that the recipient has stored and verified.
    pub bytes_transferred: u64,
    /// How far it is.
    pub status: TransferStatus,
    /// The same, more exactly.
    pub state: TransferState,
    /// The file's SHA-256; empty while it is not known.
    pub sha256: String,
    /// Its BLAKE3 hash, to which every piece is held; empty while it is not known.
    pub blake3: String,
    /// Why it ended, when it failed, or what its disk said last.
    #[schema(required = true)]
    pub error: Option<String>,
    /// When it was offered, seconds since the Unix epoch.
    pub started_at: u64,
    /// The same in milliseconds.
    pub started_at_unix_ms: u64,
    /// When it ended, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at_unix_ms: Option<u64>,
    /// The file that is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_path: Option<String>,
    /// The received file, once it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_path: Option<String>,
    /// Bytes of the pieces that are verified one by one.
    pub chunk_size: u64,
    /// How many pieces the file has.
    pub total_chunks: u64,
}

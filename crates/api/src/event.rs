//! Data of the server-sent events.
//!
//! `GET /events` sends the event name twice: as the SSE `event` field and inside the JSON, as
//! `{"type": name, "data": {..}}`. `GET /direct/events` sends the bare data. Where a client missed events, the one
//! sends `event: lagged` and the other `event: gap`, both with [`Lagged`].

mod groups;
mod objects;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::{AgentId, MachineId};

use crate::{
    cursor::CursorToken,
    encoding::{Base64, Hex16, Hex32, Hex64},
    types::DirectState,
};

pub use groups::*;
pub use objects::*;

/// An epoch as 16 hex characters: JavaScript's numbers do not hold all of them.
pub(crate) mod hex_epoch {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(epoch: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{epoch:016x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let parsed = u64::from_str_radix(&text, 16).ok();
        let epoch = parsed.filter(|epoch| format!("{epoch:016x}") == *text);
        epoch.ok_or_else(|| de::Error::custom("expected 16 lowercase hex characters"))
    }
}

/// Whether a number is left out, since it says nothing.
pub(crate) const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// SSE event name of a [`DirectMessageEvent`].
pub const DIRECT_MESSAGE: &str = "direct_message";
/// SSE event name of a [`MessageEvent`].
pub const MESSAGE: &str = "message";
/// SSE event name of a [`PresenceChange`].
pub const PRESENCE: &str = "presence";
/// SSE event name of a [`PeerChange`].
pub const PEER_LIFECYCLE: &str = "peer-lifecycle";
/// SSE event name of a [`FileOffer`].
pub const FILE_OFFER: &str = "file:offer";
/// SSE event name of a [`FileComplete`].
pub const FILE_COMPLETE: &str = "file:complete";
/// SSE event name of a [`Transfer`](crate::types::Transfer).
pub const TRANSFER: &str = "transfer";
/// SSE event name of a [`DirectReceipt`].
pub const RECEIPT: &str = "receipt";
/// SSE event name of a [`Lagged`] on `GET /direct/events`.
pub const GAP: &str = "gap";
/// SSE event name of a [`Lagged`].
pub const LAGGED: &str = "lagged";

/// An event of `GET /events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A message of a subscribed topic.
    Message(MessageEvent),
    /// An agent offers a file.
    #[serde(rename = "file:offer")]
    FileOffer(FileOffer),
    /// A file was received whole.
    #[serde(rename = "file:complete")]
    FileComplete(FileComplete),
    /// Events that this client missed.
    Lagged(Lagged),
}

/// What became of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PresenceEventKind {
    /// It is there.
    Online,
    /// It is overdue: it may be gone.
    Away,
    /// It is gone.
    Offline,
}

impl PresenceEventKind {
    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Away => "away",
            Self::Offline => "offline",
        }
    }
}

/// An agent came, is overdue, or went. A stream begins with an `online` for each that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceChange {
    /// What happened.
    pub event: PresenceEventKind,
    /// The agent.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// Whether there is a session with it; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
}

/// What became of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub enum PeerEventKind {
    /// It begins.
    Established,
    /// A new session took its place.
    Replaced,
    /// It ended.
    Closed,
}

impl PeerEventKind {
    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Established => "Established",
            Self::Replaced => "Replaced",
            Self::Closed => "Closed",
        }
    }
}

/// A session began or ended. A stream begins with an `Established` for each that is live. Of a session that
/// lasted less than half a second nothing may be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerChange {
    /// The machine at the other end.
    #[schema(value_type = Hex64)]
    pub peer_id: MachineId,
    /// What happened.
    pub event: PeerEventKind,
    /// When it was noticed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// How far an author is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TrustLevel {
    /// Never to be heard.
    Blocked,
    /// Not a contact.
    Unknown,
    /// A contact.
    Known,
    /// A trusted contact.
    Trusted,
}

/// What the trust rules say of a direct message's sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TrustDecision {
    /// A trusted contact.
    Accept,
    /// A known contact.
    AcceptWithFlag,
    /// A pinned contact on another machine.
    RejectMachineMismatch,
    /// A blocked contact.
    RejectBlocked,
    /// Not a contact.
    Unknown,
}

/// A message of a topic that was subscribed to by `POST /subscribe`. A subscription starts with the
/// messages of the topic that the daemon still keeps, so that a new one may bring some that an earlier
/// one brought already: `sender`, `topic`, `epoch` and `seq` together name a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageEvent {
    /// The subscription that it belongs to.
    #[schema(value_type = Hex16)]
    pub subscription_id: String,
    /// Topic name.
    pub topic: String,
    /// The message.
    pub payload: Base64,
    /// Its author.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub sender: Option<AgentId>,
    /// Whether the author's signature was verified.
    pub verified: bool,
    /// How far the author is trusted.
    #[schema(required = true)]
    pub trust_level: Option<TrustLevel>,
    /// The run of the author's daemon that published it: `seq` starts anew in each.
    #[serde(with = "hex_epoch")]
    #[schema(value_type = Hex16)]
    pub epoch: u64,
    /// Its number among the author's messages of this topic and epoch.
    pub seq: u64,
    /// How many of these just before it are missing here, since nobody could supply them any more; a
    /// `lagged` event before it counts them, too. Absent when none is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gap: u64,
    /// The place after it, to resume from.
    pub cursor: CursorToken,
}

/// A direct message to this daemon's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectMessageEvent {
    /// The sending agent.
    #[schema(value_type = Hex64)]
    pub sender: AgentId,
    /// The machine that it came from.
    #[schema(value_type = Hex64)]
    pub machine_id: MachineId,
    /// The message.
    pub payload: Base64,
    /// When it arrived, milliseconds since the Unix epoch.
    pub received_at: u64,
    /// Whether the sending machine proved that it speaks for the agent.
    pub verified: bool,
    /// What the trust rules say of the sender.
    #[schema(required = true)]
    pub trust_decision: Option<TrustDecision>,
    /// How far the sender is trusted.
    #[schema(required = true)]
    pub trust_level: Option<TrustLevel>,
    /// Names the message; the sender's `request_id`.
    #[serde(default)]
    #[schema(value_type = Hex32, required = true)]
    pub request_id: String,
    /// The message that it answers, a `request_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex32>)]
    pub reply_to: Option<String>,
    /// Its number in the inbox, which rises with each message. Absent when it is not stored.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: u64,
}

/// A queued message came further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectReceipt {
    /// Names the message.
    #[schema(value_type = Hex32)]
    pub request_id: String,
    /// The recipient.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// How far it came.
    pub state: DirectState,
    /// When, milliseconds since the Unix epoch.
    pub at: u64,
}

/// An agent offers a file, which waits to be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileOffer {
    /// The transfer's id.
    pub transfer_id: String,
    /// The file's name, made safe to use.
    pub filename: String,
    /// Its size in bytes.
    pub size: u64,
    /// The agent that offers it.
    #[schema(value_type = Hex64)]
    pub sender: AgentId,
}

/// A file was received whole, and is what was offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileComplete {
    /// The transfer's id.
    pub transfer_id: String,
    /// The name that it has on this machine.
    pub filename: String,
    /// Its SHA-256.
    #[schema(value_type = Hex64)]
    pub sha256: String,
    /// Where it is.
    pub path: String,
}

/// That messages are missing at this place: the client was too slow, resumed too late, or nobody has
/// them any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lagged {
    /// How many it missed; 0 when the number is not known.
    pub missed: u64,
    /// The topic that they belong to. Absent when the stream itself lagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The subscription whose messages were missed. Absent when the stream itself lagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex16>)]
    pub subscription_id: Option<String>,
}

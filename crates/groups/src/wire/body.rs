//! The fields of an operation as they travel. `docs/protocol/groups.proto` is the schema.

use bytes::Bytes;
use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct BodyWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) group: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) author: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) parents: Vec<Bytes>,
    #[prost(uint64, tag = "4")]
    pub(super) at_ms: u64,
    #[prost(uint32, tag = "5")]
    pub(super) role: u32,
    #[prost(uint32, tag = "6")]
    pub(super) height: u32,
    #[prost(
        oneof = "ActionWire",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28"
    )]
    pub(super) action: Option<ActionWire>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ActionWire {
    #[prost(message, tag = "10")]
    Found(FoundWire),
    #[prost(message, tag = "11")]
    SetPolicy(SetPolicyWire),
    #[prost(message, tag = "12")]
    SetProfile(ProfileWire),
    #[prost(message, tag = "13")]
    SetRole(AgentWire),
    #[prost(message, tag = "14")]
    Admit(AdmitWire),
    #[prost(message, tag = "15")]
    Remove(AgentWire),
    #[prost(message, tag = "16")]
    Ban(AgentWire),
    #[prost(message, tag = "17")]
    Unban(AgentWire),
    #[prost(message, tag = "18")]
    Leave(EmptyWire),
    #[prost(message, tag = "19")]
    CreateInvite(InviteWire),
    #[prost(message, tag = "20")]
    RevokeInvite(NamedWire),
    #[prost(message, tag = "21")]
    Request(NamedWire),
    #[prost(message, tag = "22")]
    Reject(NamedWire),
    #[prost(message, tag = "23")]
    Cancel(NamedWire),
    #[prost(message, tag = "24")]
    SetDisplayName(TextWire),
    #[prost(message, tag = "25")]
    Withdraw(EmptyWire),
    #[prost(message, tag = "26")]
    SetRoom(RoomWire),
    #[prost(message, tag = "27")]
    Join(TextWire),
    #[prost(message, tag = "28")]
    Hide(NamedWire),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct EmptyWire {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TextWire {
    #[prost(string, tag = "1")]
    pub(super) text: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) bytes: Bytes,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct PolicyWire {
    #[prost(uint32, tag = "1")]
    pub(super) discoverability: u32,
    #[prost(uint32, tag = "2")]
    pub(super) admission: u32,
    #[prost(uint32, tag = "3")]
    pub(super) confidentiality: u32,
    #[prost(uint32, tag = "4")]
    pub(super) read_access: u32,
    #[prost(uint32, tag = "5")]
    pub(super) write_access: u32,
    #[prost(uint32, tag = "6")]
    pub(super) invite_role: u32,
    #[prost(bool, tag = "7")]
    pub(super) shares_history: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SetPolicyWire {
    #[prost(message, optional, tag = "1")]
    pub(super) policy: Option<PolicyWire>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) mls_group: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ProfileWire {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) tags: Vec<String>,
    #[prost(string, tag = "4")]
    pub(super) avatar_url: String,
    #[prost(string, tag = "5")]
    pub(super) banner_url: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FoundWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) nonce: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(super) policy: Option<PolicyWire>,
    #[prost(message, optional, tag = "3")]
    pub(super) profile: Option<ProfileWire>,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) mls_group: Bytes,
    #[prost(string, tag = "5")]
    pub(super) display_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AgentWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) agent: Bytes,
    /// Of SetRole; of Unban, 0 when it does not come back.
    #[prost(uint32, tag = "2")]
    pub(super) role: u32,
    #[prost(string, tag = "3")]
    pub(super) reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AdmitWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) agent: Bytes,
    #[prost(uint32, tag = "2")]
    pub(super) role: u32,
    /// A redeemed invite.
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) redemption: Bytes,
    /// The request that is approved.
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) request: Bytes,
    #[prost(string, tag = "5")]
    pub(super) display_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InviteWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) invite: Bytes,
    #[prost(uint64, tag = "2")]
    pub(super) expires_ms: u64,
    #[prost(uint32, tag = "3")]
    pub(super) uses: u32,
    #[prost(uint32, tag = "4")]
    pub(super) role: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RoomWire {
    #[prost(string, tag = "1")]
    pub(super) room: String,
    #[prost(string, tag = "2")]
    pub(super) topic: String,
    #[prost(bool, tag = "3")]
    pub(super) closed: bool,
}

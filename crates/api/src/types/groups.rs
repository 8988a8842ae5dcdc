//! `/groups/*`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use crate::{
    encoding::{Base64, Hex64},
    flag::True,
};

/// Body of `POST /groups`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateGroupRequest {
    /// Its name.
    pub name: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What this agent is called in it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// Its rules: `private_secure` unless given, `public_request_secure`, `public_open` or
    /// `public_announce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
}

/// Answer of `POST /groups` and `POST /groups/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupCreatedResponse {
    /// Always true.
    pub ok: True,
    /// Its id.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Its name.
    pub name: String,
    /// The same, as `POST /groups/join` has it.
    pub group_name: String,
    /// The topic of its log; what is published there otherwise is not read.
    pub chat_topic: String,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupInfo {
    /// Its id.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// Who founded it.
    #[schema(value_type = Hex64)]
    pub creator: AgentId,
    /// When, milliseconds since the Unix epoch.
    pub created_at: u64,
    /// Who is in it.
    pub member_count: u64,
    /// Whether what is said in it is end-to-end encrypted.
    pub encrypted: bool,
}

/// Answer of `GET /groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupsResponse {
    /// Always true.
    pub ok: True,
    /// The groups of this agent, by id.
    pub groups: Vec<GroupInfo>,
}

/// The rules of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupPolicyInfo {
    /// `hidden`, `listed_to_contacts` or `public_directory`.
    pub discoverability: String,
    /// `invite_only`, `request_access` or `open_join`.
    pub admission: String,
    /// `mls_encrypted` or `signed_public`.
    pub confidentiality: String,
    /// `members_only` or `public`.
    pub read_access: String,
    /// `members_only`, `moderated_public` or `admin_only`.
    pub write_access: String,
    /// The last role that may invite: `owner`, `admin`, `moderator` or `member`.
    pub invite_role: String,
    /// Whether members hand to new ones what was written while this was true. Of a group that is not encrypted anybody
    /// reads it anyway.
    pub shares_history: bool,
}

/// An agent in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupMember {
    /// Who.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// `owner`, `admin`, `moderator`, `member` or `guest`; of who is not in it any more, what stands in
    /// `state`.
    pub role: String,
    /// `active`, `removed` or `banned`.
    pub state: String,
    /// What it is called in the group.
    pub display_name: String,
    /// Since when it is what it is, milliseconds since the Unix epoch.
    pub joined_at: u64,
    /// Who made it that.
    #[schema(value_type = Hex64)]
    pub added_by: AgentId,
}

/// Answer of `GET /groups/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupResponse {
    /// Always true.
    pub ok: True,
    /// The group.
    #[serde(flatten)]
    pub info: GroupInfo,
    /// When its state changed last, milliseconds since the Unix epoch.
    pub updated_at: u64,
    /// The topic of its log.
    pub chat_topic: String,
    /// Its rules.
    pub policy: GroupPolicyInfo,
    /// How often its rules changed.
    pub policy_revision: u64,
    /// How often it changed who is in it.
    pub roster_revision: u64,
    /// The epoch of its keys, when it is encrypted and this agent has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Whether it was ended.
    pub withdrawn: bool,
    /// Its rooms besides the first.
    pub rooms: Vec<RoomInfo>,
    /// Who is in it, and who was banned.
    pub members: Vec<GroupMember>,
}

/// Answer of `GET /groups/{id}/members` and of what changes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupMembersResponse {
    /// Always true.
    pub ok: True,
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// The epoch of its keys, when it is encrypted and this agent has them.
    pub epoch: Option<u64>,
    /// Who is in it.
    pub member_count: u64,
    /// The same, and who was banned.
    pub members: Vec<GroupMember>,
}

/// Body of `POST /groups/{id}/members`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddMemberRequest {
    /// Whom; it has to be online when the group is encrypted.
    #[schema(value_type = Hex64)]
    pub agent_id: String,
    /// What it is called in the group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
}

/// Body of `PATCH /groups/{id}/members/{agent_id}/role`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetRoleRequest {
    /// `owner`, `admin`, `moderator`, `member` or `guest`.
    pub role: String,
}

/// Body of `PATCH /groups/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeGroupRequest {
    /// Its name from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Words by which it is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

/// Body of `PATCH /groups/{id}/policy`. The preset comes first, the axes over it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeGroupPolicyRequest {
    /// As in `POST /groups`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// See the group's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discoverability: Option<String>,
    /// See the group's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<String>,
    /// See the group's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidentiality: Option<String>,
    /// See the group's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_access: Option<String>,
    /// See the group's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_access: Option<String>,
    /// See the group's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite_role: Option<String>,
    /// See the group's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_history: Option<bool>,
}

/// Body of `PUT /groups/{id}/display-name`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DisplayNameRequest {
    /// What this agent is called in the group.
    #[serde(alias = "display_name")]
    pub name: String,
}

/// Answer to a change of a group's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupRevisionResponse {
    /// Always true.
    pub ok: True,
    /// Operations that stand now.
    pub revision: u64,
}

/// Body of `POST /groups/{id}/invite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteRequest {
    /// It ends after so many seconds: a week unless given, 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_secs: Option<u64>,
    /// How often it may be used: once unless given, 10000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// Answer of `POST /groups/{id}/invite`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteResponse {
    /// Always true.
    pub ok: True,
    /// What to hand to whoever is to join. Whoever has it may.
    pub invite_link: String,
    /// Names the invite when it is to be revoked.
    #[schema(value_type = Hex64)]
    pub invite_id: AgentId,
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Its name.
    pub group_name: String,
    /// Seconds since the Unix epoch; 0 for never.
    pub expires_at: u64,
}

/// Body of `POST /groups/join`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinGroupRequest {
    /// The link.
    pub invite: String,
    /// What this agent is called in the group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
}

/// Body of `POST /groups/{id}/requests`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AskToJoinRequest {
    /// The member to ask; without one, who made the group's card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub member: Option<String>,
    /// What to say to it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Body of `POST /groups/{id}/join`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinOpenGroupRequest {
    /// The member to ask; without one, who made the group's card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub member: Option<String>,
    /// What this agent is called in the group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
}

/// A room of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomInfo {
    /// Its name.
    pub room: String,
    /// What it is about.
    pub topic: String,
    /// Whether nobody may write there.
    pub closed: bool,
}

/// Body of `PUT /groups/{id}/rooms/{room}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomRequest {
    /// What it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// Whether nobody may write there.
    #[serde(default)]
    pub closed: bool,
}

/// Answer of `POST /groups/{id}/requests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AskedToJoinResponse {
    /// Always true.
    pub ok: True,
    /// The request.
    #[schema(value_type = Hex64)]
    pub request_id: String,
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
}

/// A request to be admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinRequestInfo {
    /// Names it.
    #[schema(value_type = Hex64)]
    pub request_id: String,
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Who asks.
    #[schema(value_type = Hex64)]
    pub requester_agent_id: AgentId,
    /// What it says to it.
    pub message: Option<String>,
    /// When, milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When somebody decided.
    pub reviewed_at: Option<u64>,
    /// Who decided.
    #[schema(value_type = Option<Hex64>)]
    pub reviewed_by: Option<AgentId>,
    /// `pending`, `approved`, `rejected` or `cancelled`.
    pub status: String,
}

/// Answer of `GET /groups/{id}/requests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinRequestsResponse {
    /// Always true.
    pub ok: True,
    /// The requests, the oldest first.
    pub requests: Vec<JoinRequestInfo>,
}

/// Body of `POST /groups/{id}/send`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupSendRequest {
    /// The text; in an encrypted group, in place of it, `payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Bytes, to the members of an encrypted group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Base64>)]
    pub payload: Option<String>,
    /// `chat` unless given, or `announcement`; of a group that is not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// In which room; the first unless given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub room: String,
}

/// Answer of `POST /groups/{id}/send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupSendResponse {
    /// Always true.
    pub ok: True,
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Names the message: 32 hex digits in an encrypted group, 64 in another.
    pub message_id: String,
    /// The topic of its log.
    pub topic: String,
    /// When, milliseconds since the Unix epoch.
    pub timestamp: u64,
}

/// A message in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupMessageInfo {
    /// Names it.
    pub message_id: String,
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Who wrote it: proven by its signature, or as a member by the group's keys.
    #[schema(value_type = Hex64)]
    pub author_agent_id: AgentId,
    /// `chat` or `announcement`.
    pub kind: String,
    /// In which room; empty for the first.
    pub room: String,
    /// The text, when it is one.
    pub body: Option<String>,
    /// The bytes, when they are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Base64>)]
    pub payload: Option<String>,
    /// When it was written by its author's clock, or in an encrypted group when it came; milliseconds
    /// since the Unix epoch.
    pub timestamp: u64,
    /// The member that handed it over to this agent, which came in later: that its author wrote it, nobody else says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Hex64>)]
    pub handed_by: Option<AgentId>,
}

/// Answer of `GET /groups/{id}/messages`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupMessagesResponse {
    /// Always true.
    pub ok: True,
    /// The last 512, the oldest first.
    pub messages: Vec<GroupMessageInfo>,
}

/// Answer of `GET /groups/{id}/state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupStateResponse {
    /// Always true.
    pub ok: True,
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Its keys, if it is encrypted.
    #[schema(value_type = Option<Hex64>)]
    pub mls_group_id: Option<String>,
    /// Operations that stand.
    pub state_revision: u64,
    /// Those that do not, since others stand in their place.
    pub fallen: u64,
    /// What all members that have the same operations agree upon.
    #[schema(value_type = Hex64)]
    pub state_hash: String,
    /// Who is in it, as a hash.
    #[schema(value_type = Hex64)]
    pub roster_root: String,
    /// Its rules, as a hash.
    #[schema(value_type = Hex64)]
    pub policy_hash: String,
    /// Name, description and the rest of what it shows, as a hash.
    #[schema(value_type = Hex64)]
    pub public_meta_hash: String,
    /// `mls:epoch=N`, when it is encrypted and this agent has its keys.
    pub security_binding: Option<String>,
    /// Whether it was ended.
    pub withdrawn: bool,
}

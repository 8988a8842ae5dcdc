//! `/groups/discover*` and `/groups/cards/*`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use super::GroupPolicyInfo;
use crate::{
    encoding::{Base64, Hex64},
    flag::True,
};

/// What may be known of a group by who is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupCard {
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// A picture.
    #[schema(required = true)]
    pub avatar_url: Option<String>,
    /// A wide picture.
    #[schema(required = true)]
    pub banner_url: Option<String>,
    /// Words by which it is found.
    pub tags: Vec<String>,
    /// Its rules.
    pub policy_summary: GroupPolicyInfo,
    /// Who founded it.
    #[schema(value_type = Hex64)]
    pub owner_agent_id: AgentId,
    /// Its admins, the owner among them.
    pub admin_count: u32,
    /// Who is in it.
    pub member_count: u32,
    /// When it was founded, milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When it changed last, milliseconds since the Unix epoch.
    pub updated_at: u64,
    /// Whether one may ask to be admitted.
    pub request_access_enabled: bool,
    /// The topic of its log, if anybody may read that.
    #[schema(required = true)]
    pub metadata_topic: Option<String>,
    /// Operations that stand.
    pub revision: u64,
    /// What its members agree upon.
    #[schema(value_type = Hex64)]
    pub state_hash: String,
    /// Always null: a state follows from a set of operations, not from one before it.
    #[schema(value_type = Option<Hex64>, required = true)]
    pub prev_state_hash: Option<String>,
    /// When the card was made, milliseconds since the Unix epoch.
    pub issued_at: u64,
    /// When it ends, milliseconds since the Unix epoch.
    pub expires_at: u64,
    /// Who made it.
    #[schema(value_type = Hex64)]
    pub authority_agent_id: AgentId,
    /// Its key, in hex.
    pub authority_public_key: String,
    /// Whether the group has ended.
    pub withdrawn: bool,
    /// Its signature, in hex.
    pub signature: String,
    /// The card as it was signed: what `POST /groups/cards/import` reads.
    #[schema(value_type = Base64)]
    pub card: String,
}

/// Answer of `GET /groups/discover` and `GET /groups/discover/nearby`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupCardsResponse {
    /// Always true.
    pub ok: True,
    /// The cards, by the groups' ids.
    pub groups: Vec<GroupCard>,
}

/// Body of `POST /groups/cards/import`: a card as another daemon showed it. Nothing but `card` is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportGroupCardRequest {
    /// The card as it was signed.
    #[schema(value_type = Base64)]
    pub card: String,
}

/// Answer of `POST /groups/cards/import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupCardImportedResponse {
    /// Always true.
    pub ok: True,
    /// The group.
    #[schema(value_type = Hex64)]
    pub group_id: String,
    /// Whether this agent is not in it.
    pub stub: bool,
    /// Always true: it is found from now on.
    pub discovered: bool,
    /// Whether this agent has its keys.
    pub secure_access: bool,
    /// Whether the group has ended.
    pub withdrawn: bool,
}

/// Body of `POST /groups/discover/subscribe`: by a key, or the number of its shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscribeCardsRequest {
    /// `tag`, `name` or `id`.
    pub kind: String,
    /// A tag, a word of a name, or an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The shard, in place of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
}

/// Answer of `POST /groups/discover/subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CardsSubscribedResponse {
    /// Always true.
    pub ok: True,
    /// Whether it was not subscribed before.
    pub newly_added: bool,
    /// `tag`, `name` or `id`.
    pub kind: String,
    /// The shard.
    pub shard: u32,
    /// The topic in which its cards are published.
    pub topic: String,
}

/// A shard that is subscribed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CardSubscription {
    /// `tag`, `name` or `id`.
    pub kind: String,
    /// The shard.
    pub shard: u32,
    /// What was looked for, if it was said.
    #[schema(required = true)]
    pub key: Option<String>,
    /// Since when, milliseconds since the Unix epoch.
    pub subscribed_at: u64,
}

/// Answer of `GET /groups/discover/subscriptions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CardSubscriptionsResponse {
    /// Always true.
    pub ok: True,
    /// How many there are.
    pub count: u64,
    /// The shards.
    pub subscriptions: Vec<CardSubscription>,
}

/// Answer of `DELETE /groups/discover/subscribe/{kind}/{shard}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CardsUnsubscribedResponse {
    /// Always true.
    pub ok: True,
    /// Whether it was subscribed.
    pub existed: bool,
}

//! `/publish` and `/subscribe`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::direct::RequireAck;
use crate::{
    cursor::CursorToken,
    encoding::{Base64, Hex16},
    flag::True,
};

/// How long a message is kept.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Retention {
    /// As long as the topic's retention allows; subscribers that come later get it, too.
    #[default]
    Standard,
    /// Until this daemon publishes another one of this kind in the topic, which takes its place.
    /// Subscribers that come later get the newest only.
    Latest,
    /// A minute, and never on disk. After a crash within that minute it may come once more.
    Ephemeral,
}

impl Retention {
    /// Whether it is the one that is meant when none is named.
    #[must_use]
    pub fn is_standard(&self) -> bool {
        *self == Self::Standard
    }
}

/// Body of `POST /publish`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishRequest {
    /// Topic name, not empty.
    pub topic: String,
    /// The message.
    #[schema(value_type = Base64)]
    pub payload: String,
    /// How long the message is kept.
    #[serde(default, skip_serializing_if = "Retention::is_standard")]
    pub retention: Retention,
    /// Also wait until a peer has the message, so many milliseconds (100 to 30,000) at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_ack_ms: Option<u64>,
}

/// Answer of `POST /publish`: the message is in this daemon's log, and on disk if it keeps topics
/// there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishResponse {
    /// Always true.
    pub ok: True,
    /// How many peers subscribe the topic and get the message from here. Peers that come later get it,
    /// too, within the retention.
    pub topic_peers: u64,
    /// The message's number among this daemon's messages of the topic and retention since it was
    /// started.
    pub seq: u64,
    /// The place after the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<CursorToken>)]
    pub cursor: Option<CursorToken>,
    /// Whether a peer had it in time, if that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_ack: Option<RequireAck>,
}

/// Body of `POST /subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscribeRequest {
    /// Topic name, not empty.
    pub topic: String,
    /// Where to begin: after the message with this `cursor`, or `now`. Without it, with the oldest
    /// message that the daemon keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// Answer of `POST /subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscribeResponse {
    /// Always true.
    pub ok: True,
    /// Names the subscription in events and for `DELETE /subscribe/{id}`.
    #[schema(value_type = Hex16)]
    pub subscription_id: String,
}

/// Answer of `GET /subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionsResponse {
    /// Always true.
    pub ok: True,
    /// By id.
    pub subscriptions: Vec<SubscriptionEntry>,
}

/// A subscription whose messages come to `/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionEntry {
    /// Names the subscription in events and for `DELETE /subscribe/{id}`.
    #[schema(value_type = Hex16)]
    pub subscription_id: String,
    /// Topic name.
    pub topic: String,
}

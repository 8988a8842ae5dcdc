//! `/publish` and `/subscribe`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    encoding::{Base64, Hex16},
    flag::True,
};

/// Body of `POST /publish`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishRequest {
    /// Topic name, not empty.
    pub topic: String,
    /// The message.
    #[schema(value_type = Base64)]
    pub payload: String,
}

/// Body of `POST /subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscribeRequest {
    /// Topic name, not empty.
    pub topic: String,
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

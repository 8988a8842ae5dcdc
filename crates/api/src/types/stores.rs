//! `/stores/*`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use super::ObjectInfo;
use crate::{
    encoding::{Base64, Hex32, Hex64},
    flag::True,
};

/// Answer of `GET /stores`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoresResponse {
    /// Always true.
    pub ok: True,
    /// The stores of this daemon, by id.
    pub stores: Vec<ObjectInfo>,
}

/// Body of `POST /stores/{id}/join`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinStoreRequest {
    /// What people call it here; its topic unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Body of `PUT /stores/{id}/{key}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PutValueRequest {
    /// The value, at most 64 KiB. A larger one is sent as a file, and put by `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Base64>)]
    pub value: Option<String>,
    /// In place of a value: the file that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileReference>,
    /// What the value is; `application/octet-stream` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// More about it: at most 16 names and texts of 1 KiB together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// After so many milliseconds it is gone; a second to 366 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Put it only when the key is at this `version` here, else 409 `conflict`; `absent` when it has no
    /// value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<String>,
}

/// A file that holds a value: others ask whoever put it for the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileReference {
    /// BLAKE3 of its content.
    #[schema(value_type = Hex64)]
    pub hash: String,
    /// Bytes.
    pub size: u64,
    /// Its name.
    pub name: String,
}

/// Answer of `PUT /stores/{id}/{key}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PutValueResponse {
    /// Always true.
    pub ok: True,
    /// The version of the key with this value.
    #[schema(value_type = Hex32)]
    pub version: String,
}

/// What is known of a key without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyInfo {
    /// The key.
    pub key: String,
    /// What the value is.
    pub content_type: String,
    /// BLAKE3 of the value.
    #[schema(value_type = Hex64)]
    pub content_hash: String,
    /// Bytes of the value.
    pub size: u64,
    /// When it was put, milliseconds since the Unix epoch.
    pub updated_at: u64,
    /// Changes with every change of the key; for `if_version`.
    #[schema(value_type = Hex32)]
    pub version: String,
    /// How many values were put at the same time besides.
    pub conflicts: usize,
}

/// Answer of `GET /stores/{id}/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeysResponse {
    /// Always true.
    pub ok: True,
    /// The keys, in byte order.
    pub keys: Vec<KeyInfo>,
    /// Present when there are more: the `cursor` of the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One of the values that were put at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredValue {
    /// The value; absent when a file holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Base64>,
    /// The file that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileReference>,
    /// What it is.
    pub content_type: String,
    /// BLAKE3 of the value.
    #[schema(value_type = Hex64)]
    pub content_hash: String,
    /// More about it.
    pub metadata: BTreeMap<String, String>,
    /// When the key was first put, milliseconds since the Unix epoch, as far as its author knew.
    pub created_at: u64,
    /// When this value was put.
    pub updated_at: u64,
    /// By whom.
    #[schema(value_type = Hex64)]
    pub author: AgentId,
    /// When it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// Answer of `GET /stores/{id}/{key}`: the value that all daemons choose, the latest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ValueResponse {
    /// Always true.
    pub ok: True,
    /// The key.
    pub key: String,
    /// The value and what is known of it.
    #[serde(flatten)]
    pub value: StoredValue,
    /// Changes with every change of the key; for `if_version`.
    #[schema(value_type = Hex32)]
    pub version: String,
    /// Other values that were put at the same time. Whoever puts one that saw all settles it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<StoredValue>,
}

//! Operations on a key-value store, and their encoding: `KvOp` in `docs/protocol/objects.proto`.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use x0x_core::{DecodeError, WallTime, decode_bounded, fixed_bytes};

use crate::MAX_OP;

/// Longest key in bytes.
pub const MAX_KEY: usize = 512;
/// Largest value in bytes. Larger ones are files, which a value refers to.
pub const MAX_VALUE: usize = 64 * 1024;

/// What is beside a value at most; an operation holds both.
const MAX_BESIDE: usize = MAX_KEY + MAX_CONTENT_TYPE + MAX_METADATA_BYTES + MAX_METADATA * 10 + 64;
const _: () = assert!(MAX_VALUE + MAX_BESIDE <= MAX_OP);

/// Longest content type in bytes.
pub const MAX_CONTENT_TYPE: usize = 128;
/// Most names in a value's metadata.
pub const MAX_METADATA: usize = 16;
/// Most bytes of a value's metadata, names and texts together.
pub const MAX_METADATA_BYTES: usize = 1024;
/// Longest name of a file in bytes.
pub const MAX_FILE_NAME: usize = 255;
/// The shortest time to live.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest time to live.
pub const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 3600);
/// What a value is that is not said to be anything.
pub const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// A file that holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReference {
    /// BLAKE3 of its content.
    pub hash: [u8; 32],
    /// Bytes.
    pub size: u64,
    /// Its name, no path.
    pub name: String,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// Here.
    Inline(Bytes),
    /// In a file.
    File(FileReference),
}

impl Content {
    /// BLAKE3 of the value.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        match self {
            Self::Inline(value) => *blake3::hash(value).as_bytes(),
            Self::File(file) => file.hash,
        }
    }

    /// Bytes of the value.
    #[must_use]
    pub const fn size(&self) -> u64 {
        match self {
            Self::Inline(value) => value.len() as u64,
            Self::File(file) => file.size,
        }
    }
}

/// What is put under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: String,
    /// The value.
    pub content: Content,
    /// What it is; [`DEFAULT_CONTENT_TYPE`] when empty.
    pub content_type: String,
    /// More about it.
    pub metadata: BTreeMap<String, String>,
    /// How long it lasts from the operation's time on.
    pub ttl: Option<Duration>,
    /// When the key was first put, as far as the author knows; none when it is new.
    pub created: Option<WallTime>,
}

impl Put {
    /// A value under a key, for good.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            content: Content::Inline(value.into()),
            content_type: String::new(),
            metadata: BTreeMap::new(),
            ttl: None,
            created: None,
        }
    }
}

/// One change of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvOp {
    /// A value takes the place of those that its author had seen under its key.
    Put(Put),
    /// The values that the author had seen under a key are gone.
    Delete(String),
}

/// The protobuf messages as they are encoded.
mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct KvOp {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(oneof = "Change", tags = "2, 3, 4")]
        pub(super) change: Option<Change>,
        #[prost(string, tag = "5")]
        pub(super) content_type: String,
        #[prost(message, repeated, tag = "6")]
        pub(super) metadata: Vec<Pair>,
        #[prost(uint64, tag = "7")]
        pub(super) ttl_ms: u64,
        #[prost(uint64, tag = "8")]
        pub(super) created_ms: u64,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Change {
        #[prost(bytes = "bytes", tag = "2")]
        Value(Bytes),
        #[prost(message, tag = "3")]
        File(File),
        #[prost(message, tag = "4")]
        Delete(Delete),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Pair {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) text: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct File {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) hash: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub(super) size: u64,
        #[prost(string, tag = "3")]
        pub(super) name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Delete {}
}

/// What is wrong with what somebody wants to put, if anything.
pub(super) fn flaw(put: &Put) -> Option<&'static str> {
    let metadata: usize = put.metadata.iter().map(|(name, text)| name.len() + text.len()).sum();
    let bare = |text: &str| text.chars().any(char::is_control);
    if !is_key(&put.key) {
        return Some("a key has 1 to 512 bytes without control characters");
    }
    if put.content_type.len() > MAX_CONTENT_TYPE || bare(&put.content_type) {
        return Some("a content type has at most 128 bytes without control characters");
    }
    if put.metadata.len() > MAX_METADATA || metadata > MAX_METADATA_BYTES {
        return Some("metadata has at most 16 names and 1024 bytes");
    }
    if put.ttl.is_some_and(|ttl| !(MIN_TTL..=MAX_TTL).contains(&ttl)) {
        return Some("a time to live is a second to 366 days");
    }
    match &put.content {
        Content::Inline(value) if value.len() > MAX_VALUE => Some("value too large"),
        Content::File(file) if !is_file_name(&file.name) => {
            Some("a file's name has 1 to 255 bytes without `/` and control characters")
        }
        _ => None,
    }
}

/// Whether a text may be a key.
pub(super) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY && !key.chars().any(char::is_control)
}

fn is_file_name(name: &str) -> bool {
    let named = !name.is_empty() && name.len() <= MAX_FILE_NAME;
    named && !name.chars().any(|letter| letter == '/' || letter.is_control())
}

impl KvOp {
    pub(super) fn encode(&self) -> Vec<u8> {
        use proto::Change;
        let wire = match self {
            Self::Put(put) => proto::KvOp {
                key: put.key.clone(),
                change: Some(match &put.content {
                    Content::Inline(value) => Change::Value(value.clone()),
                    Content::File(FileReference { hash, size, name }) => {
                        let (hash, size, name) = (hash.to_vec(), *size, name.clone());
                        Change::File(proto::File { hash, size, name })
                    }
                }),
                content_type: put.content_type.clone(),
                metadata: put
                    .metadata
                    .iter()
                    .map(|(name, text)| proto::Pair { name: name.clone(), text: text.clone() })
                    .collect(),
                ttl_ms: put.ttl.map_or(0, |ttl| ttl.as_millis() as u64),
                created_ms: put.created.map_or(0, WallTime::as_millis),
            },
            Self::Delete(key) => proto::KvOp {
                key: key.clone(),
                change: Some(Change::Delete(proto::Delete {})),
                ..proto::KvOp::default()
            },
        };
        wire.encode_to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        use proto::Change;
        let wire: proto::KvOp = decode_bounded(bytes, MAX_OP)?;
        let content = match wire.change.ok_or(DecodeError::Field("change"))? {
            Change::Delete(_) if is_key(&wire.key) => return Ok(Self::Delete(wire.key)),
            Change::Delete(_) => return Err(DecodeError::Field("key")),
            Change::Value(value) => Content::Inline(value),
            Change::File(proto::File { hash, size, name }) => {
                Content::File(FileReference { hash: fixed_bytes(&hash, "hash")?, size, name })
            }
        };
        if wire.metadata.len() > MAX_METADATA {
            return Err(DecodeError::Field("metadata"));
        }
        let put = Put {
            key: wire.key,
            content,
            content_type: wire.content_type,
            metadata: wire.metadata.into_iter().map(|pair| (pair.name, pair.text)).collect(),
            ttl: (wire.ttl_ms > 0).then(|| Duration::from_millis(wire.ttl_ms)),
            created: (wire.created_ms > 0).then(|| WallTime::from_millis(wire.created_ms)),
        };
        match flaw(&put) {
            Some(flaw) => Err(DecodeError::Field(flaw)),
            None => Ok(Self::Put(put)),
        }
    }
}

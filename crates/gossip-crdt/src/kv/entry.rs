//! What a store keeps under a key.

use std::collections::BTreeMap;

use bytes::Bytes;
use x0x_core::{AgentId, DecodeError, WallTime};

use super::op::{
    Content, DEFAULT_CONTENT_TYPE, FileReference, MAX_CONTENT_TYPE, MAX_FILE_NAME, MAX_METADATA,
    MAX_METADATA_BYTES, MAX_VALUE, Put,
};
use crate::{Decoder, Encoder, OpContext, Stamp};

/// Key of the hash that names the version of a key, so that it collides with no other use of BLAKE3.
const VERSION_KEY: [u8; 32] = *b"x0x/crdt/kv-version/1\0\0\0\0\0\0\0\0\0\0\0";

/// Bytes that a version takes beside its content.
const OVERHEAD: usize = 160;

/// Names what a key holds: it is another one after every change.
pub type VersionTag = [u8; 16];

/// A value as it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub(super) stamp: Stamp,
    pub(super) author: AgentId,
    pub(super) content: Content,
    pub(super) content_type: String,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) expires: Option<WallTime>,
    pub(super) created: WallTime,
    /// Put under a policy in which values stay: nothing takes its place.
    pub(super) kept: bool,
}

impl Version {
    pub(super) fn new(cx: &OpContext<'_>, put: Put, kept: bool) -> Self {
        Self {
            stamp: cx.stamp(),
            author: cx.author(),
            content: put.content,
            content_type: put.content_type,
            metadata: put.metadata,
            expires: put.ttl.map(|ttl| cx.time() + ttl),
            created: put.created.map_or(cx.time(), |created| created.min(cx.time())),
            kept,
        }
    }

    /// Who put it.
    #[must_use]
    pub const fn author(&self) -> AgentId {
        self.author
    }

    /// The value.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// What it is.
    #[must_use]
    pub fn content_type(&self) -> &str {
        if self.content_type.is_empty() { DEFAULT_CONTENT_TYPE } else { &self.content_type }
    }

    /// More about it.
    #[must_use]
    pub const fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// When it was put.
    #[must_use]
    pub const fn updated(&self) -> WallTime {
        WallTime::from_millis(self.stamp.millis)
    }

    /// When its key was first put, as far as its author knew.
    #[must_use]
    pub const fn created(&self) -> WallTime {
        self.created
    }

    /// When it is gone.
    #[must_use]
    pub const fn expires(&self) -> Option<WallTime> {
        self.expires
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now: WallTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Bytes of content, nearly.
    pub(super) fn size(&self) -> usize {
        let content = match &self.content {
            Content::Inline(value) => value.len(),
            Content::File(file) => file.name.len() + 40,
        };
        let metadata: usize =
            self.metadata.iter().map(|(name, text)| name.len() + text.len()).sum();
        OVERHEAD + content + self.content_type.len() + metadata
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        encoder.stamp(self.stamp);
        encoder.agent(&self.author);
        match &self.content {
            Content::Inline(value) => {
                encoder.flag(false);
                encoder.bytes(value);
            }
            Content::File(file) => {
                encoder.flag(true);
                encoder.raw(&file.hash);
                encoder.number(file.size);
                encoder.text(&file.name);
            }
        }
        encoder.text(&self.content_type);
        encoder.count(self.metadata.len());
        for (name, text) in &self.metadata {
            encoder.text(name);
            encoder.text(text);
        }
        encoder.number(self.expires.map_or(0, WallTime::as_millis));
        encoder.number(self.created.as_millis());
        encoder.flag(self.kept);
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (stamp, author) = (decoder.stamp()?, decoder.agent()?);
        let content = if decoder.flag()? {
            let hash = decoder.raw(32)?.try_into().map_err(|_| DecodeError::Malformed)?;
            let (size, name) = (decoder.number()?, decoder.text(MAX_FILE_NAME)?.to_owned());
            Content::File(FileReference { hash, size, name })
        } else {
            Content::Inline(Bytes::copy_from_slice(decoder.bytes(MAX_VALUE)?))
        };
        let content_type = decoder.text(MAX_CONTENT_TYPE)?.to_owned();
        let mut metadata = BTreeMap::new();
        for _ in 0..decoder.count(2)?.min(MAX_METADATA + 1) {
            let name = decoder.text(MAX_METADATA_BYTES)?.to_owned();
            let last = metadata.last_key_value();
            if metadata.len() >= MAX_METADATA || last.is_some_and(|(last, _)| *last >= name) {
                return Err(DecodeError::Field("metadata"));
            }
            metadata.insert(name, decoder.text(MAX_METADATA_BYTES)?.to_owned());
        }
        let expires = decoder.number()?;
        Ok(Self {
            stamp,
            author,
            content,
            content_type,
            metadata,
            expires: (expires > 0).then(|| WallTime::from_millis(expires)),
            created: WallTime::from_millis(decoder.number()?),
            kept: decoder.flag()?,
        })
    }
}

/// The values under a key that saw nothing of each other, by stamp. Never empty in a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) versions: Vec<Version>,
}

impl Entry {
    /// Removes what the author of an operation had seen, and gives what that was.
    pub(super) fn supersede(&mut self, cx: &OpContext<'_>) -> Vec<Version> {
        let gone = |version: &mut Version| !version.kept && cx.sees(version.stamp.dot);
        self.versions.extract_if(.., gone).collect()
    }

    /// Whether the author of an operation had seen a value that stays.
    pub(super) fn is_kept(&self, cx: &OpContext<'_>) -> bool {
        self.versions.iter().any(|version| version.kept && cx.sees(version.stamp.dot))
    }

    pub(super) fn insert(&mut self, version: Version) {
        let place = self.versions.partition_point(|known| known.stamp < version.stamp);
        self.versions.insert(place, version);
    }
}

/// A key as it is read at one time.
#[derive(Debug, Clone)]
pub struct KeyView<'a> {
    pub(super) key: &'a str,
    /// What has not expired, the value that counts first.
    pub(super) versions: Vec<&'a Version>,
}

impl<'a> KeyView<'a> {
    /// The view, unless there is nothing.
    pub(super) fn new(key: &'a str, entry: &'a Entry, now: WallTime) -> Option<Self> {
        let live = entry.versions.iter().filter(|version| !version.is_expired(now));
        let mut versions: Vec<_> = live.collect();
        // Of values that stay, the first counts: it is what it was when it was alone.
        if !versions.first()?.kept {
            versions.reverse();
        }
        Some(Self { key, versions })
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &'a str {
        self.key
    }

    /// The value that counts on every replica: the latest, and of those that stay the first.
    #[must_use]
    pub fn value(&self) -> &'a Version {
        self.versions[0]
    }

    /// Values that were put at the same time.
    #[must_use]
    pub fn conflicts(&self) -> &[&'a Version] {
        &self.versions[1..]
    }

    /// Names what the key holds, the same on every replica.
    #[must_use]
    pub fn tag(&self) -> VersionTag {
        let mut hasher = blake3::Hasher::new_keyed(&VERSION_KEY);
        for version in &self.versions {
            hasher.update(version.stamp.dot.actor.as_bytes());
            hasher.update(&version.stamp.dot.seq.to_be_bytes());
        }
        let mut tag = VersionTag::default();
        tag.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        tag
    }
}

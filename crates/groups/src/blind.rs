//! What a group's log looks like to who is not in it: a topic whose name says nothing, and sealed items.
//!
//! Both follow from the nonce of the operation that founds the group, which nobody outside a group that is
//! encrypted has. They hide that a group is there and which, not what is said in it: that is MLS'. Who
//! was a member once still finds the topic.

use bytes::Bytes;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use x0x_core::DecodeError;

use crate::{
    error::SessionError,
    state::View,
    wire::{GroupId, LogItem, MAX_LOG_ITEM, hash},
};

const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
/// Topic of the cards of all groups that have one.
pub const CARDS_TOPIC: &str = "x0x.groups.cards.1";

/// The log of a group.
#[derive(Clone)]
pub struct Log {
    group: GroupId,
    /// None in a group that anybody may read.
    secret: Option<[u8; 32]>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("sealed", &self.secret.is_some()).finish_non_exhaustive()
    }
}

impl Log {
    /// The log of a group; none of what founds nothing.
    ///
    /// Whether it is sealed follows from how the group was founded, so that it does not move when the
    /// policy changes.
    #[must_use]
    pub fn of(founded: &View) -> Option<Self> {
        let (_, _, nonce) = founded.founded?;
        let group = founded.group?;
        let sealed = founded.policy?.is_encrypted();
        let secret = sealed.then(|| hash("x0x.groups.log.1", &[group.as_bytes(), &nonce]));
        Some(Self { group, secret })
    }

    /// The name of its topic.
    #[must_use]
    pub fn topic(&self) -> String {
        match &self.secret {
            None => format!("x0x.groups.public.{}", self.group),
            Some(secret) => {
                let name = hash("x0x.groups.topic.1", &[secret]);
                format!("x0x.log.{}", data_encoding::HEXLOWER.encode(&name))
            }
        }
    }

    /// The name of the topic of a room's talk, for those that do not use the log.
    #[must_use]
    pub fn room_topic(&self, room: &str) -> String {
        match &self.secret {
            None => format!("x0x.groups.public.{}/{room}", self.group),
            Some(secret) => {
                let name = hash("x0x.groups.room-topic.1", &[secret, room.as_bytes()]);
                format!("x0x.log.{}", data_encoding::HEXLOWER.encode(&name))
            }
        }
    }

    /// An item as it is published.
    #[must_use]
    pub fn seal(&self, item: &LogItem) -> Option<Bytes> {
        let item = item.encode();
        let Some(secret) = &self.secret else { return Some(item) };
        let key = hash("x0x.groups.log.key.1", &[secret]);
        // An item has one sealed form; two that differ have two nonces.
        let nonce = hash("x0x.groups.log.nonce.1", &[&key, &item]);
        let nonce: [u8; NONCE_LEN] = nonce[..NONCE_LEN].try_into().ok()?;
        let payload = Payload { msg: &item, aad: b"x0x.groups.log.1" };
        let sealed = XChaCha20Poly1305::new(&key.into()).encrypt(&XNonce::from(nonce), payload);
        Some([&nonce[..], &sealed.ok()?].concat().into())
    }

    /// Reads an item as it was published.
    ///
    /// # Errors
    /// [`SessionError::Sealed`], [`SessionError::Decode`].
    pub fn open(&self, bytes: &[u8]) -> Result<LogItem, SessionError> {
        if bytes.len() > MAX_LOG_ITEM + NONCE_LEN + TAG_LEN {
            let (len, max) = (bytes.len(), MAX_LOG_ITEM);
            return Err(DecodeError::TooLarge { len, max }.into());
        }
        let Some(secret) = &self.secret else { return Ok(LogItem::decode(bytes)?) };
        let key = hash("x0x.groups.log.key.1", &[secret]);
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(SessionError::Sealed)?;
        let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| SessionError::Sealed)?;
        let payload = Payload { msg: sealed, aad: b"x0x.groups.log.1" };
        let item = XChaCha20Poly1305::new(&key.into())
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SessionError::Sealed)?;
        Ok(LogItem::decode(&item)?)
    }
}

//! Invite links: what one hands another so that it may join.

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use prost::Message;
use x0x_core::{AgentId, DecodeError, WallTime, decode_bounded, fixed_bytes};
use x0x_identity::SecretKey;
use zeroize::Zeroizing;

use super::{GroupId, is_text};
use crate::limits::MAX_NAME;

/// What an invite link begins with.
pub const INVITE_PREFIX: &str = "x0x://invite/";
/// Agents that a link names to be asked.
pub const MAX_HELPERS: usize = 4;
/// Largest link in bytes.
pub const MAX_INVITE: usize = 1024;

#[derive(Clone, PartialEq, Message)]
pub(super) struct InviteLinkWire {
    #[prost(bytes = "bytes", tag = "1")]
    group: Bytes,
    #[prost(bytes = "vec", tag = "2")]
    seed: Vec<u8>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    helpers: Vec<Bytes>,
    #[prost(uint64, tag = "4")]
    expires_ms: u64,
    #[prost(string, tag = "5")]
    group_name: String,
}

/// An invite as it is handed over. Holds a secret.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InviteLink {
    /// The group.
    pub group: GroupId,
    /// Members to be asked, who made it first.
    pub helpers: Vec<AgentId>,
    /// When it ends; none for never. Members judge by the group's state, not by this.
    pub expires: Option<WallTime>,
    /// What the group is called.
    pub group_name: String,
    seed: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for InviteLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InviteLink").field("group", &self.group).finish_non_exhaustive()
    }
}

impl InviteLink {
    /// A link of a random seed, of which the invite's key follows.
    #[must_use]
    pub fn new(
        group: GroupId,
        seed: [u8; 32],
        helpers: Vec<AgentId>,
        expires: Option<WallTime>,
        group_name: String,
    ) -> Self {
        let seed = Zeroizing::new(seed);
        Self { group, helpers, expires, group_name, seed }
    }

    /// The invite's key: who holds it may redeem.
    #[must_use]
    pub fn key(&self) -> SecretKey {
        SecretKey::from_seed(*self.seed)
    }

    /// The text that is handed over.
    #[must_use]
    pub fn to_text(&self) -> String {
        let id = |agent: &AgentId| Bytes::copy_from_slice(agent.as_bytes());
        let wire = InviteLinkWire {
            group: Bytes::copy_from_slice(self.group.as_bytes()),
            seed: self.seed.to_vec(),
            helpers: self.helpers.iter().take(MAX_HELPERS).map(id).collect(),
            expires_ms: self.expires.map_or(0, WallTime::as_millis),
            group_name: self.group_name.clone(),
        };
        let bytes = Zeroizing::new(wire.encode_to_vec());
        format!("{INVITE_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// Reads the text.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let text = text.trim();
        if text.len() > MAX_INVITE {
            return Err(DecodeError::TooLarge { len: text.len(), max: MAX_INVITE });
        }
        let text = text.strip_prefix(INVITE_PREFIX).ok_or(DecodeError::Malformed)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| DecodeError::Malformed)?;
        let wire: InviteLinkWire = decode_bounded(bytes.as_slice(), MAX_INVITE)?;
        let seed = Zeroizing::new(wire.seed);
        if wire.helpers.is_empty() || wire.helpers.len() > MAX_HELPERS {
            return Err(DecodeError::Field("helpers"));
        }
        if !is_text(&wire.group_name, MAX_NAME) {
            return Err(DecodeError::Field("group_name"));
        }
        let helpers: Result<Vec<AgentId>, DecodeError> =
            wire.helpers.iter().map(|id| fixed_bytes(id, "helpers").map(AgentId::new)).collect();
        Ok(Self {
            group: GroupId::new(fixed_bytes(&wire.group, "group")?),
            helpers: helpers?,
            expires: (wire.expires_ms != 0).then(|| WallTime::from_millis(wire.expires_ms)),
            group_name: wire.group_name,
            seed: Zeroizing::new(fixed_bytes(&seed, "seed")?),
        })
    }
}

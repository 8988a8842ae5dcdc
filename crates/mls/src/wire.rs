//! What travels: frames of a group's log, and welcomes.
//!
//! A frame says in which state of the group it was made, so that a receiver knows at once which
//! secrets it needs, and which of two epochs of the same number is meant after a fork.

use bytes::Bytes;
use prost::Message;
use x0x_core::{DecodeError, decode_bounded, fixed_bytes};

use crate::ordering::{RANK_LAST, StateId};

/// Bytes of a group's id.
pub const GROUP_ID_LEN: usize = 32;
/// Largest frame in bytes. A path commit in a group of a thousand members where nobody has committed
/// yet takes 1.2 MB.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;
/// Largest application payload in bytes.
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// Largest additional authenticated data in bytes.
pub const MAX_AAD: usize = 4 * 1024;
/// Largest welcome, and largest ratchet tree, in bytes.
pub const MAX_WELCOME: usize = 64 * 1024 * 1024;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameKind {
    /// An MLS PrivateMessage with application data.
    Application,
    /// A sealed MLS PublicMessage: a member's commit.
    Commit,
    /// An MLS PublicMessage as it is: a commit by which somebody joins.
    External,
    /// A sealed MLS PublicMessage: a member asks to be removed.
    Leave,
}

impl FrameKind {
    const fn code(self) -> u32 {
        match self {
            Self::Application => 1,
            Self::Commit => 2,
            Self::External => 3,
            Self::Leave => 4,
        }
    }

    const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Application),
            2 => Some(Self::Commit),
            3 => Some(Self::External),
            4 => Some(Self::Leave),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FrameWire {
    #[prost(uint32, tag = "1")]
    pub(crate) kind: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) group: Bytes,
    #[prost(uint64, tag = "3")]
    pub(crate) epoch: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) state: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) child: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) body: Bytes,
    #[prost(uint32, tag = "7")]
    pub(crate) rank: u32,
}

/// A frame: well-formed, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameIn {
    /// What it carries.
    pub kind: FrameKind,
    /// The group.
    pub group: GroupId,
    /// The epoch it was made in.
    pub epoch: u64,
    /// The state it was made in.
    pub state: StateId,
    /// The state that a commit says to lead to; zeros otherwise.
    pub child: StateId,
    /// The rank that a commit claims among those of its state, at most
    /// [`RANK_LAST`](crate::ordering::RANK_LAST); 0 otherwise.
    pub rank: u32,
    /// The message, sealed or not according to its kind.
    pub body: Bytes,
}

/// The id of a group: random, made with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub [u8; GROUP_ID_LEN]);

impl std::fmt::Debug for GroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupId({self})")
    }
}

impl std::fmt::Display for GroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FrameIn {
    /// Reads a frame. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_FRAME {
            return Err(DecodeError::TooLarge { len: bytes.len(), max: MAX_FRAME });
        }
        let wire: FrameWire = decode_bounded(Bytes::copy_from_slice(bytes), MAX_FRAME)?;
        let kind = FrameKind::from_code(wire.kind).ok_or(DecodeError::Field("kind"))?;
        let commit = matches!(kind, FrameKind::Commit | FrameKind::External);
        let child = if commit { fixed_bytes(&wire.child, "child")? } else { [0; 32] };
        if wire.rank > if commit { RANK_LAST } else { 0 } {
            return Err(DecodeError::Field("rank"));
        }
        Ok(Self {
            kind,
            group: GroupId(fixed_bytes(&wire.group, "group")?),
            epoch: wire.epoch,
            state: fixed_bytes(&wire.state, "state")?,
            child,
            rank: wire.rank,
            body: wire.body,
        })
    }

    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let commit = matches!(self.kind, FrameKind::Commit | FrameKind::External);
        let wire = FrameWire {
            kind: self.kind.code(),
            group: Bytes::copy_from_slice(&self.group.0),
            epoch: self.epoch,
            state: Bytes::copy_from_slice(&self.state),
            child: if commit { Bytes::copy_from_slice(&self.child) } else { Bytes::new() },
            body: self.body.clone(),
            rank: if commit { self.rank } else { 0 },
        };
        wire.encode_to_vec().into()
    }
}

/// A welcome or a group info, with what MLS itself does not carry.
#[derive(Clone, PartialEq, Message)]
pub struct EntryWire {
    /// The MLS message.
    #[prost(bytes = "bytes", tag = "1")]
    pub message: Bytes,
    /// SHA-256 of the ratchet tree that has to be fetched besides, in a group too large to carry it.
    #[prost(bytes = "bytes", tag = "2")]
    pub tree_hash: Bytes,
    /// The commit that led to this state; empty when it was made, not committed to.
    #[prost(bytes = "bytes", tag = "3")]
    pub commit: Bytes,
}

impl EntryWire {
    /// Reads one. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_WELCOME {
            return Err(DecodeError::TooLarge { len: bytes.len(), max: MAX_WELCOME });
        }
        let entry: Self = decode_bounded(Bytes::copy_from_slice(bytes), MAX_WELCOME)?;
        for (field, name) in [(&entry.tree_hash, "tree_hash"), (&entry.commit, "commit")] {
            if !field.is_empty() {
                fixed_bytes::<32>(field, name)?;
            }
        }
        Ok(entry)
    }
}

//! Frames of `/x0x/letters/1` and their limits; `docs/protocol/letters.md` describes the exchange.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use x0x_core::{AgentId, DecodeError, MachineId, WallTime, bytes32, decode_bounded, fixed_bytes};
use x0x_identity::{KemPublic, MailboxSecret, Pickup, Tag, mailbox_period};

use super::letter::MAX_SEALED;

/// Largest frame in bytes.
pub const MAX_FRAME: usize = MAX_SEALED + 256;
/// Most mailboxes that are asked for in one frame.
pub const MAX_ASKED: usize = 512;
/// Most letters that one answer lists; the rest is listed to who asks again.
pub const MAX_LISTED: usize = 512;
/// Most letters that one frame deletes.
pub const MAX_DELETED: usize = 256;
/// Largest frame that carries no letter.
const MAX_SMALL: usize = 64 * 1024;

mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Frame {
        #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
        pub(super) kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "1")]
        Grant(Grant),
        #[prost(message, tag = "2")]
        Deposit(Deposit),
        #[prost(message, tag = "3")]
        Deposited(Deposited),
        #[prost(message, tag = "4")]
        Ask(Ask),
        #[prost(message, tag = "5")]
        Listing(Listing),
        #[prost(message, tag = "6")]
        Fetch(Fetch),
        #[prost(message, tag = "7")]
        Fetched(Fetched),
        #[prost(message, tag = "8")]
        Delete(Delete),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Grant {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) owner: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) correspondent: Bytes,
        #[prost(uint64, tag = "3")]
        pub(super) period: u64,
        #[prost(bytes = "bytes", tag = "4")]
        pub(super) kem_key: Bytes,
        #[prost(bytes = "bytes", tag = "5")]
        pub(super) secret: Bytes,
        #[prost(bytes = "bytes", optional, tag = "6")]
        pub(super) places: Option<Bytes>,
        #[prost(bytes = "bytes", tag = "7")]
        pub(super) machine: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Deposit {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) tag: Bytes,
        #[prost(uint64, tag = "2")]
        pub(super) expires_at_ms: u64,
        #[prost(bytes = "bytes", tag = "3")]
        pub(super) sealed: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Deposited {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) digest: Bytes,
        #[prost(enumeration = "Outcome", tag = "2")]
        pub(super) outcome: i32,
        #[prost(uint64, tag = "3")]
        pub(super) until_ms: u64,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum Outcome {
        Refused = 0,
        Kept = 1,
        Full = 2,
        TagFull = 3,
        ShareUsed = 4,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Ask {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        pub(super) pickups: Vec<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Listing {
        #[prost(message, repeated, tag = "1")]
        pub(super) letters: Vec<Listed>,
        #[prost(bool, tag = "2")]
        pub(super) more: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Listed {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) tag: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) digest: Bytes,
        #[prost(uint32, tag = "3")]
        pub(super) bytes: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Fetch {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) pickup: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) digest: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Fetched {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) digest: Bytes,
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub(super) sealed: Option<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Delete {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) pickup: Bytes,
        #[prost(bytes = "bytes", repeated, tag = "2")]
        pub(super) digests: Vec<Bytes>,
    }
}

use proto::Kind;

bytes32! {
    /// BLAKE3 of a sealed letter: its name at every holder.
    Digest
}

impl Digest {
    /// That of a sealed letter.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        Self(*blake3::hash(sealed).as_bytes())
    }
}

/// What an agent gives a correspondent, so that it may leave letters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "both ends make them")]
pub struct Grant {
    /// Whose mailbox it is.
    pub owner: AgentId,
    /// Who may leave letters.
    pub correspondent: AgentId,
    /// On which machine: it was proven in the session in which this was given.
    pub machine: MachineId,
    /// Of which period the secrets are.
    pub period: u64,
    /// The key to seal letters to.
    pub kem: KemPublic,
    /// From which tags are computed.
    pub secret: MailboxSecret,
    /// By what machines are ranked as places for letters. Only contacts of the owner are told: who knows
    /// it can choose machine ids that rank high.
    pub places: Option<[u8; 32]>,
}

impl Grant {
    /// The wire form, which stores keep, too.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.to_proto().encode_to_vec().into()
    }

    /// Reads a grant that was kept.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed or a field is out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(GrantIn::try_from(decode_bounded::<proto::Grant>(bytes, MAX_SMALL)?)?.0)
    }

    fn to_proto(&self) -> proto::Grant {
        proto::Grant {
            owner: Bytes::copy_from_slice(self.owner.as_bytes()),
            correspondent: Bytes::copy_from_slice(self.correspondent.as_bytes()),
            period: self.period,
            kem_key: Bytes::copy_from_slice(self.kem.as_bytes()),
            secret: Bytes::copy_from_slice(self.secret.as_bytes()),
            places: self.places.map(|places| Bytes::copy_from_slice(&places)),
            machine: Bytes::copy_from_slice(self.machine.as_bytes()),
        }
    }
}

/// A grant as the peer sent it: well formed, but nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantIn(pub(super) Grant);

impl GrantIn {
    /// Checks that its owner is one of the agents that the session proved, that it is for the local agent
    /// on this machine, and that it is of these days. `None` when it is not.
    #[must_use]
    pub fn verify(
        self,
        proven: &[AgentId],
        (local, machine): (AgentId, MachineId),
        now: WallTime,
    ) -> Option<Grant> {
        let Self(grant) = self;
        let timely = grant.period.abs_diff(mailbox_period(now)) <= 1;
        let meant = (grant.correspondent, grant.machine) == (local, machine);
        let meant = meant && grant.owner != local;
        (timely && meant && proven.contains(&grant.owner)).then_some(grant)
    }
}

impl TryFrom<proto::Grant> for GrantIn {
    type Error = DecodeError;

    fn try_from(grant: proto::Grant) -> Result<Self, DecodeError> {
        let kem = KemPublic::from_bytes(&grant.kem_key);
        Ok(Self(Grant {
            owner: AgentId::new(fixed_bytes(&grant.owner, "owner")?),
            correspondent: AgentId::new(fixed_bytes(&grant.correspondent, "correspondent")?),
            period: grant.period,
            kem: kem.map_err(|_| DecodeError::Field("kem_key"))?,
            secret: MailboxSecret::new(fixed_bytes(&grant.secret, "secret")?),
            places: grant.places.map(|places| fixed_bytes(&places, "places")).transpose()?,
            machine: MachineId::new(fixed_bytes(&grant.machine, "machine")?),
        }))
    }
}

/// What became of a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is stored.
    Kept,
    /// No room for anybody now.
    Full,
    /// The mailbox has its share here; others may have room.
    TagFull,
    /// The depositor has left its share of the day here, for whichever mailbox.
    ShareUsed,
    /// It is not taken, for whatever reason.
    Refused,
}

/// One letter that a holder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "both ends make them")]
pub struct Listed {
    /// Under which tag.
    pub tag: Tag,
    /// Its name.
    pub digest: Digest,
    /// Bytes of the sealed letter.
    pub bytes: u32,
}

/// What nodes say to each other. What is received is believed by nobody: letters are checked by their
/// digests and signatures, grants by [`GrantIn::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// You may leave letters for this agent of mine.
    Grant(GrantIn),
    /// Please keep this letter.
    Deposit {
        /// Under this tag.
        tag: Tag,
        /// Until then.
        expires_at: WallTime,
        /// The letter, at most [`MAX_SEALED`] bytes.
        sealed: Bytes,
    },
    /// What became of that.
    Deposited {
        /// Of which letter.
        digest: Digest,
        /// What.
        outcome: Outcome,
        /// Until when it is kept, if it is.
        until: WallTime,
    },
    /// Which letters do you have in these mailboxes?
    Ask(Vec<Pickup>),
    /// These.
    Listing {
        /// The letters, at most [`MAX_LISTED`].
        letters: Vec<Listed>,
        /// There are more.
        more: bool,
    },
    /// Give me this letter.
    Fetch {
        /// Of which mailbox.
        pickup: Pickup,
        /// Which.
        digest: Digest,
    },
    /// Here it is.
    Fetched {
        /// Which.
        digest: Digest,
        /// None when it is not there.
        sealed: Option<Bytes>,
    },
    /// These letters are not needed any more.
    Delete {
        /// Of which mailbox.
        pickup: Pickup,
        /// Which, at most [`MAX_DELETED`].
        digests: Vec<Digest>,
    },
    /// A kind that this version does not know.
    Unknown,
}

impl Frame {
    /// The frame of a grant.
    #[must_use]
    pub const fn grant(grant: Grant) -> Self {
        Self::Grant(GrantIn(grant))
    }

    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let bytes = |id: &[u8; 32]| Bytes::copy_from_slice(id);
        let kind = match self {
            Self::Grant(GrantIn(grant)) => Some(Kind::Grant(grant.to_proto())),
            Self::Deposit { tag, expires_at, sealed } => Some(Kind::Deposit(proto::Deposit {
                tag: bytes(tag.as_bytes()),
                expires_at_ms: expires_at.as_millis(),
                sealed: sealed.clone(),
            })),
            Self::Deposited { digest, outcome, until } => Some(Kind::Deposited(proto::Deposited {
                digest: bytes(digest.as_bytes()),
                outcome: proto::Outcome::from(*outcome) as i32,
                until_ms: until.as_millis(),
            })),
            Self::Ask(pickups) => Some(Kind::Ask(proto::Ask {
                pickups: pickups.iter().map(|pickup| bytes(pickup.as_bytes())).collect(),
            })),
            Self::Listing { letters, more } => {
                let listed = |letter: &Listed| proto::Listed {
                    tag: bytes(letter.tag.as_bytes()),
                    digest: bytes(letter.digest.as_bytes()),
                    bytes: letter.bytes,
                };
                let letters = letters.iter().map(listed).collect();
                Some(Kind::Listing(proto::Listing { letters, more: *more }))
            }
            Self::Fetch { pickup, digest } => Some(Kind::Fetch(proto::Fetch {
                pickup: bytes(pickup.as_bytes()),
                digest: bytes(digest.as_bytes()),
            })),
            Self::Fetched { digest, sealed } => Some(Kind::Fetched(proto::Fetched {
                digest: bytes(digest.as_bytes()),
                sealed: sealed.clone(),
            })),
            Self::Delete { pickup, digests } => Some(Kind::Delete(proto::Delete {
                pickup: bytes(pickup.as_bytes()),
                digests: digests.iter().map(|digest| bytes(digest.as_bytes())).collect(),
            })),
            Self::Unknown => None,
        };
        proto::Frame { kind }.encode_to_vec().into()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let max = if carries_letter(bytes) { MAX_FRAME } else { MAX_SMALL };
        let frame: proto::Frame = decode_bounded(bytes.clone(), max)?;
        Ok(match frame.kind {
            None => Self::Unknown,
            Some(Kind::Grant(grant)) => Self::Grant(grant.try_into()?),
            Some(Kind::Deposit(deposit)) => Self::Deposit {
                tag: Tag::new(fixed_bytes(&deposit.tag, "tag")?),
                expires_at: WallTime::from_millis(deposit.expires_at_ms),
                sealed: letter(&deposit.sealed)?,
            },
            Some(Kind::Deposited(deposited)) => Self::Deposited {
                digest: digest(&deposited.digest)?,
                outcome: deposited.outcome().into(),
                until: WallTime::from_millis(deposited.until_ms),
            },
            Some(Kind::Ask(ask)) => {
                if ask.pickups.len() > MAX_ASKED {
                    return Err(DecodeError::Field("pickups"));
                }
                Self::Ask(ask.pickups.iter().map(pickup).collect::<Result<_, _>>()?)
            }
            Some(Kind::Listing(listing)) => listed(&listing)?,
            Some(Kind::Fetch(fetch)) => {
                Self::Fetch { pickup: pickup(&fetch.pickup)?, digest: digest(&fetch.digest)? }
            }
            Some(Kind::Fetched(fetched)) => Self::Fetched {
                digest: digest(&fetched.digest)?,
                sealed: fetched.sealed.as_ref().map(letter).transpose()?,
            },
            Some(Kind::Delete(delete)) => {
                if delete.digests.len() > MAX_DELETED {
                    return Err(DecodeError::Field("digests"));
                }
                let digests = delete.digests.iter().map(digest).collect::<Result<_, _>>()?;
                Self::Delete { pickup: pickup(&delete.pickup)?, digests }
            }
        })
    }
}

/// Whether a frame begins with what carries a letter, and has little beside it. It is looked at before
/// anything is decoded: nothing else may be large.
fn carries_letter(frame: &[u8]) -> bool {
    // The fields `deposit` and `fetched`, each with a length.
    let Some((0x12 | 0x3a, mut rest)) = frame.split_first() else { return false };
    let len = prost::decode_length_delimiter(&mut rest).ok();
    let beside = len.and_then(|len| rest.len().checked_sub(len));
    beside.is_some_and(|beside| beside <= MAX_SMALL)
}

/// A letter is kept for long: its frame, whose memory others may share, must not be.
fn letter(bytes: &Bytes) -> Result<Bytes, DecodeError> {
    if bytes.is_empty() || bytes.len() > MAX_SEALED {
        return Err(DecodeError::Field("sealed"));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

fn digest(bytes: &Bytes) -> Result<Digest, DecodeError> {
    Ok(Digest(fixed_bytes(bytes, "digest")?))
}

fn pickup(bytes: &Bytes) -> Result<Pickup, DecodeError> {
    Ok(Pickup::new(fixed_bytes(bytes, "pickup")?))
}

fn listed(listing: &proto::Listing) -> Result<Frame, DecodeError> {
    if listing.letters.len() > MAX_LISTED {
        return Err(DecodeError::Field("letters"));
    }
    let mut named = BTreeSet::new();
    let mut letters = Vec::with_capacity(listing.letters.len());
    for letter in &listing.letters {
        let digest = digest(&letter.digest)?;
        if letter.bytes as usize > MAX_SEALED || !named.insert(digest) {
            return Err(DecodeError::Field("letters"));
        }
        let tag = Tag::new(fixed_bytes(&letter.tag, "tag")?);
        letters.push(Listed { tag, digest, bytes: letter.bytes });
    }
    Ok(Frame::Listing { letters, more: listing.more })
}

impl From<Outcome> for proto::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Kept => Self::Kept,
            Outcome::Full => Self::Full,
            Outcome::TagFull => Self::TagFull,
            Outcome::ShareUsed => Self::ShareUsed,
            Outcome::Refused => Self::Refused,
        }
    }
}

impl From<proto::Outcome> for Outcome {
    fn from(outcome: proto::Outcome) -> Self {
        match outcome {
            proto::Outcome::Kept => Self::Kept,
            proto::Outcome::Full => Self::Full,
            proto::Outcome::TagFull => Self::TagFull,
            proto::Outcome::ShareUsed => Self::ShareUsed,
            proto::Outcome::Refused => Self::Refused,
        }
    }
}

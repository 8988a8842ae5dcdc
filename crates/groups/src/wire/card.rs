//! Cards: what those outside may know of a group. A hidden group has none.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, WallTime, decode_bounded, fixed_bytes};
use x0x_identity::{MAX_CLOCK_SKEW, SecretKey};

use super::{
    GroupId,
    action::{Action, Profile, policy_in, policy_out},
    body::{PolicyWire, ProfileWire},
    operation::{OpId, Operation, OperationIn},
    signed::SignedWire,
};
use crate::{
    error::SignedError,
    limits::CARD_VALIDITY,
    policy::{Discoverability, GroupPolicy, Role},
    state::Chain,
};

/// Domain of a card's signature.
pub const CARD_DOMAIN: &str = "x0x.groups.card.1";
/// Largest card in bytes.
pub const MAX_CARD: usize = MAX_CARD_BODY + super::signed::OVERHEAD;
const MAX_CARD_BODY: usize = 16 * 1024;

#[derive(Clone, PartialEq, Message)]
pub(super) struct CardWire {
    #[prost(bytes = "bytes", tag = "1")]
    group: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    authority: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    owner: Bytes,
    #[prost(message, optional, tag = "4")]
    policy: Option<PolicyWire>,
    #[prost(message, optional, tag = "5")]
    profile: Option<ProfileWire>,
    #[prost(uint32, tag = "6")]
    admins: u32,
    #[prost(uint32, tag = "7")]
    members: u32,
    #[prost(uint64, tag = "8")]
    created_ms: u64,
    #[prost(uint64, tag = "9")]
    updated_ms: u64,
    #[prost(uint64, tag = "10")]
    revision: u64,
    #[prost(bytes = "bytes", tag = "11")]
    state_hash: Bytes,
    #[prost(uint64, tag = "12")]
    issued_ms: u64,
    #[prost(uint64, tag = "13")]
    expires_ms: u64,
    #[prost(bool, tag = "14")]
    withdrawn: bool,
    #[prost(bytes = "bytes", tag = "15")]
    founded: Bytes,
    #[prost(bytes = "bytes", tag = "16")]
    appointment: Bytes,
}

/// What a card says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Card {
    /// The group.
    pub group: GroupId,
    /// Who says it: the owner or an admin.
    pub authority: AgentId,
    /// Who founded it.
    pub owner: AgentId,
    /// Its policy.
    pub policy: GroupPolicy,
    /// How it shows itself.
    pub profile: Profile,
    /// Its admins, the owner among them.
    pub admins: u32,
    /// Its members.
    pub members: u32,
    /// When it was founded.
    pub created: WallTime,
    /// When it changed last.
    pub updated: WallTime,
    /// Its operations that stand.
    pub revision: u64,
    /// The hash of its state.
    pub state_hash: [u8; 32],
    /// When the card was made.
    pub issued: WallTime,
    /// When it ends.
    pub expires: WallTime,
    /// Whether the group has ended.
    pub withdrawn: bool,
    /// The operation that founded it; with the owner it gives the group's id.
    pub founded: OpId,
    /// The owner's operation that made the authority an admin; empty when it is the owner.
    pub appointment: Bytes,
}

/// A card and its wire form.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedCard {
    /// What it says.
    pub card: Card,
    encoded: Bytes,
}

/// A received card: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct CardIn {
    card: Card,
    signed: SignedWire,
    encoded: Bytes,
}

impl Card {
    /// What may be said of a group now; none of a hidden one, and none by who is no admin.
    #[must_use]
    pub fn of(chain: &Chain, authority: AgentId, now: WallTime) -> Option<Self> {
        let view = chain.view();
        let policy = view.policy?;
        let (owner, created, _) = view.founded?;
        let by = view.role(&authority)?;
        if policy.discoverability == Discoverability::Hidden || by > Role::Admin {
            return None;
        }
        let appointment = if authority == owner {
            Bytes::new()
        } else {
            chain.appointment(&authority)?.encoded().clone()
        };
        let count = |last: Role| view.active().filter(|(_, role)| *role <= last).count();
        let count = |last| u32::try_from(count(last)).unwrap_or(u32::MAX);
        Some(Self {
            group: view.group?,
            authority,
            owner,
            policy,
            profile: view.profile.clone(),
            admins: count(Role::Admin),
            members: count(Role::Guest),
            created,
            updated: view.updated,
            revision: view.revision,
            state_hash: view.state_hash(),
            issued: now,
            expires: now + CARD_VALIDITY,
            withdrawn: view.withdrawn,
            founded: chain.genesis().id,
            appointment,
        })
    }

    /// That the owner made the authority an admin once.
    fn check_appointment(&self) -> Result<(), SignedError> {
        let Operation { body, .. } = OperationIn::decode(&self.appointment)?.verify()?;
        let appoints = matches!(body.action,
            Action::SetRole { agent, role: Role::Admin } if agent == self.authority);
        if appoints && body.author == self.owner && body.group == Some(self.group) {
            return Ok(());
        }
        Err(SignedError::Content("the card's authority is no admin"))
    }

    /// Signs it.
    #[must_use]
    pub fn sign(self, key: &SecretKey) -> SignedCard {
        let id = |agent: &AgentId| Bytes::copy_from_slice(agent.as_bytes());
        let body = CardWire {
            group: Bytes::copy_from_slice(self.group.as_bytes()),
            authority: id(&self.authority),
            owner: id(&self.owner),
            policy: Some(policy_out(&self.policy)),
            profile: Some(self.profile.to_wire()),
            admins: self.admins,
            members: self.members,
            created_ms: self.created.as_millis(),
            updated_ms: self.updated.as_millis(),
            revision: self.revision,
            state_hash: Bytes::copy_from_slice(&self.state_hash),
            issued_ms: self.issued.as_millis(),
            expires_ms: self.expires.as_millis(),
            withdrawn: self.withdrawn,
            founded: Bytes::copy_from_slice(self.founded.as_bytes()),
            appointment: self.appointment.clone(),
        };
        let signed = SignedWire::sign(key, CARD_DOMAIN, body.encode_to_vec());
        SignedCard { card: self, encoded: signed.encode_to_vec().into() }
    }
}

impl SignedCard {
    /// The wire form.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The authority's public key and its signature.
    #[must_use]
    pub fn proof(&self) -> (Bytes, Bytes) {
        let signed = SignedWire::decode_bounded(&self.encoded, MAX_CARD_BODY).unwrap_or_default();
        (signed.key, signed.signature)
    }
}

impl CardIn {
    /// Reads a card. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let signed = SignedWire::decode_bounded(bytes, MAX_CARD_BODY)?;
        let wire: CardWire = decode_bounded(signed.body.clone(), MAX_CARD_BODY)?;
        let agent = |bytes: &[u8], name| fixed_bytes(bytes, name).map(AgentId::new);
        let card = Card {
            group: GroupId::new(fixed_bytes(&wire.group, "group")?),
            authority: agent(&wire.authority, "authority")?,
            owner: agent(&wire.owner, "owner")?,
            policy: policy_in(wire.policy)?,
            profile: Profile::from_wire(wire.profile)?,
            admins: wire.admins,
            members: wire.members,
            created: WallTime::from_millis(wire.created_ms),
            updated: WallTime::from_millis(wire.updated_ms),
            revision: wire.revision,
            state_hash: fixed_bytes(&wire.state_hash, "state_hash")?,
            issued: WallTime::from_millis(wire.issued_ms),
            expires: WallTime::from_millis(wire.expires_ms),
            withdrawn: wire.withdrawn,
            founded: OpId::new(fixed_bytes(&wire.founded, "founded")?),
            appointment: wire.appointment,
        };
        Ok(Self { card, signed, encoded: Bytes::copy_from_slice(bytes) })
    }

    /// Checks that its authority signed it, that it is valid now and that the group may have one.
    ///
    /// # Errors
    /// [`SignedError`] with the first thing that is wrong.
    pub fn verify(self, now: WallTime) -> Result<SignedCard, SignedError> {
        let card = &self.card;
        if card.policy.discoverability == Discoverability::Hidden {
            return Err(SignedError::Content("card is hidden"));
        }
        if card.expires <= card.issued || card.expires > card.issued + CARD_VALIDITY {
            return Err(SignedError::Content("the card's validity is empty or too long"));
        }
        if card.issued > now + MAX_CLOCK_SKEW || card.expires <= now {
            return Err(SignedError::Content("the card is not valid now"));
        }
        if card.group != GroupId::of(&card.owner, card.founded) {
            return Err(SignedError::Content("the owner did not found the group"));
        }
        if card.authority != card.owner {
            card.check_appointment()?;
        }
        self.signed.verify(CARD_DOMAIN, &card.authority)?;
        Ok(SignedCard { card: self.card, encoded: self.encoded })
    }
}

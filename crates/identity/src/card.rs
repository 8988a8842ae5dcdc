//! Cards: what an agent hands to people and other agents so that they can find and trust it.
//!
//! An *agent card* is signed by the agent and says all there is: a name, where it runs, the key for
//! sealed letters, the user behind it. An *introduction* is signed by the machine and says what the
//! machine offers on the agent's behalf; what it tells of the agent is the machine's word only, until
//! a session proves it. Neither needs the network to be checked.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use prost::Message;
use x0x_core::{
    AgentId, DecodeError, MAX_ADDRESSES, MachineId, UserId, WallTime, decode_bounded, fixed_bytes,
};

use crate::{
    address::{Address, read_addresses},
    certificate::{MAX_SIGNED_CERTIFICATE, SignedCertificate, SignedCertificateIn},
    envelope::{self, OVERHEAD, SignedIn},
    error::{CardError, TextError},
    keys::{PublicKey, SecretKey},
    sealed::{KEM_PUBLIC_LEN, KemPublic},
    text::{check_text, read_text},
};

#[cfg(test)]
mod tests;

/// Domain of the signature of an agent card.
pub const CARD_DOMAIN: &str = "x0x.identity.card.1";
/// Domain of the signature of an introduction.
pub const INTRODUCTION_DOMAIN: &str = "x0x.identity.introduction.1";
/// Longest validity of a card.
pub const MAX_CARD_VALIDITY: Duration = Duration::from_secs(400 * 24 * 3600);
/// Longest display name in bytes.
pub const MAX_DISPLAY_NAME: usize = 64;
/// Most services of one card.
pub const MAX_SERVICES: usize = 16;
/// Longest name of a service in bytes.
pub const MAX_SERVICE_NAME: usize = 32;
/// Longest description of a service in bytes.
pub const MAX_SERVICE_DESCRIPTION: usize = 128;
/// Largest encoding of a signed card in bytes.
pub const MAX_SIGNED_CARD: usize = MAX_BODY + OVERHEAD;
/// Largest body in bytes, with room for fields to come.
const MAX_BODY: usize = MAX_SIGNED_CERTIFICATE
    + KEM_PUBLIC_LEN
    + MAX_SERVICES * (MAX_SERVICE_NAME + MAX_SERVICE_DESCRIPTION + 16)
    + 1024;

/// Who signed a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CardKind {
    /// The agent.
    Agent,
    /// The machine that it runs on.
    Introduction,
}

impl CardKind {
    const fn domain(self) -> &'static str {
        match self {
            Self::Agent => CARD_DOMAIN,
            Self::Introduction => INTRODUCTION_DOMAIN,
        }
    }
}

/// The least trust that somebody needs for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Audience {
    /// Anybody who is not blocked.
    Unknown,
    /// Those whom the agent knows.
    Known,
    /// Those whom it trusts.
    Trusted,
}

/// Something that an agent offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// A short name such as `file-transfer`; at most [`MAX_SERVICE_NAME`] bytes.
    pub name: String,
    /// For people; at most [`MAX_SERVICE_DESCRIPTION`] bytes.
    pub description: String,
    /// Who may use it.
    pub audience: Audience,
}

/// What a card says. Received ones come only from [`SignedCardIn::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// The agent.
    pub agent: AgentId,
    /// Where it runs.
    pub machine: MachineId,
    /// What to call it; at most [`MAX_DISPLAY_NAME`] bytes, perhaps none.
    pub display_name: String,
    /// Where the machine may be reached; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
    /// The key that letters to the agent are sealed to.
    pub kem_key: Option<KemPublic>,
    /// The certificate of the user behind the agent. Only in agent cards: there the agent's own
    /// signature shows that it agrees.
    pub certificate: Option<SignedCertificate>,
    /// What is offered; at most [`MAX_SERVICES`].
    pub services: Vec<Service>,
    /// When the card was made.
    pub issued_at: WallTime,
    /// When it ends; at most [`MAX_CARD_VALIDITY`] later.
    pub expires_at: WallTime,
}

impl Card {
    /// The user behind the agent.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        self.certificate.as_ref().map(|signed| signed.certificate().user)
    }
}

#[derive(Clone, PartialEq, Message)]
struct CardBody {
    #[prost(bytes = "vec", tag = "1")]
    agent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    machine_id: Vec<u8>,
    #[prost(string, tag = "3")]
    display_name: String,
    #[prost(message, repeated, tag = "4")]
    addresses: Vec<Address>,
    #[prost(bytes = "vec", optional, tag = "5")]
    kem_key: Option<Vec<u8>>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    certificate: Option<Bytes>,
    #[prost(message, repeated, tag = "7")]
    services: Vec<CardService>,
    #[prost(uint64, tag = "8")]
    issued_at_ms: u64,
    #[prost(uint64, tag = "9")]
    expires_at_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CardService {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(uint32, tag = "3")]
    audience: u32,
}

/// A card that this process issued, with its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCard {
    kind: CardKind,
    card: Card,
    encoded: Bytes,
}

impl SignedCard {
    /// Signs a card with the agent's key, which makes it the card of that agent whatever `card.agent`
    /// was. Lists that are too long are cut, and so is the validity.
    ///
    /// # Errors
    /// [`TextError`] for a text that nobody would accept.
    pub fn of_agent(agent: &SecretKey, mut card: Card) -> Result<Self, TextError> {
        card.agent = agent.public_key().agent_id();
        Self::issue(CardKind::Agent, agent, card)
    }

    /// Signs an introduction with the machine's key, which makes it one of that machine whatever
    /// `card.machine` was. The certificate is left out.
    ///
    /// # Errors
    /// [`TextError`] for a text that nobody would accept.
    pub fn of_machine(machine: &SecretKey, mut card: Card) -> Result<Self, TextError> {
        card.machine = machine.public_key().machine_id();
        card.certificate = None;
        Self::issue(CardKind::Introduction, machine, card)
    }

    fn issue(kind: CardKind, key: &SecretKey, mut card: Card) -> Result<Self, TextError> {
        card.addresses.truncate(MAX_ADDRESSES);
        card.services.truncate(MAX_SERVICES);
        card.expires_at = card.expires_at.min(card.issued_at + MAX_CARD_VALIDITY);
        check_text("display_name", &card.display_name, MAX_DISPLAY_NAME)?;
        for service in &card.services {
            check_text("name", &service.name, MAX_SERVICE_NAME)?;
            check_text("description", &service.description, MAX_SERVICE_DESCRIPTION)?;
        }
        let encoded = envelope::seal(key, kind.domain(), encode_body(&card));
        Ok(Self { kind, card, encoded })
    }

    /// Who signed it.
    #[must_use]
    pub const fn kind(&self) -> CardKind {
        self.kind
    }

    /// What it says.
    #[must_use]
    pub const fn card(&self) -> &Card {
        &self.card
    }

    /// The wire form, at most [`MAX_SIGNED_CARD`] bytes. Cheap: it is kept.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }

    /// Reads a card's fields. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(kind: CardKind, bytes: &[u8]) -> Result<SignedCardIn, DecodeError> {
        let key_field = match kind {
            CardKind::Agent => "agent_key",
            CardKind::Introduction => "machine_key",
        };
        let signed = envelope::open(bytes, MAX_BODY, key_field)?;
        let body: CardBody = decode_bounded(signed.body.clone(), MAX_BODY)?;
        let (claimed, certificate) = read_body(kind, body)?;
        Ok(SignedCardIn { kind, claimed, certificate, signed })
    }
}

fn encode_body(card: &Card) -> Vec<u8> {
    let service = |service: &Service| CardService {
        name: service.name.clone(),
        description: service.description.clone(),
        audience: match service.audience {
            Audience::Unknown => 1,
            Audience::Known => 2,
            Audience::Trusted => 3,
        },
    };
    CardBody {
        agent_id: card.agent.as_bytes().to_vec(),
        machine_id: card.machine.as_bytes().to_vec(),
        display_name: card.display_name.clone(),
        addresses: card.addresses.iter().map(Address::from).collect(),
        kem_key: card.kem_key.as_ref().map(|key| key.as_bytes().to_vec()),
        certificate: card.certificate.as_ref().map(SignedCertificate::encode),
        services: card.services.iter().map(service).collect(),
        issued_at_ms: card.issued_at.as_millis(),
        expires_at_ms: card.expires_at.as_millis(),
    }
    .encode_to_vec()
}

fn read_body(
    kind: CardKind,
    body: CardBody,
) -> Result<(Card, Option<SignedCertificateIn>), DecodeError> {
    if body.services.len() > MAX_SERVICES {
        return Err(DecodeError::Field("services"));
    }
    let certificate = match (kind, body.certificate) {
        (_, None) => None,
        (CardKind::Agent, Some(bytes)) => Some(SignedCertificate::decode(&bytes)?),
        (CardKind::Introduction, Some(_)) => return Err(DecodeError::Field("certificate")),
    };
    let kem_key = body.kem_key.map(|bytes| KemPublic::from_bytes(&bytes)).transpose();
    let card = Card {
        agent: AgentId::new(fixed_bytes(&body.agent_id, "agent_id")?),
        machine: MachineId::new(fixed_bytes(&body.machine_id, "machine_id")?),
        display_name: read_text("display_name", body.display_name, MAX_DISPLAY_NAME)?,
        addresses: read_addresses(&body.addresses, MAX_ADDRESSES)?,
        kem_key: kem_key.map_err(|_| DecodeError::Field("kem_key"))?,
        certificate: None,
        services: body.services.into_iter().map(read_service).collect::<Result<_, _>>()?,
        issued_at: WallTime::from_millis(body.issued_at_ms),
        expires_at: WallTime::from_millis(body.expires_at_ms),
    };
    Ok((card, certificate))
}

fn read_service(service: CardService) -> Result<Service, DecodeError> {
    Ok(Service {
        name: read_text("name", service.name, MAX_SERVICE_NAME)?,
        description: read_text("description", service.description, MAX_SERVICE_DESCRIPTION)?,
        audience: match service.audience {
            1 => Audience::Unknown,
            2 => Audience::Known,
            3 => Audience::Trusted,
            _ => return Err(DecodeError::Field("audience")),
        },
    })
}

/// A received card: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct SignedCardIn {
    kind: CardKind,
    claimed: Card,
    certificate: Option<SignedCertificateIn>,
    signed: SignedIn,
}

impl SignedCardIn {
    /// Who it claims to be signed by.
    #[must_use]
    pub const fn kind(&self) -> CardKind {
        self.kind
    }

    /// The agent that it claims to be about. Only for looking up what is known already.
    #[must_use]
    pub const fn claimed_agent(&self) -> AgentId {
        self.claimed.agent
    }

    /// Checks everything: that it is valid at `now`, that its signer signed every field of it, and the
    /// certificate in it.
    ///
    /// # Errors
    /// [`CardError`] with the first thing that is wrong.
    pub fn verify(self, now: WallTime) -> Result<VerifiedCard, CardError> {
        let mut card = self.claimed;
        envelope::check_validity(card.issued_at, card.expires_at, MAX_CARD_VALIDITY, now)?;
        let signer = match self.kind {
            CardKind::Agent => card.agent.as_bytes(),
            CardKind::Introduction => card.machine.as_bytes(),
        };
        let signer_key = self.signed.verify(self.kind.domain(), signer)?;
        let agent = card.agent;
        let certificate = self.certificate.map(|certificate| certificate.verify(agent, now));
        card.certificate = certificate.transpose()?.map(SignedCertificate::from);
        Ok(VerifiedCard { kind: self.kind, card, signer_key })
    }
}

/// A card that holds. Only [`SignedCardIn::verify`] makes one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifiedCard {
    /// Who signed it.
    pub kind: CardKind,
    /// What it says.
    pub card: Card,
    /// The key of who signed it.
    pub signer_key: PublicKey,
}

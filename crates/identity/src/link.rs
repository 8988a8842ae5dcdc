//! Links that people paste: `x0x://agent/` and base64url without padding.
//!
//! A link holds one of three things. The *short* one has an agent's and a machine's id and a few
//! addresses, which is all that a connection needs: both ids are hashes of keys that a session proves,
//! so nothing in it has to be believed. It fits a line of chat and a QR code. The others are a signed
//! agent card and a signed introduction, which say more and are as long as post-quantum signatures
//! make them.

use std::net::SocketAddr;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use prost::Message;
use sha2::{Digest, Sha256};
use x0x_core::{AgentId, DecodeError, MachineId, decode_bounded, fixed_bytes};

use crate::{
    address::{Address, read_addresses},
    card::{CardKind, MAX_SIGNED_CARD, SignedCard, SignedCardIn},
    error::LinkError,
};

#[cfg(test)]
mod tests;

/// What every link begins with.
pub const LINK_PREFIX: &str = "x0x://agent/";
/// Most addresses of a short link. More would not help a first contact, and each costs characters.
pub const MAX_LINK_ADDRESSES: usize = 4;
/// Most characters of a link.
pub const MAX_LINK: usize = LINK_PREFIX.len() + MAX_LINK_BYTES.div_ceil(3) * 4;
/// Largest content in bytes.
const MAX_LINK_BYTES: usize = MAX_SIGNED_CARD + 16;
/// Bytes of the checksum against letters lost or changed in copying. It proves nothing.
const CHECKSUM_LEN: usize = 4;

#[derive(Clone, PartialEq, Message)]
struct LinkContent {
    #[prost(message, optional, tag = "1")]
    short: Option<ShortContent>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    card: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    introduction: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct ShortContent {
    #[prost(bytes = "vec", tag = "1")]
    agent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    machine_id: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    addresses: Vec<Address>,
    #[prost(bytes = "vec", tag = "4")]
    checksum: Vec<u8>,
}

/// The content of a short link. Everything in it is a hint: the session proves the ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentLink {
    /// The agent.
    pub agent: AgentId,
    /// Where it ran when the link was made.
    pub machine: MachineId,
    /// Where the machine may be reached; at most [`MAX_LINK_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
}

impl AgentLink {
    /// The link as text, 120 to 240 characters. Addresses beyond [`MAX_LINK_ADDRESSES`] are left out.
    #[must_use]
    pub fn to_text(&self) -> String {
        let addresses = self.addresses.iter().take(MAX_LINK_ADDRESSES);
        let mut short = ShortContent {
            agent_id: self.agent.as_bytes().to_vec(),
            machine_id: self.machine.as_bytes().to_vec(),
            addresses: addresses.map(Address::from).collect(),
            checksum: Vec::new(),
        };
        short.checksum = checksum(&short).to_vec();
        text(&LinkContent { short: Some(short), ..LinkContent::default() })
    }
}

/// Over the encoding without the checksum itself.
fn checksum(short: &ShortContent) -> [u8; CHECKSUM_LEN] {
    let bare = ShortContent { checksum: Vec::new(), ..short.clone() };
    let digest =
        Sha256::new().chain_update("x0x.identity.link.1").chain_update(bare.encode_to_vec());
    *digest.finalize().first_chunk().expect("a hash is longer than the checksum")
}

fn text(content: &LinkContent) -> String {
    format!("{LINK_PREFIX}{}", BASE64URL_NOPAD.encode(&content.encode_to_vec()))
}

impl SignedCard {
    /// The card as a link: about 7,200 characters, 1,600 more with the key for sealed letters, and
    /// 7,200 more with a certificate.
    #[must_use]
    pub fn to_link(&self) -> String {
        let encoded = Some(self.encode());
        text(&match self.kind() {
            CardKind::Agent => LinkContent { card: encoded, ..LinkContent::default() },
            CardKind::Introduction => {
                LinkContent { introduction: encoded, ..LinkContent::default() }
            }
        })
    }
}

/// What a link holds. Cards in it are not verified yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Link {
    /// Ids and addresses.
    Short(AgentLink),
    /// A card, signed by the agent or by its machine.
    Card(Box<SignedCardIn>),
}

impl Link {
    /// Reads a link, with or without its prefix, ignoring spaces around it.
    ///
    /// # Errors
    /// [`LinkError`]; nothing in it is verified yet.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let text = text.trim_ascii();
        if text.len() > MAX_LINK {
            return Err(LinkError::TooLong { max: MAX_LINK });
        }
        let encoded = text.strip_prefix(LINK_PREFIX).unwrap_or(text);
        if encoded.is_empty() {
            return Err(LinkError::Text);
        }
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| LinkError::Text)?;
        let content: LinkContent = decode_bounded(&bytes[..], MAX_LINK_BYTES)?;
        let card = |kind, bytes: Bytes| {
            SignedCard::decode(kind, &bytes).map(|card| Self::Card(Box::new(card)))
        };
        match (content.short, content.card, content.introduction) {
            (Some(short), None, None) => Ok(Self::Short(read_short(&short)?)),
            (None, Some(bytes), None) => Ok(card(CardKind::Agent, bytes)?),
            (None, None, Some(bytes)) => Ok(card(CardKind::Introduction, bytes)?),
            _ => Err(DecodeError::Field("link").into()),
        }
    }
}

fn read_short(short: &ShortContent) -> Result<AgentLink, LinkError> {
    if short.checksum != checksum(short) {
        return Err(LinkError::Checksum);
    }
    Ok(AgentLink {
        agent: AgentId::new(fixed_bytes(&short.agent_id, "agent_id")?),
        machine: MachineId::new(fixed_bytes(&short.machine_id, "machine_id")?),
        addresses: read_addresses(&short.addresses, MAX_LINK_ADDRESSES)?,
    })
}

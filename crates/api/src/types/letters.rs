//! `/letters`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use crate::{
    encoding::{Hex32, Hex64},
    flag::True,
};

/// Answer of `GET /letters`: sealed letters, kept for others, kept by others, and on their way here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LettersResponse {
    /// Always true.
    pub ok: True,
    /// What is kept for others.
    pub holding: LettersHolding,
    /// Messages queued here of which others keep a sealed copy.
    pub held: Vec<HeldMessage>,
    /// Letters for this agent that others are known to have.
    pub outstanding: u64,
    /// Agents for which letters can be left, since they gave a mailbox.
    pub mailboxes: u64,
    /// Messages that came although the one before them never did: whoever kept that one has lost it or
    /// withholds it. The latest ones, the newest last.
    pub gaps: Vec<LetterGap>,
}

/// What is kept for others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LettersHolding {
    /// Whether letters of others are taken.
    pub enabled: bool,
    /// Letters.
    pub letters: u64,
    /// Their bytes, with what is accounted for each.
    pub bytes: u64,
    /// How many bytes there may be.
    pub max_bytes: u64,
}

/// A message queued here of which others keep a sealed copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldMessage {
    /// Names the message.
    #[schema(value_type = Hex32)]
    #[serde(with = "hex_id")]
    pub request_id: [u8; 16],
    /// The recipient.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// How many keep a copy.
    pub holders: u64,
}

/// A message that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LetterGap {
    /// Who sent it.
    #[schema(value_type = Hex64)]
    pub agent_id: AgentId,
    /// It.
    #[schema(value_type = Hex32)]
    #[serde(with = "hex_id")]
    pub missing_id: [u8; 16],
    /// The one after it, which came.
    #[schema(value_type = Hex32)]
    #[serde(with = "hex_id")]
    pub next_id: [u8; 16],
    /// When it was given up, milliseconds since the Unix epoch.
    pub at: u64,
}

mod hex_id {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(id: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(id))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(from)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
        bytes.try_into().map_err(|_| D::Error::custom("16 bytes are expected"))
    }
}

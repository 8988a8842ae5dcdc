//! What travels: operations of the state, statements of those outside, invite links, cards, messages.
//!
//! Everything is read in two steps: `decode` looks at shape and size, `verify` at keys and signatures.

mod action;
mod body;
mod card;
mod courier;
mod handover;
mod link;
mod log;
mod message;
mod operation;
mod past;
mod signed;
mod statement;

pub use action::{Action, Basis, Profile, Room};
pub use card::{CARD_DOMAIN, Card, CardIn, MAX_CARD, SignedCard};
pub use courier::{Answer, CourierFrame, MAX_CARDS_HANDED, MAX_COURIER, Question};
pub use handover::{Handover, MAX_HANDOVER};
pub use link::{INVITE_PREFIX, InviteLink, MAX_HELPERS, MAX_INVITE};
pub use log::{LogItem, MAX_LOG_ITEM, MemberItem};
pub use message::{MESSAGE_DOMAIN, MessageKind, PublicMessage, PublicMessageIn};
pub use operation::{OPERATION_DOMAIN, OpId, Operation, OperationBody, OperationIn};
pub use past::PastText;
pub use statement::{Claim, INVITE_DOMAIN, STATEMENT_DOMAIN, Statement, StatementIn};

use sha2::{Digest, Sha256};
use x0x_core::AgentId;

x0x_core::bytes32! {
    /// A named group: the hash of its founder's id and the id of its first operation, so that nobody can
    /// claim to have founded another's.
    GroupId
}

impl GroupId {
    /// The group that an agent founds by an operation.
    #[must_use]
    pub fn of(founder: &AgentId, founded: OpId) -> Self {
        Self::new(hash("x0x.groups.id.1", &[founder.as_bytes(), founded.as_bytes()]))
    }
}

impl std::fmt::Display for GroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(self.as_bytes()))
    }
}

/// SHA-256 with a domain before what is hashed.
pub(crate) fn hash(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let start = Sha256::new().chain_update(domain);
    parts.iter().fold(start, |hash, part| hash.chain_update(part)).finalize().into()
}

/// Whether a text may be shown: not too long, no control or bidirectional characters.
pub(crate) fn is_text(text: &str, max: usize) -> bool {
    text.len() <= max && x0x_identity::shows_as_written(text)
}

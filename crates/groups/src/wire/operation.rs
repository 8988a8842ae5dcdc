//! Operations: what changes a group's state. Each names the last ones that its author knew.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, WallTime, decode_bounded, fixed_bytes};
use x0x_identity::SecretKey;

use super::{
    GroupId,
    action::{self, Action},
    body::BodyWire,
    hash,
    signed::SignedWire,
};
use crate::{
    error::SignedError,
    limits::{MAX_BODY, MAX_PARENTS},
    policy::Role,
};

/// Domain of an operation's signature.
pub const OPERATION_DOMAIN: &str = "x0x.groups.operation.1";

x0x_core::bytes32! {
    /// An operation: the hash of its body.
    OpId
}

/// What an author states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationBody {
    /// Of which group; none in the one that founds it.
    pub group: Option<GroupId>,
    /// Who.
    pub author: AgentId,
    /// The last operations that it knew, none an ancestor of another; sorted.
    pub parents: Vec<OpId>,
    /// One more than the highest of its parents.
    pub height: u32,
    /// When, by its clock.
    pub at: WallTime,
    /// As what it acts; none outside.
    pub role: Option<Role>,
    /// What it does.
    pub action: Action,
}

/// An operation that its author signed, with all that others signed inside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// Its id.
    pub id: OpId,
    /// What is stated.
    pub body: OperationBody,
    encoded: Bytes,
}

/// A received operation: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct OperationIn {
    operation: Operation,
    signed: SignedWire,
}

fn op_id(body: &[u8]) -> OpId {
    OpId::new(hash("x0x.groups.operation.id.1", &[body]))
}

impl OperationBody {
    /// Signs it.
    #[must_use]
    pub fn sign(self, key: &SecretKey) -> Operation {
        let wire = BodyWire {
            group: self
                .group
                .map(|group| Bytes::copy_from_slice(group.as_bytes()))
                .unwrap_or_default(),
            author: Bytes::copy_from_slice(self.author.as_bytes()),
            parents: self.parents.iter().map(|p| Bytes::copy_from_slice(p.as_bytes())).collect(),
            at_ms: self.at.as_millis(),
            role: self.role.map_or(0, Role::code),
            height: self.height,
            action: Some(self.action.to_wire()),
        }
        .encode_to_vec();
        let id = op_id(&wire);
        let encoded = SignedWire::sign(key, OPERATION_DOMAIN, wire).encode_to_vec().into();
        Operation { id, body: self, encoded }
    }
}

impl Operation {
    /// The wire form.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The group it belongs to: the one it founds, or names.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.body.group.unwrap_or_else(|| GroupId::of(&self.body.author, self.id))
    }
}

impl OperationIn {
    /// Reads an operation. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let signed = SignedWire::decode_bounded(bytes, MAX_BODY)?;
        let wire: BodyWire = decode_bounded(signed.body.clone(), MAX_BODY)?;
        let action = Action::from_wire(wire.action.ok_or(DecodeError::Field("action"))?)?;
        let founds = matches!(action, Action::Found { .. });
        let role = match wire.role {
            0 => None,
            code => Some(Role::from_code(code).ok_or(DecodeError::Field("role"))?),
        };
        if founds != wire.group.is_empty()
            || founds != wire.parents.is_empty()
            || founds != (wire.height == 0)
            || role.is_none() != matches!(action, Action::Join { .. })
            || (founds && role != Some(Role::Owner))
        {
            return Err(DecodeError::Field("place"));
        }
        let group =
            if founds { None } else { Some(GroupId::new(fixed_bytes(&wire.group, "group")?)) };
        let body = OperationBody {
            group,
            author: AgentId::new(fixed_bytes(&wire.author, "author")?),
            parents: action::parents(&wire.parents, MAX_PARENTS)?,
            height: wire.height,
            at: WallTime::from_millis(wire.at_ms),
            role,
            action,
        };
        let id = op_id(&signed.body);
        let operation = Operation { id, body, encoded: Bytes::copy_from_slice(bytes) };
        Ok(Self { operation, signed })
    }

    /// The id it will have, to see whether it is known before anything is verified.
    #[must_use]
    pub const fn id(&self) -> OpId {
        self.operation.id
    }

    /// Checks that the author signed it, and that what others signed inside holds.
    ///
    /// # Errors
    /// [`SignedError`] with the first thing that is wrong.
    pub fn verify(self) -> Result<Operation, SignedError> {
        let Self { operation, signed } = self;
        if let Some(statement) = operation.body.action.statement() {
            if Some(statement.group) != operation.body.group {
                return Err(SignedError::Content("a statement to another group"));
            }
            statement.check()?;
        }
        signed.verify(OPERATION_DOMAIN, &operation.body.author)?;
        Ok(operation)
    }
}

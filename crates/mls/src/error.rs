//! One error type per public operation.

use x0x_core::DecodeError;
use x0x_identity::{BadSignature, KeyError};

use crate::{codec::CodecError, store::StoreError};

/// A leaf's credential that does not hold. Whoever presented it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// Not a credential of this kind.
    #[error("the leaf has a credential of another kind")]
    Kind,
    /// Malformed.
    #[error("the credential is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// Issued for another leaf key, or another suite.
    #[error("the credential is for another leaf key")]
    OtherKey,
    /// Valid for longer than a credential may be, or ends before it begins.
    #[error("the credential's validity is empty or too long")]
    Validity,
    /// Expired, or not valid yet.
    #[error("the credential is not valid now")]
    NotValidNow,
    /// The agent id is not the hash of the key.
    #[error("the credential's key belongs to another agent")]
    WrongAgent,
    /// The key or the signature is malformed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not signed by the agent.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

/// A key package that cannot be used. Whoever published it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyPackageError {
    /// Larger than a key package may be, or not one.
    #[error("the key package is malformed")]
    Malformed,
    /// Of a suite that this build does not have, or not the one wanted.
    #[error("the key package is of another suite")]
    Suite,
    /// Its own signatures or lifetime do not hold.
    #[error("the key package does not verify")]
    Invalid,
    /// Its credential does not hold.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// Of another agent than the one that was asked for.
    #[error("the key package is of another agent")]
    OtherAgent,
}

/// An operation on a group that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// There is no such group here.
    #[error("no such group")]
    Unknown,
    /// A group of this id is here already.
    #[error("the group is here already")]
    Exists,
    /// This member is not in the group any more.
    #[error("not a member any more")]
    NotMember,
    /// Nothing may be sent before a commit of this member's own: see
    /// [`MlsGroups::refresh`](crate::MlsGroups::refresh).
    #[error("this member must refresh its keys before it sends")]
    RefreshFirst,
    /// A limit: groups, members, sizes, or messages that the layer above has not taken.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// The agent to be added is a member, or the one to be removed is none.
    #[error("{0}")]
    Membership(&'static str),
    /// A key package that cannot be used.
    #[error(transparent)]
    KeyPackage(#[from] KeyPackageError),
    /// What was received is malformed, or does not verify. Its sender is at fault.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// A credential in what was received does not hold. Its sender is at fault.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The ratchet tree that belongs to a welcome is needed with it.
    #[error("the ratchet tree is missing or another")]
    TreeMissing,
    /// The store failed; nothing was sent, and the group is as it was committed last.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// openmls failed where it should not have.
    #[error("internal: {0}")]
    Internal(String),
}

impl GroupError {
    pub(crate) fn internal(error: impl std::fmt::Debug) -> Self {
        Self::Internal(format!("{error:?}"))
    }
}

impl From<CodecError> for GroupError {
    fn from(error: CodecError) -> Self {
        Self::Internal(error.to_string())
    }
}

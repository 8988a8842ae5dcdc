//! One error type per public operation.

/// Bytes that are not the expected key or signature. Whoever supplied them is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Another length than the format has.
    #[error("{what} has {len} bytes, expected {expected}")]
    Length {
        /// What was read.
        what: &'static str,
        /// Bytes given.
        len: usize,
        /// Bytes of the format.
        expected: usize,
    },
    /// The right length, but another algorithm, another encoding, or an invalid key.
    #[error("{0} is of another algorithm or malformed")]
    Encoding(&'static str),
}

impl KeyError {
    pub(crate) fn check_len(what: &'static str, len: usize, expected: usize) -> Result<(), Self> {
        if len == expected { Ok(()) } else { Err(Self::Length { what, len, expected }) }
    }
}

/// The signature does not belong to this key, domain and message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad signature")]
pub struct BadSignature;

/// A binding that does not hold. The peer that presented it is at fault, or its clock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// Signed for another machine than the one that presents it.
    #[error("the binding is for another machine")]
    WrongMachine,
    /// Begins later than the allowed clock skew from now.
    #[error("the binding is not valid yet")]
    NotYetValid,
    /// Its validity is over.
    #[error("the binding has expired")]
    Expired,
    /// Valid for longer than a binding may be, or ends before it begins.
    #[error("the binding's validity is empty or too long")]
    Validity,
    /// The agent id is not the hash of the key.
    #[error("the agent id does not belong to the key")]
    WrongAgent,
    /// The key is malformed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not signed by the agent.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

/// A box was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The caller's plaintext is larger than a box may hold.
    #[error("plaintext of {len} bytes exceeds the limit of {max}")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// A box did not open: wrong recipient, wrong context, damaged or forged. Which of these is not
/// told, so that a sender learns nothing from the refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed box cannot be opened")]
pub struct OpenError;

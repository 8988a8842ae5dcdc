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

/// The time of a statement does not fit. Its issuer is at fault, or a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValidityError {
    /// Begins later than the allowed clock skew from now.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Its validity is over.
    #[error("it has expired")]
    Expired,
    /// Valid for longer than its kind may be, or ends before it begins.
    #[error("its validity is empty or too long")]
    Length,
}

/// A statement is not from whom it says. Whoever presented it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The key that came with it is another one than that of the named signer.
    #[error("the key does not belong to the named signer")]
    WrongKey,
    /// The key is malformed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not signed by that key.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

impl From<ValidityError> for BindingError {
    fn from(error: ValidityError) -> Self {
        match error {
            ValidityError::NotYetValid => Self::NotYetValid,
            ValidityError::Expired => Self::Expired,
            ValidityError::Length => Self::Validity,
        }
    }
}

impl From<SignerError> for BindingError {
    fn from(error: SignerError) -> Self {
        match error {
            SignerError::WrongKey => Self::WrongAgent,
            SignerError::Key(error) => Self::Key(error),
            SignerError::Signature(error) => Self::Signature(error),
        }
    }
}

/// A certificate that does not hold. The peer that presented it is at fault, or its clock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Issued for another agent than the one that presents it.
    #[error("the certificate is for another agent")]
    WrongAgent,
    /// Its time.
    #[error("certificate: {0}")]
    Validity(#[from] ValidityError),
    /// Who signed it.
    #[error("certificate: {0}")]
    Signer(#[from] SignerError),
    /// The agent's acceptance of it does not hold.
    #[error("acceptance of the certificate: {0}")]
    Acceptance(SignerError),
}

/// A revocation that does not hold. The peer that presented it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// A certificate proves a user's right over the agent that it names, and over nothing else.
    #[error("the certificate gives no right to revoke this")]
    NoRight,
    /// The certificate in it.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Who signed it.
    #[error("revocation: {0}")]
    Signer(#[from] SignerError),
}

/// A card that does not hold. Whoever handed it out is at fault, or changed it on the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// Its time.
    #[error("card: {0}")]
    Validity(#[from] ValidityError),
    /// Who signed it.
    #[error("card: {0}")]
    Signer(#[from] SignerError),
    /// The user's certificate in it.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// A notice that does not hold. Whoever published it is at fault, or its clock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoticeError {
    /// It is about another agent than the one who published it.
    #[error("the notice is about another agent than its author")]
    WrongAuthor,
    /// Where the agent runs.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// Who stands behind it.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// A text is no link to an agent. Whoever wrote or copied it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Longer than any link.
    #[error("longer than {max} characters")]
    TooLong {
        /// Characters allowed.
        max: usize,
    },
    /// Another scheme, or characters that no link has.
    #[error("not a link of the form x0x://agent/...")]
    Text,
    /// Characters are missing or were changed.
    #[error("the link is incomplete or was changed on the way")]
    Checksum,
    /// The bytes in it.
    #[error(transparent)]
    Decode(#[from] x0x_core::DecodeError),
}

/// A text field that nobody would accept. The caller is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} must have at most {max} bytes and no control characters")]
pub struct TextError {
    /// Which field.
    pub field: &'static str,
    /// Bytes allowed.
    pub max: usize,
}

/// Keys were not exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The caller's passphrase is too easy to guess.
    #[error("the passphrase must have at least {min} characters")]
    ShortPassphrase {
        /// Characters needed.
        min: usize,
    },
    /// The key derivation needs more memory than there is.
    #[error("not enough memory to derive the key")]
    Memory,
}

/// A file of exported keys was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Another kind of file.
    #[error("not a file of exported agent keys")]
    NotAnExport,
    /// Another passphrase, or the file was damaged or changed.
    #[error("wrong passphrase, or the file is damaged")]
    Passphrase,
    /// Malformed.
    #[error(transparent)]
    Decode(#[from] x0x_core::DecodeError),
    /// A key in it.
    #[error(transparent)]
    Key(#[from] KeyError),
}

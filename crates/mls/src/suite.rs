//! The cipher suites that a group may have.

use openmls::prelude::Ciphersuite;
use openmls_traits::types::SignatureScheme;

/// A cipher suite of MLS. Both encrypt to ML-KEM-768, so that what is recorded today is not read by a
/// quantum computer later. The code points are those of draft-ietf-mls-pq-ciphersuites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Suite {
    /// 0x004F: ML-KEM-768 with X25519, AES-128-GCM, SHA-256, Ed25519. Small messages; the leaf's key is
    /// classical, and the agent's ML-DSA-65 signature stands behind it.
    #[default]
    Hybrid,
    /// 0x0051: ML-KEM-768, AES-256-GCM, SHA-384, ML-DSA-65. Nothing classical; 3.3 kB a signature.
    Pure,
}

impl Suite {
    /// All suites, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Hybrid, Self::Pure];

    /// The registered code point.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Hybrid => 0x004F,
            Self::Pure => 0x0051,
        }
    }

    /// The suite of a code point.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.code() == code)
    }

    pub(crate) fn from_openmls(suite: Ciphersuite) -> Option<Self> {
        Self::from_code(suite.into())
    }

    pub(crate) const fn to_openmls(self) -> Ciphersuite {
        match self {
            Self::Hybrid => Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519,
            Self::Pure => Ciphersuite::MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65,
        }
    }

    pub(crate) const fn signature_scheme(self) -> SignatureScheme {
        match self {
            Self::Hybrid => SignatureScheme::ED25519,
            Self::Pure => SignatureScheme::MLDSA65,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_points_are_openmls_own() {
        for suite in Suite::ALL {
            assert_eq!(u16::from(suite.to_openmls()), suite.code());
            assert_eq!(Suite::from_code(suite.code()), Some(suite));
            assert_eq!(suite.to_openmls().signature_algorithm(), suite.signature_scheme());
        }
        assert_eq!(Suite::from_code(1), None);
    }
}

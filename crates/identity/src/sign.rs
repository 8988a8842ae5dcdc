//! The one seam for ML-DSA-65 (FIPS 204): everything that signs or verifies goes through a
//! [`Backend`].
//!
//! Both implementations take the 32-byte seed, use the pure (not pre-hashed) variant with the empty
//! context, and agree on every byte except the signature itself, which is hedged with fresh
//! randomness.

use std::fmt;

use crate::keys::{PUBLIC_KEY_LEN, SEED_LEN, SIGNATURE_LEN};

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(all(test, feature = "aws-lc"))]
mod cross_tests;
mod rust_crypto;
#[cfg(test)]
mod tests;

#[cfg(feature = "aws-lc")]
pub use aws_lc::AwsLc;
pub use rust_crypto::RustCrypto;

/// The backend that [`SecretKey`](crate::SecretKey) and [`PublicKey`](crate::PublicKey) use.
#[cfg(feature = "aws-lc")]
pub type DefaultBackend = AwsLc;
/// The backend that [`SecretKey`](crate::SecretKey) and [`PublicKey`](crate::PublicKey) use.
#[cfg(not(feature = "aws-lc"))]
pub type DefaultBackend = RustCrypto;

/// An implementation of ML-DSA-65.
pub trait Backend {
    /// A secret key expanded from its seed, ready to sign. Erases itself when dropped.
    type SigningKey: Send + Sync + 'static;
    /// A public key decoded and ready to verify.
    type VerifyingKey: Send + Sync + fmt::Debug + 'static;

    /// The implementation's name, for logs and `--version` output.
    const NAME: &'static str;

    /// Expands a seed (FIPS 204 algorithm 6).
    fn signing_key(seed: &[u8; SEED_LEN]) -> Self::SigningKey;

    /// The raw public key of a signing key.
    fn public_key(key: &Self::SigningKey) -> [u8; PUBLIC_KEY_LEN];

    /// Signs; hedged, so two signatures of one message differ.
    fn sign(key: &Self::SigningKey, message: &[u8]) -> Box<[u8; SIGNATURE_LEN]>;

    /// Decodes a public key from its SubjectPublicKeyInfo, whose prefix the caller has checked.
    /// `None` when the backend refuses it.
    fn verifying_key(spki: &[u8; crate::keys::SPKI_LEN]) -> Option<Self::VerifyingKey>;

    /// Whether the signature is good.
    fn verify(key: &Self::VerifyingKey, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool;
}

/// The bytes that are signed: the length of the domain as four big-endian bytes, the domain, the
/// message.
///
/// The prefix makes the pair (domain, message) unambiguous, and keeps our signatures apart from
/// those that other protocols make with the same key: a TLS 1.3 CertificateVerify begins with 64
/// spaces, and no domain is `0x20202020` bytes long.
pub(crate) fn framed(domain: &'static str, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(domain.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(4 + domain.len() + message.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(domain.as_bytes());
    bytes.extend_from_slice(message);
    bytes
}

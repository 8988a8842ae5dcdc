//! ML-DSA-65 of the RustCrypto project: pure Rust, for builds without a C compiler.

use ml_dsa::{ExpandedSigningKey, MlDsa65, Signature, VerifyingKey, common::getrandom::SysRng};

use super::Backend;
use crate::keys::{PUBLIC_KEY_LEN, SEED_LEN, SIGNATURE_LEN, SPKI_LEN, raw_of_spki};

/// The RustCrypto backend. A verifying key holds its expanded matrix, about 32 KiB.
#[derive(Debug, Clone, Copy)]
pub struct RustCrypto;

impl Backend for RustCrypto {
    type SigningKey = ExpandedSigningKey<MlDsa65>;
    type VerifyingKey = VerifyingKey<MlDsa65>;

    const NAME: &'static str = "ml-dsa";

    fn signing_key(seed: &[u8; SEED_LEN]) -> ExpandedSigningKey<MlDsa65> {
        ExpandedSigningKey::from_seed(seed.into())
    }

    fn public_key(key: &ExpandedSigningKey<MlDsa65>) -> [u8; PUBLIC_KEY_LEN] {
        key.verifying_key().encode().into()
    }

    fn sign(key: &ExpandedSigningKey<MlDsa65>, message: &[u8]) -> Box<[u8; SIGNATURE_LEN]> {
        let signature = key
            .sign_randomized(message, &[], &mut SysRng)
            .expect("the empty context is valid and the operating system provides randomness");
        Box::new(signature.encode().into())
    }

    fn verifying_key(spki: &[u8; SPKI_LEN]) -> Option<VerifyingKey<MlDsa65>> {
        Some(VerifyingKey::decode(raw_of_spki(spki).into()))
    }

    fn verify(
        key: &VerifyingKey<MlDsa65>,
        message: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        Signature::decode(signature.into())
            .is_some_and(|signature| key.verify_with_context(message, &[], &signature))
    }
}

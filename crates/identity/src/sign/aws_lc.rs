//! ML-DSA-65 of aws-lc-rs: the library that TLS links anyway, and several times faster.

use aws_lc_rs::signature::{KeyPair, ML_DSA_65, ML_DSA_65_SIGNING, ParsedPublicKey, PqdsaKeyPair};

use super::Backend;
use crate::keys::{PUBLIC_KEY_LEN, SEED_LEN, SIGNATURE_LEN, SPKI_LEN};

/// The aws-lc-rs backend.
#[derive(Debug, Clone, Copy)]
pub struct AwsLc;

impl Backend for AwsLc {
    type SigningKey = PqdsaKeyPair;
    type VerifyingKey = ParsedPublicKey;

    const NAME: &'static str = "aws-lc-rs";

    fn signing_key(seed: &[u8; SEED_LEN]) -> PqdsaKeyPair {
        PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, seed)
            .expect("every 32-byte seed expands; fails only when memory is exhausted")
    }

    fn public_key(key: &PqdsaKeyPair) -> [u8; PUBLIC_KEY_LEN] {
        key.public_key().as_ref().try_into().expect("an ML-DSA-65 public key has a fixed length")
    }

    fn sign(key: &PqdsaKeyPair, message: &[u8]) -> Box<[u8; SIGNATURE_LEN]> {
        let mut signature = Box::new([0; SIGNATURE_LEN]);
        key.sign(message, signature.as_mut_slice())
            .expect("an expanded key signs every message; fails only when memory is exhausted");
        signature
    }

    fn verifying_key(spki: &[u8; SPKI_LEN]) -> Option<ParsedPublicKey> {
        // The SPKI form on purpose: given raw bytes, the library first tries to read them as an
        // SPKI, so a key crafted to look like one would be judged differently by the two backends.
        ParsedPublicKey::new(&ML_DSA_65, spki).ok()
    }

    fn verify(key: &ParsedPublicKey, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        key.verify_sig(message, signature).is_ok()
    }
}

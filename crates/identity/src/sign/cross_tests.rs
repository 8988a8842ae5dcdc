//! The two implementations are one scheme: same keys, and each accepts the other's signatures only.

use proptest::prelude::*;

use super::*;
use crate::{PublicKey, SecretKey};

fn sign_with<B: Backend>(seed: &[u8; SEED_LEN], message: &[u8]) -> Box<[u8; SIGNATURE_LEN]> {
    B::sign(&B::signing_key(seed), message)
}

fn verify_with<B: Backend>(
    key: &PublicKey,
    message: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> bool {
    let spki: [u8; crate::SPKI_LEN] = key.to_spki().try_into().expect("fixed length");
    B::verify(&B::verifying_key(&spki).expect("valid"), message, signature)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_seed_gives_one_key_and_signatures_cross(
        seed in any::<[u8; 32]>(),
        message in prop::collection::vec(any::<u8>(), 0..600),
        bit in 0_usize..SIGNATURE_LEN * 8,
    ) {
        let fast = AwsLc::public_key(&AwsLc::signing_key(&seed));
        let pure = RustCrypto::public_key(&RustCrypto::signing_key(&seed));
        prop_assert_eq!(fast, pure);

        let key = PublicKey::from_bytes(&fast).expect("valid");
        for signature in [sign_with::<AwsLc>(&seed, &message), sign_with::<RustCrypto>(&seed, &message)] {
            prop_assert!(verify_with::<AwsLc>(&key, &message, &signature));
            prop_assert!(verify_with::<RustCrypto>(&key, &message, &signature));
            let mut flipped = signature.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify_with::<AwsLc>(&key, &message, &flipped));
            prop_assert!(!verify_with::<RustCrypto>(&key, &message, &flipped));
            let longer = [&message[..], &[0]].concat();
            prop_assert!(!verify_with::<AwsLc>(&key, &longer, &signature));
            prop_assert!(!verify_with::<RustCrypto>(&key, &longer, &signature));
        }
    }

    #[test]
    fn both_accept_every_key_of_the_right_length(raw in prop::collection::vec(any::<u8>(), PUBLIC_KEY_LEN)) {
        let key = PublicKey::from_bytes(&raw).expect("every value is a key");
        let noise = [0x5a; SIGNATURE_LEN];
        prop_assert!(!verify_with::<AwsLc>(&key, b"", &noise));
        prop_assert!(!verify_with::<RustCrypto>(&key, b"", &noise));
    }
}

#[test]
fn a_raw_key_that_looks_like_an_spki_is_still_raw() {
    // The SPKI head of ML-DSA-44 and of ML-DSA-65, as the first bytes of a raw key.
    for (length, oid) in [([0x05, 0x32], 0x11), ([0x07, 0xb2], 0x12)] {
        let mut raw = vec![7; PUBLIC_KEY_LEN];
        raw[..2].copy_from_slice(&[0x30, 0x82]);
        raw[2..4].copy_from_slice(&length);
        raw[4..17].copy_from_slice(&[
            0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, oid,
        ]);
        let key = PublicKey::from_bytes(&raw).expect("every value is a key");
        assert_eq!(key.as_bytes()[..], raw[..]);
    }
}

#[test]
fn der_forms_are_those_of_aws_lc() {
    use aws_lc_rs::{encoding::AsDer, signature::KeyPair};
    let pair = AwsLc::signing_key(&[3; 32]);
    let key = SecretKey::from_seed([3; 32]);
    assert_eq!(pair.to_pkcs8v1().expect("seed form").as_ref(), &key.to_pkcs8()[..]);
    let spki = pair.public_key().as_der().expect("encodes");
    assert_eq!(spki.as_ref(), &key.public_key().to_spki()[..]);
}

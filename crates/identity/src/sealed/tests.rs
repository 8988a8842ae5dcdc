//! A box opens for its recipient in its context, and never otherwise.

use data_encoding::HEXLOWER;
use ml_kem::pkcs8::EncodePrivateKey;
use proptest::prelude::*;

use super::*;
use crate::testing::kem_key;

#[test]
fn opens_only_for_its_recipient_and_context() {
    let secret = kem_key(1);
    let sealed = secret.public_key().seal(b"mail", b"to", b"hello").expect("small");
    assert_eq!(sealed.len(), 5 + SEALED_OVERHEAD);
    assert_eq!(secret.open(b"mail", b"to", &sealed).as_deref(), Ok(&b"hello"[..]));
    assert_eq!(kem_key(2).open(b"mail", b"to", &sealed), Err(OpenError));
    assert_eq!(secret.open(b"file", b"to", &sealed), Err(OpenError));
    assert_eq!(secret.open(b"mail", b"cc", &sealed), Err(OpenError));
    assert_eq!(secret.open(b"mailt", b"o", &sealed), Err(OpenError));
    let again = secret.public_key().seal(b"mail", b"to", b"hello").expect("small");
    assert_ne!(sealed, again, "fresh randomness");
}

#[test]
fn sizes_are_bounded() {
    let secret = kem_key(1);
    let len = MAX_SEALED_PLAINTEXT + 1;
    let refusal = SealError::TooLarge { len, max: MAX_SEALED_PLAINTEXT };
    assert_eq!(secret.public_key().seal(b"", b"", &vec![0; len]), Err(refusal));
    assert_eq!(secret.open(b"", b"", &vec![0; len + SEALED_OVERHEAD]), Err(OpenError));
    assert_eq!(secret.open(b"", b"", &[]), Err(OpenError));
    let empty = secret.public_key().seal(b"", b"", b"").expect("empty plaintexts are fine");
    assert_eq!(secret.open(b"", b"", &empty).as_deref(), Ok(&b""[..]));
}

#[test]
fn public_keys_are_validated() {
    let public = kem_key(1).public_key().clone();
    assert_eq!(KemPublic::from_bytes(public.as_bytes()).expect("own form"), public);
    assert!(matches!(KemPublic::from_bytes(&[0; 1183]), Err(KeyError::Length { .. })));
    let unreduced = [0xff; KEM_PUBLIC_LEN];
    assert!(matches!(KemPublic::from_bytes(&unreduced), Err(KeyError::Encoding(_))));
}

#[test]
fn pkcs8_is_the_standard_seed_form() {
    let secret = kem_key(3);
    let der = secret.to_pkcs8();
    let theirs = secret.0.key.to_pkcs8_der().expect("encodes");
    assert_eq!(theirs.as_bytes(), &der[..]);
    assert_eq!(der.len(), 86);
    assert_eq!(KemSecret::from_pkcs8(&der).expect("own form").public_key(), secret.public_key());
    assert!(matches!(KemSecret::from_pkcs8(&der[1..]), Err(KeyError::Length { .. })));
    for position in 0..22 {
        let mut bad = der.clone();
        bad[position] ^= 1;
        assert!(matches!(KemSecret::from_pkcs8(&bad), Err(KeyError::Encoding(_))));
    }
}

/// The layout of version 1, fixed by `docs/protocol/identity.md`.
#[test]
fn golden_vector() {
    let text = include_str!("../../tests/vectors/sealed-1.hex");
    let golden = HEXLOWER.decode(text.replace('\n', "").as_bytes()).expect("hex");
    let secret = kem_key(1);
    let sealed = secret.public_key().seal_with(&[9; 32], b"info", b"aad", b"plaintext");
    assert_eq!(sealed.expect("small"), golden);
    assert_eq!(secret.open(b"info", b"aad", &golden).as_deref(), Ok(&b"plaintext"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_change_closes_the_box(
        plaintext in prop::collection::vec(any::<u8>(), 0..300),
        position in any::<prop::sample::Index>(),
        change in 1_u8..,
        cut in any::<prop::sample::Index>(),
    ) {
        let secret = kem_key(1);
        let sealed = secret.public_key().seal(b"i", b"a", &plaintext).expect("small");
        prop_assert_eq!(secret.open(b"i", b"a", &sealed), Ok(plaintext));
        let mut bad = sealed.clone();
        bad[position.index(sealed.len())] ^= change;
        prop_assert_eq!(secret.open(b"i", b"a", &bad), Err(OpenError));
        prop_assert_eq!(secret.open(b"i", b"a", &sealed[..cut.index(sealed.len())]), Err(OpenError));
    }
}

//! Keys and signatures as their users see them.

use ml_dsa::{KeyInit, MlDsa65, SigningKey, pkcs8::EncodePrivateKey, pkcs8::EncodePublicKey};

use crate::{KeyError, PublicKey, SecretKey, Signature, testing::key};

#[test]
fn der_forms_are_those_of_rust_crypto() {
    let theirs = SigningKey::<MlDsa65>::new(&[3; 32].into());
    let ours = SecretKey::from_seed([3; 32]);
    let pkcs8 = theirs.to_pkcs8_der().expect("encodes");
    assert_eq!(pkcs8.as_bytes(), &ours.to_pkcs8()[..]);
    let spki = theirs.expanded_key().verifying_key().to_public_key_der().expect("encodes");
    assert_eq!(spki.as_bytes(), &ours.public_key().to_spki()[..]);
    assert_eq!((ours.to_pkcs8().len(), ours.public_key().to_spki().len()), (54, 1974));
}

#[test]
fn encodings_round_trip_and_nothing_else_is_read() {
    let secret = key(1);
    let public = secret.public_key();
    let der = secret.to_pkcs8();
    assert_eq!(SecretKey::from_pkcs8(&der).expect("own form").public_key(), public);
    assert_eq!(&PublicKey::from_spki(&public.to_spki()).expect("own form"), public);
    assert_eq!(&PublicKey::from_bytes(public.as_bytes()).expect("own form"), public);

    assert!(matches!(SecretKey::from_pkcs8(&der[..53]), Err(KeyError::Length { len: 53, .. })));
    assert!(matches!(PublicKey::from_spki(public.as_bytes()), Err(KeyError::Length { .. })));
    assert!(matches!(Signature::from_bytes(&[0; 3308]), Err(KeyError::Length { .. })));
    for position in 0..22 {
        let mut spki = public.to_spki();
        spki[position] ^= 1;
        assert!(matches!(PublicKey::from_spki(&spki), Err(KeyError::Encoding(_))));
        let mut pkcs8 = der.clone();
        pkcs8[position] ^= 1;
        assert!(matches!(SecretKey::from_pkcs8(&pkcs8), Err(KeyError::Encoding(_))));
    }
}

#[test]
fn domains_and_messages_do_not_mix() {
    let secret = key(2);
    let signature = secret.sign("x0x.test.a", b"bc");
    let public = secret.public_key();
    assert_eq!(public.verify("x0x.test.a", b"bc", &signature), Ok(()));
    assert!(public.verify("x0x.test.ab", b"c", &signature).is_err(), "the boundary is signed");
    assert!(public.verify("x0x.test.b", b"bc", &signature).is_err());
    assert!(public.verify("x0x.test.a", b"b", &signature).is_err());
    assert!(key(3).public_key().verify("x0x.test.a", b"bc", &signature).is_err());
    assert_ne!(secret.sign("x0x.test.a", b"bc"), signature, "hedged");
}

#[test]
fn debug_shows_no_secret() {
    let secret = key(4);
    let id = secret.public_key().agent_id().short();
    assert_eq!(format!("{secret:?}"), format!("SecretKey({id}..)"));
    assert_eq!(format!("{:?}", secret.public_key()), format!("PublicKey({id}..)"));
    assert_eq!(format!("{:?}", crate::testing::kem_key(1)), "KemSecret(..)");
}

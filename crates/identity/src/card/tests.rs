//! A card with an altered field is nobody's card.

use proptest::prelude::*;

use super::*;
use crate::{
    BadSignature, CertificateError, SignerError, ValidityError,
    envelope::testing::{fixed_parts, vector, with_body},
    testing::{kem_key, key},
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const AGENT: u64 = 1;
const USER: u64 = 50;
const MACHINE: u64 = 100;

fn card() -> Card {
    let agent = key(AGENT).public_key().agent_id();
    Card {
        agent,
        machine: key(MACHINE).public_key().machine_id(),
        display_name: "Ada".to_owned(),
        addresses: vec![
            "192.0.2.1:5483".parse().expect("v4"),
            "[2001:db8::1]:5483".parse().expect("v6"),
        ],
        kem_key: Some(kem_key(1).public_key().clone()),
        certificate: Some(SignedCertificate::issue(&key(USER), agent, NOW, DAY)),
        services: vec![Service {
            name: "file-transfer".to_owned(),
            description: "files up to 1 GiB".to_owned(),
            audience: Audience::Trusted,
        }],
        issued_at: NOW,
        expires_at: NOW + DAY,
    }
}

fn agent_card() -> SignedCard {
    SignedCard::of_agent(&key(AGENT), card()).expect("short texts")
}

fn introduction() -> SignedCard {
    SignedCard::of_machine(&key(MACHINE), card()).expect("short texts")
}

fn verify(kind: CardKind, bytes: &[u8], now: WallTime) -> Result<Card, CardError> {
    SignedCard::decode(kind, bytes).expect("well-formed").verify(now).map(|verified| verified.card)
}

#[test]
fn honest_cards_hold_for_their_time() {
    for issued in [agent_card(), introduction()] {
        let (kind, encoded) = (issued.kind(), issued.encode());
        assert!(encoded.len() <= MAX_SIGNED_CARD);
        assert_eq!(verify(kind, &encoded, NOW).as_ref(), Ok(issued.card()));
        assert_eq!(verify(kind, &encoded, NOW + DAY), Err(ValidityError::Expired.into()));
    }
    let user = key(USER).public_key().user_id();
    assert_eq!(agent_card().card().user(), Some(user));
    assert_eq!(introduction().card().user(), None, "only the agent's own word counts for that");
}

#[test]
fn the_signer_decides_whose_card_it_is() {
    let other = SignedCard::of_agent(&key(2), card()).expect("short texts");
    assert_eq!(other.card().agent, key(2).public_key().agent_id());
    let other = SignedCard::of_machine(&key(101), card()).expect("short texts");
    assert_eq!(other.card().machine, key(101).public_key().machine_id());
    // One kind does not pass as the other.
    let encoded = SignedCard::of_agent(&key(AGENT), Card { certificate: None, ..card() })
        .expect("short texts")
        .encode();
    assert_eq!(verify(CardKind::Introduction, &encoded, NOW), Err(SignerError::WrongKey.into()));
}

#[test]
fn every_field_is_signed() {
    let good = agent_card().encode();
    let altered = |change: fn(&mut CardBody)| {
        let mut body = CardBody::decode(fixed_parts(&good).0).expect("own form");
        change(&mut body);
        verify(CardKind::Agent, &with_body(&good, body.encode_to_vec()), NOW).map(|_| ())
    };
    let forged = Err(SignerError::Signature(BadSignature).into());
    let other_kem = kem_key(2).public_key().as_bytes().to_vec();
    assert_eq!(altered(|_| ()), Ok(()));
    assert_eq!(altered(|b| b.agent_id[0] ^= 1), Err(SignerError::WrongKey.into()));
    assert_eq!(altered(|b| b.machine_id[0] ^= 1), forged);
    assert_eq!(altered(|b| b.display_name = "Eve".to_owned()), forged);
    assert_eq!(altered(|b| b.addresses[0].port += 1), forged);
    assert_eq!(altered(|b| b.addresses.clear()), forged);
    assert_eq!(altered(|b| b.kem_key = None), forged);
    assert_eq!(altered(|b| b.certificate = None), forged);
    assert_eq!(altered(|b| b.services[0].audience = 1), forged);
    assert_eq!(altered(|b| b.issued_at_ms -= 1), forged);
    assert_eq!(altered(|b| b.expires_at_ms += 1), forged);
    let mut body = CardBody::decode(fixed_parts(&good).0).expect("own form");
    body.kem_key = Some(other_kem);
    let swapped = with_body(&good, body.encode_to_vec());
    assert_eq!(verify(CardKind::Agent, &swapped, NOW).map(|_| ()), forged);
}

#[test]
fn a_certificate_in_it_must_hold() {
    let with = |certificate| {
        let issued =
            SignedCard::of_agent(&key(AGENT), Card { certificate: Some(certificate), ..card() });
        verify(CardKind::Agent, &issued.expect("short texts").encode(), NOW).map(|_| ())
    };
    let other = key(2).public_key().agent_id();
    let foreign = SignedCertificate::issue(&key(USER), other, NOW, DAY);
    assert_eq!(with(foreign), Err(CertificateError::WrongAgent.into()));
    let agent = key(AGENT).public_key().agent_id();
    let old = SignedCertificate::issue(&key(USER), agent, WallTime::from_millis(1), DAY);
    assert_eq!(with(old), Err(CertificateError::from(ValidityError::Expired).into()));
}

#[test]
fn what_is_written_is_bounded() {
    let named = |name: &str| {
        SignedCard::of_agent(&key(AGENT), Card { display_name: name.to_owned(), ..card() })
    };
    assert!(named(&"x".repeat(MAX_DISPLAY_NAME + 1)).is_err());
    assert!(named("a\nb").is_err());
    let many = Card {
        addresses: vec!["192.0.2.1:1".parse().expect("v4"); MAX_ADDRESSES + 3],
        services: vec![card().services[0].clone(); MAX_SERVICES + 3],
        expires_at: WallTime::from_millis(u64::MAX),
        ..card()
    };
    let issued = SignedCard::of_agent(&key(AGENT), many).expect("short texts");
    assert_eq!(verify(CardKind::Agent, &issued.encode(), NOW).as_ref(), Ok(issued.card()));
    assert_eq!(issued.card().expires_at, NOW + MAX_CARD_VALIDITY);

    let good = agent_card().encode();
    let altered = |change: fn(&mut CardBody)| {
        let mut body = CardBody::decode(fixed_parts(&good).0).expect("own form");
        change(&mut body);
        SignedCard::decode(CardKind::Agent, &with_body(&good, body.encode_to_vec())).map(|_| ())
    };
    let field = |name| Err(DecodeError::Field(name));
    assert_eq!(altered(|b| b.display_name = "\u{202e}".to_owned()), field("display_name"));
    assert_eq!(altered(|b| b.addresses = vec![b.addresses[0].clone(); 9]), field("addresses"));
    assert_eq!(altered(|b| b.services = vec![b.services[0].clone(); 17]), field("services"));
    assert_eq!(altered(|b| b.services[0].audience = 0), field("audience"));
    assert_eq!(altered(|b| b.kem_key = Some(vec![0xff; KEM_PUBLIC_LEN])), field("kem_key"));
    let refused = SignedCard::decode(CardKind::Introduction, &good).map(|_| ());
    assert_eq!(refused, field("certificate"));
}

/// The encodings of version 1, fixed by `docs/protocol/identity.md`.
#[test]
fn golden_vectors() {
    let plain = Card { certificate: None, ..card() };
    let issued = SignedCard::of_agent(&key(AGENT), plain).expect("short texts");
    let bytes = vector(include_str!("../../tests/vectors/card-1.hex"));
    assert_eq!(verify(CardKind::Agent, &bytes, NOW).as_ref(), Ok(issued.card()));
    assert_eq!(fixed_parts(&bytes), fixed_parts(&issued.encode()));
    let bytes = vector(include_str!("../../tests/vectors/introduction-1.hex"));
    assert_eq!(verify(CardKind::Introduction, &bytes, NOW).as_ref(), Ok(introduction().card()));
    assert_eq!(fixed_parts(&bytes), fixed_parts(&introduction().encode()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_changed_byte_never_verifies(position in any::<prop::sample::Index>(), change in 1_u8..) {
        let good = agent_card().encode();
        let mut bad = good.to_vec();
        bad[position.index(good.len())] ^= change;
        if let Ok(decoded) = SignedCard::decode(CardKind::Agent, &bad) {
            prop_assert!(decoded.verify(NOW).is_err());
        }
    }

    #[test]
    fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = SignedCard::decode(CardKind::Agent, &bytes);
        let _ = SignedCard::decode(CardKind::Introduction, &bytes);
    }
}

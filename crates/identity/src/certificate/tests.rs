//! Everything a false certificate can get wrong.

use proptest::prelude::*;

use super::*;
use crate::{
    BadSignature, SignerError, ValidityError,
    envelope::testing::{fixed_parts, vector, with_body},
    testing::key,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The user's and the agent's key.
const USER: u64 = 50;
const AGENT: u64 = 1;

fn agent() -> AgentId {
    key(AGENT).public_key().agent_id()
}

fn issued() -> SignedCertificate {
    SignedCertificate::issue(&key(USER), agent(), NOW, DAY)
}

fn accepted() -> AcceptedCertificate {
    AcceptedCertificate::accept(&key(AGENT), issued()).expect("its own")
}

fn decode(bytes: &[u8]) -> SignedCertificateIn {
    SignedCertificate::decode(bytes).expect("well-formed")
}

#[test]
fn an_honest_certificate_holds_for_its_time() {
    let encoded = issued().encode();
    assert!(encoded.len() <= MAX_SIGNED_CERTIFICATE);
    let verified = decode(&encoded).verify(agent(), NOW).expect("holds");
    assert_eq!(verified.certificate, *issued().certificate());
    assert_eq!(&verified.user_key, key(USER).public_key());
    assert_eq!(verified.encode(), encoded);

    let at = |millis| decode(&encoded).verify(agent(), WallTime::from_millis(millis)).map(|_| ());
    let end = (NOW + DAY).as_millis();
    assert_eq!(at(end - 1), Ok(()));
    assert_eq!(at(end), Err(ValidityError::Expired.into()));
    assert_eq!(at(NOW.as_millis() - 3_600_000), Err(ValidityError::NotYetValid.into()));
    let longest = SignedCertificate::issue(&key(USER), agent(), NOW, Duration::MAX);
    assert_eq!(longest.certificate().not_after, NOW + MAX_CERTIFICATE_VALIDITY);
}

#[test]
fn it_is_renewed_in_its_last_third() {
    let certificate = *issued().certificate();
    assert!(!certificate.renewal_due(NOW));
    assert!(!certificate.renewal_due(NOW + DAY * 15 / 24));
    assert!(certificate.renewal_due(NOW + DAY * 17 / 24));
    assert!(certificate.renewal_due(NOW + DAY * 2));
    assert!(certificate.renewal_due(WallTime::default()), "nobody accepts it yet");
    let renewed = SignedCertificate::issue(&key(USER), agent(), NOW + DAY, DAY);
    assert!(renewed.certificate().serial > certificate.serial);
}

#[test]
fn other_agents_and_other_users_are_refused() {
    let other = key(2).public_key().agent_id();
    let encoded = issued().encode();
    let refused = decode(&encoded).verify(other, NOW).map(|_| ());
    assert_eq!(refused, Err(CertificateError::WrongAgent));

    let altered = |change: fn(&mut AgentCertificate)| {
        let mut certificate = *issued().certificate();
        change(&mut certificate);
        decode(&with_body(&encoded, encode_body(&certificate))).verify(agent(), NOW).map(|_| ())
    };
    let forged = Err(SignerError::Signature(BadSignature).into());
    assert_eq!(
        altered(|c| c.user = key(51).public_key().user_id()),
        Err(SignerError::WrongKey.into())
    );
    assert_eq!(altered(|c| c.serial += 1), forged);
    assert_eq!(altered(|c| c.not_after = c.not_after + DAY), forged);
    assert_eq!(altered(|c| c.not_after = c.not_before), Err(ValidityError::Length.into()));
}

#[test]
fn acceptance_needs_both_signatures() {
    let encoded = accepted().encode();
    assert!(encoded.len() <= MAX_ACCEPTED_CERTIFICATE);
    let verified = AcceptedCertificate::decode(&encoded).expect("own form").verify();
    assert_eq!(verified, Ok(accepted_as(&encoded)));
    assert!(AcceptedCertificate::accept(&key(2), issued()).is_none(), "another agent's");

    // Somebody certifies an agent and accepts in its name.
    let imposed = envelope::seal(&key(2), ACCEPTANCE_DOMAIN, issued().encode());
    let refused = AcceptedCertificate::decode(&imposed).expect("well-formed").verify();
    assert_eq!(refused, Err(CertificateError::Acceptance(SignerError::WrongKey)));
    // The agent accepts what no user has signed.
    let body = encode_body(&AgentCertificate {
        user: key(51).public_key().user_id(),
        ..*issued().certificate()
    });
    let unsigned = with_body(&issued().encode(), body);
    let imposed = envelope::seal(&key(AGENT), ACCEPTANCE_DOMAIN, unsigned);
    let refused = AcceptedCertificate::decode(&imposed).expect("well-formed").verify();
    assert_eq!(refused, Err(SignerError::WrongKey.into()));
}

fn accepted_as(encoded: &[u8]) -> AcceptedCertificate {
    let certificate = Bytes::copy_from_slice(&fixed_parts(encoded).0);
    let certificate =
        SignedCertificate { certificate: *issued().certificate(), encoded: certificate };
    AcceptedCertificate { certificate, encoded: Bytes::copy_from_slice(encoded) }
}

/// The encodings of version 1, fixed by `docs/protocol/identity.md`.
#[test]
fn golden_vectors() {
    let certificate = vector(include_str!("../../tests/vectors/certificate-1.hex"));
    let verified = decode(&certificate).verify(agent(), NOW).expect("holds");
    assert_eq!(verified.certificate, *issued().certificate());
    assert_eq!(fixed_parts(&certificate), fixed_parts(&issued().encode()));

    let accepted = vector(include_str!("../../tests/vectors/acceptance-1.hex"));
    let verified = AcceptedCertificate::decode(&accepted).expect("decodes").verify();
    assert_eq!(verified.expect("holds").certificate().encode(), certificate);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_changed_byte_never_verifies(position in any::<prop::sample::Index>(), change in 1_u8..) {
        let good = accepted().encode();
        let mut bad = good.to_vec();
        bad[position.index(good.len())] ^= change;
        if let Ok(decoded) = AcceptedCertificate::decode(&bad) {
            prop_assert!(decoded.verify().is_err());
        }
    }

    #[test]
    fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = SignedCertificate::decode(&bytes);
        let _ = AcceptedCertificate::decode(&bytes);
    }
}

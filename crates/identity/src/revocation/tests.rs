//! Only the key itself, or the user whom its agent had accepted, can revoke.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    BadSignature, SignedCertificate, SignerError,
    envelope::testing::{fixed_parts, vector, with_body},
    testing::key,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const USER: u64 = 50;
const AGENT: u64 = 1;

fn agent() -> AgentId {
    key(AGENT).public_key().agent_id()
}

fn accepted(user: u64, agent: u64) -> AcceptedCertificate {
    let id = key(agent).public_key().agent_id();
    let certificate = SignedCertificate::issue(&key(user), id, NOW, DAY);
    AcceptedCertificate::accept(&key(agent), certificate).expect("its own")
}

fn by_user() -> SignedRevocation {
    SignedRevocation::of_certified(&key(USER), &accepted(USER, AGENT), NOW, "lost").expect("short")
}

fn verify(bytes: &[u8]) -> Result<SignedRevocation, RevocationError> {
    SignedRevocation::decode(bytes).expect("well-formed").verify()
}

#[test]
fn each_key_revokes_itself() {
    let key = key(AGENT);
    let public = key.public_key();
    let subjects = [
        (SignedRevocation::of_machine(&key, NOW, "sold"), Subject::Machine(public.machine_id())),
        (SignedRevocation::of_agent(&key, NOW, ""), Subject::Agent(public.agent_id())),
        (SignedRevocation::of_user(&key, NOW, "left"), Subject::User(public.user_id())),
    ];
    for (issued, subject) in subjects {
        let issued = issued.expect("short");
        let encoded = issued.encode();
        assert!(encoded.len() <= MAX_SIGNED_REVOCATION);
        let verified = verify(&encoded).expect("holds");
        assert_eq!(verified, issued);
        assert_eq!((verified.revocation().subject, verified.revocation().by_user), (subject, None));
    }
}

#[test]
fn a_user_revokes_whom_they_certified() {
    let encoded = by_user().encode();
    assert!(encoded.len() <= MAX_SIGNED_REVOCATION, "{}", encoded.len());
    let verified = verify(&encoded).expect("holds");
    let user = key(USER).public_key().user_id();
    assert_eq!(verified.revocation().subject, Subject::Agent(agent()));
    assert_eq!(verified.revocation().by_user, Some(user));
}

#[test]
fn nobody_else_can() {
    // A stranger, without and with a certificate that is not theirs.
    let body = fixed_parts(&by_user().encode()).0;
    let stranger = envelope::seal(&key(9), REVOCATION_DOMAIN, body);
    assert_eq!(verify(&stranger).map(|_| ()), Err(SignerError::WrongKey.into()));
    let own = SignedRevocation::of_agent(&key(AGENT), NOW, "").expect("short");
    let body = fixed_parts(&own.encode()).0;
    let stranger = envelope::seal(&key(9), REVOCATION_DOMAIN, body);
    assert_eq!(verify(&stranger).map(|_| ()), Err(SignerError::WrongKey.into()));

    // A user with a real certificate, for another agent, a machine, or a user.
    let with = |subject, certificate: &AcceptedCertificate| {
        let issued = SignedRevocation::issue(&key(USER), subject, Some(certificate), NOW, "");
        verify(&issued.expect("short").encode()).map(|_| ())
    };
    let other = accepted(USER, 2);
    let machine = Subject::Machine(key(AGENT).public_key().machine_id());
    let user = Subject::User(key(AGENT).public_key().user_id());
    assert_eq!(with(Subject::Agent(agent()), &other), Err(RevocationError::NoRight));
    assert_eq!(with(machine, &accepted(USER, AGENT)), Err(RevocationError::NoRight));
    assert_eq!(with(user, &accepted(USER, AGENT)), Err(RevocationError::NoRight));
}

#[test]
fn every_field_is_signed() {
    let own = SignedRevocation::of_agent(&key(AGENT), NOW, "lost").expect("short").encode();
    let body = RevocationBody::decode(fixed_parts(&own).0).expect("own form");
    let altered = |change: fn(&mut RevocationBody)| {
        let mut body = body.clone();
        change(&mut body);
        verify(&with_body(&own, body.encode_to_vec())).map(|_| ())
    };
    let forged = Err(SignerError::Signature(BadSignature).into());
    assert_eq!(altered(|_| ()), Ok(()));
    assert_eq!(altered(|b| b.reason = "found".to_owned()), forged);
    assert_eq!(altered(|b| b.revoked_at_ms += 1), forged);
    assert_eq!(altered(|b| b.subject = 1), forged);
    assert_eq!(altered(|b| b.subject_id[0] ^= 1), Err(SignerError::WrongKey.into()));
}

#[test]
fn texts_and_kinds_are_bounded() {
    let long = "x".repeat(MAX_REASON + 1);
    assert!(SignedRevocation::of_agent(&key(AGENT), NOW, &long).is_err());
    assert!(SignedRevocation::of_agent(&key(AGENT), NOW, "a\u{1b}[2J").is_err());
    let own = SignedRevocation::of_agent(&key(AGENT), NOW, "lost").expect("short").encode();
    let altered = |change: fn(&mut RevocationBody)| {
        let mut body = RevocationBody::decode(fixed_parts(&own).0).expect("own form");
        change(&mut body);
        SignedRevocation::decode(&with_body(&own, body.encode_to_vec())).map(|_| ())
    };
    assert_eq!(altered(|b| b.subject = 4), Err(DecodeError::Field("subject")));
    assert_eq!(altered(|b| b.subject_id.truncate(5)), Err(DecodeError::Field("subject_id")));
    assert_eq!(altered(|b| b.reason = "a\nb".to_owned()), Err(DecodeError::Field("reason")));
    assert_eq!(
        altered(|b| b.certificate = Some(Bytes::new())),
        Err(DecodeError::Field("signature"))
    );
}

/// The encodings of version 1, fixed by `docs/protocol/identity.md`.
#[test]
fn golden_vectors() {
    let own = SignedRevocation::of_agent(&key(AGENT), NOW, "lost").expect("short");
    let bytes = vector(include_str!("../../tests/vectors/revocation-1.hex"));
    assert_eq!(verify(&bytes).expect("holds").revocation(), own.revocation());
    assert_eq!(fixed_parts(&bytes), fixed_parts(&own.encode()));
    let bytes = vector(include_str!("../../tests/vectors/revocation-user-1.hex"));
    assert_eq!(verify(&bytes).expect("holds").revocation(), by_user().revocation());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_changed_byte_never_verifies(position in any::<prop::sample::Index>(), change in 1_u8..) {
        let good = by_user().encode();
        let mut bad = good.to_vec();
        bad[position.index(good.len())] ^= change;
        if let Ok(decoded) = SignedRevocation::decode(&bad) {
            prop_assert!(decoded.verify().is_err());
        }
    }

    #[test]
    fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = SignedRevocation::decode(&bytes);
    }
}

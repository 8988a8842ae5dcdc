use x0x_identity::testing;

use super::*;

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const LEAF: &[u8] = b"a leaf's public key";

fn issued(validity: Duration) -> Vec<u8> {
    issue_credential(&testing::key(1), Suite::Hybrid, LEAF, NOW, validity)
}

#[test]
fn what_was_issued_verifies_for_its_key_suite_and_time() {
    let encoded = issued(Duration::from_secs(60));
    assert!(encoded.len() <= MAX_CREDENTIAL);
    let read = || LeafCredentialIn::decode(&encoded).expect("own form");
    let verified = read().verify(Suite::Hybrid, LEAF, Some(NOW)).expect("holds");
    assert_eq!(verified.agent, testing::key(1).public_key().agent_id());

    let later = Some(NOW + Duration::from_secs(60));
    assert_eq!(read().verify(Suite::Hybrid, LEAF, later), Err(CredentialError::NotValidNow));
    assert!(read().verify(Suite::Hybrid, LEAF, None).is_ok());
    assert_eq!(read().verify(Suite::Pure, LEAF, None), Err(CredentialError::OtherKey));
    assert_eq!(read().verify(Suite::Hybrid, b"other", None), Err(CredentialError::OtherKey));
}

#[test]
fn a_validity_beyond_the_longest_is_refused() {
    let mut body = CredentialBody {
        agent_id: testing::key(1).public_key().agent_id().as_bytes().to_vec(),
        leaf_key_hash: Sha256::digest(LEAF).to_vec(),
        suite: 0x4f,
        not_before_ms: 1,
        not_after_ms: 2 + MAX_CREDENTIAL_VALIDITY.as_millis() as u64,
    };
    for not_after in [body.not_after_ms, 1, 0] {
        body.not_after_ms = not_after;
        let signed = SignedCredential {
            body: body.encode_to_vec(),
            agent_key: testing::key(1).public_key().as_bytes().to_vec(),
            signature: testing::key(1)
                .sign(CREDENTIAL_DOMAIN, &body.encode_to_vec())
                .as_bytes()
                .to_vec(),
        };
        let read = LeafCredentialIn::decode(&signed.encode_to_vec()).expect("well-formed");
        assert_eq!(read.verify(Suite::Hybrid, LEAF, None), Err(CredentialError::Validity));
    }
}

#[test]
fn another_agents_key_or_signature_is_refused() {
    let mut signed = SignedCredential::decode(issued(Duration::from_secs(60)).as_slice()).unwrap();
    let verify = |signed: &SignedCredential| {
        let read = LeafCredentialIn::decode(&signed.encode_to_vec()).expect("well-formed");
        read.verify(Suite::Hybrid, LEAF, None)
    };
    let genuine = signed.signature.clone();
    signed.signature = testing::key(2).sign(CREDENTIAL_DOMAIN, &signed.body).as_bytes().to_vec();
    assert!(matches!(verify(&signed), Err(CredentialError::Signature(_))));
    signed.agent_key = testing::key(2).public_key().as_bytes().to_vec();
    assert_eq!(verify(&signed), Err(CredentialError::WrongAgent));
    signed.agent_key = testing::key(1).public_key().as_bytes().to_vec();
    signed.signature = testing::key(1).sign("x0x.other", &signed.body).as_bytes().to_vec();
    assert!(matches!(verify(&signed), Err(CredentialError::Signature(_))));
    signed.signature = genuine;
    assert!(verify(&signed).is_ok());
}

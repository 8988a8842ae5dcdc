//! Everything a false binding can get wrong.

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::{MAX_CLOCK_SKEW, envelope::Envelope, testing::key};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn machine() -> MachineId {
    key(100).public_key().machine_id()
}

/// A binding of agent 1 with a body and a key of the test's choice, properly signed by agent 1.
fn forged(binding: &AgentBinding, agent_key: &PublicKey) -> SignedBindingIn {
    let body = BindingBody::from(binding).encode_to_vec();
    let signature = key(1).sign(BINDING_DOMAIN, &body);
    let envelope = Envelope {
        body: body.into(),
        key: Bytes::copy_from_slice(agent_key.as_bytes()),
        signature: Bytes::copy_from_slice(signature.as_bytes()),
    };
    SignedBinding::decode(&envelope.encode_to_vec()).expect("well-formed")
}

fn honest() -> AgentBinding {
    *SignedBinding::issue(&key(1), machine(), NOW, HOUR).binding()
}

#[test]
fn an_honest_binding_holds_for_its_time() {
    let issued = SignedBinding::issue(&key(1), machine(), NOW, HOUR);
    let encoded = issued.encode();
    assert!(encoded.len() <= MAX_SIGNED_BINDING);
    let decoded = SignedBinding::decode(&encoded).expect("well-formed");
    assert_eq!(decoded.claimed_agent(), key(1).public_key().agent_id());

    let verified = decoded.clone().verify(machine(), NOW).expect("holds");
    assert_eq!(verified.binding, *issued.binding());
    assert_eq!(&verified.agent_key, key(1).public_key());

    let at = |millis| decoded.clone().verify(machine(), WallTime::from_millis(millis)).map(|_| ());
    let (start, end) = (NOW.as_millis(), NOW.as_millis() + 3_600_000);
    let skew = u64::try_from(MAX_CLOCK_SKEW.as_millis()).expect("small");
    assert_eq!(at(start - skew), Ok(()));
    assert_eq!(at(start - skew - 1), Err(BindingError::NotYetValid));
    assert_eq!(at(end - 1), Ok(()));
    assert_eq!(at(end), Err(BindingError::Expired));
    assert_eq!(at(0), Err(BindingError::NotYetValid));
    assert_eq!(at(u64::MAX), Err(BindingError::Expired));
}

#[test]
fn a_binding_for_another_machine_is_refused() {
    let decoded = forged(&honest(), key(1).public_key());
    let other = key(101).public_key().machine_id();
    assert_eq!(decoded.verify(other, NOW).map(|_| ()), Err(BindingError::WrongMachine));
}

#[test]
fn validity_is_bounded() {
    let issued = SignedBinding::issue(&key(1), machine(), NOW, Duration::MAX);
    assert_eq!(issued.binding().not_after, NOW + MAX_BINDING_VALIDITY);
    let check = |not_before, not_after| {
        let binding = AgentBinding { not_before, not_after, ..honest() };
        forged(&binding, key(1).public_key()).verify(machine(), NOW).map(|_| ())
    };
    let longest = NOW + MAX_BINDING_VALIDITY;
    assert_eq!(check(NOW, longest), Ok(()));
    assert_eq!(check(NOW, longest + Duration::from_millis(1)), Err(BindingError::Validity));
    assert_eq!(check(NOW, NOW), Err(BindingError::Validity));
    assert_eq!(check(longest, NOW), Err(BindingError::Validity));
    let forever = WallTime::from_millis(u64::MAX);
    assert_eq!(check(WallTime::default(), forever), Err(BindingError::Validity));
}

#[test]
fn the_agent_is_the_hash_of_the_key_that_signed() {
    let victim = AgentBinding { agent: key(2).public_key().agent_id(), ..honest() };
    let refusal = |signer: u64| {
        let signer = key(signer);
        forged(&victim, signer.public_key()).verify(machine(), NOW).map(|_| ())
    };
    assert_eq!(refusal(1), Err(BindingError::WrongAgent));
    assert_eq!(refusal(2), Err(BindingError::Signature(crate::BadSignature)));
}

#[test]
fn a_generation_is_signed() {
    let machine = machine();
    let moved = SignedBinding::issue_moved(&key(1), machine, 7, NOW, HOUR);
    let verified = SignedBinding::decode(&moved.encode()).expect("own form").verify(machine, NOW);
    assert_eq!(verified.expect("holds").binding, AgentBinding { generation: 7, ..honest() });

    let mut envelope = Envelope::decode(moved.encode()).expect("own form");
    envelope.body =
        BindingBody::from(&AgentBinding { generation: 8, ..honest() }).encode_to_vec().into();
    let forged = SignedBinding::decode(&envelope.encode_to_vec()).expect("well-formed");
    let refused = Err(BindingError::Signature(crate::BadSignature));
    assert_eq!(forged.verify(machine, NOW).map(|_| ()), refused);
}

#[test]
fn malformed_bindings_do_not_decode() {
    let good = SignedBinding::issue(&key(1), machine(), NOW, HOUR).encode();
    let change = |edit: fn(&mut Envelope)| {
        let mut envelope = Envelope::decode(good.clone()).expect("own form");
        edit(&mut envelope);
        SignedBinding::decode(&envelope.encode_to_vec()).map(|_| ())
    };
    assert_eq!(change(|e| e.signature.truncate(10)), Err(DecodeError::Field("signature")));
    assert_eq!(change(|e| e.key.truncate(10)), Err(DecodeError::Field("agent_key")));
    assert_eq!(change(|e| e.body = Bytes::new()), Err(DecodeError::Field("agent_id")));
    assert_eq!(
        change(|e| e.body = vec![0; MAX_BODY + 1].into()),
        Err(DecodeError::TooLarge { len: MAX_BODY + 1, max: MAX_BODY })
    );
    let huge = vec![0; MAX_SIGNED_BINDING + 1];
    assert!(matches!(SignedBinding::decode(&huge), Err(DecodeError::TooLarge { .. })));
}

/// The encoding of version 1, fixed by `docs/protocol/identity.md`. The signature in it was made
/// once; it must verify for ever.
#[test]
fn golden_vector() {
    let text = include_str!("../../tests/vectors/binding-1.hex");
    let bytes = HEXLOWER.decode(text.replace('\n', "").as_bytes()).expect("hex");
    let verified = SignedBinding::decode(&bytes).expect("decodes").verify(machine(), NOW);
    assert_eq!(verified.expect("holds").binding, honest());

    let signed = Envelope::decode(&bytes[..]).expect("own form");
    let issued = SignedBinding::issue(&key(1), machine(), NOW, HOUR).encode();
    let ours = Envelope::decode(issued).expect("own form");
    assert_eq!((signed.body, signed.key), (ours.body, ours.key));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_byte_never_verifies(position in any::<prop::sample::Index>(), change in 1_u8..) {
        let good = SignedBinding::issue(&key(1), machine(), NOW, HOUR).encode();
        let mut bad = good.to_vec();
        bad[position.index(good.len())] ^= change;
        if let Ok(decoded) = SignedBinding::decode(&bad) {
            prop_assert!(decoded.verify(machine(), NOW).is_err());
        }
    }

    #[test]
    fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = SignedBinding::decode(&bytes);
    }

    #[test]
    fn truncations_are_handled(length in 0_usize..5300) {
        let good = SignedBinding::issue(&key(1), machine(), NOW, HOUR).encode();
        prop_assert!(SignedBinding::decode(&good[..length.min(good.len() - 1)]).is_err());
    }
}

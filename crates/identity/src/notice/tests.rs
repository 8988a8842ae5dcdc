//! A notice proves itself, or says nothing.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    BindingError, CertificateError, SignerError, envelope::testing::with_body, testing::key,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn agent(n: u64) -> AgentId {
    key(n).public_key().agent_id()
}

fn standing(certified: u64) -> Bytes {
    let machine = key(100).public_key().machine_id();
    let binding = SignedBinding::issue_moved(&key(1), machine, 7, NOW, HOUR);
    let certificate = SignedCertificate::issue(&key(50), agent(certified), NOW, HOUR);
    Notice::Agent { binding, certificate: Some(certificate) }.encode()
}

fn verify(bytes: &[u8], author: u64, now: WallTime) -> Result<(), NoticeError> {
    let Ok(NoticeIn::Agent(notice)) = Notice::decode(bytes) else { panic!("not a standing") };
    notice.verify(agent(author), now).map(|_| ())
}

#[test]
fn a_standing_is_the_author_s_own() {
    let Ok(NoticeIn::Agent(notice)) = Notice::decode(&standing(1)) else {
        panic!("not a standing")
    };
    let (binding, certificate) = notice.verify(agent(1), NOW).expect("holds");
    assert_eq!((binding.binding.agent, binding.binding.generation), (agent(1), 7));
    let user = certificate.expect("there").certificate.user;
    assert_eq!(user, key(50).public_key().user_id());

    assert_eq!(verify(&standing(1), 2, NOW), Err(NoticeError::WrongAuthor));
    assert_eq!(verify(&standing(1), 1, NOW + HOUR), Err(BindingError::Expired.into()));
    assert_eq!(verify(&standing(2), 1, NOW), Err(CertificateError::WrongAgent.into()));
}

#[test]
fn a_revocation_may_come_from_anybody() {
    let revocation = SignedRevocation::of_agent(&key(1), NOW, "lost").expect("short");
    let encoded = Notice::Revocation(revocation.clone()).encode();
    let Ok(NoticeIn::Revocation(read)) = Notice::decode(&encoded) else { panic!("no revocation") };
    assert_eq!(read.verify(), Ok(revocation.clone()));

    let forged = SignedRevocation::of_agent(&key(2), NOW, "lost").expect("short");
    let body = crate::envelope::testing::fixed_parts(&forged.encode()).0;
    let forged = with_body(&revocation.encode(), body.to_vec());
    let forged = NoticeMessage { revocation: Some(forged.into()), ..NoticeMessage::default() };
    let read = Notice::decode(&forged.encode_to_vec());
    let Ok(NoticeIn::Revocation(read)) = read else { panic!("no revocation") };
    assert_eq!(read.verify().map(|_| ()), Err(SignerError::WrongKey.into()));
}

#[test]
fn a_notice_says_one_thing() {
    let NoticeMessage { binding, certificate, .. } =
        NoticeMessage::decode(standing(1)).expect("own form");
    let revocation = SignedRevocation::of_agent(&key(1), NOW, "").expect("short").encode();
    let refused = Err(DecodeError::Field("notice"));
    for (binding, certificate, revocation) in [
        (None, None, None),
        (None, certificate.clone(), None),
        (binding.clone(), None, Some(revocation.clone())),
        (None, certificate, Some(revocation)),
    ] {
        let message = NoticeMessage { binding, certificate, revocation };
        assert_eq!(Notice::decode(&message.encode_to_vec()).map(|_| ()), refused);
    }
    let huge = vec![0; MAX_NOTICE + 1];
    assert!(matches!(Notice::decode(&huge), Err(DecodeError::TooLarge { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_changed_byte_never_verifies(position in any::<prop::sample::Index>(), change in 1_u8..) {
        let good = standing(1);
        let mut bad = good.to_vec();
        bad[position.index(good.len())] ^= change;
        if let Ok(NoticeIn::Agent(notice)) = Notice::decode(&bad) {
            prop_assert!(notice.verify(agent(1), NOW).is_err());
        }
    }

    #[test]
    fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = Notice::decode(&bytes);
    }
}

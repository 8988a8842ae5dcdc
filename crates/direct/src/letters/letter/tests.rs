use std::time::Duration;

use proptest::prelude::*;
use x0x_identity::testing::{kem_key, key};

use super::*;

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn agent(n: u64) -> AgentId {
    key(n).public_key().agent_id()
}

fn binding(n: u64) -> SignedBinding {
    SignedBinding::issue(&key(n), MachineId::new([9; 32]), NOW, WEEK)
}

fn draft_of(payload: Bytes) -> Draft {
    Draft {
        id: [1; 16],
        to: agent(2),
        kind: Kind::Mail,
        reply_to: Some([2; 16]),
        wants_read: true,
        sent_at: NOW,
        expires_at: NOW + WEEK,
        after: Some(After { id: [3; 16], expires_at: NOW + WEEK }),
        payload,
    }
}

fn sealed(draft: &Draft) -> Bytes {
    seal(draft, &key(1), &binding(1), kem_key(2).public_key()).expect("a letter")
}

fn open_as(sealed: &[u8], from: u64, to: u64, now: WallTime) -> Result<Opened, OpenLetterError> {
    open(sealed, &kem_key(2), (&agent(from), &agent(to)), now)
}

#[test]
fn what_is_sealed_is_opened_by_its_recipient_alone() {
    let draft = draft_of("a word in private".into());
    let sealed = sealed(&draft);
    let opened = open_as(&sealed, 1, 2, NOW).expect("it is whole");
    assert_eq!((opened.from(), opened.machine()), (agent(1), MachineId::new([9; 32])));
    assert_eq!(opened.draft, draft);
    let wrong_key = open(&sealed, &kem_key(3), (&agent(1), &agent(2)), NOW);
    assert_eq!(wrong_key, Err(OpenLetterError::Sealed(OpenError)));
    assert_eq!(open_as(&sealed, 3, 2, NOW), Err(OpenLetterError::Sealed(OpenError)));
    assert_eq!(open_as(&sealed, 1, 3, NOW), Err(OpenLetterError::Sealed(OpenError)));
    let window = b"a word in private".len();
    assert!(sealed.windows(window).all(|bytes| bytes != b"a word in private"));
    let sender = agent(1);
    assert!(sealed.windows(32).all(|bytes| bytes != sender.as_bytes()));
}

#[test]
fn a_changed_letter_is_refused() {
    let sealed = sealed(&draft_of("x".into()));
    for at in (0..sealed.len()).step_by(251) {
        let mut forged = sealed.to_vec();
        forged[at] ^= 1;
        assert!(open_as(&forged, 1, 2, NOW).is_err(), "byte {at}");
        assert!(open_as(&sealed[..at], 1, 2, NOW).is_err(), "cut at {at}");
    }
}

#[test]
fn what_a_correspondent_invents_is_refused() {
    let kem = kem_key(2);
    let refused = |draft: &Draft, signer: u64, bound: u64, now: WallTime| {
        let sealed = seal(draft, &key(signer), &binding(bound), kem.public_key()).expect("sealed");
        open_as(&sealed, signer, 2, now).expect_err("it is wrong")
    };
    let draft = draft_of("x".into());
    assert_eq!(refused(&draft, 4, 1, NOW), OpenLetterError::WrongSender);
    let sealed = seal(&draft, &key(4), &binding(1), kem.public_key()).expect("sealed");
    assert!(open_as(&sealed, 1, 2, NOW).is_err(), "sealed under another name");
    assert_eq!(refused(&draft, 1, 1, NOW + WEEK), OpenLetterError::Time);
    let early = Draft { sent_at: NOW + Duration::from_secs(3600), ..draft.clone() };
    assert_eq!(refused(&early, 1, 1, NOW), OpenLetterError::Time);
    let late = Draft { expires_at: NOW + WEEK * 3, ..draft.clone() };
    assert!(matches!(refused(&late, 1, 1, NOW + WEEK * 2), OpenLetterError::Binding(_)));
    let session = Draft { kind: Kind::Session, ..draft.clone() };
    let refusal = seal(&session, &key(1), &binding(1), kem.public_key());
    assert_eq!(refusal, Err(SealLetterError::Kind));
    let large = draft_of(vec![0; MAX_LETTER_PAYLOAD + 1].into());
    let refusal = seal(&large, &key(1), &binding(1), kem.public_key());
    assert_eq!(refusal, Err(SealLetterError::TooLarge(MAX_LETTER_PAYLOAD + 1)));
}

#[test]
fn sizes_hide_what_is_inside() {
    let sizes = [0, 1, 1000, 2500].map(|len| sealed(&draft_of(vec![0; len].into())).len());
    assert_eq!(sizes, [MIN_PADDED + SEALED_OVERHEAD; 4]);
    let largest = sealed(&draft_of(vec![0; MAX_LETTER_PAYLOAD].into()));
    assert_eq!(largest.len(), MAX_SEALED);
    assert!(open_as(&largest, 1, 2, NOW).is_ok());
    let steps = [1, 12 * 1024 + 1, 16 * 1024 + 1, 24 * 1024 + 1, 384 * 1024].map(padded_len);
    assert_eq!(steps, [12, 16, 24, 32, 384].map(|kib| kib * 1024));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn letters_round_trip(
        id: [u8; 16], reply_to: Option<[u8; 16]>, wants_read: bool, note: bool,
        after: Option<[u8; 16]>, payload in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let draft = Draft {
            id, reply_to, wants_read,
            kind: if note { Kind::Read } else { Kind::Mail },
            after: after.map(|id| After { id, expires_at: NOW }),
            ..draft_of(payload.into())
        };
        prop_assert_eq!(open_as(&sealed(&draft), 1, 2, NOW).map(|opened| opened.draft), Ok(draft));
    }
}

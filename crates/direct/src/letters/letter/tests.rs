use std::time::Duration;

use proptest::prelude::*;
use x0x_identity::testing::{kem_key, key};

use super::*;

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn agent(n: u64) -> AgentId {
    key(n).public_key().agent_id()
}

/// The machine to which the mailbox was given.
const MACHINE: MachineId = MachineId::new([9; 32]);

fn binding(n: u64) -> SignedBinding {
    SignedBinding::issue(&key(n), MACHINE, NOW, WEEK)
}

/// The secret of the mailbox of one agent on one machine.
fn secret(of: u64, machine: MachineId) -> MailboxSecret {
    key(2).mailboxes().secret(&agent(of), &machine, 1)
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
    let to = kem_key(2);
    seal(draft, &key(1), &binding(1), (to.public_key(), &secret(1, MACHINE))).expect("a letter")
}

fn open_as(sealed: &[u8], from: u64, to: u64, now: WallTime) -> Result<Opened, OpenLetterError> {
    let opens = (&kem_key(2), &secret(from, MACHINE));
    open(sealed, opens, (&agent(from), &MACHINE), &agent(to), now)
}

#[test]
fn what_is_sealed_is_opened_by_its_recipient_alone() {
    let draft = draft_of("a word in private".into());
    let sealed = sealed(&draft);
    let opened = open_as(&sealed, 1, 2, NOW).expect("it is whole");
    assert_eq!((opened.from(), opened.machine()), (agent(1), MACHINE));
    assert_eq!(opened.draft, draft);
    let wrong = (&kem_key(3), &secret(1, MACHINE));
    let wrong_key = open(&sealed, wrong, (&agent(1), &MACHINE), &agent(2), NOW);
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
        let to = (kem.public_key(), &secret(signer, MACHINE));
        let sealed = seal(draft, &key(signer), &binding(bound), to).expect("sealed");
        open_as(&sealed, signer, 2, now).expect_err("it is wrong")
    };
    let draft = draft_of("x".into());
    assert_eq!(refused(&draft, 4, 1, NOW), OpenLetterError::WrongSender);
    let of_another = secret(1, MACHINE);
    let sealed = seal(&draft, &key(4), &binding(1), (kem.public_key(), &of_another));
    let sealed = sealed.expect("sealed");
    assert!(open_as(&sealed, 1, 2, NOW).is_err(), "sealed under another name");
    assert_eq!(refused(&draft, 1, 1, NOW + WEEK), OpenLetterError::Time);
    let early = Draft { sent_at: NOW + Duration::from_secs(3600), ..draft.clone() };
    assert_eq!(refused(&early, 1, 1, NOW), OpenLetterError::Time);
    let late = Draft { expires_at: NOW + WEEK * 3, ..draft.clone() };
    assert!(matches!(refused(&late, 1, 1, NOW + WEEK * 2), OpenLetterError::Binding(_)));
    let session = Draft { kind: Kind::Session, ..draft.clone() };
    let refusal = seal(&session, &key(1), &binding(1), (kem.public_key(), &of_another));
    assert_eq!(refusal, Err(SealLetterError::Kind));
    let large = draft_of(vec![0; MAX_LETTER_PAYLOAD + 1].into());
    let refusal = seal(&large, &key(1), &binding(1), (kem.public_key(), &of_another));
    assert_eq!(refusal, Err(SealLetterError::TooLarge(MAX_LETTER_PAYLOAD + 1)));
}

#[test]
fn a_letter_names_the_machine_that_was_given_the_mailbox() {
    let (kem, draft) = (kem_key(2), draft_of("x".into()));
    let left = MachineId::new([8; 32]);
    // Who has the sender's key on a machine that the sender left knows that machine's secret alone.
    let forged = |named: MachineId, known: MachineId| {
        let binding = SignedBinding::issue(&key(1), named, NOW, WEEK);
        seal(&draft, &key(1), &binding, (kem.public_key(), &secret(1, known))).expect("sealed")
    };
    let open_in = |sealed: &[u8], machine: MachineId| {
        open(sealed, (&kem, &secret(1, machine)), (&agent(1), &machine), &agent(2), NOW)
    };
    let honest = forged(MACHINE, MACHINE);
    assert_eq!(open_in(&honest, MACHINE).map(|opened| opened.machine()), Ok(MACHINE));
    // It names the new machine in the old one's mailbox.
    let named = forged(MACHINE, left);
    assert_eq!(open_in(&named, left), Err(OpenLetterError::WrongMachine));
    // A holder that is in league with it lists the letter in the new machine's mailbox.
    assert_eq!(open_in(&named, MACHINE), Err(OpenLetterError::Sealed(OpenError)));
    assert!(open_in(&forged(left, left), MACHINE).is_err());
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

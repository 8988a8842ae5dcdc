use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::{SecretKey, testing};

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn machine(n: u8) -> MachineId {
    MachineId::new([n; 32])
}

#[test]
fn both_ends_compute_the_same_and_nobody_else() {
    let boxes = testing::key(1).mailboxes();
    let secret = boxes.secret(&agent(2), &machine(9), 7);
    let given = MailboxSecret::new(*secret.as_bytes());
    assert_eq!(given.pickup(&machine(3)).tag(), secret.pickup(&machine(3)).tag());
    let others = [
        secret.pickup(&machine(4)),
        boxes.secret(&agent(3), &machine(9), 7).pickup(&machine(3)),
        boxes.secret(&agent(2), &machine(8), 7).pickup(&machine(3)),
        boxes.secret(&agent(2), &machine(9), 8).pickup(&machine(3)),
        testing::key(2).mailboxes().secret(&agent(2), &machine(9), 7).pickup(&machine(3)),
        secret.pickup(&machine(3)),
    ];
    let tags: BTreeSet<Tag> = others.iter().map(Pickup::tag).collect();
    assert_eq!(tags.len(), others.len(), "no two are the same");
}

#[test]
fn keys_of_periods_differ_and_follow_from_the_agents_key() {
    let boxes = testing::key(1).mailboxes();
    let again = SecretKey::from_pkcs8(&testing::key(1).to_pkcs8()).expect("a key").mailboxes();
    assert_eq!(boxes.kem(3).public_key(), again.kem(3).public_key());
    assert_ne!(boxes.kem(3).public_key(), boxes.kem(4).public_key());
    assert_eq!(boxes.places(3), again.places(3));
    assert_ne!(boxes.places(3), boxes.places(4));
    let secret = boxes.secret(&agent(2), &machine(9), 3);
    assert_ne!(boxes.places(3), *secret.as_bytes());
    assert!(!format!("{boxes:?} {secret:?}").contains("1,"));
}

#[test]
fn periods_follow_each_other() {
    let period = mailbox_period(WallTime::from_millis(1_800_000_000_000));
    let end = mailbox_period_end(period);
    assert_eq!(mailbox_period(WallTime::from_millis(end.as_millis() - 1)), period);
    assert_eq!(mailbox_period(end), period + 1);
    assert!(mailbox_period_end(u64::MAX) > end);
}

/// Derived values are part of the protocol: an agent that is moved must find its letters.
#[test]
fn derivations_never_change() {
    let secret = testing::key(1).mailboxes().secret(&agent(2), &machine(9), 7);
    let pickup = secret.pickup(&machine(3));
    let info = secret.seal_info("purpose");
    let vector = include_str!("../../tests/vectors/mailbox-1.hex");
    let lines: Vec<String> =
        [secret.as_bytes(), pickup.as_bytes(), pickup.tag().as_bytes(), &info[..]]
            .map(|bytes: &[u8]| HEXLOWER.encode(bytes))
            .into();
    assert_eq!(lines, vector.lines().collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn no_two_correspondents_share_a_tag(a: [u8; 32], b: [u8; 32], holder: [u8; 32]) {
        prop_assume!(a != b);
        let boxes = testing::key(1).mailboxes();
        let holder = MachineId::new(holder);
        let tag = |of: [u8; 32]| boxes.secret(&AgentId::new(of), &machine(9), 1).pickup(&holder).tag();
        prop_assert_ne!(tag(a), tag(b));
    }
}

//! The effects of trust, written down a second time: a change of the table must be meant.

use x0x_trust::{Action, Decision, EFFECTS, Reason, Verdict};

/// For each action: who is let through, who is refused openly, and who without a sign.
const EXPECTED: [(Action, &[Reason], &[Reason]); 11] = {
    use Reason::*;
    const ALL: &[Reason] = &[Unknown, Known, Trusted, Pinned];
    const CONTACTS: &[Reason] = &[Known, Trusted, Pinned];
    const REFUSED: &[Reason] = &[Revoked, Blocked, WrongMachine, Superseded];
    [
        (Action::GossipDeliver, ALL, &[]),
        (Action::DirectReceive, ALL, &[]),
        (Action::DirectSend, ALL, REFUSED),
        (Action::FileOffer, ALL, &[]),
        (Action::GroupInvite, ALL, &[]),
        (Action::ContactShare, CONTACTS, &[Revoked, Blocked, WrongMachine, Superseded, Unknown]),
        (Action::PresenceQuery, CONTACTS, &[]),
        (Action::PresenceVisible, ALL, REFUSED),
        (Action::Exec, &[Trusted, Pinned], &[Unknown, Known]),
        (Action::AnnounceAccept, ALL, &[]),
        (Action::SessionAccept, &[Blocked, WrongMachine, Unknown, Known, Trusted, Pinned], &[]),
    ]
};

#[test]
fn every_cell() {
    for (action, allowed, denied) in EXPECTED {
        for reason in Reason::ALL {
            let expected = if allowed.contains(&reason) {
                Verdict::Allow
            } else if denied.contains(&reason) {
                Verdict::Deny
            } else {
                Verdict::Silent
            };
            let decision = Decision::of(reason, action);
            assert_eq!((decision.verdict, decision.reason), (expected, reason), "{action:?}");
            assert_eq!(decision.allowed(), expected == Verdict::Allow);
        }
    }
}

#[test]
fn the_table_is_in_the_order_of_its_index() {
    for (index, (action, _)) in EFFECTS.iter().enumerate() {
        assert_eq!((*action as usize, Action::ALL[index]), (index, *action));
    }
    for (index, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
}

/// What comes from a peer is never refused in a way that tells it more than silence would.
#[test]
fn no_peer_learns_that_it_is_blocked() {
    let from_peers = [
        Action::GossipDeliver,
        Action::DirectReceive,
        Action::FileOffer,
        Action::GroupInvite,
        Action::PresenceQuery,
        Action::Exec,
        Action::AnnounceAccept,
    ];
    for action in from_peers {
        for reason in [Reason::Revoked, Reason::Blocked, Reason::WrongMachine, Reason::Superseded] {
            assert_eq!(
                Decision::of(reason, action).verdict,
                Verdict::Silent,
                "{action:?} {reason}"
            );
        }
    }
}

//! What may be left, by whom, and how much of it.

use bytes::Bytes;

use super::*;
use crate::{
    fixtures::at,
    mail::Retention,
    wire::{MessageIn, Terms},
};

/// Agent 0 is unwanted, those below 10 are contacts.
#[derive(Debug)]
struct ById;

impl Standings for ById {
    fn standing(&self, agent: &AgentId, _: &MachineId) -> Standing {
        match agent.as_bytes()[0] {
            0 => Standing::Unwanted,
            1..10 => Standing::Contact,
            _ => Standing::Stranger,
        }
    }

    fn may_send(&self, agent: &AgentId, machine: &MachineId) -> bool {
        self.standing(agent, machine) != Standing::Unwanted
    }
}

fn mail(from: u8, len: usize, kind: Kind) -> Verified {
    mail_of(AgentId::new([from; 32]), len, kind)
}

fn mail_of(from: AgentId, len: usize, kind: Kind) -> Verified {
    let payload = Bytes::from(vec![0; len]);
    let terms = Terms { kind, ..Terms::default() };
    let message = MessageIn { epoch: 1, seq: 1, id: [0; 16], from, to: from, payload, terms };
    message.verify(&[from], &[from]).expect("it is proven")
}

fn admittance() -> Admittance {
    let quotas = Quotas {
        contact: Share { messages: 3, bytes: 100 },
        stranger: Share { messages: 2, bytes: 50 },
        strangers: Share { messages: 6, bytes: 80 },
        all: Share { messages: 8, bytes: 1000 },
    };
    Admittance::new(Arc::new(ById), quotas)
}

fn admit(admittance: &Admittance, from: u8, len: usize) -> Admit {
    admittance.admit(Tick::ZERO, &mail(from, len, Kind::Mail), MachineId::new([1; 32]))
}

#[test]
fn shares_bound_each_sender_and_strangers_together() {
    let held = admittance();
    assert_eq!(admit(&held, 0, 1), Admit::Ignore);
    for _ in 0..2 {
        assert_eq!(admit(&held, 20, 10), Admit::Take);
    }
    assert_eq!(admit(&held, 20, 10), Admit::Refuse, "its share is full");
    assert_eq!(admit(&held, 21, 200), Admit::Refuse, "bytes of all strangers");
    assert_eq!(admit(&held, 21, 10), Admit::Take);
    assert_eq!(admit(&held, 21, 10), Admit::Refuse, "three are left, for others");
    assert_eq!(admit(&held, 22, 51), Admit::Refuse, "its bytes");
    for newcomer in 22..25 {
        assert_eq!(admit(&held, newcomer, 1), Admit::Take);
    }
    assert_eq!(admit(&held, 25, 1), Admit::Refuse, "strangers together");
    assert_eq!(admit(&held, 1, 500), Admit::Take, "one large message of a contact passes alone");
    assert_eq!(admit(&held, 1, 1), Admit::Refuse);
    let session = mail(22, 1, Kind::Session);
    let machine = MachineId::new([1; 32]);
    assert_eq!(held.admit(Tick::ZERO, &session, machine), Admit::Take, "it is not kept");
}

#[test]
fn no_more_lies_unread_than_is_kept() {
    let retention = Retention { messages: 1000, bytes: 40 << 20, ..Retention::default() };
    let quotas = Quotas::default().within(&retention);
    assert_eq!(quotas.all, Share { messages: 1000, bytes: 40 << 20 });
    assert_eq!(quotas.contact, quotas.all);
    assert_eq!(quotas.strangers, Share { messages: 250, bytes: 10 << 20 });
    assert_eq!(quotas.stranger, quotas.strangers);
    assert_eq!(Quotas::default().within(&Retention::default()), Quotas::default());
}

#[test]
fn notes_are_asked_of_trust_and_have_a_rate() {
    let held = admittance();
    let machine = MachineId::new([1; 32]);
    let note = |from| held.admit(Tick::ZERO, &mail(from, 64 * 16, Kind::Read), machine);
    assert_eq!(note(0), Admit::Ignore);
    assert_eq!((0..100).filter(|_| note(20) == Admit::Take).count(), 8);
    assert_eq!(note(20), Admit::Refuse);
    assert_eq!((0..100).filter(|_| note(1) == Admit::Take).count(), 64);
    assert_eq!(held.unread(), Share::default(), "nothing of them stays");
}

#[test]
fn what_strangers_left_before_a_restart_still_counts() {
    let held = admittance();
    let unread = |number, from| {
        let (from, machine) = (AgentId::new([from; 32]), MachineId::new([1; 32]));
        Unread { number, from, machine, bytes: 10 }
    };
    let left = [(5, 20), (6, 21), (7, 21), (8, 23), (9, 24), (10, 25)];
    held.restore(4, left.map(|(number, from)| unread(number, from)));
    assert_eq!((held.seen_through(), held.unread().messages), (4, 6));
    assert_eq!(admit(&held, 22, 1), Admit::Refuse, "strangers together");
    assert_eq!(admit(&held, 1, 1), Admit::Take);
    assert!(held.seen(4, 5));
    assert_eq!(admit(&held, 21, 1), Admit::Refuse, "its share is full");
    assert_eq!(admit(&held, 22, 1), Admit::Take);
    assert!(held.seen(5, 10));
    assert_eq!(held.unread().messages, 2, "what came since");
}

/// Whoever leaves all that it may, under hundreds of names, does not keep the next one out.
#[test]
fn a_crowd_of_strangers_leaves_room_for_the_next() {
    let machine = MachineId::new([1; 32]);
    for len in [10, MAX_PAYLOAD] {
        let held = Admittance::new(Arc::new(ById), Quotas::default());
        let leave = |n: u16, len: usize| {
            let mut from = [20; 32];
            from[1..3].copy_from_slice(&n.to_be_bytes());
            let message = mail_of(AgentId::new(from), len, Kind::Mail);
            (0..5000)
                .take_while(|_| held.admit(Tick::ZERO, &message, machine) == Admit::Take)
                .count()
        };
        let alone = leave(0, len);
        assert_eq!(alone, if len == 10 { 1024 } else { 2 }, "one has its share");
        let most = (1..700).map(|n| leave(n, len)).max();
        assert!(most <= Some(alone), "{most:?}");
        assert!(leave(700, 10) >= 1, "{len}");
        assert!(held.unread().messages <= Quotas::default().strangers.messages);
    }
}

#[test]
fn what_is_seen_or_not_stored_makes_room() {
    let held = admittance();
    for _ in 0..3 {
        assert_eq!(admit(&held, 1, 10), Admit::Take);
    }
    held.settle(None);
    assert_eq!(held.unread(), Share { messages: 2, bytes: 20 });
    held.settle(Some(1));
    held.settle(Some(2));
    assert!(held.seen(0, 1) && !held.seen(0, 1));
    assert_eq!(held.unread().messages, 1);
    assert!(held.seen(1, 9));
    assert_eq!(held.unread(), Share::default());
}

#[test]
fn the_mark_never_passes_what_nobody_was_handed() {
    let held = admittance();
    for number in 1..=4 {
        assert_eq!(admit(&held, 1 + number, 10), Admit::Take);
        held.settle(Some(u64::from(number)));
    }
    assert!(!held.seen(2, 4), "a reader that began after the second one");
    assert_eq!((held.seen_through(), held.unread().messages), (0, 2), "its share is given back");
    assert!(held.seen(0, 1));
    assert_eq!(held.seen_through(), 1);
    assert!(held.seen(1, 2));
    assert_eq!((held.seen_through(), held.unread()), (4, Share::default()));
    // The store hands it out before its sender's share is settled.
    assert_eq!(admit(&held, 1, 10), Admit::Take);
    held.seen(4, 5);
    held.settle(Some(5));
    assert_eq!((held.seen_through(), held.unread()), (5, Share::default()));
}

#[test]
fn the_unwanted_are_refused_where_strangers_are() {
    let machine = MachineId::new([1; 32]);
    for (kind, len) in [(Kind::Mail, 10), (Kind::Mail, 100_000), (Kind::Read, 640)] {
        let held = Admittance::new(Arc::new(ById), Quotas::default());
        let mut number = 0;
        let mut taken = |from: u8, secs: u64| -> Vec<bool> {
            let mut sent = |_| match held.admit(at(secs), &mail(from, len, kind), machine) {
                Admit::Refuse => false,
                Admit::Ignore => true,
                Admit::Take if kind == Kind::Mail => {
                    number += 1;
                    held.settle(Some(number));
                    held.seen(number - 1, number)
                }
                Admit::Take => true,
            };
            (0..1100).map(&mut sent).collect()
        };
        for secs in [1, 2, 60] {
            let unwanted = taken(0, secs);
            assert!(unwanted.contains(&false), "{kind:?} {len}");
            assert_eq!(unwanted, taken(20, secs), "{kind:?} {len}");
        }
    }
}

#[test]
fn a_stranger_that_is_read_at_once_has_a_rate() {
    let held = Admittance::new(Arc::new(ById), Quotas::default());
    let mut taken = 0;
    for number in 1..=20_000 {
        if admit(&held, 20, 10) == Admit::Take {
            taken += 1;
            held.settle(Some(number));
            held.seen(number - 1, number);
        }
    }
    assert_eq!(taken, 1024);
    for number in 20_001..=40_000 {
        assert_eq!(admit(&held, 1, 10), Admit::Take, "a contact has none");
        held.settle(Some(number));
        held.seen(number - 1, number);
    }
}

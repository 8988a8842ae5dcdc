//! What follows from contacts, pins, moves and revocations.

use proptest::prelude::*;
use x0x_core::{MAX_ADDRESSES, PeerAddr};
use x0x_identity::{AcceptedCertificate, SignedCertificate, SignedRevocation, testing::key};

use super::*;
use crate::{MAX_MACHINES, MAX_PLACES, MAX_REVOCATIONS};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

fn agent(n: u32) -> AgentId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    AgentId::new(bytes)
}

fn machine(n: u32) -> MachineId {
    MachineId::new(*agent(n).as_bytes())
}

fn binding(a: u32, m: u32, generation: u64) -> AgentBinding {
    let (agent, machine) = (agent(a), machine(m));
    AgentBinding { agent, machine, not_before: NOW, not_after: NOW, generation }
}

#[derive(Default)]
struct Bench {
    state: TrustState,
    events: Vec<TrustEvent>,
}

impl Bench {
    fn apply(&mut self, change: &Change) -> Outcome {
        self.state.apply(NOW, change, &mut self.events).expect("fine")
    }

    fn put(&mut self, a: u32, level: Level) -> Outcome {
        self.apply(&Change::Put { agent: agent(a), level, label: None })
    }

    fn pin(&mut self, a: u32, m: u32, pinned: bool) -> Outcome {
        self.apply(&Change::Pin { agent: agent(a), machine: machine(m), pinned })
    }

    fn observe(&mut self, a: u32, m: u32, generation: u64) -> Observation {
        self.state.observe(&binding(a, m, generation), NOW, &mut self.events)
    }

    fn reason(&self, a: u32, m: u32) -> Reason {
        self.state.reason(&agent(a), Some(&machine(m)))
    }

    fn take_events(&mut self) -> Vec<TrustEvent> {
        std::mem::take(&mut self.events)
    }
}

#[test]
fn levels_decide() {
    let mut bench = Bench::default();
    for (n, (level, reason)) in [
        (Level::Blocked, Reason::Blocked),
        (Level::Unknown, Reason::Unknown),
        (Level::Known, Reason::Known),
        (Level::Trusted, Reason::Trusted),
    ]
    .into_iter()
    .enumerate()
    {
        let n = n as u32;
        assert_eq!(bench.reason(n, 0), Reason::Unknown);
        assert_eq!(bench.put(n, level), Outcome::Created);
        assert_eq!(bench.put(n, level), Outcome::Unchanged);
        assert_eq!((bench.reason(n, 0), bench.state.level(&agent(n))), (reason, level));
        let raised = level >= Level::Known;
        let kind = bench.state.contact(&agent(n)).expect("there").identity_type;
        assert_eq!(kind == IdentityType::Known, raised);
    }
    assert_eq!(bench.apply(&Change::Remove { agent: agent(0) }), Outcome::Changed);
    assert_eq!(bench.apply(&Change::Remove { agent: agent(0) }), Outcome::Missing);
    assert_eq!(bench.reason(0, 0), Reason::Unknown);
}

#[test]
fn events_tell_who_was_blocked() {
    let mut bench = Bench::default();
    bench.put(1, Level::Known);
    bench.take_events();
    bench.put(1, Level::Blocked);
    let (from, to) = (Level::Known, Level::Blocked);
    let expected =
        [TrustEvent::Contact { agent: agent(1) }, TrustEvent::Level { agent: agent(1), from, to }];
    assert_eq!(bench.take_events(), expected);
    bench.put(1, Level::Blocked);
    assert!(bench.take_events().is_empty());
    bench.apply(&Change::Remove { agent: agent(1) });
    let back = TrustEvent::Level { agent: agent(1), from: to, to: Level::Unknown };
    assert_eq!(bench.take_events(), [TrustEvent::Removed { agent: agent(1) }, back]);
}

#[test]
fn a_pin_holds_whatever_the_level() {
    let mut bench = Bench::default();
    let put = |m, pinned| Change::PutMachine {
        agent: agent(1),
        machine: machine(m),
        label: None,
        pinned,
    };
    assert_eq!(bench.apply(&put(1, false)), Outcome::Created);
    assert_eq!(bench.reason(1, 2), Reason::Unknown);
    assert_eq!(bench.apply(&put(1, true)), Outcome::Changed);
    assert_eq!((bench.reason(1, 1), bench.reason(1, 2)), (Reason::Pinned, Reason::WrongMachine));
    assert_eq!(bench.state.reason(&agent(1), None), Reason::Unknown, "gossip knows no machine");
    bench.put(1, Level::Trusted);
    assert_eq!((bench.reason(1, 1), bench.reason(1, 2)), (Reason::Pinned, Reason::WrongMachine));
    bench.put(1, Level::Blocked);
    assert_eq!(bench.reason(1, 1), Reason::Blocked);
    bench.put(1, Level::Known);

    assert_eq!(bench.apply(&put(2, false)), Outcome::Created);
    assert_eq!(bench.pin(1, 2, true), Outcome::Changed);
    assert_eq!((bench.reason(1, 1), bench.reason(1, 2)), (Reason::Pinned, Reason::Pinned));
    assert_eq!(bench.pin(1, 1, false), Outcome::Changed);
    assert_eq!(bench.pin(1, 1, false), Outcome::Unchanged);
    assert_eq!((bench.reason(1, 1), bench.reason(1, 2)), (Reason::WrongMachine, Reason::Pinned));
    assert_eq!(bench.pin(1, 3, true), Outcome::Missing);
    assert_eq!(bench.pin(2, 2, true), Outcome::Missing);
    let gone = Change::RemoveMachine { agent: agent(1), machine: machine(2) };
    assert_eq!(bench.apply(&gone), Outcome::Changed);
    assert_eq!(bench.reason(1, 2), Reason::Known, "the last pin is off");
    assert_eq!(bench.apply(&gone), Outcome::Missing);
}

#[test]
fn an_agent_that_moved_leaves_its_machine() {
    for contact in [false, true] {
        let mut bench = Bench::default();
        let here = if contact {
            bench.put(1, Level::Known);
            Reason::Known
        } else {
            Reason::Unknown
        };
        assert_eq!(bench.observe(1, 1, 0), Observation::Current);
        assert_eq!(bench.observe(1, 2, 0), Observation::Current, "two machines at once may be");
        assert_eq!((bench.reason(1, 1), bench.reason(1, 2)), (here, here));
        bench.take_events();

        assert_eq!(bench.observe(1, 3, 10), Observation::Moved);
        let (from, to) = (Some(machine(2)), machine(3));
        let told = TrustEvent::Moved { agent: agent(1), from, to, refused: false };
        assert_eq!(bench.take_events(), [told]);
        assert_eq!(bench.reason(1, 3), here);
        assert_eq!(
            (bench.reason(1, 1), bench.reason(1, 2)),
            (Reason::Superseded, Reason::Superseded)
        );
        assert_eq!(bench.observe(1, 1, 0), Observation::Superseded, "the old one goes on in vain");
        assert_eq!(bench.observe(1, 3, 10), Observation::Current);
        assert_eq!(bench.observe(1, 1, 11), Observation::Moved, "back home");
        assert_eq!((bench.reason(1, 1), bench.reason(1, 3)), (here, Reason::Superseded));

        // Neither becoming a contact nor ceasing to be one brings an old machine back.
        bench.put(1, Level::Known);
        assert_eq!(bench.reason(1, 3), Reason::Superseded);
        bench.apply(&Change::Remove { agent: agent(1) });
        assert_eq!((bench.reason(1, 1), bench.reason(1, 3)), (Reason::Unknown, Reason::Superseded));
    }
}

#[test]
fn a_pinned_contact_does_not_follow_a_move() {
    let mut bench = Bench::default();
    bench.observe(1, 1, 0);
    let pin =
        Change::PutMachine { agent: agent(1), machine: machine(1), label: None, pinned: true };
    bench.apply(&pin);
    bench.take_events();
    assert_eq!(bench.observe(1, 2, 5), Observation::Refused);
    let (from, to) = (Some(machine(1)), machine(2));
    let warning = TrustEvent::Moved { agent: agent(1), from, to, refused: true };
    assert_eq!(bench.take_events(), [warning]);
    assert_eq!(bench.state.refused_move(&agent(1)), Some(machine(2)));
    assert_eq!(bench.observe(1, 2, 5), Observation::Refused);
    assert_eq!(bench.take_events(), [], "told once");
    assert_eq!((bench.reason(1, 1), bench.reason(1, 2)), (Reason::Pinned, Reason::WrongMachine));
    assert_eq!(bench.observe(1, 1, 0), Observation::Current, "a stolen key cannot push it out");

    // Somebody looks into it and pins the new machine.
    let pin =
        Change::PutMachine { agent: agent(1), machine: machine(2), label: None, pinned: true };
    bench.apply(&pin);
    bench.pin(1, 1, false);
    assert_eq!(bench.state.refused_move(&agent(1)), None);
    assert_eq!(bench.observe(1, 2, 5), Observation::Moved);
    assert_eq!((bench.reason(1, 1), bench.reason(1, 2)), (Reason::WrongMachine, Reason::Pinned));
}

#[test]
fn a_revocation_is_for_ever() {
    let mut bench = Bench::default();
    bench.put(1, Level::Trusted);
    bench.take_events();
    let revoke = Change::Revoke { agent: agent(1), reason: "stolen".to_owned() };
    assert_eq!(bench.apply(&revoke), Outcome::Created);
    let subject = Subject::Agent(agent(1));
    let told = TrustEvent::Level { agent: agent(1), from: Level::Trusted, to: Level::Blocked };
    assert_eq!(bench.take_events(), [TrustEvent::Revoked { subject }, told]);
    assert_eq!(bench.apply(&revoke), Outcome::Unchanged);
    for change in [
        Change::Put { agent: agent(1), level: Level::Trusted, label: None },
        Change::Update { agent: agent(1), level: Some(Level::Known), identity_type: None },
        Change::Remove { agent: agent(1) },
        Change::Put { agent: agent(1), level: Level::Trusted, label: None },
    ] {
        bench.apply(&change);
        assert_eq!(bench.reason(1, 1), Reason::Revoked);
        assert_eq!(bench.state.level(&agent(1)), Level::Blocked);
    }
    assert_eq!(bench.state.contact(&agent(1)).expect("there").trust_level, Level::Blocked);
}

#[test]
fn revoked_machines_and_users_take_their_agents_with_them() {
    let mut bench = Bench::default();
    let (user_key, machine_key, agent_key) = (key(50), key(100), key(1));
    let id = agent_key.public_key().agent_id();
    let user = user_key.public_key().user_id();
    let home = machine_key.public_key().machine_id();
    let learn = |bench: &mut Bench, signed: SignedRevocation| {
        bench.apply(&Change::Learn(signed.revocation().clone()))
    };
    bench.apply(&Change::Put { agent: id, level: Level::Trusted, label: None });
    let on = |bench: &Bench, machine: Option<MachineId>| bench.state.reason(&id, machine.as_ref());

    let revoked = SignedRevocation::of_machine(&machine_key, NOW, "").expect("short");
    assert_eq!(learn(&mut bench, revoked.clone()), Outcome::Created);
    assert_eq!(learn(&mut bench, revoked), Outcome::Unchanged);
    assert_eq!(on(&bench, Some(home)), Reason::Revoked);
    assert_eq!(on(&bench, Some(machine(2))), Reason::Trusted, "the agent may go on elsewhere");
    assert!(bench.state.machine_revoked(&home));

    learn(&mut bench, SignedRevocation::of_user(&user_key, NOW, "").expect("short"));
    assert_eq!(on(&bench, None), Reason::Trusted, "nobody knows that they belong together");
    let until = NOW + std::time::Duration::from_secs(60);
    bench.state.observe_user(id, user, until);
    let sighting = bench.state.sighting(&id).expect("a contact");
    assert_eq!((sighting.user(NOW), sighting.user(until)), (Some(user), None));
    assert_eq!((on(&bench, None), bench.state.level(&id)), (Reason::Revoked, Level::Blocked));

    // A stranger, by the user who had certified it; a local revocation gives way to that.
    let other = key(2);
    let certificate = SignedCertificate::issue(
        &user_key,
        other.public_key().agent_id(),
        NOW,
        std::time::Duration::MAX,
    );
    let accepted = AcceptedCertificate::accept(&other, certificate).expect("its own");
    let signed = SignedRevocation::of_certified(&user_key, &accepted, NOW, "").expect("short");
    let other = other.public_key().agent_id();
    bench.apply(&Change::Revoke { agent: other, reason: String::new() });
    assert_eq!(learn(&mut bench, signed), Outcome::Changed);
    let by = bench.state.revocation(&Subject::Agent(other)).expect("there").by;
    assert_eq!(by, Revoker::User(user));
}

#[test]
fn labels_are_bounded() {
    let (mut state, mut events) = (TrustState::default(), Vec::new());
    let agent = agent(1);
    for label in ["x".repeat(MAX_LABEL + 1), "a\u{1b}b".to_owned()] {
        let put = Change::Put { agent, level: Level::Known, label: Some(label.clone()) };
        let machine = Change::PutMachine {
            agent,
            machine: machine(1),
            label: Some(label.clone()),
            pinned: false,
        };
        for change in [put, machine, Change::Revoke { agent, reason: label }] {
            let refused = state.apply(NOW, &change, &mut events);
            assert_eq!(refused, Err(ChangeError::Label { max: MAX_LABEL }));
        }
    }
    assert_eq!((state.counts(), events), ([0; 4], vec![]));
}

#[test]
fn contacts_and_machines_are_bounded() {
    let mut bench = Bench::default();
    for n in 0..MAX_CONTACTS as u32 {
        bench.put(n, Level::Known);
    }
    let put = Change::Put { agent: agent(u32::MAX), level: Level::Blocked, label: None };
    let full = bench.state.apply(NOW, &put, &mut bench.events);
    assert_eq!(full, Err(ChangeError::Full { max: MAX_CONTACTS }), "no contact makes room");

    for m in 0..2 * MAX_MACHINES as u32 {
        bench.observe(1, m, 0);
    }
    let contact = bench.state.contact(&agent(1)).expect("there").clone();
    assert_eq!(
        (contact.machines.len(), contact.sighting.machines.len()),
        (MAX_MACHINES, MAX_PLACES)
    );
    for record in &contact.machines {
        let change = Change::Pin { agent: agent(1), machine: record.machine_id, pinned: true };
        bench.apply(&change);
    }
    let more =
        Change::PutMachine { agent: agent(1), machine: machine(999), label: None, pinned: false };
    let full = bench.state.apply(NOW, &more, &mut bench.events);
    assert_eq!(full, Err(ChangeError::Full { max: MAX_MACHINES }), "no pinned machine makes room");
}

#[test]
fn the_last_card_says_where_a_contact_is() {
    let mut bench = Bench::default();
    let address = |n: u16| std::net::SocketAddr::from(([192, 0, 2, 1], n));
    let place = |bench: &Bench| bench.state.contact(&agent(1)).and_then(Contact::place);
    let told = |m, addresses| Change::PutPlace { agent: agent(1), machine: machine(m), addresses };
    let ports = 1..=2 * MAX_ADDRESSES as u16;
    assert_eq!(bench.apply(&told(1, ports.map(address).collect())), Outcome::Created);
    let kept = place(&bench).expect("told");
    assert_eq!((kept.id, kept.addresses.len()), (Some(machine(1)), MAX_ADDRESSES));
    assert_eq!(bench.apply(&told(2, vec![address(1)])), Outcome::Created);
    assert_eq!(place(&bench), Some(PeerAddr::known(machine(2), [address(1)])));
    assert_eq!(bench.apply(&told(2, vec![address(1)])), Outcome::Unchanged);
    bench.pin(1, 2, true);
    assert_eq!(bench.apply(&told(1, vec![address(2)])), Outcome::Changed, "pins do not hide it");
    assert_eq!(place(&bench), Some(PeerAddr::known(machine(1), [address(2)])));
    let told_before =
        bench.state.contact(&agent(1)).and_then(|it| it.machine(&machine(2)).cloned());
    assert!(told_before.is_some_and(|record| record.pinned && record.addresses.is_empty()));
    bench.apply(&Change::Remove { agent: agent(1) });
    assert_eq!(place(&bench), None, "it goes with the contact");
}

#[test]
fn strangers_make_room_for_one_another_and_for_nobody_else() {
    let mut bench = Bench::default();
    bench.put(0, Level::Known);
    bench.observe(0, 1, 5);
    for n in 1..=MAX_STRANGERS as u32 + 10 {
        bench.observe(n, 1, 5);
    }
    assert_eq!(bench.state.counts()[3], MAX_STRANGERS);
    assert_eq!(bench.state.order.len(), MAX_STRANGERS);
    assert_eq!(bench.reason(0, 2), Reason::Superseded);
    assert_eq!(bench.reason(10, 2), Reason::Unknown, "forgotten");
    assert_eq!(bench.reason(11, 2), Reason::Superseded);
}

#[test]
fn a_flood_of_revocations_pushes_out_none_that_matters() {
    let mut bench = Bench::default();
    let revoked = |n: u32| {
        Change::Learn(Revocation {
            subject: Subject::Agent(agent(n)),
            by_user: None,
            revoked_at: NOW,
            reason: String::new(),
        })
    };
    bench.put(1, Level::Trusted);
    bench.apply(&revoked(1));
    bench.apply(&Change::Revoke { agent: agent(2), reason: String::new() });
    bench.apply(&revoked(3));
    bench.put(3, Level::Known);
    for n in 100..100 + 2 * MAX_REVOCATIONS as u32 {
        bench.apply(&revoked(n));
    }
    assert_eq!(bench.state.counts()[2], MAX_REVOCATIONS);
    for n in 1..=3 {
        assert_eq!(bench.reason(n, 1), Reason::Revoked, "{n}");
    }
    assert_eq!(bench.reason(100, 1), Reason::Unknown, "the oldest stranger made room");
    assert_eq!(bench.reason(99 + 2 * MAX_REVOCATIONS as u32, 1), Reason::Revoked);
}

#[test]
fn what_revokes_the_own_keys_stays_and_finds_room() {
    let mut bench = Bench::default();
    let revoked = |n: u32| {
        Change::Learn(Revocation {
            subject: Subject::Agent(agent(n)),
            by_user: None,
            revoked_at: NOW,
            reason: String::new(),
        })
    };
    // Kept before anybody said whose it is, as at a start.
    bench.apply(&revoked(1));
    bench.state.claim(&[Subject::Agent(agent(1)), Subject::Agent(agent(2))]);
    for n in 100..100 + 2 * MAX_REVOCATIONS as u32 {
        bench.apply(&revoked(n));
    }
    assert_eq!(bench.reason(1, 1), Reason::Revoked);

    // Local ones never make room.
    let mut bench = Bench::default();
    bench.state.claim(&[Subject::Agent(agent(2))]);
    for n in 100..100 + MAX_REVOCATIONS as u32 {
        bench.apply(&Change::Revoke { agent: agent(n), reason: String::new() });
    }
    let full = bench.state.apply(NOW, &revoked(3), &mut bench.events);
    assert_eq!(full, Err(ChangeError::Full { max: MAX_REVOCATIONS }));
    bench.apply(&revoked(2));
    assert_eq!(bench.reason(2, 1), Reason::Revoked);
}

#[derive(Debug, Clone)]
enum Step {
    Change(Change),
    Observe(u32, u32, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let level =
        prop::sample::select(vec![Level::Blocked, Level::Unknown, Level::Known, Level::Trusted]);
    let kind = prop::sample::select(vec![
        IdentityType::Anonymous,
        IdentityType::Pinned,
        IdentityType::Known,
    ]);
    let (a, m) = (0_u32..4, 0_u32..4);
    prop_oneof![
        (a.clone(), level.clone())
            .prop_map(|(a, level)| Change::Put { agent: agent(a), level, label: None })
            .prop_map(Step::Change),
        (a.clone(), level, kind)
            .prop_map(|(a, level, kind)| Change::Update {
                agent: agent(a),
                level: Some(level),
                identity_type: Some(kind)
            })
            .prop_map(Step::Change),
        a.clone().prop_map(|a| Step::Change(Change::Remove { agent: agent(a) })),
        a.clone()
            .prop_map(|a| Step::Change(Change::Revoke { agent: agent(a), reason: String::new() })),
        (a.clone(), m.clone(), any::<bool>()).prop_map(|(a, m, pinned)| Step::Change(
            Change::PutMachine { agent: agent(a), machine: machine(m), label: None, pinned }
        )),
        (a.clone(), m.clone(), any::<bool>()).prop_map(|(a, m, pinned)| Step::Change(
            Change::Pin { agent: agent(a), machine: machine(m), pinned }
        )),
        (a.clone(), m.clone()).prop_map(|(a, m)| Step::Change(Change::RemoveMachine {
            agent: agent(a),
            machine: machine(m)
        })),
        (a, m, 0_u64..4).prop_map(|(a, m, g)| Step::Observe(a, m, g)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is done in whatever order: what was revoked or blocked stays refused, and an old
    /// machine never comes back by itself.
    #[test]
    fn refusals_hold(steps in prop::collection::vec(step(), 1..60)) {
        let mut bench = Bench::default();
        for step in steps {
            let revoked: Vec<u32> = (0..4).filter(|a| bench.reason(*a, 0) == Reason::Revoked).collect();
            let generation = |bench: &Bench, a| bench.state.sighting(&agent(a)).map_or(0, |s| s.generation);
            let before: Vec<u64> = (0..4).map(|a| generation(&bench, a)).collect();
            match step {
                Step::Change(change) => {
                    let _ = bench.state.apply(NOW, &change, &mut bench.events);
                }
                Step::Observe(a, m, g) => {
                    let observation = bench.observe(a, m, g);
                    let reason = bench.reason(a, m);
                    if matches!(observation, Observation::Current | Observation::Moved) {
                        prop_assert!(!matches!(reason, Reason::Superseded | Reason::WrongMachine));
                    }
                }
            }
            for a in revoked {
                prop_assert_eq!(bench.reason(a, 0), Reason::Revoked);
            }
            for a in 0..4 {
                prop_assert!(generation(&bench, a) >= before[a as usize]);
                let blocked = bench.state.contact(&agent(a)).is_some_and(|c| c.trust_level == Level::Blocked);
                for m in 0..4 {
                    prop_assert!(!blocked || matches!(bench.reason(a, m), Reason::Blocked | Reason::Revoked));
                }
            }
        }
    }
}

#[test]
fn adding_neither_unblocks_nor_downgrades_in_passing() {
    let mut bench = Bench::default();
    let add = |level, label: Option<&str>| Change::Add {
        agent: agent(1),
        level,
        label: label.map(str::to_owned),
    };
    assert_eq!(bench.apply(&add(None, Some("Ada"))), Outcome::Created);
    assert_eq!(bench.state.level(&agent(1)), Level::Known);
    for level in [Level::Unknown, Level::Known, Level::Trusted] {
        bench.apply(&add(Some(level), None));
        bench.apply(&add(None, None));
        assert_eq!(bench.state.level(&agent(1)), level);
    }
    let label = bench.state.contact(&agent(1)).and_then(|contact| contact.label.clone());
    assert_eq!(label.as_deref(), Some("Ada"), "what is not given stays");
    bench.apply(&add(Some(Level::Blocked), None));
    let refused = bench.state.apply(NOW, &add(None, Some("Eve")), &mut bench.events);
    assert_eq!(refused, Err(ChangeError::Blocked));
    assert_eq!(bench.state.level(&agent(1)), Level::Blocked);
    bench.apply(&add(Some(Level::Known), None));
    assert_eq!(bench.state.level(&agent(1)), Level::Known, "by name");
}

#[test]
fn a_contact_can_be_pinned_to_where_it_was_met() {
    let mut bench = Bench::default();
    let there = machine(7);
    assert_eq!(bench.observe(1, 7, 0), Observation::Current);
    assert_eq!(bench.pin(1, 7, true), Outcome::Missing, "no contact");
    bench.put(1, Level::Known);
    let contact = bench.state.contact(&agent(1)).cloned().expect("a contact");
    assert!(contact.machine(&there).is_some(), "where the stranger was met is on record");
    let remove = Change::RemoveMachine { agent: agent(1), machine: there };
    assert_eq!(bench.apply(&remove), Outcome::Changed);
    assert_eq!(bench.pin(1, 7, false), Outcome::Missing);
    assert_eq!(bench.pin(1, 7, true), Outcome::Changed, "it runs there still");
    assert_eq!(bench.reason(1, 7), Reason::Pinned);
    assert_eq!(bench.pin(1, 8, true), Outcome::Missing);
}

#[test]
fn labels_that_turn_text_round_are_refused() {
    let mut bench = Bench::default();
    for bad in ["a\u{202e}b", "a\u{61c}", "\u{2066}", "a\nb"] {
        let put = Change::Put { agent: agent(1), level: Level::Known, label: Some(bad.to_owned()) };
        let refused = bench.state.apply(NOW, &put, &mut bench.events);
        assert_eq!(refused, Err(ChangeError::Label { max: MAX_LABEL }), "{bad:?}");
    }
}

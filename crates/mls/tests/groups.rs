//! Whole groups over stores in memory: what members can do, and what nobody can.

use std::sync::Arc;

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};
use x0x_identity::testing;
use x0x_mls::{
    Event, FrameIn, GroupError, GroupId, Groups, KeyPackageError, MAX_OLDER, MlsGroups, Pending,
    Suite,
    ordering::{MAX_STATES, Standing},
    testing::{MemoryStore, NonceProbe},
    verify_key_package,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

type Member = Groups<Arc<MemoryStore>>;

fn agent(n: u64) -> AgentId {
    testing::key(n).public_key().agent_id()
}

fn open(n: u64, store: &Arc<MemoryStore>) -> Member {
    Groups::open(Arc::clone(store), Arc::new(testing::key(n)), NOW).expect("opens")
}

fn member(n: u64) -> (Member, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    (open(n, &store), store)
}

fn package(of: &mut Member, suite: Suite) -> Bytes {
    of.key_packages(suite, 1, NOW).expect("made").swap_remove(0)
}

fn add(to: &mut Member, group: GroupId, who: &mut Member, suite: Suite) -> Bytes {
    let package = verify_key_package(&package(who, suite), NOW).expect("verifies");
    let made = to.commit(group, vec![package], &[]).expect("adds");
    let joined = who.join(&made.welcome.expect("welcome"), made.tree.as_deref()).expect("joins");
    assert_eq!(joined, group);
    made.commit.frame
}

fn text(events: &[Event]) -> Option<(AgentId, &[u8])> {
    events.iter().find_map(|event| match event {
        Event::Message { author, payload, .. } => Some((*author, payload.as_ref())),
        _ => None,
    })
}

fn say(from: &mut Member, group: GroupId, what: &str) -> Bytes {
    from.encrypt(group, b"", what.as_bytes()).expect("encrypts").frame
}

/// Three members of one epoch; their commits are processed by all.
fn three(suite: Suite) -> (GroupId, [Member; 3], [Arc<MemoryStore>; 3]) {
    let ((mut a, sa), (mut b, sb), (mut c, sc)) = (member(1), member(2), member(3));
    let group = a.create(suite).expect("creates");
    add(&mut a, group, &mut b, suite);
    let commit = add(&mut a, group, &mut c, suite);
    b.process(&commit).expect("applies");
    (group, [a, b, c], [sa, sb, sc])
}

#[test]
fn members_read_each_other_and_nobody_else_does() {
    for suite in Suite::ALL {
        let (group, [mut a, mut b, mut c], _) = three(suite);
        let hello = say(&mut a, group, "hello");
        assert_eq!(text(&b.process(&hello).unwrap()), Some((agent(1), b"hello".as_slice())));
        assert_eq!(text(&c.process(&hello).unwrap()), Some((agent(1), b"hello".as_slice())));
        assert!(matches!(a.process(&hello).unwrap()[..], [Event::Nothing]));
        assert!(matches!(b.process(&hello), Err(GroupError::Refused(_))), "a replay");

        // Who joined by a welcome makes keys of its own before it sends.
        assert!(matches!(b.encrypt(group, b"", b"x"), Err(GroupError::RefreshFirst)));
        let refresh = b.refresh(group).unwrap().frame;
        for other in [&mut a, &mut c] {
            assert!(matches!(other.process(&refresh).unwrap()[..], [Event::Epoch { .. }]));
        }
        let answer = b.encrypt(group, b"aad", b"answer").unwrap().frame;
        assert_eq!(text(&a.process(&answer).unwrap()), Some((agent(2), b"answer".as_slice())));
        let secrets: Vec<_> =
            [&mut a, &mut b].map(|m| m.export(group, "files", b"", 32).unwrap()).into();
        assert_eq!(secrets[0], secrets[1]);
        assert!(!say(&mut a, group, "findable").windows(8).any(|w| w == b"findable"));
        drop(c);
    }
}

#[test]
fn a_late_message_of_a_past_epoch_is_read() {
    let (group, [mut a, mut b, mut c], _) = three(Suite::Hybrid);
    let before = say(&mut a, group, "before");
    let refresh = a.refresh(group).unwrap().frame;
    let after = say(&mut a, group, "after");
    b.process(&refresh).unwrap();
    assert_eq!(text(&b.process(&after).unwrap()).unwrap().1, b"after");
    assert_eq!(text(&b.process(&before).unwrap()).unwrap().1, b"before");
    assert!(b.process(&before).is_err(), "once only");
    // Before the commit is here, the message after it waits.
    assert!(matches!(c.process(&after).unwrap()[..], [Event::NotYet]));
    c.process(&refresh).unwrap();
    assert_eq!(text(&c.process(&after).unwrap()).unwrap().1, b"after");
}

#[test]
fn a_removed_member_with_its_saved_state_reads_nothing_later() {
    let (group, [mut a, mut b, mut c], [.., sc]) = three(Suite::Hybrid);
    let saved = Arc::new(sc.snapshot());
    let removal = a.commit(group, vec![], &[agent(3)]).unwrap().commit.frame;
    let removed = &c.process(&removal).unwrap()[0];
    assert!(matches!(removed, Event::Epoch { self_removed: true, .. }), "{removed:?}");
    b.process(&removal).unwrap();
    let secret = say(&mut a, group, "secret");
    assert!(text(&b.process(&secret).unwrap()).is_some());

    let mut thief = open(3, &saved);
    for frame in [&secret, &removal, &secret] {
        assert!(thief.process(frame).map_or(true, |events| text(&events).is_none()));
    }
    assert!(matches!(c.encrypt(group, b"", b"x"), Err(GroupError::NotMember)));
    assert_eq!(a.members(group).unwrap().1, vec![agent(1), agent(2)]);
}

#[test]
fn a_new_member_reads_nothing_earlier() {
    let (group, [mut a, _b, _c], _) = three(Suite::Hybrid);
    let early = say(&mut a, group, "early");
    let (mut d, _) = member(4);
    add(&mut a, group, &mut d, Suite::Hybrid);
    assert!(matches!(d.process(&early).unwrap()[..], [Event::Nothing]), "it is not kept either");
}

#[test]
fn who_was_away_for_many_epochs_reads_what_was_written_in_each() {
    let (group, [mut a, mut b, _], [_, sb, _]) = three(Suite::Hybrid);
    let (mut commits, mut messages) = (Vec::new(), Vec::new());
    for n in 0..2 * MAX_STATES + 2 {
        messages.push(say(&mut a, group, &n.to_string()));
        commits.push(a.refresh(group).unwrap().frame);
    }
    // All that one author did comes before all that another wrote; and it ends in between.
    for commit in &commits {
        b.process(commit).unwrap();
    }
    drop(b);
    let mut b = open(2, &sb);
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(text(&b.process(message).unwrap()).unwrap().1, n.to_string().as_bytes());
        assert!(b.process(message).is_err(), "once only");
    }
}

#[test]
fn a_message_beyond_what_is_kept_is_told_and_not_silently_lost() {
    let (group, [mut a, mut b, _], _) = three(Suite::Hybrid);
    let lost = say(&mut a, group, "lost");
    let epoch = a.members(group).unwrap().0;
    for _ in 0..MAX_STATES + MAX_OLDER {
        b.process(&a.refresh(group).unwrap().frame).unwrap();
    }
    assert_eq!(b.process(&lost).unwrap(), [Event::Expired { epoch }]);
    assert_eq!(b.metrics().expired.value(), 1);
}

#[test]
fn a_group_that_is_forgotten_leaves_nothing_behind() {
    let (group, [mut a, _b, mut c], [.., sc]) = three(Suite::Hybrid);
    let before = say(&mut a, group, "before");
    c.process(&before).unwrap();
    c.refresh(group).unwrap();
    let held = sc.bytes_held();
    c.forget(group).unwrap();
    assert!(c.ids().is_empty() && c.pending().is_empty());
    assert!(matches!(c.process(&before), Err(GroupError::Unknown)));
    assert!(matches!(c.forget(group), Err(GroupError::Unknown)));
    drop(c);
    let again = open(3, &sc);
    assert!(again.ids().is_empty() && again.pending().is_empty());
    let (mut newcomer, store) = member(9);
    package(&mut newcomer, Suite::Hybrid);
    // Its leaf keys and key packages are all that stays.
    assert!(sc.bytes_held() < held && sc.bytes_held() <= store.bytes_held());
}

#[test]
fn a_welcome_is_used_once_and_by_its_own_agent() {
    let ((mut a, _), (mut b, _), (mut c, _)) = (member(1), member(2), member(3));
    let group = a.create(Suite::Hybrid).unwrap();
    let verified = verify_key_package(&package(&mut b, Suite::Hybrid), NOW).unwrap();
    let again = verified.clone();
    let made = a.commit(group, vec![verified], &[]).unwrap();
    let welcome = made.welcome.unwrap();
    assert!(matches!(c.join(&welcome, None), Err(GroupError::Refused(_))), "foreign");
    let mut altered = welcome.to_vec();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    assert!(b.join(&altered, None).is_err(), "altered");
    b.join(&welcome, None).expect("a refused welcome costs no key package");
    assert!(b.join(&welcome, None).is_err(), "replayed");
    assert!(matches!(a.commit(group, vec![again], &[]), Err(GroupError::Membership(_))));
}

#[test]
fn a_key_package_of_another_agent_or_altered_is_refused() {
    let (mut b, _) = member(2);
    let genuine = package(&mut b, Suite::Hybrid);
    assert_eq!(verify_key_package(&genuine, NOW).unwrap().agent, agent(2));
    for at in (0..genuine.len()).step_by(97) {
        let mut altered = genuine.to_vec();
        altered[at] ^= 0x40;
        assert!(verify_key_package(&altered, NOW).is_err(), "byte {at}");
    }
    let late = NOW + x0x_mls::KEY_PACKAGE_LIFETIME;
    assert!(matches!(verify_key_package(&genuine, late), Err(KeyPackageError::Credential(_))));
    assert!(matches!(verify_key_package(&vec![0; 40_000], NOW), Err(KeyPackageError::Malformed)));
}

#[test]
fn an_altered_commit_is_refused_by_all_and_costs_nothing() {
    let (group, [mut a, mut b, mut c], _) = three(Suite::Hybrid);
    let commit = a.refresh(group).unwrap().frame;
    let parts = FrameIn::decode(&commit).unwrap();
    let mut bodies = vec![parts.clone(); 3];
    let mut flipped = parts.body.to_vec();
    flipped[100] ^= 1;
    bodies[0].body = flipped.into();
    bodies[1].child = [9; 32];
    bodies[2].epoch += 1;
    for altered in &bodies {
        for member in [&mut b, &mut c] {
            assert!(matches!(member.process(&altered.encode()), Err(GroupError::Refused(_))));
        }
    }
    for member in [&mut b, &mut c] {
        assert!(matches!(member.process(&commit).unwrap()[..], [Event::Epoch { .. }]));
    }
}

#[test]
fn concurrent_commits_end_in_one_epoch_whatever_the_order() {
    let (group, members, _) = three(Suite::Hybrid);
    let mut members = Vec::from(members);
    let commits: Vec<Bytes> =
        members.iter_mut().map(|member| member.refresh(group).unwrap().frame).collect();
    // A message on each branch, of which only one stands.
    let said: Vec<Bytes> = members.iter_mut().map(|m| say(m, group, "on a branch")).collect();
    let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0]];
    let mut reverted = [false; 3];
    for (n, (member, order)) in members.iter_mut().zip(orders).enumerate() {
        for at in order {
            let events = member.process(&commits[at]).unwrap();
            reverted[n] |= events.iter().any(|event| matches!(event, Event::Reverted { .. }));
        }
    }
    let secrets: Vec<_> =
        members.iter_mut().map(|m| m.export(group, "x", b"", 32).unwrap()).collect();
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    let winner = reverted.iter().position(|fell| !fell).expect("one stands");
    assert_eq!(reverted.iter().filter(|fell| !**fell).count(), 1);
    assert!(!members[winner].must_refresh(group).unwrap());
    for n in (0..3).filter(|n| *n != winner) {
        assert!(text(&members[n].process(&said[winner]).unwrap()).is_some());
    }
}

#[test]
fn any_member_completes_a_leave() {
    let (group, [mut a, mut b, mut c], _) = three(Suite::Hybrid);
    let request = c.leave(group).unwrap().frame;
    for member in [&mut a, &mut b] {
        let event = &member.process(&request).unwrap()[0];
        assert_eq!(*event, Event::LeaveRequested { agent: agent(3) });
    }
    let removal = b.commit(group, vec![], &[agent(3)]).unwrap().commit.frame;
    a.process(&removal).unwrap();
    c.process(&removal).unwrap();
    assert_eq!(a.members(group).unwrap().1, vec![agent(1), agent(2)]);
    let mut forged = FrameIn::decode(&request).unwrap();
    forged.body = Bytes::from_static(&[0; 64]);
    assert!(a.process(&forged.encode()).is_err());
}

#[test]
fn strangers_do_not_join_by_themselves_but_members_come_back() {
    let (group, [mut a, mut b, _c], [_, sb, _]) = three(Suite::Hybrid);
    let invitation = a.invitation(group).unwrap();
    let (mut eve, _) = member(66);
    let (_, forced) = eve.join_external(&invitation.info, invitation.tree.as_deref()).unwrap();
    assert!(matches!(a.process(&forced.frame), Err(GroupError::Refused(_))));

    // A backup of b's is put back after the group went on without it.
    let backup = Arc::new(sb.snapshot());
    let own = b.refresh(group).unwrap().frame;
    a.process(&own).unwrap();
    drop(b);
    let mut b = open(2, &backup);
    assert!(b.process(&own).is_err());
    assert_eq!(b.standing(group).unwrap(), Standing::Behind);
    let invitation = a.invitation(group).unwrap();
    let (_, back) = b.join_external(&invitation.info, None).unwrap();
    let event = &a.process(&back.frame).unwrap()[0];
    assert!(matches!(event, Event::Epoch { by, .. } if *by == agent(2)), "{event:?}");
    assert_eq!(b.standing(group).unwrap(), Standing::Current);
    let back = say(&mut b, group, "back");
    assert_eq!(text(&a.process(&back).unwrap()).unwrap().1, b"back");
    assert_eq!(a.members(group).unwrap().1.len(), 3);
}

#[test]
fn what_was_not_sent_before_a_crash_is_sent_after_it() {
    let (group, [mut a, mut b, _c], [sa, ..]) = three(Suite::Hybrid);
    let sent = a.encrypt(group, b"", b"sent").unwrap();
    drop(a);
    let mut a = open(1, &sa);
    let pending = a.pending();
    let again = pending.iter().find(|(id, _)| *id == sent.id).expect("kept");
    let Pending::Outgoing { frame, .. } = &again.1 else { panic!("outgoing") };
    assert_eq!(text(&b.process(frame).unwrap()).unwrap().1, b"sent");
    assert!(matches!(a.encrypt(group, b"", b"x"), Err(GroupError::RefreshFirst)));
    let ids: Vec<u64> = pending.iter().map(|(id, _)| *id).collect();
    a.acknowledge(&ids).unwrap();
    assert!(open(1, &sa).pending().is_empty());
}

#[test]
fn a_failed_write_sends_nothing_and_the_group_goes_on() {
    let (group, [mut a, mut b, _c], [sa, sb, _]) = three(Suite::Hybrid);
    let said = say(&mut a, group, "kept");
    sb.fail_after(0);
    assert!(matches!(b.process(&said), Err(GroupError::Store(_))));
    sb.heal();
    assert_eq!(text(&b.process(&said).unwrap()).unwrap().1, b"kept", "not lost by the failure");

    let commit = a.refresh(group).unwrap().frame;
    sb.fail_after(0);
    assert!(matches!(b.process(&commit), Err(GroupError::Store(_))));
    sb.heal();
    assert!(matches!(b.process(&commit).unwrap()[..], [Event::Epoch { .. }]));

    sa.fail_after(0);
    assert!(matches!(a.encrypt(group, b"", b"x"), Err(GroupError::Store(_))));
    assert!(matches!(a.refresh(group), Err(GroupError::Store(_))));
    sa.heal();
    assert!(a.must_refresh(group).unwrap());
    b.process(&a.refresh(group).unwrap().frame).unwrap();
    let after = say(&mut a, group, "after");
    assert!(text(&b.process(&after).unwrap()).is_some());
}

#[test]
fn restarts_and_restored_backups_use_no_generation_twice() {
    let probe = Arc::new(NonceProbe::default());
    let store = Arc::new(MemoryStore::new());
    let reopen = |store: &Arc<MemoryStore>| {
        let key = Arc::new(testing::key(1));
        Groups::open_probed(Arc::clone(store), key, NOW, Some(probe.clone())).expect("opens")
    };
    let mut a = reopen(&store);
    let group = a.create(Suite::Hybrid).unwrap();
    let (mut b, _) = member(2);
    add(&mut a, group, &mut b, Suite::Hybrid);
    let backup = store.snapshot();
    for round in 0..20 {
        for _ in 0..25 {
            let sent = a.encrypt(group, b"", b"message").unwrap();
            a.acknowledge(&[sent.id]).unwrap();
        }
        // Killed; every third time an old copy of the state is put back.
        drop(a);
        a = if round % 3 == 0 { reopen(&Arc::new(backup.snapshot())) } else { reopen(&store) };
        assert!(matches!(a.encrypt(group, b"", b"x"), Err(GroupError::RefreshFirst)));
        a.refresh(group).unwrap();
    }
    assert!(probe.calls() > 500);
    assert_eq!((probe.reused(), probe.keys_reused()), (0, 0));
}

#[test]
fn a_large_group_hands_out_its_tree_apart() {
    let (mut a, store) = member(1);
    let group = a.create(Suite::Hybrid).unwrap();
    let mut others: Vec<Member> = (100..130).map(|n| member(n).0).collect();
    let packages: Vec<_> = others
        .iter_mut()
        .map(|m| verify_key_package(&package(m, Suite::Hybrid), NOW).unwrap())
        .collect();
    let made = a.commit(group, packages, &[]).unwrap();
    let (welcome, tree) = (made.welcome.unwrap(), made.tree.expect("apart"));
    assert!(matches!(others[0].join(&welcome, None), Err(GroupError::TreeMissing)));
    assert!(matches!(others[0].join(&welcome, Some(&tree[1..])), Err(GroupError::TreeMissing)));
    for other in &mut others[1..2] {
        other.join(&welcome, Some(&tree)).expect("joins");
    }
    // What a message writes does not grow with the group.
    let before = store.bytes_written();
    let sent = a.encrypt(group, b"", b"hi").unwrap();
    assert!(store.bytes_written() - before < 4096, "{}", store.bytes_written() - before);
    assert!(text(&others[1].process(&sent.frame).unwrap()).is_some());
}

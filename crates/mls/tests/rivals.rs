//! A removed member with its saved state does not come back, and honest members lose nothing by it.

use std::sync::Arc;

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};
use x0x_identity::testing;
use x0x_mls::{
    CommitFacts, CommitPolicy, Event, FrameIn, GroupError, GroupId, Groups, MlsGroups, Suite,
    VerifiedKeyPackage, testing::MemoryStore, verify_key_package,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

type Member = Groups<Arc<MemoryStore>>;

fn agent(n: u64) -> AgentId {
    testing::key(n).public_key().agent_id()
}

fn open(n: u64, store: &Arc<MemoryStore>) -> Member {
    Groups::open(Arc::clone(store), Arc::new(testing::key(n)), NOW).expect("opens")
}

fn package(of: &mut Member) -> VerifiedKeyPackage {
    let package = of.key_packages(Suite::Hybrid, 1, NOW).expect("made").swap_remove(0);
    verify_key_package(&package, NOW).expect("verifies")
}

/// Members 1 to `count` of one epoch, in this order in the tree.
fn group(count: u64) -> (GroupId, Vec<Member>, Vec<Arc<MemoryStore>>) {
    let stores: Vec<_> = (0..count).map(|_| Arc::new(MemoryStore::new())).collect();
    let mut members: Vec<_> = (1..).zip(&stores).map(|(n, store)| open(n, store)).collect();
    let packages = members[1..].iter_mut().map(package).collect();
    let group = members[0].create(Suite::Hybrid).expect("creates");
    let welcome = members[0].commit(group, packages, &[]).expect("adds").welcome.expect("one");
    for member in &mut members[1..] {
        assert_eq!(member.join(&welcome, None).expect("joins"), group);
    }
    (group, members, stores)
}

/// Commits that a thief makes of a saved state, each of them in a copy of its own.
fn ground(
    n: u64,
    saved: &MemoryStore,
    group: GroupId,
    count: usize,
    removes: &[&[AgentId]],
) -> Vec<Bytes> {
    let make = |at: usize| {
        let mut thief = open(n, &Arc::new(saved.snapshot()));
        let made = thief.commit(group, vec![], removes[at % removes.len()]);
        made.expect("the state allows it").commit.frame
    };
    (0..count).map(make).collect()
}

fn reverted(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Reverted { .. }))
}

#[test]
fn a_removed_member_cannot_undo_its_removal_by_grinding() {
    let (group, mut members, stores) = group(4);
    let saved = stores[3].snapshot();
    let removal = members[0].commit(group, vec![], &[agent(4)]).unwrap().commit.frame;
    // Rivals of every kind: with nothing in them, and removing this one, that one, everybody else.
    let (one, two, three) = (agent(1), agent(2), agent(3));
    let kinds: [&[AgentId]; 5] = [&[], &[two], &[one], &[two, three], &[one, two, three]];
    let rivals = ground(4, &saved, group, 15, &kinds);

    // One member hears of the removal before the flood, one amid it, one after it.
    for (n, at) in [(0, None), (1, Some(7)), (2, Some(15))] {
        let mut went = 0;
        for (place, rival) in rivals.iter().enumerate() {
            if at == Some(place) {
                members[n].process(&removal).unwrap();
            }
            let events = members[n].process(rival).unwrap();
            went += usize::from(at.is_none_or(|at| at <= place) && reverted(&events));
        }
        if at == Some(rivals.len()) {
            members[n].process(&removal).unwrap();
        }
        assert_eq!(went, 0, "member {n} went back");
        assert_eq!(members[n].members(group).unwrap().1, vec![one, two, three], "member {n}");
    }
    // Nor after a start, when only what is stored is known.
    members[1] = open(2, &stores[1]);
    for rival in &rivals {
        assert!(!reverted(&members[1].process(rival).unwrap()));
    }
    let secrets: Vec<_> =
        members[..3].iter_mut().map(|m| m.export(group, "x", b"", 32).unwrap()).collect();
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
}

#[test]
fn a_removal_stands_and_who_added_or_refreshed_does_it_again() {
    let (group, mut members, _) = group(4);
    let mut joins = open(5, &Arc::new(MemoryStore::new()));
    let added = members[1].commit(group, vec![package(&mut joins)], &[]).unwrap().commit.frame;
    let refresh = members[2].refresh(group).unwrap().frame;
    let removal = members[0].commit(group, vec![], &[agent(4)]).unwrap().commit.frame;
    for frame in [&added, &refresh] {
        assert!(!reverted(&members[0].process(frame).unwrap()), "a removal comes first");
    }
    let events = members[1].process(&removal).unwrap();
    let Event::Reverted { intents, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!(intents[0].added, vec![agent(5)]);
    assert!(reverted(&members[2].process(&removal).unwrap()));

    let again = members[1].commit(group, vec![package(&mut joins)], &[]).unwrap();
    joins.join(&again.welcome.unwrap(), None).unwrap();
    for n in [0, 2] {
        members[n].process(&again.commit.frame).unwrap();
        let there = members[n].members(group).unwrap().1;
        assert!(there.contains(&agent(5)) && !there.contains(&agent(4)));
    }
}

/// Member 4 leads, whatever its leaf.
struct Led;

impl CommitPolicy for Led {
    fn allows(&self, commit: &CommitFacts<'_>) -> bool {
        commit.members.contains(&commit.by)
    }

    fn seniority(&self, commit: &CommitFacts<'_>) -> u8 {
        u8::from(commit.by != agent(4))
    }
}

#[test]
fn of_two_that_remove_each_other_the_policy_or_the_older_leaf_decides() {
    for led in [false, true] {
        let (group, mut members, _) = group(4);
        if led {
            members.iter_mut().for_each(|member| member.set_policy(Box::new(Led)));
        }
        let by_first = members[0].commit(group, vec![], &[agent(4)]).unwrap().commit.frame;
        let by_last = members[3].commit(group, vec![], &[agent(1)]).unwrap().commit.frame;
        let orders = [(1, [&by_first, &by_last]), (2, [&by_last, &by_first])];
        for (n, order) in orders {
            order.iter().for_each(|frame| drop(members[n].process(frame).unwrap()));
            let gone = if led { agent(1) } else { agent(4) };
            assert!(!members[n].members(group).unwrap().1.contains(&gone), "led: {led}");
        }
    }
}

/// Makes all of its own commits seem to come first.
struct Liar;

impl CommitPolicy for Liar {
    fn allows(&self, _: &CommitFacts<'_>) -> bool {
        true
    }

    fn seniority(&self, _: &CommitFacts<'_>) -> u8 {
        7
    }
}

#[test]
fn a_rank_that_a_commit_has_not_is_refused_by_all() {
    let (group, mut members, _) = group(3);
    members[2].set_policy(Box::new(Liar));
    let claimed = members[2].refresh(group).unwrap().frame;
    // Changed on the way, it does not open any more.
    let mut altered = FrameIn::decode(&claimed).unwrap();
    altered.rank = 0;
    for member in &mut members[..2] {
        for frame in [&claimed, &altered.encode()] {
            assert!(matches!(member.process(frame), Err(GroupError::Refused(_))));
        }
        assert_eq!(member.metrics().commits_rank.value(), 1);
        assert_eq!(member.metrics().commits_invalid.value(), 1);
        assert_eq!(member.members(group).unwrap().0, 1);
    }
}

//! Members that act at once, are parted, lose and reorder: one group in the end.

use std::collections::BTreeSet;

use x0x_groups::{
    Action, Basis, GroupPolicy, Role, Room,
    testing::{NOW, Swarm, agent, key},
};
use x0x_mls::ordering::Standing;

const AGENTS: usize = 6;

fn staffed(seed: u64) -> Swarm {
    let policy = GroupPolicy { invite_role: Role::Member, ..GroupPolicy::PRIVATE_SECURE };
    let mut swarm = Swarm::new(seed, AGENTS, policy).expect("founded");
    for n in 1..AGENTS - 1 {
        swarm.bring_in(0, n, [n as u8; 32]).expect("comes in");
    }
    let group = swarm.group;
    let roles = [(1, Role::Admin), (2, Role::Moderator)];
    for (n, role) in roles {
        let action = Action::SetRole { agent: agent(n), role };
        swarm.members[0].act(group, action, NOW).expect("the owner may");
        swarm.publish(0);
    }
    swarm.settle().expect("settles");
    swarm
}

/// One agent does something. Who was to be gone by it, if anybody.
fn step(swarm: &mut Swarm) -> Option<usize> {
    let n = swarm.rng.below(AGENTS);
    let (m, group) = (swarm.rng.below(AGENTS), swarm.group);
    let action = match swarm.rng.below(20) {
        0 => Action::Remove { agent: agent(m) },
        1 => Action::Ban { agent: agent(m), reason: String::new() },
        2 => Action::Unban { agent: agent(m), role: None },
        3 => Action::Leave,
        4 => Action::SetRole { agent: agent(m), role: Role::ALL[swarm.rng.below(3) + 2] },
        5 | 6 => {
            let seed = std::array::from_fn(|_| swarm.rng.below(256) as u8);
            let _ = swarm.bring_in(n, m, seed);
            swarm.publish(n);
            return None;
        }
        7 => Action::SetRoom(Room { name: n.to_string(), topic: String::new(), closed: false }),
        8..=10 => {
            let _ = swarm.write(n);
            return None;
        }
        11 => {
            // A part of what it has not heard is lost to it: nobody sends it again.
            let lost = swarm.unheard[n].len() / 2;
            swarm.unheard[n].truncate(lost);
            return None;
        }
        _ => {
            swarm.hear(n);
            return None;
        }
    };
    let gone = match action {
        Action::Remove { .. } | Action::Ban { .. } => Some(m),
        Action::Leave => Some(n),
        _ => None,
    };
    let acted = swarm.members[n].act(group, action, NOW);
    swarm.publish(n);
    gone.filter(|_| acted.is_ok())
}

/// Those that were in the group all the time read all that any of them wrote, or are told that they cannot.
fn assert_transcript(swarm: &Swarm, stayed: &[usize]) {
    for reader in stayed {
        for writer in stayed {
            let of = |n: usize| {
                let all = swarm.read[n].iter().filter(|(by, _)| *by == agent(*writer));
                all.copied().collect::<BTreeSet<_>>()
            };
            let (read, written) = (of(*reader), of(*writer));
            // Who had to come in again may lack something of the epochs between, and is told so.
            if swarm.returned.contains(reader) && read != written {
                let lacks: Vec<_> = written.difference(&read).map(|(_, id)| id[7]).collect();
                let told = swarm.unreadable[*reader] > 0;
                assert!(told, "{reader} is told of what {writer} wrote: {lacks:?}");
                continue;
            }
            assert_eq!(read, written, "{reader} reads what {writer} wrote");
        }
    }
}

fn run(seed: u64, restarts: bool) -> usize {
    println!("seed {seed}; again: X0X_SEEDS={seed}..{}", seed + 1);
    let mut swarm = staffed(seed);
    let mut gone = BTreeSet::new();
    for _ in 0..40 {
        gone.extend(step(&mut swarm));
        if restarts && swarm.rng.below(5) == 0 {
            let n = swarm.rng.below(AGENTS);
            swarm.restart(n).expect("what it kept is good");
        }
    }
    let stayed: Vec<usize> = (0..AGENTS - 1).filter(|n| !gone.contains(n)).collect();
    // A log gives again what was lost on the way.
    let all = 0..swarm.log.len();
    swarm.unheard.iter_mut().for_each(|unheard| *unheard = all.clone().collect());
    let settled = swarm.settle();
    println!("{}", swarm.describe());
    let rounds = settled.expect("settles");
    swarm.assert_one();
    // What is written now is read by all.
    let (active, newest) = (swarm.active(), swarm.texts);
    let writers: Vec<usize> = active.iter().copied().filter(|n| swarm.write(*n).is_ok()).collect();
    assert!(writers.contains(&0), "the owner writes");
    swarm.settle().expect("settles");
    swarm.assert_one();
    assert_transcript(&swarm, &stayed);
    let recent = |n: usize| {
        let all = swarm.read[n]
            .iter()
            .filter(|(_, id)| u64::from_be_bytes(id[..8].try_into().expect("eight")) > newest);
        all.copied().collect::<BTreeSet<_>>()
    };
    for n in &active {
        assert_eq!(recent(*n).len(), writers.len(), "{n} reads what all were sent");
    }
    rounds
}

/// Seeds of the test; `X0X_SEEDS=from..to` says others.
fn run_all(seeds: std::ops::Range<u64>, restarts: bool) {
    let wanted = std::env::var("X0X_SEEDS").ok().map(|range| {
        let (from, to) = range.split_once("..").expect("from..to");
        from.parse().expect("a number")..to.parse().expect("a number")
    });
    let rounds: Vec<usize> = wanted.unwrap_or(seeds).map(|n| run(n, restarts)).collect();
    println!("{} seeds, at most {:?} rounds", rounds.len(), rounds.iter().max());
}

#[test]
fn any_schedule_ends_in_one_group() {
    run_all(0..3, false);
}

#[test]
fn any_schedule_with_restarts_ends_in_one_group() {
    run_all(0..4, true);
}

#[test]
fn further_schedules_from_3() {
    for seed in 3..6 {
        run(seed, false);
    }
}

/// The others go on to keys of which a member never hears, and from then on only write.
#[test]
fn who_hears_texts_of_a_later_epoch_knows_that_it_is_behind() {
    let mut swarm = staffed(5);
    let (group, before) = (swarm.group, swarm.log.len());
    let keys = swarm.members[0].view(group).expect("here").mls_group.expect("encrypted");
    swarm.members[0].refresh(group, keys).expect("a commit");
    swarm.publish(0);
    let commits: BTreeSet<usize> = (before..swarm.log.len()).collect();
    swarm.unheard[1].retain(|item| !commits.contains(item));
    swarm.write(0).expect("the owner writes");
    while swarm.hear(1) {}
    assert_eq!(swarm.members[1].standing(group).expect("here"), Standing::Behind);
    let handover = swarm.members[0].invitation(group, agent(1)).expect("a member");
    swarm.members[1].enter(group, &handover).expect("comes in");
    swarm.publish(1);
    assert_eq!(swarm.members[1].standing(group).expect("here"), Standing::Current);
    while swarm.hear(0) {}
    let text = (agent(0), swarm.write(0).expect("the owner writes"));
    while swarm.hear(1) {}
    assert!(swarm.read[1].contains(&text), "it reads what is said from then on");
}

#[test]
fn parted_halves_that_add_and_remove_are_one_group_again() {
    let mut swarm = staffed(77);
    let group = swarm.group;
    let before = swarm.log.len();
    // The owner's side and an admin's: each hears its own only.
    let ban = Action::Ban { agent: agent(4), reason: String::new() };
    swarm.members[0].act(group, ban, NOW).expect("may");
    swarm.publish(0);
    swarm.bring_in(1, 5, [55; 32]).expect("comes in");
    let remove = Action::Remove { agent: agent(3) };
    swarm.members[1].act(group, remove, NOW).expect("may");
    swarm.publish(1);
    swarm.write(0).expect("writes");
    swarm.write(1).expect("writes");
    assert!(swarm.log.len() > before + 4);
    let rounds = swarm.settle().expect("settles");
    swarm.assert_one();
    assert_eq!(swarm.active(), [0, 1, 2, 5], "{rounds} rounds");
}

#[test]
fn who_leaves_is_let_out_by_the_others() {
    let mut swarm = staffed(78);
    let group = swarm.group;
    swarm.members[3].act(group, Action::Leave, NOW).expect("may");
    swarm.publish(3);
    assert!(swarm.write(3).is_err(), "it is out");
    swarm.settle().expect("settles");
    swarm.assert_one();
    assert_eq!(swarm.active(), [0, 1, 2, 4]);
    let text = (agent(0), swarm.write(0).expect("writes"));
    swarm.settle().expect("settles");
    assert!(swarm.read[4].contains(&text) && !swarm.read[3].contains(&text));
    // It comes back by another invite, and reads what comes then.
    swarm.bring_in(4, 3, [33; 32]).expect("comes back");
    swarm.settle().expect("settles");
    swarm.assert_one();
    let text = (agent(1), swarm.write(1).expect("writes"));
    let back = (agent(3), swarm.write(3).expect("writes"));
    swarm.settle().expect("settles");
    assert!(swarm.read[3].contains(&text) && swarm.read[0].contains(&back));
}

#[test]
fn an_invite_hands_over_the_keys_and_nothing_earlier() {
    let mut swarm = staffed(79);
    let early = (agent(0), swarm.write(0).expect("writes"));
    swarm.settle().expect("settles");
    swarm.bring_in(3, 5, [9; 32]).expect("comes in");
    swarm.settle().expect("settles");
    let all: Vec<usize> = (0..swarm.log.len()).collect();
    swarm.unheard[5] = all;
    let late = (agent(4), swarm.write(4).expect("writes"));
    swarm.settle().expect("settles");
    swarm.assert_one();
    assert!(swarm.read[5].contains(&late) && !swarm.read[5].contains(&early));
    assert!(swarm.read[4].contains(&early));
}

#[test]
fn an_open_group_is_joined_by_oneself() {
    let policy =
        GroupPolicy { admission: x0x_groups::Admission::OpenJoin, ..GroupPolicy::PRIVATE_SECURE };
    let mut swarm = Swarm::new(5, 3, policy).expect("founded");
    let group = swarm.group;
    for n in 1..3 {
        let handover = swarm.members[0].open_invitation(group).expect("open");
        swarm.members[n].join_open(group, &handover, "new", NOW).expect("joins");
        swarm.publish(n);
        swarm.settle().expect("settles");
    }
    swarm.assert_one();
    assert_eq!(swarm.active(), [0, 1, 2]);
    let text = (agent(2), swarm.write(2).expect("writes"));
    swarm.settle().expect("settles");
    assert!((0..2).all(|n| swarm.read[n].contains(&text)));
}

#[test]
fn a_member_that_redeems_another_invite_stays_where_it_is() {
    let mut swarm = staffed(83);
    let group = swarm.group;
    // A commit and a text that one member has not heard when another hands it the group again.
    let keys = swarm.members[0].view(group).expect("here").mls_group.expect("encrypted");
    swarm.members[0].refresh(group, keys).expect("commits");
    swarm.publish(0);
    let between = (agent(0), swarm.write(0).expect("writes"));
    swarm.bring_in(0, 3, [83; 32]).expect("it is in it already");
    assert!(!swarm.returned.contains(&3));
    swarm.settle().expect("settles");
    swarm.assert_one();
    assert!(swarm.read[3].contains(&between));
    assert_eq!(swarm.unreadable, [0; AGENTS]);
}

#[test]
fn a_public_group_that_becomes_encrypted_takes_its_members_along() {
    let mut swarm = Swarm::new(84, 4, GroupPolicy::PUBLIC_OPEN).expect("founded");
    let group = swarm.group;
    for n in 1..4 {
        let handover = swarm.members[0].open_invitation(group).expect("open");
        swarm.members[n].join_open(group, &handover, "new", NOW).expect("joins");
        swarm.publish(n);
        swarm.settle().expect("settles");
    }
    swarm.members[0].set_policy(group, GroupPolicy::PRIVATE_SECURE, NOW).expect("the owner may");
    swarm.publish(0);
    // Whoever has no keys is behind, and nothing else fails until it has them.
    while swarm.hear(1) {}
    let standing = swarm.members[1].standing(group).expect("here");
    assert_eq!(standing, Standing::Behind);
    assert!(swarm.members[1].difference(group).is_ok());
    swarm.members[1].follow(group).expect("nothing to be done");
    swarm.settle().expect("settles");
    swarm.assert_one();
    let text = (agent(2), swarm.write(2).expect("writes"));
    swarm.settle().expect("settles");
    assert!((0..4).all(|n| swarm.read[n].contains(&text)));
}

#[test]
fn nothing_of_a_hidden_group_is_on_the_wire() {
    let mut swarm = staffed(80);
    swarm.write(0).expect("writes");
    swarm.settle().expect("settles");
    let view = swarm.members[0].view(swarm.group).expect("here");
    let keys = view.mls_group.expect("encrypted");
    let mut secrets: Vec<Vec<u8>> = (0..AGENTS).map(|n| agent(n).as_bytes().to_vec()).collect();
    secrets.extend([
        swarm.group.as_bytes().to_vec(),
        keys.0.to_vec(),
        b"swarm".to_vec(),
        b"text".to_vec(),
    ]);
    let topic = swarm.members[0].log(swarm.group).expect("here").topic();
    assert!(!topic.contains(&swarm.group.to_string()[..16]));
    for item in swarm.log.iter().map(|item| item.as_ref()).chain([topic.as_bytes()]) {
        for secret in &secrets {
            assert!(!item.windows(secret.len()).any(|part| part == secret.as_slice()));
        }
    }
    let heads = swarm.members[0].view(swarm.group).expect("here");
    assert!(heads.profile.name == "swarm");
}

#[test]
fn who_adds_without_the_role_or_comes_uninvited_stays_out() {
    let mut swarm = staffed(81);
    let group = swarm.group;
    // A guest admits nobody; a stranger is told nothing.
    let stranger = agent(5);
    assert!(swarm.members[0].since(group, stranger, &[]).is_err());
    assert!(swarm.members[0].invitation(group, stranger).is_err());
    let (role, basis) = (Role::Member, Basis::Added);
    let add = Action::Admit { agent: stranger, role, basis, display_name: String::new() };
    let guest = Action::SetRole { agent: agent(4), role: Role::Guest };
    swarm.members[1].act(group, guest, NOW).expect("may");
    swarm.publish(1);
    swarm.settle().expect("settles");
    assert!(swarm.members[4].act(group, add, NOW).is_err());
    assert!(swarm.write(4).is_err(), "a guest reads");
    let text = (agent(0), swarm.write(0).expect("writes"));
    swarm.settle().expect("settles");
    swarm.assert_one();
    assert!(swarm.read[4].contains(&text));
}

#[test]
fn keys_that_another_group_names_stay_with_their_own() {
    let mut swarm = staffed(85);
    let keys = swarm.members[1].view(swarm.group).expect("here").mls_group;
    // A member founds a group of its own over the keys of this one, and brings another into it.
    let profile = x0x_groups::Profile { name: "trap".into(), ..Default::default() };
    let policy = GroupPolicy::PRIVATE_SECURE;
    let founded = x0x_groups::found(&key(1), [9; 32], policy, profile, keys, "1", NOW);
    let mut chain = x0x_groups::Chain::new(founded).expect("founds");
    let (agent, role, basis) = (agent(2), Role::Member, Basis::Added);
    let admit = Action::Admit { agent, role, basis, display_name: String::new() };
    let admitted = chain.prepare(x0x_groups::testing::agent(1), NOW, admit).expect("may");
    let admitted = admitted.sign(&key(1));
    let operations = vec![chain.genesis().encoded().clone(), admitted.encoded().clone()];
    chain.offer(admitted).expect("taken");
    let group = swarm.group;
    let info = swarm.members[1].invitation(group, agent).expect("a member").info;
    let handover = x0x_groups::Handover { operations, info, ..Default::default() };
    assert!(swarm.members[2].enter(chain.group(), &handover).is_err());
    let _ = swarm.members[2].follow(chain.group());
    assert!(swarm.members[2].take_outgoing(chain.group()).is_empty());
    let ban = Action::Ban { agent: x0x_groups::testing::agent(4), reason: String::new() };
    swarm.members[0].act(group, ban, NOW).expect("may");
    swarm.publish(0);
    swarm.settle().expect("settles");
    swarm.assert_one();
    assert_eq!(swarm.active(), [0, 1, 2, 3]);
    let text = (x0x_groups::testing::agent(2), swarm.write(2).expect("writes"));
    swarm.settle().expect("settles");
    assert!((0..4).all(|n| swarm.read[n].contains(&text)));
}

#[test]
fn content_is_sealed_to_who_is_in_the_epoch() {
    let mut swarm = staffed(86);
    let group = swarm.group;
    let sealed = swarm.members[1].seal(group, [7; 24], b"content").expect("a member");
    for n in 0..AGENTS - 1 {
        assert_eq!(swarm.members[n].unseal(group, &sealed).expect("opens"), b"content"[..]);
    }
    let altered = x0x_groups::Sealed { nonce: [8; 24], ..sealed.clone() };
    assert!(swarm.members[2].unseal(group, &altered).is_err());
    assert!(swarm.members[5].seal(group, [9; 24], b"x").is_err(), "it is not in it");
    let ban = Action::Ban { agent: agent(4), reason: String::new() };
    swarm.members[0].act(group, ban, NOW).expect("may");
    swarm.publish(0);
    swarm.settle().expect("settles");
    let later = swarm.members[0].seal(group, [10; 24], b"later").expect("a member");
    assert!(swarm.members[4].unseal(group, &later).is_err());
    assert!(swarm.members[1].unseal(group, &sealed).is_err(), "of another epoch");
}

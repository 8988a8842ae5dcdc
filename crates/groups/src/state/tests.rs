//! The same set in any order gives the same state, and nobody undoes what takes its role away.

use std::collections::BTreeMap;

use proptest::prelude::*;
use x0x_core::SeededRng;
use x0x_identity::testing;

use super::*;
use crate::{
    limits::{MAX_UNVOUCHED, MAX_WAITING},
    policy::Admission,
    wire::{Basis, Room, Statement},
};

mod attacks;
mod limits;

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

fn key(n: usize) -> SecretKey {
    testing::key(n as u64 + 1)
}

fn id(n: usize) -> AgentId {
    key(n).public_key().agent_id()
}

fn profile(name: &str) -> Profile {
    Profile { name: name.to_owned(), ..Profile::default() }
}

fn founded(policy: GroupPolicy) -> Operation {
    let mls = policy.is_encrypted().then_some(MlsId([9; 32]));
    found(&key(0), [7; 32], policy, profile("group"), mls, "0", NOW)
}

/// An operation as an author states it who knows only these, whatever the rules say.
fn stated(
    chain: &Chain,
    n: usize,
    role: Option<Role>,
    parents: Vec<OpId>,
    action: Action,
) -> Operation {
    let height = chain.height_after(&parents);
    let group = Some(chain.group());
    OperationBody { group, author: id(n), parents, height, at: NOW, role, action }.sign(&key(n))
}

/// What an agent may do by what it knows, taken at once.
fn act(chain: &mut Chain, n: usize, action: Action) -> Operation {
    let operation = chain.prepare(id(n), NOW, action).expect("it may").sign(&key(n));
    let before = chain.view().revision;
    chain.offer(operation.clone()).expect("taken");
    assert_eq!(chain.view().revision, before + 1, "it stands");
    operation
}

fn added(n: usize) -> Action {
    Action::Admit {
        agent: id(n),
        role: Role::Member,
        basis: Basis::Added,
        display_name: n.to_string(),
    }
}

fn set_role(n: usize, role: Role) -> Action {
    Action::SetRole { agent: id(n), role }
}

fn ban(n: usize) -> Action {
    Action::Ban { agent: id(n), reason: String::new() }
}

/// A group of an owner (0), admins (1, 2), a moderator (3) and members (4, 5).
fn staffed(policy: GroupPolicy) -> Chain {
    let mut chain = Chain::new(founded(policy)).expect("founds");
    (1..6).for_each(|n| drop(act(&mut chain, 0, added(n))));
    for (n, role) in [(1, Role::Admin), (2, Role::Admin), (3, Role::Moderator)] {
        act(&mut chain, 0, set_role(n, role));
    }
    chain
}

fn operations(chain: &Chain) -> Vec<Operation> {
    chain.held.iter().map(|held| held.operation.clone()).collect()
}

/// Members that act on what they know, some of which lie about it.
struct World {
    rng: SeededRng,
    chains: Vec<Chain>,
    log: BTreeMap<OpId, Operation>,
}

impl World {
    fn new(seed: u64) -> Self {
        let chain =
            staffed(GroupPolicy { invite_role: Role::Member, ..GroupPolicy::PRIVATE_SECURE });
        let log = operations(&chain).into_iter().map(|o| (o.id, o)).collect();
        Self { rng: SeededRng::from_number(seed), chains: vec![chain; 7], log }
    }

    fn action(&mut self) -> Action {
        let agent = id(self.rng.below(7));
        match self.rng.below(12) {
            0 => Action::SetPolicy {
                policy: GroupPolicy {
                    admission: Admission::ALL[self.rng.below(2)],
                    invite_role: Role::ALL[self.rng.below(4)],
                    ..GroupPolicy::PRIVATE_SECURE
                },
                mls_group: Some(MlsId([9; 32])),
            },
            1 => Action::SetProfile(profile(&self.rng.below(99).to_string())),
            2 | 3 => Action::SetRole { agent, role: Role::ALL[1 + self.rng.below(4)] },
            4 | 5 => Action::Admit {
                agent,
                role: Role::Member,
                basis: Basis::Added,
                display_name: String::new(),
            },
            6 => Action::Remove { agent },
            7 => Action::Ban { agent, reason: String::new() },
            8 => Action::Unban { agent, role: Some(Role::Member) },
            9 => Action::Leave,
            10 => Action::SetDisplayName(self.rng.below(99).to_string()),
            _ => {
                let name = self.rng.below(3).to_string();
                Action::SetRoom(Room { name, topic: String::new(), closed: self.rng.chance(0.5) })
            }
        }
    }

    fn step(&mut self) {
        let n = self.rng.below(7);
        if self.rng.chance(0.5) {
            let mut all: Vec<Operation> = self.log.values().cloned().collect();
            self.rng.shuffle(&mut all);
            all.truncate(3);
            for operation in all {
                let _ = self.chains[n].offer(operation);
            }
            return;
        }
        let action = self.action();
        let operation = if self.rng.chance(0.3) {
            // It pretends to know only a part, and a role that it may not have.
            let known: Vec<OpId> = self.chains[n].index.keys().copied().collect();
            let parent = known[self.rng.below(known.len())];
            let role = Role::ALL[self.rng.below(5)];
            stated(&self.chains[n], n, Some(role), vec![parent], action)
        } else {
            let Ok(body) = self.chains[n].prepare(id(n), NOW, action) else { return };
            body.sign(&key(n))
        };
        self.chains[n].offer(operation.clone()).expect("it fits");
        self.log.insert(operation.id, operation);
    }
}

fn gather(log: &BTreeMap<OpId, Operation>, rng: &mut SeededRng) -> Chain {
    let mut all: Vec<Operation> = log.values().cloned().collect();
    let founded = all.iter().position(|o| o.body.group.is_none()).expect("one founds it");
    let mut chain = Chain::new(all.swap_remove(founded)).expect("founds");
    rng.shuffle(&mut all);
    all.into_iter().for_each(|operation| drop(chain.offer(operation)));
    chain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_set_has_one_state_in_any_order(seed in any::<u64>()) {
        let mut world = World::new(seed);
        for _ in 0..60 {
            world.step();
        }
        let mut rng = SeededRng::from_number(seed ^ 1);
        let one = gather(&world.log, &mut rng);
        let other = gather(&world.log, &mut rng);
        prop_assert_eq!(one.len(), world.log.len());
        prop_assert_eq!(one.view(), other.view());
        prop_assert_eq!(one.view().state_hash(), other.view().state_hash());
        prop_assert_eq!(one.view().role(&id(0)), Some(Role::Owner));
        // Whoever was behind ends where the others are.
        for chain in &mut world.chains {
            for operation in world.log.values() {
                drop(chain.offer(operation.clone()));
            }
            for operation in world.log.values() {
                drop(chain.offer(operation.clone()));
            }
            prop_assert_eq!(chain.view(), one.view());
            prop_assert!(chain.missing().is_empty());
        }
        // What follows at a place is what follows from what it builds upon, and nothing else.
        let place = rng.below(one.len());
        let held = &one.held[place];
        let mut part: BTreeMap<OpId, Operation> = one.held.iter().enumerate()
            .filter(|(at, _)| held.before.contains(*at))
            .map(|(_, held)| (held.operation.id, held.operation.clone()))
            .collect();
        part.insert(held.operation.id, held.operation.clone());
        let alone = gather(&part, &mut rng);
        prop_assert_eq!(&one.view_at(&[held.operation.id]).expect("known"), alone.view());
    }
}

#[test]
fn who_is_behind_is_given_what_it_lacks() {
    let mut chain = staffed(GroupPolicy::PRIVATE_SECURE);
    let mut behind = Chain::new(founded(GroupPolicy::PRIVATE_SECURE)).expect("founds");
    let last = act(&mut chain, 1, Action::SetProfile(profile("other")));
    assert_eq!(behind.offer(last), Ok(Offered::Waiting));
    assert_eq!(behind.missing().len(), 1);
    let heads: Vec<OpId> = behind.heads().collect();
    for bytes in chain.since(&heads) {
        let operation = crate::wire::OperationIn::decode(&bytes).expect("reads");
        let _ = behind.offer(operation.verify().expect("verifies"));
    }
    assert_eq!(behind.view(), chain.view());
    assert!(behind.missing().is_empty() && behind.waiting.is_empty());
    assert!(chain.since(&behind.parents()).is_empty());
}

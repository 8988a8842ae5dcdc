use proptest::prelude::*;

use x0x_core::AgentId;

use super::*;

fn id(n: u32) -> [u8; 32] {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    id
}

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

/// Members of every state of a history, by seat.
const AGENTS: u8 = 5;

fn facts(author: u8, removes: u8) -> Facts {
    let removes = (0..AGENTS).filter(|n| removes >> n & 1 == 1).map(agent);
    Facts::new(agent(author), u32::from(author), removes)
}

fn rank_of(facts: &Facts, role: u32) -> u32 {
    role + if facts.removes.is_empty() { RANK_OTHER } else { 0 }
}

/// A history: every commit hangs on an earlier one's child, or on the root (state 0).
#[derive(Debug, Clone)]
struct World {
    commits: Vec<(Commit, Option<Facts>)>,
}

fn root() -> Link {
    Link::start([0; 32], 7, None)
}

fn world() -> impl Strategy<Value = World> {
    // Half of the commits remove somebody.
    let removes = prop_oneof![Just(0u8), 0u8..(1 << AGENTS)];
    let what = (0..AGENTS, removes, 0u32..3);
    let one = (any::<prop::sample::Index>(), any::<u32>(), what, 0..8);
    proptest::collection::vec(one, 1..24).prop_map(|shape| {
        let root = root();
        let mut states = vec![(root.state, root.epoch)];
        let mut commits: Vec<(Commit, Option<Facts>)> = Vec::new();
        for (n, (parent, hash, (author, removes, role), luck)) in shape.into_iter().enumerate() {
            let (parent, epoch) = states[parent.index(states.len())];
            let child = id(n as u32 + 1);
            let facts = facts(author, removes);
            let rank = rank_of(&facts, role);
            let valid = luck != 0;
            // The window is what a member can go back; within it the order must not matter.
            if valid && epoch + 1 < root.epoch + MAX_STATES as u64 - 1 {
                states.push((child, epoch + 1));
            }
            let commit = Commit { epoch, rank, parent, id: id(hash), child };
            commits.push((commit, valid.then_some(facts)));
        }
        World { commits }
    })
}

impl World {
    /// What the rule says, from the whole set.
    fn chain(&self) -> Vec<StateId> {
        let mut chain = vec![root().state];
        loop {
            let tip = chain[chain.len() - 1];
            let here = self.commits.iter().filter(|(c, _)| c.parent == tip);
            let rivals: BTreeMap<Key, Rival> = here
                .filter_map(|(c, facts)| {
                    let facts = facts.clone()?;
                    Some(((c.rank, c.id), Rival { child: c.child, facts }))
                })
                .collect();
            let Some(next) = winner(&rivals) else { return chain };
            chain.push(rivals[&next].child);
        }
    }

    fn settle(&self, ordering: &mut Ordering) {
        let mut tries = 0;
        while let Some(commit) = ordering.try_next() {
            assert!(ordering.knows(&commit.parent));
            tries += 1;
            assert!(tries < 1000, "no end");
            let (_, facts) = self.commits.iter().find(|(c, _)| *c == commit).expect("offered");
            match facts {
                Some(facts) => drop(ordering.verified(&commit, facts.clone())),
                None => ordering.refused(&commit),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_arrival_order_leads_to_the_same_chain(
        world in world(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..80),
        lazily: bool,
        stored: bool,
    ) {
        let mut ids: Vec<_> = world.commits.iter().map(|(c, _)| c.id).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assume!(ids.len() == world.commits.len());
        let mut ordering = Ordering::new(&root());
        // Any order, some of them twice; then all of them, so that none is missing.
        for (commit, _) in order.iter().map(|i| i.get(&world.commits)) {
            ordering.offer(*commit);
            if !lazily {
                world.settle(&mut ordering);
            }
        }
        if stored {
            let links: Vec<_> = ordering.links().collect();
            ordering = Ordering::resume(&links).expect("a chain");
            prop_assert_eq!(ordering.links().collect::<Vec<_>>(), links);
        }
        for (commit, _) in world.commits.iter().rev() {
            ordering.offer(*commit);
            if !lazily {
                world.settle(&mut ordering);
            }
        }
        world.settle(&mut ordering);
        let links: Vec<_> = ordering.links().map(|link| link.state).collect();
        prop_assert_eq!(links, world.chain());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn who_is_removed_by_what_stands_never_stands(
        rivals in proptest::collection::vec((0..AGENTS, 0u8..(1 << AGENTS), 0u32..3), 1..12),
        ground in proptest::collection::vec((0u8..(1 << AGENTS), any::<u32>()), 0..20),
    ) {
        let mut all = BTreeMap::new();
        let mut add = |author: u8, removes: u8, role: u32, n: u32| {
            let facts = facts(author, removes);
            all.insert((rank_of(&facts, role), id(n)), Rival { child: id(n), facts });
        };
        // Member 4 has the last seat and role, and as many commits as it likes; nobody else removes
        // a member in this state but that one.
        add(0, 1 << 4, 2, u32::MAX);
        for (n, (author, _, role)) in rivals.iter().enumerate() {
            add(author % 4, 0, *role, n as u32);
        }
        for (removes, hash) in &ground {
            add(4, *removes, 2, *hash);
        }
        let stands = winner(&all).expect("one");
        prop_assert_eq!(all[&stands].facts.author, agent(0));

        // Of any set: what stands is not brought down by what nobody touches.
        for (n, (author, removes, role)) in rivals.iter().enumerate() {
            let facts = facts(*author, *removes);
            let key = (rank_of(&facts, *role), id(n as u32 + 1000));
            all.insert(key, Rival { child: id(n as u32), facts });
        }
        let stands = &all[&winner(&all).expect("one")].facts;
        let removers = all.values().filter(|rival| rival.facts.removes.contains(&stands.author));
        for remover in removers {
            let author = remover.facts.author;
            prop_assert!(all.values().any(|rival| rival.facts.removes.contains(&author)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_kept_is_bounded(epochs in proptest::collection::vec((0u64..2000, any::<u8>(), any::<u32>()), 0..600)) {
        let mut ordering = Ordering::new(&root());
        for (epoch, parent, hash) in epochs {
            let commit =
                Commit { parent: id(u32::from(parent)), ..commit(epoch, 0, hash, hash ^ 1) };
            let facts = facts(parent % AGENTS, (hash % 32) as u8);
            let commit = Commit { rank: rank_of(&facts, 0), ..commit };
            ordering.offer(commit);
            if let Some(commit) = ordering.try_next() {
                ordering.verified(&commit, facts);
            }
            let counted: usize = ordering.waiting.values().map(BTreeMap::len).sum();
            prop_assert_eq!(counted, ordering.waiting_len);
            prop_assert!(ordering.waiting_len <= MAX_WAITING);
            prop_assert!(ordering.chain.iter().all(|state| state.verified.len() <= MAX_RIVALS));
            prop_assert!(ordering.chain.len() <= MAX_STATES && ordering.lost.len() <= MAX_LOST);
        }
    }
}

fn commit(epoch: u64, parent: u32, hash: u32, child: u32) -> Commit {
    Commit { epoch, rank: RANK_OTHER, parent: id(parent), id: id(hash), child: id(child) }
}

#[test]
fn what_is_built_on_a_loser_does_not_make_the_winner_look_behind() {
    let mut ordering = Ordering::new(&root());
    ordering.offer(commit(7, 0, 1, 10));
    let winner = ordering.try_next().expect("one");
    ordering.verified(&winner, facts(0, 0)).expect("stands");
    // The grandchild of the loser comes first.
    assert_eq!(ordering.offer(commit(9, 30, 5, 31)), Offered::Waiting);
    assert_eq!(ordering.standing(), Standing::Behind);
    assert_eq!(ordering.offer(commit(8, 20, 4, 30)), Offered::Waiting);
    assert_eq!(ordering.offer(commit(7, 0, 2, 20)), Offered::Lost);
    assert_eq!(ordering.standing(), Standing::Current);
    assert_eq!(ordering.offer(commit(9, 30, 6, 32)), Offered::Lost);
}

#[test]
fn beyond_the_window_the_shorter_side_is_behind() {
    let mut ordering = Ordering::new(&root());
    for n in 0..10 {
        ordering.offer(commit(7 + u64::from(n), n, 100, n + 1));
        let next = ordering.try_next().expect("one");
        ordering.verified(&next, facts(0, 0)).expect("stands");
    }
    assert!(!ordering.knows(&root().state));
    assert_eq!(ordering.offer(commit(7, 0, 1, 1000)), Offered::Lost);
    assert_eq!(ordering.offer(commit(16, 1010, 1, 1011)), Offered::Waiting);
    assert_eq!(ordering.standing(), Standing::Behind);
    let mut shorter = Ordering::new(&Link::start(id(10), 18, Some(id(3))));
    shorter.offer(commit(18, 1010, 1, 1011));
    assert_eq!(shorter.standing(), Standing::Behind);
}

#[test]
fn a_side_that_fell_and_cannot_come_back_is_followed_when_it_is_longer() {
    let mut ordering = Ordering::new(&root());
    ordering.offer(commit(7, 0, 1, 10));
    let winner = ordering.try_next().expect("one");
    ordering.verified(&winner, facts(0, 0)).expect("stands");
    // Each of them keeps the fork among its states until it is MAX_STATES further.
    for n in 0..MAX_STATES as u32 {
        assert_eq!(ordering.standing(), Standing::Current, "{n}");
        let (parent, child) = (if n == 0 { 0 } else { 19 + n }, 20 + n);
        assert_eq!(ordering.offer(commit(7 + u64::from(n), parent, 5, child)), Offered::Lost);
    }
    assert_eq!(ordering.standing(), Standing::Behind);
    // A claim that does not fit its own state's epoch is none.
    let mut other = Ordering::new(&root());
    other.offer(commit(7, 0, 1, 10));
    other.verified(&winner, facts(0, 0)).expect("stands");
    assert_eq!(other.offer(commit(7, 0, 2, 20)), Offered::Lost);
    assert_eq!(other.offer(commit(u64::MAX, 20, 3, 30)), Offered::Lost);
    assert_eq!(other.standing(), Standing::Current);
    // This one went on further itself.
    for n in 0..MAX_STATES as u32 {
        ordering.offer(commit(8 + u64::from(n), 10 + 100 * n, 1, 110 + 100 * n));
        let next = ordering.try_next().expect("one");
        ordering.verified(&next, facts(0, 0)).expect("stands");
    }
    assert_eq!(ordering.standing(), Standing::Current);
}

#[test]
fn a_forgotten_commit_may_come_again_and_a_refused_one_may_not() {
    let mut ordering = Ordering::new(&root());
    let (one, other) = (commit(7, 0, 1, 10), commit(7, 0, 2, 20));
    ordering.offer(one);
    ordering.forget(&one);
    assert_eq!(ordering.try_next(), None);
    assert_eq!(ordering.offer(one), Offered::Rival);
    ordering.refused(&one);
    assert_eq!(ordering.offer(one), Offered::Duplicate);
    assert_eq!(ordering.offer(other), Offered::Rival);
    assert_eq!(ordering.try_next(), Some(other));
}

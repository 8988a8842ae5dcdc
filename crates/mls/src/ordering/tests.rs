use proptest::prelude::*;

use super::*;

fn id(n: u32) -> [u8; 32] {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    id
}

/// A history: every commit hangs on an earlier one's child, or on the root (state 0).
#[derive(Debug, Clone)]
struct World {
    commits: Vec<(Commit, bool)>,
}

const ROOT: Link = Link { state: [0; 32], epoch: 7, by: None };

fn world() -> impl Strategy<Value = World> {
    let shape =
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u32>(), 0..8), 1..24);
    shape.prop_map(|shape| {
        let mut states = vec![(ROOT.state, ROOT.epoch)];
        let mut commits: Vec<(Commit, bool)> = Vec::new();
        for (n, (parent, hash, luck)) in shape.into_iter().enumerate() {
            let (parent, epoch) = states[parent.index(states.len())];
            let child = id(n as u32 + 1);
            let valid = luck != 0;
            commits.push((Commit { epoch, parent, id: id(hash), child }, valid));
            // The window is what a member can go back; within it the order must not matter.
            if valid && epoch + 1 < ROOT.epoch + MAX_STATES as u64 - 1 {
                states.push((child, epoch + 1));
            }
        }
        World { commits }
    })
}

impl World {
    /// What the rule says, from the whole set.
    fn chain(&self) -> Vec<StateId> {
        let mut chain = vec![ROOT.state];
        loop {
            let tip = chain[chain.len() - 1];
            let here = self.commits.iter().filter(|(c, valid)| c.parent == tip && *valid);
            let Some((next, _)) = here.min_by_key(|(c, _)| c.id) else { return chain };
            chain.push(next.child);
        }
    }

    fn settle(&self, ordering: &mut Ordering) {
        while let Some(commit) = ordering.try_next() {
            assert!(ordering.knows(&commit.parent));
            if self.commits.iter().any(|(c, valid)| *c == commit && *valid) {
                ordering.stands(&commit);
            } else {
                ordering.refused(&commit);
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
    ) {
        let mut ids: Vec<_> = world.commits.iter().map(|(c, _)| c.id).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assume!(ids.len() == world.commits.len());
        let mut ordering = Ordering::new(ROOT);
        // Any order, some of them twice; then all of them, so that none is missing.
        let picks = order.iter().map(|i| i.get(&world.commits));
        for (commit, _) in picks.chain(world.commits.iter().rev()) {
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
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_kept_is_bounded(epochs in proptest::collection::vec((0u64..2000, any::<u8>(), any::<u32>()), 0..600)) {
        let mut ordering = Ordering::new(ROOT);
        for (epoch, parent, hash) in epochs {
            let commit =
                Commit { epoch, parent: id(u32::from(parent)), id: id(hash), child: id(hash ^ 1) };
            ordering.offer(commit);
            if let Some(commit) = ordering.try_next() {
                ordering.stands(&commit);
            }
            let counted: usize = ordering.waiting.values().map(BTreeMap::len).sum();
            prop_assert_eq!(counted, ordering.waiting_len);
            prop_assert!(ordering.waiting_len <= MAX_WAITING);
            prop_assert!(ordering.chain.len() <= MAX_STATES && ordering.lost.len() <= MAX_LOST);
        }
    }
}

fn commit(epoch: u64, parent: u32, hash: u32, child: u32) -> Commit {
    Commit { epoch, parent: id(parent), id: id(hash), child: id(child) }
}

#[test]
fn what_is_built_on_a_loser_does_not_make_the_winner_look_behind() {
    let mut ordering = Ordering::new(ROOT);
    ordering.offer(commit(7, 0, 1, 10));
    let winner = ordering.try_next().expect("one");
    ordering.stands(&winner);
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
    let mut ordering = Ordering::new(ROOT);
    for n in 0..10 {
        ordering.offer(commit(7 + u64::from(n), n, 100, n + 1));
        let next = ordering.try_next().expect("one");
        ordering.stands(&next);
    }
    assert!(!ordering.knows(&ROOT.state));
    assert_eq!(ordering.offer(commit(7, 0, 1, 1000)), Offered::Lost);
    assert_eq!(ordering.offer(commit(16, 1010, 1, 1011)), Offered::Waiting);
    assert_eq!(ordering.standing(), Standing::Behind);
    let mut shorter = Ordering::new(Link { state: id(10), epoch: 18, by: Some(id(3)) });
    shorter.offer(commit(18, 1010, 1, 1011));
    assert_eq!(shorter.standing(), Standing::Behind);
}

#[test]
fn a_forgotten_commit_may_come_again_and_a_refused_one_may_not() {
    let mut ordering = Ordering::new(ROOT);
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

//! Neighbours of long standing.

use super::*;
use crate::cache::MAX_ANCHORS;

#[test]
fn anchors_are_neighbours_of_long_standing_and_stay() {
    let mut world = World::new();
    world.link(1..=4);
    world.advance(500 * SECOND);
    assert_eq!(world.machine.anchors().count(), 0, "nobody is known for long");
    world.link(5..=8);
    world.advance(200 * SECOND);
    let anchors: Vec<MachineId> = world.machine.anchors().collect();
    assert_eq!(anchors.len(), MAX_ANCHORS);
    assert!(anchors.iter().all(|anchor| (1..=4).map(id).any(|old| old == *anchor)));
    world.advance(2000 * SECOND);
    assert_eq!(world.machine.anchors().collect::<Vec<_>>(), anchors, "they are kept");
    world.handle(Input::Down(anchors[0]));
    world.advance(60 * SECOND);
    let later: Vec<MachineId> = world.machine.anchors().collect();
    assert_eq!(later.len(), MAX_ANCHORS);
    assert!(!later.contains(&anchors[0]) && later.contains(&anchors[1]));
}

#[test]
fn the_best_of_the_cache_are_dialled_first() {
    for seed in 0..20 {
        let mut world = World::new();
        world.machine.rng = SeededRng::from_number(seed);
        world.handle(Input::Start { bootstrap: vec![], cached: (1..=40).map(peer).collect() });
        let dialled: Vec<_> = world.dials.iter().take(2).map(|to| to.id).collect();
        assert_eq!(dialled, [Some(id(1)), Some(id(2))]);
    }
}

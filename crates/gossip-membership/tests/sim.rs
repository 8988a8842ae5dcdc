//! Whole overlays in the simulator: they form, stay symmetric, and survive.

mod common;

use std::time::Duration;

use common::{begin, graph, join, swarm, swarm_with_sybils};
use x0x_core::{Machine, SeededRng};
use x0x_gossip_membership::{Input, Message, OverlayConfig};
use x0x_testkit::{Graph, NodeId, for_seeds};

use crate::common::{Change, Overlays};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// `count` nodes join through node 0, one each `pause`.
fn formed(seed: u64, count: usize, pause: Duration) -> Overlays {
    let mut swarm = swarm(seed);
    for _ in 0..count {
        join(&mut swarm);
        swarm.run_for(pause);
    }
    swarm
}

/// Connected, symmetric, within the caps.
fn assert_whole(swarm: &mut Overlays, min_degree: usize) {
    let before = graph(swarm).one_sided();
    // An answer may be on its way; it is not for two seconds.
    swarm.run_for(2 * SECOND);
    let graph = graph(swarm);
    let config = OverlayConfig::default();
    assert_eq!(graph.components(), [graph.len()], "one component");
    let one_sided: Vec<_> = graph.one_sided().into_iter().filter(|l| before.contains(l)).collect();
    assert_eq!(one_sided, [], "links are symmetric");
    let degrees = graph.degrees();
    assert!(degrees.max <= config.active_max && degrees.min >= min_degree, "{degrees:?}");
    for (node, machine) in swarm.running() {
        assert!(machine.passive().count() <= config.passive_max);
        assert!(machine.active().all(|id| swarm.has_session(node, common::node(id))));
    }
}

#[test]
fn small_overlays_become_a_full_mesh_soon() {
    for_seeds(20, |seed| {
        for count in [2, 3, 5] {
            let mut swarm = formed(seed, count, Duration::ZERO);
            swarm.run_for(2 * SECOND);
            assert_whole(&mut swarm, count - 1);
        }
        let mut swarm = formed(seed, 8, 100 * MS);
        swarm.run_for(10 * SECOND);
        assert_whole(&mut swarm, 7);
    });
}

#[test]
fn a_full_mesh_is_silent_between_shuffles() {
    let mut swarm = formed(1, 5, 100 * MS);
    swarm.run_for(60 * SECOND);
    let before = *swarm.stats();
    swarm.run_for(600 * SECOND);
    let timeouts = (swarm.stats().timeouts - before.timeouts) / 5;
    let messages = (swarm.stats().sent - before.sent) / 5;
    // A ping each five seconds, and 20 shuffle intervals.
    assert!((120..=170).contains(&timeouts), "{timeouts} wake-ups a node");
    // At most six hops there and six back, each counted at its sender.
    assert!(messages <= 2 * 130 + 30 * 12, "{messages} messages a node");
}

#[test]
fn fifty_nodes_form_one_symmetric_overlay() {
    for_seeds(4, |seed| {
        let mut swarm = formed(seed, 50, 50 * MS);
        swarm.run_for(30 * SECOND);
        assert_whole(&mut swarm, 5);
    });
}

#[test]
fn two_hundred_nodes_join_at_once() {
    for_seeds(1, |seed| {
        let mut swarm = formed(seed, 200, Duration::ZERO);
        swarm.run_for(60 * SECOND);
        assert_whole(&mut swarm, 5);
    });
}

#[test]
fn four_hundred_nodes_form_one_symmetric_overlay() {
    let mut swarm = formed(1, 400, 10 * MS);
    swarm.run_for(10 * SECOND);
    assert_whole(&mut swarm, 5);
    let degrees = graph(&swarm).degrees();
    assert!((6.5..=8.0).contains(&degrees.mean), "{degrees:?}");
    let known: usize = swarm.running().map(|(_, machine)| machine.passive().count()).sum();
    assert!(known / 400 >= 20, "{} passive peers a node", known / 400);
}

/// 150 nodes, of which `percent` crash at once.
fn survive(percent: usize, degree_after: [usize; 2]) {
    for_seeds(1, |seed| {
        let mut swarm = formed(seed, 150, 20 * MS);
        swarm.run_for(45 * SECOND);
        let mut nodes: Vec<NodeId> = (0..150).collect();
        SeededRng::from_number(seed).shuffle(&mut nodes);
        nodes.iter().take(150 * percent / 100).for_each(|node| swarm.crash(*node));
        // 15 s until every crash is noticed, then one shuffle, then another.
        swarm.run_for(45 * SECOND);
        assert_whole(&mut swarm, degree_after[0]);
        swarm.run_for(30 * SECOND);
        assert_whole(&mut swarm, degree_after[1]);
    });
}

#[test]
fn survivors_reconnect_after_a_third_crashed() {
    survive(30, [4, 5]);
}

#[test]
fn survivors_reconnect_after_half_crashed() {
    survive(50, [4, 5]);
}

#[test]
fn survivors_reconnect_after_four_fifths_crashed() {
    survive(80, [1, 4]);
}

#[test]
fn a_crashed_bootstrap_node_leaves_the_overlay_whole() {
    for_seeds(3, |seed| {
        let mut swarm = formed(seed, 30, 100 * MS);
        swarm.run_for(60 * SECOND);
        swarm.crash(0);
        swarm.run_for(60 * SECOND);
        assert_whole(&mut swarm, 4);
        // It comes back with nothing but its cache, and is taken in again.
        swarm.start(0);
        begin(&mut swarm, 0, &[7, 8, 9]);
        swarm.run_for(5 * SECOND);
        assert_whole(&mut swarm, 4);
    });
}

#[test]
fn a_restarted_node_is_taken_in_before_its_crash_is_noticed() {
    for_seeds(20, |seed| {
        let mut swarm = formed(seed, 5, 100 * MS);
        swarm.run_for(30 * SECOND);
        swarm.crash(3);
        swarm.run_for(500 * MS);
        swarm.start(3);
        begin(&mut swarm, 3, &[]);
        swarm.run_for(3 * SECOND);
        assert_whole(&mut swarm, 4);
    });
}

#[test]
fn two_nodes_find_each_other_again() {
    for_seeds(10, |seed| {
        let mut swarm = formed(seed, 2, SECOND);
        swarm.isolate([0]);
        swarm.run_for(100 * SECOND);
        assert_eq!(graph(&swarm).components(), [1, 1]);
        swarm.heal();
        swarm.run_for(70 * SECOND);
        assert_whole(&mut swarm, 1);
        // The seed is restarted, and this time it is the other one that must dial.
        swarm.crash(0);
        swarm.run_for(20 * SECOND);
        swarm.start(0);
        begin(&mut swarm, 0, &[]);
        swarm.run_for(70 * SECOND);
        assert_whole(&mut swarm, 1);
    });
}

#[test]
fn a_healed_partition_becomes_one_overlay_again() {
    for_seeds(2, |seed| {
        let mut swarm = formed(seed, 40, 50 * MS);
        swarm.run_for(30 * SECOND);
        swarm.isolate(0..20);
        swarm.run_for(300 * SECOND);
        assert_eq!(graph(&swarm).components(), [20, 20], "each side is whole by itself");
        swarm.heal();
        swarm.run_for(300 * SECOND);
        assert_whole(&mut swarm, 5);
    });
}

#[test]
fn overlays_that_formed_apart_are_joined_by_a_bootstrap_address() {
    for_seeds(2, |seed| {
        let mut swarm = swarm(seed);
        // The second dozen knows its own first node, which knows the first dozen's.
        swarm.adapter_mut().bootstrap = |node| match node {
            0 => vec![],
            1..=12 => vec![0],
            _ => vec![12],
        };
        swarm.isolate(0..12);
        for _ in 0..24 {
            join(&mut swarm);
            swarm.run_for(100 * MS);
        }
        swarm.run_for(30 * SECOND);
        assert_eq!(graph(&swarm).components(), [12, 12]);
        swarm.heal();
        swarm.run_for(300 * SECOND);
        assert_whole(&mut swarm, 5);
    });
}

#[test]
fn leaving_is_noticed_at_once() {
    let mut swarm = formed(3, 6, 100 * MS);
    swarm.run_for(30 * SECOND);
    swarm.take_events();
    swarm.input(2, Input::Leave);
    swarm.run_for(MS * 100);
    let downs = swarm.take_events();
    let told = downs.iter().filter(|(_, at, change)| *at != 2 && *change == Change::Down(2));
    assert_eq!(told.count(), 5);
    assert!(
        swarm.machine(2).is_some_and(|m| m.active().count() == 0 && m.poll_timeout().is_none())
    );
}

#[test]
fn churn_ends_in_a_whole_overlay() {
    for_seeds(1, |seed| {
        let mut swarm = formed(seed, 60, 50 * MS);
        let mut rng = SeededRng::from_number(seed);
        for _ in 0..120 {
            let node = 1 + rng.below(59);
            if swarm.machine(node).is_some() {
                if rng.chance(0.5) { swarm.crash(node) } else { swarm.stop(node) }
            } else {
                swarm.start(node);
                begin(&mut swarm, node, &[]);
            }
            swarm.run_for(Duration::from_millis(rng.range(10, 2000)));
        }
        swarm.run_for(150 * SECOND);
        assert_whole(&mut swarm, 2);
    });
}

#[test]
fn lost_and_doubled_messages_leave_no_one_sided_link_for_long() {
    for_seeds(2, |seed| {
        let mut swarm = swarm(seed);
        swarm.model_mut().loss = 0.05;
        swarm.model_mut().duplicate = 0.05;
        swarm.model_mut().reorder = 0.05;
        for _ in 0..30 {
            join(&mut swarm);
            swarm.run_for(50 * MS);
        }
        swarm.run_for(60 * SECOND);
        *swarm.model_mut() = x0x_testkit::LinkModel::default();
        swarm.run_for(600 * SECOND);
        assert_whole(&mut swarm, 4);
    });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut swarm = formed(seed, 40, 20 * MS);
        swarm.crash(7);
        swarm.run_for(90 * SECOND);
        (swarm.trace_hash(), *swarm.stats())
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11).0, run(12).0);
}

/// Sybils dial the others at random, `count` of them a second, and ask for links that badly need one.
fn push(swarm: &mut Overlays, rng: &mut SeededRng, honest: usize, sybils: usize, seconds: u32) {
    for _ in 0..seconds * 4 {
        for _ in 0..sybils / 16 {
            swarm.connect(honest + rng.below(sybils), rng.below(honest));
        }
        swarm.run_for(250 * MS);
        for (sybil, target) in std::mem::take(&mut swarm.adapter_mut().pushes) {
            let message = Message::Neighbor { high: true };
            if swarm.has_session(target, sybil) {
                swarm.input(target, Input::Message { peer: common::id(sybil), message });
            }
        }
    }
}

#[test]
fn four_sybils_for_each_node_in_four_networks_do_not_part_the_others() {
    const HONEST: usize = 16;
    const SYBILS: usize = 64;
    for_seeds(1, |seed| {
        let mut swarm = swarm_with_sybils(seed, Some(HONEST));
        let mut rng = SeededRng::from_number(seed);
        for node in 0..HONEST + SYBILS {
            // They come while the overlay forms.
            join(&mut swarm);
            if node.is_multiple_of(10) {
                push(&mut swarm, &mut rng, HONEST, (node + 1).saturating_sub(HONEST), 1);
            }
        }
        push(&mut swarm, &mut rng, HONEST, SYBILS, 12);
        let mut honest = Graph::default();
        let mut taken = 0;
        for (node, machine) in swarm.running().filter(|(node, _)| *node < HONEST) {
            let (others, sybils): (Vec<NodeId>, Vec<NodeId>) =
                machine.active().map(common::node).partition(|node| *node < HONEST);
            assert!(sybils.len() <= 4, "{} of the neighbours are sybils", sybils.len());
            assert!(others.len() >= 2, "{} of the neighbours are none", others.len());
            taken += sybils.len();
            honest.insert(node, others);
        }
        assert!(taken > HONEST, "they do push in");
        assert_eq!(honest.components(), [HONEST], "one component without the sybils");
    });
}

//! Both ends dial at once, over the engine in memory: one session remains, and nothing is lost.

mod common;

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use common::{Counts, Faults, Seed, World, race, seeds};
use x0x_core::{Clock, SeededRng, Tick};
use x0x_transport::{
    Node,
    testing::{LinkModel, MemoryEngine, MemoryNetwork, TokioClock, address, machine},
};

struct Memory {
    network: MemoryNetwork,
    clock: TokioClock,
}

impl World for Memory {
    type Engine = MemoryEngine;

    fn engine(&self, end: usize) -> impl Future<Output = MemoryEngine> {
        let n = end as u64 + 1;
        std::future::ready(self.network.engine(machine(n), address(n)))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    fn break_links(&self) {
        self.network.break_links(machine(1), machine(2));
    }

    async fn vanish(&self, end: usize, node: Node) {
        self.network.kill(machine(end as u64 + 1));
        node.shutdown().await;
    }
}

/// Delays from a local network to a slow one, lossy or not.
fn model(seed: u64) -> LinkModel {
    let mut rng = SeededRng::from_number(seed);
    let micros = Duration::from_micros;
    let slowest = [500, 5_000, 30_000, 120_000][rng.below(4)];
    LinkModel {
        latency: micros(100)..micros(rng.range(200, slowest)),
        accept_delay: micros(0)..micros(rng.range(0, slowest)),
        dial_loss: if rng.chance(0.3) { 0.2 } else { 0.0 },
        stall: if rng.chance(0.3) { 0.1 } else { 0.0 },
        ..LinkModel::default()
    }
}

fn run(seed: u64, faults: Faults) -> (Counts, Tick) {
    let _seed = Seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let network = MemoryNetwork::new(seed, model(seed));
        let world = Memory { network, clock: TokioClock::new() };
        let counts = race(&world, seed, faults).await;
        (counts, world.clock.now())
    })
}

/// Runs all the seeds; what they counted together shows that the faults happened.
fn run_all(range: Range<u64>, faults: Faults, enough: impl Fn(Counts) -> bool) {
    let (seeds, mut total) = (seeds(range), Counts::default());
    for seed in &seeds {
        total += run(*seed, faults).0;
    }
    assert!(seeds.len() == 1 || enough(total), "not as expected: {total:?}");
}

#[test]
fn racing_dials_lose_nothing() {
    let faults = Faults { losses: false, restarts: false };
    run_all(0..120, faults, |total| total.duplicates > 60 && total.disturbed == 0);
}

#[test]
fn racing_dials_survive_link_loss() {
    let faults = Faults { losses: true, restarts: false };
    run_all(1000..1080, faults, |total| total.duplicates > 40 && total.lost > 20);
}

#[test]
fn racing_dials_survive_restarts() {
    let faults = Faults { losses: true, restarts: true };
    run_all(2000..2080, faults, |total| total.lost > 10 && total.replaced > 5);
}

#[test]
fn a_seed_replays_a_race() {
    for seed in seeds(2000..2010) {
        let faults = Faults { losses: true, restarts: true };
        assert_eq!(run(seed, faults), run(seed, faults), "seed {seed}");
    }
}

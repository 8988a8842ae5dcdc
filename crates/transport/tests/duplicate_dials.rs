//! Both ends dial at once, over the engine in memory: one session remains, and nothing is lost.

mod common;

use std::{future::Future, sync::Arc, time::Duration};

use common::{Faults, Seed, World, race, seeds};
use x0x_core::{Clock, SeededRng};
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

fn run(seed: u64, faults: Faults) {
    let _seed = Seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let network = MemoryNetwork::new(seed, model(seed));
        let world = Memory { network, clock: TokioClock::new() };
        race(&world, seed, faults).await;
    });
}

#[test]
fn racing_dials_lose_nothing() {
    for seed in seeds(0..120) {
        run(seed, Faults { losses: false, restarts: false });
    }
}

#[test]
fn racing_dials_survive_link_loss() {
    for seed in seeds(1000..1080) {
        run(seed, Faults { losses: true, restarts: false });
    }
}

#[test]
fn racing_dials_survive_restarts() {
    for seed in seeds(2000..2080) {
        run(seed, Faults { losses: true, restarts: true });
    }
}

//! Both ends dial at once, over QUIC: one session remains, and nothing is lost.
#![cfg(feature = "quic")]

mod common;

use std::{
    future::{Future, ready},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use common::{Faults, Seed, World, race, seeds};
use tokio::task::LocalSet;
use x0x_core::Clock;
use x0x_identity::testing::key;
use x0x_transport::{
    Node,
    link::Engine,
    quic::{QuicConfig, QuicEngine},
    testing::TokioClock,
};

/// Two machines on loopback, each on the port that it got at its first start.
struct Loopback {
    addresses: Mutex<[SocketAddr; 2]>,
    clock: TokioClock,
}

impl World for Loopback {
    type Engine = QuicEngine;

    fn engine(&self, end: usize) -> impl Future<Output = QuicEngine> {
        let mut addresses = self.addresses.lock().expect("no panic");
        let config = QuicConfig::new(addresses[end], key(end as u64 + 1));
        let engine = QuicEngine::bind(config).expect("the port is free");
        addresses[end] = engine.local_addresses()[0];
        ready(engine)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    fn break_links(&self) {
        unreachable!("loopback loses nothing; the races over the engine in memory cover it");
    }

    async fn vanish(&self, _end: usize, node: Node) {
        node.shutdown().await;
    }
}

/// Runs all races at the same time: they mostly wait, and disturb each other as a bonus.
async fn run(faults: Faults, range: std::ops::Range<u64>) {
    let local = LocalSet::new();
    let races: Vec<_> = seeds(range)
        .into_iter()
        .map(|seed| {
            local.spawn_local(async move {
                let _seed = Seed(seed);
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let world = Loopback { addresses: [any; 2].into(), clock: TokioClock::new() };
                race(&world, seed, faults).await;
            })
        })
        .collect();
    local
        .run_until(async {
            for race in races {
                race.await.expect("the race went well");
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_dials_lose_nothing() {
    run(Faults { losses: false, restarts: false }, 0..20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_dials_survive_restarts() {
    run(Faults { losses: false, restarts: true }, 2000..2010).await;
}

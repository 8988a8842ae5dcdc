//! tmp
mod common;
use std::{sync::{Arc, Mutex}, net::SocketAddr};
use common::*;
use x0x_core::Clock;
use x0x_identity::testing::key;
use x0x_transport::{Node, link::Engine, quic::*};
struct Quic { at: Mutex<[Option<SocketAddr>; 2]>, clock: x0x_transport::testing::TokioClock }
impl World for Quic {
    type Engine = QuicEngine;
    async fn engine(&self, end: usize) -> QuicEngine {
        let at = self.at.lock().unwrap()[end].unwrap_or("127.0.0.1:0".parse().unwrap());
        let e = QuicEngine::bind(QuicConfig::new(at, key(end as u64 + 1))).unwrap();
        self.at.lock().unwrap()[end] = Some(e.local_addresses()[0]);
        e
    }
    fn clock(&self) -> Arc<dyn Clock> { Arc::new(self.clock.clone()) }
    fn break_links(&self) {}
    async fn vanish(&self, _end: usize, node: Node) { node.shutdown().await; }
}
#[test]
fn quic_race() {
    let mut total = Counts::default();
    for seed in seeds(0..20) {
        let _s = Seed(seed);
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let t = std::time::Instant::now();
        let c = rt.block_on(async {
            let w = Quic { at: Mutex::new([None, None]), clock: x0x_transport::testing::TokioClock::new() };
            race(&w, seed, Faults { losses: false, restarts: seed % 2 == 1 }).await
        });
        eprintln!("seed {seed} {c:?} {:?}", t.elapsed());
        total += c;
    }
    eprintln!("{total:?}");
}

//! The tokio shell around [`Lan`]: one task that owns the machine.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, Machine, SeededRng, TokenBucket};

use super::{
    Station,
    state::{Input, Lan, LanConfig, LanMetrics, Output},
    wire::{Find, PacketIn},
};
use crate::interfaces::NetworkWatch;

/// Most finds that wait for whoever makes use of them; further ones are told of when they are heard again.
pub const MAX_FINDS_WAITING: usize = 64;
/// Packets that are read at once, and the time in which another may be: what all on the links send together.
const PACKETS_BURST: u32 = 400;
const PACKETS_REFILL: Duration = Duration::from_millis(5);

/// The discovery of machines on the same links, until it is [`shutdown`](Self::shutdown) or dropped.
#[derive(Debug)]
pub struct LanDiscovery {
    finds: mpsc::Receiver<Find>,
    search: Arc<Notify>,
    metrics: Arc<LanMetrics>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for LanDiscovery {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl LanDiscovery {
    /// The next machine that was found; `None` after the end.
    pub async fn next(&mut self) -> Option<Find> {
        self.finds.recv().await
    }

    /// Asks for all machines again, at most every thirty seconds.
    pub fn search(&self) {
        self.search.notify_one();
    }

    /// Counters.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<LanMetrics> {
        &self.metrics
    }

    /// Takes leave of the links.
    pub async fn shutdown(&mut self) {
        self.stop.cancel();
        // A panic in it was reported when it happened.
        let _ = (&mut self.task).await;
    }
}

/// Announces this machine on its links, and looks for others there.
///
/// # Panics
/// Outside a tokio runtime.
#[must_use]
pub fn start(
    station: impl Station,
    network: NetworkWatch,
    config: LanConfig,
    clock: Arc<dyn Clock>,
    seed: [u8; 32],
) -> LanDiscovery {
    let (sender, finds) = mpsc::channel(MAX_FINDS_WAITING);
    let (search, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let metrics = Arc::new(LanMetrics::default());
    let now = clock.now();
    let actor = Actor {
        machine: Lan::new(now, config, SeededRng::from_seed(seed), metrics.clone()),
        packets: TokenBucket::new(PACKETS_BURST, PACKETS_REFILL, now),
        station: Box::new(station),
        clock,
        metrics: metrics.clone(),
        finds: sender,
    };
    let task = tokio::spawn(actor.run(network, search.clone(), stop.clone()));
    LanDiscovery { finds, search, metrics, stop, task }
}

struct Actor {
    machine: Lan,
    packets: TokenBucket,
    station: Box<dyn Station>,
    clock: Arc<dyn Clock>,
    metrics: Arc<LanMetrics>,
    finds: mpsc::Sender<Find>,
}

impl Actor {
    async fn run(
        mut self,
        mut network: NetworkWatch,
        search: Arc<Notify>,
        stop: CancellationToken,
    ) {
        self.move_to(&mut network);
        let mut follows = true;
        loop {
            let next = self.machine.poll_timeout();
            let wait = next.map(|at| at.since(self.clock.now()));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = network.changed(), if follows => match changed {
                    Ok(()) => self.move_to(&mut network),
                    Err(_) => follows = false,
                },
                () = search.notified() => self.handle(Input::Search),
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)) => {
                    self.machine.handle_timeout(self.clock.now());
                    self.carry_out();
                }
                // Last, since anybody on the links can send them.
                (from, packet) = self.station.receive() => {
                    self.metrics.received.inc();
                    if !self.packets.take(self.clock.now()) {
                        self.metrics.refused_rate.inc();
                        continue;
                    }
                    match PacketIn::decode(&packet) {
                        Ok(packet) => self.handle(Input::Received { from, packet }),
                        Err(_) => self.metrics.refused_malformed.inc(),
                    }
                }
            }
        }
        self.handle(Input::Leave);
    }

    fn move_to(&mut self, network: &mut NetworkWatch) {
        let network = network.borrow_and_update().clone();
        self.station.join(&network);
        self.handle(Input::Network(network));
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(self.clock.now(), input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { via, packet } => self.station.send(&via, &packet),
                Output::Found(find) => {
                    tracing::debug!(instance = %find.instance, at = ?find.addresses, "on the link");
                    if self.finds.try_send(find).is_err() {
                        self.metrics.refused_rate.inc();
                    }
                }
            }
        }
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests;

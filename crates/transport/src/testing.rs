//! Sessions without a network: an [`Engine`](crate::link::Engine) in memory, and seeded identities.
//!
//! A test of a layer above starts a few nodes with [`node`] and has real hellos, duplicate
//! resolution, queues and back-pressure between them, on tokio's paused clock if it likes.

mod interfaces;
#[cfg(feature = "lan")]
mod lan;
mod link;
pub mod nat;
mod network;
mod pipe;

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use tokio::time::Instant;
use x0x_core::{Clock, MachineId, SeededRng, Tick, WallTime};
use x0x_identity::SignedBinding;
pub use x0x_identity::testing::key;

pub use self::interfaces::FakeInterfaces;
#[cfg(feature = "lan")]
pub use self::lan::{FakeLan, FakeStation};
pub use self::network::{MemoryEngine, MemoryNetwork};
use crate::{
    SessionConfig,
    handle::{LocalHello, Node},
    record::{ReachClass, SignedRecord},
    transport::{PathKind, SessionInfo, Side},
};

/// How links of a [`MemoryNetwork`] behave.
#[derive(Debug, Clone)]
pub struct LinkModel {
    /// One-way delay of each write, drawn anew: streams overtake each other, bytes of one do not.
    pub latency: Range<Duration>,
    /// Share of dials that get no answer.
    pub dial_loss: f64,
    /// Share of writes that are delayed by [`stall_for`](Self::stall_for): a lost packet.
    pub stall: f64,
    /// Time to notice a loss and send again.
    pub stall_for: Duration,
    /// Extra time until the dialled end hears of a link.
    pub accept_delay: Range<Duration>,
    /// When a dial without an answer fails.
    pub dial_timeout: Duration,
    /// When a link to a machine out of reach breaks.
    pub idle_timeout: Duration,
    /// Bytes in flight on one stream.
    pub window: usize,
}

impl Default for LinkModel {
    /// A quiet local network, with the QUIC engine's timeouts.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(200)..Duration::from_millis(1),
            dial_loss: 0.0,
            stall: 0.0,
            stall_for: Duration::from_millis(50),
            accept_delay: Duration::ZERO..Duration::ZERO,
            dial_timeout: Duration::from_secs(6),
            idle_timeout: Duration::from_secs(15),
            window: 256 * 1024,
        }
    }
}

fn sample(rng: &mut SeededRng, range: &Range<Duration>) -> Duration {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(rng.range(micros(range.start), micros(range.end)))
}

/// Tokio's clock as a [`Clock`], so that a paused clock also moves drivers.
#[derive(Debug, Clone)]
pub struct TokioClock {
    start: Instant,
    epoch: WallTime,
}

/// Wall time at the start of each [`TokioClock`].
pub const EPOCH: WallTime = WallTime::from_millis(1_800_000_000_000);

impl TokioClock {
    /// A clock whose tick is zero, and whose wall time is [`EPOCH`], now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), epoch: EPOCH }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Tick {
        Tick::ZERO + self.start.elapsed()
    }

    fn wall(&self) -> WallTime {
        self.epoch + self.start.elapsed()
    }
}

/// The `n`-th test machine: that of the `n`-th test key.
#[must_use]
pub fn machine(n: u64) -> MachineId {
    key(n).public_key().machine_id()
}

/// The `n`-th test address.
#[must_use]
pub fn address(n: u64) -> SocketAddr {
    let [.., a, b, c] = n.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 9000))
}

/// The key number of the agent that runs on the `n`-th test machine.
#[must_use]
pub const fn agent_key(n: u64) -> u64 {
    n + 1_000_000
}

/// The hello of the `n`-th test machine in its `run`-th run: the network `test`, and one agent with
/// the key [`agent_key`], bound for a day from [`EPOCH`]. It holds by a [`TokioClock`], not by the
/// system's.
#[must_use]
pub fn hello(n: u64, run: u64) -> LocalHello {
    let mut instance = [0; 16];
    instance[..8].copy_from_slice(&n.to_be_bytes());
    instance[8..].copy_from_slice(&run.to_be_bytes());
    let validity = Duration::from_secs(24 * 3600);
    let binding = SignedBinding::issue(&key(agent_key(n)), machine(n), EPOCH, validity);
    LocalHello::new("test", instance, vec![binding.encode()])
}

/// Starts the `n`-th test machine at its address with default settings.
#[must_use]
pub fn node(network: &MemoryNetwork, n: u64) -> Node {
    let engine = network.engine(machine(n), address(n));
    Node::start(engine, SessionConfig::default(), hello(n, 0), Arc::new(TokioClock::new()))
}

/// The record of the `n`-th test machine at its address, made at some time.
#[must_use]
pub fn record(n: u64, reach: ReachClass, now: WallTime) -> SignedRecord {
    SignedRecord::issue(&key(n), [address(n)], reach, now)
}

/// Waits for a condition, at most two minutes of tokio's time.
///
/// # Panics
/// With `what`, when it does not come true.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A session with a peer, for fakes of [`Transport`](crate::Transport).
#[must_use]
pub fn session_info(peer: MachineId, generation: u64) -> SessionInfo {
    SessionInfo {
        peer,
        agents: Vec::new(),
        generation,
        side: Side::Dialer,
        remote_address: address(0),
        path: PathKind::Direct,
        listen_addresses: Vec::new(),
        rtt: Duration::from_millis(1),
        observed_address: None,
    }
}

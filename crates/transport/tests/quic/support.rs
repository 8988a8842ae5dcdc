//! Engines, deadlines and a UDP proxy for the tests.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::UdpSocket, task::JoinHandle};
use x0x_core::MachineId;
use x0x_identity::testing::key;
use x0x_transport::{
    link::{Engine, Link},
    quic::{QuicConfig, QuicEngine},
};

/// Long enough for a loaded machine; reached only by a failure.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn config(n: u64) -> QuicConfig {
    QuicConfig::new(loopback(), key(n))
}

/// The engine of the `n`-th test key, on a free port.
pub(crate) fn engine(n: u64) -> QuicEngine {
    QuicEngine::bind(config(n)).expect("loopback binds")
}

pub(crate) fn id(n: u64) -> MachineId {
    key(n).public_key().machine_id()
}

pub(crate) fn address(engine: &QuicEngine) -> SocketAddr {
    engine.local_addresses()[0]
}

/// Waits for a future that must complete.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: no end"))
}

/// Waits until a condition holds that no event announces, such as a counter.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A link between two engines: the dialler's end and the acceptor's end.
pub(crate) async fn connect(
    dialler: &QuicEngine,
    acceptor: &QuicEngine,
) -> (Box<dyn Link>, Box<dyn Link>) {
    connect_at(dialler, acceptor, address(acceptor)).await
}

pub(crate) async fn connect_at(
    dialler: &QuicEngine,
    acceptor: &QuicEngine,
    at: SocketAddr,
) -> (Box<dyn Link>, Box<dyn Link>) {
    let expected = Some(acceptor.local_id());
    let (dialled, accepted) =
        within("connect", async { tokio::join!(dialler.dial(at, expected), acceptor.accept()) })
            .await;
    (dialled.expect("dial succeeds"), accepted.expect("engine is open"))
}

/// Waits until the dialler has everything that the acceptor sends at the end of a handshake: the
/// confirmation and resumption tickets travel before its first stream.
pub(crate) async fn confirm(accepted: &dyn Link, dialled: &dyn Link) {
    let mut stream = within("open", accepted.open(0)).await.expect("link is up");
    within("write", stream.write_all(&mut ["x".into()])).await.expect("link is up");
    within("stream", dialled.accept()).await.expect("link is up");
}

/// Forwards datagrams, in order, between one client at a time and a server. What it does not
/// forward is lost.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// Datagrams that may still go to the server.
    to_server_left: AtomicUsize,
    client_blocked: AtomicBool,
    seen: Mutex<Seen>,
}

/// Sizes of the forwarded datagrams.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) to_server: Vec<usize>,
    pub(crate) to_client: Vec<usize>,
}

impl Proxy {
    pub(crate) async fn new(server: SocketAddr) -> Self {
        let front = UdpSocket::bind(loopback()).await.expect("loopback binds");
        let back = UdpSocket::bind(loopback()).await.expect("loopback binds");
        back.connect(server).await.expect("loopback connects");
        let address = front.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        shared.to_server_left.store(usize::MAX, Ordering::SeqCst);
        let task = tokio::spawn(forward(front, back, shared.clone()));
        Self { address, shared, task }
    }

    /// Lets only `count` more datagrams through to the server.
    pub(crate) fn limit_to_server(&self, count: usize) {
        self.shared.to_server_left.store(count, Ordering::SeqCst);
    }

    /// Loses everything that the server sends, or no longer.
    pub(crate) fn block_client(&self, blocked: bool) {
        self.shared.client_blocked.store(blocked, Ordering::SeqCst);
    }

    /// What went through since the last call.
    pub(crate) fn take_seen(&self) -> Seen {
        std::mem::take(&mut *self.shared.seen.lock().expect("not poisoned"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(front: UdpSocket, back: UdpSocket, shared: Arc<Shared>) {
    let mut client = None;
    let (mut up, mut down) = ([0; 2048], [0; 2048]);
    loop {
        // Errors echo an unreachable end, as when a test closes an engine.
        tokio::select! {
            Ok((len, from)) = front.recv_from(&mut up) => {
                client = Some(from);
                let left = shared.to_server_left.load(Ordering::SeqCst);
                if left > 0 {
                    shared.to_server_left.store(left.saturating_sub(1), Ordering::SeqCst);
                    shared.seen.lock().expect("not poisoned").to_server.push(len);
                    let _ = back.send(&up[..len]).await;
                }
            }
            Ok(len) = back.recv(&mut down) => {
                if let Some(client) = client && !shared.client_blocked.load(Ordering::SeqCst) {
                    shared.seen.lock().expect("not poisoned").to_client.push(len);
                    let _ = front.send_to(&down[..len], client).await;
                }
            }
            else => tokio::task::yield_now().await,
        }
    }
}

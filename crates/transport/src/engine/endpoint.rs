//! The engine: one UDP socket that dials and accepts.

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, Incoming, TokioRuntime};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use x0x_core::{Clock, MachineId, WallTime, dialable};
use x0x_identity::SecretKey;

use super::{
    addresses::reachable,
    admission::{Admission, Verdict},
    config::QuicConfig,
    connection::{QuicLink, code},
    failure::{HandshakeFailure, not_started},
    ids::{ConnectionIds, accepting},
    metrics::QuicMetrics,
    paths::{MAX_PROBES, PathUse, Paths},
    socket::{SteadySocket, UdpSocket},
    tls::{Tls, UNKNOWN_PEER, peer_name, reset_key},
};
use crate::{
    error::DialError,
    interfaces::NetworkWatch,
    link::{Engine, Link, Side},
    record::{ReachClass, SignedRecord},
    sock::{PROBE_LEN, ProbeIn, table::MAX_PATHS},
    transport::BoxFuture,
    wire::CloseCode,
};

/// Handshakes that nobody has looked at yet; more are ignored.
const MAX_INCOMING: usize = 1024;
/// Bytes kept for one such handshake and for all.
const INCOMING_BUFFER: u64 = 64 << 10;
const INCOMING_BUFFERS: u64 = 16 << 20;
/// How long a close waits for peers to be told, and for the socket to be let go.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const RELEASE_TIMEOUT: Duration = Duration::from_millis(250);

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The operating system refused the socket: the address is in use or not of this machine.
    #[error("cannot bind {address}: {source}")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The post-quantum TLS configuration could not be built. There is no other one to fall back
    /// to.
    #[error("cannot set up post-quantum TLS: {0}")]
    Tls(String),
    /// The caller's settings are out of range.
    #[error("invalid setting: {0}")]
    Config(&'static str),
}

/// QUIC over one UDP socket, with post-quantum mutual authentication.
///
/// Dropping it closes all links without waiting.
pub struct QuicEngine {
    local_id: MachineId,
    key: SecretKey,
    local: SocketAddr,
    known_peer: quinn::ClientConfig,
    unknown_peer: quinn::ClientConfig,
    handshake_timeout: Duration,
    metrics: Arc<QuicMetrics>,
    paths: Arc<Paths>,
    /// For probes. The socket is quinn's, and ends with it.
    socket: Weak<SteadySocket>,
    probes: tokio::sync::Mutex<mpsc::Receiver<(SocketAddr, ProbeIn)>>,
    /// Taken by the close.
    running: Mutex<Option<Running>>,
    links: tokio::sync::Mutex<mpsc::Receiver<Box<dyn Link>>>,
    network: Option<NetworkWatch>,
    /// For whoever waits for changes.
    changes: tokio::sync::Mutex<Option<NetworkWatch>>,
}

struct Running {
    endpoint: Endpoint,
    acceptor: JoinHandle<()>,
    /// Ends when the socket is dropped.
    released: mpsc::Receiver<Infallible>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.endpoint.close(code(CloseCode::Shutdown), b"");
        self.acceptor.abort();
    }
}

impl fmt::Debug for QuicEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicEngine")
            .field("local_id", &self.local_id)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl QuicEngine {
    /// Binds the socket and starts to accept. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(config: QuicConfig) -> Result<Self, BindError> {
        let metrics = Arc::new(QuicMetrics::default());
        let address = config.bind;
        let socket = UdpSocket::bind(address, config.socket_buffer, &metrics)
            .map_err(|source| BindError::Socket { address, source })?;
        Self::with_socket(config, Arc::new(socket), metrics)
    }

    pub(super) fn with_socket(
        config: QuicConfig,
        socket: Arc<dyn AsyncUdpSocket>,
        metrics: Arc<QuicMetrics>,
    ) -> Result<Self, BindError> {
        let tls = |error: rustls::Error| BindError::Tls(error.to_string());
        let address = config.bind;
        let bind = |source| BindError::Socket { address, source };
        let transport = |side| {
            let transport = config.transport(side);
            transport.map(Arc::new).ok_or(BindError::Config("idle timeout too long"))
        };
        let dialling = transport(Side::Dialer)?;
        let Tls { mut server, mut known_peer, mut unknown_peer } =
            Tls::new(&config.key, config.pure_pq, config.clock.clone()).map_err(tls)?;
        known_peer.transport_config(dialling.clone());
        unknown_peer.transport_config(dialling);
        server
            .transport_config(transport(Side::Acceptor)?)
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFERS);

        let mut settings = EndpointConfig::new(Arc::new(reset_key(&config.key).map_err(tls)?));
        settings
            // Probes share the port, told apart by this bit.
            .grease_quic_bit(false);
        let ids = ConnectionIds::default();
        let generator = ids.clone();
        settings.cid_generator(move || Box::new(generator.clone()));

        let (alive, released) = mpsc::channel(1);
        let local = socket.local_addr().map_err(bind)?;
        let (probe_sender, probes) = mpsc::channel(MAX_PROBES);
        let (clock, v6) = (config.clock.clone(), local.is_ipv6());
        let paths = Arc::new(Paths::new(ids, clock, v6, probe_sender, metrics.clone()));
        let (of, network) = (paths.clone(), config.network.clone());
        let socket = Arc::new(SteadySocket::new(socket, of, metrics.clone(), network, alive));
        let side_channel = Arc::downgrade(&socket);
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(settings, Some(server), socket, runtime)
            .map_err(bind)?;

        let (sender, links) = mpsc::channel(config.limits.accept_queue.max(1));
        let acceptor = Acceptor {
            admission: Admission::new(config.limits),
            clock: config.clock,
            handshake_timeout: config.handshake_timeout,
            metrics: metrics.clone(),
            links: sender,
            handshakes: JoinSet::new(),
        };
        let acceptor = tokio::spawn(acceptor.run(endpoint.clone()));
        Ok(Self {
            local_id: config.key.public_key().machine_id(),
            key: config.key,
            local,
            known_peer,
            unknown_peer,
            handshake_timeout: config.handshake_timeout,
            metrics,
            paths,
            socket: side_channel,
            probes: tokio::sync::Mutex::new(probes),
            running: Mutex::new(Some(Running { endpoint, acceptor, released })),
            links: tokio::sync::Mutex::new(links),
            changes: tokio::sync::Mutex::new(config.network.clone()),
            network: config.network,
        })
    }

    /// The engine's counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<QuicMetrics> {
        self.metrics.clone()
    }

    async fn connect(
        &self,
        address: SocketAddr,
        expected: Option<MachineId>,
    ) -> Result<Box<dyn Link>, DialError> {
        if expected == Some(self.local_id) {
            return Err(DialError::OwnAddress);
        }
        let path = self.path(address)?;
        let connecting = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let endpoint = &running.as_ref().ok_or(DialError::Closed)?.endpoint;
            let (config, name) = match expected {
                Some(peer) => (&self.known_peer, peer_name(peer)),
                None => (&self.unknown_peer, UNKNOWN_PEER.to_owned()),
            };
            let dial = endpoint.connect_with(config.clone(), path.name(), &name);
            dial.map_err(|e| not_started(&e))?
        };
        let link = match timeout(self.handshake_timeout, connecting).await {
            Ok(Ok(connection)) => {
                QuicLink::new(connection, Some(path)).map_err(|_| HandshakeFailure::KeyType)
            }
            Ok(Err(error)) => {
                let failure = HandshakeFailure::of(&error);
                self.metrics.failed(failure).inc();
                return Err(failure.dial_error(&error));
            }
            Err(_) => {
                self.metrics.failed(HandshakeFailure::Timeout).inc();
                return Err(DialError::Timeout);
            }
        };
        // The TLS verifier has made sure of both already.
        let link = link.and_then(|link| match expected {
            Some(id) if id != link.peer() => Err(HandshakeFailure::WrongPeer),
            _ => Ok(link),
        });
        match link {
            Ok(link) => {
                self.metrics.links_dialled.inc();
                Ok(Box::new(link))
            }
            Err(failure) => {
                self.metrics.failed(failure).inc();
                Err(DialError::PeerMisbehaved("proved another identity"))
            }
        }
    }

    fn path(&self, address: SocketAddr) -> Result<PathUse, DialError> {
        let address = dialable(address).filter(|address| self.paths.carries(*address));
        let address = address.ok_or(DialError::NoAddress)?;
        self.paths.dial(address).ok_or(DialError::Limit { what: "paths", max: MAX_PATHS })
    }

    async fn shut_down(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut running) = running else { return };
        running.endpoint.close(code(CloseCode::Shutdown), b"");
        // A peer that does not answer learns of the close by its own idle timeout.
        let _ = timeout(CLOSE_TIMEOUT, running.endpoint.wait_idle()).await;
        running.acceptor.abort();
        let _ = (&mut running.acceptor).await;
        let (_, no_socket) = mpsc::channel(1);
        let mut released = std::mem::replace(&mut running.released, no_socket);
        drop(running);
        // Links that are still held keep the socket; whoever binds the port again finds out.
        let _ = timeout(RELEASE_TIMEOUT, released.recv()).await;
    }
}

impl Engine for QuicEngine {
    fn local_id(&self) -> MachineId {
        self.local_id
    }

    fn local_addresses(&self) -> Vec<SocketAddr> {
        match &self.network {
            Some(network) => network.borrow().addresses(self.local),
            None => reachable(self.local),
        }
    }

    fn addresses_changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(changes) = &mut *self.changes.lock().await
                && changes.changed().await.is_ok()
            {
                return;
            }
            std::future::pending().await
        })
    }

    fn sign_record(
        &self,
        addresses: &[SocketAddr],
        reach: ReachClass,
        now: WallTime,
    ) -> Option<SignedRecord> {
        Some(SignedRecord::issue(&self.key, addresses.iter().copied(), reach, now))
    }

    fn dial(
        &self,
        address: SocketAddr,
        expected: Option<MachineId>,
    ) -> BoxFuture<'_, Result<Box<dyn Link>, DialError>> {
        Box::pin(self.connect(address, expected))
    }

    fn accept(&self) -> BoxFuture<'_, Option<Box<dyn Link>>> {
        Box::pin(async move { self.links.lock().await.recv().await })
    }

    fn has_probes(&self) -> bool {
        true
    }

    fn send_probe(&self, to: SocketAddr, packet: &[u8; PROBE_LEN]) {
        if let Some(socket) = self.socket.upgrade() {
            socket.send_probe(to, packet);
        }
    }

    fn next_probe(&self) -> BoxFuture<'_, Option<(SocketAddr, ProbeIn)>> {
        Box::pin(async move { self.probes.lock().await.recv().await })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shut_down())
    }
}

/// Turns incoming handshakes into links.
struct Acceptor {
    admission: Admission,
    clock: Arc<dyn Clock>,
    handshake_timeout: Duration,
    metrics: Arc<QuicMetrics>,
    links: mpsc::Sender<Box<dyn Link>>,
    handshakes: JoinSet<()>,
}

impl Acceptor {
    async fn run(mut self, endpoint: Endpoint) {
        loop {
            tokio::select! {
                biased;
                Some(_) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {}
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(incoming),
                    None => return,
                },
            }
        }
    }

    fn admit(&mut self, incoming: Incoming) {
        let verdict = self.admission.judge(
            self.clock.now(),
            incoming.remote_address(),
            incoming.remote_address_validated(),
            self.handshakes.len(),
        );
        match verdict {
            Verdict::Accept => self.begin(incoming),
            Verdict::Retry => {
                self.metrics.incoming_retried.inc();
                // It cannot fail for an address that is not validated.
                if let Err(error) = accepting(|| incoming.retry()) {
                    error.into_incoming().refuse();
                }
            }
            Verdict::RefusePending => {
                self.metrics.incoming_refused_pending.inc();
                incoming.refuse();
            }
            Verdict::RefuseRate => {
                self.metrics.incoming_refused_rate.inc();
                incoming.refuse();
            }
        }
    }

    fn begin(&mut self, incoming: Incoming) {
        let metrics = self.metrics.clone();
        let connecting = match accepting(|| incoming.accept()) {
            Ok(connecting) => connecting,
            Err(error) => {
                metrics.failed(HandshakeFailure::of(&error)).inc();
                return;
            }
        };
        let links = self.links.clone();
        let limit = self.handshake_timeout;
        self.handshakes.spawn(async move {
            let failure = match timeout(limit, connecting).await {
                Ok(Ok(connection)) => match QuicLink::new(connection, None) {
                    Ok(link) => {
                        metrics.links_accepted.inc();
                        // While the layer above is behind, the handshake stays pending, so new
                        // ones are refused. It fails only when the engine is gone.
                        let _ = links.send(Box::new(link)).await;
                        return;
                    }
                    Err(_) => HandshakeFailure::KeyType,
                },
                Ok(Err(error)) => HandshakeFailure::of(&error),
                Err(_) => HandshakeFailure::Timeout,
            };
            metrics.failed(failure).inc();
        });
    }
}

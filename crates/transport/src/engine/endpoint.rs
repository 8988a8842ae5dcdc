//! The engine: one UDP socket that dials and accepts.

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use x0x_core::{MachineId, WallTime, dialable};
use x0x_identity::SecretKey;

use super::{
    acceptor::Acceptor,
    activity::Activity,
    addresses::reachable,
    config::QuicConfig,
    connection::{QuicLink, code},
    failure::{HandshakeFailure, not_started},
    ids::ConnectionIds,
    metrics::QuicMetrics,
    paths::{MAX_PROBES, MAX_RELAYED, PathUse, Paths, Relayed},
    socket::{SteadySocket, UdpSocket},
    stream::{
        StreamSettings, Streams,
        net::{StreamNet, TcpNet},
    },
    timer::CalmRuntime,
    tls::{Tls, UNKNOWN_PEER, peer_name, reset_key},
};
use crate::{
    error::DialError,
    interfaces::NetworkWatch,
    link::{Engine, Greeter, Link, Side},
    record::{ReachClass, SignedRecord},
    sock::{
        KnownFlows, PROBE_LEN, ProbeIn,
        table::{MAX_PATHS, is_detour},
    },
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
    /// The same of the socket for streams of packets.
    #[error("cannot listen for TCP at {address}: {source}")]
    Stream {
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
    activity: Arc<Activity>,
    probes: tokio::sync::Mutex<mpsc::Receiver<(SocketAddr, ProbeIn)>>,
    /// Packets to relays, and from them.
    to_relays: tokio::sync::Mutex<mpsc::Receiver<Relayed>>,
    from_relays: mpsc::Sender<Relayed>,
    streams: Streams,
    /// Taken by the close.
    running: Mutex<Option<Running>>,
    links: tokio::sync::Mutex<mpsc::Receiver<Box<dyn Link>>>,
    greeter: Arc<OnceLock<Arc<dyn Greeter>>>,
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

fn tls_error(error: &rustls::Error) -> BindError {
    BindError::Tls(error.to_string())
}

/// What both sides of every connection are set to.
fn tls(config: &QuicConfig) -> Result<Tls, BindError> {
    let transport = |side| {
        let transport = config.transport(side);
        transport.map(Arc::new).ok_or(BindError::Config("idle timeout too long"))
    };
    let dialling = transport(Side::Dialer)?;
    let mut tls = Tls::new(&config.key, config.pure_pq, config.clock.clone())
        .map_err(|error| tls_error(&error))?;
    tls.known_peer.transport_config(dialling.clone());
    tls.unknown_peer.transport_config(dialling);
    tls.server
        .transport_config(transport(Side::Acceptor)?)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFERS);
    Ok(tls)
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
        let port = match config.streams.listen {
            Some(0) => socket.local_addr().ok().map(|local| local.port()),
            port => port,
        };
        let net = TcpNet::bind(address.ip(), port).map_err(|source| {
            let address = SocketAddr::new(address.ip(), port.unwrap_or_default());
            BindError::Stream { address, source }
        })?;
        Self::with_socket(config, Arc::new(socket), Arc::new(net), metrics)
    }

    pub(super) fn with_socket(
        config: QuicConfig,
        socket: Arc<dyn AsyncUdpSocket>,
        net: Arc<dyn StreamNet>,
        metrics: Arc<QuicMetrics>,
    ) -> Result<Self, BindError> {
        let address = config.bind;
        let bind = |source| BindError::Socket { address, source };
        let Tls { server, known_peer, unknown_peer, streams } = tls(&config)?;
        let reset_key = reset_key(&config.key).map_err(|error| tls_error(&error))?;
        let mut settings = EndpointConfig::new(Arc::new(reset_key));
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
        let (out_sender, to_relays) = mpsc::channel(MAX_RELAYED);
        let (from_relays, relayed) = mpsc::channel(MAX_RELAYED);
        let paths = Paths::new(ids, clock, v6, probe_sender, out_sender, metrics.clone());
        let paths = Arc::new(paths);
        let (of_paths, network) = (paths.clone(), config.network.clone());
        let socket = SteadySocket::new(socket, of_paths, relayed, metrics.clone(), network, alive);
        let socket = Arc::new(socket);
        let _ = paths.socket.set(Arc::downgrade(&socket));
        let activity = socket.activity();
        let runtime = Arc::new(CalmRuntime::new());
        let endpoint = Endpoint::new_with_abstract_socket(settings, Some(server), socket, runtime)
            .map_err(bind)?;

        let (sender, links) = mpsc::channel(config.limits.accept_queue.max(1));
        let local_id = config.key.public_key().machine_id();
        let settings = StreamSettings {
            handshake_timeout: config.handshake_timeout,
            limits: config.limits.clone(),
            clock: config.clock.clone(),
            dials: config.streams.dial,
        };
        let table = paths.streams.clone();
        let streams = Streams::start(local_id, net, streams, table, from_relays.clone(), &settings);
        let greeter = Arc::<OnceLock<_>>::default();
        let (of_paths, of_greeter) = (paths.clone(), greeter.clone());
        let acceptor = Acceptor::new(&config, of_paths, metrics.clone(), sender, of_greeter);
        let acceptor = tokio::spawn(acceptor.run(endpoint.clone()));
        Ok(Self {
            local_id,
            key: config.key,
            local,
            known_peer,
            unknown_peer,
            handshake_timeout: config.handshake_timeout,
            metrics,
            paths,
            activity,
            probes: tokio::sync::Mutex::new(probes),
            to_relays: tokio::sync::Mutex::new(to_relays),
            from_relays,
            streams,
            running: Mutex::new(Some(Running { endpoint, acceptor, released })),
            links: tokio::sync::Mutex::new(links),
            greeter,
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
            Ok(Ok(connection)) => QuicLink::new(connection, Some(path), &self.paths.streams)
                .map_err(|_| HandshakeFailure::KeyType),
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
        let may = if is_detour(address) { Some(address) } else { dialable(address) };
        let address = may.filter(|address| self.paths.carries(*address));
        let address = address.ok_or(DialError::NoAddress)?;
        self.paths.dial(address).ok_or(DialError::Limit { what: "paths", max: MAX_PATHS })
    }

    /// Opens a stream, and a link over it with the machine that is there.
    async fn connect_by_stream(
        &self,
        address: SocketAddr,
        expected: Option<MachineId>,
    ) -> Result<Box<dyn Link>, DialError> {
        if expected == Some(self.local_id) {
            return Err(DialError::OwnAddress);
        }
        let address = dialable(address).ok_or(DialError::NoAddress)?;
        let (way, peer) = self.streams.open(address, expected).await?;
        let link = self.connect(way, Some(peer)).await;
        match &link {
            Ok(_) => _ = self.paths.streams.confirm(way, peer),
            Err(_) => self.paths.streams.remove(way),
        }
        link
    }

    async fn shut_down(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut running) = running else { return };
        running.endpoint.close(code(CloseCode::Shutdown), b"");
        // A peer that does not answer learns of the close by its own idle timeout.
        let _ = timeout(CLOSE_TIMEOUT, running.endpoint.wait_idle()).await;
        self.streams.stop();
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

    fn greet(&self, greeter: Arc<dyn Greeter>) {
        // Once: an engine has one user.
        let _ = self.greeter.set(greeter);
    }

    fn dial(
        &self,
        address: SocketAddr,
        expected: Option<MachineId>,
    ) -> BoxFuture<'_, Result<Box<dyn Link>, DialError>> {
        Box::pin(self.connect(address, expected))
    }

    fn dial_stream(
        &self,
        address: SocketAddr,
        expected: Option<MachineId>,
    ) -> BoxFuture<'_, Result<Box<dyn Link>, DialError>> {
        Box::pin(self.connect_by_stream(address, expected))
    }

    fn open_stream(
        &self,
        address: SocketAddr,
        peer: MachineId,
    ) -> BoxFuture<'_, Option<SocketAddr>> {
        Box::pin(async move {
            let opened = self.streams.open(dialable(address)?, Some(peer)).await;
            opened.ok().map(|(way, _)| way)
        })
    }

    fn dials_streams(&self) -> bool {
        self.streams.dials()
    }

    fn stream_port(&self) -> Option<u16> {
        self.streams.port()
    }

    fn accept(&self) -> BoxFuture<'_, Option<Box<dyn Link>>> {
        Box::pin(async move { self.links.lock().await.recv().await })
    }

    fn has_probes(&self) -> bool {
        true
    }

    fn probe_flows(&self) -> Arc<KnownFlows> {
        self.paths.flows.clone()
    }

    fn send_probe(&self, to: SocketAddr, packet: &[u8; PROBE_LEN]) {
        if let Some(socket) = self.paths.socket.get().and_then(Weak::upgrade) {
            socket.send_beside(to, packet);
        }
    }

    fn next_probe(&self) -> BoxFuture<'_, Option<(SocketAddr, ProbeIn)>> {
        Box::pin(async move { self.probes.lock().await.recv().await })
    }

    fn rest(&self) {
        self.activity.rest();
    }

    fn woken(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.activity.woken())
    }

    fn deliver(&self, from: SocketAddr, packet: Bytes) {
        if self.from_relays.try_send((from, packet)).is_err() {
            self.metrics.relayed_dropped.inc();
        }
    }

    fn next_relayed<'a>(
        &'a self,
        packets: &'a mut Vec<Relayed>,
        max: usize,
    ) -> BoxFuture<'a, Option<()>> {
        Box::pin(async move {
            let count = self.to_relays.lock().await.recv_many(packets, max).await;
            (count > 0).then_some(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shut_down())
    }
}

//! Streams of packets over TCP, for machines at which no UDP arrives.
//!
//! A stream joins the sockets of two machines: what quinn or the prober sends to the address that stands for
//! it ([`streamed_address`](crate::sock::table::streamed_address)) goes into it, and what comes out of it comes
//! from that address. So dials, sessions and moves of sessions are the same as over UDP.
//!
//! Each end proves its machine by the TLS 1.3 of every link: raw ML-DSA-65 keys over ML-KEM-768, under a
//! protocol name of its own. A link over the stream has to prove the same machine again, end to end.
//!
//! - [`net`]: what makes connections: TCP, or a simulated internet
//! - [`table`]: the streams that are open
//! - [`pump`]: the task of one of them

pub(super) mod net;
mod pump;
pub(super) mod table;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{CertificateError, pki_types::ServerName};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::{CancellationToken, DropGuard};
use x0x_core::{Clock, MachineId};

use self::{
    net::{BoxedIo, StreamNet},
    table::{Refused, StreamTable},
};
use super::{
    admission::{Admission, Verdict},
    config::QuicLimits,
    paths::Relayed,
    tls::{StreamTls, UNKNOWN_PEER, peer_name, proven_peer},
};
use crate::{error::DialError, link::Side};

/// Most streams on which the dialler has not proven its machine yet; further ones are refused.
const MAX_PENDING: usize = 128;
/// Wait after the system refused to accept a connection: it may lack file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

counters! {
    /// What streams of packets do.
    StreamMetrics, "quic_stream_", {
        dialled = "Streams of packets that this machine opened.",
        accepted = "Streams of packets that peers opened.",
        closed = "Streams of packets that ended.",
        sent_packets = "Packets sent in streams.",
        received_packets = "Packets that came in streams.",
        dropped_full = "Packets for streams lost because too many wait.",
        dropped_over = "Packets for streams that are over.",
        dropped_size = "Packets too large for a stream.",
        failed_connect = "Streams that could not be opened because nobody accepted the connection.",
        failed_tls = "Streams whose other end did not prove a machine in time.",
        failed_peer = "Streams opened to another machine than expected.",
        refused_rate = "Streams refused because their network opened too many.",
        refused_pending = "Streams refused because too many are on their way.",
        refused = "Streams refused because there are too many.",
        refused_network = "Streams refused because there are too many of their network.",
        refused_own = "Streams refused because their other end is this machine.",
        replaced = "Streams given up for later ones of the same machine.",
        closed_idle = "Streams closed because nothing came for long.",
        closed_unlinked = "Streams closed because no link was made over them in time.",
        closed_slow = "Streams closed because the peer did not read them.",
        closed_malformed = "Streams closed because of a length that no packet has.",
        wrong_peer = "Links refused because they prove another machine than their stream.",
        accept_errors = "Connections that the system refused to accept.",
    }
}

/// The streams of an engine.
#[derive(Debug)]
pub(super) struct Streams {
    shared: Arc<Shared>,
    /// Ends the listener and all streams when the engine is dropped.
    stopping: Mutex<Option<DropGuard>>,
    port: Option<u16>,
    dials: bool,
}

/// What the tasks of streams share.
struct Shared {
    own: MachineId,
    net: Arc<dyn StreamNet>,
    tls: StreamTls,
    table: Arc<StreamTable>,
    deliver: mpsc::Sender<Relayed>,
    handshake_timeout: Duration,
    stopping: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("net", &self.net).finish_non_exhaustive()
    }
}

/// A stream whose other end is known.
struct Proven {
    io: BoxedIo,
    peer: MachineId,
    remote: SocketAddr,
    side: Side,
}

impl Streams {
    /// Begins to accept, if `net` listens.
    pub(super) fn start(
        own: MachineId,
        net: Arc<dyn StreamNet>,
        tls: StreamTls,
        table: Arc<StreamTable>,
        deliver: mpsc::Sender<Relayed>,
        settings: &StreamSettings,
    ) -> Self {
        let stopping = CancellationToken::new();
        let port = net.port();
        let shared = Arc::new(Shared {
            own,
            net,
            tls,
            table,
            deliver,
            handshake_timeout: settings.handshake_timeout,
            stopping: stopping.clone(),
        });
        if port.is_some() {
            let admission = Admission::new(settings.limits.clone());
            tokio::spawn(accept(shared.clone(), admission, settings.clock.clone()));
        }
        let stopping = Mutex::new(Some(stopping.drop_guard()));
        Self { shared, stopping, port, dials: settings.dials }
    }

    /// Where it listens.
    pub(super) const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether it opens any.
    pub(super) const fn dials(&self) -> bool {
        self.dials
    }

    /// Ends the listener and all streams.
    pub(super) fn stop(&self) {
        drop(self.stopping.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Opens a stream to a machine; gives the address that stands for it, and who is there.
    pub(super) async fn open(
        &self,
        to: SocketAddr,
        expected: Option<MachineId>,
    ) -> Result<(SocketAddr, MachineId), DialError> {
        if !self.dials {
            return Err(DialError::NoAddress);
        }
        let shared = &self.shared;
        let handshake = timeout(shared.handshake_timeout, shared.connect(to, expected));
        let proven = handshake.await.unwrap_or(Err(DialError::Timeout)).inspect_err(|error| {
            let metrics = &shared.table.metrics;
            match error {
                DialError::PeerMisbehaved(_) | DialError::OwnAddress => metrics.failed_peer.inc(),
                _ => metrics.failed_connect.inc(),
            }
        })?;
        let peer = proven.peer;
        let address = shared
            .begin(proven)
            .map_err(|_| DialError::Limit { what: "streams", max: table::MAX_DIALLED })?;
        shared.table.metrics.dialled.inc();
        Ok((address, peer))
    }
}

/// How streams are run.
pub(super) struct StreamSettings {
    pub(super) handshake_timeout: Duration,
    pub(super) limits: QuicLimits,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether this machine opens any.
    pub(super) dials: bool,
}

impl Shared {
    async fn connect(
        &self,
        to: SocketAddr,
        expected: Option<MachineId>,
    ) -> Result<Proven, DialError> {
        let io = self.net.connect(to).await.map_err(|_| DialError::Timeout)?;
        let (config, name) = match expected {
            Some(peer) => (&self.tls.known_peer, peer_name(peer)),
            None => (&self.tls.unknown_peer, UNKNOWN_PEER.to_owned()),
        };
        let name = ServerName::try_from(name).map_err(|_| DialError::NoAddress)?;
        let tls = TlsConnector::from(config.clone()).connect(name, io).await;
        let tls = tls.map_err(|error| tls_failure(&error))?;
        let peer = tls.get_ref().1.peer_certificates().and_then(proven_peer);
        let peer = peer.ok_or(DialError::PeerMisbehaved("proved no machine"))?;
        Ok(Proven { io: Box::new(tls), peer, remote: to, side: Side::Dialer })
    }

    async fn answer(&self, io: BoxedIo, remote: SocketAddr) -> Option<Proven> {
        let tls = TlsAcceptor::from(self.tls.server.clone()).accept(io).await.ok()?;
        let peer = tls.get_ref().1.peer_certificates().and_then(proven_peer)?;
        Some(Proven { io: Box::new(tls), peer, remote, side: Side::Acceptor })
    }

    fn begin(&self, proven: Proven) -> Result<SocketAddr, Refused> {
        let Proven { io, peer, remote, side } = proven;
        let metrics = &self.table.metrics;
        if peer == self.own {
            metrics.refused_own.inc();
            return Err(Refused::Own);
        }
        let open = self.table.insert(peer, remote, side)?;
        let address = open.address;
        let pump = pump::run(io, open, self.deliver.clone(), self.table.clone());
        let stopping = self.stopping.clone();
        tokio::spawn(async move { stopping.run_until_cancelled(pump).await });
        Ok(address)
    }
}

/// Who is there and is not who was expected is told apart from nobody; our verifier has an error of its own for
/// this machine's own key.
fn tls_failure(error: &std::io::Error) -> DialError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(_))) => {
            DialError::OwnAddress
        }
        Some(rustls::Error::InvalidCertificate(_)) => {
            DialError::PeerMisbehaved("proved another identity")
        }
        _ => DialError::Timeout,
    }
}

/// Accepts until the engine stops.
async fn accept(shared: Arc<Shared>, mut admission: Admission, clock: Arc<dyn Clock>) {
    let mut pending = JoinSet::new();
    let metrics = shared.table.metrics.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            Some(_) = pending.join_next(), if !pending.is_empty() => continue,
            accepted = shared.net.accept() => accepted,
        };
        let Ok((io, remote)) = accepted else {
            metrics.accept_errors.inc();
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if pending.len() >= MAX_PENDING {
            metrics.refused_pending.inc();
            continue;
        }
        // The connection has shown that the dialler is at its address.
        let verdict = admission.judge(clock.now(), remote, true, pending.len());
        if verdict == Verdict::RefuseRate {
            metrics.refused_rate.inc();
            continue;
        }
        let limit = admission.time_limit(shared.handshake_timeout, pending.len());
        let (shared, metrics) = (shared.clone(), metrics.clone());
        pending.spawn(async move {
            match timeout(limit, shared.answer(io, remote)).await {
                Ok(Some(proven)) => {
                    // What is refused is counted there.
                    if shared.begin(proven).is_ok() {
                        metrics.accepted.inc();
                    }
                }
                Ok(None) | Err(_) => metrics.failed_tls.inc(),
            }
        });
    }
}

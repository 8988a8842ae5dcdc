//! The UDP socket under quinn, which survives every I/O error.
//!
//! quinn ends the endpoint at a receive error and a connection at a send error. Yet an error says
//! nothing about the next datagram: it may echo one unreachable peer, or a network that is away for
//! a moment. So [`SteadySocket`] counts errors and treats them as loss, which QUIC repairs. What passes
//! through it is translated by [`Paths`].

use std::{
    convert::Infallible,
    future::Future,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::Interest,
    sync::mpsc,
    time::{Sleep, sleep},
};

use super::{
    activity::Activity,
    metrics::QuicMetrics,
    paths::{Paths, Relayed},
};
use crate::interfaces::NetworkWatch;

/// Errors in a row after which the socket is left alone for a moment. Single errors are answered by
/// trying again, since datagrams may wait behind them.
const ERRORS_IN_A_ROW: u32 = 16;
/// The first such moment; it doubles with each further error.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// The longest one.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// The same for echoes of peers that are not there: each is told once, and a machine that tried a thousand dead
/// addresses does not keep the living waiting for what it hears of those.
const ECHOES_IN_A_ROW: u32 = 8192;
/// Echoes after which other tasks have their turn.
const ECHOES_AT_ONCE: u32 = 64;

/// The operating system's socket, driven by tokio, with the offloads that quinn's UDP layer finds.
#[derive(Debug)]
pub(super) struct UdpSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
}

impl UdpSocket {
    /// Binds, asking for buffers of `buffer` bytes and recording what is granted.
    pub(super) fn bind(bind: SocketAddr, buffer: usize, metrics: &QuicMetrics) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
        if bind.is_ipv6() && bind.ip().is_unspecified() {
            // Without IPv4 in the same socket the machine still serves IPv6.
            let _ = socket.set_only_v6(false);
        }
        // Best effort: the operating system caps or refuses sizes as it is set up.
        let _ = socket.set_recv_buffer_size(buffer);
        let _ = socket.set_send_buffer_size(buffer);
        metrics.socket_receive_buffer.set(socket.recv_buffer_size().unwrap_or(0) as u64);
        metrics.socket_send_buffer.set(socket.send_buffer_size().unwrap_or(0) as u64);
        socket.set_nonblocking(true)?;
        socket.bind(&bind.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { io: tokio::net::UdpSocket::from_std(socket)?, state })
    }
}

impl AsyncUdpSocket for UdpSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WritePoller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let received = self
                .io
                .try_io(Interest::READABLE, || self.state.recv((&self.io).into(), bufs, meta));
            match received {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits until the socket takes datagrams again; each connection has one.
struct WritePoller {
    socket: Arc<UdpSocket>,
    waiting: Option<Writable>,
}

impl std::fmt::Debug for WritePoller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WritePoller").finish_non_exhaustive()
    }
}

impl UdpPoller for WritePoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // The usual case, without an allocation. tokio wakes only the last task that polled this
        // way, so a task that has to wait does so through a future of its own.
        if let Poll::Ready(ready) = this.socket.io.poll_send_ready(cx) {
            this.waiting = None;
            return Poll::Ready(ready);
        }
        let waiting = this.waiting.get_or_insert_with(|| {
            let socket = this.socket.clone();
            Box::pin(async move { socket.io.writable().await })
        });
        let result = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(result)
    }
}

/// Where datagrams come from.
#[derive(Debug)]
struct Receiving {
    pause: Pause,
    /// By way of relays.
    relayed: mpsc::Receiver<Relayed>,
    /// Whether these had their turn before the socket.
    turn: bool,
}

impl Receiving {
    /// Hands on what came by way of relays, as much as there are buffers for.
    fn poll_relayed(
        &mut self,
        cx: &mut Context<'_>,
        paths: &Paths,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<usize> {
        let mut count = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            match self.relayed.poll_recv(cx) {
                Poll::Ready(Some(packet)) => paths.incoming_relayed(&packet, buffer, meta),
                Poll::Ready(None) | Poll::Pending => break,
            }
            count += 1;
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(count) }
    }
}

/// Passes datagrams through, translating and counting them; swallows and counts errors.
#[derive(Debug)]
pub(super) struct SteadySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    paths: Arc<Paths>,
    metrics: Arc<QuicMetrics>,
    activity: Arc<Activity>,
    receiving: Mutex<Receiving>,
    network: Option<NetworkWatch>,
    /// Dropped with the socket: tells the engine that the port is free.
    _alive: mpsc::Sender<Infallible>,
}

impl SteadySocket {
    pub(super) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        paths: Arc<Paths>,
        relayed: mpsc::Receiver<Relayed>,
        metrics: Arc<QuicMetrics>,
        network: Option<NetworkWatch>,
        alive: mpsc::Sender<Infallible>,
    ) -> Self {
        let receiving = Mutex::new(Receiving { pause: Pause::default(), relayed, turn: false });
        let activity = Arc::default();
        Self { inner, paths, metrics, activity, receiving, network, _alive: alive }
    }

    /// The address that quinn wants to send from: that at which the peer reached this machine. It may have
    /// been lost since, and a packet from there could not be sent.
    fn source(&self, wanted: Option<IpAddr>) -> Option<IpAddr> {
        let network = self.network.as_ref();
        wanted.filter(|ip| network.is_none_or(|network| network.borrow().is_own(*ip)))
    }

    /// Whether anything goes on.
    pub(super) fn activity(&self) -> Arc<Activity> {
        self.activity.clone()
    }

    /// Sends a packet beside quinn. A socket that has no room loses it, like any path may.
    pub(super) fn send_beside(&self, to: SocketAddr, packet: &[u8]) {
        if !self.paths.carries(to) {
            return;
        }
        let destination = self.paths.form(to);
        self.send(&Transmit {
            destination,
            ecn: None,
            contents: packet,
            segment_size: None,
            src_ip: None,
        })
        .unwrap_or_else(|_| self.metrics.probes_dropped.inc());
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.paths.take_detour(transmit) {
            return Ok(());
        }
        let sent = self.inner.try_send(transmit);
        let sent = match sent {
            Err(e) if is_sourceless(&e) && transmit.src_ip.is_some() => {
                // The address was lost a moment ago: the system chooses another.
                self.inner.try_send(&Transmit {
                    destination: transmit.destination,
                    ecn: transmit.ecn,
                    contents: transmit.contents,
                    segment_size: transmit.segment_size,
                    src_ip: None,
                })
            }
            sent => sent,
        };
        match sent {
            Ok(()) => {
                let bytes = transmit.contents.len();
                let datagrams = transmit.segment_size.map_or(1, |size| bytes.div_ceil(size.max(1)));
                self.metrics.udp_sent_bytes.add(bytes as u64);
                self.metrics.udp_sent_datagrams.add(datagrams as u64);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(e),
            Err(_) => {
                self.metrics.udp_send_errors.inc();
                Ok(())
            }
        }
    }
}

impl AsyncUdpSocket for SteadySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let inner = self.inner.clone().create_io_poller();
        Box::pin(SteadyPoller { inner, metrics: self.metrics.clone(), pause: Pause::default() })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.activity.sent();
        // A packet whose path is over is lost.
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let last = transmit.contents.chunks(segment).next_back().unwrap_or_default();
        let destination = self.paths.outgoing(transmit.destination, last);
        let Some(destination) = destination else { return Ok(()) };
        let real = Transmit {
            destination,
            ecn: transmit.ecn,
            contents: transmit.contents,
            segment_size: transmit.segment_size,
            src_ip: self.source(transmit.src_ip),
        };
        self.send(&real)?;
        if self.paths.goes_twice(transmit) {
            // The copy is for luck: a socket that has no room for it is none to wait for.
            let _ = self.send(&real);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut receiving = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        // Neither keeps the other waiting.
        receiving.turn = !receiving.turn;
        if receiving.turn
            && let Poll::Ready(count) = receiving.poll_relayed(cx, &self.paths, bufs, meta)
        {
            return Poll::Ready(Ok(count));
        }
        if let Poll::Ready(received) = self.poll_socket(cx, &mut receiving.pause, bufs, meta) {
            return Poll::Ready(received);
        }
        receiving.poll_relayed(cx, &self.paths, bufs, meta).map(Ok)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl SteadySocket {
    fn poll_socket(
        &self,
        cx: &mut Context<'_>,
        pause: &mut Pause,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(pause.poll(cx));
            match ready!(self.inner.poll_recv(cx, bufs, meta)) {
                Ok(count) => {
                    pause.succeeded();
                    self.activity.received(count as u64);
                    for (meta, buffer) in meta.iter_mut().zip(bufs).take(count) {
                        let datagrams = meta.len.div_ceil(meta.stride.max(1));
                        self.metrics.udp_received_bytes.add(meta.len as u64);
                        self.metrics.udp_received_datagrams.add(datagrams as u64);
                        self.paths.incoming(buffer, meta);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) => {
                    self.metrics.udp_receive_errors.inc();
                    if is_echo(&error) && pause.echoed() {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    } else if !is_echo(&error) {
                        pause.failed();
                    }
                }
            }
        }
    }
}

/// What ICMP says of a packet that was sent.
fn is_echo(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | PermissionDenied
    )
}

/// A poller whose errors are pauses.
#[derive(Debug)]
struct SteadyPoller {
    inner: Pin<Box<dyn UdpPoller>>,
    metrics: Arc<QuicMetrics>,
    pause: Pause,
}

impl UdpPoller for SteadyPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            ready!(this.pause.poll(cx));
            match ready!(this.inner.as_mut().poll_writable(cx)) {
                Ok(()) => {
                    this.pause.succeeded();
                    return Poll::Ready(Ok(()));
                }
                Err(_) => {
                    this.metrics.udp_send_errors.inc();
                    this.pause.failed();
                }
            }
        }
    }
}

/// What systems say of a packet from an address that the machine does not have.
fn is_sourceless(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::AddrNotAvailable)
}

/// Keeps a socket that fails over and over from spinning its task.
#[derive(Debug, Default)]
struct Pause {
    errors_in_a_row: u32,
    echoes_in_a_row: u32,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    fn succeeded(&mut self) {
        (self.errors_in_a_row, self.echoes_in_a_row) = (0, 0);
    }

    /// An error tells of one packet. Gives whether it is the turn of others.
    fn echoed(&mut self) -> bool {
        self.echoes_in_a_row = self.echoes_in_a_row.saturating_add(1);
        if self.echoes_in_a_row > ECHOES_IN_A_ROW {
            // No network has so many dead peers: it is the socket.
            self.failed();
            return false;
        }
        self.echoes_in_a_row.is_multiple_of(ECHOES_AT_ONCE)
    }

    fn failed(&mut self) {
        self.errors_in_a_row = self.errors_in_a_row.saturating_add(1);
        if let Some(doublings) = self.errors_in_a_row.checked_sub(ERRORS_IN_A_ROW) {
            let pause = MIN_PAUSE.saturating_mul(2_u32.saturating_pow(doublings)).min(MAX_PAUSE);
            self.sleep = Some(Box::pin(sleep(pause)));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// How long the pause lasts now, in virtual time.
    async fn pause_length(pause: &mut Pause) -> Duration {
        let start = Instant::now();
        std::future::poll_fn(|cx| pause.poll(cx)).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_begin_late_double_and_end_with_a_success() {
        let mut pause = Pause::default();
        for _ in 1..ERRORS_IN_A_ROW {
            pause.failed();
            assert_eq!(pause_length(&mut pause).await, Duration::ZERO);
        }
        for millis in [10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
            pause.failed();
            assert_eq!(pause_length(&mut pause).await, Duration::from_millis(millis));
        }
        pause.succeeded();
        pause.failed();
        assert_eq!(pause_length(&mut pause).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn echoes_of_the_dead_are_no_reason_to_pause() {
        let mut pause = Pause::default();
        let turns = (0..ECHOES_IN_A_ROW).filter(|_| pause.echoed()).count();
        assert_eq!(turns as u32, ECHOES_IN_A_ROW / ECHOES_AT_ONCE);
        assert_eq!(pause_length(&mut pause).await, Duration::ZERO);
        for _ in 0..ERRORS_IN_A_ROW {
            assert!(!pause.echoed());
        }
        assert_eq!(pause_length(&mut pause).await, MIN_PAUSE, "they do not end");
    }
}

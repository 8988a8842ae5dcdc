//! Engines over a simulated internet: quinn is real, its packets pass a [`World`] of translators, and time is
//! tokio's, so that a paused clock makes it virtual.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, Tick};

use self::pipe::SimStreams;
use super::{BindError, QuicConfig, QuicEngine, QuicMetrics, stream::net::BoxedIo};
use crate::testing::nat::World;

mod pipe;

/// Connections that wait for a host to accept them.
const MAX_CONNECTIONS: usize = 64;
/// Packets that wait for a host; more are lost.
const MAX_QUEUED: usize = 4096;

#[derive(Debug)]
struct Packet {
    at: Instant,
    from: SocketAddr,
    /// None in the news that nobody is there.
    bytes: Option<Vec<u8>>,
}

struct Inner {
    world: World,
    inboxes: BTreeMap<SocketAddr, mpsc::Sender<Packet>>,
    /// Who listens for TCP.
    listeners: BTreeMap<SocketAddr, mpsc::Sender<(BoxedIo, SocketAddr)>>,
    /// Ends all connections that there are.
    connections: CancellationToken,
}

/// A [`World`] with engines in it. Clones share it.
#[derive(Clone)]
pub struct SimNet {
    inner: Arc<Mutex<Inner>>,
    start: Instant,
}

impl fmt::Debug for SimNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNet").finish_non_exhaustive()
    }
}

impl SimNet {
    /// A world in which time begins now.
    #[must_use]
    pub fn new(world: World) -> Self {
        let inner = Inner {
            world,
            inboxes: BTreeMap::new(),
            listeners: BTreeMap::new(),
            connections: CancellationToken::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), start: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at, or changes, the world.
    pub fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.lock().world)
    }

    fn now(&self) -> Tick {
        Tick::ZERO + self.start.elapsed()
    }

    /// Sends a datagram as a host may, whatever its engine does: for hostile tests.
    pub fn inject(&self, host: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let now = self.now();
        let mut inner = self.lock();
        let (at, from, to, bytes) = match inner.world.send(now, host, to) {
            Some(it) => (Instant::now() + it.delay, it.from, it.to, Some(datagram.to_vec())),
            None if inner.world.unreachables && inner.world.is_nowhere(to) => {
                (Instant::now() + 2 * inner.world.latency, to, host, None)
            }
            None => return,
        };
        if let Some(inbox) = inner.inboxes.get(&to) {
            // A full queue loses packets, as routers do.
            let _ = inbox.try_send(Packet { at, from, bytes });
        }
    }

    /// Whether a system knows already that it has no way there: it does of every second address.
    fn is_unroutable(&self, to: SocketAddr) -> bool {
        let IpAddr::V4(ip) = to.ip() else { return false };
        let inner = self.lock();
        inner.world.unreachables && inner.world.is_nowhere(to) && ip.octets()[2] % 2 == 0
    }

    /// Ends all TCP connections, as a translator does that was restarted.
    pub fn cut_streams(&self) {
        let mut inner = self.lock();
        std::mem::take(&mut inner.connections).cancel();
    }

    /// The engine of a host of the world; `config.bind` is its address there.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn engine(&self, config: QuicConfig) -> Result<QuicEngine, BindError> {
        let local = config.bind;
        let (sender, queue) = mpsc::channel(MAX_QUEUED);
        self.lock().inboxes.insert(local, sender);
        let inbox = Mutex::new(Inbox { queue, head: None });
        let socket = SimSocket { net: self.clone(), local, inbox };
        let streams = SimStreams::new(self, local, config.streams.listen);
        let metrics = Arc::new(QuicMetrics::default());
        QuicEngine::with_socket(config, Arc::new(socket), Arc::new(streams), metrics)
    }
}

impl Clock for SimNet {
    fn now(&self) -> Tick {
        self.now()
    }

    fn wall(&self) -> x0x_core::WallTime {
        crate::testing::EPOCH + self.start.elapsed()
    }
}

struct Inbox {
    queue: mpsc::Receiver<Packet>,
    /// The next packet, until its time has come.
    head: Option<(Packet, Pin<Box<Sleep>>)>,
}

/// A host's socket.
struct SimSocket {
    net: SimNet,
    local: SocketAddr,
    inbox: Mutex<Inbox>,
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSocket").field("local", &self.local).finish_non_exhaustive()
    }
}

/// There is always room.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.net.is_unroutable(transmit.destination) {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(size) {
            self.net.inject(self.local, transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.head.is_none() {
            let Some(packet) = ready!(inbox.queue.poll_recv(cx)) else { return Poll::Pending };
            let wait = Box::pin(sleep_until(packet.at));
            inbox.head = Some((packet, wait));
        }
        if let Some((_, wait)) = &mut inbox.head {
            ready!(wait.as_mut().poll(cx));
        }
        let (Some((packet, _)), Some(buffer), Some(meta)) =
            (inbox.head.take(), bufs.first_mut(), meta.first_mut())
        else {
            return Poll::Pending;
        };
        let Some(bytes) = packet.bytes else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        *meta = RecvMeta { addr: packet.from, len, stride: len, ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

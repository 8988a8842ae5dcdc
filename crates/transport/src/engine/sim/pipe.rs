//! TCP of the simulated internet: bytes arrive in order and as late as packets do.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::{Mutex, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{MAX_CONNECTIONS, SimNet};
use crate::{
    engine::stream::net::{BoxedIo, StreamNet},
    transport::BoxFuture,
};

/// Bytes that one end of a connection keeps for the other.
const WINDOW: usize = 64 << 10;
/// Pieces that are on their way in one direction.
const MAX_ON_THE_WAY: usize = 256;

/// A host's TCP.
pub(super) struct SimStreams {
    net: SimNet,
    host: SocketAddr,
    port: Option<u16>,
    accepted: Mutex<mpsc::Receiver<(BoxedIo, SocketAddr)>>,
}

impl fmt::Debug for SimStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStreams").field("host", &self.host).finish_non_exhaustive()
    }
}

impl SimStreams {
    /// A host that listens at a port, 0 for that of its UDP, or does not.
    pub(super) fn new(net: &SimNet, host: SocketAddr, listen: Option<u16>) -> Self {
        let port = listen.map(|port| if port == 0 { host.port() } else { port });
        let (sender, accepted) = mpsc::channel(MAX_CONNECTIONS);
        if let Some(port) = port {
            net.lock().listeners.insert(SocketAddr::new(host.ip(), port), sender);
        }
        Self { net: net.clone(), host, port, accepted: Mutex::new(accepted) }
    }

    fn join(&self, from: IpAddr, to: SocketAddr) -> io::Result<BoxedIo> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let inner = self.net.lock();
        let listener = inner.listeners.get(&to).cloned().ok_or_else(refused)?;
        let (latency, over) = (inner.world.latency, inner.connections.clone());
        drop(inner);
        let (near, near_end) = duplex(WINDOW);
        let (far, far_end) = duplex(WINDOW);
        let [(near_out, near_in), (far_out, far_in)] = [split(near_end), split(far_end)];
        carry(near_out, far_in, latency, &over);
        carry(far_out, near_in, latency, &over);
        let accepted: (BoxedIo, _) = (Box::new(far), SocketAddr::new(from, 40_000));
        listener.try_send(accepted).map_err(|_| refused())?;
        Ok(Box::new(near))
    }
}

/// Carries bytes in one direction until either end, or all connections, are over.
fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    latency: Duration,
    over: &CancellationToken,
) {
    let (sender, mut way) = mpsc::channel::<(Instant, Bytes)>(MAX_ON_THE_WAY);
    let read = async move {
        let mut buffer = vec![0; WINDOW];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let piece = Bytes::copy_from_slice(&buffer[..count]);
            if sender.send((Instant::now() + latency, piece)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, piece)) = way.recv().await {
            sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The other end may have gone already.
        let _ = to.shutdown().await;
    };
    tokio::spawn(over.clone().run_until_cancelled_owned(read));
    tokio::spawn(over.clone().run_until_cancelled_owned(write));
}

impl StreamNet for SimStreams {
    fn port(&self) -> Option<u16> {
        self.port
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<BoxedIo>> {
        Box::pin(async move {
            let (from, latency) =
                self.net.with(|world| (world.connects(self.host, to.ip()), world.latency));
            sleep(2 * latency).await;
            let from = from.ok_or_else(|| io::Error::from(io::ErrorKind::HostUnreachable))?;
            self.join(from, to)
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedIo, SocketAddr)>> {
        Box::pin(async move {
            match self.accepted.lock().await.recv().await {
                Some(accepted) => Ok(accepted),
                None => std::future::pending().await,
            }
        })
    }
}

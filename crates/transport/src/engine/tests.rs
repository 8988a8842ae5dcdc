//! The engine over a socket that fails on command.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use x0x_identity::SecretKey;

use super::{QuicConfig, QuicEngine, QuicMetrics, socket::UdpSocket, stream::net::TcpNet};
use crate::link::{Engine, Link};

/// A real socket whose next operations fail.
#[derive(Debug)]
struct FaultySocket {
    inner: Arc<UdpSocket>,
    receive_errors: AtomicU32,
    send_errors: AtomicU32,
}

/// Takes one of the errors that are left.
fn fault(left: &AtomicU32) -> Option<io::Error> {
    let before =
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).ok()?;
    Some(match before % 3 {
        0 => io::ErrorKind::ConnectionRefused.into(),
        1 => io::ErrorKind::NetworkUnreachable.into(),
        _ => io::Error::other("injected"),
    })
}

impl AsyncUdpSocket for FaultySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        fault(&self.send_errors).map_or_else(|| self.inner.try_send(transmit), Err)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        match fault(&self.receive_errors) {
            Some(error) => Poll::Ready(Err(error)),
            None => self.inner.poll_recv(cx, bufs, meta),
        }
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

fn config(seed: u8) -> QuicConfig {
    QuicConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)), SecretKey::from_seed([seed; 32]))
}

fn faulty_engine(seed: u8) -> (QuicEngine, Arc<FaultySocket>) {
    let config = config(seed);
    let metrics = Arc::new(QuicMetrics::default());
    let inner = Arc::new(UdpSocket::bind(config.bind, config.socket_buffer, &metrics).unwrap());
    let (receive_errors, send_errors) = (AtomicU32::new(0), AtomicU32::new(0));
    let socket = Arc::new(FaultySocket { inner, receive_errors, send_errors });
    let no_tcp = Arc::new(TcpNet::bind(std::net::Ipv4Addr::LOCALHOST.into(), None).unwrap());
    (QuicEngine::with_socket(config, socket.clone(), no_tcp, metrics).unwrap(), socket)
}

async fn send_byte(from: &dyn Link, to: &dyn Link) {
    let mut stream = from.open(0).await.unwrap();
    stream.write_all(&mut ["x".into()]).await.unwrap();
    let mut stream = to.accept().await.unwrap();
    assert_eq!(stream.read(10).await.unwrap().unwrap(), "x");
}

async fn links_survive(faulty: &FaultySocket, engine: &QuicEngine, errors: u32) {
    let other = QuicEngine::bind(config(2)).unwrap();
    let at = engine.local_addresses()[0];
    let (dialled, accepted) = tokio::join!(other.dial(at, None), engine.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());

    faulty.receive_errors.store(errors, Ordering::SeqCst);
    faulty.send_errors.store(4, Ordering::SeqCst);
    send_byte(&*dialled, &*accepted).await;
    send_byte(&*accepted, &*dialled).await;

    // The endpoint still takes and makes new connections.
    let newcomer = QuicEngine::bind(config(3)).unwrap();
    let (dialled, accepted) = tokio::join!(newcomer.dial(at, None), engine.accept());
    send_byte(&*dialled.unwrap(), &*accepted.unwrap()).await;
    let (dialled, accepted) =
        tokio::join!(engine.dial(newcomer.local_addresses()[0], None), newcomer.accept());
    send_byte(&*dialled.unwrap(), &*accepted.unwrap()).await;

    let metrics = engine.metrics();
    assert_eq!(metrics.udp_receive_errors.value(), u64::from(errors));
    assert_eq!(metrics.udp_send_errors.value(), 4);
    assert!(metrics.udp_received_datagrams.value() > 0 && metrics.udp_sent_datagrams.value() > 0);
    let mean = metrics.udp_received_bytes.value() / metrics.udp_received_datagrams.value();
    assert!((20..1500).contains(&mean), "datagrams of {mean} bytes");
}

/// A few errors, and so many in a row that the socket takes breaks.
#[tokio::test]
async fn links_and_endpoint_survive_socket_errors() {
    for errors in [5, 18] {
        let (engine, faulty) = faulty_engine(1);
        let test = links_survive(&faulty, &engine, errors);
        tokio::time::timeout(Duration::from_secs(10), test).await.unwrap();
    }
}

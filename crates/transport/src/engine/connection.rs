//! One link and its streams over a QUIC connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, SendDatagramError, StoppedError, VarInt, WriteError};
use rustls::pki_types::CertificateDer;
use x0x_core::MachineId;
use zeroize::Zeroize;

use super::{
    config::CONNECTION_WINDOW,
    failure::{alert, closed_text},
    paths::PathUse,
    stream::table::StreamTable,
    tls::proven_peer,
};
use crate::{
    link::{DatagramRefused, Link, LinkClosed, RecvStream, SendStream},
    sock::{
        FlowKeys,
        packet::FLOW_SECRET_LEN,
        table::{is_streamed, is_virtual, plain},
    },
    transport::BoxFuture,
    wire::CloseCode,
};

/// Packets' worth of stream bytes that one read takes at most, about 45 KB.
const READ_PACKETS: usize = 32;
/// Stream bytes of a packet, at least.
const PACKET: usize = 1100;
const STOPPED: &str = "the peer stopped reading it";
/// Label of the secret of a link's probes (RFC 8446 §7.5).
const PROBE_LABEL: &[u8] = b"EXPORTER-x0x/1 path probes";

/// The QUIC error code of a close code.
pub(super) fn code(code: CloseCode) -> VarInt {
    VarInt::from_u32(code as u32)
}

/// An authenticated connection. When the link and all its streams are dropped without a close,
/// quinn closes the connection with code 0, [`CloseCode::Shutdown`]; the seam does not promise that.
#[derive(Debug)]
pub(super) struct QuicLink {
    connection: quinn::Connection,
    peer: MachineId,
    /// Of a link that this machine dialled. Its streams need it as long as they are in use.
    path: Option<Arc<PathUse>>,
    streams: Arc<StreamTable>,
    /// The stream that carried it ended, and it had no other path.
    lost: Arc<AtomicBool>,
    /// On which the peer was greeted, until it is taken.
    greeted: Mutex<Option<quinn::SendStream>>,
}

impl QuicLink {
    /// Wraps a connection whose handshake is complete; gives it back if it proves no machine id,
    /// which the TLS verifier excludes.
    pub(super) fn new(
        connection: quinn::Connection,
        path: Option<PathUse>,
        streams: &Arc<StreamTable>,
    ) -> Result<Self, quinn::Connection> {
        let peer = connection
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .and_then(|chain| proven_peer(&chain));
        let Some(peer) = peer else { return Err(connection) };
        let (path, streams) = (path.map(Arc::new), streams.clone());
        let (lost, greeted) = Default::default();
        let link = Self { connection, peer, path, streams, lost, greeted };
        link.end_with_stream();
        Ok(link)
    }

    /// With the stream on which the peer was greeted during the handshake.
    pub(super) fn greeted_on(self, stream: Option<quinn::SendStream>) -> Self {
        Self { greeted: Mutex::new(stream), ..self }
    }

    /// A link whose packets go into a stream ends with it, unless it has moved elsewhere: neither end would hear
    /// of that before the idle timeout.
    fn end_with_stream(&self) {
        let address = self.remote_address();
        let Some(over) = self.streams.over(address) else { return };
        let (connection, path, lost) =
            (self.connection.clone(), self.path.clone(), self.lost.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = connection.closed() => {}
                () = over.cancelled() => {
                    if remote_address(&connection, path.as_deref()) == address {
                        lost.store(true, Ordering::Relaxed);
                        connection.close(code(CloseCode::Timeout), b"");
                    }
                }
            }
        });
    }
}

/// Where the packets of a connection come from.
fn remote_address(connection: &quinn::Connection, path: Option<&PathUse>) -> SocketAddr {
    let address = plain(connection.remote_address());
    match path {
        Some(path) if is_virtual(address) => path.active(),
        _ => address,
    }
}

impl Link for QuicLink {
    fn peer(&self) -> MachineId {
        self.peer
    }

    fn remote_address(&self) -> SocketAddr {
        remote_address(&self.connection, self.path.as_deref())
    }

    fn stream_address(&self) -> Option<SocketAddr> {
        self.streams.remote(self.remote_address())
    }

    fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    fn received(&self) -> Option<u64> {
        Some(self.connection.stats().udp_rx.datagrams)
    }

    fn sent(&self) -> Option<u64> {
        Some(self.connection.stats().udp_tx.datagrams)
    }

    fn flow_keys(&self) -> Option<FlowKeys> {
        let mut secret = [0; FLOW_SECRET_LEN];
        self.connection.export_keying_material(&mut secret, PROBE_LABEL, &[]).ok()?;
        let keys = FlowKeys::new(&secret, self.path.is_some());
        secret.zeroize();
        Some(keys)
    }

    fn add_path(&self, address: SocketAddr) -> bool {
        // A stream may be kept from now on, if it is the peer's.
        let bound = !is_streamed(address) || self.streams.confirm(address, self.peer);
        bound && self.path.as_ref().is_some_and(|path| path.add(address))
    }

    fn use_path(&self, address: SocketAddr) -> bool {
        self.path.as_ref().is_some_and(|path| path.activate(address))
    }

    fn has_datagrams(&self) -> bool {
        self.connection.max_datagram_size().is_some()
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramRefused> {
        self.connection.send_datagram(datagram).map_err(|error| match error {
            SendDatagramError::TooLarge => {
                let most = self.connection.max_datagram_size().unwrap_or(0);
                DatagramRefused::TooLarge { most }
            }
            _ => DatagramRefused::Closed,
        })
    }

    fn next_datagram(&self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move { self.connection.read_datagram().await.ok() })
    }

    fn trust(&self) {
        self.connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW));
    }

    fn greeted(&self) -> Option<Box<dyn SendStream>> {
        let stream = self.greeted.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Box::new(QuicSend { stream, _path: self.path.clone() }))
    }

    fn open(&self, priority: i32) -> BoxFuture<'_, Result<Box<dyn SendStream>, LinkClosed>> {
        Box::pin(async move {
            let stream = self.connection.open_uni().await.map_err(|e| link_closed(&e))?;
            stream.set_priority(priority).map_err(|_| already_closed())?;
            let path = self.path.clone();
            Ok(Box::new(QuicSend { stream, _path: path }) as Box<dyn SendStream>)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn RecvStream>, LinkClosed>> {
        Box::pin(async move {
            let stream = self.connection.accept_uni().await.map_err(|e| link_closed(&e))?;
            let path = self.path.clone();
            Ok(Box::new(QuicRecv { stream, rest: Bytes::new(), _path: path })
                as Box<dyn RecvStream>)
        })
    }

    fn close(&self, why: CloseCode) {
        self.connection.close(code(why), b"");
    }

    fn closed(&self) -> BoxFuture<'_, LinkClosed> {
        Box::pin(async move {
            match link_closed(&self.connection.closed().await) {
                LinkClosed::Local if self.lost.load(Ordering::Relaxed) => LinkClosed::TimedOut,
                reason => reason,
            }
        })
    }
}

#[derive(Debug)]
struct QuicSend {
    stream: quinn::SendStream,
    _path: Option<Arc<PathUse>>,
}

impl SendStream for QuicSend {
    fn write_all<'a>(
        &'a mut self,
        chunks: &'a mut [Bytes],
    ) -> BoxFuture<'a, Result<(), LinkClosed>> {
        Box::pin(async move {
            self.stream.write_all_chunks(chunks).await.map_err(|error| match error {
                WriteError::ConnectionLost(e) => link_closed(&e),
                WriteError::Stopped(_) => LinkClosed::Stream(STOPPED),
                WriteError::ClosedStream | WriteError::ZeroRttRejected => already_closed(),
            })
        })
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), LinkClosed>> {
        Box::pin(async move {
            self.stream.finish().map_err(|_| already_closed())?;
            match self.stream.stopped().await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err(LinkClosed::Stream(STOPPED)),
                Err(StoppedError::ConnectionLost(e)) => Err(link_closed(&e)),
                Err(StoppedError::ZeroRttRejected) => Err(already_closed()),
            }
        })
    }
}

/// Packets' worth of stream bytes, and how many of them there are.
type Packets = ([Bytes; READ_PACKETS], usize);

/// Joins what arrived in several packets. That makes few large reads of many small ones, and what
/// a reader keeps is a slice of stream bytes, not of a whole receive buffer.
#[derive(Debug)]
struct QuicRecv {
    stream: quinn::RecvStream,
    /// Read from the connection, not from us yet.
    rest: Bytes,
    _path: Option<Arc<PathUse>>,
}

impl QuicRecv {
    /// Takes what arrived, about `max` bytes of it; none at the end of the stream. Cancel safe.
    async fn take(&mut self, max: usize) -> Result<Option<Packets>, LinkClosed> {
        let mut packets = [const { Bytes::new() }; READ_PACKETS];
        let most = (max / PACKET + 1).min(READ_PACKETS);
        match self.stream.read_chunks(&mut packets[..most]).await {
            Ok(count) => Ok(count.map(|count| (packets, count))),
            Err(ReadError::ConnectionLost(e)) => Err(link_closed(&e)),
            Err(ReadError::Reset(_)) => Err(LinkClosed::Stream("the peer reset it")),
            Err(_) => Err(already_closed()),
        }
    }
}

impl RecvStream for QuicRecv {
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LinkClosed>> {
        Box::pin(async move {
            while self.rest.is_empty() {
                let Some((packets, count)) = self.take(max).await? else { return Ok(None) };
                self.rest = packets[..count].concat().into();
            }
            Ok(Some(self.rest.split_to(max.min(self.rest.len()))))
        })
    }

    fn read_onto<'a>(
        &'a mut self,
        buffer: &'a mut Vec<u8>,
        max: usize,
    ) -> BoxFuture<'a, Result<bool, LinkClosed>> {
        Box::pin(async move {
            if !self.rest.is_empty() {
                buffer.extend_from_slice(&self.rest.split_to(max.min(self.rest.len())));
                return Ok(true);
            }
            let Some((packets, count)) = self.take(max).await? else { return Ok(false) };
            let mut room = max;
            let mut behind = Vec::new();
            for packet in &packets[..count] {
                let (here, rest) = packet.split_at(packet.len().min(room));
                buffer.extend_from_slice(here);
                behind.extend_from_slice(rest);
                room -= here.len();
            }
            self.rest = behind.into();
            Ok(true)
        })
    }
}

fn already_closed() -> LinkClosed {
    LinkClosed::Failed("the stream is closed".into())
}

/// Why a connection ended, in the words of the seam.
fn link_closed(error: &ConnectionError) -> LinkClosed {
    match error {
        ConnectionError::LocallyClosed => LinkClosed::Local,
        ConnectionError::ApplicationClosed(close) => {
            LinkClosed::Peer(CloseCode::from_wire(close.error_code.into_inner()))
        }
        ConnectionError::TimedOut => LinkClosed::TimedOut,
        ConnectionError::Reset => LinkClosed::Failed("the peer restarted".into()),
        ConnectionError::ConnectionClosed(close) if alert(close.error_code).is_some() => {
            let text = closed_text(error);
            LinkClosed::Failed(format!("the peer refused this machine's identity: {text}"))
        }
        ConnectionError::ConnectionClosed(_) => LinkClosed::Failed(closed_text(error)),
        other => LinkClosed::Failed(other.to_string()),
    }
}

//! The seam between sessions and what carries them: an [`Engine`] makes authenticated [`Link`]s, a
//! link carries byte streams. The QUIC engine and the in-memory engine implement it, so hello,
//! duplicate resolution, queues and back-pressure above it are one piece of code in both worlds.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{MachineId, WallTime};

use crate::{
    error::DialError,
    record::{ReachClass, SignedRecord},
    sock::{FlowKeys, KnownFlows, PROBE_LEN, ProbeIn},
    wire::CloseCode,
};

/// A boxed future, so that traits with waiting calls can be used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which end opened the connection under a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// This machine dialled.
    Dialer,
    /// The peer dialled.
    Acceptor,
}

/// Makes links to other machines over one socket.
pub trait Engine: Send + Sync + fmt::Debug + 'static {
    /// The identity that this end proves to its peers.
    fn local_id(&self) -> MachineId;

    /// Addresses of the socket, wildcards replaced by usable addresses.
    fn local_addresses(&self) -> Vec<SocketAddr>;

    /// Waits until these addresses may have changed. Dropping the future loses nothing.
    fn addresses_changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// The machine's record of these addresses and of how it is reached as of now, signed with its key;
    /// `None` from an engine that has none.
    fn sign_record(
        &self,
        addresses: &[SocketAddr],
        reach: ReachClass,
        now: WallTime,
    ) -> Option<SignedRecord> {
        let _ = (addresses, reach, now);
        None
    }

    /// Has somebody asked what is written to whoever dials this machine, as soon as there are keys for it: half a round
    /// trip before it is known who that is. Without effect on an engine that waits.
    fn greet(&self, greeter: Arc<dyn Greeter>) {
        let _ = greeter;
    }

    /// Connects and authenticates. With `expected` the peer must prove that id.
    fn dial(
        &self,
        address: SocketAddr,
        expected: Option<MachineId>,
    ) -> BoxFuture<'_, Result<Box<dyn Link>, DialError>>;

    /// The same over a stream of packets, for where UDP does not pass: opens one to a TCP address.
    fn dial_stream(
        &self,
        address: SocketAddr,
        expected: Option<MachineId>,
    ) -> BoxFuture<'_, Result<Box<dyn Link>, DialError>> {
        let _ = (address, expected);
        Box::pin(std::future::ready(Err(DialError::NoAddress)))
    }

    /// Opens a stream to the machine of a session, for that to move to: gives the address that stands for it.
    /// `None` when that cannot be.
    fn open_stream(
        &self,
        address: SocketAddr,
        peer: MachineId,
    ) -> BoxFuture<'_, Option<SocketAddr>> {
        let _ = (address, peer);
        Box::pin(std::future::ready(None))
    }

    /// Whether [`dial_stream`](Self::dial_stream) may succeed.
    fn dials_streams(&self) -> bool {
        false
    }

    /// The TCP port at which it takes streams of packets; `None` where it takes none.
    fn stream_port(&self) -> Option<u16> {
        None
    }

    /// The next link that a peer opened and authenticated; `None` once the engine is closed.
    /// Failed handshakes are counted and skipped.
    fn accept(&self) -> BoxFuture<'_, Option<Box<dyn Link>>>;

    /// Whether it carries probes.
    fn has_probes(&self) -> bool {
        false
    }

    /// The flows whose probes the engine lets through, kept up to date by the node. Not known to an engine without
    /// probes.
    fn probe_flows(&self) -> Arc<KnownFlows> {
        Arc::default()
    }

    /// Sends a probe packet from the socket of the links, at once. It may be lost.
    fn send_probe(&self, to: SocketAddr, packet: &[u8; PROBE_LEN]) {
        let _ = (to, packet);
    }

    /// The next probe packet that came to the socket of the links, and from where; `None` from an engine
    /// without probes. Dropping the future loses nothing.
    fn next_probe(&self) -> BoxFuture<'_, Option<(SocketAddr, ProbeIn)>> {
        Box::pin(std::future::ready(None))
    }

    /// Nothing is to be looked after until a link sends a packet of its own accord, keep-alives included, or
    /// many come.
    fn rest(&self) {}

    /// Waits for the end of a [`rest`](Self::rest); for ever with an engine that does not count
    /// packets. Dropping the future loses nothing.
    fn woken(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Takes a packet that came by way of a relay as one from that address
    /// ([`relayed_address`](crate::sock::table::relayed_address)). It may be lost.
    fn deliver(&self, from: SocketAddr, packet: Bytes) {
        let _ = (from, packet);
    }

    /// The next packets for ways by a relay, at most `max` of them; `None` from an engine that makes none. Dropping
    /// the future loses nothing.
    fn next_relayed<'a>(
        &'a self,
        packets: &'a mut Vec<(SocketAddr, Bytes)>,
        max: usize,
    ) -> BoxFuture<'a, Option<()>> {
        let _ = (packets, max);
        Box::pin(std::future::ready(None))
    }

    /// Closes all links and the socket, waiting until the peers were told.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Says what a dialler is told before it has proven who it is. It is encrypted for whoever dialled, whoever that is.
pub trait Greeter: Send + Sync + fmt::Debug + 'static {
    /// The first bytes of the first stream, and its priority, for somebody at this address; none when the machine ends.
    fn greeting(&self, to: SocketAddr) -> Option<(i32, Vec<Bytes>)>;
}

/// An authenticated connection to one peer. Its owner ends it with [`close`](Self::close): a link that
/// is only dropped may stay up until its idle timeout.
pub trait Link: Send + Sync + fmt::Debug + 'static {
    /// The peer's proven identity.
    fn peer(&self) -> MachineId;

    /// Where its packets come from now.
    fn remote_address(&self) -> SocketAddr;

    /// The TCP address of the peer, while the packets go in a stream.
    fn stream_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Smoothed round-trip time.
    fn rtt(&self) -> Duration;

    /// How many packets came over it so far, acknowledgements and keep-alives included; `None` where
    /// they are not counted.
    fn received(&self) -> Option<u64> {
        None
    }

    /// How many packets were sent over it so far; `None` where they are not counted.
    fn sent(&self) -> Option<u64> {
        None
    }

    /// Name and keys of the link's probes, which both its ends and nobody else can derive. `None` where
    /// the engine has no probes.
    fn flow_keys(&self) -> Option<FlowKeys> {
        None
    }

    /// A probe has shown that the peer is at a further address: its packets are taken from there. False where that
    /// cannot be: a link that the peer dialled follows the peer by itself.
    fn add_path(&self, address: SocketAddr) -> bool {
        let _ = address;
        false
    }

    /// Sends to this one of the addresses that were added, or to the first again, from now on.
    fn use_path(&self, address: SocketAddr) -> bool {
        let _ = address;
        false
    }

    /// Whether datagrams can be sent to the peer, and come from it.
    fn has_datagrams(&self) -> bool {
        false
    }

    /// Sends a datagram beside the streams. It may be lost; of those that wait the oldest give way.
    ///
    /// # Errors
    /// [`DatagramRefused`].
    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramRefused> {
        let _ = datagram;
        Err(DatagramRefused::Closed)
    }

    /// The next datagram of the peer; `None` when the link is over, or has none. Dropping the future loses
    /// nothing.
    fn next_datagram(&self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(std::future::ready(None))
    }

    /// The link became a session: the engine may spend the memory on it that a stranger does not get.
    fn trust(&self) {}

    /// The stream on which the peer, which dialled, was greeted, to be continued. `None` without a
    /// [`Greeter`], and the second time.
    fn greeted(&self) -> Option<Box<dyn SendStream>> {
        None
    }

    /// Opens a one-way stream. A higher `priority` is sent first.
    fn open(&self, priority: i32) -> BoxFuture<'_, Result<Box<dyn SendStream>, LinkClosed>>;

    /// The next one-way stream that the peer opened.
    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn RecvStream>, LinkClosed>>;

    /// Ends the link at once and tells the peer why.
    fn close(&self, code: CloseCode);

    /// Waits until the link is closed by either side.
    fn closed(&self) -> BoxFuture<'_, LinkClosed>;
}

/// Why a datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramRefused {
    /// The path does not carry one of that size now.
    #[error("larger than the {most} bytes that the path carries")]
    TooLarge {
        /// The largest.
        most: usize,
    },
    /// The link is over, or has no datagrams.
    #[error("no datagrams on this link")]
    Closed,
}

/// The sending half of a stream.
pub trait SendStream: Send + fmt::Debug + 'static {
    /// Writes all the chunks in order, waiting for the peer's flow control.
    fn write_all<'a>(
        &'a mut self,
        chunks: &'a mut [Bytes],
    ) -> BoxFuture<'a, Result<(), LinkClosed>>;

    /// Ends the stream, and resolves once the peer has all of it.
    fn finish(&mut self) -> BoxFuture<'_, Result<(), LinkClosed>>;
}

/// The receiving half of a stream. Dropping it tells the peer that nobody reads it any more.
pub trait RecvStream: Send + fmt::Debug + 'static {
    /// The next at most `max` bytes in order; `None` at the end of the stream. Dropping the future
    /// loses nothing.
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LinkClosed>>;

    /// Appends the next at most `max` bytes in order to a buffer: for parts of something large, which are
    /// not copied a second time. False at the end of the stream. Dropping the future loses nothing.
    fn read_onto<'a>(
        &'a mut self,
        buffer: &'a mut Vec<u8>,
        max: usize,
    ) -> BoxFuture<'a, Result<bool, LinkClosed>> {
        Box::pin(async move {
            let bytes = self.read(max).await?;
            bytes.iter().for_each(|bytes| buffer.extend_from_slice(bytes));
            Ok(bytes.is_some())
        })
    }
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkClosed {
    /// This end closed it.
    #[error("closed by this end")]
    Local,
    /// The peer closed it with a code.
    #[error("closed by the peer: {0}")]
    Peer(CloseCode),
    /// Silence past the idle timeout.
    #[error("timed out")]
    TimedOut,
    /// Only one stream, while the link itself may be alive: the peer reset it, or reads it no more.
    #[error("stream given up: {0}")]
    Stream(&'static str),
    /// Anything else the engine reports.
    #[error("failed: {0}")]
    Failed(String),
}

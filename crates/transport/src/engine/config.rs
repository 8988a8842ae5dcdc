//! Settings of the engine: defaults with their reasons.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use x0x_core::{Clock, SystemClock};
use x0x_identity::SecretKey;

use super::window::FirstWindows;
use crate::{interfaces::NetworkWatch, link::Side};

/// One-way streams that a peer may have open. Sessions use one for each stream class.
const MAX_STREAMS: u32 = 16;
/// Unread bytes that a peer may put into one stream: 160 Mbit/s at a round trip of 100 ms. Twice as
/// much in flight made transfers on loopback slower, out of cache.
const STREAM_WINDOW: u32 = 2 << 20;
/// Unread bytes that a peer may put into all its streams, so what a hostile peer with a session can
/// pin: two streams at their full rate.
pub(crate) const CONNECTION_WINDOW: u32 = 4 << 20;
/// The same before the peer has a session: its hello, and the first messages behind it.
const STRANGER_WINDOW: u32 = 256 << 10;
/// Bytes sent to a peer and not acknowledged by it.
const SEND_WINDOW: u64 = 4 << 20;
/// First guess of the round trip. The standard's 333 ms makes the first retransmission wait for
/// a second, which a handshake of eleven datagrams feels at any loss.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Packets of the dialler that are acknowledged together, or after the usual delay of 25 ms at most. A
/// signed message takes three: with QUIC's usual two it would cost two acknowledgements, each of which
/// wakes the sender for nothing (draft-ietf-quic-ack-frequency). For an acceptor that wished the same,
/// the frame that says so would not fit into its first flight.
const ACK_EVERY: u32 = 8;
/// Largest UDP payload that is probed for: an Ethernet frame with IPv6 and some tunnel overhead.
/// Jumbo settings were seen to hang a transfer.
const MAX_UDP_PAYLOAD: u16 = 1452;
/// Datagrams that came and were not read: what a reader finds after one turn of the socket. The oldest give way.
const DATAGRAMS_IN: usize = 128 << 10;
/// Datagrams that wait for the path: 40 ms at a relay's rate of 20 Mbit/s. More would only be late; the oldest give
/// way.
const DATAGRAMS_OUT: usize = 96 << 10;

/// How to run a [`QuicEngine`](crate::quic::QuicEngine).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuicConfig {
    /// The UDP address to bind. `[::]` takes IPv4 as well, port 0 takes any free port.
    pub bind: SocketAddr,
    /// The machine's key, which proves its id to peers.
    pub key: SecretKey,
    /// Offer and accept only ML-KEM-768, without the X25519 hybrid.
    pub pure_pq: bool,
    /// Silence after which a link is given up. Two machines use the lesser of their values.
    pub idle_timeout: Duration,
    /// Pause after which an idle link sends a probe; less than half of `idle_timeout`. QUIC's loss
    /// recovery repeats a lost probe, so one is enough.
    pub keep_alive: Duration,
    /// How long a handshake may take, on both sides.
    pub handshake_timeout: Duration,
    /// Bytes to ask for as the socket's send and receive buffers. A burst of 4 MiB at the
    /// kernel's default of 208 KiB loses packets; see [`QuicMetrics`](crate::quic::QuicMetrics) for
    /// what was granted.
    pub socket_buffer: usize,
    /// What strangers may cost.
    pub limits: QuicLimits,
    /// Packets over TCP, where UDP does not pass.
    pub streams: StreamConfig,
    /// Where handshake rates and ticket ages read the time.
    pub clock: Arc<dyn Clock>,
    /// The machine's interfaces, which a wildcard address stands for. Without it, the routes are asked
    /// each time, and nobody is told of changes.
    pub network: Option<NetworkWatch>,
}

impl QuicConfig {
    /// The defaults for an address and a key.
    #[must_use]
    pub fn new(bind: SocketAddr, key: SecretKey) -> Self {
        Self {
            bind,
            key,
            pure_pq: false,
            idle_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_secs(7),
            handshake_timeout: Duration::from_secs(6),
            socket_buffer: 4 << 20,
            limits: QuicLimits::default(),
            streams: StreamConfig::default(),
            clock: Arc::new(SystemClock::new()),
            network: None,
        }
    }

    /// The settings of every connection; `None` when a duration does not fit into the protocol.
    ///
    /// The dialler probes an idle link; the acceptor, whose timer the probe restarts, only when the
    /// dialler did not. Both probing would double the packets of a network at rest.
    ///
    /// The server's first flight has about 90 bytes to spare under the amplification limit, so
    /// features whose transport parameters are not needed stay off: two-way streams.
    pub(crate) fn transport(&self, side: Side) -> Option<TransportConfig> {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(MAX_UDP_PAYLOAD);
        let mut transport = TransportConfig::default();
        if side == Side::Dialer {
            let mut acknowledgements = AckFrequencyConfig::default();
            acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY - 1));
            transport.ack_frequency_config(Some(acknowledgements));
        }
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(MAX_STREAMS))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(STRANGER_WINDOW))
            .send_window(SEND_WINDOW)
            .datagram_receive_buffer_size(Some(DATAGRAMS_IN))
            .datagram_send_buffer_size(DATAGRAMS_OUT)
            .initial_rtt(INITIAL_RTT)
            .congestion_controller_factory(Arc::new(FirstWindows))
            .mtu_discovery_config(Some(mtu))
            .keep_alive_interval(Some(match side {
                Side::Dialer => self.keep_alive,
                Side::Acceptor => self.keep_alive * 3 / 2,
            }))
            .max_idle_timeout(Some(IdleTimeout::try_from(self.idle_timeout).ok()?));
        Some(transport)
    }
}

/// Streams of packets over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamConfig {
    /// Whether this machine opens streams to others when no packet of theirs comes over UDP.
    pub dial: bool,
    /// The TCP port at which it takes streams of others, 0 for the number of the UDP port; `None` takes none.
    /// Networks that block UDP often let TCP pass to port 443 alone.
    pub listen: Option<u16>,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self { dial: true, listen: None }
    }
}

/// Caps on what unauthenticated peers can make this machine do.
///
/// One first flight of 2.4 KB makes it encapsulate and sign, about 0.3 ms of CPU.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuicLimits {
    /// Handshakes in progress from which on a dialler must first prove its address (a retry, one
    /// more round trip).
    pub pending_before_retry: usize,
    /// Handshakes in progress from which on a new one has
    /// [`hurried_timeout`](Self::hurried_timeout) at most.
    pub pending_before_hurry: usize,
    /// Time of a handshake when many are in progress: a few long round trips.
    pub hurried_timeout: Duration,
    /// Most handshakes in progress. The oldest, which is the least likely to succeed, gives way to a
    /// new one.
    pub max_pending: usize,
    /// Handshakes a second that one network (/24 of IPv4, /56 of IPv6) may start, and half of those of
    /// one /48 of IPv6. Loopback is exempt.
    pub network_rate: u32,
    /// Handshakes that one network may start at once after a quiet time.
    pub network_burst: u32,
    /// Authenticated links that wait to be accepted by the layer above.
    pub accept_queue: usize,
}

impl Default for QuicLimits {
    fn default() -> Self {
        Self {
            pending_before_retry: 256,
            pending_before_hurry: 512,
            hurried_timeout: Duration::from_secs(2),
            max_pending: 1024,
            network_rate: 50,
            network_burst: 200,
            accept_queue: 64,
        }
    }
}

//! Counters of the engine.

use std::sync::Arc;

use x0x_core::{Counter, Gauge, Metric};

use super::{failure::HandshakeFailure, stream::StreamMetrics};

/// What the engine counts. Shared; read it at any time.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct QuicMetrics {
    /// Links that this machine dialled.
    pub links_dialled: Counter,
    /// Links that peers dialled and authenticated.
    pub links_accepted: Counter,
    /// Incoming handshakes told to prove their address first.
    pub incoming_retried: Counter,
    /// Incoming handshakes refused since too many links wait to be taken.
    pub incoming_refused_pending: Counter,
    /// Handshakes given up for later ones since too many were in progress.
    pub incoming_replaced: Counter,
    /// Incoming handshakes refused since their network started too many.
    pub incoming_refused_rate: Counter,
    /// Handshakes with a peer that offers no post-quantum key exchange of ours.
    pub failed_no_common_group: Counter,
    /// Handshakes with a peer that does not speak raw public keys.
    pub failed_certificate_type: Counter,
    /// Handshakes with a peer whose key is not exactly an ML-DSA-65 key.
    pub failed_key_type: Counter,
    /// Dials answered by another machine than expected.
    pub failed_wrong_peer: Counter,
    /// Handshakes with this machine's own key at the other end.
    pub failed_own_key: Counter,
    /// Handshakes with a peer that presented a key without being able to sign with it.
    pub failed_signature: Counter,
    /// Handshakes with a peer that accepts or makes no ML-DSA-65 signature.
    pub failed_no_common_signature: Counter,
    /// Handshakes with a dialler that presented no key.
    pub failed_no_key: Counter,
    /// Handshakes with a peer of another protocol version.
    pub failed_protocol: Counter,
    /// Handshakes that the peer refused.
    pub failed_refused_by_peer: Counter,
    /// Handshakes that took too long.
    pub failed_timeout: Counter,
    /// Handshakes that failed otherwise.
    pub failed_other: Counter,
    /// UDP payload bytes handed to the socket.
    pub udp_sent_bytes: Counter,
    /// Datagrams handed to the socket.
    pub udp_sent_datagrams: Counter,
    /// UDP payload bytes received.
    pub udp_received_bytes: Counter,
    /// Datagrams received.
    pub udp_received_datagrams: Counter,
    /// Sends that the socket refused. Probes for a larger packet size than the interface carries
    /// count here and are harmless.
    pub udp_send_errors: Counter,
    /// Errors that the socket reported instead of datagrams.
    pub udp_receive_errors: Counter,
    /// Packets lost because the path to their peer is over.
    pub udp_pathless: Counter,
    /// Datagrams from addresses that no machine has.
    pub udp_forged_source: Counter,
    /// Probe packets lost since too many came or the socket was busy.
    pub probes_dropped: Counter,
    /// Packets for or from ways by a relay, lost since too many wait.
    pub relayed_dropped: Counter,
    /// Streams of packets over TCP.
    pub streams: Arc<StreamMetrics>,
    /// Links moved to another address of their peer.
    pub paths_switched: Counter,
    /// Send buffer that the operating system granted, in bytes.
    pub socket_send_buffer: Gauge,
    /// Receive buffer that the operating system granted, in bytes.
    pub socket_receive_buffer: Gauge,
}

impl QuicMetrics {
    pub(super) fn failed(&self, failure: HandshakeFailure) -> &Counter {
        match failure {
            HandshakeFailure::NoCommonGroup => &self.failed_no_common_group,
            HandshakeFailure::CertificateType => &self.failed_certificate_type,
            HandshakeFailure::KeyType => &self.failed_key_type,
            HandshakeFailure::WrongPeer => &self.failed_wrong_peer,
            HandshakeFailure::OwnKey => &self.failed_own_key,
            HandshakeFailure::Signature => &self.failed_signature,
            HandshakeFailure::NoCommonSignature => &self.failed_no_common_signature,
            HandshakeFailure::NoKey => &self.failed_no_key,
            HandshakeFailure::Protocol => &self.failed_protocol,
            HandshakeFailure::RefusedByPeer => &self.failed_refused_by_peer,
            HandshakeFailure::Timeout => &self.failed_timeout,
            HandshakeFailure::Other => &self.failed_other,
        }
    }

    /// All values, named `quic_*`.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Metric> {
        let mut all = self.handshakes();
        all.extend(self.socket());
        all.extend(self.streams.snapshot());
        all
    }

    fn handshakes(&self) -> Vec<Metric> {
        vec![
            self.links_dialled.metric("quic_links_dialled", "Links that this machine dialled"),
            self.links_accepted.metric("quic_links_accepted", "Links that peers dialled"),
            self.incoming_retried
                .metric("quic_incoming_retried", "Incoming handshakes told to prove their address"),
            self.incoming_refused_pending.metric(
                "quic_incoming_refused_pending",
                "Incoming handshakes refused: too many links wait to be taken",
            ),
            self.incoming_replaced.metric(
                "quic_incoming_replaced",
                "Incoming handshakes given up for later ones: too many in progress",
            ),
            self.incoming_refused_rate.metric(
                "quic_incoming_refused_rate",
                "Incoming handshakes refused: too many from one network",
            ),
            self.failed_no_common_group.metric(
                "quic_handshakes_failed_no_common_group",
                "Handshakes failed: no common post-quantum key exchange",
            ),
            self.failed_certificate_type.metric(
                "quic_handshakes_failed_certificate_type",
                "Handshakes failed: the peer does not speak raw public keys",
            ),
            self.failed_key_type.metric(
                "quic_handshakes_failed_key_type",
                "Handshakes failed: the peer's key is not ML-DSA-65",
            ),
            self.failed_wrong_peer.metric(
                "quic_handshakes_failed_wrong_peer",
                "Handshakes failed: another machine answered",
            ),
            self.failed_own_key.metric(
                "quic_handshakes_failed_own_key",
                "Handshakes failed: the peer is this machine",
            ),
            self.failed_signature.metric(
                "quic_handshakes_failed_signature",
                "Handshakes failed: the peer could not sign with its key",
            ),
            self.failed_no_common_signature.metric(
                "quic_handshakes_failed_no_common_signature",
                "Handshakes failed: the peer does not use ML-DSA-65",
            ),
            self.failed_no_key
                .metric("quic_handshakes_failed_no_key", "Handshakes failed: no key presented"),
            self.failed_protocol.metric(
                "quic_handshakes_failed_protocol",
                "Handshakes failed: another protocol version",
            ),
            self.failed_refused_by_peer.metric(
                "quic_handshakes_failed_refused_by_peer",
                "Handshakes failed: refused by the peer",
            ),
            self.failed_timeout
                .metric("quic_handshakes_failed_timeout", "Handshakes failed: took too long"),
            self.failed_other
                .metric("quic_handshakes_failed_other", "Handshakes failed: other reasons"),
        ]
    }

    fn socket(&self) -> Vec<Metric> {
        vec![
            self.udp_sent_bytes.metric("quic_udp_sent_bytes", "UDP payload bytes sent"),
            self.udp_sent_datagrams.metric("quic_udp_sent_datagrams", "Datagrams sent"),
            self.udp_received_bytes.metric("quic_udp_received_bytes", "UDP payload bytes received"),
            self.udp_received_datagrams.metric("quic_udp_received_datagrams", "Datagrams received"),
            self.udp_send_errors.metric("quic_udp_send_errors", "Sends that the socket refused"),
            self.udp_receive_errors.metric("quic_udp_receive_errors", "Errors on receiving"),
            self.udp_pathless
                .metric("quic_udp_pathless", "Packets lost because their path is over"),
            self.udp_forged_source
                .metric("quic_udp_forged_source", "Datagrams from addresses that no machine has"),
            self.probes_dropped.metric("quic_probes_dropped", "Probe packets lost at this machine"),
            self.relayed_dropped
                .metric("quic_relayed_dropped", "Relayed packets lost at this machine"),
            self.paths_switched
                .metric("quic_paths_switched", "Links moved to another address of their peer"),
            self.socket_send_buffer
                .metric("quic_socket_send_buffer_bytes", "Send buffer granted to the socket"),
            self.socket_receive_buffer
                .metric("quic_socket_receive_buffer_bytes", "Receive buffer granted to the socket"),
        ]
    }
}

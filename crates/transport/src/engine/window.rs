//! The first window of a connection, not paced.
//!
//! A post-quantum handshake and the hello behind it have five times the bytes of a classical one, and QUIC's pacing, which
//! lets ten packets of 1200 bytes go at once, would hold the last of them back for most of a round trip. RFC 9002 §7.2 allows
//! 14,720 bytes at the start, and §7.7 bursts of as many. After these the usual congestion control has the say; it is told of
//! everything from the first packet on.

use std::{any::Any, sync::Arc, time::Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

/// Bytes of a connection that are neither paced nor held back.
pub(super) const FIRST_WINDOW: u64 = 14_720;
/// A window from which on quinn does not pace.
const UNPACED: u64 = 1 << 33;

/// Makes [`FirstWindow`]s over CUBIC.
#[derive(Debug, Default)]
pub(super) struct FirstWindows;

impl ControllerFactory for FirstWindows {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(FIRST_WINDOW);
        Box::new(FirstWindow { sent: 0, then: Arc::new(cubic).build(now, mtu) })
    }
}

struct FirstWindow {
    /// Bytes sent so far.
    sent: u64,
    then: Box<dyn Controller>,
}

impl Controller for FirstWindow {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.sent = self.sent.saturating_add(bytes);
        self.then.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &quinn_proto::RttEstimator,
    ) {
        // In the first window it is the handshake that waits for the peer, not the application that has nothing to send.
        let app_limited = app_limited && self.sent >= FIRST_WINDOW;
        self.then.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.then.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        // What is lost in the first window ends it.
        self.sent = self.sent.max(FIRST_WINDOW);
        self.then.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.then.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.sent < FIRST_WINDOW { UNPACED } else { self.then.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.then.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { sent: self.sent, then: self.then.clone_box() })
    }

    fn initial_window(&self) -> u64 {
        self.then.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

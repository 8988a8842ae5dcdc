//! What the transport counts: traffic, and every reason for a refusal.

use std::sync::Arc;

use x0x_core::{Counter, Gauge, Metric, StreamClass};
use x0x_identity::BindingError;

use crate::{
    dialback::DialBackMetrics, error::DialError, frame::FrameError, punch::PunchMetrics,
    relay::RelayMetrics, sock::prober::ProbeMetrics, wire::HelloError,
};

macro_rules! metrics {
    (counters { $($counter:ident = $help:literal,)* }) => {
        /// Counters of one node.
        #[derive(Debug, Default)]
        #[non_exhaustive]
        pub struct TransportMetrics {
            /// Sessions that are up.
            pub sessions: Gauge,
            /// Of these, sessions that go by a relay.
            pub sessions_by_relay: Gauge,
            /// Sessions whose packets go over TCP.
            pub sessions_by_stream: Gauge,
            /// Addresses that could not be reached and are left alone for a while.
            pub addresses_failed: Gauge,
            /// Traffic of each class, in the order of their wire numbers.
            pub classes: [ClassMetrics; 4],
            /// Probes of paths.
            pub probes: Arc<ProbeMetrics>,
            /// Agreements to send at once.
            pub punches: Arc<PunchMetrics>,
            /// Relays.
            pub relay: Arc<RelayMetrics>,
            /// Questions whether machines are reachable.
            pub dial_backs: Arc<DialBackMetrics>,
            $(#[doc = $help] pub $counter: Counter,)*
        }

        impl TransportMetrics {
            /// All values now.
            #[must_use]
            pub fn snapshot(&self) -> Vec<Metric> {
                let mut all = vec![
                    self.sessions.metric("transport_sessions", "Sessions that are up."),
                    self.sessions_by_relay
                        .metric("transport_sessions_by_relay", "Sessions that go by a relay now."),
                    self.sessions_by_stream
                        .metric("transport_sessions_by_stream", "Sessions that go over TCP now."),
                    self.addresses_failed.metric(
                        "transport_addresses_failed",
                        "Addresses that could not be reached and are left alone for a while.",
                    ),
                    $(self.$counter.metric(concat!("transport_", stringify!($counter)), $help),)*
                ];
                for (class, names) in self.classes.iter().zip(&CLASS_NAMES) {
                    class.snapshot(names, &mut all);
                }
                all.extend(self.probes.snapshot());
                all.extend(self.punches.snapshot());
                all.extend(self.relay.snapshot());
                all.extend(self.dial_backs.snapshot());
                all
            }
        }
    };
}

metrics! {
    counters {
        sessions_opened = "Sessions opened.",
        sessions_began_direct = "Sessions that began on a direct path that nobody helped to find.",
        sessions_began_punched = "Sessions that this machine opened at an address found with the help of others.",
        sessions_began_relayed = "Sessions that began by way of a relay.",
        sessions_began_by_stream = "Sessions that began in a stream of packets.",
        dials_by_stream = "Addresses dialled by a stream of packets.",
        sessions_lost = "Sessions ended by the peer or the path.",
        sessions_moved_early = "Sessions that began over another link than the one that the peer took.",
        sessions_replaced = "Sessions replaced by a later link of the same peer.",
        sessions_contested = "Sessions soon replaced at the peer, again and again: as by another process with the same keys.",
        sessions_idle_closed = "Sessions closed because they were idle and too many.",
        sessions_expelled = "Sessions cut off because who is behind them is refused.",
        sessions_evicted = "Idle sessions closed to make room for others.",
        holds_refused = "Sessions not held because too many are.",
        links_duplicate = "Links closed because the peer had a session.",
        links_refused_limit = "Links closed because there were too many.",
        links_evicted = "Links given up for later ones before they became a session.",
        links_other_network = "Dialled links that the peer closed: it is of another network or protocol version.",
        links_timed_out = "Links that did not become a session in time.",
        hellos_refused_version = "Hellos of another protocol version.",
        hellos_refused_network = "Hellos of another network.",
        hellos_refused_binding = "Hellos with a binding that does not hold.",
        hellos_refused_expired = "Hellos with a binding outside its validity.",
        hellos_refused_policy = "Hellos of machines whose keys are revoked.",
        hellos_refused_malformed = "Hellos that are malformed or too large.",
        addresses_refused = "Addresses that a peer claims and that are not remembered.",
        control_refused = "Control messages that are malformed, too large or out of turn.",
        control_unknown = "Control messages of a kind unknown to this build, skipped.",
        control_replies_dropped = "Answers and reports not queued to a slow peer.",
        frames_too_large = "Frames over their class's limit.",
        frames_stalled = "Large frames that stopped arriving.",
        frames_slow = "Large frames that took too long while others waited for memory.",
        frames_unplaced = "Large frames given up because there was no memory for them in time.",
        frames_wrong_class = "Frames of a protocol of another class.",
        frames_unknown_protocol = "Frames of a protocol unknown to this build, skipped.",
        frames_unclaimed = "Messages dropped because their protocol has no consumer.",
        streams_refused = "Streams of a class that the peer had opened already.",
        streams_given_up = "Links closed because the peer gave up a stream and stayed.",
        streams_unknown_class = "Streams of a class unknown to this build, dropped.",
        dials = "Addresses dialled.",
        dials_replacing = "Dials repeated to replace a session that the peer still holds.",
        dials_given_up = "Dials ended because nobody waited for them any more.",
        dial_failures_timeout = "Connects without an answer in time.",
        dial_failures_misbehaved = "Connects to a peer that was refused.",
        dial_failures_closed = "Connects closed by the peer.",
        dial_failures_backoff = "Connects refused because the peer failed recently.",
        dial_failures_limit = "Connects refused by a limit.",
        dial_failures_other = "Connects without a usable address, or after the end.",
        paths_silent = "Sessions that sent without hearing anything, and were probed for a path that works.",
        addresses_changed = "Times that this machine's addresses changed.",
        paths_changed = "Sessions that moved to another address of their peer.",
        paths_upgraded = "Sessions that moved from a relay to a direct path.",
        paths_fell_back = "Sessions that moved from a direct path to a relay.",
        reconnects = "Attempts to reopen a lost session.",
        reconnects_given_up = "Lost sessions that were not reopened.",
        sends_busy = "Messages refused because the peer's queue was full.",
    }
}

/// Traffic of one stream class.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ClassMetrics {
    /// Messages written.
    pub messages_sent: Counter,
    /// Bytes of these, without headers.
    pub bytes_sent: Counter,
    /// Messages read.
    pub messages_received: Counter,
    /// Bytes of these, without headers.
    pub bytes_received: Counter,
}

struct ClassNames {
    messages_sent: &'static str,
    bytes_sent: &'static str,
    messages_received: &'static str,
    bytes_received: &'static str,
}

macro_rules! class_names {
    ($($class:literal),*) => {
        [$(ClassNames {
            messages_sent: concat!("transport_", $class, "_messages_sent"),
            bytes_sent: concat!("transport_", $class, "_bytes_sent"),
            messages_received: concat!("transport_", $class, "_messages_received"),
            bytes_received: concat!("transport_", $class, "_bytes_received"),
        }),*]
    };
}

const CLASS_NAMES: [ClassNames; 4] = class_names!("control", "direct", "gossip", "bulk");

impl ClassMetrics {
    fn snapshot(&self, names: &ClassNames, all: &mut Vec<Metric>) {
        all.push(self.messages_sent.metric(names.messages_sent, "Messages written."));
        all.push(self.bytes_sent.metric(names.bytes_sent, "Bytes of messages written."));
        all.push(self.messages_received.metric(names.messages_received, "Messages read."));
        all.push(self.bytes_received.metric(names.bytes_received, "Bytes of messages read."));
    }
}

impl TransportMetrics {
    /// The counters of a class.
    #[must_use]
    pub fn class(&self, class: StreamClass) -> &ClassMetrics {
        &self.classes[class as usize % self.classes.len()]
    }

    /// Counts a failed connect by its reason.
    pub fn count_dial_failure(&self, error: &DialError) {
        match error {
            DialError::Timeout => &self.dial_failures_timeout,
            DialError::PeerMisbehaved(_) => &self.dial_failures_misbehaved,
            DialError::ClosedByPeer(_) => &self.dial_failures_closed,
            DialError::BackingOff { .. } => &self.dial_failures_backoff,
            DialError::Limit { .. } => &self.dial_failures_limit,
            DialError::NoAddress | DialError::OwnAddress | DialError::Closed => {
                &self.dial_failures_other
            }
        }
        .inc();
    }

    /// Counts a refused hello by its reason.
    pub fn count_hello_refusal(&self, error: &HelloError) {
        match error {
            HelloError::Version(_) => &self.hellos_refused_version,
            HelloError::Network => &self.hellos_refused_network,
            HelloError::Binding(BindingError::Expired | BindingError::NotYetValid) => {
                &self.hellos_refused_expired
            }
            HelloError::Binding(_) => &self.hellos_refused_binding,
            HelloError::Refused => &self.hellos_refused_policy,
        }
        .inc();
    }

    /// Counts a broken stream by its reason.
    pub fn count_frame_refusal(&self, error: FrameError) {
        match error {
            FrameError::TooLarge { .. } => &self.frames_too_large,
            FrameError::WrongClass { .. } => &self.frames_wrong_class,
        }
        .inc();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own() {
        let metrics = TransportMetrics::default();
        metrics.class(StreamClass::Bulk).bytes_sent.add(5);
        metrics.count_hello_refusal(&HelloError::Binding(BindingError::Expired));
        let all = metrics.snapshot();
        let names: BTreeSet<_> = all.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), all.len());
        let value = |name| all.iter().find(|m| m.name == name).map(|m| m.value);
        assert_eq!(value("transport_bulk_bytes_sent"), Some(5));
        assert_eq!(value("transport_hellos_refused_expired"), Some(1));
    }
}

//! What can be tuned about sessions, with the reasons for the defaults.

use std::time::Duration;

use x0x_core::{Protocol, StreamClass};

use crate::{frame::MAX_PARTIAL, relay::RelayConfig};

/// Most live sessions. Each may pin several megabytes.
pub const MAX_SESSIONS: usize = 256;
/// Most dials in flight, each racing one peer's addresses.
pub const MAX_DIALS: usize = 32;
/// Most dials that wait for one of these.
pub const MAX_QUEUED_DIALS: usize = 64;
/// Most callers that share one dial.
pub const MAX_WAITERS: usize = 256;
/// Most links that are not sessions yet; the oldest accepted one gives way.
pub const MAX_PENDING_LINKS: usize = 256;
/// Most of these from one peer. Both ends dial at most twice each, so an honest peer stays below.
pub const MAX_PENDING_PER_PEER: usize = 8;
/// Most of these from one network (/24 of IPv4, /56 of IPv6); twice as many from one /48 of IPv6.
pub const MAX_PENDING_PER_NETWORK: usize = 32;
/// Most of these from one address of the link or site, where networks are not told apart, and most
/// sessions opened from there: many machines may share it.
pub const MAX_PER_HOST: usize = 64;
/// Most failed addresses remembered; the one whose back-off ends first is forgotten.
pub const MAX_BACKOFFS: usize = 4096;
/// Most peers whose sessions are held; further ones may be closed like any other.
pub const MAX_HELD: usize = 1024;
/// Most lost sessions that are being reopened; further ones are left to the layers above.
pub const MAX_RECONNECTS: usize = 256;

/// Caps of one peer's queue for one stream class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueCaps {
    /// Messages.
    pub messages: usize,
    /// Bytes of these together. One larger message is taken by an empty queue.
    pub bytes: usize,
}

/// Limits and times of sessions.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionConfig {
    /// Most live sessions, at most [`MAX_SESSIONS`].
    pub max_sessions: usize,
    /// Most of these that machines of one network (/24 of IPv4, /56 of IPv6) opened; twice as many from
    /// one /48 of IPv6, and [`MAX_PER_HOST`] from one address of the link or site. Loopback is exempt,
    /// and so is who is held or was dialled by choice.
    pub max_sessions_per_network: usize,
    /// Most sessions that may lie idle: held by no layer, and without a message of any class but
    /// control for [`idle_after`](Self::idle_after). Beyond them those idle for longest are closed.
    /// Some are worth their keep-alive, one packet in seven seconds: they are the quickest way back
    /// to peers met before.
    pub idle_soft_cap: usize,
    /// When a session that no layer holds counts as idle. One that is idle also makes room for
    /// a newcomer when a limit of sessions is reached.
    pub idle_after: Duration,
    /// From link to session. A hello with eight bindings over a slow path takes a few round trips.
    pub hello_deadline: Duration,
    /// From the first address tried to the session, a whole race included.
    pub dial_deadline: Duration,
    /// Head start of each address over the next: longer than most paths' handshake, so that a good
    /// first address stays alone.
    pub dial_stagger: Duration,
    /// How long a dial of a known peer is on its own before others are asked for help: most that succeed
    /// by themselves have done so.
    pub punch_after: Duration,
    /// How long such a dial is without a link before a peer of both is asked to relay: most that are helped to
    /// a direct path have it by then, and a relayed session moves to one that is found later.
    pub relay_after: Duration,
    /// How long a dial is without a link before its addresses are tried by streams of packets, too, if no session
    /// shows that UDP passes: long enough for three packets to get lost.
    pub stream_after: Duration,
    /// How long a dialler refused as a duplicate waits for the session that the arbiter kept.
    pub duplicate_wait: Duration,
    /// First back-off after a failed dial; doubles with each failure.
    pub backoff_min: Duration,
    /// Longest back-off.
    pub backoff_max: Duration,
    /// Wait before the dialled end tries to reopen a lost session: the dialler goes first.
    pub acceptor_reconnect_delay: Duration,
    /// Failed attempts after which a lost session is given up.
    pub reconnect_attempts: u32,
    /// Time after which a lost session is given up.
    pub reconnect_for: Duration,
    /// Per peer: probes, membership and the session's own messages. Small, so that what is
    /// queued is still fresh when sent.
    pub control_queue: QueueCaps,
    /// Per peer: direct messages, whose senders can wait.
    pub direct_queue: QueueCaps,
    /// Per peer: gossip; the layer above slows down at Busy.
    pub gossip_queue: QueueCaps,
    /// Per peer: files and snapshots, in large pieces.
    pub bulk_queue: QueueCaps,
    /// Events waiting for a protocol's consumer; then its streams are not read any further.
    pub inbound_events: usize,
    /// Bytes of messages waiting for a protocol's consumer, all peers together.
    pub inbound_bytes: usize,
    /// Bytes of direct messages over [`FREE_ASSEMBLY`](crate::frame::FREE_ASSEMBLY) that are being
    /// put together, all peers together: eight of the largest. At least one always fits.
    pub direct_assembly_bytes: usize,
    /// The same for each of the other classes: sixteen of the largest gossip.
    pub assembly_bytes: usize,
    /// How long the end of a session waits until the peer has all that was queued for it.
    pub drain_deadline: Duration,
    /// How often a changed address of a peer is looked for, to tell it.
    pub observe_interval: Duration,
    /// How often it is looked for sessions that hear nothing, while anything is sent; with
    /// [`observe_interval`](Self::observe_interval) while nothing is. Retransmissions double their distance
    /// meanwhile, so the gap in a transfer is about twice as long.
    pub path_check_interval: Duration,
    /// For how long a session may send without hearing anything before its peer is probed: longer than
    /// nearly all round trips, and short against the idle timeout.
    pub path_silence: Duration,
    /// What this machine relays, and has relayed.
    pub relay: RelayConfig,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            max_sessions: MAX_SESSIONS,
            max_sessions_per_network: 32,
            idle_soft_cap: 16,
            idle_after: Duration::from_secs(30),
            hello_deadline: Duration::from_secs(6),
            dial_deadline: Duration::from_secs(15),
            dial_stagger: Duration::from_millis(150),
            punch_after: Duration::from_millis(300),
            relay_after: Duration::from_millis(700),
            stream_after: Duration::from_secs(2),
            duplicate_wait: Duration::from_secs(1),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(300),
            acceptor_reconnect_delay: Duration::from_secs(2),
            reconnect_attempts: 10,
            reconnect_for: Duration::from_secs(600),
            control_queue: QueueCaps { messages: 256, bytes: 256 * 1024 },
            direct_queue: QueueCaps { messages: 256, bytes: 4 * 1024 * 1024 },
            gossip_queue: QueueCaps { messages: 512, bytes: 2 * 1024 * 1024 },
            bulk_queue: QueueCaps { messages: 16, bytes: 8 * 1024 * 1024 },
            inbound_events: 1024,
            inbound_bytes: 32 * 1024 * 1024,
            direct_assembly_bytes: 8 * StreamClass::Direct.max_message(),
            assembly_bytes: 16 * 1024 * 1024,
            drain_deadline: Duration::from_secs(1),
            observe_interval: Duration::from_secs(10),
            path_check_interval: Duration::from_millis(500),
            path_silence: Duration::from_secs(1),
            relay: RelayConfig::default(),
        }
    }
}

impl SessionConfig {
    /// The bytes of a class's large messages that are being put together.
    #[must_use]
    pub const fn assembly(&self, class: StreamClass) -> usize {
        match class {
            StreamClass::Direct => self.direct_assembly_bytes,
            _ => self.assembly_bytes,
        }
    }

    /// Most bytes from peers that this machine holds unread: what `window` unread bytes on each link
    /// of a session allow, a part of a message on each of its streams, the large messages that are
    /// being put together, and what waits for consumers.
    #[must_use]
    pub const fn memory_bound(&self, window: usize) -> usize {
        let streams = StreamClass::ALL.len();
        let consumers = Protocol::ALL.len() - 1;
        self.max_sessions * (window + streams * MAX_PARTIAL)
            + self.direct_assembly_bytes
            + (streams - 1) * self.assembly_bytes
            + consumers * self.inbound_bytes
    }

    /// The caps of a class's queues.
    #[must_use]
    pub const fn queue(&self, class: StreamClass) -> QueueCaps {
        match class {
            StreamClass::Control => self.control_queue,
            StreamClass::Direct => self.direct_queue,
            StreamClass::Gossip => self.gossip_queue,
            _ => self.bulk_queue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_memory_is_bounded() {
        let all = SessionConfig::default();
        let mut one_network = all.clone();
        one_network.max_sessions = all.max_sessions_per_network;
        let mib = |config: &SessionConfig| config.memory_bound(4 << 20) >> 20;
        // Of which each protocol that somebody reads takes 32.
        assert!(mib(&all) <= 2048 && mib(&one_network) <= 672, "{}", mib(&all));
    }
}

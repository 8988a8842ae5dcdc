//! How this machine is reached, and how it reaches others.

use std::{net::SocketAddr, time::Duration};

use x0x_core::MachineId;
use x0x_gossip_membership::cache::CachedPeer;
use x0x_transport::{Reach, ReachClass, Transport, error::SendError};

use crate::Agent;

/// Longest wait for the answer to a probe.
pub const MAX_PROBE_TIME: Duration = Duration::from_secs(30);

/// What became of the agreements to send at once in which this machine took part, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Punches {
    /// Peers that were reached so.
    pub found: u64,
    /// Peers that were not.
    pub failed: u64,
    /// Agreements that it brought about between others.
    pub coordinated: u64,
}

/// What this machine relays for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Relaying {
    /// Whether it would.
    pub enabled: bool,
    /// Pairs of machines whose packets it forwards now.
    pub pairs: u64,
    /// Bytes that it forwarded since the start.
    pub bytes_forwarded: u64,
}

/// A probe got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// There is no session with the peer, or it ended meanwhile.
    #[error("no session with this machine")]
    NotConnected,
    /// The peer's queue is full: the path is slow, or the peer is.
    #[error("the session is busy")]
    Busy,
    /// No answer came in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// Where others are told to dial this machine: addresses that peers confirmed, and those of its socket.
pub(crate) fn told_addresses(transport: &dyn Transport) -> Vec<SocketAddr> {
    let record = transport.record();
    let mut told = record.map_or_else(Vec::new, |signed| signed.record().addresses.clone());
    for address in transport.local_addresses() {
        if !told.contains(&address) {
            told.push(address);
        }
    }
    told
}

impl Agent {
    /// How this machine is reached, as its peers let it know.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.inner.node.reach()
    }

    /// Where others are told to dial this machine, best first.
    #[must_use]
    pub fn told_addresses(&self) -> Vec<SocketAddr> {
        told_addresses(&*self.inner.node)
    }

    /// What became of agreements to send at once.
    #[must_use]
    pub fn punches(&self) -> Punches {
        let punches = &self.inner.node.metrics().punches;
        Punches {
            found: punches.found.value(),
            failed: punches.failed.value(),
            coordinated: punches.forwarded.value(),
        }
    }

    /// What this machine relays for others.
    #[must_use]
    pub fn relaying(&self) -> Relaying {
        let relay = &self.inner.node.metrics().relay;
        Relaying {
            enabled: self.inner.relays,
            pairs: relay.opened.value().saturating_sub(relay.closed.value()),
            bytes_forwarded: relay.forwarded_bytes.value(),
        }
    }

    /// Machines found on the links of this one since the start; nothing where they are not looked for.
    #[must_use]
    pub fn found_on_links(&self) -> Option<u64> {
        self.inner.lan.as_ref().map(|lan| lan.found.value())
    }

    /// How a machine says of itself, in its signed record, that it is reached; unknown where no record of
    /// it came here.
    pub async fn reach_of(&self, machine: MachineId) -> ReachClass {
        // A membership that is shut down knows nobody.
        let known = self.inner.membership.known().await.unwrap_or_default();
        let known = known.iter().find(|peer| peer.id() == machine);
        known.map_or(ReachClass::Unknown, |peer| peer.hint().reach)
    }

    /// Packets that came over the session with a machine so far; nothing without a session.
    #[must_use]
    pub fn packets_received(&self, machine: MachineId) -> Option<u64> {
        self.inner.node.received(machine)
    }

    /// The round trip to a machine over its session and back, the queues of both ends included.
    ///
    /// # Errors
    /// [`ProbeError`]; `patience` counts up to [`MAX_PROBE_TIME`].
    pub async fn probe(
        &self,
        machine: MachineId,
        patience: Duration,
    ) -> Result<Duration, ProbeError> {
        let patience = patience.min(MAX_PROBE_TIME);
        match tokio::time::timeout(patience, self.inner.node.ping(machine)).await {
            Ok(Ok(rtt)) => Ok(rtt),
            Ok(Err(SendError::Busy)) => Err(ProbeError::Busy),
            Ok(Err(_)) => Err(ProbeError::NotConnected),
            Err(_) => Err(ProbeError::Timeout(patience)),
        }
    }

    /// The machines that are remembered over a restart, those dialled first at the next start first.
    pub async fn cached_peers(&self) -> Vec<CachedPeer> {
        self.inner.membership.cached().await.unwrap_or_default()
    }

    /// Names of the key exchange groups that this machine accepts, preferred ones first. Every session
    /// uses one of them.
    #[must_use]
    pub fn key_exchange_groups(&self) -> &'static [&'static str] {
        x0x_transport::quic::key_exchange_groups(self.inner.pure_pq)
    }
}

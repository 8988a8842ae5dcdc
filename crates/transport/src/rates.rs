//! How often each peer may ask something of this machine.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{MachineId, Tick, TokenBucket};

/// Peers whose rates are counted. Those that asked nothing lately are forgotten first; more are refused until
/// some are.
pub(crate) const MAX_RATES: usize = 512;

/// A token bucket for each peer.
#[derive(Debug)]
pub(crate) struct PeerRates {
    burst: u32,
    refill: Duration,
    /// Each with when it was used last.
    peers: BTreeMap<MachineId, (Tick, TokenBucket)>,
}

impl PeerRates {
    /// So many at once for each peer, and one more in each `refill`.
    pub(crate) const fn new(burst: u32, refill: Duration) -> Self {
        Self { burst, refill, peers: BTreeMap::new() }
    }

    /// Whether the peer may ask now, which counts.
    pub(crate) fn take(&mut self, now: Tick, peer: MachineId) -> bool {
        if self.peers.len() >= MAX_RATES && !self.peers.contains_key(&peer) {
            let full_after = self.refill * self.burst;
            self.peers.retain(|_, (used, _)| now.since(*used) < full_after);
            if self.peers.len() >= MAX_RATES {
                return false;
            }
        }
        let fresh = || (now, TokenBucket::new(self.burst, self.refill, now));
        let (used, bucket) = self.peers.entry(peer).or_insert_with(fresh);
        *used = now;
        bucket.take(now)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }
}

//! Peers that were just lost: gossip about them is not believed for a while, and those that were
//! neighbours once are dialled again when nobody better is known.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{MachineId, Tick};

use crate::peer::Peer;

/// Most lost peers remembered. Those that never were neighbours are forgotten first, then the
/// oldest.
pub const MAX_LOST: usize = 256;

#[derive(Debug, Clone)]
struct Lost {
    peer: Peer,
    denied_until: Tick,
    /// Next dial and the pause after it, for a former neighbour.
    retry: Option<(Tick, Duration)>,
    /// Grows with each entry.
    order: u64,
}

/// The deny list and last resort.
#[derive(Debug, Clone, Default)]
pub(crate) struct LostPeers {
    peers: BTreeMap<MachineId, Lost>,
    inserted: u64,
}

impl LostPeers {
    /// Notes a peer that could not be reached, or whose session ended. Without new retries those of
    /// a former neighbour stay, with its addresses: a dial to where others say that it is may fail.
    pub(crate) fn insert(
        &mut self,
        peer: Peer,
        denied_until: Tick,
        retry: Option<(Tick, Duration)>,
    ) {
        let former = self.peers.remove(&peer.id()).filter(|lost| lost.retry.is_some());
        if self.peers.len() >= MAX_LOST {
            let eldest = self.peers.values().min_by_key(|lost| (lost.retry.is_some(), lost.order));
            if let Some(id) = eldest.map(|lost| lost.peer.id()) {
                self.peers.remove(&id);
            }
        }
        let (peer, retry) = match (retry, former) {
            (None, Some(former)) => (former.peer, former.retry),
            (retry, _) => (peer, retry),
        };
        let retry = retry.filter(|_| peer.is_dialable());
        self.inserted += 1;
        let order = self.inserted;
        self.peers.insert(peer.id(), Lost { peer, denied_until, retry, order });
    }

    /// Forgets a peer: it is back. False when it was not lost.
    pub(crate) fn forget(&mut self, id: MachineId) -> bool {
        self.peers.remove(&id).is_some()
    }

    /// A former neighbour that is to be dialled again.
    pub(crate) fn former(&self, id: MachineId) -> Option<&Peer> {
        self.peers.get(&id).filter(|lost| lost.retry.is_some()).map(|lost| &lost.peer)
    }

    /// Whether gossip about this peer is not believed now.
    pub(crate) fn denies(&self, id: MachineId, now: Tick) -> bool {
        self.peers.get(&id).is_some_and(|lost| lost.denied_until > now)
    }

    /// The former neighbour whose turn came first, if it came.
    pub(crate) fn ready(&self, now: Tick, busy: impl Fn(MachineId) -> bool) -> Option<&Peer> {
        let waiting = self.waiting(busy).filter(|(at, _)| *at <= now);
        waiting.min_by_key(|(at, _)| *at).map(|(_, peer)| peer)
    }

    /// When the next former neighbour may be dialled.
    pub(crate) fn next_ready(&self, busy: impl Fn(MachineId) -> bool) -> Option<Tick> {
        self.waiting(busy).map(|(at, _)| at).min()
    }

    /// Puts off the next dial of a former neighbour; the pause doubles up to `max`.
    pub(crate) fn defer(&mut self, id: MachineId, now: Tick, max: Duration) {
        if let Some(lost) = self.peers.get_mut(&id)
            && let Some((next, pause)) = &mut lost.retry
        {
            *next = now + *pause;
            *pause = pause.saturating_mul(2).min(max);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    fn waiting(&self, busy: impl Fn(MachineId) -> bool) -> impl Iterator<Item = (Tick, &Peer)> {
        let waiting = self.peers.values().filter_map(|lost| Some((lost.retry?.0, &lost.peer)));
        waiting.filter(move |(_, peer)| !busy(peer.id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u16) -> Peer {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        Peer::new(MachineId::new(id), [std::net::SocketAddr::from(([10, 0, 0, 1], n + 1))])
    }

    #[test]
    fn former_neighbours_outlive_strangers() {
        let mut lost = LostPeers::default();
        let soon = Some((Tick::from_millis(5), Duration::from_secs(1)));
        lost.insert(peer(0), Tick::from_millis(10), soon);
        (1..1000).for_each(|n| lost.insert(peer(n), Tick::from_millis(10), None));
        assert_eq!(lost.len(), MAX_LOST);
        assert!(lost.denies(peer(0).id(), Tick::from_millis(9)));
        assert!(!lost.denies(peer(0).id(), Tick::from_millis(10)));
        assert_eq!(lost.ready(Tick::from_millis(4), |_| false), None);
        assert_eq!(lost.ready(Tick::from_millis(5), |_| false), Some(&peer(0)));
        assert_eq!(lost.ready(Tick::from_millis(5), |_| true), None);
    }

    #[test]
    fn a_retry_survives_a_failed_dial_and_backs_off() {
        let mut lost = LostPeers::default();
        let second = Duration::from_secs(1);
        lost.insert(peer(1), Tick::ZERO, Some((Tick::ZERO, second)));
        lost.defer(peer(1).id(), Tick::ZERO, 2 * second);
        let elsewhere = Peer::new(peer(1).id(), peer(2).addresses().iter().copied());
        lost.insert(elsewhere, Tick::from_millis(60), None);
        assert_eq!(lost.former(peer(1).id()), Some(&peer(1)), "where it was");
        assert_eq!(lost.next_ready(|_| false), Some(Tick::ZERO + second));
        lost.defer(peer(1).id(), Tick::ZERO, 2 * second);
        lost.defer(peer(1).id(), Tick::ZERO, 2 * second);
        assert_eq!(lost.next_ready(|_| false), Some(Tick::ZERO + 2 * second));
        assert!(lost.forget(peer(1).id()) && !lost.forget(peer(1).id()));
        assert_eq!(lost.len(), 0);
    }
}

//! The streams that are open, by the addresses that stand for them.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use x0x_core::MachineId;

use super::StreamMetrics;
use crate::{link::Side, prefix::Prefix, sock::table::streamed_address};

/// Most streams that peers opened; further ones are refused.
pub(in crate::engine) const MAX_ACCEPTED: usize = 256;
/// Most of these of one network (/24 of IPv4, /56 of IPv6). Loopback is exempt.
const MAX_PER_NETWORK: usize = 32;
/// Most of these of one machine; the oldest gives way, since a machine that comes again has lost it.
const MAX_PER_PEER: usize = 2;
/// Most streams that this machine opened; further ones are not.
pub(in crate::engine) const MAX_DIALLED: usize = 16;
/// Packets that wait for a stream, 375 KB; more are lost, as on any path that is too narrow.
pub(in crate::engine) const MAX_QUEUED: usize = 256;

/// Why a stream is not taken. It is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Refused {
    Own,
    Total,
    Network,
}

struct Entry {
    peer: MachineId,
    remote: SocketAddr,
    side: Side,
    /// Counts streams: the smaller is the older.
    number: u32,
    queue: mpsc::Sender<Bytes>,
    linked: Arc<AtomicBool>,
    over: CancellationToken,
}

/// A new stream, for the task that serves it.
#[derive(Debug)]
pub(in crate::engine) struct Open {
    /// What stands for it.
    pub(in crate::engine) address: SocketAddr,
    /// Packets for it.
    pub(in crate::engine) queue: mpsc::Receiver<Bytes>,
    /// Whether a link was made over it.
    pub(in crate::engine) linked: Arc<AtomicBool>,
    /// Its end, from either side.
    pub(in crate::engine) over: CancellationToken,
}

#[derive(Default)]
struct Inner {
    open: HashMap<SocketAddr, Entry>,
    last: u32,
}

/// All open streams of an engine.
pub(in crate::engine) struct StreamTable {
    inner: RwLock<Inner>,
    /// Numbers networks in a way that nobody can choose.
    hasher: RandomState,
    pub(in crate::engine) metrics: Arc<StreamMetrics>,
}

impl std::fmt::Debug for StreamTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamTable").finish_non_exhaustive()
    }
}

impl StreamTable {
    pub(in crate::engine) fn new(metrics: Arc<StreamMetrics>) -> Self {
        Self { inner: RwLock::default(), hasher: RandomState::new(), metrics }
    }

    /// Takes a stream.
    pub(in crate::engine) fn insert(
        &self,
        peer: MachineId,
        remote: SocketAddr,
        side: Side,
    ) -> Result<Open, Refused> {
        let network = Prefix::of(remote.ip());
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let same = inner.open.iter().filter(|(_, entry)| entry.side == side);
        let of_peer: Vec<_> = same
            .clone()
            .filter(|(_, entry)| entry.peer == peer)
            .map(|(address, entry)| (entry.number, *address))
            .collect();
        // One that is replaced makes the room for the other.
        let replaced = of_peer.iter().min().filter(|_| of_peer.len() >= MAX_PER_PEER).copied();
        let kept = same.filter(|(address, _)| Some(**address) != replaced.map(|(_, at)| at));
        let most = if side == Side::Dialer { MAX_DIALLED } else { MAX_ACCEPTED };
        if kept.clone().count() >= most {
            self.metrics.refused.inc();
            return Err(Refused::Total);
        }
        let near = kept.filter(|(_, entry)| Prefix::of(entry.remote.ip()) == network).count();
        if side == Side::Acceptor && near >= MAX_PER_NETWORK && !remote.ip().is_loopback() {
            self.metrics.refused_network.inc();
            return Err(Refused::Network);
        }
        if let Some(old) = replaced.and_then(|(_, address)| inner.open.remove(&address)) {
            self.metrics.replaced.inc();
            old.over.cancel();
        }
        let number = self.hasher.hash_one(network) as u16;
        let address = loop {
            inner.last = inner.last.wrapping_add(1);
            let address = streamed_address(number, inner.last);
            if !inner.open.contains_key(&address) {
                break address;
            }
        };
        let (sender, queue) = mpsc::channel(MAX_QUEUED);
        let (linked, over) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let entry = Entry {
            peer,
            remote,
            side,
            number: inner.last,
            queue: sender,
            linked: linked.clone(),
            over: over.clone(),
        };
        inner.open.insert(address, entry);
        Ok(Open { address, queue, linked, over })
    }

    /// Forgets a stream that is over.
    pub(in crate::engine) fn remove(&self, address: SocketAddr) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = inner.open.remove(&address) {
            entry.over.cancel();
        }
    }

    fn with<T>(&self, address: SocketAddr, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.open.get(&address).map(look)
    }

    /// Sends a packet. It may be lost.
    pub(in crate::engine) fn send(&self, to: SocketAddr, packet: &[u8]) {
        let sent = self.with(to, |entry| {
            let sent = entry.queue.try_send(Bytes::copy_from_slice(packet));
            if sent.is_err() {
                self.metrics.dropped_full.inc();
            }
        });
        if sent.is_none() {
            self.metrics.dropped_over.inc();
        }
    }

    /// Cancelled when the stream ends; `None` when it has, or never was.
    pub(in crate::engine) fn over(&self, address: SocketAddr) -> Option<CancellationToken> {
        self.with(address, |entry| entry.over.clone())
    }

    /// Where the other end of an open stream is.
    pub(in crate::engine) fn remote(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.with(address, |entry| entry.remote)
    }

    /// A link was made over a stream. False when it proved another machine, or the stream is over.
    pub(in crate::engine) fn confirm(&self, address: SocketAddr, peer: MachineId) -> bool {
        let right = self.with(address, |entry| {
            entry.linked.store(true, Ordering::Relaxed);
            entry.peer == peer
        });
        if right == Some(false) {
            self.metrics.wrong_peer.inc();
        }
        right == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> MachineId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        MachineId::new(id)
    }

    fn at(network: u8, host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, network, host], 9))
    }

    #[test]
    fn streams_are_bounded_by_network_machine_and_number() {
        let table = StreamTable::new(Arc::default());
        let insert = |n, remote| table.insert(id(n), remote, Side::Acceptor);
        let mut open: Vec<Open> =
            (0..32).map(|n| insert(n, at(1, n as u8)).expect("room")).collect();
        assert_eq!(insert(99, at(1, 99)).err(), Some(Refused::Network));
        let loopback = SocketAddr::from(([127, 0, 0, 1], 9));
        open.extend((100..200).map(|n| insert(n, loopback).expect("exempt")));

        let first = open[0].over.clone();
        open.push(insert(0, at(2, 1)).expect("room"));
        assert!(!first.is_cancelled());
        open.push(insert(0, at(2, 2)).expect("in the place of the oldest"));
        assert!(first.is_cancelled() && table.metrics.replaced.value() == 1);
        let mut n = 1000;
        while open.len() <= MAX_ACCEPTED {
            n += 1;
            let Ok(another) = insert(n, at((n % 200) as u8 + 3, 1)) else { break };
            open.push(another);
        }
        assert_eq!(open.len() - 1, MAX_ACCEPTED, "one was replaced");
        assert_eq!(insert(7000, at(250, 1)).err(), Some(Refused::Total));
        table.remove(open[5].address);
        assert!(open[5].over.is_cancelled() && insert(7000, at(250, 1)).is_ok());

        for n in 0..MAX_DIALLED as u16 {
            assert!(table.insert(id(n), at(3, 1), Side::Dialer).is_ok());
        }
        assert_eq!(table.insert(id(900), at(9, 1), Side::Dialer).err(), Some(Refused::Total));
    }

    #[test]
    fn what_a_stream_cannot_take_is_lost_and_nothing_more() {
        let table = StreamTable::new(Arc::default());
        let mut open = table.insert(id(1), at(1, 1), Side::Dialer).expect("room");
        for _ in 0..MAX_QUEUED + 3 {
            table.send(open.address, &[1]);
        }
        assert_eq!(table.metrics.dropped_full.value(), 3);
        assert!(open.queue.try_recv().is_ok());
        assert!(!table.confirm(open.address, id(2)) && table.confirm(open.address, id(1)));
        assert_eq!(table.remote(open.address), Some(at(1, 1)));
        table.remove(open.address);
        table.send(open.address, &[1]);
        assert_eq!(table.metrics.dropped_over.value(), 1);
        assert!(table.over(open.address).is_none() && !table.confirm(open.address, id(1)));
    }
}

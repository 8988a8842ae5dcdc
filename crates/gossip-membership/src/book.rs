//! Peers beyond the passive view: those that this node itself reached once, and those of whom it only
//! heard. The first table no stranger can write to; in the second, no one source of hearsay gets more
//! than a share, so that a flood of names does not wash the others out (E. Heilman et al., *Eclipse
//! attacks on Bitcoin's peer-to-peer network*, 2015).

use std::time::Duration;

use x0x_core::{MachineId, SeededRng, Tick};

use crate::{mix::mix, network::Network, peer::Peer};

/// Most peers that any configuration may remember as reached.
pub const MAX_TRIED: usize = 256;
/// Most peers that any configuration may remember from hearsay.
pub const MAX_HEARSAY: usize = 1024;

/// Buckets of hearsay.
pub(crate) const MAX_BUCKETS: usize = 64;
/// How many of them one source writes to: an eighth.
const BUCKETS_PER_SOURCE: u64 = 8;
/// Failed dials in a row after which a peer reached once is forgotten.
const MAX_FAILURES: u32 = 10;
/// Longest pause between them.
const MAX_PAUSE: Duration = Duration::from_secs(1800);

#[derive(Debug, Clone)]
struct Tried {
    peer: Peer,
    failures: u32,
    ready_at: Tick,
}

/// Where hearsay comes from, as far as one liar cannot change it at will: the teller's network, or on
/// the own site, the teller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source(u64);

impl Source {
    /// The source that a peer is.
    pub(crate) fn of(teller: MachineId, network: Option<Network>) -> Self {
        Self(
            network
                .map_or_else(|| mix(1, teller.as_bytes()), |n| mix(2, &n.number().to_le_bytes())),
        )
    }
}

/// The two tables.
#[derive(Debug, Clone)]
pub(crate) struct Book {
    secret: u64,
    tried_max: usize,
    bucket_max: usize,
    /// The one reached last comes last.
    tried: Vec<Tried>,
    hearsay: Vec<Vec<Peer>>,
    /// How many of these there are.
    heard: usize,
}

impl Book {
    /// Empty, with these caps.
    pub(crate) fn new(secret: u64, tried_max: usize, hearsay_max: usize) -> Self {
        let bucket_max = hearsay_max / MAX_BUCKETS;
        Self { secret, tried_max, bucket_max, tried: Vec::new(), hearsay: Vec::new(), heard: 0 }
    }

    /// This node reached a peer. When there are too many, the one reached first is forgotten.
    pub(crate) fn reached(&mut self, peer: Peer) {
        self.forget_hearsay(peer.id());
        self.tried.retain(|tried| tried.peer.id() != peer.id());
        if self.tried_max == 0 || !peer.is_dialable() {
            return;
        }
        if self.tried.len() >= self.tried_max {
            self.tried.remove(0);
        }
        self.tried.push(Tried { peer, failures: 0, ready_at: Tick::ZERO });
    }

    /// A peer could not be reached. One reached before is tried again after `pause`, longer each time.
    pub(crate) fn failed(&mut self, now: Tick, id: MachineId, pause: Duration) {
        self.forget_hearsay(id);
        let Some(place) = self.tried.iter().position(|tried| tried.peer.id() == id) else { return };
        let tried = &mut self.tried[place];
        let pause = pause.saturating_mul(1 << tried.failures.min(10));
        tried.ready_at = now + pause.min(MAX_PAUSE);
        tried.failures += 1;
        if tried.failures >= MAX_FAILURES {
            self.tried.remove(place);
        }
    }

    /// Notes what a source says of a peer that was not reached yet. Which bucket it goes to depends on
    /// both their networks and on the secret; a full one loses a random entry.
    pub(crate) fn hear(&mut self, source: Source, peer: &Peer, rng: &mut SeededRng) {
        if self.bucket_max == 0 || self.tried.iter().any(|tried| tried.peer.id() == peer.id()) {
            return;
        }
        if self.hearsay.is_empty() {
            self.hearsay.resize(MAX_BUCKETS, Vec::new());
        }
        let about = Source::of(peer.id(), Network::of_peer(peer));
        let pair = [source.0.to_le_bytes(), about.0.to_le_bytes()].concat();
        let row = mix(self.secret, &pair) % BUCKETS_PER_SOURCE;
        let cell = [source.0.to_le_bytes(), row.to_le_bytes()].concat();
        let bucket = &mut self.hearsay[(mix(self.secret, &cell) % MAX_BUCKETS as u64) as usize];
        if let Some(known) = bucket.iter_mut().find(|known| known.id() == peer.id()) {
            return known.hear(peer);
        }
        if bucket.len() >= self.bucket_max {
            bucket.swap_remove(rng.below(bucket.len()));
        } else {
            self.heard += 1;
        }
        bucket.push(peer.clone().first_heard());
    }

    /// Peers that were reached once, may be tried now, and suit.
    pub(crate) fn tried(&self, now: Tick, suits: impl Fn(&Peer) -> bool) -> Vec<&Peer> {
        let ready = self.tried.iter().filter(|tried| tried.ready_at <= now);
        ready.map(|tried| &tried.peer).filter(|peer| suits(peer)).collect()
    }

    /// Peers only heard of that suit, all of one bucket: the first that has any, from a given one on.
    /// So a source that fills few buckets does not get more than these few turns.
    pub(crate) fn hearsay(&self, first: usize, suits: impl Fn(&Peer) -> bool) -> Vec<&Peer> {
        let (before, after) = self.hearsay.split_at(first.min(self.hearsay.len()));
        let buckets = after.iter().chain(before);
        let suitable = buckets.map(|bucket| bucket.iter().filter(|p| suits(p)).collect());
        suitable.into_iter().find(|found: &Vec<&Peer>| !found.is_empty()).unwrap_or_default()
    }

    /// When the next peer that was reached once may be tried.
    pub(crate) fn next_ready(&self, suits: impl Fn(&Peer) -> bool) -> Option<Tick> {
        self.tried.iter().filter(|tried| suits(&tried.peer)).map(|tried| tried.ready_at).min()
    }

    /// The peers that were reached once.
    pub(crate) fn all_tried(&self) -> impl Iterator<Item = &Peer> {
        self.tried.iter().map(|tried| &tried.peer)
    }

    /// How many peers each table holds.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.tried.len(), self.heard)
    }

    fn forget_hearsay(&mut self, id: MachineId) {
        self.hearsay.iter_mut().for_each(|bucket| bucket.retain(|peer| peer.id() != id));
        self.heard = self.hearsay.iter().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn peer(n: u32) -> Peer {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        // A network of its own.
        let address = SocketAddr::from(((0x2000_0000 + (n << 8)).to_be_bytes(), 5483));
        Peer::new(MachineId::new(id), [address])
    }

    fn source(n: u32) -> Source {
        Source::of(peer(n).id(), Network::of_peer(&peer(n)))
    }

    fn book() -> Book {
        Book::new(7, MAX_TRIED, MAX_HEARSAY)
    }

    #[test]
    fn one_source_fills_at_most_its_share() {
        let (mut book, mut rng) = (book(), SeededRng::from_number(1));
        (1..=100).for_each(|n| book.hear(source(n), &peer(n), &mut rng));
        let honest = book.len().1;
        assert!(honest >= 95);
        // All from one /24, whoever says it.
        (1000..101_000).for_each(|n| book.hear(source(5), &peer(n), &mut rng));
        let (_, all) = book.len();
        assert!(all <= honest + MAX_HEARSAY / 8, "{all}");
        let left = (1..=100)
            .filter(|n| book.hearsay.iter().flatten().any(|known| known.id() == peer(*n).id()));
        assert!(left.count() >= 80, "most of the others are still there");
    }

    #[test]
    fn many_sources_fill_the_table_and_no_more() {
        let (mut book, mut rng) = (book(), SeededRng::from_number(2));
        (0..100_000).for_each(|n| book.hear(source(n), &peer(n), &mut rng));
        assert_eq!(book.len(), (0, MAX_HEARSAY));
        (0..1000).for_each(|n| book.reached(peer(n)));
        assert_eq!(book.len().0, MAX_TRIED);
        assert!(book.len().1 <= MAX_HEARSAY);
    }

    #[test]
    fn reached_peers_come_first_and_back_off_when_they_fail() {
        let (mut book, mut rng) = (book(), SeededRng::from_number(3));
        book.hear(source(1), &peer(9), &mut rng);
        book.reached(peer(1));
        let minute = Duration::from_secs(60);
        let mut now = Tick::ZERO;
        for round in 0..MAX_FAILURES {
            assert_eq!(book.tried(now, |_| true), [&peer(1)], "{round}");
            book.failed(now, peer(1).id(), minute);
            assert!(book.tried(now, |_| true).is_empty());
            let next = book.next_ready(|_| true);
            assert_eq!(next.is_none(), round + 1 == MAX_FAILURES, "forgotten in the end");
            now = next.unwrap_or(now);
        }
        assert_eq!(now, Tick::ZERO + minute * (1 + 2 + 4 + 8 + 16) + MAX_PAUSE * 4);
        assert_eq!(book.hearsay(60, |_| true), [&peer(9)], "whichever bucket it is in");
        assert!(book.hearsay(60, |_| false).is_empty());
        book.failed(now, peer(9).id(), minute);
        assert!(book.hearsay(0, |_| true).is_empty() && book.len() == (0, 0));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let (mut book, mut rng) = (Book::new(7, 0, 0), SeededRng::from_number(4));
        book.reached(peer(1));
        book.hear(source(1), &peer(2), &mut rng);
        assert_eq!(book.len(), (0, 0));
        assert!(book.tried(Tick::ZERO, |_| true).is_empty());
        assert!(book.hearsay(3, |_| true).is_empty());
    }
}

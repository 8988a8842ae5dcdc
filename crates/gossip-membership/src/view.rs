//! The two views of HyParView: few neighbours that are connected, many peers that are only known.

use x0x_core::{MachineId, SeededRng, Tick};
use x0x_transport::ReachClass;

use crate::{network::Network, peer::Peer};

/// Most neighbours that any configuration may ask for.
pub const MAX_ACTIVE: usize = 12;
/// Most passive peers that any configuration may ask for.
pub const MAX_PASSIVE: usize = 96;

/// The neighbours. Insertion order, so that a seed replays.
#[derive(Debug, Clone, Default)]
pub(crate) struct ActiveView(Vec<Peer>);

impl ActiveView {
    pub(crate) fn contains(&self, id: MachineId) -> bool {
        self.0.iter().any(|peer| peer.id() == id)
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = MachineId> {
        self.0.iter().map(Peer::id)
    }

    pub(crate) fn push(&mut self, peer: Peer) {
        debug_assert!(!self.contains(peer.id()) && self.0.len() < MAX_ACTIVE);
        self.0.push(peer);
    }

    /// What is known of a neighbour now.
    pub(crate) fn update(&mut self, peer: &Peer) {
        if let Some(known) = self.0.iter_mut().find(|known| known.id() == peer.id()) {
            known.clone_from(peer);
        }
    }

    /// Neighbours that can only be reached through a relay.
    pub(crate) fn relayed(&self) -> usize {
        self.0.iter().filter(|peer| peer.hint().reach == ReachClass::RelayOnly).count()
    }

    pub(crate) fn remove(&mut self, id: MachineId) -> Option<Peer> {
        let place = self.0.iter().position(|peer| peer.id() == id)?;
        Some(self.0.remove(place))
    }

    /// A uniformly chosen neighbour other than those in `except`.
    pub(crate) fn choose(&self, except: &[MachineId], rng: &mut SeededRng) -> Option<MachineId> {
        let others: Vec<MachineId> = self.ids().filter(|id| !except.contains(id)).collect();
        others.get(rng.below(others.len())).copied()
    }

    /// Up to `count` dialable neighbours in random order, `except` left out.
    pub(crate) fn sample(&self, count: usize, except: MachineId, rng: &mut SeededRng) -> Vec<Peer> {
        let known = self.0.iter().filter(|peer| peer.is_dialable() && peer.id() != except);
        pick(known.collect(), count, rng)
    }
}

/// Whose word the addresses of a peer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The peer's own, in a session where it proved its key.
    Session,
    /// That of others.
    Gossip,
}

/// Passive peers of one public network that are no crowd yet.
const CROWD: usize = 2;

/// A passive peer and when it may be asked to be a neighbour.
#[derive(Debug, Clone)]
struct Entry {
    peer: Peer,
    /// That of its first address.
    network: Option<Network>,
    source: Source,
    ready_at: Tick,
    refusals: u32,
}

/// Peers to replace a lost neighbour with.
#[derive(Debug, Clone)]
pub(crate) struct PassiveView {
    entries: Vec<Entry>,
    max: usize,
}

impl PassiveView {
    pub(crate) const fn new(max: usize) -> Self {
        Self { entries: Vec::new(), max }
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.entries.iter().map(|entry| &entry.peer)
    }

    pub(crate) fn contains(&self, id: MachineId) -> bool {
        self.entries.iter().any(|entry| entry.peer.id() == id)
    }

    /// Adds a peer, or what is new of one that is known: its own word replaces that of others, and
    /// is not touched by it. When the view is full, one of the network with most entries goes, if that
    /// is more than a few: else a flood of names from few networks would wash the others out. Of these,
    /// or of all, an entry of `sent` goes first (the other side of the shuffle has it now), else a
    /// random one.
    pub(crate) fn insert(
        &mut self,
        peer: Peer,
        source: Source,
        sent: &[MachineId],
        rng: &mut SeededRng,
    ) {
        if let Some(known) = self.entries.iter_mut().find(|e| e.peer.id() == peer.id()) {
            match (source, known.source) {
                (Source::Session, _) => {
                    known.network = Network::of_peer(&peer);
                    (known.peer, known.source) = (peer, source);
                }
                (Source::Gossip, Source::Gossip) => known.peer.hear(&peer),
                (Source::Gossip, Source::Session) => {}
            }
            return;
        }
        if self.entries.len() >= self.max {
            self.drop_one(sent, rng);
        }
        let peer = if source == Source::Gossip { peer.first_heard() } else { peer };
        let network = Network::of_peer(&peer);
        self.entries.push(Entry { peer, network, source, ready_at: Tick::ZERO, refusals: 0 });
    }

    fn drop_one(&mut self, sent: &[MachineId], rng: &mut SeededRng) {
        let crowd = self.crowd();
        let suits = |entry: &Entry| crowd.is_none() || entry.network == crowd;
        let places = self.entries.iter().enumerate().filter(|(_, entry)| suits(entry));
        let (sent, other): (Vec<_>, Vec<_>) =
            places.partition(|(_, entry)| sent.contains(&entry.peer.id()));
        let place = match sent.first() {
            Some((place, _)) => Some(*place),
            None => other.get(rng.below(other.len())).map(|(place, _)| *place),
        };
        if let Some(place) = place {
            self.entries.swap_remove(place);
        }
    }

    /// The network with most entries, if that is a crowd.
    fn crowd(&self) -> Option<Network> {
        let mut networks: Vec<Network> = self.entries.iter().filter_map(|e| e.network).collect();
        networks.sort_unstable();
        let groups = networks.chunk_by(|a, b| a == b);
        let largest = groups.max_by_key(|group| group.len())?;
        (largest.len() > CROWD).then(|| largest[0])
    }

    /// What a known peer says of itself now.
    pub(crate) fn update(&mut self, peer: &Peer) {
        if let Some(known) = self.entries.iter_mut().find(|e| e.peer.id() == peer.id()) {
            known.network = Network::of_peer(peer);
            (known.peer, known.source) = (peer.clone(), Source::Session);
        }
    }

    /// A known peer whose addresses are its own word.
    pub(crate) fn proven(&self, id: MachineId) -> Option<&Peer> {
        let proven = |entry: &&Entry| entry.peer.id() == id && entry.source == Source::Session;
        self.entries.iter().find(proven).map(|entry| &entry.peer)
    }

    pub(crate) fn remove(&mut self, id: MachineId) -> Option<Peer> {
        let place = self.entries.iter().position(|entry| entry.peer.id() == id)?;
        Some(self.entries.swap_remove(place).peer)
    }

    /// Leaves a peer alone until then, and counts it as a refusal.
    pub(crate) fn defer(&mut self, id: MachineId, until: Tick) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.peer.id() == id) {
            entry.ready_at = until;
            entry.refusals = entry.refusals.saturating_add(1);
        }
    }

    /// How often a peer has refused so far.
    pub(crate) fn refusals(&self, id: MachineId) -> u32 {
        let entry = self.entries.iter().find(|entry| entry.peer.id() == id);
        entry.map_or(0, |entry| entry.refusals)
    }

    /// Peers that may be asked now and suit.
    pub(crate) fn ready(&self, now: Tick, suits: impl Fn(&Peer) -> bool) -> Vec<&Peer> {
        let ready = self.entries.iter().filter(|entry| entry.ready_at <= now);
        ready.map(|entry| &entry.peer).filter(|peer| suits(peer)).collect()
    }

    /// Whether there is any of these.
    pub(crate) fn is_any_ready(&self, now: Tick, suits: impl Fn(&Peer) -> bool) -> bool {
        self.entries.iter().any(|entry| entry.ready_at <= now && suits(&entry.peer))
    }

    /// When the next peer that suits may be asked.
    pub(crate) fn next_ready(&self, suits: impl Fn(&Peer) -> bool) -> Option<Tick> {
        self.entries.iter().filter(|e| suits(&e.peer)).map(|e| e.ready_at).min()
    }

    /// Up to `count` peers in random order, `except` left out.
    pub(crate) fn sample(&self, count: usize, except: MachineId, rng: &mut SeededRng) -> Vec<Peer> {
        pick(self.peers().filter(|peer| peer.id() != except).collect(), count, rng)
    }
}

fn pick(mut peers: Vec<&Peer>, count: usize, rng: &mut SeededRng) -> Vec<Peer> {
    rng.shuffle(&mut peers);
    peers.into_iter().take(count).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> Peer {
        Peer::new(MachineId::new([n; 32]), [std::net::SocketAddr::from(([10, 0, 0, n], 1))])
    }

    #[test]
    fn a_full_passive_view_drops_what_was_sent_first() {
        let mut rng = SeededRng::from_number(1);
        let mut view = PassiveView::new(4);
        (1..=4).for_each(|n| view.insert(peer(n), Source::Gossip, &[], &mut rng));
        let sent = [peer(2).id(), peer(3).id()];
        view.insert(peer(5), Source::Gossip, &sent, &mut rng);
        view.insert(peer(6), Source::Gossip, &sent, &mut rng);
        let mut ids: Vec<MachineId> = view.peers().map(Peer::id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 4, 5, 6].map(|n| peer(n).id()));
        view.insert(peer(7), Source::Gossip, &sent, &mut rng);
        assert_eq!(view.len(), 4, "then a random one");
        assert!(view.contains(peer(7).id()));
    }

    #[test]
    fn a_flood_of_names_from_one_network_displaces_nobody_of_others() {
        let of = |n: u8, network: u8| {
            let address = std::net::SocketAddr::from(([198, 51, network, n], 1));
            Peer::new(MachineId::new([n; 32]), [address])
        };
        let mut rng = SeededRng::from_number(1);
        let mut view = PassiveView::new(8);
        (1..=5).for_each(|n| view.insert(of(n, n), Source::Gossip, &[], &mut rng));
        let sent: Vec<MachineId> = (1..=5).map(|n| of(n, n).id()).collect();
        for n in 10..=255 {
            view.insert(of(n, 100), Source::Gossip, &sent, &mut rng);
        }
        assert_eq!(view.len(), 8);
        assert!(sent.iter().all(|id| view.contains(*id)));
    }

    #[test]
    fn eviction_is_uniform() {
        let mut evicted = [0; 4];
        for seed in 0..400 {
            let mut rng = SeededRng::from_number(seed);
            let mut view = PassiveView::new(4);
            (0..5).for_each(|n| view.insert(peer(n), Source::Gossip, &[], &mut rng));
            let gone = (0..4).find(|n| !view.contains(peer(*n).id())).expect("one is gone");
            evicted[usize::from(gone)] += 1;
        }
        assert!(evicted.iter().all(|count| (60..140).contains(count)), "{evicted:?}");
    }

    #[test]
    fn a_deferred_peer_is_not_ready_and_its_refusals_count() {
        let mut view = PassiveView::new(4);
        view.insert(peer(1), Source::Gossip, &[], &mut SeededRng::from_number(1));
        view.defer(peer(1).id(), Tick::from_millis(100));
        assert_eq!(view.next_ready(|_| true), Some(Tick::from_millis(100)));
        assert!(view.ready(Tick::from_millis(99), |_| true).is_empty());
        assert!(view.ready(Tick::from_millis(100), |_| false).is_empty());
        assert_eq!(view.ready(Tick::from_millis(100), |_| true), [&peer(1)]);
        assert_eq!((view.refusals(peer(1).id()), view.refusals(peer(2).id())), (1, 0));
    }

    #[test]
    fn a_peers_own_word_replaces_that_of_others_and_is_not_touched_by_it() {
        let rng = &mut SeededRng::from_number(1);
        let mut view = PassiveView::new(4);
        let at = |ports: std::ops::Range<u16>| {
            let address = |port| std::net::SocketAddr::from(([192, 0, 2, 1], port));
            Peer::new(MachineId::new([1; 32]), ports.map(address))
        };
        let known = |view: &PassiveView| view.peers().next().expect("known").clone();
        view.insert(at(1..9), Source::Gossip, &[], rng);
        assert_eq!((known(&view), view.proven(at(0..0).id())), (at(1..3), None));
        view.insert(at(20..28), Source::Session, &[], rng);
        view.insert(at(1..9), Source::Gossip, &[], rng);
        assert_eq!(known(&view), at(20..28));
        assert_eq!(view.proven(at(0..0).id()), Some(&at(20..28)));
    }
}

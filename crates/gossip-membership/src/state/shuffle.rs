//! Shuffles: the exchange of peer samples that keeps passive views fresh (DSN'07 §4.4).
//!
//! A shuffle walks from neighbour to neighbour, and its reply goes back the same way: each hop knows
//! only the next and the previous one. No reply needs a session to a stranger, and nobody can be made
//! to dial a third party by a forged origin.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{MachineId, Tick};

use super::HyParView;
use crate::{config::MAX_SHUFFLE_ENTRIES, peer::Peer, view::Source, wire::Message};

/// Most exchanges remembered, own and passed on; the oldest is forgotten first.
pub const MAX_EXCHANGES: usize = 128;
/// How long after its first link, or after falling short of neighbours, a node shuffles. From there
/// the pause doubles up to the configured interval, so that a young node soon knows enough peers.
const FIRST_SHUFFLE: Duration = Duration::from_millis(300);
/// How often the pause between shuffles doubles beyond the configured interval, once for each exchange in
/// a row that told of nobody new: where everybody is known, there is little to tell.
const MAX_STALE: u32 = 3;

/// Shuffles that await their reply, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    next: u64,
    waiting: BTreeMap<u64, Exchange>,
}

#[derive(Debug)]
struct Exchange {
    /// Who must answer.
    to: MachineId,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Begun here with these passive peers.
    Own { sent: Vec<MachineId> },
    /// Passed on for this neighbour, under its id.
    Relayed { from: MachineId, id: u64 },
}

impl Exchanges {
    /// Remembers an exchange with a neighbour; gives its id on that link. Ids are only looked up
    /// together with the neighbour, so that they need not be secret.
    fn add(&mut self, to: MachineId, kind: Kind) -> u64 {
        if self.waiting.len() >= MAX_EXCHANGES {
            self.waiting.pop_first();
        }
        self.next += 1;
        self.waiting.insert(self.next, Exchange { to, kind });
        self.next
    }

    fn take(&mut self, id: u64, from: MachineId) -> Option<Kind> {
        if self.waiting.get(&id)?.to != from {
            return None;
        }
        self.waiting.remove(&id).map(|exchange| exchange.kind)
    }

    /// Drops what cannot be answered, or not passed back, without this peer's session.
    pub(super) fn forget(&mut self, peer: MachineId) {
        self.waiting.retain(|_, exchange| {
            let back = matches!(exchange.kind, Kind::Relayed { from, .. } if from == peer);
            exchange.to != peer && !back
        });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl HyParView {
    pub(super) fn shuffle_soon(&mut self, now: Tick) {
        self.shuffle_pause = FIRST_SHUFFLE.min(self.config.shuffle_interval);
        let soon = self.around(now, self.shuffle_pause);
        self.next_shuffle = Some(self.next_shuffle.map_or(soon, |at| at.min(soon)));
    }

    pub(super) fn begin_shuffle(&mut self, now: Tick) {
        let Some(to) = self.active.choose(&[], &mut self.rng) else {
            self.next_shuffle = None;
            return;
        };
        let longest = self.config.shuffle_interval * (1 << self.stale);
        self.shuffle_pause = (self.shuffle_pause * 2).min(longest);
        self.next_shuffle = Some(self.around(now, self.shuffle_pause));
        let (peers, sent) = self.sample(self.config.shuffle_active, self.shuffle_len(), to);
        let own = self.own_entry();
        let own = own.is_dialable().then_some(own);
        let entries = own.into_iter().chain(peers).collect();
        let id = self.exchanges.add(to, Kind::Own { sent });
        self.metrics.shuffles_sent.inc();
        // Who is short of neighbours wants those of its neighbour; a longer walk mixes the views better.
        let short = self.linked() < self.target();
        let ttl = if short { 1 } else { self.config.shuffle_walk };
        self.send(to, Message::Shuffle { id, ttl, entries });
    }

    /// A shuffle walks by; it ends here when it has no hops left or there is nowhere else to go.
    pub(super) fn on_shuffle(
        &mut self,
        now: Tick,
        from: MachineId,
        id: u64,
        ttl: u8,
        entries: Vec<Peer>,
    ) {
        if !self.is_neighbour(from) {
            return;
        }
        let entries = self.heard_of_all(from, entries);
        let left = ttl.saturating_sub(1);
        if left > 0
            && let Some(next) = self.active.choose(&[from], &mut self.rng)
        {
            let id = self.exchanges.add(next, Kind::Relayed { from, id });
            return self.send(next, Message::Shuffle { id, ttl: left, entries });
        }
        self.metrics.shuffles_answered.inc();
        let count = entries.len().max(self.shuffle_len()).min(MAX_SHUFFLE_ENTRIES);
        let (reply, sent) = self.sample(0, count, from);
        self.send(from, Message::ShuffleReply { id, entries: reply });
        self.integrate(now, from, entries, &sent);
    }

    pub(super) fn on_shuffle_reply(
        &mut self,
        now: Tick,
        from: MachineId,
        id: u64,
        entries: Vec<Peer>,
    ) {
        let Some(kind) = self.exchanges.take(id, from) else {
            return self.metrics.refused_unsolicited.inc();
        };
        match kind {
            Kind::Own { sent } => {
                self.metrics.shuffles_completed.inc();
                let stale = entries.iter().all(|peer| self.knows(peer.id()));
                self.stale = if stale { (self.stale + 1).min(MAX_STALE) } else { 0 };
                self.integrate(now, from, entries, &sent);
            }
            Kind::Relayed { from: origin, id } => {
                let entries = self.heard_of_all(from, entries);
                self.send(origin, Message::ShuffleReply { id, entries });
            }
        }
    }

    fn knows(&self, id: MachineId) -> bool {
        id == self.local || self.active.contains(id) || self.passive.contains(id)
    }

    pub(super) const fn shuffle_len(&self) -> usize {
        self.config.shuffle_active + self.config.shuffle_passive
    }

    /// Up to `count` peers for `to`: `active` neighbours, then passive peers, whose ids come second,
    /// then more neighbours, because a young overlay knows its members only as such.
    pub(super) fn sample(
        &mut self,
        active: usize,
        count: usize,
        to: MachineId,
    ) -> (Vec<Peer>, Vec<MachineId>) {
        let mut neighbours = self.active.sample(count, to, &mut self.rng);
        let more = neighbours.split_off(active.min(neighbours.len()));
        let passive = self.passive.sample(count - neighbours.len(), to, &mut self.rng);
        let sent = passive.iter().map(Peer::id).collect();
        let peers = neighbours.into_iter().chain(passive).chain(more).take(count).collect();
        (peers, sent)
    }

    /// Notes what a peer says of others.
    pub(super) fn integrate(
        &mut self,
        now: Tick,
        from: MachineId,
        entries: Vec<Peer>,
        sent: &[MachineId],
    ) {
        let source = self.source(from);
        for peer in self.heard_of_all(from, entries) {
            self.estimate.note(now, peer.id());
            self.book.hear(source, &peer, &mut self.rng);
            self.learn(now, peer, Source::Gossip, sent);
        }
    }

    pub(super) fn heard_of_all(&self, from: MachineId, entries: Vec<Peer>) -> Vec<Peer> {
        entries.into_iter().filter_map(|peer| self.heard_of(from, peer)).collect()
    }
}

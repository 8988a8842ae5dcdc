//! Who is asked to hold a letter, and who is not for a while.

use std::cmp::Reverse;

use x0x_core::{AgentId, MachineId, SeededRng, Tick};

use super::{Depositor, MAX_FULL_TAGS, MAX_REFUSED, REFUSED_FOR, place_rank};
use crate::{admission::Standing, wire::MessageId};

impl Depositor {
    /// Who may be asked to hold a message.
    pub(super) fn candidates(&self, now: Tick, to: AgentId, id: &MessageId) -> Vec<MachineId> {
        let holders = self.held_out.get(id);
        let over = |until: Option<&Tick>| until.is_none_or(|until| *until <= now);
        let willing = |peer: &MachineId, standing: &Standing| {
            *standing != Standing::Unwanted
                && over(self.refused.get(peer))
                && over(self.full_tags.get(&(to, *peer)))
                && holders.is_none_or(|held| !held.copies.contains_key(peer))
        };
        let peers = self.peers.iter().filter(|(peer, standing)| willing(peer, standing));
        peers.map(|(peer, _)| *peer).collect()
    }

    pub(super) fn is_contact(&self, peer: &MachineId) -> bool {
        self.peers.get(peer) == Some(&Standing::Contact)
    }

    /// Puts candidates in the order in which they are asked: contacts, then strangers by lot. If none of
    /// those who have the message is a stranger, the one that suits best goes before the others.
    pub(super) fn order(
        &mut self,
        candidates: Vec<MachineId>,
        places: Option<[u8; 32]>,
        has_stranger: bool,
    ) -> Vec<MachineId> {
        let (mut contacts, mut strangers): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|peer| self.is_contact(peer));
        self.rng.shuffle(&mut contacts);
        self.rng.shuffle(&mut strangers);
        if let Some(places) = places {
            contacts.sort_by_cached_key(|peer| Reverse(place_rank(&places, peer)));
            let best = (0..strangers.len())
                .max_by_key(|at| strangers.get(*at).map(|peer| place_rank(&places, peer)));
            if let Some(best) = best.filter(|_| !has_stranger) {
                strangers.swap(0, best);
            }
        }
        contacts.append(&mut strangers);
        contacts
    }

    /// A holder is not asked for a while, whether or not its session ends meanwhile.
    pub(super) fn refused(&mut self, until: Tick, now: Tick, peer: MachineId) {
        self.refused.retain(|_, until| *until > now);
        if self.refused.len() >= MAX_REFUSED && !self.refused.contains_key(&peer) {
            let first = self.refused.iter().min_by_key(|(_, until)| **until);
            if let Some(first) = first.map(|(peer, _)| *peer) {
                self.refused.remove(&first);
            }
        }
        self.refused.insert(peer, until);
    }

    /// A holder takes no more for a recipient.
    pub(super) fn full_tag(&mut self, now: Tick, to: AgentId, peer: MachineId) {
        self.full_tags.retain(|_, until| *until > now);
        if self.full_tags.len() >= MAX_FULL_TAGS
            && let Some(first) = self.full_tags.iter().min_by_key(|(_, until)| **until)
        {
            let first = *first.0;
            self.full_tags.remove(&first);
        }
        self.full_tags.insert((to, peer), now + REFUSED_FOR);
    }
}

/// Ranks that nobody foresees.
pub(super) fn drawn(rng: &mut SeededRng) -> [u8; 32] {
    let mut places = [0; 32];
    places.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&rng.next_u64().to_le_bytes()));
    places
}

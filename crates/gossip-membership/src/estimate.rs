//! How many nodes the overlay has, roughly, from the peers that come by.
//!
//! Of the ids met, the smallest hashes are kept: were they spread evenly, as hashes are, how close to
//! zero they lie tells how many there are (Z. Bar-Yossef et al., *Counting distinct elements in a data
//! stream*, 2002). Ids met twice count once. A liar can make the overlay look larger, which costs this
//! node a few more links, never smaller.

use std::{collections::BTreeSet, time::Duration};

use x0x_core::{MachineId, Tick};

use crate::mix::mix;

/// Hashes kept: their spread gives a count within a fifth or so.
const MAX_HASHES: usize = 32;
/// Peers that were not met for one to two of these are forgotten.
const WINDOW: Duration = Duration::from_secs(900);

/// The estimate of one node.
#[derive(Debug, Clone)]
pub(crate) struct SizeEstimate {
    secret: u64,
    /// Of this window and the one before.
    smallest: [BTreeSet<u64>; 2],
    window_ends: Tick,
    nodes: u64,
}

impl SizeEstimate {
    /// Before anybody is met. With a secret of its own, no node can be aimed at by chosen ids.
    pub(crate) fn new(secret: u64) -> Self {
        Self { secret, smallest: Default::default(), window_ends: Tick::ZERO + WINDOW, nodes: 1 }
    }

    /// A peer is met or heard of.
    pub(crate) fn note(&mut self, now: Tick, id: MachineId) {
        if now >= self.window_ends {
            self.smallest[1] = std::mem::take(&mut self.smallest[0]);
            self.window_ends = now + WINDOW;
        }
        let hash = mix(self.secret, id.as_bytes());
        let smallest = &mut self.smallest[0];
        let full = smallest.len() >= MAX_HASHES;
        if (full && smallest.last().is_some_and(|last| hash >= *last)) || !smallest.insert(hash) {
            return;
        }
        if full {
            smallest.pop_last();
        }
        self.nodes = self.count();
    }

    /// How many nodes there are, this one among them.
    pub(crate) const fn nodes(&self) -> u64 {
        self.nodes
    }

    fn count(&self) -> u64 {
        let both: BTreeSet<u64> = self.smallest.iter().flatten().copied().collect();
        match both.iter().nth(MAX_HASHES - 1) {
            // The k-th smallest of n even points lies at k in n + 1.
            Some(kth) => {
                let nodes =
                    (MAX_HASHES as u128 - 1) * u128::from(u64::MAX) / u128::from(*kth).max(1);
                u64::try_from(nodes).unwrap_or(u64::MAX)
            }
            None => both.len() as u64 + 1,
        }
    }
}

/// The neighbours that so many nodes want: one more than the decimal digits of their number go up to.
pub(crate) fn neighbours_for(nodes: u64) -> usize {
    let log10_rounded_up = nodes.saturating_sub(1).checked_ilog10().map_or(0, |log| log + 1);
    log10_rounded_up as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> MachineId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        MachineId::new(bytes)
    }

    #[test]
    fn the_count_is_near_whatever_the_number() {
        for count in [0_u64, 1, 8, 31, 100, 1000, 10_000, 100_000] {
            let mut estimates: Vec<u64> = (0..9)
                .map(|secret| {
                    let mut estimate = SizeEstimate::new(secret);
                    (0..2).for_each(|_| (0..count).for_each(|n| estimate.note(Tick::ZERO, id(n))));
                    estimate.nodes()
                })
                .collect();
            estimates.sort_unstable();
            let (median, nodes) = (estimates[4], count + 1);
            assert!((nodes * 3 / 4..=nodes * 4 / 3).contains(&median), "{nodes}: {estimates:?}");
        }
    }

    #[test]
    fn those_not_met_for_long_are_forgotten() {
        let mut estimate = SizeEstimate::new(1);
        (0..1000).for_each(|n| estimate.note(Tick::ZERO, id(n)));
        let mut now = Tick::ZERO;
        for _ in 0..3 {
            now = now + WINDOW;
            (0..9).for_each(|n| estimate.note(now, id(n)));
        }
        assert_eq!(estimate.nodes(), 10);
    }

    #[test]
    fn neighbours_grow_with_the_digits() {
        let expected = [(0, 1), (1, 1), (2, 2), (10, 2), (11, 3), (10_000, 5), (10_001, 6)];
        for (nodes, neighbours) in expected {
            assert_eq!(neighbours_for(nodes), neighbours, "{nodes}");
        }
        assert_eq!(neighbours_for(u64::MAX), 21);
    }
}

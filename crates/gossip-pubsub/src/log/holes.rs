//! Where retention removed something from the middle of a log, so that a reader who comes by is told.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy)]
struct Hole {
    end: u64,
    /// Entries removed in it; what was replaced by something newer is not counted.
    entries: u64,
    /// The removal that was the last in it.
    removal: u64,
}

/// Holes by the position where they begin. There is a retained run between any two.
#[derive(Debug, Default)]
pub(super) struct Holes {
    holes: BTreeMap<u64, Hole>,
    removals: u64,
}

impl Holes {
    /// What is before a position was removed, once.
    pub(super) fn before(end: u64) -> Self {
        let mut holes = Self::default();
        if end > 0 {
            holes.add((0, end), (0, end));
        }
        holes
    }

    /// Notes that a run was removed; `room` is where the retained ones beside it end and begin.
    pub(super) fn add(&mut self, (mut start, mut end): (u64, u64), room: (u64, u64)) {
        self.removals += 1;
        let mut entries = end - start;
        if let Some((first, hole)) = self.holes.range(..start).next_back()
            && *first >= room.0
        {
            entries += hole.entries;
            start = *first;
        }
        if let Some((next, hole)) = self.holes.range(end..).next()
            && *next < room.1
        {
            let next = *next;
            entries += hole.entries;
            end = hole.end;
            self.holes.remove(&next);
        }
        self.holes.insert(start, Hole { end, entries, removal: self.removals });
    }

    /// Entries removed between two positions, in holes to which something was added after removal
    /// number `since`.
    pub(super) fn count(&self, from: u64, to: u64, since: u64) -> u64 {
        let holding = self.holes.range(..=from).next_back();
        let within = holding.filter(|(_, hole)| hole.end > from && hole.removal > since);
        let within = within.map_or(0, |(_, hole)| hole.entries.min(hole.end - from));
        let later = self.holes.range(from.saturating_add(1)..to.max(from.saturating_add(1)));
        let later = later.filter(|(_, hole)| hole.removal > since);
        within + later.map(|(_, hole)| hole.entries).sum::<u64>()
    }

    pub(super) const fn removals(&self) -> u64 {
        self.removals
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.holes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_grow_together_unless_a_run_is_between() {
        let mut holes = Holes::default();
        holes.add((10, 20), (0, 30));
        holes.add((40, 50), (35, 60));
        assert_eq!((holes.len(), holes.removals()), (2, 2));
        assert_eq!(holes.count(0, 100, 0), 20);
        assert_eq!(holes.count(15, 100, 0), 15, "from within the first");
        assert_eq!(holes.count(0, 35, 0), 10, "up to the run between");
        assert_eq!(holes.count(0, 100, 1), 10, "the first was there already");
        // The run between goes, and with it what separated them.
        holes.add((30, 35), (0, 60));
        assert_eq!((holes.len(), holes.count(0, 100, 0)), (1, 25));
        assert_eq!(holes.count(48, 100, 0), 2);
        assert_eq!(Holes::before(7).count(3, 100, 0), 4);
        assert_eq!(Holes::before(0).len(), 0);
    }
}

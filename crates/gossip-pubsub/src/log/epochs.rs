//! One author's chains by epoch, in a sorted list: most authors have a single one, for which a node of
//! a tree would hold ten places more.

use super::chain::Chain;

/// Chains in the order of their epochs.
#[derive(Debug, Default)]
pub(super) struct Epochs(Vec<(u64, Chain)>);

impl Epochs {
    /// Bytes that a chain takes here.
    pub(super) const EACH: usize = size_of::<(u64, Chain)>();

    fn find(&self, epoch: u64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&epoch, |(epoch, _)| *epoch)
    }

    pub(super) fn get(&self, epoch: u64) -> Option<&Chain> {
        self.0.get(self.find(epoch).ok()?).map(|(_, chain)| chain)
    }

    pub(super) fn get_mut(&mut self, epoch: u64) -> Option<&mut Chain> {
        let at = self.find(epoch).ok()?;
        self.0.get_mut(at).map(|(_, chain)| chain)
    }

    /// The chain of an epoch, made if there is none; whether it was.
    pub(super) fn make(
        &mut self,
        epoch: u64,
        make: impl FnOnce() -> Chain,
    ) -> (Option<&mut Chain>, bool) {
        let found = self.find(epoch);
        let at = found.unwrap_or_else(|at| {
            // No more room than there is need for: a list that doubled would waste as much again.
            if self.0.len() == self.0.capacity() {
                self.0.reserve_exact(1 + self.0.len() / 4);
            }
            self.0.insert(at, (epoch, make()));
            at
        });
        (self.0.get_mut(at).map(|(_, chain)| chain), found.is_err())
    }

    pub(super) fn remove(&mut self, epoch: u64) -> Option<Chain> {
        let at = self.find(epoch).ok()?;
        Some(self.0.remove(at).1)
    }

    /// Keeps those chains that a rule says are kept.
    pub(super) fn retain(&mut self, mut kept: impl FnMut(u64, &mut Chain) -> bool) {
        self.0.retain_mut(|(epoch, chain)| kept(*epoch, chain));
        if self.0.capacity() > 2 * self.0.len() {
            self.0.shrink_to_fit();
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Chains that there is room for.
    pub(super) const fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &Chain)> {
        self.0.iter().map(|(epoch, chain)| (*epoch, chain))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Chain)> {
        self.0.iter_mut().map(|(epoch, chain)| (*epoch, chain))
    }

    /// The chains of later epochs, the latest first.
    pub(super) fn after(&self, epoch: u64) -> impl Iterator<Item = (u64, &Chain)> {
        self.iter().rev().take_while(move |(later, _)| *later > epoch)
    }
}

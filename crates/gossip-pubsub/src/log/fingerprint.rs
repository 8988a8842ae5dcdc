//! What a log retains, in one number.
//!
//! Every chain with retained runs adds the hash of its author, epoch and head, modulo 2^128; the sum
//! is kept up to date with each run. Sums of ranges find differences (Meyer, "Range-Based Set
//! Reconciliation", SRDS 2023); only their hashes leave the machine. Who can choose many chains may
//! make two different sets look equal: his own entries are then not compared, and those of others not until
//! the set changes on one side. Announcements and gaps find them regardless.

use x0x_core::AgentId;

/// Key of the BLAKE3 hash of a head, so that it collides with no other use of BLAKE3.
const HEAD_HASH_KEY: [u8; 32] = *b"x0x/pubsub/head/1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// A sum of hashes of heads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum(u128);

impl Sum {
    /// The sum of nothing.
    pub(crate) const ZERO: Self = Self(0);

    /// The part of one chain. Never zero, which stands for a chain that does not count.
    pub(crate) fn of(author: &AgentId, epoch: u64, head: u64) -> Self {
        let mut bytes = [0_u8; 48];
        bytes[..32].copy_from_slice(author.as_bytes());
        bytes[32..40].copy_from_slice(&epoch.to_be_bytes());
        bytes[40..].copy_from_slice(&head.to_be_bytes());
        let hash = blake3::keyed_hash(&HEAD_HASH_KEY, &bytes);
        let mut half = [0_u8; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        Self(u128::from_be_bytes(half).max(1))
    }

    pub(crate) const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// A set of chains: their number and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    sum: u128,
    chains: u32,
}

impl Fingerprint {
    /// How many chains there are.
    pub(crate) const fn chains(&self) -> u32 {
        self.chains
    }

    pub(crate) fn add(&mut self, mark: Sum) {
        self.sum = self.sum.wrapping_add(mark.0);
        self.chains += u32::from(!mark.is_zero());
    }

    pub(crate) fn remove(&mut self, mark: Sum) {
        self.sum = self.sum.wrapping_sub(mark.0);
        self.chains -= u32::from(!mark.is_zero());
    }

    pub(crate) fn replace(&mut self, old: Sum, new: Sum) {
        self.remove(old);
        self.add(new);
    }

    /// What goes over the wire; zeros for nothing.
    pub(crate) fn digest(&self) -> [u8; 16] {
        let mut half = [0_u8; 16];
        if self.chains > 0 {
            let mut bytes = [0_u8; 20];
            bytes[..16].copy_from_slice(&self.sum.to_be_bytes());
            bytes[16..].copy_from_slice(&self.chains.to_be_bytes());
            let hash = blake3::keyed_hash(&HEAD_HASH_KEY, &bytes);
            half.copy_from_slice(&hash.as_bytes()[..16]);
        }
        half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_depend_on_the_set_alone() {
        let mark = |n: u8, head| Sum::of(&AgentId::new([n; 32]), 7, head);
        let mut one = Fingerprint::default();
        assert_eq!(one.digest(), [0; 16]);
        (0..9).for_each(|n| one.add(mark(n, 5)));
        let mut other = Fingerprint::default();
        (0..9).rev().for_each(|n| other.add(mark(n, 4)));
        assert_ne!(one.digest(), other.digest());
        (0..9).for_each(|n| other.replace(mark(n, 4), mark(n, 5)));
        assert_eq!((one, one.digest()), (other, other.digest()));
        (0..9).for_each(|n| other.remove(mark(n, 5)));
        assert_eq!(other, Fingerprint::default());
    }
}

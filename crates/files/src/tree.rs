//! The hash tree over a file: BLAKE3's own, cut at groups of 128 chunks.
//!
//! A file's root is its plain BLAKE3 hash. Each group of [`GROUP`] bytes has a chaining value, which
//! the values beside the way to the root prove; so every group is verified alone, in any order, and a
//! receiver needs nothing but the root. The rules of the tree are those of section 2.1 of the BLAKE3
//! paper: pairs are merged from the left, and what is left alone rises as it is.

use blake3::{
    Hasher,
    hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

/// Bytes of a group: large enough that a proof is a hundredth of it at most, small enough that little
/// is lost with one.
pub const GROUP: u64 = 128 * 1024;
/// [`GROUP`] as a length in memory.
pub const GROUP_LEN: usize = 128 * 1024;
/// Most levels of a tree: 2⁶⁴ bytes have 2⁴⁷ groups.
pub const MAX_LEVELS: usize = 47;
/// Bytes of a value of the tree.
pub const VALUE: usize = 32;

/// A hash, or the chaining value of a part of the tree.
pub type Value = [u8; VALUE];

/// Content that is not what the root says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the content does not match the offered hash")]
pub struct BadContent;

/// How many groups a file of this size has.
#[must_use]
pub const fn groups(size: u64) -> u64 {
    size.div_ceil(GROUP)
}

/// The length of a group in a file of this size; zero behind its end.
#[must_use]
pub const fn group_len(size: u64, group: u64) -> usize {
    let rest = size.saturating_sub(group.saturating_mul(GROUP));
    if rest >= GROUP { GROUP_LEN } else { rest as usize }
}

/// How many values each level of the tree has: the groups first, two last.
pub fn levels(groups: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(groups), |count| Some(count.div_ceil(2))).take_while(|n| *n > 1)
}

/// The chaining value of a group, at most [`GROUP_LEN`] and at least one byte of it.
#[must_use]
pub fn leaf(group: u64, content: &[u8]) -> Value {
    Hasher::new().set_input_offset(group.saturating_mul(GROUP)).update(content).finalize_non_root()
}

/// The value above two others.
#[must_use]
pub fn parent(left: &Value, right: &Value) -> Value {
    merge_subtrees_non_root(left, right, Mode::Hash)
}

/// The root above the last two values.
#[must_use]
pub fn root(left: &Value, right: &Value) -> Value {
    *merge_subtrees_root(left, right, Mode::Hash).as_bytes()
}

/// The root of a file of a single group, or of none.
#[must_use]
pub fn small_root(content: &[u8]) -> Value {
    *blake3::hash(content).as_bytes()
}

/// Checks a group against the root of a file and gives its chaining value. The proof has one value for
/// each level where the way to the root has a neighbour, from the groups up.
///
/// # Errors
/// [`BadContent`], also for a group or a length that the file does not have.
pub fn verify(
    file_root: &Value,
    size: u64,
    group: u64,
    content: &[u8],
    proof: &[u8],
) -> Result<Value, BadContent> {
    if content.is_empty() || content.len() != group_len(size, group) {
        return Err(BadContent);
    }
    let own = leaf(group, content);
    let total = groups(size);
    if total == 1 {
        let good = small_root(content) == *file_root && proof.is_empty();
        return good.then_some(own).ok_or(BadContent);
    }
    let (mut value, mut at) = (own, group);
    let (neighbours, odd) = proof.as_chunks::<VALUE>();
    let mut neighbours = neighbours.iter();
    for count in levels(total) {
        let alone = at == count - 1 && count % 2 == 1;
        if !alone {
            let other = neighbours.next().ok_or(BadContent)?;
            let (left, right) = if at % 2 == 0 { (&value, other) } else { (other, &value) };
            if count == 2 {
                let good = root(left, right) == *file_root;
                let all_used = neighbours.next().is_none() && odd.is_empty();
                return (good && all_used).then_some(own).ok_or(BadContent);
            }
            value = parent(left, right);
        }
        at /= 2;
    }
    Err(BadContent)
}

/// Where the neighbours of a group's way to the root stand: the level, and the place in it.
pub fn neighbours(size: u64, group: u64) -> impl Iterator<Item = (usize, u64)> {
    levels(groups(size)).enumerate().filter_map(move |(level, count)| {
        let beside = (group >> level) ^ 1;
        (beside < count).then_some((level, beside))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All levels of a file's tree.
    fn build(content: &[u8]) -> Vec<Vec<Value>> {
        let leaves = content.chunks(GROUP_LEN).zip(0..).map(|(part, group)| leaf(group, part));
        let mut levels = vec![leaves.collect::<Vec<_>>()];
        while levels.last().is_some_and(|level| level.len() > 2) {
            let below = levels.last().expect("there is one");
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => parent(left, right),
                alone => alone[0],
            });
            let above = above.collect();
            levels.push(above);
        }
        levels
    }

    #[test]
    fn every_group_proves_itself_against_the_plain_hash() {
        let content: Vec<u8> = (0_u32..)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .take(13 * GROUP_LEN + 77)
            .collect();
        for count in [
            1,
            77,
            GROUP_LEN,
            GROUP_LEN + 1,
            2 * GROUP_LEN,
            3 * GROUP_LEN,
            5 * GROUP_LEN + 1,
            8 * GROUP_LEN,
            11 * GROUP_LEN + 1024,
            13 * GROUP_LEN + 77,
        ] {
            let (file, size) = (&content[..count], count as u64);
            let root = *blake3::hash(file).as_bytes();
            let tree = build(file);
            assert_eq!(levels(groups(size)).count(), if groups(size) > 1 { tree.len() } else { 0 });
            for (part, group) in file.chunks(GROUP_LEN).zip(0_u64..) {
                assert_eq!(part.len(), group_len(size, group));
                let proof: Vec<u8> = neighbours(size, group)
                    .flat_map(|(level, at)| tree[level][at as usize])
                    .collect();
                assert!(proof.len() <= MAX_LEVELS * VALUE);
                assert_eq!(verify(&root, size, group, part, &proof), Ok(leaf(group, part)));
                let mut bad = part.to_vec();
                bad[0] ^= 1;
                assert_eq!(verify(&root, size, group, &bad, &proof), Err(BadContent));
                assert_eq!(verify(&root, size, group + 1, part, &proof), Err(BadContent));
                assert_eq!(
                    verify(&root, size + 1, group, part, &proof[..proof.len() / 2]),
                    Err(BadContent)
                );
                assert_eq!(
                    verify(&root, size, group, part, &[&proof[..], &[0]].concat()),
                    Err(BadContent)
                );
                assert_eq!(
                    verify(&root, size, group, part, &[&proof[..], &[0; 32]].concat()),
                    Err(BadContent)
                );
            }
        }
    }

    #[test]
    fn extreme_sizes_are_harmless() {
        let last = groups(u64::MAX) - 1;
        assert_eq!(group_len(u64::MAX, last), GROUP_LEN - 1);
        assert_eq!(neighbours(u64::MAX, last).count(), MAX_LEVELS);
        assert_eq!(group_len(u64::MAX, u64::MAX), 0);
        assert_eq!(
            verify(&[0; 32], u64::MAX, last, &[0; GROUP_LEN - 1], &[0; 32 * MAX_LEVELS]),
            Err(BadContent)
        );
        assert_eq!((groups(0), levels(0).count(), levels(1).count()), (0, 0, 0));
    }
}

//! Names of operations: actors, dots and stamps.

use std::fmt;

use x0x_core::AgentId;

/// Key of the hash that makes an actor's tag, so that it collides with no other use of BLAKE3.
const TAG_KEY: [u8; 32] = *b"x0x/crdt/actor/1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Names one chain of an author, one epoch of its log in the object's topic, by 16 bytes.
///
/// A device that starts anew, or is restored or cloned, writes in a new epoch and so is another actor:
/// no dot is ever used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ActorTag([u8; Self::LEN]);

impl ActorTag {
    /// Bytes of a tag. To find two actors with one tag takes 2^64 hashes.
    pub const LEN: usize = 16;

    /// The tag of an author's epoch.
    #[must_use]
    pub fn of(author: &AgentId, epoch: u64) -> Self {
        let mut name = [0_u8; 40];
        name[..32].copy_from_slice(author.as_bytes());
        name[32..].copy_from_slice(&epoch.to_be_bytes());
        let hash = blake3::keyed_hash(&TAG_KEY, &name);
        let mut tag = [0_u8; Self::LEN];
        tag.copy_from_slice(&hash.as_bytes()[..Self::LEN]);
        Self(tag)
    }

    /// The tag with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for ActorTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// Names one operation: the entry of its author's chain that carries it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dot {
    /// Whose chain it is in.
    pub actor: ActorTag,
    /// Its place there, from 1.
    pub seq: u64,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.actor, self.seq)
    }
}

/// When an operation was written: a total order in which what an author had seen comes before what it
/// wrote then. It decides where the last writer wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Milliseconds since the Unix epoch by the author's clock, or later than all that it had seen.
    pub millis: u64,
    /// Decides between equal times.
    pub dot: Dot,
}

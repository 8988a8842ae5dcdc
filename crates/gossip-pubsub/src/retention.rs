//! How long an entry is kept: its retention class.
//!
//! An author's entries of one class form a chain of their own. The class is in the chain's epoch and
//! in each entry, so that every node knows what it may miss of a chain, whatever it has seen of it.

use std::time::Duration;

use x0x_core::{AgentId, WallTime};

/// Bits of an epoch below its milliseconds: the class above, then what is drawn at random.
const CLASS_SHIFT: u32 = 18;
const TIME_SHIFT: u32 = 20;
const RANDOM: u64 = (1 << CLASS_SHIFT) - 1;

/// How long ephemeral entries are kept here after they arrived.
pub const EPHEMERAL_FOR: Duration = Duration::from_secs(60);

/// How long an entry is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Retention {
    /// As long as the topic's retention allows. Every subscriber gets every entry.
    #[default]
    Standard,
    /// Until its author publishes another one of this class in the topic: the newest run of an author
    /// takes the place of those before it. A late subscriber gets the newest only.
    Latest,
    /// A minute, in memory only. Who is away longer misses it; after a crash within that minute it
    /// may come once more.
    Ephemeral,
    /// For ever: whatever its age, it is kept and accepted. When a topic holds as much of this class as it
    /// may, publishing in it is refused.
    Durable,
}

impl Retention {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Standard, Self::Latest, Self::Ephemeral, Self::Durable];

    /// The number in an entry's header.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The class of a chain.
    #[must_use]
    pub const fn of_epoch(epoch: u64) -> Self {
        match class_code(epoch) {
            1 => Self::Latest,
            2 => Self::Ephemeral,
            3 => Self::Durable,
            _ => Self::Standard,
        }
    }

    /// The epoch of this class beside one of the standard class.
    pub(crate) const fn epoch(self, standard: u64) -> u64 {
        standard & !(3 << CLASS_SHIFT) | ((self as u64) << CLASS_SHIFT)
    }
}

/// The class number in an epoch: that of every entry of its chain.
pub(crate) const fn class_code(epoch: u64) -> u64 {
    (epoch >> CLASS_SHIFT) & 3
}

/// The epoch of a service that starts now: later than every start before it, and different from one
/// in the same millisecond elsewhere. `random` gives its lower 18 bits. It is of the standard class.
#[must_use]
pub const fn epoch_at(wall: WallTime, random: u64) -> u64 {
    (wall.as_millis() << TIME_SHIFT) | (random & RANDOM)
}

/// When an epoch began, in milliseconds since the Unix epoch.
pub(crate) const fn began(epoch: u64) -> u64 {
    epoch >> TIME_SHIFT
}

/// The next epoch of the standard class.
pub(crate) const fn epoch_after(epoch: u64) -> u64 {
    if epoch & RANDOM == RANDOM { ((epoch >> TIME_SHIFT) + 1) << TIME_SHIFT } else { epoch + 1 }
}

/// A place in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainEnd {
    /// Whose chain.
    pub author: AgentId,
    /// The author's epoch.
    pub epoch: u64,
    /// The number of an entry.
    pub seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_epochs_of_their_own_which_grow_with_time() {
        let at = |millis| epoch_at(WallTime::from_millis(millis), u64::MAX);
        let mut last = 0;
        for standard in [at(7), epoch_after(at(7)), epoch_after(epoch_after(at(7))), at(9)] {
            for retention in Retention::ALL {
                let epoch = retention.epoch(standard);
                assert_eq!(Retention::of_epoch(epoch), retention);
                assert_eq!(class_code(epoch), u64::from(retention.code()));
                assert_eq!(Retention::Standard.epoch(epoch), standard);
            }
            assert_eq!(Retention::of_epoch(standard), Retention::Standard);
            assert!(standard > last, "{standard:x}");
            last = standard;
        }
        assert_eq!(epoch_after(at(7)) >> TIME_SHIFT, 8, "it carries over the class");
    }
}

//! Every bound of this crate in one place, with its reason.

/// Largest operation of a type in bytes: a value of 64 KiB inline, and what names it. With all that it
/// may depend on it fits one entry of a topic.
pub const MAX_OP: usize = 66 * 1024;

/// Bytes of content at which an object takes no further local writes.
pub const MAX_OBJECT: usize = 64 * 1024 * 1024;

/// Most actors of an object: chains that ever wrote in it. Of more, those count whose first operation is
/// earliest, on every replica alike.
pub const MAX_ACTORS: usize = 1024;

/// Most dependencies of one operation. Who has more to name writes operations that do nothing else before.
pub const MAX_DEPS: usize = 1024;

/// Dependencies above which an operation that is not small travels behind one that names them.
pub(crate) const MAX_INLINE_DEPS: usize = 16;

/// Most operations that wait for others; beyond it they are dropped, and read from the log again later.
pub const MAX_PENDING: usize = 10_000;

/// Most bytes of operations that wait for others.
pub const MAX_PENDING_BYTES: usize = 8 * 1024 * 1024;

/// Most chains of which operations wait.
pub const MAX_PENDING_CHAINS: usize = 2 * MAX_ACTORS;

/// Bytes that one chain may bring in, valid or not: after them its author goes on in another one.
pub const MAX_CHAIN_BYTES: u64 = 256 * 1024 * 1024;

/// Operations of one chain.
pub const MAX_CHAIN_OPS: u64 = (u32::MAX - 1) as u64;

/// How much later than its entry an operation may say that it is, in milliseconds: what two clocks may
/// be apart, on both sides.
pub const MAX_AHEAD: u64 = 10 * 60 * 1000;

/// Most own operations on their way through the log.
pub const MAX_IN_FLIGHT: usize = 256;

/// Most invalid operations remembered with their reason; the oldest is forgotten.
pub const MAX_REFUSALS: usize = 64;

/// Most actors remembered as refused because there are too many, so that what depends on them does not wait.
pub const MAX_BARRED: usize = 16 * MAX_ACTORS;

/// Operations after which a replica is stored.
pub const SNAPSHOT_OPS: u64 = 1024;

/// Bytes of operations after which a replica is stored.
pub const SNAPSHOT_BYTES: u64 = 1024 * 1024;

/// Largest encoded replica in bytes: its content, the actors, and what is beside it.
pub const MAX_SNAPSHOT: usize = 2 * MAX_OBJECT;

/// Largest replica that a checkpoint carries in bytes. Two of them, and twice what has to be written between
/// two, fit the log of a topic with room to spare; a larger object is bounded by its log.
pub const MAX_CHECKPOINT: usize = 2 * 1024 * 1024;

/// Bytes of a checkpoint that one entry carries.
pub const MAX_PIECE: usize = 64 * 1024;

/// Most entries that carry one checkpoint.
pub const MAX_PIECES: u32 = MAX_CHECKPOINT.div_ceil(MAX_PIECE) as u32;

/// Least bytes in the log between two checkpoints; at least twice the size of the replica.
pub const CHECKPOINT_BYTES: u64 = 2 * 1024 * 1024;

/// Bytes in the log since the checkpoint before the last at which an object with an owner takes no further
/// local writes: they leave room for what has to come then.
pub const MAX_UNCOVERED: u64 = 9 * 1024 * 1024;

/// Most checkpoints remembered that are not the ones a replica stands on.
pub const MAX_CHECKPOINTS: usize = 16;

/// Longest name of an object in bytes.
pub const MAX_NAME: usize = 256;

/// Most objects open at once.
pub const MAX_OPEN: usize = 128;

/// Most objects known, open or not.
pub const MAX_OBJECTS: usize = 1024;

/// Commands that wait for one object; callers wait beyond it.
pub const MAX_COMMANDS: usize = 256;

/// Notes of an object that are held for its watchers; who is further behind is told that it lagged.
pub const MAX_WATCHED: usize = 256;

/// Most agents with a role.
pub const MAX_WRITERS: usize = 1024;

/// Most changes of a policy in the life of an object; the owner's further ones are refused.
pub const MAX_POLICY_CHANGES: usize = 4096;

/// Most chains of a removed writer that a change names.
pub const MAX_CUTS: usize = 1024;

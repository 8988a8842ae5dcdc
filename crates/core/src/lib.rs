//! What every x0x layer shares, and nothing more: ids, the bounded codec, time, the [`Machine`]
//! trait, seeded randomness, rate bounds, the address policy and collections with caps.
//!
//! This crate knows no cryptography and no async runtime. Ids are plain 32-byte values here; how
//! they derive from keys is the business of `x0x-identity`.
//!
//! ```
//! use x0x_core::{AgentId, IndexedSet, SeededRng};
//!
//! let id: AgentId = "0101010101010101010101010101010101010101010101010101010101010101".parse()?;
//! assert_eq!(id.to_string().len(), 64);
//!
//! // A machine draws its randomness from a seed, so that a run can be replayed.
//! let mut rng = SeededRng::from_seed([7; 32]);
//! let mut peers = IndexedSet::new();
//! peers.insert(id);
//! assert_eq!(peers.choose(&mut rng), Some(&id));
//! # Ok::<(), x0x_core::ParseIdError>(())
//! ```

mod address;
mod bucket;
mod codec;
mod collections;
mod id;
mod machine;
mod metric;
mod protocol;
mod rng;
mod scope;
mod time;

pub use address::{MAX_ADDRESSES, PeerAddr};
pub use bucket::TokenBucket;
pub use codec::{DecodeError, decode_bounded, fixed_bytes};
pub use collections::{BoundedQueue, IndexedSet, QueueFull};
pub use id::{AgentId, MachineId, ParseIdError, TopicId, UserId};
pub use machine::Machine;
pub use metric::{Counter, Gauge, Metric, MetricKind};
pub use protocol::{Protocol, StreamClass};
pub use rng::SeededRng;
pub use scope::{Scope, dialable, may_name};
pub use time::{Clock, ManualClock, SystemClock, Tick, WallTime};

//! Finding agents without a server: each agent announces itself on a gossip topic, and every node
//! keeps a bounded cache of those it heard of.
//!
//! An announcement is believed when pubsub verified that the agent itself published it, and when the
//! binding in it proves the machine. [`DiscoveryCache`] and [`Discoverer`] are pure; [`Discovery`]
//! runs them over a [`PubSub`](x0x_gossip_pubsub::PubSub) (feature `tokio`, the default).
//!
//! Who was not heard of is looked for by id: every agent files a [`SignedRecord`], sealed and under a
//! blinded [`LookupKey`], with the machines that suit the key best. [`Finder`] is the pure machine that
//! files, holds and asks; `Finding` runs it over a transport, and `Discovery::find` joins both ways.
//!
//! ```
//! use std::time::Duration;
//! use x0x_core::{Tick, WallTime};
//! use x0x_identity::{SecretKey, SignedBinding};
//! use x0x_rendezvous::{Announcement, DiscoveryCache, Outcome, Stamp};
//!
//! let (agent, machine) = (SecretKey::generate(), SecretKey::generate());
//! let (agent_id, machine_id) = (agent.public_key().agent_id(), machine.public_key().machine_id());
//! let wall = WallTime::from_millis(1_800_000_000_000);
//!
//! let binding = SignedBinding::issue(&agent, machine_id, wall, Duration::from_secs(3600));
//! let sent = Announcement {
//!     agent: agent_id,
//!     machine: machine_id,
//!     user: None,
//!     addresses: vec!["192.0.2.1:5483".parse()?],
//!     stamp: Stamp { announced_at: wall, counter: 1 },
//! }
//! .encode(&binding);
//!
//! let (news, _binding) = Announcement::decode(&sent)?.verify(agent_id, wall)?;
//! let mut cache = DiscoveryCache::new(Duration::from_secs(900));
//! assert_eq!(cache.announced(Tick::ZERO, wall, news.clone()), Outcome::Kept);
//! assert_eq!(cache.announced(Tick::ZERO, wall, news), Outcome::Replay);
//! assert_eq!(cache.agents(Tick::ZERO, false).len(), 1);
//! assert_eq!(cache.agents(Tick::from_millis(900_000), false).len(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod addresses;
mod config;
#[cfg(feature = "tokio")]
mod driver;
mod error;
mod finder;
#[cfg(feature = "tokio")]
mod finding;
mod frame;
#[cfg(feature = "tokio")]
mod handle;
mod key;
mod metrics;
mod record;
mod state;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod wire;

pub use addresses::{announced_addresses, believable_addresses, usable_addresses};
pub use config::{
    COPIES, DiscoveryConfig, FinderConfig, MAX_DIALS, MAX_DISCOVERED, MAX_FILING_DIALS,
    MAX_FILINGS, MAX_HELD_BYTES, MAX_LINKS, MAX_MISSES, MAX_OFFERS, MAX_PER_KEY, MAX_PER_PROVIDER,
    MAX_SEARCHES, MAX_VOLUNTEERS, MAX_WAITING_FILINGS, MAX_WALKS, MIN_ANNOUNCE_INTERVAL,
    MIN_REFILE, RECORD_VALIDITY,
};
#[cfg(feature = "tokio")]
pub use driver::LocalAgent;
pub use error::{AnnounceError, FindError, RecordError, VerifyError};
pub use finder::{Finder, FinderInput, FinderOutput};
#[cfg(feature = "tokio")]
pub use finding::{Candidates, Finding, FindingParts};
pub use frame::{
    Frame, MAX_FOUND, MAX_FRAME, MAX_HOPS, MAX_REFERRALS, MAX_REFERRED, MAX_SEALED, Referral,
};
#[cfg(feature = "tokio")]
pub use handle::Discovery;
pub use key::{Distance, EPOCH, LookupKey, SEAL_OVERHEAD, Subject, epoch, open, seal};
pub use metrics::{DiscoveryMetrics, FinderMetrics};
pub use record::{MAX_RECORD, RECORD_DOMAIN, Record, RecordIn, SignedRecord};
pub use state::{DiscoveredAgent, Discoverer, DiscoveryCache, Input, Outcome, Output};
pub use wire::{ANNOUNCE_TOPIC, Announcement, AnnouncementIn, MAX_ANNOUNCEMENT, Stamp};

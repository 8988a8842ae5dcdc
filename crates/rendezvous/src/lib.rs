//! Finding agents without a server: each agent announces itself on a gossip topic, and every node
//! keeps a bounded cache of those it heard of.
//!
//! An announcement is believed when pubsub verified that the agent itself published it, and when the
//! binding in it proves the machine. [`DiscoveryCache`] and [`Discoverer`] are pure; [`Discovery`]
//! runs them over a [`PubSub`](x0x_gossip_pubsub::PubSub) (feature `tokio`, the default).
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
//! let news = Announcement::decode(&sent)?.verify(agent_id, wall)?;
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
#[cfg(feature = "tokio")]
mod handle;
mod metrics;
mod state;
mod wire;

pub use addresses::{believable_addresses, usable_addresses};
pub use config::{DiscoveryConfig, MAX_DISCOVERED, MIN_ANNOUNCE_INTERVAL};
#[cfg(feature = "tokio")]
pub use driver::LocalAgent;
pub use error::{AnnounceError, VerifyError};
#[cfg(feature = "tokio")]
pub use handle::Discovery;
pub use metrics::DiscoveryMetrics;
pub use state::{DiscoveredAgent, Discoverer, DiscoveryCache, Input, Outcome, Output};
pub use wire::{ANNOUNCE_TOPIC, Announcement, AnnouncementIn, MAX_ANNOUNCEMENT, Stamp};

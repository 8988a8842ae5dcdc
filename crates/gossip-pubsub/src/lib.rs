//! Topic logs of signed runs, and their dissemination to every subscriber.
//!
//! A topic is a set of hash-chained logs, one for each author. Consecutive entries travel as a run
//! under one ML-DSA-65 signature; the publisher signs whatever is queued whenever its signer is free,
//! so that one message at rest leaves at once and a burst is amortised. Runs are forwarded exactly
//! as their author sent them.
//!
//! | where | what |
//! |---|---|
//! | [`PubSub`] | the trait that the layers above hold |
//! | [`Gossip`] | the service over an [`x0x_transport::Transport`]; the overlay's neighbours are its links |
//! | [`LogStore`] | where the logs outlive the service |
//! | [`PubSubMachine`] | logs, links and subscribers as a pure state machine |
//! | [`Publisher`] | the bounded queue in front of the signer |
//! | [`RunIn`], [`Run`] | what a peer sent, and what was verified; nothing else is accepted |
//! | [`Retention`] | how long an entry is kept: its class |
//! | [`Limits`] | every bound, with [`Limits::memory_bound`] |
//!
//! Runs spread along a tree for each topic, directed per author, and what the tree does not bring is
//! found by announcements and by comparing logs; `docs/protocol/pubsub.md` says how.
//!
//! The log is the queue: a link and a subscription are positions in it. A slow one loses nothing
//! until retention evicts what it has not read, and then is told.
//!
//! ```
//! use x0x_core::WallTime;
//! use x0x_gossip_pubsub::{Limits, NetworkId, Publisher, RunIn, epoch_at, topic_id};
//! use x0x_identity::SecretKey;
//!
//! let key = SecretKey::generate();
//! let (network, topic) = (NetworkId::from_name("example"), topic_id("news"));
//! let now = WallTime::from_millis(1_800_000_000_000);
//! let author = key.public_key().agent_id();
//! let mut publisher = Publisher::new(network, author, epoch_at(now, 7), Limits::default());
//! assert_eq!(publisher.publish(now, topic, "one".into())?, 1);
//! assert_eq!(publisher.publish(now, topic, "two".into())?, 2);
//!
//! // The signer is free and takes both at once; a receiver checks one signature.
//! let run = publisher.next_run().expect("two entries wait").sign(&key)?;
//! publisher.signed(&run);
//! let received = RunIn::decode(run.encoded().clone())?.verify(key.public_key())?;
//! assert_eq!(received.body().entries().len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod compare;
mod config;
#[cfg(feature = "tokio")]
mod driver;
mod error;
#[cfg(feature = "tokio")]
mod handle;
mod link;
mod log;
mod metrics;
mod missing;
mod publisher;
#[cfg(feature = "tokio")]
mod pubsub;
mod retention;
mod run;
mod state;
mod store;
mod subscriber;
mod time;
mod wire;

pub use config::{
    Dissemination, ENTRY_OVERHEAD, FREE_EPOCHS, Limits, MAX_ANNOUNCED, MAX_ANNOUNCERS,
    MAX_CONTROL_ITEMS, MAX_EPOCHS, MAX_FRAME, MAX_HEADS, MAX_INLINE_HEADS, MAX_OWN_TOPICS,
    MAX_PAYLOAD, MAX_RANGES, MAX_RUN_BYTES, MAX_RUN_ENTRIES, MAX_SUBSCRIBED_TOPICS,
    MAX_WAITING_LINKS, RUN_OVERHEAD,
};
pub use error::{PublishError, StartError, SubscribeError, VerifyError, WaitError, WireError};
#[cfg(feature = "tokio")]
pub use handle::{Gossip, GossipConfig, Subscription};
pub use metrics::PubSubMetrics;
pub use publisher::Publisher;
#[cfg(feature = "tokio")]
pub use pubsub::{Accepted, PubSub, Published};
pub use retention::{ChainEnd, EPHEMERAL_FOR, Retention, epoch_at};
pub use run::{
    Entry, EntryHash, NetworkId, RUN_DOMAIN, Run, RunBody, RunIn, UnsignedRun, topic_id,
};
pub use state::{
    CheckedRun, Equivocation, Input, LinkSnapshot, Output, PendingRun, PubSubMachine, Snapshot,
    TableSnapshot, TopicSnapshot,
};
#[cfg(feature = "tokio")]
pub use store::LogStore;
pub use store::{
    HeldOf, LoadLimits, LogChange, RestoredTopic, StoreError, StoredChain, StoredRun, StoredTopic,
};
#[cfg(feature = "test-util")]
pub use store::{MemoryLogStore, check_log_store};
pub use subscriber::{Batch, Cursor, Delivery, Message, Start, SubscriptionId};
pub use time::HybridTime;
pub use wire::{
    AnnounceIn, DigestIn, FindPeersIn, FrameIn, GraftIn, HeadsIn, MAX_FOUND, PeersFoundIn, PruneIn,
    PublishIn, RangesIn, SubscriptionsIn, WantIn,
};

#[cfg(feature = "test-util")]
pub mod testing;

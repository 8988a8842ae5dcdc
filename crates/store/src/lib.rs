//! The embedded database: one SQLite file behind the layers' store traits.
//!
//! A commit is one write to a plain file, the tail, and holds from then on. One thread owns the
//! writing connection and applies what gathered in one transaction, so that many small commits share
//! its cost. Topics are read by a connection of
//! their own, which lives as long as the load, and the journal is written back by another. Nothing is held in memory but a small page cache.
//!
//! | where | what |
//! |---|---|
//! | [`SqliteStore`] | the handle; implements [`x0x_gossip_pubsub::LogStore`], [`x0x_direct::mail::MailStore`], [`x0x_direct::letters::LetterStore`] and [`x0x_gossip_crdt::CrdtStore`] |
//! | [`GroupsFile`] | the state of encrypted groups, in a file of its own; implements [`x0x_mls::MlsStore`] |
//! | [`StoreConfig`], [`Durability`] | where, how safe, how large |
//! | [`OpenError`] | why a file is refused; a damaged one is set aside, not refused |
//! | [`StoreMetrics`] | what is counted |
//!
//! ```
//! use std::sync::Arc;
//!
//! use x0x_core::WallTime;
//! use x0x_gossip_pubsub::{
//!     Limits, LoadLimits, LogChange, LogStore, NetworkId, Publisher, epoch_at, topic_id,
//! };
//! use x0x_identity::SecretKey;
//! use x0x_store::{SqliteStore, StoreConfig};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let (key, topic) = (SecretKey::generate(), topic_id("news"));
//! let now = WallTime::from_millis(1_800_000_000_000);
//! let author = key.public_key().agent_id();
//! let network = NetworkId::from_name("example");
//! let mut publisher = Publisher::new(network, author, epoch_at(now, 7), Limits::default());
//! publisher.publish(now, topic, "one".into())?;
//! let run = Arc::new(publisher.next_run().expect("an entry waits").sign(&key)?);
//!
//! let store = SqliteStore::open(StoreConfig::at(dir.path().join("x0x.db"))).await?;
//! let key = key.public_key().clone();
//! let append =
//!     LogChange::Append { incarnation: 1, position: 0, missed: 0, begins: true, run, key };
//! store.commit(vec![append]).await?;
//! store.close().await?;
//!
//! let store = SqliteStore::open(StoreConfig::at(dir.path().join("x0x.db"))).await?;
//! let held = store.load(topic, LoadLimits::from(&Limits::default())).await?;
//! assert_eq!(held.expect("the topic is held").runs.len(), 1);
//! # Ok(())
//! # }
//! ```

mod config;
mod error;
mod file;
mod gone;
mod groups;
mod handle;
mod journal;
mod letters;
mod load;
mod logs;
mod mail;
mod mail_read;
mod metrics;
mod objects;
mod reader;
mod salvage;
mod schema;
mod seal;
mod tail;
mod writer;

pub use config::{
    Durability, MAX_COMMANDS, MAX_DAMAGED_FILES, MAX_GROUP_BYTES, MAX_GROUP_CHANGES,
    MAX_TAIL_BYTES, MAX_TAIL_CHANGES, MIN_FILE_BYTES, StoreConfig,
};
pub use error::OpenError;
pub use groups::{GROUPS_FILE, GroupsFile};
pub use handle::SqliteStore;
pub use metrics::StoreMetrics;

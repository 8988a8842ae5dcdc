//! Replicated objects over topic logs.
//!
//! An object is one topic. Its operations are the topic's entries, so that an operation's name is its entry's
//! place in its author's chain, and its author is proven. Every replica applies them in an order that respects
//! causality, skips the same invalid ones, and so comes to the same state.
//!
//! | where | what |
//! |---|---|
//! | [`tasks`], [`kv`] | task lists and key-value stores |
//! | [`Object`] | what a type implements; [`types`] are the parts it is made of |
//! | [`Objects`], [`Replica`] | what users hold |
//! | [`Descriptor`] | which object: type, name and owner |
//! | [`Policy`], [`PolicyChange`] | who may write |
//! | [`ObjectMachine`] | one replica as a pure state machine |
//! | [`OperationIn`] | an operation as it travels |
//! | [`CrdtStore`] | where replicas survive a restart |
//!
//! ```
//! use std::{convert::Infallible, sync::Arc};
//! use x0x_core::{AgentId, Machine, Tick, WallTime};
//! use x0x_gossip_crdt::{Descriptor, Entry, Input, Object, ObjectMachine};
//! # use x0x_gossip_crdt::testing::{Sample, SampleOp};
//!
//! let (alice, bob) = (AgentId::new([1; 32]), AgentId::new([2; 32]));
//! let object = Descriptor::open(Sample::KIND, "shared").id();
//! let replica = |me| ObjectMachine::<Sample>::new(object, None, me, Arc::default());
//! let (mut hers, mut his) = (replica(alice), replica(bob));
//!
//! // Alice's write becomes an entry of the log, which brings it to both.
//! let now = WallTime::from_millis(1_800_000_000_000);
//! let prepared = hers.prepare::<Infallible>(now, &SampleOp::Add("milk".to_owned()))?;
//! for payload in prepared.payloads {
//!     let entry = Entry { author: alice, epoch: 1, seq: 1, time: now, payload };
//!     hers.handle(Tick::ZERO, Input::Entry(entry.clone()));
//!     his.handle(Tick::ZERO, Input::Entry(entry));
//! }
//! assert!(his.state().elements.contains(&"milk".to_owned()));
//! assert_eq!(hers.hash(), his.hash());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checkpoint;
mod codec;
mod config;
mod descriptor;
mod dot;
#[cfg(feature = "tokio")]
mod driver;
mod error;
#[cfg(feature = "tokio")]
mod handle;
pub mod kv;
mod metrics;
#[cfg(test)]
mod model;
#[cfg(feature = "tokio")]
mod notes;
mod object;
mod policy;
mod state;
#[cfg(feature = "tokio")]
mod store;
pub mod tasks;
#[cfg(feature = "test-util")]
pub mod testing;
pub mod types;
mod wire;

pub use checkpoint::Checkpoint;
pub use codec::{Decoder, Encoder};
pub use config::*;
pub use descriptor::{Descriptor, MAX_KIND};
pub use dot::{ActorTag, Dot, Stamp};
pub use error::{CrdtStoreError, OpenError, Reason, WriteError};
#[cfg(feature = "tokio")]
pub use handle::{Known, Note, Objects, ObjectsConfig, Replica, Status};
pub use metrics::CrdtMetrics;
#[cfg(feature = "tokio")]
pub use notes::Watch;
pub use object::{Invalid, Object, OpContext, WriteContext};
pub use policy::{Policy, PolicyChange, Role};
pub use state::{Change, Entry, Input, ObjectMachine, Output, Prepared, Refusal, WriteId};
#[cfg(feature = "tokio")]
pub use store::{BoxFuture, CrdtStore, Saved};
pub use wire::{Body, Named, OperationIn};

/// How long operations are kept in their topic's log.
#[cfg(feature = "tokio")]
pub(crate) const RETENTION: x0x_gossip_pubsub::Retention = x0x_gossip_pubsub::Retention::Durable;

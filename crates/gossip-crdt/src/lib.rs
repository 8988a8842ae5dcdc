//! Replicated objects over topic logs.

mod codec;
mod config;
mod dot;
mod error;
pub mod kv;
mod metrics;
#[cfg(test)]
mod model;
mod object;
mod policy;
mod state;
pub mod tasks;
#[cfg(feature = "test-util")]
pub mod testing;
pub mod types;
mod wire;

pub use codec::{Decoder, Encoder};
pub use config::*;
pub use dot::{ActorTag, Dot, Stamp};
pub use error::{CrdtStoreError, OpenError, Reason, WriteError};
pub use metrics::CrdtMetrics;
pub use object::{Invalid, Object, OpContext, WriteContext};
pub use policy::{Policy, PolicyChange, Role};
pub use state::{Change, Entry, Input, ObjectMachine, Output, Prepared, Refusal, WriteId};
pub use wire::{Body, Named, OperationIn};

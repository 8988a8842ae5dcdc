//! Replicated objects over topic logs.

mod codec;
mod dot;
pub mod kv;
#[cfg(test)]
mod model;
mod object;
mod policy;
pub mod tasks;
pub mod types;

pub use codec::{Decoder, Encoder};
pub use dot::{ActorTag, Dot, Stamp};
pub use object::{Invalid, Object, OpContext, WriteContext};
pub use policy::{MAX_CUTS, MAX_POLICY_CHANGES, MAX_WRITERS, Policy, PolicyChange, Role};

/// Largest operation of a type in bytes: a value of 64 KiB inline, and what names it.
pub const MAX_OP: usize = 66 * 1024;

/// Bytes of content at which an object takes no further local writes.
pub const MAX_OBJECT: usize = 64 * 1024 * 1024;

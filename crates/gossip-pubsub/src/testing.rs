//! For tests of this crate and of those above it: an in-memory fake of [`PubSub`](crate::PubSub)
//! and frames of a hostile peer.

mod fake;
mod hostile;

pub use fake::{LocalHub, LocalPubSub};
pub use hostile::{HostileCase, RunForge, floor_frame, hostile_cases, subscribe_frame, want_frame};

//! For tests of this crate and of those above it: frames of a hostile peer.

mod hostile;

pub use hostile::{HostileCase, RunForge, hostile_cases, subscribe_frame};

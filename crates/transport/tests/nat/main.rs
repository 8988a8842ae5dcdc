//! Nodes with the QUIC engine over a simulated internet with address translators, in virtual time.
#![cfg(all(feature = "quic", feature = "test-util"))]

mod dead;
mod dialback;
mod punch;
mod reach;
mod relay;
mod schedule;
mod stream;
mod support;
mod times;

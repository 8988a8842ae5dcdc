//! The QUIC engine over real UDP sockets on loopback.
#![cfg(feature = "quic")]

mod first_flight;
mod handshake;
mod lifetime;
mod paths;
mod refusals;
mod strangers;
mod streams;
mod support;
mod tcp;

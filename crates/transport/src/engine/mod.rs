//! The QUIC engine: links over UDP with post-quantum TLS 1.3. quinn's and rustls' names appear only
//! here.
//!
//! - `config`: limits, timers and windows, with reasons
//! - `tls`: key exchange, keys and peer verification; there is no classical or fallback setting
//! - `sessions`: TLS resumption state with an age limit
//! - `admission`: which incoming handshakes are worth a signature
//! - `endpoint`: [`QuicEngine`], which dials and accepts
//! - `acceptor`: incoming handshakes
//! - `connection`: one link and its streams
//! - `failure`: why handshakes fail
//! - `socket`: the UDP socket, which survives every I/O error
//! - `paths`: virtual addresses and probes on that socket
//! - `stream`: packets over TCP, where UDP does not pass
//! - `ids`: connection ids
//! - `sim`: the socket of a simulated internet, for tests
//! - `window`: the first bytes of a connection are not paced
//! - `addresses`: what a wildcard binding means to a peer
//! - `metrics`: [`QuicMetrics`]
//!
//! A dial takes one round trip: the first flight goes twice, which leaves the acceptor room under the amplification limit
//! for its hello behind its handshake. A link is up on the dialling side half a round trip before the acceptor has verified the dialler.
//! If that fails, the dialler's link ends with [`LinkClosed::Failed`](crate::link::LinkClosed) as
//! soon as the refusal arrives: a dialler trusts a link only after the peer's session messages.

mod acceptor;
mod activity;
mod addresses;
mod admission;
mod config;
mod connection;
mod endpoint;
mod failure;
mod ids;
mod metrics;
mod paths;
mod sessions;
#[cfg(feature = "test-util")]
mod sim;
mod socket;
mod stream;
mod timer;
mod tls;
mod window;

pub use config::{QuicConfig, QuicLimits, StreamConfig};
pub use endpoint::{BindError, QuicEngine};
pub use metrics::QuicMetrics;
#[cfg(feature = "test-util")]
pub use sim::SimNet;
pub use stream::StreamMetrics;
pub use tls::key_exchange_groups;

#[cfg(test)]
mod tests;

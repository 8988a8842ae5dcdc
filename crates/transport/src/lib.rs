//! Authenticated post-quantum sessions between machines.
//!
//! A [`Node`] keeps at most one session per peer over any [`Engine`](link::Engine), whoever dialled and
//! however many dials raced. Each end proves its machine by its TLS key and its agents by signed
//! bindings. Messages of a [`Protocol`](x0x_core::Protocol) travel in order on the stream of its class, so a
//! large transfer never delays a probe; a consumer that lags slows its senders down, and nothing is
//! dropped on the way. Layers above hold the narrow [`Transport`] trait.
//!
//! - [`frame`], [`wire`], [`state`]: framing, control messages, and the machine of sessions; pure
//! - [`sock`]: probes and paths on the UDP port, and packets in streams; pure
//! - [`punch`]: how machines behind address translators agree to send to each other at once; pure
//! - [`relay`]: how machines that cannot reach each other are joined by a third one; pure
//! - [`dialback`]: whether somebody to whom this machine never sent anything reaches it; pure
//! - [`reach`]: what peers see of this machine, and what of it is to be believed; pure
//! - [`portmap`]: a port of the gateway that leads to this machine; a pure machine and its shell
//! - [`interfaces`]: the addresses of this machine, and when they change
//! - `lan` (a feature): machines on the same links, found by multicast DNS
//! - `driver`, `queue`, `inbound`, `table`: the tokio shell of that machine
//! - [`link`]: the seam to what carries the streams: the QUIC engine (`quic`, a feature) or the one in
//!   memory (`testing`, a feature)
//!
//! ```
//! use bytes::Bytes;
//! use x0x_core::{PeerAddr, Protocol};
//! use x0x_transport::{InboundEvent, Transport, testing};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let network = testing::MemoryNetwork::new(1, testing::LinkModel::default());
//! let (alice, bob) = (testing::node(&network, 1), testing::node(&network, 2));
//! let mut inbox = bob.inbound(Protocol::Direct)?;
//!
//! let session = alice.connect(PeerAddr::known(bob.local_id(), bob.local_addresses())).await?;
//! alice.send(session.peer, Protocol::Direct, Bytes::from_static(b"hello")).await?;
//!
//! assert!(matches!(inbox.recv().await, Some(InboundEvent::Up(_))));
//! assert!(matches!(inbox.recv().await, Some(InboundEvent::Message { message, .. }) if message == "hello"));
//! alice.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[macro_use]
mod counters;

#[cfg(feature = "tokio")]
mod ask;
pub mod config;
pub mod dialback;
#[cfg(feature = "tokio")]
mod driver;
pub mod error;
pub mod frame;
#[cfg(feature = "tokio")]
mod handle;
#[cfg(feature = "tokio")]
mod inbound;
pub mod interfaces;
#[cfg(feature = "lan")]
pub mod lan;
pub mod link;
pub mod metrics;
#[cfg(any(feature = "quic", feature = "lan"))]
mod outgoing;
#[cfg(feature = "tokio")]
mod own;
pub mod portmap;
mod prefix;
pub mod punch;
#[cfg(feature = "tokio")]
mod queue;
mod rates;
pub mod reach;
pub mod record;
pub mod relay;
pub mod sock;
pub mod state;
#[cfg(feature = "tokio")]
mod table;
#[cfg(feature = "test-util")]
pub mod testing;
#[cfg(feature = "tokio")]
mod transport;
pub mod wire;

#[cfg(feature = "quic")]
mod engine;

pub use config::SessionConfig;
pub use metrics::TransportMetrics;
pub use reach::{ExternalAddress, Mapping, Reach};
pub use record::{PeerRecord, ReachClass, SignedRecord};
pub use relay::RelayConfig;
#[cfg(feature = "quic")]
pub mod quic {
    //! The [`Engine`](crate::link::Engine) over QUIC with post-quantum TLS.
    #[cfg(feature = "test-util")]
    pub use crate::engine::SimNet;
    pub use crate::engine::{
        BindError, QuicConfig, QuicEngine, QuicLimits, QuicMetrics, StreamConfig, StreamMetrics,
        key_exchange_groups,
    };
}
#[cfg(feature = "tokio")]
pub use ask::{ask, fill};
#[cfg(feature = "tokio")]
pub use handle::{ClosedNode, LocalHello, Node};
#[cfg(feature = "tokio")]
pub use transport::{BoxFuture, Inbound, InboundEvent, PathKind, SessionInfo, Side, Transport};

/// Most agents that one machine may prove in a session hello.
pub const MAX_AGENTS: usize = 8;

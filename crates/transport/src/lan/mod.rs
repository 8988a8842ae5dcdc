//! Machines on the same links, found by multicast DNS (RFC 6762, RFC 6763): no server, no default route.
//!
//! A machine announces the service `_x0x._udp` under a name that says nothing and changes every day and at
//! each start, with the addresses that it has on that link and its port. Whoever dials it learns who it is;
//! only by choice does the announcement say so.
//!
//! - [`wire`]: the packets; pure
//! - [`state`]: who announces, asks and answers when, and what was found; pure
//! - [`Station`]: the link, as the machine sees it; the system's is [`SystemStation`]
//!
//! Nothing that is heard is trusted: it names places where a machine may be dialled, which then proves itself.

mod driver;
mod socket;
pub mod state;
pub mod wire;

use std::{fmt, net::SocketAddr};

use bytes::Bytes;

pub use self::{
    driver::{LanDiscovery, MAX_FINDS_WAITING, start},
    socket::SystemStation,
    state::{Lan, LanConfig, LanMetrics},
    wire::{Find, Instance},
};
use crate::{
    interfaces::{Interface, Network},
    link::BoxFuture,
};

/// The UDP port of multicast DNS.
pub const PORT: u16 = 5353;

/// This machine's place on its links.
pub trait Station: Send + Sync + fmt::Debug + 'static {
    /// Listens on the links of these interfaces, too.
    fn join(&self, network: &Network);

    /// Sends a packet to all on the link of an interface, from its family of addresses. It may be lost.
    fn send(&self, via: &Interface, packet: &[u8]);

    /// The next packet, which may be one of this machine's own, and where it came from. Dropping the future
    /// loses nothing.
    fn receive(&self) -> BoxFuture<'_, (SocketAddr, Bytes)>;
}

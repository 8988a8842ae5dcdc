//! A port of the gateway that leads to this machine, asked for by PCP or NAT-PMP.
//!
//! [`PortMap`] is the machine: it asks, renews at half of a lease's life, waits longer each time that nobody
//! answers, begins anew at another gateway, and gives the port back at the end. A gateway's word is checked,
//! and even then it is only a hint: the address counts once somebody reached it.

mod state;
pub mod wire;

#[cfg(feature = "tokio")]
mod driver;
#[cfg(feature = "tokio")]
mod route;
#[cfg(all(test, feature = "tokio"))]
mod tests;

counters!(
    /// What became of asking gateways for a port.
    PortMapMetrics, "transport_portmap_", {
    asked = "Packets sent to gateways to have a port mapped.",
    mapped = "Mappings granted or renewed.",
    lost = "Mappings that ran out, or whose gateway went.",
    released = "Mappings given back.",
    unanswered = "Questions that no gateway answered.",
    refused_by_gateway = "Questions that a gateway refused.",
    refused_malformed = "Packets that were no answers.",
    refused_unasked = "Answers to no question: none was open, or its nonce, port or protocol was another.",
    refused_address = "Mappings at addresses that are not on the internet.",
    refused_port = "Mappings at ports below 1024.",
    refused_lifetime = "Mappings for less than a minute.",
    socket_errors = "Errors of the socket to the gateway.",
});

#[cfg(feature = "tokio")]
pub use self::driver::{GATEWAY_PORT, PortMapConfig, run};
#[cfg(feature = "tokio")]
pub use self::route::{Gateways, SystemGateways};
pub use self::{
    state::{Input, LIFETIME, Lease, MIN_LIFETIME, Output, PortMap, Way},
    wire::MapProtocol,
};

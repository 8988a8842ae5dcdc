//! What lies under the links on the one UDP port: probes of paths, and which path each peer is at.
//!
//! - [`flows`]: the flows that are open, known at the socket
//! - [`packet`]: probe packets, told apart from QUIC by their first byte, authenticated by a key that both
//!   ends of a flow share
//! - [`prober`]: the machine that finds out which addresses a peer really answers at
//! - [`stream`]: packets in a stream of bytes, where UDP does not pass
//! - [`table`]: virtual addresses, each of which stands for what was dialled, and the real address behind each
//!
//! QUIC's client follows no change of its peer's address. So a link is dialled at a virtual address, and
//! the socket puts the real one in its place; a change of that is invisible to the client, and an ordinary
//! migration to the server (RFC 9000 §9). An address is only put there after a probe was answered from it.

pub mod flows;
pub mod packet;
pub mod prober;
pub mod stream;
pub mod table;

pub use self::{
    flows::KnownFlows,
    packet::{FlowId, FlowKeys, PROBE_LEN, ProbeIn},
    prober::Prober,
    table::PathTable,
};

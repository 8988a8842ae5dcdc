//! Numbers of nodes as ids and addresses, and back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use x0x_core::MachineId;

/// A simulated node, by its place in the world.
pub(super) type Node = u32;

/// Nobody.
pub(super) const NOBODY: Node = u32::MAX;

/// Every honest node has a /24 of its own in 32.0.0.0/5, which reaches as far as the internet does.
const HONEST: u32 = 0x2000_0000;

/// Four /24 prefixes hold all sybils.
const SYBILS: u32 = 0x4000_0000;
const SYBIL_PREFIXES: u32 = 4;
const SYBILS_PER_PREFIX: u32 = 250;
const PORT: u16 = 5483;

/// The id of a node: spread over the id space, with the number at its end.
pub(super) fn machine_id(node: Node) -> MachineId {
    let mut bytes = *blake3::hash(&node.to_be_bytes()).as_bytes();
    bytes[28..].copy_from_slice(&node.to_be_bytes());
    MachineId::new(bytes)
}

/// The node of an id.
pub(super) fn node_of(id: &MachineId) -> Node {
    let [.., a, b, c, d] = *id.as_bytes();
    Node::from_be_bytes([a, b, c, d])
}

/// Where a node listens. `first_sybil` and those after it share few prefixes.
pub(super) fn address(node: Node, first_sybil: Node) -> SocketAddr {
    let (bits, port) = match node.checked_sub(first_sybil) {
        None => (HONEST + (node << 8) + 1, PORT),
        Some(sybil) => {
            let host = sybil / SYBIL_PREFIXES;
            let page = u16::try_from(host / SYBILS_PER_PREFIX).unwrap_or(u16::MAX);
            let prefix = (sybil % SYBIL_PREFIXES) << 8;
            (SYBILS + prefix + host % SYBILS_PER_PREFIX + 1, PORT.saturating_add(page))
        }
    };
    SocketAddr::new(Ipv4Addr::from_bits(bits).into(), port)
}

/// The node that listens at an address.
pub(super) fn node_at(address: SocketAddr, first_sybil: Node) -> Option<Node> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    let bits = ip.to_bits();
    if (HONEST..SYBILS).contains(&bits) {
        return Some((bits - HONEST) >> 8);
    }
    let place = bits.checked_sub(SYBILS)?;
    let page = u32::from(address.port().checked_sub(PORT)?);
    let host = page * SYBILS_PER_PREFIX + (place & 0xff).checked_sub(1)?;
    first_sybil.checked_add(host * SYBIL_PREFIXES + (place >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_addresses_lead_back_to_their_node() {
        for node in [0, 1, 77, 9999, 10_000, 10_001, 12_345, 50_123] {
            assert_eq!(node_of(&machine_id(node)), node);
            assert_eq!(node_at(address(node, 10_000), 10_000), Some(node));
        }
        assert_ne!(address(1, 9).ip(), address(2, 9).ip());
    }
}

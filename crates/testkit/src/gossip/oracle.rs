//! What a flood would do: the first arrivals over the same links with the same latencies.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{
    ids::Node,
    net::{Net, Reach},
    production::VERIFY_MICROS,
};

/// Hops on the way of the last node's first copy, and its time in microseconds, if `source` flooded
/// now: by shortest paths over links that both ends have.
pub(super) fn flood(net: &Net, source: Node, honest: impl Fn(Node) -> bool) -> (u8, u64) {
    let mut done = vec![false; net.hosts.len()];
    let mut heap = BinaryHeap::from([Reverse((0_u64, 0_u8, source))]);
    let mut result = (0, 0);
    while let Some(Reverse((time, hops, node))) = heap.pop() {
        if std::mem::replace(&mut done[node as usize], true) {
            continue;
        }
        result = (result.0.max(hops), time);
        for (peer, latency) in links(net, node) {
            if !done[peer as usize] && honest(peer) {
                let at = time + latency + VERIFY_MICROS;
                heap.push(Reverse((at, hops.saturating_add(1), peer)));
            }
        }
    }
    result
}

/// Peers that a node has a link with, and they with it, with the one-way latency.
pub(super) fn links(net: &Net, node: Node) -> impl Iterator<Item = (Node, u64)> {
    let sessions = net.host(node).sessions.iter();
    sessions.filter_map(|(peer, session)| {
        let link = net.link(*session)?;
        link.is_linked().then_some((*peer, u64::from(link.latency)))
    })
}

/// Sizes of the connected components of these nodes, largest first, and the members of the largest.
pub(super) fn components(net: &Net, nodes: &[Node]) -> (Vec<usize>, Vec<Node>) {
    let mut wanted = vec![false; net.hosts.len()];
    nodes.iter().for_each(|node| wanted[*node as usize] = true);
    let (mut sizes, mut largest) = (Vec::new(), Vec::new());
    for start in nodes {
        if !std::mem::replace(&mut wanted[*start as usize], false) {
            continue;
        }
        let mut members = vec![*start];
        let mut next = 0;
        while let Some(node) = members.get(next).copied() {
            next += 1;
            for (peer, _) in links(net, node) {
                if std::mem::replace(&mut wanted[peer as usize], false) {
                    members.push(peer);
                }
            }
        }
        sizes.push(members.len());
        if members.len() > largest.len() {
            largest = members;
        }
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    (sizes, largest)
}

/// Hosts that newcomers are told of: those that everybody can dial.
pub(super) fn is_contact(net: &Net, node: Node) -> bool {
    let host = net.host(node);
    host.alive && host.reach == Reach::Public
}

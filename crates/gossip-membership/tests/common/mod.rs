//! The overlay machine in the simulator.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
};

use x0x_core::{MachineId, PeerAddr, Scope};
use x0x_gossip_membership::{
    DialFailure, HyParView, Input, Message, MessageIn, Output, OverlayConfig, Peer,
};
use x0x_testkit::{Adapter, Effect, Graph, LinkModel, NetEvent, NodeId, Swarm};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Up(NodeId),
    Down(NodeId),
}

pub(crate) struct Overlay {
    /// Which nodes a node is told of at its start.
    pub(crate) bootstrap: fn(NodeId) -> Vec<NodeId>,
    pub(crate) config: OverlayConfig,
    /// Who dialled whom.
    dialled: BTreeSet<(NodeId, NodeId)>,
}

pub(crate) type Overlays = Swarm<Overlay>;

pub(crate) fn id(node: NodeId) -> MachineId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(node as u64 + 1).to_be_bytes());
    MachineId::new(bytes)
}

pub(crate) fn node(id: MachineId) -> NodeId {
    let (number, _) = id.as_bytes().split_first_chunk::<8>().expect("ids are longer");
    u64::from_be_bytes(*number) as usize - 1
}

pub(crate) fn address(node: NodeId) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 + node as u32), 5483))
}

pub(crate) fn peer(node: NodeId) -> Peer {
    Peer::new(id(node), [address(node)])
}

impl Adapter for Overlay {
    type Machine = HyParView;
    type Message = Message;
    type Dial = PeerAddr;
    type Event = Change;

    fn machine(&mut self, node: NodeId, seed: u64) -> HyParView {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        HyParView::new(id(node), self.config.clone(), bytes).expect("a valid configuration")
    }

    fn input(&mut self, at: NodeId, event: NetEvent<Message, PeerAddr>) -> Option<Input> {
        Some(match event {
            NetEvent::Up(from) => {
                let dialled = self.dialled.remove(&(at, from));
                Input::Up { peer: peer(from), path: Scope::Site, dialled }
            }
            NetEvent::Down(from) => Input::Down(id(from)),
            NetEvent::Message { from, message } => {
                // What some nodes hear goes through the codec; for all it would be slow.
                let message = if at < 8 { recoded(at, &message) } else { message };
                Input::Message { peer: id(from), message }
            }
            NetEvent::Dialled { dial, peer } => {
                Input::DialResult { to: dial, result: peer.map(id).ok_or(DialFailure::Unreachable) }
            }
            _ => return None,
        })
    }

    fn output(
        &mut self,
        at: NodeId,
        output: Output,
        effects: &mut Vec<Effect<Message, PeerAddr, Change>>,
    ) {
        effects.push(match output {
            Output::Send { to, message } => Effect::Send { to: node(to), message },
            Output::Dial(dial) => {
                let SocketAddr::V4(first) = dial.addresses[0] else { unreachable!("all are IPv4") };
                let to = (first.ip().to_bits() - 0x0a00_0000) as usize;
                self.dialled.insert((at, to));
                Effect::Connect { to: Some(to), dial }
            }
            Output::NeighborUp(peer) => Effect::Emit(Change::Up(node(peer))),
            Output::NeighborDown(peer) => Effect::Emit(Change::Down(node(peer))),
            _ => return,
        });
    }
}

fn recoded(at: NodeId, message: &Message) -> Message {
    let recoded = MessageIn::decode(&message.encode()).and_then(|m| m.verify(id(at)));
    recoded.expect("nodes send valid messages").message
}

/// A swarm whose nodes all know node 0.
pub(crate) fn swarm(seed: u64) -> Overlays {
    let bootstrap = |node| if node == 0 { vec![] } else { vec![0] };
    let config = OverlayConfig::default();
    let overlay = Overlay { bootstrap, config, dialled: BTreeSet::new() };
    Swarm::new(seed, LinkModel::default(), overlay)
}

/// Adds a node and tells it where to begin.
pub(crate) fn join(swarm: &mut Overlays) -> NodeId {
    let node = swarm.add();
    begin(swarm, node, &[]);
    node
}

/// Tells a node that was just started where to begin.
pub(crate) fn begin(swarm: &mut Overlays, node: NodeId, cached: &[NodeId]) {
    let bootstrap = (swarm.adapter_mut().bootstrap)(node).into_iter().map(address).collect();
    let cached = cached.iter().copied().map(peer).collect();
    swarm.input(node, Input::LocalAddresses(vec![address(node)]));
    swarm.input(node, Input::Start { bootstrap, cached });
}

/// The overlay as the running nodes see it.
pub(crate) fn graph(swarm: &Overlays) -> Graph {
    let mut graph = Graph::default();
    for (id, machine) in swarm.running() {
        graph.insert(id, machine.active().map(node));
    }
    graph
}

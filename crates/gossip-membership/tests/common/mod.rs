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
    /// With sybils all are on the internet: these and the later ones in four networks, each other
    /// node in one of its own.
    first_sybil: Option<NodeId>,
    /// Sybils and the others that they have a session with, to be asked for a link.
    pub(crate) pushes: Vec<(NodeId, NodeId)>,
    sybils: usize,
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

impl Overlay {
    pub(crate) fn is_sybil(&self, node: NodeId) -> bool {
        self.first_sybil.is_some_and(|first| node >= first)
    }

    fn address(&self, node: NodeId) -> SocketAddr {
        let bits = match self.first_sybil {
            None => return address(node),
            Some(first) if node < first => 0x2000_0000 + ((node as u32) << 8),
            Some(first) => {
                let place = (node - first) as u32;
                0x4000_0000 + ((place % 4) << 8) + place / 4
            }
        };
        SocketAddr::from((Ipv4Addr::from_bits(bits), 5483))
    }

    fn peer(&self, node: NodeId) -> Peer {
        Peer::new(id(node), [self.address(node)])
    }

    fn node_at(&self, address: SocketAddr) -> Option<NodeId> {
        (0..2000).find(|node| self.address(*node) == address)
    }

    /// Sybils tell of their like only, and keep every place that they have.
    fn twisted(&mut self, at: NodeId, message: Message) -> Option<Message> {
        if !self.is_sybil(at) {
            return Some(message);
        }
        let mut like = |entries: Vec<Peer>| -> Vec<Peer> {
            let first = self.first_sybil.unwrap_or_default();
            let mut next = || {
                self.sybils = (self.sybils + 7) % 200;
                self.peer(first + self.sybils)
            };
            entries.iter().map(|_| next()).collect()
        };
        Some(match message {
            Message::Disconnect { .. } => return None,
            Message::Shuffle { id, ttl, entries } => {
                Message::Shuffle { id, ttl, entries: like(entries) }
            }
            Message::ShuffleReply { id, entries } => {
                Message::ShuffleReply { id, entries: like(entries) }
            }
            Message::NeighborReply { accept, entries } => {
                Message::NeighborReply { accept, entries: like(entries) }
            }
            other => other,
        })
    }
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
                if self.is_sybil(at) && !self.is_sybil(from) {
                    self.pushes.push((at, from));
                }
                let path = self.first_sybil.map_or(Scope::Site, |_| Scope::Global);
                Input::Up { peer: self.peer(from), path, dialled }
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
            Output::Send { to, message } => match self.twisted(at, message) {
                Some(message) => Effect::Send { to: node(to), message },
                None => return,
            },
            Output::Dial(dial) => {
                let to = match dial.id {
                    Some(id) => Some(node(id)),
                    None => self.node_at(dial.addresses[0]),
                };
                self.dialled.extend(to.map(|to| (at, to)));
                Effect::Connect { to, dial }
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
    swarm_with_sybils(seed, None)
}

/// The same, where the nodes from a given one on are sybils.
pub(crate) fn swarm_with_sybils(seed: u64, first_sybil: Option<NodeId>) -> Overlays {
    let bootstrap = |node| if node == 0 { vec![] } else { vec![0] };
    let config = OverlayConfig::default();
    let overlay = Overlay {
        bootstrap,
        config,
        dialled: BTreeSet::new(),
        first_sybil,
        pushes: Vec::new(),
        sybils: 0,
    };
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
    let overlay = swarm.adapter_mut();
    let bootstrap = (overlay.bootstrap)(node).into_iter().map(|n| overlay.address(n)).collect();
    let cached = cached.iter().map(|n| overlay.peer(*n)).collect();
    let own = overlay.address(node);
    swarm.input(node, Input::LocalAddresses(vec![own]));
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

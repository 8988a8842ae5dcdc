//! A model of gossipsub v1.1 with the parameters that libp2p's implementations have as defaults:
//! a mesh of D = 6 (5 to 12), a heartbeat each second, announcements of the last three seconds to six
//! others, messages of the last five at hand, own messages to every peer. No scores: nobody
//! misbehaves in a comparison.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{SeededRng, Tick};

use super::{Kind, decode, encode};
use crate::gossip::{
    ids::Node,
    net::Class,
    production::VERIFY_MICROS,
    protocol::{Context, Order, Protocol},
};

const D: usize = 6;
const D_LOW: usize = 5;
const D_HIGH: usize = 12;
const D_LAZY: usize = 6;
const HEARTBEAT: Duration = Duration::from_secs(1);
const HISTORY: usize = 5;
const HISTORY_GOSSIP: usize = 3;
/// How long a peer that was pruned, or pruned us, is not grafted.
const PRUNE_BACKOFF: Duration = Duration::from_secs(60);

/// One node.
pub(in crate::gossip) struct Gossipsub {
    rng: SeededRng,
    peers: BTreeSet<Node>,
    mesh: BTreeSet<Node>,
    backoff: HashMap<Node, Tick>,
    seen: HashMap<u32, usize>,
    wanted: HashMap<u32, Tick>,
    /// Messages by second, the present one first.
    history: VecDeque<Vec<u32>>,
    heartbeat: Option<Tick>,
}

impl Gossipsub {
    pub(in crate::gossip) fn new(seed: u64) -> Self {
        Self {
            rng: SeededRng::from_number(seed),
            peers: BTreeSet::new(),
            mesh: BTreeSet::new(),
            backoff: HashMap::new(),
            seen: HashMap::new(),
            wanted: HashMap::new(),
            history: VecDeque::from([Vec::new()]),
            heartbeat: None,
        }
    }

    fn say(&self, context: &mut Context<'_>, to: Node, kind: Kind, ids: &[u32]) {
        let size = kind.size(ids.len(), 0);
        // A full queue drops it, as implementations do.
        let _ = context.send(to, Class::Control, size, encode(kind, 0, ids));
    }

    fn forward(&self, context: &mut Context<'_>, to: &[Node], message: u32, payload: usize) {
        let frame = encode(Kind::Message, 0, &[message]);
        for peer in to {
            let size = Kind::Message.size(1, payload);
            let _ = context.send(*peer, Class::Payload, size, frame.clone());
        }
    }

    fn take(&mut self, context: &mut Context<'_>, message: u32, payload: usize) {
        self.seen.insert(message, payload);
        self.wanted.remove(&message);
        if let Some(present) = self.history.front_mut() {
            present.push(message);
        }
        let (now, me) = (context.now(), context.me);
        context.ledger.deliver_message(now, me, message);
    }

    fn receive(&mut self, context: &mut Context<'_>, from: Node, message: u32) {
        if let Some(message) = context.ledger.messages.get_mut(message as usize) {
            message.copies += 1;
        }
        if self.seen.contains_key(&message) {
            return;
        }
        context.net.charge(context.me, VERIFY_MICROS);
        context.ledger.passed_message(message, from, context.me);
        let payload = context.ledger.messages[message as usize].payload as usize;
        self.take(context, message, payload);
        let author = context.ledger.messages[message as usize].author;
        let to: Vec<Node> =
            self.mesh.iter().copied().filter(|peer| *peer != from && *peer != author).collect();
        self.forward(context, &to, message, payload);
    }

    /// Random ones of the peers that a condition holds for.
    fn draw(&mut self, count: usize, wanted: impl Fn(&Node) -> bool) -> Vec<Node> {
        let mut peers: Vec<Node> = self.peers.iter().copied().filter(wanted).collect();
        self.rng.shuffle(&mut peers);
        peers.truncate(count);
        peers
    }

    fn beat(&mut self, context: &mut Context<'_>) {
        let now = context.now();
        let (mesh, backoff) = (self.mesh.clone(), self.backoff.clone());
        if mesh.len() < D_LOW {
            let free = |peer: &Node| {
                !mesh.contains(peer) && backoff.get(peer).is_none_or(|until| *until <= now)
            };
            for peer in self.draw(D - mesh.len(), free) {
                self.mesh.insert(peer);
                self.say(context, peer, Kind::Graft, &[]);
            }
        } else if mesh.len() > D_HIGH {
            for peer in self.draw(mesh.len() - D, |peer| mesh.contains(peer)) {
                self.mesh.remove(&peer);
                self.backoff.insert(peer, now + PRUNE_BACKOFF);
                self.say(context, peer, Kind::Prune, &[]);
            }
        }
        let ids: Vec<u32> = self.history.iter().take(HISTORY_GOSSIP).flatten().copied().collect();
        if !ids.is_empty() {
            let mesh = self.mesh.clone();
            for peer in self.draw(D_LAZY, |peer| !mesh.contains(peer)) {
                self.say(context, peer, Kind::IHave, &ids);
            }
        }
        self.history.push_front(Vec::new());
        self.history.truncate(HISTORY);
    }
}

impl Protocol for Gossipsub {
    fn start(&mut self, context: &mut Context<'_>) {
        // Heartbeats do not fall into step.
        let offset = self.rng.range(0, HEARTBEAT.as_micros() as u64);
        self.heartbeat = Some(context.now() + Duration::from_micros(offset));
    }

    fn link(&mut self, context: &mut Context<'_>, peer: Node, up: bool) {
        if up {
            self.peers.insert(peer);
            if self.mesh.len() < D {
                self.mesh.insert(peer);
                self.say(context, peer, Kind::Graft, &[]);
            }
        } else {
            self.peers.remove(&peer);
            self.mesh.remove(&peer);
        }
    }

    fn frame(&mut self, context: &mut Context<'_>, peer: Node, _: Class, frame: Bytes) {
        let now = context.now();
        let Some((kind, _, ids)) = decode(&frame) else { return };
        match kind {
            Kind::Message => ids.for_each(|id| self.receive(context, peer, id)),
            Kind::IHave => {
                let again = now + Duration::from_secs(3);
                let lacking: Vec<u32> = ids
                    .filter(|id| !self.seen.contains_key(id))
                    .filter(|id| self.wanted.get(id).is_none_or(|until| *until <= now))
                    .collect();
                self.wanted.extend(lacking.iter().map(|id| (*id, again)));
                if !lacking.is_empty() {
                    self.say(context, peer, Kind::IWant, &lacking);
                }
            }
            Kind::IWant => {
                for id in ids {
                    if self.history.iter().flatten().any(|held| *held == id) {
                        self.forward(context, &[peer], id, self.seen[&id]);
                    }
                }
            }
            Kind::Graft => {
                let blocked = self.backoff.get(&peer).is_some_and(|until| *until > now);
                if blocked || self.mesh.len() >= D_HIGH || !self.peers.contains(&peer) {
                    self.say(context, peer, Kind::Prune, &[]);
                } else {
                    self.mesh.insert(peer);
                }
            }
            Kind::Prune => {
                self.mesh.remove(&peer);
                self.backoff.insert(peer, now + PRUNE_BACKOFF);
            }
        }
    }

    fn publish(&mut self, context: &mut Context<'_>, order: Order) -> Option<u32> {
        let what = (order.payload, order.measured, order.expected);
        let message = context.ledger.publish(context.now(), context.me, None, what);
        self.take(context, message, order.payload);
        let all: Vec<Node> = self.peers.iter().copied().collect();
        self.forward(context, &all, message, order.payload);
        Some(message)
    }

    fn timeout(&mut self, context: &mut Context<'_>) {
        self.beat(context);
        self.heartbeat = Some(context.now() + HEARTBEAT);
    }

    fn due(&self) -> Option<Tick> {
        self.heartbeat
    }
}

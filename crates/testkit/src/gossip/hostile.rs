//! Nodes that misbehave.

use std::time::Duration;

use bytes::Bytes;
use x0x_core::{PeerAddr, SeededRng, Tick};
use x0x_gossip_membership::{Message, Peer};
use x0x_gossip_pubsub::testing::RunForge;

use super::{
    factory::Role,
    ids::Node,
    net::{Caller, Class, Refusal},
    production::Production,
    protocol::{Context, Order, Protocol},
    scenario::HostilePart,
};

/// How a node behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Habit {
    /// By the protocol.
    Honest,
    /// Takes everything, passes no payload on.
    Dropper,
    /// Passes no payload on, announces what does not exist, claims false fingerprints.
    Liar,
    /// Sends forged runs and old ones again.
    Flooder,
    /// Publishes two histories.
    Equivocator,
    /// One of many in few prefixes: pushes into views, tells of its like only, passes nothing on.
    Sybil,
}

/// How often a sybil pushes into another view.
const PUSH: Duration = Duration::from_secs(5);

/// How often a liar lies to each of its links.
const LIE: Duration = Duration::from_secs(1);

/// An adversary: the production machine, for what it says to be credible, with its own additions.
struct Adversary {
    inner: Production,
    habit: Habit,
    rng: SeededRng,
    links: Vec<Node>,
    period: Duration,
    next: Option<Tick>,
    /// Publish frames that it received, at most [`MAX_HEARD`].
    heard: Vec<Bytes>,
    /// Makes runs of its own author.
    forge: RunForge,
    /// It has published its two histories.
    spoke: bool,
}

/// Most frames that an adversary keeps to make others of.
const MAX_HEARD: usize = 64;

/// Tags of frames in docs/protocol/pubsub.proto.
const ANNOUNCE: u8 = 4;
const DIGEST: u8 = 7;

/// A length-delimited protobuf field.
fn bytes_field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![tag << 3 | 2];
    push_varint(&mut field, bytes.len() as u64);
    field.extend_from_slice(bytes);
    field
}

/// A number as a protobuf field.
fn number_field(tag: u8, number: u64) -> Vec<u8> {
    let mut field = vec![tag << 3];
    push_varint(&mut field, number);
    field
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Makes an adversary.
pub(super) fn make(
    mut inner: Production,
    role: Role,
    part: &HostilePart,
    forge: RunForge,
) -> Box<dyn Protocol> {
    inner.mute = true;
    let period = match role.habit {
        Habit::Sybil => PUSH,
        Habit::Flooder => Duration::from_secs_f64(1.0 / part.flood_rate.max(0.1)),
        _ => LIE,
    };
    Box::new(Adversary {
        inner,
        habit: role.habit,
        rng: SeededRng::from_number(role.seed),
        links: Vec::new(),
        period,
        next: None,
        heard: Vec::new(),
        forge,
        spoke: false,
    })
}

impl Adversary {
    fn act(&mut self, context: &mut Context<'_>) {
        match self.habit {
            Habit::Sybil => self.push(context),
            Habit::Flooder => self.flood(context),
            Habit::Liar => self.lie(context),
            Habit::Equivocator => self.equivocate(context),
            Habit::Dropper | Habit::Honest => {}
        }
    }

    /// Dials somebody at random, to ask for a place.
    fn push(&mut self, context: &mut Context<'_>) {
        let target = self.rng.below(context.net.hosts.len()) as Node;
        if !context.net.is_sybil(target) && context.net.host(target).alive {
            let address = context.net.address(target);
            let to = PeerAddr::known(context.net.id(target), [address]);
            context.net.dial(context.me, to, Caller::Overlay);
        }
    }

    /// Alternates between runs with another signature, which cost a check each, and old runs.
    fn flood(&mut self, context: &mut Context<'_>) {
        let Some(frame) = self.heard.get(self.rng.below(self.heard.len())).cloned() else { return };
        let frame = if self.rng.chance(0.5) { frame } else { self.forged(&frame) };
        for peer in &self.links {
            let _: Result<(), Refusal> =
                context.send(*peer, Class::Payload, frame.len(), frame.clone());
        }
    }

    /// Announces entries that do not exist as very near, and claims to have another set.
    fn lie(&mut self, context: &mut Context<'_>) {
        let Some((author, epoch, seq)) = context.ledger.some_chain(&mut self.rng) else { return };
        let topic = self.inner.topic;
        let mut head = bytes_field(1, author.as_bytes());
        head.extend(number_field(2, epoch));
        head.extend(number_field(3, seq + 1 + self.rng.range(0, 1000)));
        let mut announced = bytes_field(1, topic.as_bytes());
        announced.extend(bytes_field(2, &head));
        let announce = bytes_field(ANNOUNCE, &bytes_field(1, &announced));
        let mut claim = bytes_field(1, topic.as_bytes());
        let fingerprint = [self.rng.next_u64(), self.rng.next_u64()].map(u64::to_be_bytes);
        claim.extend(bytes_field(2, fingerprint.as_flattened()));
        claim.extend(number_field(3, 1 + self.rng.range(0, 20)));
        let digest = bytes_field(DIGEST, &claim);
        for frame in [Bytes::from(announce), Bytes::from(digest)] {
            for peer in &self.links {
                let _: Result<(), Refusal> =
                    context.send(*peer, Class::Control, frame.len(), frame.clone());
            }
        }
    }

    /// Tells one half of its links one thing and the other half another, once.
    fn equivocate(&mut self, context: &mut Context<'_>) {
        if self.links.len() < 2 || std::mem::replace(&mut self.spoke, true) {
            return;
        }
        context.ledger.ignore(self.forge.author());
        let frames = [b"yes", b"no!"].map(|text| {
            let run = self.forge.run(None, &[text]);
            self.forge.frame(run.encoded())
        });
        for (place, peer) in self.links.iter().enumerate() {
            let frame = frames[place % 2].clone();
            let _: Result<(), Refusal> = context.send(*peer, Class::Payload, frame.len(), frame);
        }
    }

    /// The frame with some bits of its signature and of its payload changed.
    fn forged(&mut self, frame: &Bytes) -> Bytes {
        let mut bytes = frame.to_vec();
        let len = bytes.len();
        // The signature ends the run, and only small fields come after it in a frame.
        let place = len.saturating_sub(1000 + self.rng.below(1000));
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1 << self.rng.below(8);
        }
        bytes.into()
    }
}

impl Protocol for Adversary {
    fn start(&mut self, context: &mut Context<'_>) {
        self.next = Some(context.now() + self.period);
        self.inner.start(context);
    }

    fn link(&mut self, context: &mut Context<'_>, peer: Node, up: bool) {
        self.links.retain(|link| *link != peer);
        if up {
            self.links.push(peer);
        }
        self.inner.link(context, peer, up);
    }

    fn frame(&mut self, context: &mut Context<'_>, peer: Node, class: Class, frame: Bytes) {
        if class == Class::Payload {
            if self.heard.len() >= MAX_HEARD {
                self.heard.remove(0);
            }
            self.heard.push(frame.clone());
        }
        self.inner.frame(context, peer, class, frame);
    }

    fn writable(&mut self, context: &mut Context<'_>, peer: Node) {
        self.inner.writable(context, peer);
    }

    fn publish(&mut self, _: &mut Context<'_>, _: Order) -> Option<u32> {
        None
    }

    fn session(&mut self, context: &mut Context<'_>, peer: Node, up: bool) {
        if up && self.habit == Habit::Sybil && !context.net.is_sybil(peer) {
            let frame = Message::Neighbor { high: true }.encode();
            let _: Result<(), Refusal> = context.send(peer, Class::Membership, frame.len(), frame);
        }
        self.inner.session(context, peer, up);
    }

    fn dialled(&mut self, context: &mut Context<'_>, to: &PeerAddr, up: bool) {
        self.inner.dialled(context, to, up);
    }

    fn timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now();
        if self.next.is_some_and(|at| at <= now) {
            self.next = Some(now + self.period);
            self.act(context);
        }
        if self.inner.due().is_some_and(|at| at <= now) {
            self.inner.timeout(context);
        }
    }

    fn due(&self) -> Option<Tick> {
        self.inner.due().into_iter().chain(self.next).min()
    }
}

/// What a node says in the overlay instead of `message`; `None` for silence.
pub(super) fn membership(
    context: &mut Context<'_>,
    habit: Habit,
    message: Message,
) -> Option<Message> {
    if habit != Habit::Sybil {
        return Some(message);
    }
    let me = context.me;
    let first = (0..=me).rev().take_while(|node| context.net.is_sybil(*node)).last().unwrap_or(me);
    let count = context.net.hosts.len().saturating_sub(first as usize);
    let mut like = |old: Vec<Peer>| -> Vec<Peer> {
        old.into_iter()
            .map(|_| {
                let node = first + context.net.rng.below(count) as Node;
                Peer::new(context.net.id(node), [context.net.address(node)])
            })
            .collect()
    };
    match message {
        // It keeps whatever place it has.
        Message::Disconnect { .. } => None,
        Message::Shuffle { id, ttl, entries } => {
            Some(Message::Shuffle { id, ttl, entries: like(entries) })
        }
        Message::ShuffleReply { id, entries } => {
            Some(Message::ShuffleReply { id, entries: like(entries) })
        }
        Message::NeighborReply { accept, entries } => {
            Some(Message::NeighborReply { accept, entries: like(entries) })
        }
        Message::Ack { nonce, incarnation, entries } => {
            Some(Message::Ack { nonce, incarnation, entries: like(entries) })
        }
        other => Some(other),
    }
}

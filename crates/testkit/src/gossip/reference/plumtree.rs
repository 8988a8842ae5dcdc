//! A model of Plumtree (Leitão et al., SRDS 2007) as iroh-gossip is parametrised: one shared tree,
//! announcements gathered for 5 ms, grafts after 80 ms and again after 40 ms, optimisation from
//! seven hops on, messages at hand for 30 s.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::Tick;

use super::{Kind, decode, encode};
use crate::gossip::{
    ids::Node,
    net::Class,
    production::VERIFY_MICROS,
    protocol::{Context, Order, Protocol},
};

const DISPATCH: Duration = Duration::from_millis(5);
const GRAFT_FIRST: Duration = Duration::from_millis(80);
const GRAFT_AGAIN: Duration = Duration::from_millis(40);
const OPTIMISE_FROM: u8 = 7;
const CACHE: Duration = Duration::from_secs(30);

/// A message that was announced and is not here.
#[derive(Debug)]
struct Missing {
    announcers: VecDeque<(Node, u8)>,
    deadline: Tick,
}

/// One node.
pub(in crate::gossip) struct Plumtree {
    eager: BTreeSet<Node>,
    lazy: BTreeSet<Node>,
    /// Hops of each message seen, and its payload's size.
    seen: HashMap<u32, (u8, usize)>,
    cache: VecDeque<(Tick, u32)>,
    missing: BTreeMap<u32, Missing>,
    /// What lazy peers are to be told, and when.
    announce: BTreeMap<Node, Vec<(u32, u8)>>,
    dispatch: Option<Tick>,
}

impl Plumtree {
    pub(in crate::gossip) fn new(_: u64) -> Self {
        Self {
            eager: BTreeSet::new(),
            lazy: BTreeSet::new(),
            seen: HashMap::new(),
            cache: VecDeque::new(),
            missing: BTreeMap::new(),
            announce: BTreeMap::new(),
            dispatch: None,
        }
    }

    fn say(context: &mut Context<'_>, to: Node, kind: Kind, hops: u8, ids: &[u32]) {
        // A full queue drops it.
        let size = kind.size(ids.len(), 0);
        let _ = context.send(to, Class::Control, size, encode(kind, hops, ids));
    }

    fn send_message(context: &mut Context<'_>, to: Node, message: u32, about: (u8, usize)) {
        let (hops, payload) = about;
        let frame = encode(Kind::Message, hops, &[message]);
        let _ = context.send(to, Class::Payload, Kind::Message.size(1, payload), frame);
    }

    /// Has a message from now on, and passes it on.
    fn take(&mut self, context: &mut Context<'_>, message: u32, about: (u8, usize), from: Node) {
        let (now, me) = (context.now(), context.me);
        self.seen.insert(message, about);
        self.cache.push_back((now, message));
        while self.cache.front().is_some_and(|(at, _)| now.since(*at) > CACHE) {
            self.cache.pop_front();
        }
        context.ledger.deliver_message(now, me, message);
        for peer in self.eager.iter().filter(|peer| **peer != from) {
            Self::send_message(context, *peer, message, about);
        }
        for peer in self.lazy.iter().filter(|peer| **peer != from) {
            self.announce.entry(*peer).or_default().push((message, about.0));
            self.dispatch.get_or_insert(now + DISPATCH);
        }
    }

    fn receive(&mut self, context: &mut Context<'_>, from: Node, hops: u8, message: u32) {
        if let Some(message) = context.ledger.messages.get_mut(message as usize) {
            message.copies += 1;
        }
        if self.seen.contains_key(&message) {
            if self.eager.remove(&from) {
                self.lazy.insert(from);
            }
            return Self::say(context, from, Kind::Prune, 0, &[]);
        }
        context.net.charge(context.me, VERIFY_MICROS);
        context.ledger.passed_message(message, from, context.me);
        let hops = hops.saturating_add(1);
        let payload = context.ledger.messages[message as usize].payload as usize;
        if self.lazy.remove(&from) {
            self.eager.insert(from);
        }
        let announced = self.missing.remove(&message);
        self.take(context, message, (hops, payload), from);
        // A much shorter way was announced: it takes the place of this one.
        let shorter = announced.and_then(|missing| {
            let better = |(_, other): &&(Node, u8)| other.saturating_add(OPTIMISE_FROM) <= hops;
            missing.announcers.iter().find(better).map(|(peer, _)| *peer)
        });
        if let Some(peer) = shorter.filter(|peer| self.lazy.remove(peer)) {
            self.eager.insert(peer);
            self.eager.remove(&from);
            self.lazy.insert(from);
            Self::say(context, peer, Kind::Graft, 0, &[]);
            Self::say(context, from, Kind::Prune, 0, &[]);
        }
    }

    fn announced(&mut self, now: Tick, from: Node, hops: u8, message: u32) {
        if self.seen.contains_key(&message) {
            return;
        }
        let missing = self.missing.entry(message).or_insert_with(|| Missing {
            announcers: VecDeque::new(),
            deadline: now + GRAFT_FIRST,
        });
        missing.announcers.push_back((from, hops));
    }

    fn dispatch(&mut self, context: &mut Context<'_>) {
        for (peer, messages) in std::mem::take(&mut self.announce) {
            // One frame for each hop count keeps the model's frames simple; sizes stay right.
            let mut by_hops: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
            messages.into_iter().for_each(|(id, hops)| by_hops.entry(hops).or_default().push(id));
            for (hops, ids) in by_hops {
                Self::say(context, peer, Kind::IHave, hops, &ids);
            }
        }
        self.dispatch = None;
    }

    fn graft(&mut self, context: &mut Context<'_>) {
        let now = context.now();
        let due = self.missing.iter().filter(|(_, missing)| missing.deadline <= now);
        let due: Vec<u32> = due.map(|(id, _)| *id).collect();
        for id in due {
            let Some(missing) = self.missing.get_mut(&id) else { continue };
            let Some((peer, _)) = missing.announcers.pop_front() else {
                self.missing.remove(&id);
                continue;
            };
            missing.deadline = now + GRAFT_AGAIN;
            if self.lazy.remove(&peer) {
                self.eager.insert(peer);
            }
            Self::say(context, peer, Kind::Graft, 0, &[id]);
        }
    }
}

impl Protocol for Plumtree {
    fn start(&mut self, _: &mut Context<'_>) {}

    fn link(&mut self, _: &mut Context<'_>, peer: Node, up: bool) {
        self.lazy.remove(&peer);
        if up {
            self.eager.insert(peer);
        } else {
            self.eager.remove(&peer);
            self.announce.remove(&peer);
            self.missing.values_mut().for_each(|m| m.announcers.retain(|(from, _)| *from != peer));
        }
    }

    fn frame(&mut self, context: &mut Context<'_>, peer: Node, _: Class, frame: Bytes) {
        let Some((kind, hops, ids)) = decode(&frame) else { return };
        match kind {
            Kind::Message => ids.for_each(|id| self.receive(context, peer, hops, id)),
            Kind::IHave => {
                let now = context.now();
                ids.for_each(|id| self.announced(now, peer, hops, id));
            }
            Kind::Graft => {
                if self.lazy.remove(&peer) {
                    self.eager.insert(peer);
                }
                for id in ids {
                    let held = self.cache.iter().any(|(_, held)| *held == id);
                    if let Some(about) = self.seen.get(&id).copied().filter(|_| held) {
                        Self::send_message(context, peer, id, about);
                    }
                }
            }
            Kind::Prune => {
                if self.eager.remove(&peer) {
                    self.lazy.insert(peer);
                }
            }
            Kind::IWant => {}
        }
    }

    fn publish(&mut self, context: &mut Context<'_>, order: Order) -> Option<u32> {
        let what = (order.payload, order.measured, order.expected);
        let message = context.ledger.publish(context.now(), context.me, None, what);
        self.take(context, message, (0, order.payload), context.me);
        Some(message)
    }

    fn timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now();
        if self.dispatch.is_some_and(|at| at <= now) {
            self.dispatch(context);
        }
        self.graft(context);
    }

    fn due(&self) -> Option<Tick> {
        let grafts = self.missing.values().map(|missing| missing.deadline);
        grafts.chain(self.dispatch).min()
    }
}

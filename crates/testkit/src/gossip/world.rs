//! The nodes, and the loop that runs them.

use std::{collections::HashMap, time::Duration};

use x0x_core::{Machine as _, Scope, SeededRng, Tick, WallTime};
use x0x_gossip_membership::{
    DialFailure, HyParView, Input as OverlayInput, Message, MessageIn, Output as OverlayOutput,
    Peer,
};

use super::{
    factory::{Factory, Role},
    hostile::{self, Habit},
    ids::{self, NOBODY, Node},
    ledger::Ledger,
    net::{Caller, Class, Dial, Event, Net},
    production::Disk,
    protocol::{Context, Order, Protocol},
    scenario::Scenario,
};

/// Wall-clock time at the start of a run.
pub(super) const EPOCH: WallTime = WallTime::from_millis(1_800_000_000_000);

/// More outputs than this from one input is a livelock.
const MAX_OUTPUTS: usize = 100_000;

/// A running node.
pub(super) struct NodeState {
    pub(super) overlay: HyParView,
    pub(super) gossip: Box<dyn Protocol>,
    overlay_due: Option<Tick>,
    gossip_due: Option<Tick>,
    armed: Option<Tick>,
}

/// What stays of a node over its restarts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    pub(super) habit: Habit,
    /// It subscribes the topic.
    pub(super) subscribes: bool,
    pub(super) publishes: bool,
    /// It keeps its logs and its cursor on disk.
    pub(super) stores: bool,
    /// Milliseconds by which its clock is ahead of the earliest one.
    skew: u64,
}

impl Person {
    /// Whether it is to get what is published.
    fn is_served(&self) -> bool {
        self.habit == Habit::Honest && self.subscribes
    }
}

/// Events that reached a machine; those that were void by then are not counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Frames.
    pub(super) frames: u64,
    /// Timers that ran out.
    pub(super) timers: u64,
    /// Sessions that began or ended, ends of dials, queues with room, signatures, and what the script
    /// did to a node.
    pub(super) commands: u64,
}

impl Counts {
    pub(super) const fn total(&self) -> u64 {
        self.frames + self.timers + self.commands
    }
}

/// Everything that is simulated.
pub(super) struct World {
    pub(super) net: Net,
    pub(super) ledger: Ledger,
    pub(super) nodes: Vec<Option<Box<NodeState>>>,
    pub(super) persons: Vec<Person>,
    pub(super) factory: Factory,
    pub(super) scenario: Scenario,
    pub(super) counts: Counts,
    served_running: u32,
    /// Of nodes that do not run.
    disks: HashMap<Node, Disk>,
    /// Draws what the script decides, so that the network's draws do not depend on it.
    pub(super) rng: SeededRng,
}

impl World {
    /// An empty world for at most `capacity` nodes.
    pub(super) fn new(scenario: &Scenario, seed: u64, capacity: usize, first_sybil: Node) -> Self {
        Self {
            net: Net::new(seed, scenario.network.clone(), first_sybil),
            ledger: Ledger::new(capacity),
            nodes: Vec::new(),
            persons: Vec::new(),
            factory: Factory::new(scenario),
            scenario: scenario.clone(),
            counts: Counts::default(),
            served_running: 0,
            disks: HashMap::new(),
            rng: SeededRng::from_number(seed ^ 0x5c41_a11e),
        }
    }

    /// Adds a node that does not run yet.
    pub(super) fn add(&mut self, habit: Habit, subscribes: bool, publishes: bool) -> Node {
        let skew = (self.scenario.network.clock_skew_s * 2000.0) as u64;
        let skew = self.rng.range(0, skew + 1);
        self.persons.push(Person { habit, subscribes, publishes, stores: false, skew });
        self.nodes.push(None);
        self.net.add()
    }

    /// Starts a node with no memory, told of these contacts.
    pub(super) fn start(&mut self, node: Node, contacts: &[Node]) {
        if self.nodes[node as usize].is_some() {
            return;
        }
        let seed = self.rng.next_u64();
        let person = self.persons[node as usize];
        let host = self.net.host_mut(node);
        host.alive = true;
        host.run += 1;
        let role = Role {
            node,
            seed,
            wall: self.wall(node),
            subscribes: person.subscribes,
            publishes: person.publishes,
            habit: person.habit,
        };
        let disk = person.stores.then(|| self.disks.remove(&node).unwrap_or_else(Disk::new));
        let state = NodeState {
            overlay: self.factory.overlay(node, seed),
            gossip: self.factory.protocol(role, disk),
            overlay_due: None,
            gossip_due: None,
            armed: None,
        };
        self.nodes[node as usize] = Some(Box::new(state));
        self.served_running += u32::from(person.is_served());
        self.counts.commands += 1;
        self.ledger.start(self.net.now(), node);
        self.net.record(("start", node));
        let bootstrap = contacts.iter().map(|contact| self.net.address(*contact)).collect();
        let own = self.net.address(node);
        self.with(node, |state, context| {
            state.gossip.start(context);
            let now = context.now();
            state.overlay.handle(now, OverlayInput::LocalAddresses(vec![own]));
            state.overlay.handle(now, OverlayInput::Start { bootstrap, cached: Vec::new() });
        });
    }

    /// Ends a node without a word; what it knew is lost, but for its disk.
    pub(super) fn crash(&mut self, node: Node) {
        if let Some(mut state) = self.nodes[node as usize].take() {
            self.disks.extend(state.gossip.take_disk().map(|disk| (node, disk)));
            self.net.crash(node);
            self.served_running -= u32::from(self.persons[node as usize].is_served());
            self.counts.commands += 1;
            self.net.record(("crash", node));
        }
    }

    /// Publishes at a node. `None` when it does not run or is busy.
    pub(super) fn publish(&mut self, node: Node, order: Order) -> Option<u32> {
        let mut number = None;
        self.counts.commands += 1;
        self.gossip(node, |gossip, context| number = gossip.publish(context, order));
        number
    }

    /// Lets virtual time pass, up to but not including what is due at `deadline`.
    pub(super) fn run_until(&mut self, deadline: Tick) {
        while let Some((node, event)) = self.net.queue.next_before(deadline) {
            self.dispatch(node, event);
        }
    }

    /// Honest nodes that run.
    pub(super) fn honest(&self) -> Vec<Node> {
        let nodes = self.persons.iter().zip(&self.nodes).enumerate();
        let honest = nodes.filter(|(_, (p, node))| p.habit == Habit::Honest && node.is_some());
        honest.map(|(node, _)| node as Node).collect()
    }

    /// Of those, the ones that subscribe the topic.
    pub(super) fn served(&self) -> Vec<Node> {
        let mut nodes = self.honest();
        nodes.retain(|node| self.persons[*node as usize].subscribes);
        nodes
    }

    /// How many those are.
    pub(super) const fn served_count(&self) -> u32 {
        self.served_running
    }

    /// Lets a node stand still: what reaches it waits. Its peers notice when it lasts too long.
    pub(super) fn stall(&mut self, node: Node, time: Duration) {
        self.net.charge(node, time.as_micros() as u64);
        self.net.stall(node, time);
    }

    fn wall(&self, node: Node) -> WallTime {
        let since = self.net.now().since(Tick::ZERO);
        EPOCH + since + Duration::from_millis(self.persons[node as usize].skew)
    }

    /// Gives an event to its host, or lets it wait there while the host is busy.
    fn dispatch(&mut self, node: Node, mut event: Event) {
        if let Event::Resume = event {
            return self.resume(node);
        }
        if !self.net.concerns(node, &event) {
            return;
        }
        let now = self.net.now();
        if let Event::Frame { down, size, .. } = &mut event
            && !std::mem::replace(down, true)
        {
            let arrives = self.net.land(node, *size);
            if arrives > now {
                return self.net.queue.schedule(node, arrives, event);
            }
        }
        let host = self.net.host_mut(node);
        if host.busy > now || !host.inbox.is_empty() {
            let idle = host.inbox.is_empty();
            host.inbox.push_back(event);
            if idle {
                let at = host.busy;
                self.net.queue.schedule(node, at, Event::Resume);
            }
            return;
        }
        self.process(node, event);
    }

    fn resume(&mut self, node: Node) {
        let now = self.net.now();
        while self.net.host(node).busy <= now {
            let Some(event) = self.net.host_mut(node).inbox.pop_front() else { return };
            // It may have become void while it waited.
            if self.net.concerns(node, &event) {
                self.process(node, event);
            }
        }
        let host = self.net.host(node);
        if !host.inbox.is_empty() {
            let at = host.busy;
            self.net.queue.schedule(node, at, Event::Resume);
        }
    }

    fn process(&mut self, node: Node, event: Event) {
        match event {
            Event::Frame { session, side, class, size, frame, .. } => {
                self.net.taken(session, side, size);
                let Some((from, to)) = self.net.ends(session, side) else { return };
                self.counts.frames += 1;
                self.net.record((u64::from(from) << 32 | u64::from(to), size, class as u64));
                return match class {
                    Class::Membership => self.membership(to, from, &frame),
                    _ => {
                        self.gossip(to, |gossip, context| gossip.frame(context, from, class, frame))
                    }
                };
            }
            Event::Wake { .. } => return self.wake(node),
            Event::Open { from, run } => {
                if self.net.accept(from, node, run) {
                    self.up(node, from, false);
                }
            }
            Event::Opened { session, .. } => self.opened(node, session),
            Event::Refused { to, .. } => {
                self.net.failed_dials += 1;
                self.dialled(node, to, Err(DialFailure::Unreachable));
            }
            Event::Closed { session, side } => {
                if let Some(peer) = self.net.detach(session, side) {
                    self.down(node, peer);
                }
            }
            Event::Writable { session, side } => {
                if let Some((peer, host)) = self.net.writable(session, side) {
                    self.gossip(host, |gossip, context| gossip.writable(context, peer));
                }
            }
            Event::Signed { .. } => self.gossip(node, |gossip, context| gossip.signed(context)),
            Event::Resume => return,
        }
        self.counts.commands += 1;
    }

    fn opened(&mut self, at: Node, session: super::net::Session) {
        match self.net.opened(session, at) {
            Some((peer, is_new)) => {
                if is_new {
                    self.up(at, peer, true);
                }
                self.dialled(at, peer, Ok(self.net.id(peer)));
            }
            None => {
                // The session ended on its way here.
                let dials = &self.net.host(at).dials;
                let open = |peer: &Node| self.net.session(at, *peer).is_some();
                let ended =
                    dials.iter().map(|dial| dial.target).find(|to| *to != NOBODY && !open(to));
                if let Some(to) = ended {
                    self.dialled(at, to, Err(DialFailure::Unreachable));
                }
            }
        }
    }

    fn up(&mut self, node: Node, peer: Node, dialled: bool) {
        self.net.record(("up", node, peer));
        let (id, remote) = (self.net.id(peer), self.net.address(peer));
        self.with(node, |state, context| {
            let known = Peer::new(id, [remote]);
            let input = OverlayInput::Up { peer: known, path: Scope::Global, dialled };
            state.overlay.handle(context.now(), input);
            if let Some(rtt) = context.net.rtt(node, peer) {
                let input = OverlayInput::Path { peer: id, remote, rtt };
                state.overlay.handle(context.now(), input);
            }
            state.gossip.session(context, peer, true);
        });
    }

    fn down(&mut self, node: Node, peer: Node) {
        self.net.record(("down", node, peer));
        let id = self.net.id(peer);
        self.with(node, |state, context| {
            state.overlay.handle(context.now(), OverlayInput::Down(id));
            state.gossip.session(context, peer, false);
        });
    }

    /// Tells whoever wanted it how a dial ended.
    fn dialled(&mut self, node: Node, to: Node, result: Result<x0x_core::MachineId, DialFailure>) {
        let dials = &mut self.net.host_mut(node).dials;
        let Some(place) = dials.iter().position(|dial| dial.target == to) else { return };
        let Dial { to: address, caller, .. } = dials.swap_remove(place);
        self.with(node, |state, context| match caller {
            Caller::Overlay => {
                let input = OverlayInput::DialResult { to: address, result };
                state.overlay.handle(context.now(), input);
            }
            Caller::Gossip => state.gossip.dialled(context, &address, result.is_ok()),
        });
    }

    fn membership(&mut self, to: Node, from: Node, frame: &[u8]) {
        let decoded = MessageIn::decode(frame).and_then(|m| m.verify(self.net.id(to)));
        let message = match decoded {
            Ok(verified) => verified.message,
            Err(error) => {
                return self.ledger.violate(format!("a membership message was refused: {error}"));
            }
        };
        let peer = self.net.id(from);
        self.with(to, |state, context| {
            state.overlay.handle(context.now(), OverlayInput::Message { peer, message });
        });
    }

    fn wake(&mut self, node: Node) {
        let now = self.net.now();
        let Some(state) = self.nodes[node as usize].as_mut() else { return };
        if state.armed.is_none_or(|at| at > now) {
            return;
        }
        state.armed = None;
        let overlay = state.overlay_due.is_some_and(|at| at <= now);
        let gossip = state.gossip_due.is_some_and(|at| at <= now);
        if !overlay && !gossip {
            // What it was set for is over.
            return state.arm(&mut self.net, node);
        }
        self.counts.timers += u64::from(overlay) + u64::from(gossip);
        self.net.record(("timeout", node));
        if overlay {
            self.with(node, |state, _| state.overlay.handle_timeout(now));
        }
        if gossip {
            self.gossip(node, |state, context| state.timeout(context));
        }
    }

    /// Lets the gossip protocol of a node that runs act; its overlay is not concerned.
    fn gossip(&mut self, node: Node, act: impl FnOnce(&mut dyn Protocol, &mut Context<'_>)) {
        let wall = self.wall(node);
        let Some(state) = self.nodes[node as usize].as_mut() else { return };
        let mut context = Context { net: &mut self.net, ledger: &mut self.ledger, me: node, wall };
        act(state.gossip.as_mut(), &mut context);
        state.gossip_due = state.gossip.due();
        state.arm(&mut self.net, node);
    }

    /// Lets a node that runs act, carries its overlay's outputs out and arms its timer.
    fn with(&mut self, node: Node, act: impl FnOnce(&mut NodeState, &mut Context<'_>)) {
        let wall = self.wall(node);
        let Some(state) = self.nodes[node as usize].as_mut() else { return };
        let mut context = Context { net: &mut self.net, ledger: &mut self.ledger, me: node, wall };
        act(state, &mut context);
        let habit = self.persons[node as usize].habit;
        for count in 0.. {
            let Some(output) = state.overlay.poll_output() else { break };
            assert!(count < MAX_OUTPUTS, "node {node} never falls silent");
            carry_out(state, &mut context, habit, output);
        }
        state.overlay_due = state.overlay.poll_timeout();
        state.gossip_due = state.gossip.due();
        state.arm(&mut self.net, node);
    }
}

impl NodeState {
    /// Sees to it that the node is woken when the earlier of its timers runs out.
    fn arm(&mut self, net: &mut Net, node: Node) {
        let due = self.overlay_due.into_iter().chain(self.gossip_due).min();
        if let Some(at) = due
            && self.armed.is_none_or(|armed| at < armed)
        {
            self.armed = Some(at);
            let run = net.host(node).run;
            net.queue.schedule(node, at, Event::Wake { run });
        }
    }
}

/// What may be lost on its way without harm, as datagrams are.
const fn is_probe(message: &Message) -> bool {
    matches!(
        message,
        Message::Ping { .. }
            | Message::Ack { .. }
            | Message::PingRequest { .. }
            | Message::PingReport { .. }
    )
}

fn carry_out(
    state: &mut NodeState,
    context: &mut Context<'_>,
    habit: Habit,
    output: OverlayOutput,
) {
    let me = context.me;
    match output {
        OverlayOutput::Send { to, message } => {
            let Some(message) = hostile::membership(context, habit, message) else { return };
            if is_probe(&message) && context.net.loses_datagram() {
                return;
            }
            let frame = message.encode();
            // A full queue drops the message, which the protocol repairs; and so does the driver.
            let _ = context.send(ids::node_of(&to), Class::Membership, frame.len(), frame);
        }
        OverlayOutput::Dial(to) => context.net.dial(me, to, Caller::Overlay),
        OverlayOutput::Disconnect(id) => context.net.close(me, ids::node_of(&id)),
        OverlayOutput::NeighborUp(id) => {
            let peer = ids::node_of(&id);
            context.net.set_neighbour(me, peer, true);
            state.gossip.link(context, peer, true);
        }
        OverlayOutput::NeighborDown(id) => {
            let peer = ids::node_of(&id);
            context.net.set_neighbour(me, peer, false);
            state.gossip.link(context, peer, false);
        }
        _ => {}
    }
}

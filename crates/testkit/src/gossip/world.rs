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
    net::{Class, Event, Net},
    production::Disk,
    protocol::{Context, Order, Protocol},
    scenario::Scenario,
};

/// Wall-clock time at the start of a run.
const EPOCH: WallTime = WallTime::from_millis(1_800_000_000_000);

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
    pub(super) publishes: bool,
    /// It keeps its logs and its cursor on disk.
    pub(super) stores: bool,
    /// Milliseconds by which its clock is ahead of the earliest one.
    skew: u64,
}

/// Counts of the loop.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) timeouts: u64,
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
    honest_running: u32,
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
            honest_running: 0,
            disks: HashMap::new(),
            rng: SeededRng::from_number(seed ^ 0x5c41_a11e),
        }
    }

    /// Adds a node that does not run yet.
    pub(super) fn add(&mut self, habit: Habit, publishes: bool) -> Node {
        let skew = (self.scenario.network.clock_skew_s * 2000.0) as u64;
        let skew = self.rng.range(0, skew + 1);
        self.persons.push(Person { habit, publishes, stores: false, skew });
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
        self.honest_running += u32::from(person.habit == Habit::Honest);
        self.ledger.start(self.net.now(), node);
        self.net.sim.record(("start", node));
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
            let honest = self.persons[node as usize].habit == Habit::Honest;
            self.honest_running -= u32::from(honest);
            self.net.sim.record(("crash", node));
        }
    }

    /// Publishes at a node. `None` when it does not run or is busy.
    pub(super) fn publish(&mut self, node: Node, order: Order) -> Option<u32> {
        let mut number = None;
        self.gossip(node, |gossip, context| number = gossip.publish(context, order));
        number
    }

    /// Lets virtual time pass.
    pub(super) fn run_until(&mut self, deadline: Tick) {
        while let Some(event) = self.net.sim.next_until(deadline) {
            self.counts.events += 1;
            self.dispatch(event);
        }
    }

    /// Honest nodes that run.
    pub(super) fn honest(&self) -> Vec<Node> {
        let nodes = self.persons.iter().zip(&self.nodes).enumerate();
        let honest = nodes.filter(|(_, (p, node))| p.habit == Habit::Honest && node.is_some());
        honest.map(|(node, _)| node as Node).collect()
    }

    /// How many honest nodes run.
    pub(super) const fn honest_count(&self) -> u32 {
        self.honest_running
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
    fn dispatch(&mut self, event: Event) {
        let Some(node) = self.net.target(&event) else { return };
        let now = self.net.now();
        let host = self.net.host_mut(node);
        if let Event::Resume { .. } = event {
            return self.resume(node);
        }
        if host.busy > now || !host.inbox.is_empty() {
            let idle = host.inbox.is_empty();
            host.inbox.push_back(event);
            if idle {
                let at = host.busy;
                self.net.sim.schedule(at, Event::Resume { node });
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
            if self.net.target(&event) == Some(node) {
                self.process(node, event);
            }
        }
        let host = self.net.host(node);
        if !host.inbox.is_empty() {
            let at = host.busy;
            self.net.sim.schedule(at, Event::Resume { node });
        }
    }

    fn process(&mut self, node: Node, event: Event) {
        match event {
            Event::Frame { session, side, class, size, frame } => {
                let Some((from, to)) = self.net.ends(session, side) else { return };
                self.net.sim.record((u64::from(from) << 32 | u64::from(to), size, class as u64));
                match class {
                    Class::Membership => self.membership(to, from, &frame),
                    _ => {
                        self.gossip(to, |gossip, context| gossip.frame(context, from, class, frame))
                    }
                }
            }
            Event::Open { from, to, run } => {
                if self.net.accept(from, to, run) {
                    self.up(to, from, false);
                }
            }
            Event::Opened { at, session, run } => self.opened(at, session, run),
            Event::Refused { at, to, run } => {
                if self.net.host(at).run == run {
                    self.net.failed_dials += 1;
                    self.dialled(at, to, Err(DialFailure::Unreachable));
                }
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
            Event::Wake { node, run } => self.wake(node, run),
            Event::Signed { node, run } => {
                if self.net.host(node).run == run {
                    self.gossip(node, |gossip, context| gossip.signed(context));
                }
            }
            Event::Resume { .. } => {}
        }
    }

    fn opened(&mut self, at: Node, session: super::net::Session, run: u32) {
        if self.net.host(at).run != run {
            return;
        }
        match self.net.opened(session, at) {
            Some((peer, is_new)) => {
                if is_new {
                    self.up(at, peer, true);
                }
                self.dialled(at, peer, Ok(ids::machine_id(peer)));
            }
            None => {
                // The session ended on its way here.
                let dials = &self.net.host(at).dials;
                let open = |peer: &Node| self.net.session(at, *peer).is_some();
                let ended = dials.iter().map(|(to, _)| *to).find(|to| *to != NOBODY && !open(to));
                if let Some(to) = ended {
                    self.dialled(at, to, Err(DialFailure::Unreachable));
                }
            }
        }
    }

    fn up(&mut self, node: Node, peer: Node, dialled: bool) {
        self.net.sim.record(("up", node, peer));
        let id = Peer::new(ids::machine_id(peer), [self.net.address(peer)]);
        self.with(node, |state, context| {
            let input = OverlayInput::Up { peer: id, path: Scope::Global, dialled };
            state.overlay.handle(context.now(), input);
            if let Some(rtt) = context.net.rtt(node, peer) {
                let (peer, remote) = (ids::machine_id(peer), context.net.address(peer));
                let input = OverlayInput::Path { peer, remote, rtt };
                state.overlay.handle(context.now(), input);
            }
            state.gossip.session(context, peer, true);
        });
    }

    fn down(&mut self, node: Node, peer: Node) {
        self.net.sim.record(("down", node, peer));
        self.with(node, |state, context| {
            state.overlay.handle(context.now(), OverlayInput::Down(ids::machine_id(peer)));
            state.gossip.session(context, peer, false);
        });
    }

    /// Tells the overlay how a dial ended.
    fn dialled(&mut self, node: Node, to: Node, result: Result<x0x_core::MachineId, DialFailure>) {
        let dials = &mut self.net.host_mut(node).dials;
        let Some(place) = dials.iter().position(|(target, _)| *target == to) else { return };
        let (_, to) = dials.swap_remove(place);
        self.with(node, |state, context| {
            state.overlay.handle(context.now(), OverlayInput::DialResult { to, result });
        });
    }

    fn membership(&mut self, to: Node, from: Node, frame: &[u8]) {
        let decoded = MessageIn::decode(frame).and_then(|m| m.verify(ids::machine_id(to)));
        let message = match decoded {
            Ok(verified) => verified.message,
            Err(error) => {
                return self.ledger.violate(format!("a membership message was refused: {error}"));
            }
        };
        self.with(to, |state, context| {
            let input = OverlayInput::Message { peer: ids::machine_id(from), message };
            state.overlay.handle(context.now(), input);
        });
    }

    fn wake(&mut self, node: Node, run: u32) {
        let now = self.net.now();
        let Some(state) = self.nodes[node as usize].as_mut() else { return };
        if self.net.host(node).run != run || state.armed.is_none_or(|at| at > now) {
            return;
        }
        state.armed = None;
        let overlay = state.overlay_due.is_some_and(|at| at <= now);
        let gossip = state.gossip_due.is_some_and(|at| at <= now);
        self.counts.timeouts += 1;
        self.net.sim.record(("timeout", node));
        if overlay {
            self.with(node, |state, _| state.overlay.handle_timeout(now));
        }
        if gossip || !overlay {
            // An early wake-up only arms the timer anew.
            self.gossip(node, |state, context| {
                if gossip {
                    state.timeout(context);
                }
            });
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
            net.sim.schedule(at, Event::Wake { node, run });
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
        OverlayOutput::Dial(to) => context.net.dial(me, to),
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

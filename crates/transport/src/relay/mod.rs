//! Machines that cannot reach each other are joined by a third one that both have a session with.
//!
//! A *context* joins exactly two machines, both of which have agreed to it and are authenticated to the relay by
//! their sessions: there is no address to which a relay could be made to send. What it forwards are packets
//! of a connection that the two have with each other; it sees ciphertext, sizes and times.
//!
//! - [`Relays`]: the machine of contexts in all three roles: who asks, who forwards, who is asked
//! - [`packet`]: datagrams of the sessions that carry packets
//! - [`quota`]: how much is forwarded

pub mod packet;
pub mod quota;

mod client;
mod config;
mod server;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use x0x_core::{Machine, MachineId, Tick};

pub use self::config::RelayConfig;
use self::{client::Client, server::Server};
use crate::wire::{ContextId, RelayRefusal, RelayStep};

/// Most peers to which a relay is sought at once.
pub const MAX_SOUGHT: usize = 32;
/// Most machines that are asked for one peer.
pub const MAX_ASKED: usize = 9;
/// Most contexts of which this machine is an end, those that it asked for and those that it was asked for, each.
pub const MAX_OWN: usize = 128;
/// Most of the latter at one relay.
pub const MAX_PER_RELAY: usize = 64;
/// How long a relay is sought for one peer.
pub const SEEK_TIME: Duration = Duration::from_secs(4);
/// How long a relay waits for the machine that it asked.
pub const ANSWER_TIME: Duration = Duration::from_secs(3);
/// How long a machine keeps a context that a relay brought and over which no session comes about.
pub const SESSION_TIME: Duration = Duration::from_secs(15);
/// Silence after which a relay closes a context.
pub const IDLE_AFTER: Duration = Duration::from_secs(120);

/// A context as one of its ends knows it: the relay, and the name between the two.
pub type Leg = (MachineId, ContextId);

/// A step that a session's peer sent, with what this machine knows of whom it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Who sent it.
    pub from: MachineId,
    /// What it says.
    pub step: RelayStep,
    /// Whether the session that it came over is direct.
    pub direct: bool,
    /// Whether there is a session with the machine named in it, and then whether that is direct.
    pub named: Option<bool>,
    /// Whether this machine wants anything to do with either.
    pub willing: bool,
}

impl Received {
    /// A step over a direct session that names a machine with which there is one, too.
    #[must_use]
    pub const fn new(from: MachineId, step: RelayStep) -> Self {
        Self { from, step, direct: true, named: Some(true), willing: true }
    }
}

/// What the world tells [`Relays`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// A peer is to be reached by way of another machine.
    Seek {
        /// Whom.
        peer: MachineId,
        /// Whom to ask, best first.
        relays: Vec<MachineId>,
    },
    /// That is not wanted any more.
    Unwanted(MachineId),
    /// A step arrived.
    Received(Received),
    /// There is no session with this machine any more, or none that carries packets.
    Gone(MachineId),
    /// There is a session over a context of which this machine is an end.
    InUse(Leg),
    /// Nothing came or went over a context of which this machine is an end.
    Unused(Leg),
    /// Nothing was forwarded for long over a context of this number.
    Idle(u64),
}

/// What [`Relays`] asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send a step on a session.
    Send {
        /// To whom.
        to: MachineId,
        /// What.
        step: RelayStep,
    },
    /// Packets of this context are for this machine, and from it.
    Open {
        /// Which one.
        leg: Leg,
        /// Who is at its other end.
        peer: MachineId,
    },
    /// That is over.
    Close(Leg),
    /// Forward packets between these two, each on account of whoever sends it.
    Join {
        /// Names the pair.
        number: u64,
        /// Both ends, as this machine names them.
        legs: [Leg; 2],
    },
    /// Do so no longer.
    Part(u64),
    /// The search for a relay is over.
    Over {
        /// To whom.
        peer: MachineId,
        /// The context that leads there, if there is one.
        found: Option<Leg>,
    },
}

counters! {
    /// What relays do, for this machine and by it.
    RelayMetrics, "transport_relay_", {
        sought = "Peers to which a relay was sought.",
        found = "Peers to which one was found.",
        failed = "Peers to which none was found.",
        accepted = "Contexts that others asked for with this machine.",
        evicted = "Of these, contexts without a session that made room for others.",
        closed_empty = "Of these, contexts over which no session came about in time.",
        opened = "Contexts between others that were opened.",
        closed = "Contexts between others that ended.",
        closed_idle = "Of these, contexts over which nothing went for long.",
        forwarded_packets = "Datagrams forwarded between others.",
        forwarded_bytes = "Bytes of packets in these.",
        sent_packets = "Packets of this machine sent by way of a relay.",
        received_packets = "Packets for this machine that came by way of a relay.",
        refused_off = "Contexts refused because this machine does not relay, or is not to be relayed.",
        refused_self = "Contexts refused with the asker or the relay itself.",
        refused_not_connected = "Contexts refused because there is no session with the other machine.",
        refused_nested = "Contexts refused because a session that would carry them is relayed itself.",
        refused_unwilling = "Contexts refused with machines that are refused here.",
        refused_limit = "Contexts refused because there are too many.",
        refused_name = "Contexts refused because their name is in use.",
        refused_unasked = "Answers about contexts that nobody asked for.",
        steps_dropped = "Steps dropped because their sender sent too many.",
        dropped_rate = "Packets not forwarded because the machine that asked has used up its rate.",
        dropped_day = "Packets not forwarded because it has used up its day.",
        dropped_total = "Packets not forwarded because all together have used up the relay's rate.",
        dropped_malformed = "Datagrams of no known form.",
        dropped_unknown_context = "Datagrams of contexts that are not open.",
        dropped_too_large = "Packets larger than their carrier takes.",
        dropped_nested = "Packets whose carrier is relayed itself.",
        dropped_over = "Packets for contexts that are over, or whose carrier has ended.",
    }
}

/// Contexts of one machine, in all three roles.
#[derive(Debug)]
pub struct Relays {
    client: Client,
    server: Server,
    outputs: VecDeque<Output>,
}

impl Relays {
    /// No contexts yet, for this machine.
    #[must_use]
    pub fn new(local: MachineId, config: RelayConfig, metrics: Arc<RelayMetrics>) -> Self {
        Self {
            client: Client::new(local, config.clone(), metrics.clone()),
            server: Server::new(local, config, metrics),
            outputs: VecDeque::new(),
        }
    }

    fn received(&mut self, now: Tick, received: &Received) {
        let out = &mut self.outputs;
        let from = received.from;
        match received.step {
            RelayStep::Open { context, target } => {
                self.server.open(out, now, received, (from, context), target);
            }
            RelayStep::Incoming { context, from: peer } => {
                self.client.incoming(out, now, received, (from, context), peer);
            }
            // Even names are made by whoever asks.
            RelayStep::Ok { context } if context % 2 == 0 => {
                self.client.accepted(out, (from, context));
            }
            RelayStep::Ok { context } => self.server.accepted(out, (from, context)),
            RelayStep::Close { context, from_relay: true, .. } => {
                self.client.closed(out, (from, context));
            }
            RelayStep::Close { context, why, .. } => {
                self.server.closed(out, (from, context), why);
            }
        }
    }
}

fn close(out: &mut VecDeque<Output>, leg: Leg, from_relay: bool, why: RelayRefusal) {
    let (to, context) = leg;
    let step = RelayStep::Close { context, from_relay, why };
    out.push_back(Output::Send { to, step });
}

/// The next name of a parity that is not in use.
fn next_name(last: &mut ContextId, used: impl Fn(ContextId) -> bool) -> ContextId {
    loop {
        *last = last.wrapping_add(2);
        if *last > 1 && !used(*last) {
            return *last;
        }
    }
}

impl Machine for Relays {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        let out = &mut self.outputs;
        match input {
            Input::Seek { peer, relays } => self.client.seek(out, now, peer, relays),
            Input::Unwanted(peer) => self.client.unwanted(out, peer),
            Input::Received(received) => self.received(now, &received),
            Input::Gone(machine) => {
                self.client.gone(out, machine);
                self.server.gone(out, machine);
            }
            Input::InUse(leg) => self.client.in_use(leg),
            Input::Unused(leg) => self.client.unused(out, leg),
            Input::Idle(number) => self.server.idle(out, number),
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        self.client.on_timeout(&mut self.outputs, now);
        self.server.on_timeout(&mut self.outputs, now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        self.client.next().into_iter().chain(self.server.next()).min()
    }
}

/// For what is kept by leg: those of one machine.
fn legs_of<T>(all: &BTreeMap<Leg, T>, machine: MachineId) -> impl Iterator<Item = (&Leg, &T)> {
    all.range((machine, 0)..=(machine, ContextId::MAX))
}

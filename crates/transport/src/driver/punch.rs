//! Carries agreements to send at once: between sessions, probes and dials.

use std::{net::SocketAddr, time::Duration};

use x0x_core::{Machine, MachineId, Tick, TokenBucket, may_name};

use super::Actor;
use crate::{
    dialback,
    own::OwnAddresses,
    punch::{Input, MAX_HELPERS, Output, Place, Received},
    sock::{prober, table::is_detour},
    state::{self, LinkId},
    table::Session,
    wire::{ControlOut, Punch},
};

/// Steps of agreements that one peer may send at once, and the time in which another is earned. An honest one
/// needs four for each agreement.
const STEPS_BURST: u32 = 64;
const STEPS_REFILL: Duration = Duration::from_millis(100);

/// How many steps a peer may send.
pub(super) const fn rate(now: Tick) -> TokenBucket {
    TokenBucket::new(STEPS_BURST, STEPS_REFILL, now)
}

/// A machine as it is seen over its session; of one that comes by a relay or in a stream nothing is seen.
pub(super) fn place(session: &Session) -> Option<Place> {
    let observed = session.report().map(|report| report.observed);
    let link = session.link();
    let address = link.remote_address();
    (!is_detour(address)).then(|| Place::new(session.peer, address, observed, link.rtt()))
}

/// What nobody can guess.
pub(super) fn secret<const N: usize>() -> [u8; N] {
    let mut secret = [0; N];
    getrandom::fill(&mut secret).expect("the operating system has randomness");
    secret
}

impl Actor {
    /// Where this machine may be, for others to try.
    pub(super) fn own_candidates(&self) -> Vec<SocketAddr> {
        let local = self.context.engine.local_addresses();
        OwnAddresses::new(local, &self.context.reach()).all().collect()
    }

    /// A dial needs help.
    pub(super) fn punch(&mut self, peer: MachineId) {
        let mut helpers = self.helpers(peer);
        // Who has this machine in a stream sees none of its addresses. It relays at once if nobody else helps.
        helpers.retain(|helper| {
            self.context.table.get(helper).is_some_and(|session| place(&session).is_some())
        });
        helpers.truncate(MAX_HELPERS);
        let (fresh, own) = ((secret(), secret()), self.own_candidates());
        self.punches.handle(self.now(), Input::Want { peer, fresh, helpers, own });
        self.carry_punches();
    }

    /// The dial needs no help any more. If it came to a relay first, the help goes on.
    pub(super) fn punch_over(&mut self, peer: MachineId) {
        if self.wants_direct(peer) {
            return;
        }
        self.punches.handle(self.now(), Input::Unwanted(peer));
    }

    pub(super) fn on_punch(&mut self, link: LinkId, punch: Punch) {
        let now = self.now();
        let Some(handle) = self.links.get_mut(&link) else { return };
        if !handle.punches.take(now) {
            return self.context.metrics.punches.dropped.inc();
        }
        let from = handle.session.as_ref().and_then(|session| place(session));
        let Some(from) = from else { return };
        let named = match &punch {
            Punch::Ask(offer) | Punch::Forward(offer) | Punch::Accept(offer) => offer.peer,
            Punch::Refuse { peer, .. } => *peer,
        };
        let peer = self.context.table.get(&named).and_then(|session| place(&session));
        let willing = !self.context.policy.refuses(&named);
        let own = self.own_candidates();
        let received = Received::new(from, punch, peer, willing, own, secret());
        self.punches.handle(now, Input::Received(Box::new(received)));
        self.carry_punches();
    }

    pub(super) fn on_punch_timeout(&mut self) {
        self.punches.handle_timeout(self.now());
        self.carry_punches();
    }

    pub(super) fn carry_punches(&mut self) {
        let now = self.now();
        while let Some(output) = self.punches.poll_output() {
            match output {
                Output::Send { to, punch } => self.send_punch(to, punch),
                Output::Open(keys) => self.paths.probe(now, prober::Input::Open(keys)),
                Output::Close(flow) => self.paths.probe(now, prober::Input::Close(flow)),
                Output::Probe { flow, address } => {
                    self.dial_backs.handle(now, dialback::Input::WritesTo(address));
                    self.paths.probe(now, prober::Input::Probe { flow, address });
                }
                Output::Agreed(peer) => self.handle(state::Input::PunchAgreed(peer)),
                Output::Over { peer, found } => {
                    if let Some(address) = found {
                        self.probe_session(peer, address);
                    }
                    self.handle(state::Input::Punched { peer, found });
                }
                Output::Reached { peer, address } => self.probe_session(peer, address),
            }
        }
        self.carry_probes();
    }

    /// Whoever helps learns only what it could name itself of where this machine is.
    fn send_punch(&self, to: MachineId, mut punch: Punch) {
        if let Punch::Ask(offer) = &mut punch {
            let at = self.context.table.with(&to, |session| session.link().remote_address());
            offer.addresses.retain(|address| at.is_some_and(|at| may_name(at, *address)));
        }
        let message = ControlOut::Punch(punch).encode();
        let queued = self.context.table.with(&to, |session| session.control(message));
        if queued != Some(true) {
            self.context.metrics.control_replies_dropped.inc();
        }
    }
}

//! Carries questions whether machines are reachable: between sessions and probes.

use std::sync::PoisonError;

use x0x_core::Machine;

use super::{Actor, punch};
use crate::{
    dialback::{Input, Output},
    punch::Place,
    sock::prober,
    state::LinkId,
    wire::{ControlOut, DialBackStep},
};

impl Actor {
    fn places_of_sessions(&self) -> Vec<Place> {
        self.context.table.all().iter().filter_map(|session| punch::place(session)).collect()
    }

    /// Asks for probes of confirmed addresses and of the gateway's, when it is time.
    pub(super) fn ask_for_probes(&mut self) {
        let reach = self.context.reach();
        let asked = reach.external.iter().filter(|external| external.confirmed || external.mapped);
        let addresses = asked.map(|external| external.address).collect();
        let (sessions, fresh) = (self.places_of_sessions(), (punch::secret(), punch::secret()));
        let status = Input::Status { addresses, sessions, fresh };
        self.dial_backs.handle(self.now(), status);
        self.carry_dial_backs();
    }

    pub(super) fn on_dial_back(&mut self, link: LinkId, step: DialBackStep) {
        let now = self.now();
        let Some(handle) = self.links.get_mut(&link) else { return };
        // They are as seldom as agreements, and share their bound.
        if !handle.punches.take(now) {
            return self.context.metrics.dial_backs.refused_rate.inc();
        }
        let Some(from) = handle.session.as_ref().and_then(|session| punch::place(session)) else {
            return;
        };
        let pick = u64::from_be_bytes(punch::secret());
        let sessions = self.places_of_sessions();
        self.dial_backs.handle(now, Input::Received { from, step, sessions, pick });
        self.carry_dial_backs();
    }

    pub(super) fn on_dial_back_timeout(&mut self) {
        self.dial_backs.handle_timeout(self.now());
        self.carry_dial_backs();
    }

    pub(super) fn carry_dial_backs(&mut self) {
        let now = self.now();
        while let Some(output) = self.dial_backs.poll_output() {
            match output {
                Output::Send { to, step } => {
                    let message = ControlOut::DialBack(step).encode();
                    let queued = self.context.table.with(&to, |session| session.control(message));
                    if queued != Some(true) {
                        self.context.metrics.control_replies_dropped.inc();
                    }
                }
                Output::Open(keys) => self.paths.probe(now, prober::Input::Open(keys)),
                Output::Close(flow) => self.paths.probe(now, prober::Input::Close(flow)),
                Output::Probe { flow, address } => {
                    self.paths.probe(now, prober::Input::ProbeOnce { flow, address });
                }
                Output::Reachable(address) => {
                    let observations = self.context.observations.lock();
                    let mut observations = observations.unwrap_or_else(PoisonError::into_inner);
                    observations.reached(now, address);
                }
            }
        }
        self.carry_probes();
    }
}

//! What peers see of this machine, and telling them where they are seen.

use std::{net::SocketAddr, sync::PoisonError};

use x0x_core::Scope;

use super::{Actor, Context};
use crate::{
    reach::Reach,
    record::ReachClass,
    sock::table::{is_detour, is_streamed},
    state::LinkId,
    wire::ControlOut,
};

impl Context {
    /// How this machine is reached. What peers say now counts as heard now.
    pub(crate) fn reach(&self) -> Reach {
        let now = self.clock.now();
        let sessions = self.table.all();
        let mut observations = self.observations.lock().unwrap_or_else(PoisonError::into_inner);
        for report in sessions.iter().filter_map(|session| session.report()) {
            observations.report(now, &report);
        }
        let mut reach = observations.reach(now, &self.engine.local_addresses());
        drop(observations);
        let (mut streamed, mut direct) = (false, false);
        for address in sessions.iter().map(|session| session.link().remote_address()) {
            streamed |= is_streamed(address);
            direct |= !is_detour(address) && Scope::of(address.ip()) == Some(Scope::Global);
        }
        // Packets of their own pass neither out nor in.
        if reach.class == ReachClass::Unknown && streamed && !direct {
            reach.class = ReachClass::RelayOnly;
        }
        reach
    }

    /// Whether this machine talks to others than those of its own networks.
    pub(crate) fn is_online(&self) -> bool {
        let far = |at: SocketAddr| is_detour(at) || Scope::of(at.ip()) == Some(Scope::Global);
        self.table.all().iter().any(|session| far(session.link().remote_address()))
    }
}

impl Actor {
    /// Tells each peer its address if it changed.
    pub(super) fn report_addresses(&mut self) {
        // Those that began by a relay were told nothing yet.
        let sessions = self.links.iter().filter(|(_, handle)| handle.session.is_some());
        let sessions: Vec<LinkId> = sessions.map(|(id, _)| *id).collect();
        for id in sessions {
            self.report_address(id);
        }
    }

    pub(super) fn report_address(&mut self, id: LinkId) {
        let Some(handle) = self.links.get_mut(&id) else { return };
        let address = handle.link.remote_address();
        // The word of a relay, or of what ends a TCP connection, about a place is no view of it.
        if handle.told == Some(address) || is_detour(address) {
            return;
        }
        handle.told = Some(address);
        handle.reports += 1;
        let report = ControlOut::Observed { seq: handle.reports, address };
        self.send_control(id, &report);
    }
}

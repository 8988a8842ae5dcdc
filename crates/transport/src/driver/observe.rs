//! Tells peers where they are seen.

use super::Actor;
use crate::{sock::table::is_detour, state::LinkId, wire::ControlOut};

impl Actor {
    /// Tells each peer its address if it changed.
    pub(super) fn report_addresses(&mut self) {
        let told = self.links.iter().filter(|(_, handle)| handle.told.is_some());
        let sessions: Vec<LinkId> = told.map(|(id, _)| *id).collect();
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

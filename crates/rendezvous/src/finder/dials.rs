//! The dials under way, of all searches together.

use std::{collections::BTreeMap, net::SocketAddr};

use x0x_core::{MachineId, Tick};

use crate::config::{MAX_DIALS, MAX_FILING_DIALS};

#[derive(Debug)]
struct Dial {
    addresses: Vec<SocketAddr>,
    for_caller: bool,
    until: Tick,
}

/// At most [`MAX_DIALS`], by machine. A search begins a dial only when there is a place, so that none waits
/// in a queue while the time of its question passes.
#[derive(Debug, Default)]
pub(super) struct Dials {
    open: BTreeMap<MachineId, Dial>,
}

impl Dials {
    /// Whether one more may begin.
    pub(super) fn has_room(&self, for_caller: bool) -> bool {
        let filings = || self.open.values().filter(|dial| !dial.for_caller).count();
        self.open.len() < MAX_DIALS && (for_caller || filings() < MAX_FILING_DIALS)
    }

    pub(super) fn begin(
        &mut self,
        peer: MachineId,
        addresses: &[SocketAddr],
        for_caller: bool,
        until: Tick,
    ) {
        self.open.insert(peer, Dial { addresses: addresses.to_vec(), for_caller, until });
    }

    /// Where a machine is being dialled now.
    pub(super) fn addresses(&self, peer: &MachineId) -> Option<&[SocketAddr]> {
        self.open.get(peer).map(|dial| &dial.addresses[..])
    }

    pub(super) fn end(&mut self, peer: &MachineId) {
        self.open.remove(peer);
    }

    pub(super) fn expire(&mut self, now: Tick) {
        self.open.retain(|_, dial| now < dial.until);
    }

    pub(super) fn next(&self) -> Option<Tick> {
        self.open.values().map(|dial| dial.until).min()
    }
}

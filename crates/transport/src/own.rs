//! This machine's own addresses, and its record of them.

use std::net::SocketAddr;

use x0x_core::{Clock, WallTime};

use crate::{
    link::Engine,
    reach::Reach,
    record::{RECORD_VALIDITY, ReachClass, SignedRecord},
};

/// Where this machine tells others to dial it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnAddresses {
    /// Those of its socket.
    local: Vec<SocketAddr>,
    /// Those of a translator before it, confirmed by peers.
    external: Vec<SocketAddr>,
}

impl OwnAddresses {
    pub(crate) fn new(local: Vec<SocketAddr>, reach: &Reach) -> Self {
        let confirmed = reach.external.iter().filter(|external| external.confirmed);
        let mut external: Vec<SocketAddr> = confirmed.map(|external| external.address).collect();
        external.retain(|address| !local.contains(address));
        Self { local, external }
    }

    /// Those that reach furthest come first.
    pub(crate) fn all(&self) -> impl Iterator<Item = SocketAddr> {
        self.external.iter().chain(&self.local).copied()
    }
}

/// The record that was made last, and for what.
#[derive(Debug)]
pub(crate) struct OwnRecord {
    addresses: OwnAddresses,
    record: SignedRecord,
}

impl OwnRecord {
    /// Whether it still says what is known. What was found out once holds although those who saw it are
    /// gone.
    fn holds(&self, addresses: &OwnAddresses, reach: ReachClass, now: WallTime) -> bool {
        let (of, record) = (&self.addresses, self.record.record());
        let known = |external: &Vec<SocketAddr>| external.is_empty() || *external == of.external;
        of.local == addresses.local
            && known(&addresses.external)
            && (reach == record.reach || reach == ReachClass::Unknown)
            && now + RECORD_VALIDITY / 2 < record.not_after
    }

    /// The record to show now: the last one, or one made anew. `None` without a key to sign with.
    pub(crate) fn current(
        kept: &mut Option<Self>,
        engine: &dyn Engine,
        reach: &Reach,
        clock: &dyn Clock,
    ) -> Option<SignedRecord> {
        let now = clock.wall();
        let addresses = OwnAddresses::new(engine.local_addresses(), reach);
        if !kept.as_ref().is_some_and(|kept| kept.holds(&addresses, reach.class, now)) {
            let all: Vec<SocketAddr> = addresses.all().collect();
            let record = engine.sign_record(&all, reach.class, now);
            *kept = record.map(|record| Self { addresses, record });
        }
        kept.as_ref().map(|kept| kept.record.clone())
    }
}

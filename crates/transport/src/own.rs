//! This machine's own addresses, and its record of them.

use std::net::SocketAddr;

use x0x_core::{Clock, Scope, WallTime};

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
    /// The TCP port of streams of packets, if it is another than that of packets.
    streams: Option<u16>,
}

impl OwnAddresses {
    pub(crate) fn new(local: Vec<SocketAddr>, reach: &Reach) -> Self {
        let confirmed = reach.external.iter().filter(|external| external.confirmed);
        let mut external: Vec<SocketAddr> = confirmed.map(|external| external.address).collect();
        external.retain(|address| !local.contains(address));
        Self { local, external, streams: None }
    }

    /// Those at which streams of packets are taken, too. Whoever dials an address tries it by packets first and then
    /// by a stream, so that only another port has to be said.
    pub(crate) fn with_streams(mut self, port: Option<u16>) -> Self {
        self.streams = port;
        self
    }

    /// Those that strangers may be told: of the internet, where this machine is on it.
    fn for_strangers(mut self) -> Self {
        let global = |address: &SocketAddr| Scope::of(address.ip()) == Some(Scope::Global);
        self.external.retain(global);
        self.local.retain(global);
        self
    }

    /// Those that reach furthest come first.
    pub(crate) fn all(&self) -> impl Iterator<Item = SocketAddr> {
        let all = self.external.iter().chain(&self.local).copied();
        let global = all.clone().find(|address| Scope::of(address.ip()) == Some(Scope::Global));
        let stream = global.zip(self.streams).map(|(at, port)| SocketAddr::new(at.ip(), port));
        let stream = stream.filter(|stream| all.clone().all(|address| address != *stream));
        // Second, as some only take the first few.
        all.clone().take(1).chain(stream).chain(all.skip(1))
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
            && of.streams == addresses.streams
            && known(&addresses.external)
            && (reach == record.reach || reach == ReachClass::Unknown)
            && now + RECORD_VALIDITY / 2 < record.not_after
    }

    /// The record to show now: the last one, or one made anew. It goes to anybody: the addresses of this machine's own
    /// networks are in it only while nothing shows that it is `online`, on more than these. `None` without a key to sign with.
    pub(crate) fn current(
        kept: &mut Option<Self>,
        engine: &dyn Engine,
        reach: &Reach,
        clock: &dyn Clock,
        online: bool,
    ) -> Option<SignedRecord> {
        let now = clock.wall();
        let mut addresses =
            OwnAddresses::new(engine.local_addresses(), reach).with_streams(engine.stream_port());
        if online || addresses.all().any(|a| Scope::of(a.ip()) == Some(Scope::Global)) {
            addresses = addresses.for_strangers();
        }
        if !kept.as_ref().is_some_and(|kept| kept.holds(&addresses, reach.class, now)) {
            let all: Vec<SocketAddr> = addresses.all().collect();
            let record = engine.sign_record(&all, reach.class, now);
            *kept = record.map(|record| Self { addresses, record });
        }
        kept.as_ref().map(|kept| kept.record.clone())
    }
}

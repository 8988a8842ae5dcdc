//! Between quinn and the socket: virtual addresses become real ones and back, probes are taken out.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use tokio::sync::mpsc;
use x0x_core::Clock;

use super::{
    ids::ConnectionIds, metrics::QuicMetrics, socket::SteadySocket, stream::table::StreamTable,
};
use crate::sock::{
    KnownFlows, PROBE_LEN, PathTable, ProbeIn,
    table::{is_detour, is_streamed, is_virtual, plain},
};

/// Probe packets that wait for the prober; more are lost.
pub(super) const MAX_PROBES: usize = 256;
/// Packets that wait to be sent by way of a relay, or came that way and wait for the endpoint; more are lost. A
/// third of a megabyte.
pub(super) const MAX_RELAYED: usize = 256;

/// The high bits of the first byte of QUIC's Initial packets (RFC 9000 §17.2.2).
const INITIAL: u8 = 0xc0;

/// A packet and the way by a relay that it takes or took.
pub(super) type Relayed = (SocketAddr, Bytes);

/// The paths of all links of an engine. Shared by its socket, its dials and its links.
#[derive(Debug)]
pub(super) struct Paths {
    table: Mutex<PathTable>,
    ids: ConnectionIds,
    clock: Arc<dyn Clock>,
    /// Whether the socket is of the IPv6 family, and so has IPv4 addresses in mapped form.
    v6: bool,
    probes: mpsc::Sender<(SocketAddr, ProbeIn)>,
    /// Probes of others are dropped here, so that nobody but peers can give the node work.
    pub(super) flows: Arc<KnownFlows>,
    /// To the relays. A queue, since sending it is another connection's work: quinn holds the lock of the one that
    /// the packet is of.
    relayed: mpsc::Sender<Relayed>,
    /// What takes packets where UDP does not pass.
    pub(super) streams: Arc<StreamTable>,
    /// For packets beside quinn. The socket is quinn's, and ends with it.
    pub(super) socket: OnceLock<Weak<SteadySocket>>,
    metrics: Arc<QuicMetrics>,
}

impl Paths {
    pub(super) fn new(
        ids: ConnectionIds,
        clock: Arc<dyn Clock>,
        v6: bool,
        probes: mpsc::Sender<(SocketAddr, ProbeIn)>,
        relayed: mpsc::Sender<Relayed>,
        metrics: Arc<QuicMetrics>,
    ) -> Self {
        let (table, socket) = (Mutex::default(), OnceLock::new());
        let streams = Arc::new(StreamTable::new(metrics.streams.clone()));
        let flows = Arc::default();
        Self { table, ids, clock, v6, probes, flows, relayed, streams, socket, metrics }
    }

    fn table(&self) -> MutexGuard<'_, PathTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A virtual address for a dial; `None` when too many are in use.
    pub(super) fn dial(self: &Arc<Self>, real: SocketAddr) -> Option<PathUse> {
        let name = self.table().dial(self.clock.now(), real)?;
        Some(PathUse { paths: self.clone(), name, dialled: plain(real) })
    }

    /// Whether the socket can send to an address at all.
    pub(super) const fn carries(&self, address: SocketAddr) -> bool {
        self.v6 || address.is_ipv4()
    }

    /// An address as the socket has it.
    pub(super) fn form(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(v4) if self.v6 => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            other => other,
        }
    }

    /// Where packets, the last of which is `last`, really go; `None` when their path is over.
    pub(super) fn outgoing(&self, to: SocketAddr, last: &[u8]) -> Option<SocketAddr> {
        if !is_virtual(to) || is_detour(to) {
            return Some(to);
        }
        let real = self.table().outgoing(to, last);
        if real.is_none() {
            self.metrics.udp_pathless.inc();
        }
        real.map(|real| self.form(real))
    }

    /// Whether these packets are of the first flight of a dial, and to be sent twice.
    pub(super) fn goes_twice(&self, transmit: &Transmit<'_>) -> bool {
        let to = transmit.destination;
        let is_initial = transmit.contents.first().is_some_and(|first| first & 0xf0 == INITIAL);
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let datagrams = transmit.contents.len().div_ceil(size);
        is_initial && is_virtual(to) && !is_detour(to) && self.table().goes_twice(to, datagrams)
    }

    /// Takes what goes by way of a relay or in a stream; false for all that does not.
    pub(super) fn take_detour(&self, transmit: &Transmit<'_>) -> bool {
        let detour = is_detour(transmit.destination);
        if detour {
            let to = plain(transmit.destination);
            let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
            for packet in transmit.contents.chunks(size) {
                if is_streamed(to) {
                    self.streams.send(to, packet);
                } else if self.relayed.try_send((to, Bytes::copy_from_slice(packet))).is_err() {
                    self.metrics.relayed_dropped.inc();
                }
            }
        }
        detour
    }

    /// Makes of what came to the socket what quinn shall see.
    pub(super) fn incoming(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        if is_virtual(meta.addr) {
            self.metrics.udp_forged_source.inc();
            meta.len = 0;
        }
        self.translate(buffer, meta);
    }

    /// The same for what came by way of a relay or in a stream; what does not fit into the buffer is lost.
    pub(super) fn incoming_relayed(
        &self,
        (from, packet): &Relayed,
        buffer: &mut [u8],
        meta: &mut RecvMeta,
    ) {
        let len = packet.len();
        let fits = buffer.get_mut(..len).map(|buffer| buffer.copy_from_slice(packet));
        let len = fits.map_or(0, |()| len);
        let addr = self.form(*from);
        *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
        self.translate(buffer, meta);
    }

    fn translate(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        self.take_probes(buffer, meta);
        if meta.len == 0 {
            return;
        }
        let name = self.table().incoming(self.clock.now(), meta.addr);
        if let Some(name) = name
            && !self.ids.is_for_acceptor(&buffer[..meta.len])
        {
            meta.addr = self.form(name);
        }
    }

    /// Takes probes out of a buffer, which may hold many datagrams of one size.
    fn take_probes(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        // The kernel joins datagrams of one size, but for the last.
        let stride = meta.stride.max(1);
        let mut at = 0;
        while at < meta.len {
            let end = (at + stride).min(meta.len);
            // QUIC packets, which are nearly all, are known by their first byte.
            let probe = (buffer[at] & 0xc0 == 0 && end - at == PROBE_LEN)
                .then(|| ProbeIn::decode(&buffer[at..end]))
                .flatten();
            match probe {
                Some(probe) => {
                    if self.flows.admits(&probe)
                        && self.probes.try_send((plain(meta.addr), probe)).is_err()
                    {
                        self.metrics.probes_dropped.inc();
                    }
                    buffer.copy_within(end..meta.len, at);
                    meta.len -= end - at;
                }
                None => at = end,
            }
        }
    }
}

/// A virtual address that a dial, and the link that comes of it, uses.
#[derive(Debug)]
pub(super) struct PathUse {
    paths: Arc<Paths>,
    name: SocketAddr,
    dialled: SocketAddr,
}

impl PathUse {
    /// The virtual address.
    pub(super) const fn name(&self) -> SocketAddr {
        self.name
    }

    /// The real one now.
    pub(super) fn active(&self) -> SocketAddr {
        self.paths.table().active(self.name).unwrap_or(self.dialled)
    }

    /// Takes packets from a further real address, too.
    pub(super) fn add(&self, real: SocketAddr) -> bool {
        self.paths.carries(real) && self.paths.table().add(self.paths.clock.now(), self.name, real)
    }

    /// Sends to another of the real addresses from now on.
    pub(super) fn activate(&self, real: SocketAddr) -> bool {
        let mut table = self.paths.table();
        let done = table.activate(self.name, real);
        let latest = table.latest(self.name).filter(|_| done).map(<[u8]>::to_vec);
        drop(table);
        if done {
            self.paths.metrics.paths_switched.inc();
        }
        let socket = self.paths.socket.get().and_then(Weak::upgrade);
        if let (Some(latest), Some(socket)) = (latest, socket) {
            socket.send_beside(real, &latest);
        }
        done
    }
}

impl Drop for PathUse {
    fn drop(&mut self) {
        self.paths.table().release(self.paths.clock.now(), self.name);
    }
}

#[cfg(test)]
mod tests {
    use x0x_core::{ManualClock, WallTime};

    use super::*;
    use crate::sock::packet::{FLOW_SECRET_LEN, FlowKeys, Probe, Step};

    fn paths(v6: bool) -> (Arc<Paths>, mpsc::Receiver<(SocketAddr, ProbeIn)>) {
        let (sender, probes) = mpsc::channel(MAX_PROBES);
        let clock = Arc::new(ManualClock::new(WallTime::default()));
        let (relayed, _) = mpsc::channel(1);
        let ids = ConnectionIds::default();
        let paths = Paths::new(ids, clock, v6, sender, relayed, Arc::default());
        (Arc::new(paths), probes)
    }

    fn meta(from: &str, len: usize, stride: usize) -> RecvMeta {
        let addr = from.parse().expect("an address");
        RecvMeta { addr, len, stride, ecn: None, dst_ip: None }
    }

    fn probe() -> [u8; PROBE_LEN] {
        let keys = FlowKeys::new(&[7; FLOW_SECRET_LEN], true);
        Probe::new(Step::Probe, 0, 1, "192.0.2.1:9".parse().expect("an address")).encode(&keys)
    }

    #[test]
    fn probes_are_taken_out_from_among_quic_packets() {
        let quic = [0x40; PROBE_LEN];
        let (paths, mut probes) = paths(true);
        paths.flows.open(FlowKeys::new(&[7; FLOW_SECRET_LEN], false));
        let mut buffer = [&probe()[..], &quic, &probe(), &quic[..40]].concat();
        let mut meta = meta("[::ffff:192.0.2.9]:7", buffer.len(), PROBE_LEN);
        paths.incoming(&mut buffer, &mut meta);
        assert_eq!(&buffer[..meta.len], &[0x40; PROBE_LEN + 40]);
        for _ in 0..2 {
            let (from, _) = probes.try_recv().expect("a probe");
            assert_eq!(from.to_string(), "192.0.2.9:7");
        }
        assert!(probes.try_recv().is_err());
        for _ in 0..MAX_PROBES + 5 {
            let mut meta = self::meta("192.0.2.9:7", PROBE_LEN, PROBE_LEN);
            paths.incoming(&mut probe(), &mut meta);
            assert_eq!(meta.len, 0);
        }
        assert_eq!(paths.metrics.probes_dropped.value(), 5);
        // Those of others take no room.
        while probes.try_recv().is_ok() {}
        let forger = FlowKeys::new(&[8; FLOW_SECRET_LEN], true);
        let to = "192.0.2.1:9".parse().expect("an address");
        let mut forged = Probe::new(Step::Probe, 0, 1, to).encode(&forger);
        let mut meta = self::meta("192.0.2.9:7", PROBE_LEN, PROBE_LEN);
        paths.incoming(&mut forged, &mut meta);
        assert!(meta.len == 0 && probes.try_recv().is_err());
    }

    #[test]
    fn addresses_are_translated_in_the_form_of_the_socket() {
        for (v6, form) in [(false, "192.0.2.9:7"), (true, "[::ffff:192.0.2.9]:7")] {
            let (paths, _probes) = paths(v6);
            let used = paths.dial("192.0.2.9:7".parse().expect("an address")).expect("room");
            let real = paths.outgoing(paths.form(used.name()), &[]).expect("a path");
            assert_eq!(real.to_string(), form);
            let mut meta = meta(form, 40, 40);
            paths.incoming(&mut [0x40; 40], &mut meta);
            assert_eq!(meta.addr, paths.form(used.name()));
            let mut forged = self::meta("240.0.0.9:1", 40, 40);
            paths.incoming(&mut [0x40; 40], &mut forged);
            assert_eq!(forged.len, 0);
            let nobodys = "240.0.1.1:1".parse().expect("an address");
            assert_eq!(paths.outgoing(nobodys, &[]), None);
            assert_eq!(paths.metrics.udp_pathless.value(), 1);
        }
    }
}

use std::{sync::atomic::AtomicUsize, time::Duration};

use super::*;
use crate::{
    link::{BoxFuture, LinkClosed, RecvStream, SendStream},
    relay::{IDLE_AFTER, RelayConfig, packet::MAX_PACKET},
    wire::CloseCode,
};

const NOW: Tick = Tick::ZERO;

/// A link that only carries datagrams, and keeps them.
#[derive(Debug)]
struct Wire {
    at: Mutex<SocketAddr>,
    capacity: AtomicUsize,
    sent: Mutex<Vec<Bytes>>,
}

impl Wire {
    fn new(n: u8) -> Arc<Self> {
        let at = Mutex::new(SocketAddr::from(([192, 0, 2, n], 5483)));
        let (capacity, sent) = (AtomicUsize::new(1162), Mutex::default());
        Arc::new(Self { at, capacity, sent })
    }

    fn take(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}

impl Link for Wire {
    fn peer(&self) -> MachineId {
        machine(0)
    }

    fn remote_address(&self) -> SocketAddr {
        *self.at.lock().unwrap()
    }

    fn rtt(&self) -> Duration {
        Duration::ZERO
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramRefused> {
        let most = self.capacity.load(Ordering::Relaxed);
        if datagram.len() > most {
            return Err(DatagramRefused::TooLarge { most });
        }
        self.sent.lock().unwrap().push(datagram);
        Ok(())
    }

    fn open(&self, _: i32) -> BoxFuture<'_, Result<Box<dyn SendStream>, LinkClosed>> {
        Box::pin(std::future::ready(Err(LinkClosed::Local)))
    }

    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn RecvStream>, LinkClosed>> {
        Box::pin(std::future::ready(Err(LinkClosed::Local)))
    }

    fn close(&self, _: CloseCode) {}

    fn closed(&self) -> BoxFuture<'_, LinkClosed> {
        Box::pin(std::future::ready(LinkClosed::Local))
    }
}

fn machine(n: u8) -> MachineId {
    MachineId::new([n; 32])
}

struct Bench {
    ways: Ways,
    wires: [Arc<Wire>; 2],
    carriers: [Arc<Carrier>; 2],
    config: RelayConfig,
}

impl Bench {
    fn new() -> Self {
        let total = ByteBucket::new(u64::MAX, u64::MAX, NOW);
        let wires = [Wire::new(1), Wire::new(2)];
        let carriers = [0, 1].map(|n: usize| Arc::new(Carrier::new(wires[n].clone())));
        let ways = Ways::new(total, Arc::default());
        Self { ways, wires, carriers, config: RelayConfig::default() }
    }

    /// Forwards between context 2 of the first and context 3 of the second.
    fn join(&self) -> Arc<Pair> {
        let quota = |_| Arc::new(Mutex::new(ClientQuota::new(&self.config, NOW)));
        Ways::join(NOW, [(&self.carriers[0], 2), (&self.carriers[1], 3)], [0, 1].map(quota))
    }

    fn receive(&self, now: Tick, on: usize, datagram: &Bytes) -> Option<(SocketAddr, Bytes)> {
        self.ways.on_datagram(now, &self.carriers[on], datagram)
    }
}

fn whole(context: u32, len: usize) -> Bytes {
    encode(false, context, Piece::Whole, &vec![7; len])
}

#[test]
fn packets_go_between_the_two_ends_and_nowhere_else() {
    let bench = Bench::new();
    let pair = bench.join();
    assert_eq!(bench.receive(NOW, 0, &whole(2, 1000)), None);
    assert_eq!(bench.wires[1].take(), [encode(true, 3, Piece::Whole, &[7; 1000])]);
    assert_eq!(bench.receive(NOW, 1, &whole(3, 10)), None);
    assert_eq!(bench.wires[0].take(), [encode(true, 2, Piece::Whole, &[7; 10])]);
    // By the names of others, as if from the relay, and garbage.
    for datagram in [
        whole(3, 10),
        whole(4, 10),
        encode(true, 2, Piece::Whole, b"x"),
        Bytes::from_static(b"x"),
        Bytes::new(),
        encode(false, 2, Piece::Whole, &[7; MAX_PACKET + 1]),
    ] {
        assert_eq!(bench.receive(NOW, 0, &datagram), None);
    }
    let metrics = &bench.ways.metrics;
    assert_eq!(metrics.dropped_unknown_context.value(), 3);
    assert_eq!(metrics.dropped_malformed.value(), 3);
    assert_eq!((metrics.forwarded_packets.value(), metrics.forwarded_bytes.value()), (2, 1010));
    Ways::part(&pair);
    bench.receive(NOW, 0, &whole(2, 10));
    assert_eq!(metrics.dropped_unknown_context.value(), 4);
    assert!(bench.wires.iter().all(|wire| wire.take().is_empty()));
}

#[test]
fn what_a_carrier_does_not_take_is_parted_or_lost() {
    let bench = Bench::new();
    let _pair = bench.join();
    bench.receive(NOW, 0, &whole(2, MAX_PARTED));
    let parts = bench.wires[1].take();
    assert_eq!(parts.len(), 2);
    // Parts go on as they are.
    let first = encode(false, 2, Piece::First(9), &[7; 600]);
    bench.receive(NOW, 0, &first);
    assert_eq!(bench.wires[1].take(), [encode(true, 3, Piece::First(9), &[7; 600])]);
    bench.receive(NOW, 0, &whole(2, MAX_PARTED + 1));
    assert_eq!(bench.ways.metrics.dropped_too_large.value(), 1, "its sender finds out");
    bench.wires[1].capacity.store(1414, Ordering::Relaxed);
    bench.receive(NOW, 0, &whole(2, MAX_PARTED + 1));
    assert_eq!(bench.wires[1].take().len(), 1);

    // At the other end they make a packet again.
    bench.ways.open(NOW, (machine(1), 2), 7, bench.carriers[0].clone());
    let way = bench.ways.address((machine(1), 2)).expect("open");
    let [one, two] = parts.try_into().expect("two");
    let turn = |part: &Bytes| {
        let part = RelayedIn::decode(part).expect("well-formed");
        encode(true, 2, part.piece, &part.payload)
    };
    assert_eq!(bench.receive(NOW, 0, &turn(&two)), None);
    let packet = Bytes::from(vec![7; MAX_PARTED]);
    assert_eq!(bench.receive(NOW, 0, &turn(&one)), Some((way, packet)));
}

#[test]
fn a_session_from_another_path_has_its_large_packets_parted() {
    let bench = Bench::new();
    bench.wires[0].capacity.store(1414, Ordering::Relaxed);
    bench.ways.open(NOW, (machine(1), 2), 7, bench.carriers[0].clone());
    let way = bench.ways.address((machine(1), 2)).expect("open");
    bench.ways.send(NOW, way, &[7; 1452]);
    assert_eq!(bench.ways.metrics.dropped_too_large.value(), 1);
    bench.ways.part_large(way);
    for (len, count) in [(1452, 2), (1300, 2), (1200, 1)] {
        bench.ways.send(NOW, way, &vec![7; len]);
        assert_eq!(bench.wires[0].take().len(), count, "{len} bytes");
    }
}

#[test]
fn nothing_is_forwarded_beyond_the_quota() {
    let mut bench = Bench::new();
    bench.config.client_daily = 1_000_000;
    let _pair = bench.join();
    bench.wires[1].capacity.store(1414, Ordering::Relaxed);
    let metrics = &bench.ways.metrics;
    for _ in 0..1000 {
        bench.receive(NOW, 0, &whole(2, 1000));
    }
    let burst = bench.config.client_burst / 1064;
    assert_eq!(metrics.forwarded_packets.value(), burst);
    assert_eq!(metrics.dropped_rate.value(), 1000 - burst);
    for second in 1..10 {
        for _ in 0..1000 {
            bench.receive(Tick::from_millis(second * 1000), 0, &whole(2, 1000));
        }
    }
    let day = 1_000_000 / 1064;
    assert_eq!(metrics.forwarded_packets.value(), day);
    assert!(metrics.dropped_day.value() > 0);
    // What the other end sends is its own affair: neither uses up what the other has.
    let later = Tick::from_millis(10_000);
    bench.receive(later, 1, &whole(3, 1000));
    assert_eq!(metrics.forwarded_packets.value(), day + 1);
}

#[test]
fn small_packets_are_charged_for_what_they_cost() {
    let bench = Bench::new();
    let _pair = bench.join();
    for _ in 0..1_000_000 / 100 {
        bench.receive(NOW, 0, &whole(2, 1));
    }
    assert_eq!(bench.ways.metrics.forwarded_packets.value(), bench.config.client_burst / 256);
}

#[test]
fn nothing_is_relayed_over_what_is_relayed() {
    let bench = Bench::new();
    let _pair = bench.join();
    bench.ways.open(NOW, (machine(2), 4), 7, bench.carriers[1].clone());
    let way = bench.ways.address((machine(2), 4)).expect("open");
    // The carrier's own path falls back to the very way that it carries.
    *bench.wires[1].at.lock().unwrap() = way;
    bench.receive(NOW, 0, &whole(2, 100));
    bench.ways.send(NOW, way, &[7; 100]);
    assert_eq!(bench.ways.metrics.dropped_nested.value(), 2);
    assert!(bench.wires[1].take().is_empty());
}

#[test]
fn ways_end_and_are_remembered_for_a_while() {
    let bench = Bench::new();
    let (leg, carrier) = ((machine(1), 2), &bench.carriers[0]);
    bench.ways.open(NOW, leg, 7, carrier.clone());
    let way = bench.ways.address(leg).expect("open");
    assert!(is_relayed(way));
    assert_eq!(bench.ways.relay(way), Some((machine(1), bench.wires[0].remote_address())));
    assert_eq!(bench.ways.unused_since(Tick::from_millis(1)), [leg]);
    bench.ways.send(Tick::from_millis(5), way, b"x");
    assert!(bench.ways.unused_since(Tick::from_millis(1)).is_empty());
    assert_eq!(bench.ways.close(leg), Some(way));
    assert_eq!(bench.ways.close(leg), None);
    bench.ways.send(NOW, way, b"x");
    assert_eq!(bench.ways.metrics.dropped_over.value(), 1);
    assert!(bench.ways.relay(way).is_some(), "whoever is still on it");
    for n in 0..2 * MAX_OVER as u32 {
        let leg = (machine(2), 2 * n + 4);
        bench.ways.open(NOW, leg, 8, carrier.clone());
        bench.ways.close(leg);
    }
    assert_eq!(bench.ways.relay(way), None);
    assert!(bench.ways.inner.read().unwrap().ways.len() <= MAX_OVER);
}

/// What a pair costs its relay. The datagrams that wait are those of the sessions, however many pairs these carry.
#[test]
fn a_pair_costs_a_relay_little() {
    let route = size_of::<((bool, ContextId), Route)>();
    let leg = size_of::<(Leg, u64)>();
    let pair = size_of::<Pair>() + size_of::<(u64, Arc<Pair>)>() + 2 * (2 * route + 4 * leg);
    let client = size_of::<(MachineId, Mutex<ClientQuota>)>();
    assert!(pair + client < 2048, "{pair} and {client} bytes");
    assert!(IDLE_AFTER <= Duration::from_secs(120), "and that for so long at most");
}

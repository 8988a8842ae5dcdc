//! The machine with virtual time, and the shell before a gateway on loopback.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use tokio::{net::UdpSocket, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use x0x_core::{Machine, SystemClock, Tick};

use super::*;
use crate::{
    interfaces::{Network, follow},
    testing::FakeInterfaces,
};

const PORT: u16 = 5483;
const NONCE: [u8; 12] = [7; 12];
const PUBLIC: Ipv4Addr = Ipv4Addr::new(8, 8, 4, 4);
const DEADLINE: Duration = Duration::from_secs(5);

fn way(n: u8) -> Way {
    Way { gateway: Ipv4Addr::new(192, 168, n, 1), own: Ipv4Addr::new(192, 168, n, 7) }
}

fn granted(question: &[u8], address: Ipv4Addr, port: u16, lifetime: u32) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[1] |= 0x80;
    answer[4..8].copy_from_slice(&lifetime.to_be_bytes());
    answer[8..24].fill(0);
    answer[42..44].copy_from_slice(&port.to_be_bytes());
    answer[44..60].copy_from_slice(&address.to_ipv6_mapped().octets());
    answer
}

struct Bench {
    machine: PortMap,
    metrics: Arc<PortMapMetrics>,
    now: Tick,
}

impl Bench {
    fn new() -> Self {
        let metrics = Arc::<PortMapMetrics>::default();
        let machine = PortMap::new(PORT, Arc::clone(&metrics));
        let mut bench = Self { machine, metrics, now: Tick::ZERO };
        bench.way(Some(way(1)));
        bench
    }

    fn way(&mut self, way: Option<Way>) {
        self.machine.handle(self.now, Input::Way { way, nonce: NONCE });
    }

    fn hear(&mut self, packet: Vec<u8>) {
        self.machine.handle(self.now, Input::Received(packet));
    }

    /// What it sends and says now.
    fn outputs(&mut self) -> (Vec<Vec<u8>>, Vec<Option<Lease>>) {
        let (mut sent, mut leases) = (Vec::new(), Vec::new());
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { packet, .. } => sent.push(packet),
                Output::Lease(lease) => leases.push(lease),
            }
        }
        (sent, leases)
    }

    fn next_timer(&mut self) -> Duration {
        let due = self.machine.poll_timeout().expect("a timer");
        let passed = due.since(self.now);
        self.now = due;
        self.machine.handle_timeout(due);
        passed
    }

    fn mapped(lifetime: u32) -> Self {
        let mut bench = Self::new();
        let (sent, _) = bench.outputs();
        bench.hear(granted(&sent[0], PUBLIC, 40_000, lifetime));
        bench
    }
}

#[test]
fn a_port_is_granted_renewed_at_half_of_its_life_and_given_back() {
    let mut bench = Bench::mapped(3600);
    let (_, leases) = bench.outputs();
    let lease = leases[0].expect("a lease");
    assert_eq!(lease.external, SocketAddr::from((PUBLIC, 40_000)));
    assert_eq!(lease.protocol, MapProtocol::Pcp);

    assert_eq!(bench.next_timer(), Duration::from_secs(1800));
    let (sent, _) = bench.outputs();
    // The same port at the same address is asked for, with the same nonce.
    assert_eq!(sent, [wire::pcp_map(NONCE, way(1).own, PORT, (PUBLIC, 40_000), 3600)]);
    bench.hear(granted(&sent[0], PUBLIC, 40_000, 3600));
    assert_eq!(bench.outputs().1.len(), 1);

    bench.machine.handle(bench.now, Input::Release);
    let (sent, leases) = bench.outputs();
    assert_eq!(sent, [wire::pcp_map(NONCE, way(1).own, PORT, (Ipv4Addr::UNSPECIFIED, 0), 0)]);
    assert_eq!((leases, bench.machine.poll_timeout()), (vec![None], None));
}

#[test]
fn a_lease_that_nobody_renews_ends_with_its_life() {
    let mut bench = Bench::mapped(3600);
    bench.outputs();
    while bench.outputs().1 != [None] {
        bench.next_timer();
    }
    assert_eq!((bench.now, bench.metrics.lost.value()), (Tick::ZERO + LIFETIME, 1));
}

#[test]
fn silence_is_asked_by_both_protocols_and_then_ever_more_seldom() {
    let mut bench = Bench::new();
    let mut asked = [0_u32; 3];
    let mut pauses = Vec::new();
    while pauses.len() < 8 {
        let (sent, _) = bench.outputs();
        sent.iter().for_each(|packet| asked[usize::from(packet[0])] += 1);
        let passed = bench.next_timer();
        if passed > Duration::from_secs(10) {
            pauses.push(passed.as_secs());
        }
    }
    assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
    // Four questions of one packet, and four of two.
    assert_eq!(asked, [64, 0, 32]);
}

#[test]
fn a_gateway_of_the_older_protocol_is_asked_in_it_at_once() {
    let mut bench = Bench::new();
    bench.outputs();
    bench.hear(vec![0, 129, 0, 1, 0, 0, 0, 1]);
    let (sent, _) = bench.outputs();
    assert_eq!(sent, [wire::natpmp_address(), wire::natpmp_map(PORT, PORT, 3600)]);
    bench.hear(vec![0, 129, 0, 0, 0, 0, 0, 1, 21, 107, 156, 64, 0, 0, 14, 16]);
    assert!(bench.outputs().1.is_empty(), "half of an answer is none");
    bench.hear(vec![0, 128, 0, 0, 0, 0, 0, 1, 8, 8, 4, 4]);
    let (_, leases) = bench.outputs();
    let lease = leases[0].expect("a lease");
    assert_eq!(lease.protocol, MapProtocol::NatPmp);
    assert_eq!(lease.external, SocketAddr::from((PUBLIC, 40_000)));
}

#[test]
fn another_gateway_ends_the_lease_and_is_asked() {
    let mut bench = Bench::mapped(3600);
    bench.outputs();
    bench.way(Some(way(1)));
    assert_eq!(bench.outputs(), (vec![], vec![]));
    bench.way(Some(way(2)));
    let (sent, leases) = bench.outputs();
    assert_eq!((sent.len(), leases), (1, vec![None]));
    bench.way(None);
    assert_eq!(bench.machine.poll_timeout(), None);
}

#[test]
fn what_a_hostile_gateway_says_is_refused_and_counted() {
    type Refusal = fn(&PortMapMetrics) -> u64;
    let cases: [(Ipv4Addr, u16, u32, Refusal); 6] = [
        (Ipv4Addr::new(10, 0, 0, 1), 40_000, 3600, |m| m.refused_address.value()),
        (Ipv4Addr::LOCALHOST, 40_000, 3600, |m| m.refused_address.value()),
        (Ipv4Addr::new(100, 64, 0, 1), 40_000, 3600, |m| m.refused_address.value()),
        (PUBLIC, 0, 3600, |m| m.refused_port.value()),
        (PUBLIC, 53, 3600, |m| m.refused_port.value()),
        (PUBLIC, 40_000, 1, |m| m.refused_lifetime.value()),
    ];
    for (address, port, lifetime, refusal) in cases {
        let mut bench = Bench::new();
        let (sent, _) = bench.outputs();
        bench.hear(granted(&sent[0], address, port, lifetime));
        let (sent, leases) = bench.outputs();
        assert_eq!((refusal(&bench.metrics), leases.len()), (1, 0), "{address}:{port} {lifetime}");
        assert_eq!(sent[0][4..8], [0; 4], "it is given back");
        assert_eq!(bench.next_timer(), Duration::from_secs(60));
    }
}

#[test]
fn answers_to_other_questions_are_not_heard_and_no_lease_is_for_ever() {
    let mut bench = Bench::new();
    let (sent, _) = bench.outputs();
    let good = granted(&sent[0], PUBLIC, 40_000, u32::MAX);
    let (mut nonce, mut port) = (good.clone(), good.clone());
    nonce[24] ^= 1;
    port[41] ^= 1;
    bench.hear(nonce);
    bench.hear(port);
    bench.hear(vec![0, 128, 0, 0, 0, 0, 0, 1, 8, 8, 4, 4]);
    assert_eq!((bench.metrics.refused_unasked.value(), bench.outputs().1.len()), (3, 0));
    bench.hear(good.clone());
    let lease = bench.outputs().1[0].expect("a lease");
    assert_eq!(lease.until, Tick::ZERO + LIFETIME);
    // Nothing is open any more.
    bench.hear(good);
    assert_eq!((bench.metrics.refused_unasked.value(), bench.outputs().1.len()), (4, 0));
}

proptest! {
    #[test]
    fn no_gateway_makes_it_ask_often_or_believe_what_is_not_on_the_internet(
        answers in prop::collection::vec((any::<[u8; 4]>(), any::<u16>(), any::<u32>(), 0..4_u8), 1..60),
    ) {
        let mut bench = Bench::new();
        let mut sent_in_all = 0;
        for (address, port, lifetime, what) in answers {
            let (sent, leases) = bench.outputs();
            sent_in_all += sent.len();
            for lease in leases.into_iter().flatten() {
                prop_assert_eq!(x0x_core::Scope::of(lease.external.ip()), Some(x0x_core::Scope::Global));
                prop_assert!(lease.external.port() >= 1024 && lease.until.since(bench.now) <= LIFETIME);
            }
            match (what, sent.iter().find(|packet| packet.len() == 60)) {
                (0, Some(asked)) => bench.hear(granted(asked, address.into(), port, lifetime)),
                (1, _) => bench.hear(vec![0, 129, 0, 1, 0, 0, 0, 1]),
                (2, _) => bench.hear(vec![0, 129, 0, 3, 0, 0, 0, 1]),
                _ => { bench.next_timer(); }
            }
        }
        let minutes = bench.now.since(Tick::ZERO).as_secs() / 30 + 1;
        prop_assert!(sent_in_all as u64 <= 20 * minutes, "{sent_in_all} in {minutes} half minutes");
    }
}

/// A gateway for all: this machine itself.
#[derive(Debug)]
struct Loopback;

impl Gateways for Loopback {
    fn way(&self, _: &Network) -> Option<Way> {
        Some(Way { gateway: Ipv4Addr::LOCALHOST, own: Ipv4Addr::LOCALHOST })
    }
}

async fn question(gateway: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut packet = [0; 128];
    let heard = timeout(DEADLINE, gateway.recv_from(&mut packet)).await;
    let (len, from) = heard.expect("a question").expect("a socket");
    (packet[..len].to_vec(), from)
}

#[tokio::test]
async fn the_shell_has_a_port_mapped_and_gives_it_back() {
    let gateway = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let mut config = PortMapConfig::new(PORT);
    config.gateway_port = gateway.local_addr().expect("an address").port();
    let (told, mut leases) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let network = follow(FakeInterfaces::new(Network::default()));
    let mapping = run(config, Loopback, network, Arc::new(SystemClock::new()), stop.clone(), {
        move |lease| told.try_send(lease).expect("room")
    });
    let task = tokio::spawn(mapping);

    let (asked, from) = question(&gateway).await;
    gateway.send_to(&[0xFF; 40], from).await.expect("sent");
    gateway.send_to(&granted(&asked, PUBLIC, 40_000, 3600), from).await.expect("sent");
    let lease = timeout(DEADLINE, leases.recv()).await.expect("in time").flatten();
    assert_eq!(lease.map(|lease| lease.external), Some(SocketAddr::from((PUBLIC, 40_000))));

    stop.cancel();
    loop {
        let (packet, _) = question(&gateway).await;
        // A question may have been repeated before it was answered.
        if packet[4..8] == [0; 4] {
            assert_eq!(packet[24..36], asked[24..36], "by the nonce of the lease");
            break;
        }
    }
    assert_eq!(timeout(DEADLINE, leases.recv()).await.expect("in time"), Some(None));
    timeout(DEADLINE, task).await.expect("in time").expect("it ends");
}

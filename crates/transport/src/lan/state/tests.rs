use std::net::Ipv4Addr;

use super::*;
use crate::lan::wire::LIFETIME;

fn ip(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

fn links(n: u8) -> Arc<Network> {
    Arc::new(Network::new([Interface::new(2, ip(n), 24)]))
}

struct Bench {
    machine: Lan,
    now: Tick,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let config = LanConfig::new("test", "[::]:5483".parse().expect("an address"));
        let rng = SeededRng::from_number(seed);
        Self { machine: Lan::new(Tick::ZERO, config, rng, Arc::default()), now: Tick::ZERO }
    }

    fn on(n: u8) -> Self {
        let mut bench = Self::new(n.into());
        assert!(bench.give(Input::Network(links(n))).is_empty());
        bench
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.machine.handle(self.now, input);
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }

    fn hear(&mut self, from: IpAddr, packet: &[u8]) -> Vec<Output> {
        let packet = PacketIn::decode(packet).expect("a packet");
        self.give(Input::Received { from: SocketAddr::new(from, PORT), packet })
    }

    /// Moves the time, running each timer when it is due; gives when what was sent.
    fn pass(&mut self, time: Duration) -> Vec<(Duration, PacketIn)> {
        let (start, end) = (self.now, self.now + time);
        let mut sent = Vec::new();
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.machine.handle_timeout(self.now);
            while let Some(output) = self.machine.poll_output() {
                let Output::Send { packet, .. } = output else { panic!("{output:?}") };
                sent.push((self.now - start, PacketIn::decode(&packet).expect("a packet")));
            }
        }
        self.now = end;
        sent
    }
}

fn is_question(packet: &PacketIn) -> bool {
    matches!(packet, PacketIn::Question(_))
}

fn packet(of: Instance, at: IpAddr) -> Bytes {
    let announcement = Announcement::new(of, Tag::of("test"), vec![at], 5483);
    announcement.encode(true).expect("can be written")
}

fn name(n: u16) -> Instance {
    let mut name = [0; 10];
    name[..2].copy_from_slice(&n.to_be_bytes());
    Instance(name)
}

#[test]
fn two_announcements_and_ever_rarer_questions() {
    let mut bench = Bench::new(1);
    assert!(bench.pass(Duration::from_secs(5)).is_empty(), "nothing without a link");
    bench.give(Input::Network(links(1)));
    let sent = bench.pass(Duration::from_secs(3600));
    let (asked, announced): (Vec<_>, Vec<_>) =
        sent.into_iter().partition(|(_, packet)| is_question(packet));
    assert_eq!(announced.len(), 2);
    assert!(announced[1].0 <= Duration::from_millis(1100), "{announced:?}");
    let pauses: Vec<u64> = asked.windows(2).map(|two| (two[1].0 - two[0].0).as_secs()).collect();
    assert_eq!(pauses[..7], [1, 3, 9, 27, 81, 243, 600]);
    assert!(asked.len() < 15);
}

#[test]
fn a_question_is_answered_once_in_a_second() {
    let mut bench = Bench::on(1);
    bench.pass(Duration::from_secs(20));
    let asked = question([]).expect("can be written");
    for _ in 0..50 {
        assert!(bench.hear(ip(2), &asked).is_empty());
    }
    let sent = bench.pass(Duration::from_millis(150));
    assert!(
        matches!(&sent[..], [(after, PacketIn::Services(_))] if *after >= Duration::from_millis(20))
    );
    for _ in 0..50 {
        bench.hear(ip(2), &asked);
    }
    assert!(bench.pass(Duration::from_millis(800)).is_empty());
    assert_eq!(bench.pass(Duration::from_millis(400)).len(), 1);
    // Who knows this machine does not want to hear of it.
    let known = question([bench.machine.instance()]).expect("can be written");
    bench.pass(Duration::from_secs(2));
    bench.hear(ip(2), &known);
    assert!(bench.pass(Duration::from_secs(2)).iter().all(|(_, sent)| is_question(sent)));
}

#[test]
fn a_machine_is_found_once_until_it_moves_or_is_forgotten() {
    let mut bench = Bench::on(1);
    bench.pass(Duration::from_secs(2));
    let found = bench.hear(ip(2), &packet(name(2), ip(2)));
    assert!(matches!(&found[..], [Output::Found(find)] if find.instance == name(2)));
    assert!(bench.hear(ip(2), &packet(name(2), ip(2))).is_empty());
    assert_eq!(bench.hear(ip(3), &packet(name(2), ip(3))).len(), 1, "it moved");
    assert_eq!(bench.machine.finds(bench.now).count(), 1);
    bench.pass(LIFETIME);
    assert_eq!(bench.machine.finds(bench.now).count(), 0);
    assert_eq!(bench.hear(ip(3), &packet(name(2), ip(3))).len(), 1, "it is back");
    let leaves = Announcement::new(name(2), Tag::of("test"), vec![ip(3)], 5483).encode(false);
    bench.hear(ip(3), &leaves.expect("can be written"));
    assert_eq!(bench.machine.finds(bench.now).count(), 0);
}

#[test]
fn own_packets_and_those_from_elsewhere_are_nothing() {
    let mut bench = Bench::on(1);
    let own = packet(bench.machine.instance(), ip(1));
    assert!(bench.hear(ip(1), &own).is_empty());
    bench.pass(NAME_LIFETIME + Duration::from_secs(3));
    assert_ne!(packet(bench.machine.instance(), ip(1)), own, "another name after a day");
    assert!(bench.hear(ip(1), &own).is_empty(), "the former one is known, too");
    let outside: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
    assert!(bench.hear(outside, &packet(name(2), ip(2))).is_empty());
    let packet = PacketIn::decode(&packet(name(2), ip(2))).expect("a packet");
    let from = SocketAddr::new(ip(2), 40_000);
    assert!(bench.give(Input::Received { from, packet }).is_empty());
    let metrics = &bench.machine.metrics;
    assert_eq!((metrics.refused_elsewhere.value(), metrics.refused_port.value()), (1, 1));
}

#[test]
fn a_flood_of_names_is_bounded() {
    let mut bench = Bench::on(1);
    let mut told = 0;
    for n in 0..10_000 {
        told += bench.hear(ip(2), &packet(name(n), ip(2))).len();
    }
    assert_eq!(told, FOUND_BURST as usize);
    assert!(bench.machine.finds.len() <= MAX_FINDS_PER_HOST);
    for n in 0..10_000_u16 {
        bench.now = bench.now + Duration::from_millis(500);
        let host = ip(u8::try_from(n % 200).expect("fits") + 10);
        bench.hear(host, &packet(name(n), host));
    }
    assert_eq!(bench.machine.finds.len(), MAX_FINDS);
    let services = (0..10_000).map(|n| packet(name(n), ip(2)).len()).max();
    assert!(services < Some(600));
}

#[test]
fn a_search_tells_again_and_asks_but_not_too_often() {
    let mut bench = Bench::on(1);
    bench.hear(ip(2), &packet(name(2), ip(2)));
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.give(Input::Search).len(), 1);
    assert!(bench.pass(Duration::from_secs(1)).iter().any(|(_, sent)| is_question(sent)));
    assert!(bench.give(Input::Search).is_empty());
    bench.pass(SEARCH_INTERVAL);
    assert_eq!(bench.give(Input::Search).len(), 1);
}

#[test]
fn another_link_is_greeted_and_the_old_one_forgotten() {
    let mut bench = Bench::on(1);
    bench.hear(ip(2), &packet(name(2), ip(2)));
    bench.pass(Duration::from_secs(60));
    let other = Interface::new(3, Ipv4Addr::new(10, 1, 0, 1).into(), 24);
    bench.give(Input::Network(Arc::new(Network::new([other]))));
    assert_eq!(bench.machine.finds(bench.now).count(), 0);
    let sent = bench.pass(Duration::from_secs(2));
    assert_eq!(sent.iter().filter(|(_, packet)| !is_question(packet)).count(), 2);
    // The same again is no change.
    bench.pass(Duration::from_secs(20));
    bench.give(Input::Network(Arc::new(Network::new([other]))));
    assert!(bench.pass(Duration::from_secs(5)).is_empty());
    let gone = bench.give(Input::Leave);
    assert_eq!(gone.len(), 1, "a goodbye");
    assert_eq!(bench.machine.poll_timeout(), None);
}

#[test]
fn each_link_hears_of_its_own_addresses() {
    let mut bench = Bench::new(1);
    let other = Ipv4Addr::new(10, 1, 0, 1).into();
    let loopback = Interface { shared: false, ..Interface::new(1, Ipv4Addr::LOCALHOST.into(), 8) };
    let network = [Interface::new(2, ip(1), 24), Interface::new(3, other, 24), loopback];
    bench.give(Input::Network(Arc::new(Network::new(network))));
    bench.now = bench.now + Duration::from_millis(100);
    bench.machine.handle_timeout(bench.now);
    let mut seen = Vec::new();
    while let Some(Output::Send { via, packet }) = bench.machine.poll_output() {
        if let Ok(PacketIn::Services(all)) = PacketIn::decode(&packet) {
            let everywhere = Network::new([
                Interface::new(1, ip(9), 0),
                Interface::new(1, "fd00::9".parse().expect("an address"), 0),
            ]);
            let find = all[0].clone().verify(Tag::of("test"), &everywhere).expect("holds");
            assert_eq!(find.addresses, [SocketAddr::new(via.ip, 5483)]);
            seen.push(via.ip);
        }
    }
    assert_eq!(seen, [ip(1), other]);
}

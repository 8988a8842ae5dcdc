use super::*;
use crate::{
    interfaces::{Interface, Network, follow},
    lan::wire::{Announcement, Instance, Tag},
    testing::{FakeInterfaces, FakeLan, TokioClock},
};

fn network(n: u8) -> Network {
    Network::new([Interface::new(2, std::net::Ipv4Addr::new(10, 0, 0, n).into(), 24)])
}

fn machine(lan: &FakeLan, n: u8) -> LanDiscovery {
    let watch = follow(FakeInterfaces::new(network(n)));
    let bound = std::net::SocketAddr::from(([0, 0, 0, 0], 5000 + u16::from(n)));
    let config = LanConfig::new("test", bound);
    start(lan.station(), watch, config, Arc::new(TokioClock::new()), [n; 32])
}

#[tokio::test(start_paused = true)]
async fn machines_on_a_link_find_each_other_within_a_second() {
    let lan = FakeLan::default();
    let mut all = [1, 2, 3].map(|n| machine(&lan, n));
    let begun = tokio::time::Instant::now();
    for (n, discovery) in (1..).zip(&mut all) {
        let mut at = Vec::new();
        for _ in 0..2 {
            at.extend(discovery.next().await.expect("is on").addresses);
        }
        at.sort_unstable();
        let others = [1_u8, 2, 3].into_iter().filter(|other| *other != n);
        let expected: Vec<std::net::SocketAddr> =
            others.map(|m| ([10, 0, 0, m], 5000 + u16::from(m)).into()).collect();
        assert_eq!(at, expected, "not itself");
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    // Who comes later asks.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let begun = tokio::time::Instant::now();
    let mut late = machine(&lan, 4);
    for _ in 0..3 {
        late.next().await.expect("is on");
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    let [mut first, ..] = all;
    first.shutdown().await;
    assert!(first.next().await.is_none_or(|find| !find.addresses.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn hostile_packets_are_counted_and_do_no_harm() {
    let lan = FakeLan::default();
    let mut discovery = machine(&lan, 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let near: std::net::SocketAddr = "10.0.0.66:5353".parse().expect("an address");
    let ten = || tokio::time::sleep(Duration::from_millis(10));
    lan.inject(near, &[0xff; 2000]);
    lan.inject(near, b"nonsense");
    let elsewhere = vec!["192.0.2.1".parse().expect("an address")];
    let bad = Announcement::new(Instance([1; 10]), Tag::of("test"), elsewhere, 5483);
    lan.inject(near, &bad.encode(true).expect("can be written"));
    ten().await;
    for _ in 0..5000 {
        lan.inject(near, b"flood");
        tokio::task::yield_now().await;
    }
    ten().await;
    let metrics = discovery.metrics().clone();
    assert!(metrics.refused_malformed.value() >= 2);
    assert_eq!((metrics.refused_addresses.value(), metrics.found.value()), (1, 0));
    assert!(metrics.refused_rate.value() > 0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let good = Announcement::new(
        Instance([2; 10]),
        Tag::of("test"),
        vec!["10.0.0.2".parse().expect("an address")],
        5483,
    );
    lan.inject(near, &good.encode(true).expect("can be written"));
    let find = discovery.next().await.expect("is on");
    assert_eq!(find.instance, Instance([2; 10]));
}

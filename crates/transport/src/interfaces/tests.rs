use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn interface(index: u32, text: &str, default_routed: bool) -> Interface {
    let (address, prefix) = text.split_once('/').expect("a prefix");
    let prefix = prefix.parse().expect("a number");
    Interface { default_routed, ..Interface::new(index, ip(address), prefix) }
}

fn shown(network: &Network, local: &str) -> Vec<String> {
    let local = local.parse().expect("an address");
    network.addresses(local).iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_routed_to_the_internet_stands_for_a_wildcard() {
    let network = Network::new([
        interface(4, "172.17.0.1/16", false),
        interface(2, "192.168.1.5/24", true),
        interface(2, "fe80::1/64", false),
        interface(2, "2001:db8::5/64", true),
        interface(3, "10.9.0.1/24", false),
    ]);
    assert_eq!(network.interfaces()[0].default_routed, network.interfaces()[1].default_routed);
    let all = ["[2001:db8::5]:7", "192.168.1.5:7", "[::1]:7", "127.0.0.1:7"];
    assert_eq!(shown(&network, "[::]:7"), all);
    assert_eq!(shown(&network, "0.0.0.0:7"), ["192.168.1.5:7", "127.0.0.1:7"]);
    assert_eq!(shown(&network, "10.9.0.1:7"), ["10.9.0.1:7"]);
}

#[test]
fn without_a_default_route_all_addresses_stand_for_it() {
    let network = Network::new([
        interface(2, "10.0.0.1/24", false),
        interface(2, "fe80::1/64", false),
        interface(3, "10.0.1.1/24", false),
        Interface { shared: false, ..interface(1, "127.0.0.1/8", false) },
    ]);
    assert_eq!(shown(&network, "[::]:7"), ["10.0.0.1:7", "10.0.1.1:7", "[::1]:7", "127.0.0.1:7"]);
}

#[test]
fn links_end_where_their_prefix_does() {
    let network = Network::new([
        interface(2, "10.0.0.1/25", false),
        interface(2, "fd00::1/64", false),
        Interface { shared: false, ..interface(9, "10.8.0.2/24", false) },
    ]);
    for near in ["10.0.0.127", "::ffff:10.0.0.2", "fd00::ffff"] {
        assert!(network.is_on_link(ip(near)), "{near}");
    }
    for far in ["10.0.0.128", "10.8.0.1", "fd00:0:0:1::1", "127.0.0.1"] {
        assert!(!network.is_on_link(ip(far)), "{far}");
    }
    assert!(network.is_own(ip("::ffff:10.0.0.1")) && !network.is_own(ip("10.0.0.2")));
    assert!(interface(1, "10.0.0.1/0", false).contains(ip("192.0.2.1")));
}

#[test]
fn what_is_looked_at_is_bounded() {
    let many =
        (0..10_000_u32).map(|n| Interface::new(n, Ipv4Addr::from(0x0a00_0000 + n).into(), 24));
    let network = Network::new(many.chain([interface(1, "192.0.2.1/24", true)]));
    assert_eq!(network.interfaces().len(), MAX_ADDRESSES_SEEN);
    assert!(network.interfaces()[0].default_routed, "what counts most is kept");
}

#[cfg(all(feature = "tokio", feature = "test-util"))]
#[tokio::test(start_paused = true)]
async fn changes_are_seen_once_they_have_settled() {
    use crate::testing::FakeInterfaces;

    let (before, after) = (
        Network::new([interface(2, "10.0.0.1/24", false)]),
        Network::new([interface(2, "10.0.1.1/24", false)]),
    );
    let source = FakeInterfaces::new(before.clone());
    let mut watch = follow(source.clone());
    assert_eq!(**watch.borrow_and_update(), before);
    source.set(Network::default());
    source.set(after.clone());
    watch.changed().await.expect("is followed");
    assert_eq!(**watch.borrow_and_update(), after);
    // A notice without a change is none.
    source.set(after);
    tokio::time::sleep(SETTLE * 4).await;
    assert!(!watch.has_changed().expect("is followed"));
    drop(watch);
    crate::testing::eventually("the task ends", async || source.followers() == 0).await;
}

//! Honest peers, liars, and many of them.

use proptest::prelude::*;
use x0x_core::SeededRng;

use super::*;

const OWN: &str = "198.51.100.9:5483";
const MAPPED: &str = "203.0.113.7:40000";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn machine(n: u32) -> MachineId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    MachineId::new(id)
}

/// A peer in a network of its own.
fn from(n: u32) -> SocketAddr {
    SocketAddr::from(([100, n as u8, (n >> 8) as u8, 1], 9))
}

fn seen(n: u32, observed: &str, came: bool) -> Report {
    Report::new(machine(n), from(n), at(observed), came)
}

fn secs(n: u64) -> Tick {
    Tick::from_millis(n * 1000)
}

fn reach(reports: &[Report]) -> Reach {
    let mut observations = Observations::new();
    reports.iter().for_each(|report| observations.report(Tick::ZERO, report));
    observations.reach(Tick::ZERO, &[at(OWN), at("127.0.0.1:5483")])
}

#[test]
fn two_networks_must_agree() {
    let class = |reports: &[Report]| reach(reports).class;
    assert_eq!(class(&[]), ReachClass::Unknown);
    assert_eq!(class(&[seen(1, OWN, true)]), ReachClass::Unknown);
    let mut neighbour = seen(2, OWN, true);
    neighbour.from = at("100.1.77.1:1");
    assert_eq!(class(&[seen(1, OWN, true), neighbour]), ReachClass::Unknown, "of one network");
    let mut twin = seen(2, OWN, true);
    twin.peer = machine(1);
    assert_eq!(class(&[seen(1, OWN, true), twin]), ReachClass::Unknown, "one machine");
    assert_eq!(class(&[seen(1, OWN, true), seen(2, OWN, true)]), ReachClass::Public);
    for came in [false, true] {
        let class = class(&[seen(1, OWN, came), seen(2, OWN, false)]);
        assert_eq!(class, ReachClass::Punchable, "one that came may be let in alone");
    }
    let mapped = reach(&[seen(1, MAPPED, false), seen(2, MAPPED, false), seen(3, OWN, true)]);
    assert_eq!((mapped.class, mapped.mapping_v4), (ReachClass::Punchable, Mapping::Independent));
    let first =
        ExternalAddress { address: at(MAPPED), confirmed: true, networks: 2, mapped: false };
    let hint = ExternalAddress { address: at(OWN), confirmed: false, networks: 1, mapped: false };
    assert_eq!(mapped.external, [first, hint]);
    assert_eq!(mapped.mapping_v6, Mapping::Unknown);
}

#[test]
fn the_own_site_says_nothing() {
    let site = |n| seen(n, "192.168.0.9:5483", true);
    assert_eq!(reach(&[site(1), site(2)]), Reach::default());
    let near = |n: u32, ip: &str| Report::new(machine(n), at(ip), at(OWN), true);
    assert_eq!(reach(&[near(1, "10.0.0.1:1"), near(2, "192.168.1.1:1")]), Reach::default());
}

#[test]
fn a_mapping_for_each_destination_takes_three_networks() {
    let port = |n: u32| seen(n, &format!("203.0.113.7:{}", 40_000 + n), false);
    assert_eq!(reach(&[port(1), port(2)]).mapping_v4, Mapping::Unknown);
    assert_eq!(reach(&[port(1), port(2), port(3)]).mapping_v4, Mapping::Dependent);
    assert_eq!(reach(&[port(1), port(2)]).class, ReachClass::Unknown);
    assert_eq!(reach(&[port(1), port(2), port(3)]).class, ReachClass::RelayOnly);
    let other_host = seen(3, "203.0.113.8:40003", false);
    assert_eq!(reach(&[port(1), port(2), other_host]).mapping_v4, Mapping::Unknown);
    let v6 = |n: u32| seen(n, &format!("[2001:db8::7]:{}", 40_000 + n), false);
    let both = reach(&[v6(1), v6(2), v6(3), seen(4, MAPPED, false), seen(5, MAPPED, false)]);
    assert_eq!((both.mapping_v4, both.mapping_v6), (Mapping::Independent, Mapping::Dependent));
    assert_eq!(both.class, ReachClass::Punchable, "by IPv4");
}

#[test]
fn one_liar_flips_nothing() {
    let lie = |observed: &str| seen(66, observed, true);
    for lie in [lie("203.0.113.7:1"), lie("192.0.2.1:80"), lie(OWN), lie("[2001:db8::1]:1")] {
        let honest = [seen(1, MAPPED, false), seen(2, MAPPED, false)];
        let told = reach(&[honest[0], honest[1], lie]);
        assert_eq!((told.class, told.mapping_v4), (ReachClass::Punchable, Mapping::Independent));
        assert_eq!(told.external.iter().filter(|external| external.confirmed).count(), 1);
        assert_eq!(reach(&[honest[0], lie]).mapping_v4, Mapping::Unknown);
        assert_eq!(reach(&[honest[0], lie]).class, ReachClass::Unknown);
    }
}

#[test]
fn reports_end_and_change_slowly() {
    let mut observations = Observations::new();
    observations.report(secs(0), &seen(1, MAPPED, false));
    observations.report(secs(500), &seen(2, MAPPED, false));
    assert_eq!(observations.reach(secs(599), &[]).class, ReachClass::Punchable);
    assert_eq!(observations.reach(secs(600), &[]).class, ReachClass::Unknown, "too far apart");
    observations.report(secs(600), &seen(1, MAPPED, false));
    assert_eq!(observations.reach(secs(601), &[]).class, ReachClass::Punchable);
    // A peer that changes its mind all the time is heard once in ten seconds.
    observations.report(secs(601), &seen(3, "203.0.113.7:1", false));
    observations.report(secs(605), &seen(3, "203.0.113.7:2", false));
    let hints = |now| observations.reach(secs(now), &[]).external[1].address.port();
    assert_eq!(hints(605), 1);
    observations.report(secs(611), &seen(3, "203.0.113.7:3", false));
    assert_eq!(observations.reach(secs(611), &[]).external[1].address.port(), 3);
}

#[test]
fn many_machines_of_one_network_displace_nobody() {
    let mut observations = Observations::new();
    observations.report(secs(0), &seen(1, MAPPED, false));
    observations.report(secs(0), &seen(2, MAPPED, false));
    for n in 0..10_000 {
        let observed = at(&format!("192.0.2.1:{}", 1 + n % 60_000));
        let report = Report::new(machine(1000 + n), at("7.7.7.7:7"), observed, true);
        observations.report(secs(1), &report);
    }
    let told = observations.reach(secs(2), &[]);
    assert_eq!((told.class, told.external[0].address), (ReachClass::Punchable, at(MAPPED)));
    assert_eq!(observations.v4.0.len(), 2 + MAX_REPORTS_PER_NETWORK);
    for n in 10..10_000 {
        observations.report(secs(3), &seen(n, "192.0.2.1:9", true));
    }
    assert_eq!(observations.v4.0.len(), MAX_REPORTS);
    assert!(observations.reach(secs(3), &[]).external.len() <= 2 * MAX_EXTERNAL);
}

proptest! {
    /// With two honest networks that see one address, no single other network changes the outcome,
    /// whatever it says, in any order.
    #[test]
    fn a_network_of_liars_changes_nothing(seed: u64, lies in prop::collection::vec((0..6_u32, 1..4_u16), 0..40)) {
        let mut rng = SeededRng::from_number(seed);
        let mut reports: Vec<Report> = lies
            .into_iter()
            .map(|(n, port)| {
                let observed = at(&format!("203.0.113.7:{port}"));
                Report::new(machine(100 + n), at("7.7.7.7:7"), observed, n % 2 == 0)
            })
            .collect();
        reports.extend([seen(1, MAPPED, false), seen(2, MAPPED, false)]);
        rng.shuffle(&mut reports);
        let told = reach(&reports);
        prop_assert_eq!((told.class, told.mapping_v4), (ReachClass::Punchable, Mapping::Independent));
        let confirmed: Vec<_> = told.external.iter().filter(|external| external.confirmed).collect();
        prop_assert_eq!(confirmed.len(), 1);
        prop_assert_eq!(confirmed[0].address, at(MAPPED));
    }
}

#[test]
fn what_the_gateway_says_is_a_hint_until_somebody_reached_it() {
    let (mut seen, now) = (Observations::new(), Tick::ZERO);
    let address: SocketAddr = "8.8.4.4:40000".parse().expect("an address");
    seen.map(Some(address));
    seen.clear();
    let reach = seen.reach(now, &[]);
    assert_eq!((reach.class, reach.external.len()), (ReachClass::Unknown, 1));
    assert!(reach.external[0].mapped && !reach.external[0].confirmed);
    seen.reached(now, address);
    let reach = seen.reach(now, &[]);
    assert!(reach.class == ReachClass::Public && reach.external[0].confirmed);
    assert_eq!(seen.reach(now + REACHED_FOR, &[]).class, ReachClass::Unknown);
    seen.map(None);
    assert!(seen.reach(now, &[]).external.is_empty());
}

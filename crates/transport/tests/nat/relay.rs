//! Machines that cannot reach each other, and others that relay.

use std::time::Duration;

use tokio::time::Instant;
use x0x_core::PeerAddr;
use x0x_transport::{
    PathKind, Transport,
    testing::{
        eventually,
        nat::{NatId, NatKind},
    },
};

use crate::{
    punch::{PLACES, impossible, place},
    support::{Internet, Machine, within},
};

/// Messages of a mebibyte.
const MEBIBYTE: u32 = 350;

async fn reach(a: &Machine, b: &Machine) -> Duration {
    let start = Instant::now();
    let session = within("connect", a.node.connect(PeerAddr::known(b.id, []))).await;
    session.expect("by some path");
    b.has(a).await;
    start.elapsed()
}

/// A place with others: a session, and a mebibyte each way; direct where that can be.
async fn meets_all(from: &str, places: &[&str]) {
    for (n, to) in (0..).zip(places) {
        let internet = Internet::new(400 + n);
        let relay = internet.machine(1, None);
        let mut a = internet.machine(2, place(&internet, from));
        let mut b = internet.machine(3, place(&internet, to));
        a.connect(&relay).await;
        b.connect(&relay).await;
        let took = reach(&a, &b).await;
        assert!(took < Duration::from_secs(2), "{from} to {to}: {took:?}");
        a.talk(&mut b, MEBIBYTE).await;
        b.talk(&mut a, MEBIBYTE).await;
        let relayed = PathKind::Relayed { via: relay.id };
        let expected = if impossible(from, to) { relayed } else { PathKind::Direct };
        assert_eq!([a.path(&b), b.path(&a)], [expected; 2], "{from} to {to}");
        println!("{from} to {to}: {expected:?} after {took:?}");
        let forwarded = relay.node.metrics().relay.forwarded_bytes.value();
        assert_eq!(forwarded > 2 << 20, impossible(from, to), "{forwarded} bytes forwarded");
        tokio::join!(relay.node.shutdown(), a.node.shutdown(), b.node.shutdown());
    }
}

/// Each row in two halves, to be run beside each other.
macro_rules! rows {
    ($($near:ident, $far:ident: $from:literal;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $near() {
            meets_all($from, &PLACES[..3]).await;
        }

        #[tokio::test(start_paused = true)]
        async fn $far() {
            meets_all($from, &PLACES[3..]).await;
        }
    )*};
}

rows! {
    from_the_internet_to_open_places, from_the_internet_to_closed_ones: "open";
    from_a_full_cone_to_open_places, from_a_full_cone_to_closed_ones: "full";
    from_an_address_restricted_cone_to_open_places,
        from_an_address_restricted_cone_to_closed_ones: "address";
    from_a_port_restricted_cone_to_open_places,
        from_a_port_restricted_cone_to_closed_ones: "port";
    from_a_symmetric_translator_to_open_places,
        from_a_symmetric_translator_to_closed_ones: "symmetric";
    from_a_carrier_and_a_home_to_open_places, from_a_carrier_and_a_home_to_closed_ones: "carrier";
}

/// Two machines behind translators of a kind, and two relays, in networks of their own.
struct Pair {
    internet: Internet,
    nats: [NatId; 2],
    relays: [Machine; 2],
    a: Machine,
    b: Machine,
}

impl Pair {
    async fn new(seed: u64, kind: NatKind) -> Self {
        let internet = Internet::new(seed);
        let relays = [10, 11].map(|n| internet.machine(n, None));
        let nats = [internet.nat(kind), internet.nat(kind)];
        let (a, b) = (internet.machine(2, Some(nats[0])), internet.machine(3, Some(nats[1])));
        for relay in &relays {
            a.connect(relay).await;
            b.connect(relay).await;
        }
        Self { internet, nats, relays, a, b }
    }

    /// The direct path ends; what the translators have for others stays.
    fn cut(&self) {
        self.internet.net.with(|world| {
            self.nats.into_iter().for_each(|nat| world.set_kind(nat, NatKind::Symmetric));
        });
    }

    /// Both translators are others from now on.
    fn become_kind(&self, kind: NatKind) {
        self.internet.net.with(|world| {
            for nat in self.nats {
                world.set_kind(nat, kind);
                world.rebind(nat);
            }
        });
    }

    fn generation(&self) -> u64 {
        self.a.node.session(self.b.id).expect("up").generation
    }

    fn is_direct(&self) -> bool {
        self.a.path(&self.b) == PathKind::Direct && self.b.path(&self.a) == PathKind::Direct
    }
}

#[tokio::test(start_paused = true)]
async fn a_relayed_session_moves_to_a_direct_path_once_there_is_one() {
    let mut pair = Pair::new(500, NatKind::Symmetric).await;
    reach(&pair.a, &pair.b).await;
    assert!(!pair.is_direct());
    let before = pair.generation();
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(!pair.is_direct());
    pair.become_kind(NatKind::PortRestricted);
    let (mut ready, mut direct) = (None, None);
    let deadline = Instant::now() + Duration::from_secs(100);
    while ready.is_none() || direct.is_none() {
        // In the middle of something.
        pair.a.talk(&mut pair.b, 5).await;
        pair.b.talk(&mut pair.a, 5).await;
        let knows = |machine: &Machine| {
            machine.node.reach().external.iter().any(|external| external.confirmed)
        };
        if knows(&pair.a) && knows(&pair.b) {
            ready.get_or_insert(Instant::now());
        }
        if pair.is_direct() {
            direct.get_or_insert(Instant::now());
        }
        assert!(Instant::now() < deadline, "ready {ready:?}, direct {direct:?}");
    }
    let (ready, direct) = (ready.expect("set"), direct.expect("set"));
    let took = direct.saturating_duration_since(ready);
    println!("direct {took:?} after both knew their addresses");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(pair.generation(), before, "the same session");
    assert_eq!(pair.a.node.metrics().paths_upgraded.value(), 1);
    let forwarded = || -> u64 {
        let forwarded = |m: &Machine| m.node.metrics().relay.forwarded_packets.value();
        pair.relays.iter().map(forwarded).sum()
    };
    let so_far = forwarded();
    tokio::time::sleep(Duration::from_secs(150)).await;
    let open = |m: &Machine| {
        let metrics = &m.node.metrics().relay;
        metrics.opened.value() - metrics.closed.value()
    };
    assert_eq!(pair.relays.iter().map(open).sum::<u64>(), 0, "idle contexts are closed");
    assert!(forwarded() < so_far + 10, "nothing but the end of it");
    assert!(pair.is_direct());
}

#[tokio::test(start_paused = true)]
async fn a_direct_path_that_dies_is_replaced_by_a_relay() {
    let mut pair = Pair::new(501, NatKind::PortRestricted).await;
    reach(&pair.a, &pair.b).await;
    pair.a.talk(&mut pair.b, 50).await;
    assert!(pair.is_direct());
    let before = pair.generation();
    for a_first in [true, false] {
        pair.cut();
        let start = Instant::now();
        if a_first {
            pair.a.talk(&mut pair.b, 50).await;
        }
        pair.b.talk(&mut pair.a, 50).await;
        let took = start.elapsed();
        println!("talked after {took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert_eq!(pair.generation(), before, "the same session");
        assert!(!pair.is_direct());
        pair.become_kind(NatKind::PortRestricted);
        eventually("direct again", async || pair.is_direct()).await;
    }
    assert_eq!(pair.a.node.metrics().paths_fell_back.value(), 2);
    assert_eq!(pair.a.node.metrics().paths_upgraded.value(), 2);
}

#[tokio::test(start_paused = true)]
async fn another_relay_takes_over() {
    // One leaves, and the other falls silent.
    for leaves in [true, false] {
        let internet = Internet::new(502);
        let public = internet.machine(11, None);
        let nat = internet.nat(NatKind::FullCone);
        let home = internet.machine(10, Some(nat));
        home.connect(&public).await;
        let at = public.node.session(home.id).expect("up").remote_address;
        let mut a = internet.machine(2, Some(internet.nat(NatKind::Symmetric)));
        let mut b = internet.machine(3, Some(internet.nat(NatKind::Symmetric)));
        for machine in [&a, &b] {
            let to = PeerAddr::known(home.id, [at]);
            within("connect", machine.node.connect(to)).await.expect("full cone");
        }
        reach(&a, &b).await;
        for machine in [&a, &b] {
            machine.connect(&public).await;
        }
        assert_eq!(a.path(&b), PathKind::Relayed { via: home.id });
        let before = a.node.session(b.id).expect("up").generation;
        a.talk(&mut b, 100).await;
        let start = Instant::now();
        if leaves {
            home.node.shutdown().await;
        } else {
            internet.net.with(|world| world.set_kind(nat, NatKind::Blocked));
        }
        a.talk(&mut b, 100).await;
        let took = start.elapsed();
        println!("leaves {leaves}: talked after {took:?}");
        assert!(took < Duration::from_secs(if leaves { 3 } else { 10 }), "{took:?}");
        b.talk(&mut a, 100).await;
        assert_eq!(a.path(&b), PathKind::Relayed { via: public.id });
        assert_eq!(a.node.session(b.id).expect("up").generation, before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_lost_its_only_relay_comes_back_with_it() {
    let internet = Internet::new(503);
    let nat = internet.nat(NatKind::FullCone);
    let (home, public) = (internet.machine(10, Some(nat)), internet.machine(11, None));
    public.node.shutdown().await;
    // The mapping that lets everybody in.
    let stranger = internet.machine(12, None);
    home.connect(&stranger).await;
    let at = stranger.node.session(home.id).expect("up").remote_address;
    let a = internet.machine(2, Some(internet.nat(NatKind::Symmetric)));
    let b = internet.machine(3, Some(internet.nat(NatKind::Symmetric)));
    for machine in [&a, &b] {
        let to = PeerAddr::known(home.id, [at]);
        within("connect", machine.node.connect(to)).await.expect("full cone");
    }
    reach(&a, &b).await;
    internet.net.with(|world| world.set_kind(nat, NatKind::Blocked));
    let gone = async || a.node.session(b.id).is_none() && b.node.session(a.id).is_none();
    eventually("the session ends", gone).await;
    internet.net.with(|world| world.set_kind(nat, NatKind::FullCone));
    eventually("and is back", async || a.node.session(b.id).is_some()).await;
    assert_eq!(a.path(&b), PathKind::Relayed { via: home.id });
}

#[tokio::test(start_paused = true)]
async fn nobody_relays_who_does_not_want_to() {
    let internet = Internet::new(504);
    let relay = internet.machine_with(1, None, |config| config.relay.enabled = false);
    let a = internet.machine(2, Some(internet.nat(NatKind::Symmetric)));
    let b = internet.machine(3, Some(internet.nat(NatKind::Symmetric)));
    a.connect(&relay).await;
    b.connect(&relay).await;
    let to = PeerAddr::known(b.id, []);
    within("connect", a.node.connect(to.clone())).await.expect_err("no relay");
    assert_eq!(relay.node.metrics().relay.refused_off.value(), 1);
    // Nor is anybody relayed who does not.
    let relay = internet.machine(4, None);
    let c = internet.machine_with(5, Some(internet.nat(NatKind::Symmetric)), |config| {
        config.relay.use_others = false;
    });
    a.connect(&relay).await;
    c.connect(&relay).await;
    let to = PeerAddr::known(c.id, []);
    within("connect", a.node.connect(to)).await.expect_err("not relayed");
    assert_eq!(c.node.metrics().relay.refused_off.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_relay_forwards_at_its_rate_and_no_faster() {
    let internet = Internet::new(505);
    let relay = internet.machine_with(1, None, |config| {
        config.relay.client_rate = 100_000;
        config.relay.client_burst = 50_000;
    });
    let a = internet.machine(2, Some(internet.nat(NatKind::Symmetric)));
    let mut b = internet.machine(3, Some(internet.nat(NatKind::Symmetric)));
    a.connect(&relay).await;
    b.connect(&relay).await;
    reach(&a, &b).await;
    let start = Instant::now();
    a.talk(&mut b, 300).await;
    let (metrics, took) = (&relay.node.metrics().relay, start.elapsed());
    let most = 50_000 + 100 * (took.as_millis() as u64 + 2000);
    println!("{} bytes in {took:?}", metrics.forwarded_bytes.value());
    assert!(metrics.forwarded_bytes.value() <= most);
    assert!(metrics.dropped_rate.value() > 0, "the excess is dropped, and sent again");
    // The relay's own sessions go on.
    assert!(within("ping", relay.node.ping(a.id)).await.is_ok());
}

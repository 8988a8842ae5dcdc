//! Machines behind translators that reach each other with the help of a third one.

use std::time::Duration;

use x0x_core::PeerAddr;
use x0x_transport::{
    Transport,
    error::DialError,
    testing::nat::{NatId, NatKind},
};

use crate::support::{Internet, Machine, within};

/// Where a machine can be: on the internet, behind a translator, behind a carrier's and its own.
pub(crate) const PLACES: [&str; 7] =
    ["open", "full", "address", "port", "symmetric", "carrier", "firewall"];

pub(crate) fn place(internet: &Internet, kind: &str) -> Option<NatId> {
    match kind {
        "open" => None,
        "full" => Some(internet.nat(NatKind::FullCone)),
        "address" => Some(internet.nat(NatKind::AddressRestricted)),
        "port" => Some(internet.nat(NatKind::PortRestricted)),
        "symmetric" => Some(internet.nat(NatKind::Symmetric)),
        "firewall" => Some(internet.nat(NatKind::Firewall)),
        "carrier" => {
            let carrier = internet.nat(NatKind::PortRestricted);
            internet.net.with(|world| Some(world.nat(NatKind::PortRestricted, Some(carrier))))
        }
        other => panic!("no place {other}"),
    }
}

/// Two machines that each have a session with a third one, which does not relay, and whether the first reaches the
/// second.
async fn meet(seed: u64, from: &str, to: &str) -> (Result<(), DialError>, [Machine; 2]) {
    let internet = Internet::new(seed);
    let helper = internet.machine_with(1, None, |config| config.relay.enabled = false);
    let mut a = internet.machine(2, place(&internet, from));
    let mut b = internet.machine(3, place(&internet, to));
    a.connect(&helper).await;
    b.connect(&helper).await;
    let met = within("connect", a.node.connect(PeerAddr::known(b.id, []))).await;
    if met.is_ok() {
        b.sees(&a).await;
        a.talk(&mut b, 20).await;
        b.talk(&mut a, 20).await;
    }
    tokio::join!(helper.node.shutdown(), a.node.shutdown(), b.node.shutdown());
    (met.map(drop), [a, b])
}

/// Whether a translator gives each destination a port that nobody can be told, while the other end lets in only
/// the port that it sent to.
pub(crate) fn impossible(from: &str, to: &str) -> bool {
    let hard = |one: &str, other: &str| {
        one == "symmetric" && ["symmetric", "port", "carrier", "firewall"].contains(&other)
    };
    hard(from, to) || hard(to, from)
}

/// Every pair of places that can meet does.
async fn meets_all(from: &str) {
    for (n, to) in (0..).zip(PLACES) {
        let (met, [a, b]) = meet(n, from, to).await;
        if impossible(from, to) {
            assert_eq!(met, Err(DialError::NoAddress), "{from} to {to}");
            continue;
        }
        assert_eq!(met, Ok(()), "{from} to {to}");
        assert_eq!(a.node.metrics().punches.found.value(), 1);
        // One end dialled.
        assert_eq!(b.node.metrics().dials.value(), 1, "only the helper");
    }
}

#[tokio::test(start_paused = true)]
async fn from_the_internet() {
    meets_all("open").await;
}

#[tokio::test(start_paused = true)]
async fn from_a_full_cone() {
    meets_all("full").await;
}

#[tokio::test(start_paused = true)]
async fn from_an_address_restricted_cone() {
    meets_all("address").await;
}

#[tokio::test(start_paused = true)]
async fn from_a_port_restricted_cone() {
    meets_all("port").await;
}

#[tokio::test(start_paused = true)]
async fn from_a_symmetric_translator() {
    meets_all("symmetric").await;
}

#[tokio::test(start_paused = true)]
async fn from_a_carrier_and_a_home() {
    meets_all("carrier").await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_dead_does_not_keep_help_away() {
    let internet = Internet::new(5);
    let helper = internet.machine(1, None);
    let nats = [NatKind::PortRestricted; 2].map(|kind| internet.nat(kind));
    let mut a = internet.machine(2, Some(nats[0]));
    let mut b = internet.machine(3, Some(nats[1]));
    a.connect(&helper).await;
    b.connect(&helper).await;
    // What it knows are the peer's own addresses, which are nowhere from here.
    let start = tokio::time::Instant::now();
    let session = within("connect", a.node.connect(b.to())).await.expect("with help");
    assert!(start.elapsed().as_millis() < 1000, "{:?}", start.elapsed());
    assert_ne!(session.remote_address, b.at);
    b.sees(&a).await;
    a.talk(&mut b, 20).await;
    // It needs the helper no more, and keeps its mappings alive.
    helper.node.shutdown().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    b.talk(&mut a, 20).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_nobody_knows_is_not_found() {
    let internet = Internet::new(6);
    let (helper, a) = (internet.machine(1, None), internet.machine(2, None));
    let nobody = PeerAddr::known(x0x_transport::testing::machine(99), []);
    let error = within("connect", a.node.connect(nobody.clone())).await.expect_err("nobody to ask");
    assert_eq!(error, DialError::NoAddress);
    a.connect(&helper).await;
    let error = within("connect", a.node.connect(nobody)).await.expect_err("not known");
    assert_eq!(error, DialError::NoAddress);
    assert_eq!(helper.node.metrics().punches.refused_not_connected.value(), 1);
    // A dial that succeeds by itself asks nobody.
    let b = internet.machine(3, None);
    a.connect(&b).await;
    assert_eq!(a.node.metrics().punches.wanted.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_that_want_each_other_have_one_session() {
    for seed in 0..5 {
        let internet = Internet::new(100 + seed);
        let helper = internet.machine(1, None);
        let mut a = internet.machine(2, place(&internet, "port"));
        let mut b = internet.machine(3, place(&internet, "port"));
        a.connect(&helper).await;
        b.connect(&helper).await;
        let [to_a, to_b] = [a.id, b.id].map(|id| PeerAddr::known(id, []));
        let both = async { tokio::join!(a.node.connect(to_b), b.node.connect(to_a)) };
        let (near, far) = within("connect", both).await;
        assert!(near.is_ok() && far.is_ok(), "seed {seed}: {near:?} {far:?}");
        a.talk(&mut b, 20).await;
        b.talk(&mut a, 20).await;
        assert_eq!((a.node.sessions().len(), b.node.sessions().len()), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn neighbours_behind_one_translator_meet_on_their_own_network() {
    let internet = Internet::new(7);
    let helper = internet.machine(1, None);
    // From outside they could not: it has another port for each destination.
    let nat = internet.nat(NatKind::Symmetric);
    let mut a = internet.machine(2, Some(nat));
    let mut b = internet.machine(3, Some(nat));
    a.connect(&helper).await;
    b.connect(&helper).await;
    let to = PeerAddr::known(b.id, []);
    let session = within("connect", a.node.connect(to)).await.expect("near");
    assert_eq!(session.remote_address, b.at);
    a.talk(&mut b, 20).await;
    b.talk(&mut a, 20).await;
}

#[tokio::test(start_paused = true)]
async fn losses_delay_a_meeting_but_do_not_prevent_it() {
    for seed in 0..6 {
        let internet = Internet::new(200 + seed);
        let helper = internet.machine(1, None);
        let a = internet.machine(2, place(&internet, "port"));
        let mut b = internet.machine(3, place(&internet, "address"));
        a.connect(&helper).await;
        b.connect(&helper).await;
        internet.net.with(|world| world.loss = 0.1);
        let mut met = false;
        for _ in 0..3 {
            let to = PeerAddr::known(b.id, []);
            met = within("connect", a.node.connect(to)).await.is_ok();
            if met {
                break;
            }
            // Until packets may go there again.
            tokio::time::sleep(Duration::from_secs(11)).await;
        }
        assert!(met, "seed {seed}");
        b.sees(&a).await;
        a.talk(&mut b, 20).await;
    }
}

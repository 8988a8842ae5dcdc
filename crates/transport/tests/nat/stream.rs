//! Machines at which no UDP arrives: streams of packets to volunteers, and relays over them.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;
use x0x_core::PeerAddr;
use x0x_transport::{
    PathKind, Transport,
    error::DialError,
    testing::{eventually, nat::NatKind},
};

use crate::{
    punch::{PLACES, place},
    support::{Internet, Machine, within},
};

/// Messages of a mebibyte.
const MEBIBYTE: u32 = 350;

fn tcp(volunteer: &Machine) -> SocketAddr {
    SocketAddr::new(volunteer.at.ip(), 443)
}

/// A session with a volunteer by whatever passes.
async fn joins(machine: &Machine, volunteer: &Machine) -> Duration {
    let start = Instant::now();
    let to = PeerAddr::known(volunteer.id, [volunteer.at, tcp(volunteer)]);
    within("connect", machine.node.connect(to)).await.expect("by UDP or TCP");
    volunteer.has(machine).await;
    start.elapsed()
}

/// A machine without UDP, a volunteer, and a session between them.
async fn blocked(seed: u64) -> (Internet, x0x_transport::testing::nat::NatId, Machine, Machine) {
    let internet = Internet::new(seed);
    let volunteer = internet.volunteer(1);
    let nat = internet.nat(NatKind::Blocked);
    let machine = internet.machine(2, Some(nat));
    let took = joins(&machine, &volunteer).await;
    assert!(took < Duration::from_millis(2500), "{took:?}");
    assert_eq!(machine.path(&volunteer), PathKind::Stream);
    let session = machine.node.session(volunteer.id).expect("a session");
    assert_eq!(session.remote_address, tcp(&volunteer));
    let seen = volunteer.node.session(machine.id).expect("a session");
    assert!(
        x0x_core::dialable(seen.remote_address).is_some(),
        "no virtual address leaves transport"
    );
    assert_eq!((session.observed_address, seen.observed_address), (None, None));
    (internet, nat, volunteer, machine)
}

/// A place without UDP with another, which knows nothing but its id, and the other way round.
async fn meets(seed: u64, other: &str) {
    let (internet, _, volunteer, mut a) = blocked(seed).await;
    let behind = match other {
        "blocked" => Some(internet.nat(NatKind::Blocked)),
        place_of => place(&internet, place_of),
    };
    let mut b = internet.machine(3, behind);
    joins(&b, &volunteer).await;
    let start = Instant::now();
    let (from, to) = if seed.is_multiple_of(2) { (&a, &b) } else { (&b, &a) };
    let session = within("connect", from.node.connect(PeerAddr::known(to.id, []))).await;
    assert_eq!(session.expect("relayed").path, PathKind::Relayed { via: volunteer.id }, "{other}");
    to.has(from).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{other}: {took:?}");
    a.talk(&mut b, MEBIBYTE).await;
    b.talk(&mut a, MEBIBYTE).await;
    assert!(volunteer.node.metrics().relay.forwarded_bytes.value() > 2 << 20);
    println!("udp-blocked to {other}: relayed over TCP after {took:?}");
    tokio::join!(volunteer.node.shutdown(), a.node.shutdown(), b.node.shutdown());
}

#[tokio::test(start_paused = true)]
async fn without_udp_a_stream_leads_to_a_volunteer_and_by_it_to_open_places() {
    for (seed, other) in (700..).zip(&PLACES[..3]) {
        meets(seed, other).await;
    }
}

#[tokio::test(start_paused = true)]
async fn and_to_closed_ones() {
    for (seed, other) in (711..).zip(PLACES[3..].iter().copied().chain(["blocked"])) {
        meets(seed, other).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_in_a_stream_is_whole() {
    let (_internet, _, mut volunteer, mut machine) = blocked(720).await;
    machine.talk(&mut volunteer, 2 * MEBIBYTE).await;
    volunteer.talk(&mut machine, 2 * MEBIBYTE).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_moves_to_udp_when_that_passes_again() {
    let (internet, nat, mut volunteer, mut machine) = blocked(730).await;
    internet.net.with(|world| world.set_kind(nat, NatKind::PortRestricted));
    let generation = machine.node.session(volunteer.id).expect("a session").generation;
    let moved = async || machine.path(&volunteer) == PathKind::Direct;
    within("move", eventually("the session moves", moved)).await;
    machine.talk(&mut volunteer, MEBIBYTE).await;
    volunteer.talk(&mut machine, MEBIBYTE).await;
    assert_eq!(volunteer.path(&machine), PathKind::Direct);
    let session = machine.node.session(volunteer.id).expect("the same one");
    assert_eq!(session.generation, generation, "nothing was dialled");
    assert_eq!(machine.node.metrics().paths_upgraded.value(), 1);
    // The stream ends for want of packets, and the session does not mind.
    tokio::time::sleep(Duration::from_secs(90)).await;
    machine.talk(&mut volunteer, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_stream_breaks_comes_back_by_another() {
    let (internet, _, mut volunteer, machine) = blocked(740).await;
    let generation = machine.node.session(volunteer.id).expect("a session").generation;
    let start = Instant::now();
    internet.net.cut_streams();
    let is_back = async || {
        let session = machine.node.session(volunteer.id);
        session.is_some_and(|session| session.generation > generation)
            && volunteer.node.session(machine.id).is_some()
    };
    within("back", eventually("the session is back", is_back)).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    machine.talk(&mut volunteer, 10).await;
    assert_eq!(machine.path(&volunteer), PathKind::Stream);
}

/// UDP ends in the middle of a transfer, while there are sessions with two volunteers: both move into streams.
#[tokio::test(start_paused = true)]
async fn sessions_that_lose_udp_move_into_streams() {
    let internet = Internet::new(745);
    let mut volunteers = [internet.volunteer(1), internet.volunteer(5)];
    let nat = internet.nat(NatKind::PortRestricted);
    let machine = internet.machine(2, Some(nat));
    for volunteer in &volunteers {
        joins(&machine, volunteer).await;
        assert_eq!(machine.path(volunteer), PathKind::Direct);
    }
    let start = Instant::now();
    let cut = async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        internet.net.with(|world| world.set_kind(nat, NatKind::Blocked));
    };
    let [first, second] = &mut volunteers;
    tokio::join!(machine.talk(first, 2 * MEBIBYTE), cut);
    println!("a transfer that loses UDP took {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    machine.talk(second, 10).await;
    for volunteer in [first, second] {
        let moved = async || machine.path(volunteer) == PathKind::Stream;
        within("move", eventually("the session moves", moved)).await;
        let session = machine.node.session(volunteer.id).expect("the same one");
        assert_eq!(volunteer.path(&machine), PathKind::Stream);
        // It was not dialled again.
        assert!(session.generation <= 2);
    }
    assert_eq!(machine.node.metrics().sessions_lost.value(), 0);
    // Nobody takes the streams for unused ones.
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(machine.node.metrics().sessions_lost.value(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_has_udp_opens_no_stream_and_who_takes_none_gets_none() {
    let internet = Internet::new(750);
    let volunteer = internet.volunteer(1);
    let open = internet.machine(2, None);
    joins(&open, &volunteer).await;
    assert_eq!(open.path(&volunteer), PathKind::Direct);
    let nobody =
        PeerAddr::known(x0x_core::MachineId::new([9; 32]), [SocketAddr::from(([60, 0, 0, 9], 1))]);
    let error = within("fail", open.node.connect(nobody)).await.expect_err("nobody is there");
    assert_eq!(error, DialError::Timeout);
    assert_eq!(open.node.metrics().dials_by_stream.value(), 0, "UDP passes");

    let blocked = internet.machine(3, Some(internet.nat(NatKind::Blocked)));
    let error = within("fail", blocked.node.connect(open.to())).await.expect_err("no TCP there");
    assert_eq!(error, DialError::Timeout);
    assert_eq!(blocked.node.metrics().dials_by_stream.value(), 1);

    let behind = Some(internet.nat(NatKind::Blocked));
    let off = internet.machine_by(4, behind, |_| {}, |config| config.streams.dial = false);
    let to = PeerAddr::known(volunteer.id, [tcp(&volunteer)]);
    within("fail", off.node.connect(to)).await.expect_err("switched off");
}

#[tokio::test(start_paused = true)]
async fn an_address_alone_leads_there_once_and_another_machine_is_told_apart() {
    let internet = Internet::new(760);
    let (volunteer, other) = (internet.volunteer(1), internet.volunteer(5));
    let machine = internet.machine(2, Some(internet.nat(NatKind::Blocked)));
    for _ in 0..2 {
        let to = PeerAddr::unknown(tcp(&volunteer));
        let session = within("connect", machine.node.connect(to)).await.expect("by TCP");
        assert_eq!((session.peer, session.path), (volunteer.id, PathKind::Stream));
    }
    assert_eq!(machine.node.metrics().dials_by_stream.value(), 1, "the session is known");
    let wrong = PeerAddr::known(other.id, [tcp(&volunteer)]);
    let error = within("fail", machine.node.connect(wrong)).await.expect_err("another machine");
    assert!(matches!(error, DialError::PeerMisbehaved(_)), "{error}");
}

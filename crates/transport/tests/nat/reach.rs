//! What machines learn of their translators, and sessions that outlive these.

use std::time::Duration;

use x0x_transport::{Mapping, ReachClass, Transport, error::DialError, testing::nat::NatKind};

use crate::support::{Internet, within};

const TRANSLATORS: [NatKind; 4] =
    [NatKind::FullCone, NatKind::AddressRestricted, NatKind::PortRestricted, NatKind::Symmetric];

#[tokio::test(start_paused = true)]
async fn machines_behind_translators_reach_the_internet_and_talk_both_ways() {
    let internet = Internet::new(1);
    let mut public = internet.machine(1, None);
    for (n, kind) in (2..).zip(TRANSLATORS) {
        let mut inside = internet.machine(n, Some(internet.nat(kind)));
        let session = inside.connect(&public).await;
        assert_eq!(session.remote_address, public.at);
        inside.talk(&mut public, 20).await;
        public.talk(&mut inside, 20).await;
        // From outside its own address is nowhere.
        let stranger = internet.machine(10 + n, None);
        let error = within("dial", stranger.node.connect(inside.to())).await.expect_err("no route");
        assert_eq!(error, DialError::Timeout);
    }
    let blocked = internet.machine(9, Some(internet.nat(NatKind::Blocked)));
    let error = within("dial", blocked.node.connect(public.to())).await.expect_err("no UDP");
    assert_eq!(error, DialError::Timeout);
}

#[tokio::test(start_paused = true)]
async fn reach_is_learned_from_peers_of_several_networks() {
    let internet = Internet::new(2);
    let public = [1, 2, 3].map(|n| internet.machine(n, None));
    for (n, kind) in (4..).zip(TRANSLATORS) {
        let inside = internet.machine(n, Some(internet.nat(kind)));
        assert_eq!(inside.node.reach().class, ReachClass::Unknown);
        for peer in &public {
            inside.connect(peer).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let reach = inside.node.reach();
        let confirmed: Vec<_> = reach.external.iter().filter(|found| found.confirmed).collect();
        let record = inside.node.record().expect("has a key");
        if kind == NatKind::Symmetric {
            assert_eq!(
                (reach.class, reach.mapping_v4),
                (ReachClass::RelayOnly, Mapping::Dependent)
            );
            assert!(confirmed.is_empty() && reach.external.len() == 3);
            assert!(record.record().addresses.is_empty(), "its own network is nobody's business");
        } else {
            let expected = (ReachClass::Punchable, Mapping::Independent);
            assert_eq!((reach.class, reach.mapping_v4), expected, "{kind:?}");
            assert_eq!((confirmed.len(), confirmed[0].networks), (1, 3));
            assert_eq!(record.record().addresses, [confirmed[0].address]);
            // The next peer learns it in the hello.
            let next = internet.machine(20 + n, None);
            inside.connect(&next).await;
            let session = next.node.session(inside.id).expect("a session");
            assert_eq!(session.listen_addresses, [confirmed[0].address]);
        }
    }
    // Machines on the internet that others found by themselves.
    public[0].connect(&public[1]).await;
    public[2].connect(&public[1]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(public[1].node.reach().class, ReachClass::Public);
    assert_eq!(public[1].node.record().expect("has a key").record().reach, ReachClass::Public);
}

#[tokio::test(start_paused = true)]
async fn a_session_survives_new_mappings_at_either_end() {
    for moves in ["dialler", "acceptor"] {
        let internet = Internet::new(3);
        let nat = internet.nat(NatKind::FullCone);
        let (mut outside, mut inside) = (internet.machine(1, None), internet.machine(2, Some(nat)));
        let helper = internet.machine(3, None);
        let before = if moves == "dialler" {
            inside.connect(&outside).await;
            outside.node.session(inside.id).expect("up")
        } else {
            // The mapping that a third machine's session made lets everybody in.
            inside.connect(&helper).await;
            helper.sees(&inside).await;
            let seen = helper.node.session(inside.id).expect("up").remote_address;
            let to = x0x_core::PeerAddr::known(inside.id, [seen]);
            within("connect", outside.node.connect(to)).await.expect("full cone")
        };
        for outside_first in [true, false, true] {
            outside.talk(&mut inside, 50).await;
            inside.talk(&mut outside, 50).await;
            // In the middle of it.
            internet.net.with(|world| world.rebind(nat));
            let start = tokio::time::Instant::now();
            if outside_first {
                outside.talk(&mut inside, 50).await;
            }
            inside.talk(&mut outside, 50).await;
            assert!(start.elapsed() < Duration::from_secs(3), "{moves}: {:?}", start.elapsed());
            // At rest a keep-alive finds out.
            internet.net.with(|world| world.rebind(nat));
            tokio::time::sleep(Duration::from_secs(40)).await;
            let start = tokio::time::Instant::now();
            outside.talk(&mut inside, 1).await;
            assert!(start.elapsed() < Duration::from_secs(1), "{moves}: {:?}", start.elapsed());
        }
        let after = outside.node.session(inside.id).expect("still up");
        assert_eq!(after.generation, before.generation, "{moves}: the same session");
        assert_ne!(after.remote_address, before.remote_address);
        let changed = outside.node.metrics().paths_changed.value();
        assert_eq!(changed > 0, moves == "acceptor", "QUIC itself follows a dialler");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_cannot_move_a_session() {
    let internet = Internet::new(4);
    let (mut a, mut b) = (internet.machine(1, None), internet.machine(2, None));
    a.connect(&b).await;
    a.talk(&mut b, 5).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let own = [&a, &b].map(|machine| machine.node.metrics().probes.sent.value());
    let hostile = internet.net.with(|world| world.host(None));
    let mut packet = *b"1x0xp___________________________________________________________";
    packet[47] = 0;
    for n in 0..1000_u64 {
        packet[5..13].copy_from_slice(&n.to_be_bytes());
        packet[0] = b'1' + (n % 3) as u8;
        internet.net.inject(hostile, a.at, &packet);
        internet.net.inject(hostile, b.at, &packet);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (machine, own) in [&a, &b].into_iter().zip(own) {
        let probes = &machine.node.metrics().probes;
        assert_eq!(probes.sent.value(), own, "nothing is answered");
        assert!(probes.refused_unknown_flow.value() > 0);
    }
    a.talk(&mut b, 5).await;
    b.talk(&mut a, 5).await;
    assert_eq!(a.node.session(b.id).expect("up").remote_address, b.at);
}

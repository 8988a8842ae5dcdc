//! Machines that learn whether anybody reaches them.

use std::time::Duration;

use x0x_transport::{ReachClass, Transport, testing::nat::NatKind};

use crate::support::{Internet, Machine};

/// One that talks to two others, which know further ones that it does not know.
async fn settled(internet: &Internet, of: &Machine) -> ReachClass {
    let helpers = [101, 102].map(|n| internet.machine(n, None));
    let others = [103, 104, 105].map(|n| internet.machine(n, None));
    for helper in &helpers {
        of.connect(helper).await;
        for other in &others {
            helper.connect(other).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    of.node.reach().class
}

#[tokio::test(start_paused = true)]
async fn who_is_reached_by_a_stranger_is_public_translated_or_not() {
    let kinds = [
        (None, ReachClass::Public),
        (Some(NatKind::FullCone), ReachClass::Public),
        (Some(NatKind::AddressRestricted), ReachClass::Punchable),
        (Some(NatKind::PortRestricted), ReachClass::Punchable),
        (Some(NatKind::Firewall), ReachClass::Punchable),
        // Two networks are too few to tell.
        (Some(NatKind::Symmetric), ReachClass::Unknown),
    ];
    for (kind, expected) in kinds {
        let internet = Internet::new(5);
        let machine = internet.machine(1, kind.map(|kind| internet.nat(kind)));
        assert_eq!(settled(&internet, &machine).await, expected, "{kind:?}");
        let metrics = &machine.node.metrics().dial_backs;
        assert_eq!(metrics.reached.value() > 0, expected == ReachClass::Public, "{kind:?}");
        let record = machine.node.record().expect("has a key");
        assert_eq!(record.record().reach, expected, "{kind:?}");
        if expected != ReachClass::Public {
            continue;
        }
        // It is found out again and again, as long as it is so; strangers are none any more after a while.
        let stranger = internet.machine(106, None);
        let to = record.record().addresses[0];
        let to = x0x_core::PeerAddr::known(machine.id, [to]);
        crate::support::within("a plain dial", stranger.node.connect(to)).await.expect("reached");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_lies_has_nobody_sent_anywhere_and_hides_nothing() {
    let internet = Internet::new(7);
    let machine = internet.machine(1, Some(internet.nat(NatKind::FullCone)));
    let lie = "8.8.4.4:40000".parse().expect("an address");
    machine.node.set_mapped(Some(lie));
    assert_eq!(settled(&internet, &machine).await, ReachClass::Public, "of the true address");
    let reach = machine.node.reach();
    let hint = reach.external.iter().find(|external| external.address == lie).expect("shown");
    assert!(hint.mapped && !hint.confirmed);
    let record = machine.node.record().expect("has a key");
    assert!(!record.record().addresses.contains(&lie));

    // The truth is one address, whoever says it.
    let truth = reach.external.iter().find(|external| external.confirmed).expect("seen").address;
    machine.node.set_mapped(Some(truth));
    let reach = machine.node.reach();
    assert!(reach.external.iter().all(|external| external.mapped && external.confirmed));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_where_all_know_each_other() {
    let internet = Internet::new(6);
    let nat = internet.nat(NatKind::FullCone);
    let inside = internet.machine(1, Some(nat));
    let public = [2, 3, 4].map(|n| internet.machine(n, None));
    for (n, peer) in public.iter().enumerate() {
        inside.connect(peer).await;
        for other in &public[n + 1..] {
            peer.connect(other).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(inside.node.reach().class, ReachClass::Punchable, "nothing shows more");
    let metrics = &inside.node.metrics().dial_backs;
    assert!(metrics.inconclusive.value() > 0 && metrics.reached.value() == 0);
}

//! Whatever the paths do, a session loses nothing.

use std::{ops::Range, time::Duration};

use x0x_core::{PeerAddr, SeededRng};
use x0x_transport::{Transport, testing::nat::NatKind};

use crate::support::{Internet, within};

/// Translators that forget, at either end and at both, and losses, while messages go both ways: every
/// message arrives, in order, on the session that began.
async fn schedules(seeds: Range<u64>) {
    for seed in seeds {
        println!("seed {seed}");
        let mut rng = SeededRng::from_number(seed);
        let internet = Internet::new(300 + seed);
        let helper = internet.machine(1, None);
        let kinds = [NatKind::FullCone, NatKind::AddressRestricted, NatKind::PortRestricted];
        let nats = [(); 2].map(|()| internet.nat(kinds[rng.below(kinds.len())]));
        let inside = rng.below(3);
        // The dialler, the acceptor, or both are behind a translator; full cone where both ends move.
        let behind = |end: usize| (inside == 2 || inside == end).then_some(nats[end]);
        let mut a = internet.machine(2, behind(0));
        let mut b = internet.machine(3, behind(1));
        a.connect(&helper).await;
        b.connect(&helper).await;
        let before = within("connect", a.node.connect(PeerAddr::known(b.id, []))).await;
        let before = before.expect("punched");
        b.sees(&a).await;
        for _ in 0..8 {
            internet.net.with(|world| world.loss = rng.below(4) as f64 * 0.02);
            let (count, back) = (10 + rng.below(80) as u32, 10 + rng.below(80) as u32);
            a.talk(&mut b, count).await;
            b.talk(&mut a, back).await;
            // One end moves. If both did at once, neither would know where the other is.
            let moves = nats[rng.below(2)];
            let open = |world: &mut x0x_transport::testing::nat::World| {
                world.set_kind(nats[0], NatKind::FullCone);
                world.set_kind(nats[1], NatKind::FullCone);
                world.rebind(moves);
            };
            internet.net.with(open);
            if rng.chance(0.5) {
                tokio::time::sleep(Duration::from_millis(rng.range(0, 20_000))).await;
            }
        }
        a.talk(&mut b, 50).await;
        b.talk(&mut a, 50).await;
        let after = a.node.session(b.id).expect("still up");
        assert_eq!(after.generation, before.generation, "seed {seed}");
        tokio::join!(helper.node.shutdown(), a.node.shutdown(), b.node.shutdown());
    }
}

#[tokio::test(start_paused = true)]
async fn no_schedule_of_path_changes_loses_a_message() {
    schedules(0..5).await;
}

#[tokio::test(start_paused = true)]
async fn nor_does_any_other() {
    schedules(5..10).await;
}

/// The same with translators through which there is a direct path now and then, and relays that come and go: the session
/// moves between them, or is opened again when none was left; what was acknowledged has arrived.
async fn relayed_schedules(seeds: Range<u64>) {
    for seed in seeds {
        println!("seed {seed}");
        let mut rng = SeededRng::from_number(seed);
        let internet = Internet::new(900 + seed);
        let relays = [1, 4].map(|n| internet.machine(n, None));
        let nats = [(); 2].map(|()| internet.nat(NatKind::Symmetric));
        let mut a = internet.machine(2, Some(nats[0]));
        let mut b = internet.machine(3, Some(nats[1]));
        for relay in &relays {
            a.connect(relay).await;
            b.connect(relay).await;
        }
        let before = within("connect", a.node.connect(PeerAddr::known(b.id, []))).await;
        let before = before.expect("relayed");
        b.has(&a).await;
        for _ in 0..8 {
            internet.net.with(|world| world.loss = rng.below(4) as f64 * 0.01);
            let (count, back) = (10 + rng.below(60) as u32, 10 + rng.below(60) as u32);
            a.talk(&mut b, count).await;
            b.talk(&mut a, back).await;
            let kinds = [NatKind::FullCone, NatKind::PortRestricted, NatKind::Symmetric];
            let kind = kinds[rng.below(kinds.len())];
            let moved = rng.below(3);
            internet.net.with(|world| {
                for (end, nat) in nats.into_iter().enumerate() {
                    world.set_kind(nat, kind);
                    if moved == 2 || moved == end {
                        world.rebind(nat);
                    }
                }
            });
            if rng.chance(0.5) {
                tokio::time::sleep(Duration::from_millis(rng.range(0, 30_000))).await;
            }
        }
        a.talk(&mut b, 50).await;
        b.talk(&mut a, 50).await;
        let after = a.node.session(b.id).expect("still up");
        assert_eq!(after.generation, before.generation, "seed {seed}");
        tokio::join!(a.node.shutdown(), b.node.shutdown());
    }
}

#[tokio::test(start_paused = true)]
async fn no_schedule_of_relays_and_direct_paths_loses_a_message() {
    relayed_schedules(0..4).await;
}

#[tokio::test(start_paused = true)]
async fn nor_does_any_other_of_these() {
    relayed_schedules(4..8).await;
}
/// The same while messages are on their way: translators change and forget, packets get lost, at any moment.
async fn meanwhile(seeds: Range<u64>) {
    for seed in seeds {
        println!("seed {seed}");
        let mut rng = SeededRng::from_number(seed);
        let internet = Internet::new(1200 + seed);
        let relay = internet.machine(1, None);
        let nats = [(); 2].map(|()| internet.nat(NatKind::FullCone));
        let mut a = internet.machine(2, Some(nats[0]));
        let mut b = internet.machine(3, Some(nats[1]));
        a.connect(&relay).await;
        b.connect(&relay).await;
        let before = within("connect", a.node.connect(PeerAddr::known(b.id, []))).await;
        let before = before.expect("punched");
        b.sees(&a).await;
        let net = internet.net.clone();
        let changes = async move {
            loop {
                tokio::time::sleep(Duration::from_millis(rng.range(1, 4000))).await;
                let kinds = [NatKind::FullCone, NatKind::PortRestricted, NatKind::Symmetric];
                let kind = kinds[rng.below(kinds.len())];
                let (moved, loss) = (nats[rng.below(2)], rng.below(4) as f64 * 0.02);
                net.with(|world| {
                    nats.into_iter().for_each(|nat| world.set_kind(nat, kind));
                    world.rebind(moved);
                    world.loss = loss;
                });
            }
        };
        let messages = async {
            for _ in 0..6 {
                a.talk(&mut b, 400).await;
                b.talk(&mut a, 400).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            () = messages => {}
            () = changes => {}
        }
        internet.net.with(|world| world.loss = 0.0);
        a.talk(&mut b, 50).await;
        b.talk(&mut a, 50).await;
        let after = a.node.session(b.id).expect("still up");
        assert_eq!(after.generation, before.generation, "seed {seed}");
        tokio::join!(relay.node.shutdown(), a.node.shutdown(), b.node.shutdown());
    }
}

#[tokio::test(start_paused = true)]
async fn no_change_of_paths_under_way_loses_a_message() {
    meanwhile(0..6).await;
}

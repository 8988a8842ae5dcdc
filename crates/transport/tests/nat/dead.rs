//! A thousand addresses at which nobody is, before one at which somebody is.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;
use x0x_core::{MachineId, PeerAddr};
use x0x_transport::{
    PathKind, Transport,
    config::{MAX_DIALS, MAX_QUEUED_DIALS},
    error::DialError,
    testing::nat::NatKind,
};

use crate::support::{Internet, within};

/// How many are dead.
const DEAD: u16 = 1000;

fn dead(n: u16) -> PeerAddr {
    let mut id = [0xdd; 32];
    id[..2].copy_from_slice(&n.to_be_bytes());
    let [high, low] = n.to_be_bytes();
    PeerAddr::known(MachineId::new(id), [SocketAddr::from(([60, 1 + high, low, 1], 5483))])
}

/// Dials all of them at once, and a live one again and again until it is reached. Gives how long that took.
async fn among_the_dead(
    seed: u64,
    behind: Option<NatKind>,
    unreachables: bool,
) -> (Duration, [u64; 2]) {
    let internet = Internet::new(seed);
    internet.net.with(|world| world.unreachables = unreachables);
    let mut live = internet.volunteer(1);
    let machine = internet.machine(2, behind.map(|kind| internet.nat(kind)));
    let start = Instant::now();
    let all = join_all((0..DEAD).map(|n| machine.node.connect(dead(n))));
    let reach = async {
        let to = PeerAddr::known(live.id, [SocketAddr::new(live.at.ip(), 443), live.at]);
        loop {
            match machine.node.connect(to.clone()).await {
                Ok(session) => break (start.elapsed(), session.path),
                Err(error) => assert!(matches!(error, DialError::Limit { .. }), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let (failed, (took, path)) = within("an end", async { tokio::join!(all, reach) }).await;
    let refused = failed.iter().filter(|end| matches!(end, Err(DialError::Limit { .. }))).count();
    assert!(failed.iter().all(Result::is_err));
    assert_eq!(refused, usize::from(DEAD) - MAX_DIALS - MAX_QUEUED_DIALS, "at once, not kept");
    let expected =
        if behind == Some(NatKind::Blocked) { PathKind::Stream } else { PathKind::Direct };
    assert_eq!(path, expected);
    let metrics = machine.node.metrics();
    // What is kept of them is bounded: an entry each, of half a kilobyte at most.
    let kept = metrics.addresses_failed.value();
    assert!(kept <= (MAX_DIALS + MAX_QUEUED_DIALS) as u64, "{kept}");
    let errors = machine.engine.udp_send_errors.value() + machine.engine.udp_receive_errors.value();
    assert_eq!(errors > 0, unreachables && behind.is_none(), "{errors}");
    // Its endpoint hears and speaks, also to those it does not know.
    let mut caller = internet.machine(3, None);
    machine.talk(&mut live, 5).await;
    if behind.is_none() {
        caller.connect(&machine).await;
        machine.talk(&mut caller, 5).await;
    }
    println!("{behind:?}: {kept} addresses kept, {errors} errors of the socket");
    (took, [metrics.dials.value(), metrics.dials_by_stream.value()])
}

#[tokio::test(start_paused = true)]
async fn a_thousand_dead_addresses_hold_a_good_one_up_for_a_bounded_time() {
    let worlds = [(800, None, false), (801, Some(NatKind::Blocked), false), (802, None, true)];
    for (seed, behind, unreachables) in worlds {
        let (took, [dials, streams]) = among_the_dead(seed, behind, unreachables).await;
        println!("{behind:?}: {took:?}, {dials} dials, {streams} by streams");
        assert!(took < Duration::from_secs(30), "{took:?}");
        let most = (MAX_DIALS + MAX_QUEUED_DIALS + 2) as u64;
        assert!(dials <= most && streams <= most, "{dials}, {streams}");
    }
}

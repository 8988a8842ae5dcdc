//! Two probers and a path between them, which may be hostile.

use proptest::prelude::*;
use x0x_core::SeededRng;

use super::*;
use crate::sock::packet::FLOW_SECRET_LEN;

const NEAR: &str = "198.51.100.1:1000";
const FAR: &str = "203.0.113.2:2000";
const STRANGE: &str = "192.0.2.66:6666";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn secret() -> [u8; FLOW_SECRET_LEN] {
    std::array::from_fn(|at| at as u8)
}

fn prober(first: bool) -> (Prober, FlowId) {
    let keys = FlowKeys::new(&secret(), first);
    let flow = keys.flow();
    let mut prober = Prober::new(SeededRng::from_number(u64::from(first)), Arc::default());
    prober.handle(Tick::ZERO, Input::Open(keys));
    (prober, flow)
}

fn outputs(prober: &mut Prober) -> Vec<Output> {
    std::iter::from_fn(|| prober.poll_output()).collect()
}

fn packets(outputs: &[Output]) -> Vec<(SocketAddr, ProbeIn)> {
    let sent = |output: &Output| match output {
        Output::Send { to, packet } => Some((*to, ProbeIn::decode(packet)?)),
        _ => None,
    };
    outputs.iter().filter_map(sent).collect()
}

fn validated(outputs: &[Output]) -> Vec<Validated> {
    let path = |output: &Output| match output {
        Output::Validated(path) => Some(*path),
        _ => None,
    };
    outputs.iter().filter_map(path).collect()
}

fn ask(prober: &mut Prober, now: Tick, flow: FlowId, address: &str) -> Vec<Output> {
    prober.handle(now, Input::Probe { flow, address: addr(address) });
    outputs(prober)
}

fn receive(prober: &mut Prober, now: Tick, from: &str, packet: &ProbeIn) -> Vec<Output> {
    prober.handle(now, Input::Received { from: addr(from), packet: packet.clone() });
    outputs(prober)
}

#[test]
fn three_packets_show_both_ends_that_the_path_works() {
    let ((mut near, flow), (mut far, _)) = (prober(true), prober(false));
    let probe = packets(&ask(&mut near, Tick::ZERO, flow, FAR));
    assert_eq!(probe[0].0, addr(FAR));
    let answer = packets(&receive(&mut far, Tick::from_millis(10), NEAR, &probe[0].1));
    assert_eq!(answer.len(), 1);
    let done = receive(&mut near, Tick::from_millis(20), FAR, &answer[0].1);
    let path = Validated {
        flow,
        address: addr(FAR),
        seen: addr(NEAR),
        rtt: Duration::from_millis(20),
        asked: true,
    };
    assert_eq!(validated(&done), [path]);
    let confirm = packets(&done);
    let done = receive(&mut far, Tick::from_millis(30), NEAR, &confirm[0].1);
    assert!(packets(&done).is_empty());
    let path = &validated(&done)[0];
    assert_eq!((path.address, path.seen, path.asked), (addr(NEAR), addr(FAR), false));
    // A second copy of each shows nothing new.
    assert!(validated(&receive(&mut near, Tick::from_millis(31), FAR, &answer[0].1)).is_empty());
    assert!(receive(&mut far, Tick::from_millis(32), NEAR, &confirm[0].1).is_empty());
}

#[test]
fn silence_is_seven_packets_and_a_failure() {
    let (mut near, flow) = prober(true);
    let mut sent = packets(&ask(&mut near, Tick::ZERO, flow, FAR)).len();
    let mut failed = Vec::new();
    while let Some(at) = near.poll_timeout() {
        near.handle_timeout(at);
        let done = outputs(&mut near);
        sent += packets(&done).len();
        failed.extend(done.into_iter().filter(|output| matches!(output, Output::Failed { .. })));
    }
    assert_eq!(sent, SCHEDULE_MS.len());
    assert_eq!(failed, [Output::Failed { flow, address: addr(FAR) }]);
}

#[test]
fn thrown_back_moved_and_old_packets_validate_nothing() {
    let ((mut near, flow), (mut far, _)) = (prober(true), prober(false));
    let probe = packets(&ask(&mut near, Tick::ZERO, flow, FAR));
    // Thrown back by whoever is at the address.
    assert!(receive(&mut near, Tick::ZERO, FAR, &probe[0].1).is_empty());
    assert_eq!(near.metrics.refused_forged.value(), 1);
    let answer = packets(&receive(&mut far, Tick::ZERO, NEAR, &probe[0].1));
    // Answered from elsewhere.
    assert!(receive(&mut near, Tick::ZERO, STRANGE, &answer[0].1).is_empty());
    assert_eq!(near.metrics.refused_elsewhere.value(), 1);
    // A copy of the probe from a forged source is answered, but its confirmation never comes.
    assert!(validated(&receive(&mut far, Tick::ZERO, STRANGE, &probe[0].1)).is_empty());
    let confirm = packets(&receive(&mut near, Tick::ZERO, FAR, &answer[0].1));
    assert!(receive(&mut far, Tick::ZERO, STRANGE, &confirm[0].1).is_empty());
    assert_eq!(far.metrics.refused_unasked.value(), 1);
    for nobody in ["240.0.0.1:1", "224.0.0.1:5", "0.0.0.0:9", "192.0.2.1:0"] {
        assert!(receive(&mut far, Tick::ZERO, nobody, &probe[0].1).is_empty(), "{nobody}");
    }
    // Over a lifetime later the answers are forgotten.
    far.handle_timeout(Tick::from_millis(3000));
    assert!(receive(&mut far, Tick::from_millis(3000), NEAR, &confirm[0].1).is_empty());
    assert_eq!(far.poll_timeout(), None);
}

#[test]
fn a_flood_of_copies_is_bounded_and_never_amplified() {
    let ((mut near, flow), (mut far, _)) = (prober(true), prober(false));
    let probe = packets(&ask(&mut near, Tick::ZERO, flow, FAR));
    let mut answers = 0;
    for n in 0..10_000_u32 {
        let [a, b, c, d] = n.to_be_bytes();
        let from = format!("198.{}.{c}.{d}:7", 18 + (a ^ b));
        let sent = packets(&receive(&mut far, Tick::from_micros(u64::from(n)), &from, &probe[0].1));
        assert!(sent.len() <= 1);
        answers += sent.len();
    }
    assert_eq!(answers, ANSWER_BURST as usize);
    assert_eq!(far.metrics.refused_rate.value(), 10_000 - u64::from(ANSWER_BURST));
    assert_eq!(far.flows[&flow].challenges.len(), MAX_CHALLENGES);
}

#[test]
fn flows_and_addresses_are_bounded() {
    let (mut near, flow) = prober(true);
    for n in 0..10_000_u32 {
        let address = SocketAddr::from((n.to_be_bytes(), 9));
        near.handle(Tick::ZERO, Input::Probe { flow, address });
    }
    assert_eq!(near.flows[&flow].asked.len(), MAX_PROBED);
    assert_eq!(packets(&outputs(&mut near)).len(), MAX_PROBED);
    for n in 0..2 * MAX_FLOWS {
        let mut secret = secret();
        secret[..8].copy_from_slice(&n.to_be_bytes());
        near.handle(Tick::ZERO, Input::Open(FlowKeys::new(&secret, true)));
    }
    assert_eq!(near.flows.len(), MAX_FLOWS);
    near.handle(Tick::ZERO, Input::Close(flow));
    assert_eq!(near.poll_timeout(), None);
}

proptest! {
    /// Over a path that loses, doubles and reorders, whatever is validated is the peer's address, and
    /// no end sends more than it received, but for the questions of its own.
    #[test]
    fn only_the_peer_is_ever_validated(seed: u64, loss in 0..90_u32) {
        let mut rng = SeededRng::from_number(seed);
        let ((mut near, flow), (mut far, _)) = (prober(true), prober(false));
        let mut wire: Vec<(Tick, bool, ProbeIn)> = Vec::new();
        let (mut answered, mut taken) = (0, 0);
        let mut seen = Vec::new();
        near.handle(Tick::ZERO, Input::Probe { flow, address: addr(FAR) });
        for step in 0..500_u64 {
            let now = Tick::from_millis(step * 10);
            near.handle_timeout(now);
            far.handle_timeout(now);
            let due: Vec<_> = wire.extract_if(.., |(at, ..)| *at <= now).collect();
            for (_, to_far, packet) in due {
                if to_far {
                    taken += 1;
                    far.handle(now, Input::Received { from: addr(NEAR), packet });
                } else {
                    near.handle(now, Input::Received { from: addr(FAR), packet });
                }
            }
            for (to_far, prober) in [(true, &mut near), (false, &mut far)] {
                let all = outputs(prober);
                seen.extend(validated(&all).into_iter().map(|path| (to_far, path.address)));
                for (to, packet) in packets(&all) {
                    prop_assert_eq!(to, addr(if to_far { FAR } else { NEAR }));
                    answered += usize::from(!to_far);
                    for _ in 0..=rng.below(2) {
                        if !rng.chance(f64::from(loss) / 100.0) {
                            let at = now + Duration::from_millis(rng.range(5, 200));
                            wire.push((at, to_far, packet.clone()));
                        }
                    }
                }
            }
        }
        prop_assert!(answered <= taken);
        let right = |(near, address): &(bool, SocketAddr)| {
            *address == addr(if *near { FAR } else { NEAR })
        };
        prop_assert!(seen.iter().all(right));
        prop_assert!(loss > 0 || seen.len() >= 2);
        prop_assert!(near.flows[&flow].asked.is_empty() && far.flows[&flow].challenges.is_empty());
    }
}

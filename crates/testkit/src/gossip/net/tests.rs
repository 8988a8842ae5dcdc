//! Lines, queues and translators of the simulated network, without any protocol.

use super::*;

/// Two hosts and a receiver, all up, on lines of 1 Mbit/s with paths of exactly 20 ms.
fn net(queue_kib: u64) -> Net {
    let model = NetworkPart {
        latency_ms: vec![vec![[20.0, 20.0]]],
        jitter_ms: 0.0,
        bandwidth_mbit: 1.0,
        queue_kib,
        ..NetworkPart::default()
    };
    let mut net = Net::new(1, model, u32::MAX);
    for _ in 0..3 {
        let node = net.add();
        net.host_mut(node).alive = true;
    }
    net
}

fn dial(net: &mut Net, from: Node, to: Node, caller: Caller) {
    let to = PeerAddr::known(net.id(to), [net.address(to)]);
    net.dial(from, to, caller);
}

/// What happens within ten seconds, as (milliseconds from now, node, what), with dials answered and
/// frames taken as they come.
fn run(net: &mut Net) -> Vec<(u64, Node, &'static str)> {
    let (start, mut seen) = (net.now(), Vec::new());
    while let Some((node, event)) = net.queue.next_before(start + Duration::from_secs(10)) {
        let what = match event {
            Event::Frame { session, side, class, down: false, size, frame }
                if net.land(node, size) > net.now() =>
            {
                let at = net.host(node).down;
                let event = Event::Frame { session, side, class, down: true, size, frame };
                net.queue.schedule(node, at, event);
                continue;
            }
            Event::Frame { session, side, size, .. } => {
                net.taken(session, side, size);
                "frame"
            }
            Event::Open { from, run } => {
                net.accept(from, node, run);
                "open"
            }
            Event::Opened { session, .. } => {
                net.opened(session, node);
                "opened"
            }
            Event::Refused { .. } => "refused",
            Event::Writable { session, side } => {
                net.writable(session, side);
                "writable"
            }
            _ => "other",
        };
        seen.push((net.now().since(start).as_millis() as u64, node, what));
    }
    seen
}

#[test]
fn frames_of_two_senders_share_the_line_of_the_receiver() {
    let mut net = net(1024);
    (1..3).for_each(|from| dial(&mut net, from, 0, Caller::Overlay));
    run(&mut net);
    for from in 1..3 {
        // 12.5 kB take 100 ms at either end.
        let frame = Bytes::from_static(b"x");
        assert_eq!(net.send(from, 0, Class::Payload, 12_500, frame), Ok(()));
    }
    // Up, on the way and down; the second waits for the first.
    assert_eq!(run(&mut net), [(220, 0, "frame"), (320, 0, "frame")]);
}

#[test]
fn a_full_session_refuses_and_says_when_half_of_it_has_arrived() {
    let mut net = net(16);
    dial(&mut net, 1, 0, Caller::Overlay);
    run(&mut net);
    let frame = || Bytes::from_static(b"x");
    let taken = (0..10).take_while(|_| net.send(1, 0, Class::Payload, 4096, frame()).is_ok());
    assert_eq!(taken.count(), 5, "16 KiB, and what fills it");
    assert_eq!(net.send(1, 2, Class::Payload, 1, frame()), Err(Refusal::NoSession));
    let seen = run(&mut net);
    let room = seen.iter().position(|(.., what)| *what == "writable");
    // It hears a latency after the third of five: the fourth takes longer than that.
    assert_eq!((seen.len(), room), (6, Some(3)), "{seen:?}");
    assert_eq!(seen[3].1, 1);
    assert_eq!(net.send(1, 0, Class::Payload, 4096, frame()), Ok(()));
}

#[test]
fn a_hidden_host_is_dialled_by_nobody_and_dials_public_ones_whoever_asks() {
    for caller in [Caller::Overlay, Caller::Gossip] {
        let mut net = net(1024);
        net.host_mut(1).reach = Reach::Hidden;
        net.host_mut(2).reach = Reach::Punchable;
        for (from, to) in [(0, 1), (1, 2), (1, 0), (0, 2)] {
            dial(&mut net, from, to, caller);
        }
        let seen = run(&mut net);
        let of = |what| -> Vec<Node> {
            let some = seen.iter().filter(|(.., this)| *this == what);
            some.map(|(_, node, _)| *node).collect()
        };
        assert_eq!(of("refused"), [0, 1]);
        assert_eq!(of("opened"), [0, 1]);
    }
}

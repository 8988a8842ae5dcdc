use proptest::prelude::*;

use super::*;

const NOW: Tick = Tick::ZERO;

fn machine(n: u8) -> MachineId {
    MachineId::new([n; 32])
}

/// Machines that all have direct sessions with each other, and whose steps arrive.
struct Net {
    all: Vec<Relays>,
    metrics: Vec<Arc<RelayMetrics>>,
    /// What else they asked for.
    outputs: Vec<(usize, Output)>,
    now: Tick,
}

impl Net {
    fn new(count: u8, change: impl Fn(usize, &mut RelayConfig)) -> Self {
        let metrics: Vec<Arc<RelayMetrics>> = (0..count).map(|_| Arc::default()).collect();
        let all = (0..count).map(|n| {
            let mut config = RelayConfig::default();
            change(n.into(), &mut config);
            Relays::new(machine(n), config, metrics[usize::from(n)].clone())
        });
        Self { all: all.collect(), metrics, outputs: Vec::new(), now: NOW }
    }

    fn give(&mut self, at: usize, input: Input) {
        self.all[at].handle(self.now, input);
        self.settle();
    }

    fn receive(&mut self, at: usize, received: Received) {
        self.give(at, Input::Received(received));
    }

    fn settle(&mut self) {
        while let Some((at, output)) = self.next() {
            let Output::Send { to, step } = output else {
                self.outputs.push((at, output));
                continue;
            };
            let to = usize::from(to.as_bytes()[0]);
            let received = Received::new(machine(at as u8), step);
            if let Some(to) = self.all.get_mut(to) {
                to.handle(self.now, Input::Received(received));
            }
        }
    }

    fn next(&mut self) -> Option<(usize, Output)> {
        let mut all = self.all.iter_mut().enumerate();
        all.find_map(|(at, relays)| Some((at, relays.poll_output()?)))
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.all.iter().filter_map(Machine::poll_timeout).min()
            && due <= end
        {
            self.now = self.now.max(due);
            self.all.iter_mut().for_each(|relays| relays.handle_timeout(due));
            self.settle();
        }
        self.now = end;
    }

    fn take(&mut self) -> Vec<(usize, Output)> {
        std::mem::take(&mut self.outputs)
    }

    /// Contexts that are kept anywhere.
    fn kept(&self) -> usize {
        self.all.iter().map(|relays| relays.client.len() + relays.server.len()).sum()
    }
}

fn open(from: u8, context: ContextId, target: u8) -> Received {
    Received::new(machine(from), RelayStep::Open { context, target: machine(target) })
}

#[test]
fn a_context_joins_two_machines_and_ends_for_all() {
    let mut net = Net::new(3, |_, _| {});
    net.give(1, Input::Seek { peer: machine(2), relays: vec![machine(0)] });
    let [client, target] = [(machine(0), 2), (machine(0), 3)];
    let expected = [
        (0, Output::Join { number: 1, legs: [(machine(1), 2), (machine(2), 3)] }),
        (1, Output::Open { leg: client, peer: machine(2) }),
        (1, Output::Over { peer: machine(2), found: Some(client) }),
        (2, Output::Open { leg: target, peer: machine(1) }),
    ];
    let mut outputs = net.take();
    outputs.sort_by_key(|(at, _)| *at);
    assert_eq!(outputs, expected);
    assert_eq!(net.metrics[0].opened.value(), 1);
    net.give(0, Input::Idle(1));
    let closed = [(0, Output::Part(1)), (1, Output::Close(client)), (2, Output::Close(target))];
    let mut outputs = net.take();
    outputs.sort_by_key(|(at, _)| *at);
    assert_eq!(outputs, closed);
    assert_eq!(net.kept(), 0);
}

#[test]
fn the_first_of_several_relays_wins_and_the_others_are_let_go() {
    let mut net = Net::new(7, |_, _| {});
    let relays = [3, 4, 5, 6].map(machine).to_vec();
    net.give(1, Input::Seek { peer: machine(2), relays });
    let over = net.take().into_iter().filter(|(_, o)| matches!(o, Output::Over { .. })).count();
    assert_eq!(over, 1);
    let open = |net: &Net| -> usize { (3..7).map(|n| net.all[n].server.len()).sum() };
    assert_eq!(open(&net), 1, "one context, the others were taken back");
    // Without that relay both ends learn of it.
    let relay = (3..7).find(|n| net.all[*n].server.len() == 1).expect("one");
    net.give(1, Input::Gone(machine(relay as u8)));
    net.give(2, Input::Gone(machine(relay as u8)));
    net.give(relay, Input::Gone(machine(1)));
    assert_eq!(net.kept(), 0);
}

/// A relay that joins two and carries nothing is asked last when the peer is sought again.
#[test]
fn a_relay_that_did_not_bring_the_peer_comes_last() {
    let mut net = Net::new(7, |_, _| {});
    let seek = || Input::Seek { peer: machine(2), relays: [3, 4, 5, 6].map(machine).to_vec() };
    let found = |net: &mut Net| {
        let over = net.take().into_iter().find_map(|(_, output)| match output {
            Output::Over { found, .. } => Some(found),
            _ => None,
        });
        over.flatten().expect("a relay").0
    };
    net.give(1, seek());
    let first = found(&mut net);
    net.give(1, seek());
    let second = found(&mut net);
    assert_ne!(first, second);
    net.give(1, seek());
    assert!(![first, second].contains(&found(&mut net)));
}

#[test]
fn nobody_becomes_an_open_proxy() {
    let mut net = Net::new(3, |_, _| {});
    let mut refused = |received: Received| {
        net.receive(0, received);
        assert_eq!(net.kept(), 0, "{received:?}");
    };
    refused(open(1, 2, 0));
    refused(open(1, 2, 1));
    refused(Received { named: None, ..open(1, 2, 2) });
    refused(Received { named: Some(false), ..open(1, 2, 2) });
    refused(Received { direct: false, ..open(1, 2, 2) });
    refused(Received { willing: false, ..open(1, 2, 2) });
    // Answers to nothing.
    refused(Received::new(machine(1), RelayStep::Ok { context: 2 }));
    refused(Received::new(machine(1), RelayStep::Ok { context: 3 }));
    for from_relay in [true, false] {
        let step = RelayStep::Close { context: 2, from_relay, why: RelayRefusal::Over };
        refused(Received::new(machine(1), step));
    }
    let metrics = &net.metrics[0];
    let counted = [
        (&metrics.refused_self, 2),
        (&metrics.refused_not_connected, 1),
        (&metrics.refused_nested, 2),
        (&metrics.refused_unwilling, 1),
        (&metrics.refused_unasked, 2),
    ];
    for (counter, value) in counted {
        assert_eq!(counter.value(), value);
    }
    assert!(net.take().is_empty());

    let mut off = Net::new(3, |_, config| config.enabled = false);
    off.receive(0, open(1, 2, 2));
    assert_eq!((off.kept(), off.metrics[0].refused_off.value()), (0, 1));
}

#[test]
fn a_machine_that_is_asked_may_refuse() {
    let mut net = Net::new(3, |n, config| config.use_others = n != 2);
    net.give(1, Input::Seek { peer: machine(2), relays: vec![machine(0)] });
    assert_eq!(net.take(), [(1, Output::Over { peer: machine(2), found: None })]);
    assert_eq!((net.kept(), net.metrics[2].refused_off.value()), (0, 1));
    let incoming = |from: u8, context| {
        Received::new(machine(0), RelayStep::Incoming { context, from: machine(from) })
    };
    for received in [
        incoming(1, 3),
        incoming(0, 3),
        Received { direct: false, ..incoming(2, 3) },
        Received { willing: false, ..incoming(2, 3) },
    ] {
        net.receive(1, received);
        assert_eq!(net.all[1].client.len(), 0, "{received:?}");
    }
}

#[test]
fn contexts_are_bounded_for_a_pair_for_a_client_and_for_a_relay() {
    let mut net = Net::new(1, |_, _| {});
    let config = RelayConfig::default();
    for n in 0..10 {
        net.receive(0, open(1, 2 + 2 * n, 2));
    }
    assert_eq!(net.all[0].server.len(), config.max_contexts_per_pair);
    for n in 0..100 {
        net.receive(0, open(1, 1000 + 2 * n, 10 + (n / 4) as u8));
    }
    assert_eq!(net.all[0].server.len(), config.max_contexts_per_client);
    net.receive(0, open(1, 2, 90));
    assert_eq!(net.metrics[0].refused_name.value(), 1);
    // Targets that do not answer are given up.
    net.pass(ANSWER_TIME);
    assert_eq!(net.all[0].server.len(), 0);
}

fn incoming(relay: u8, context: ContextId, from: u8) -> Received {
    Received::new(machine(relay), RelayStep::Incoming { context, from: machine(from) })
}

/// Contexts of which the one machine is an end, by relay.
fn held_at(net: &Net, relay: u8) -> usize {
    legs_of(&net.all[0].client.own, machine(relay)).count()
}

#[test]
fn relays_that_invent_peers_take_no_place_from_an_honest_one() {
    let mut net = Net::new(1, |_, _| {});
    let names = |n: u32| 3 + 2 * n;
    for n in 0..200 {
        net.receive(0, incoming(1, names(n), 100));
    }
    assert_eq!(held_at(&net, 1), MAX_PER_RELAY, "its share");
    for n in 0..100 {
        net.receive(0, incoming(2, names(n), 100));
    }
    assert_eq!((held_at(&net, 1), held_at(&net, 2)), (MAX_PER_RELAY, MAX_OWN - MAX_PER_RELAY));
    // An honest relay brings a peer, whose session comes about; the liars go on.
    net.pass(Duration::from_secs(1));
    net.receive(0, incoming(3, 3, 50));
    assert_eq!(held_at(&net, 3), 1);
    net.give(0, Input::InUse((machine(3), 3)));
    for n in 300..600 {
        net.receive(0, incoming(1 + n as u8 % 2, names(n), 101));
        assert!(net.all[0].client.len() <= MAX_OWN);
    }
    assert_eq!(held_at(&net, 3), 1, "who has a session stays");
    assert!(net.metrics[0].evicted.value() > 0);
    let _ = net.take();
    net.pass(SESSION_TIME);
    assert_eq!(net.all[0].client.len(), 1);
    let closed = net.take().into_iter().filter(|(_, o)| matches!(o, Output::Close(_))).count();
    assert_eq!(closed as u64, net.metrics[0].closed_empty.value());
}

#[test]
fn contexts_with_sessions_are_not_displaced() {
    let mut net = Net::new(1, |_, _| {});
    for n in 0..MAX_OWN as u32 {
        let relay = 1 + n as u8 / MAX_PER_RELAY as u8;
        net.receive(0, incoming(relay, 3 + 2 * n, 100));
        net.give(0, Input::InUse((machine(relay), 3 + 2 * n)));
    }
    net.receive(0, incoming(7, 3, 100));
    assert_eq!((net.all[0].client.len(), held_at(&net, 7)), (MAX_OWN, 0));
    assert_eq!((net.metrics[0].refused_limit.value(), net.metrics[0].evicted.value()), (1, 0));
}

#[test]
fn relays_that_do_not_answer_delay_the_search_but_do_not_end_it() {
    let mut net = Net::new(3, |_, _| {});
    // Five that are gone, and one that is not.
    let relays = [50, 51, 52, 53, 54, 0].map(machine).to_vec();
    net.give(1, Input::Seek { peer: machine(2), relays });
    assert!(net.take().is_empty());
    net.pass(Duration::from_secs(2));
    let found =
        net.take().into_iter().any(|(_, o)| matches!(o, Output::Over { found: Some(_), .. }));
    assert!(found);
    net.give(1, Input::Seek { peer: machine(9), relays: vec![machine(60)] });
    net.pass(SEEK_TIME);
    assert_eq!(net.take(), [(1, Output::Over { peer: machine(9), found: None })]);
    net.give(1, Input::Seek { peer: machine(9), relays: vec![machine(60)] });
    net.give(1, Input::Unwanted(machine(9)));
    net.pass(SEEK_TIME);
    assert!(net.take().is_empty());
}

#[derive(Debug, Clone)]
enum Act {
    Seek(usize, u8, Vec<u8>),
    Unwanted(usize, u8),
    Gone(usize, u8),
    Unused(usize, u8, u32),
    InUse(usize, u8, u32),
    Idle(usize, u64),
    Pass(u64),
    Hostile(usize, u8, RelayStep),
}

fn act() -> impl Strategy<Value = Act> {
    let (who, peer) = (0..4_usize, 0..4_u8);
    let context = 0..12_u32;
    let step = prop_oneof![
        (context.clone(), 0..4_u8)
            .prop_map(|(n, m)| RelayStep::Open { context: 2 + n / 2 * 2, target: machine(m) }),
        (context.clone(), 0..4_u8)
            .prop_map(|(n, m)| RelayStep::Incoming { context: 3 + n / 2 * 2, from: machine(m) }),
        context.clone().prop_map(|context| RelayStep::Ok { context }),
        (context.clone(), any::<bool>()).prop_map(|(context, from_relay)| RelayStep::Close {
            context,
            from_relay,
            why: RelayRefusal::Over
        }),
    ];
    prop_oneof![
        (who.clone(), peer.clone(), prop::collection::vec(0..4_u8, 0..4))
            .prop_map(|(n, peer, relays)| Act::Seek(n, peer, relays)),
        (who.clone(), peer.clone()).prop_map(|(n, peer)| Act::Unwanted(n, peer)),
        (who.clone(), peer.clone()).prop_map(|(n, peer)| Act::Gone(n, peer)),
        (who.clone(), peer.clone(), context.clone()).prop_map(|(n, m, c)| Act::InUse(n, m, c)),
        (who.clone(), peer.clone(), context).prop_map(|(n, m, c)| Act::Unused(n, m, c)),
        (who.clone(), 0..8_u64).prop_map(|(n, number)| Act::Idle(n, number)),
        (0..3000_u64).prop_map(Act::Pass),
        (who, peer, step).prop_map(|(n, m, step)| Act::Hostile(n, m, step)),
    ]
}

proptest! {
    /// Whatever happens: what is opened is closed once, what is joined is parted once, and every search ends once.
    #[test]
    fn promises_hold(acts in prop::collection::vec(act(), 0..120)) {
        let mut net = Net::new(4, |_, _| {});
        let mut open = std::collections::BTreeSet::new();
        let mut joined = std::collections::BTreeSet::new();
        for act in acts {
            match act {
                Act::Seek(n, peer, relays) => {
                    let relays = relays.into_iter().map(machine).collect();
                    net.give(n, Input::Seek { peer: machine(peer), relays });
                }
                Act::Unwanted(n, peer) => net.give(n, Input::Unwanted(machine(peer))),
                Act::Gone(n, peer) => net.give(n, Input::Gone(machine(peer))),
                Act::InUse(n, peer, context) => net.give(n, Input::InUse((machine(peer), context))),
                Act::Unused(n, peer, context) => net.give(n, Input::Unused((machine(peer), context))),
                Act::Idle(n, number) => net.give(n, Input::Idle(number)),
                Act::Pass(ms) => net.pass(Duration::from_millis(ms)),
                Act::Hostile(n, from, step) => net.receive(n, Received::new(machine(from), step)),
            }
            for (at, output) in net.take() {
                match output {
                    Output::Open { leg, .. } => prop_assert!(open.insert((at, leg))),
                    Output::Close(leg) => prop_assert!(open.remove(&(at, leg))),
                    Output::Join { number, legs } => {
                        prop_assert_ne!(legs[0].0, legs[1].0);
                        prop_assert!(joined.insert((at, number)));
                    }
                    Output::Part(number) => prop_assert!(joined.remove(&(at, number))),
                    _ => {}
                }
            }
        }
        // The last relay is asked within a search, and what it brings has the time for a session from there on.
        net.pass(SEEK_TIME + SESSION_TIME);
        for relays in &net.all {
            prop_assert!(relays.poll_timeout().is_none(), "nothing waits for ever");
        }
    }
}

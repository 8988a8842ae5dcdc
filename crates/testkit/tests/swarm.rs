//! The swarm over a small machine that floods numbers and beats a timer.

use std::{collections::BTreeSet, time::Duration};

use x0x_core::{Machine, Tick};
use x0x_testkit::{Adapter, Effect, LinkModel, NetEvent, NodeId, Swarm, for_seeds};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Flood {
    peers: BTreeSet<NodeId>,
    seen: Vec<u32>,
    outputs: Vec<Output>,
    beats: u32,
    next_beat: Option<Tick>,
    dials: Vec<Option<NodeId>>,
}

enum Input {
    Publish(u32),
    Dial(Option<NodeId>),
    Leave(NodeId),
    Net(NetEvent<u32, u8>),
}

enum Output {
    Send(NodeId, u32),
    Dial(Option<NodeId>),
    Leave(NodeId),
    Seen(u32),
}

impl Flood {
    fn flood(&mut self, number: u32, from: Option<NodeId>) {
        if self.seen.contains(&number) {
            return;
        }
        self.seen.push(number);
        self.outputs.push(Output::Seen(number));
        let peers = self.peers.iter().filter(|peer| Some(**peer) != from);
        self.outputs.extend(peers.map(|peer| Output::Send(*peer, number)));
    }
}

impl Machine for Flood {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::Publish(number) => self.flood(number, None),
            Input::Dial(to) => self.outputs.push(Output::Dial(to)),
            Input::Leave(peer) => self.outputs.push(Output::Leave(peer)),
            Input::Net(NetEvent::Up(peer)) => {
                assert!(self.peers.insert(peer), "one session a peer");
                self.next_beat = Some(now + SECOND);
            }
            Input::Net(NetEvent::Down(peer)) => assert!(self.peers.remove(&peer)),
            Input::Net(NetEvent::Message { from, message }) => self.flood(message, Some(from)),
            Input::Net(NetEvent::Dialled { peer, .. }) => self.dials.push(peer),
            Input::Net(_) => {}
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        if self.next_beat.is_some_and(|at| at <= now) {
            self.beats += 1;
            self.next_beat = (self.beats < 5).then(|| now + SECOND);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        (!self.outputs.is_empty()).then(|| self.outputs.remove(0))
    }

    fn poll_timeout(&self) -> Option<Tick> {
        self.next_beat
    }
}

struct Plain;

impl Adapter for Plain {
    type Machine = Flood;
    type Message = u32;
    type Dial = u8;
    type Event = u32;

    fn machine(&mut self, _: NodeId, _: u64) -> Flood {
        Flood::default()
    }

    fn input(&mut self, _: NodeId, event: NetEvent<u32, u8>) -> Option<Input> {
        Some(Input::Net(event))
    }

    fn output(&mut self, _: NodeId, output: Output, effects: &mut Vec<Effect<u32, u8, u32>>) {
        effects.push(match output {
            Output::Send(to, message) => Effect::Send { to, message },
            Output::Dial(to) => Effect::Connect { to, dial: 9 },
            Output::Leave(to) => Effect::Disconnect { to },
            Output::Seen(number) => Effect::Emit(number),
        });
    }
}

fn ring(seed: u64, nodes: usize, model: LinkModel) -> Swarm<Plain> {
    let mut swarm = Swarm::new(seed, model, Plain);
    for _ in 0..nodes {
        swarm.add();
    }
    for node in 0..nodes {
        swarm.connect(node, (node + 1) % nodes);
    }
    swarm.run_for(SECOND);
    swarm
}

fn seen(swarm: &Swarm<Plain>, node: NodeId) -> &[u32] {
    &swarm.machine(node).expect("running").seen
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut swarm = ring(seed, 20, LinkModel { loss: 0.1, ..LinkModel::default() });
        (0..50).for_each(|n| swarm.input(n % 20, Input::Publish(n as u32)));
        swarm.crash(3);
        swarm.run_for(30 * SECOND);
        (swarm.trace_hash(), *swarm.stats())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn messages_of_a_session_keep_their_order_unless_told_otherwise() {
    for_seeds(10, |seed| {
        let mut swarm = ring(seed, 2, LinkModel::default());
        (0..100).for_each(|n| swarm.input(0, Input::Publish(n)));
        swarm.run_for(SECOND);
        assert_eq!(seen(&swarm, 1), (0..100).collect::<Vec<_>>());
        assert_eq!(swarm.take_events().len(), 200);

        swarm.model_mut().reorder = 0.3;
        (100..200).for_each(|n| swarm.input(0, Input::Publish(n)));
        swarm.run_for(SECOND);
        let late = &seen(&swarm, 1)[100..];
        assert_eq!(late.len(), 100);
        assert!(!late.is_sorted());

        swarm.model_mut().duplicate = 1.0;
        let before = swarm.stats().delivered;
        swarm.input(0, Input::Publish(200));
        swarm.run_for(SECOND);
        assert_eq!(swarm.stats().delivered - before, 2);
    });
}

#[test]
fn a_partition_blocks_and_ends_sessions_across_it() {
    let mut swarm = ring(4, 10, LinkModel::default());
    swarm.isolate(0..5);
    swarm.input(0, Input::Publish(1));
    swarm.input(7, Input::Publish(2));
    swarm.run_for(20 * SECOND);
    for node in 0..10 {
        assert_eq!(seen(&swarm, node), if node < 5 { [1] } else { [2] });
    }
    assert!(!swarm.has_session(4, 5) && !swarm.has_session(5, 4) && swarm.has_session(3, 4));
    swarm.input(4, Input::Dial(Some(5)));
    swarm.run_for(20 * SECOND);
    assert_eq!(swarm.machine(4).expect("running").dials, [None], "no dial across the cut");
    swarm.heal();
    swarm.input(4, Input::Dial(Some(5)));
    swarm.run_for(SECOND);
    assert_eq!(swarm.machine(4).expect("running").dials, [None, Some(5)]);
    assert!(swarm.has_session(5, 4));
}

#[test]
fn a_crash_is_noticed_late_and_a_stop_at_once() {
    let mut swarm = ring(5, 4, LinkModel::default());
    swarm.crash(0);
    swarm.stop(2);
    swarm.run_for(SECOND);
    assert!(swarm.has_session(1, 0) && !swarm.has_session(1, 2));
    assert!(swarm.machine(0).is_none());
    assert_eq!(swarm.running().map(|(id, _)| id).collect::<Vec<_>>(), [1, 3]);
    swarm.run_for(20 * SECOND);
    assert!(!swarm.has_session(1, 0) && !swarm.has_session(3, 0));
}

#[test]
fn a_restarted_node_replaces_its_old_sessions() {
    let mut swarm = ring(6, 2, LinkModel::default());
    swarm.input(0, Input::Publish(1));
    swarm.run_for(SECOND);
    swarm.crash(0);
    swarm.start(0);
    assert!(swarm.has_session(1, 0), "the peer has not noticed yet");
    swarm.connect(0, 1);
    swarm.run_for(SECOND);
    swarm.input(0, Input::Publish(2));
    // Past the time at which the crash would have been noticed.
    swarm.run_for(30 * SECOND);
    assert_eq!(seen(&swarm, 1), [1, 2]);
    assert!(swarm.has_session(1, 0) && swarm.has_session(0, 1));
}

#[test]
fn two_dials_at_once_make_one_session() {
    for_seeds(20, |seed| {
        let mut swarm = Swarm::new(seed, LinkModel::default(), Plain);
        let (a, b) = (swarm.add(), swarm.add());
        swarm.input(a, Input::Dial(Some(b)));
        swarm.input(b, Input::Dial(Some(a)));
        swarm.run_for(SECOND);
        assert!(swarm.has_session(a, b) && swarm.has_session(b, a));
        swarm.input(a, Input::Publish(1));
        swarm.input(b, Input::Publish(2));
        swarm.run_for(SECOND);
        assert_eq!((seen(&swarm, a), seen(&swarm, b)), (&[1, 2][..], &[2, 1][..]));
        swarm.input(a, Input::Leave(b));
        swarm.run_for(SECOND);
        assert!(!swarm.has_session(a, b) && !swarm.has_session(b, a));
    });
}

#[test]
fn dialling_nobody_fails_and_timers_fire_in_virtual_time() {
    let mut swarm = ring(8, 3, LinkModel::default());
    swarm.input(1, Input::Dial(None));
    swarm.run_for(60 * SECOND);
    let machine = swarm.machine(1).expect("running");
    assert_eq!((machine.dials.as_slice(), machine.beats), (&[None][..], 5));
    assert_eq!(swarm.stats().failed_dials, 1);
}

//! The machine alone: single steps, invariants under random inputs, caps under hostile ones.

mod anchors;
mod diversity;
mod hostile;
mod liveness;
mod records;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    book::{MAX_HEARSAY, MAX_TRIED},
    config::{MAX_SHUFFLE_ENTRIES, MAX_WALK},
    lost::MAX_LOST,
    wire::Outcome,
};

const SECOND: Duration = Duration::from_secs(1);

fn id(n: u64) -> MachineId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    MachineId::new(bytes)
}

fn address(n: u64) -> SocketAddr {
    let [.., a, b] = n.to_be_bytes();
    SocketAddr::from(([10, 0, a, b], 5483))
}

fn peer(n: u64) -> Peer {
    Peer::new(id(n), [address(n)])
}

/// The machine with id 0, and the world's side of the contract.
struct World {
    machine: HyParView,
    now: Tick,
    sessions: BTreeSet<MachineId>,
    dials: Vec<PeerAddr>,
    neighbours: BTreeSet<MachineId>,
    turns: u64,
    check_every: u64,
    /// Whether the peers answer pings.
    alive: bool,
}

impl World {
    fn new() -> Self {
        let machine = HyParView::new(id(0), OverlayConfig::default(), [1; 32]).expect("valid");
        Self {
            machine,
            now: Tick::ZERO,
            sessions: BTreeSet::new(),
            dials: Vec::new(),
            neighbours: BTreeSet::new(),
            turns: 0,
            check_every: 1,
            alive: true,
        }
    }

    fn handle(&mut self, input: Input) -> Vec<Output> {
        match &input {
            Input::Up { peer, .. } => self.sessions.insert(peer.id()),
            Input::Down(id) => self.sessions.remove(id),
            _ => false,
        };
        self.machine.handle(self.now, input);
        self.drain()
    }

    fn up(&mut self, n: u64) -> Vec<Output> {
        self.handle(Input::Up { peer: peer(n), path: Scope::Site, dialled: false })
    }

    fn hear(&mut self, n: u64, message: Message) -> Vec<Output> {
        self.handle(Input::Message { peer: id(n), message })
    }

    /// Gives neighbours, the last ones of a full view dialled.
    fn link(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for n in numbers {
            let dialled = self.machine.active.len() >= self.machine.config.inbound_max;
            self.handle(Input::Up { peer: peer(n), path: Scope::Site, dialled });
            self.hear(n, Message::Neighbor { high: true });
            assert!(self.machine.active.contains(id(n)));
        }
    }

    fn advance(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        let mut outputs = Vec::new();
        for turn in 0.. {
            assert!(turn < 10_000, "timers never rest");
            let Some(at) = self.machine.poll_timeout().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            self.machine.handle_timeout(self.now);
            assert!(self.machine.poll_timeout().is_none_or(|at| at > self.now), "timer re-armed");
            outputs.extend(self.drain());
        }
        self.now = end;
        outputs
    }

    fn drain(&mut self) -> Vec<Output> {
        let outputs: Vec<Output> = std::iter::from_fn(|| self.machine.poll_output()).collect();
        let mut answers = Vec::new();
        for output in &outputs {
            match output {
                Output::Send { to, message } => {
                    assert!(self.sessions.contains(to), "no session with {to}");
                    assert!(message.encode().len() <= crate::wire::MAX_MESSAGE);
                    if let Message::Ping { nonce, .. } = message
                        && self.alive
                    {
                        let message =
                            Message::Ack { nonce: *nonce, incarnation: 0, entries: Vec::new() };
                        answers.push(Input::Message { peer: *to, message });
                    }
                }
                Output::Dial(to) => self.dials.push(to.clone()),
                Output::NeighborUp(id) => assert!(self.neighbours.insert(*id)),
                Output::NeighborDown(id) => assert!(self.neighbours.remove(id)),
                Output::Disconnect(id) => {
                    assert!(self.sessions.contains(id));
                    answers.push(Input::Down(*id));
                }
            }
        }
        self.turns += 1;
        if self.turns.is_multiple_of(self.check_every) {
            self.check();
        }
        let more: Vec<Output> =
            answers.into_iter().flat_map(|answer| self.handle(answer)).collect();
        outputs.into_iter().chain(more).collect()
    }

    fn check(&self) {
        let machine = &self.machine;
        let active: BTreeSet<MachineId> = machine.active().collect();
        assert_eq!(active, self.neighbours);
        assert_eq!(active.len(), machine.active.len());
        assert!(active.len() <= machine.config.active_max);
        assert!(active.is_subset(&self.sessions) && !active.contains(&id(0)));
        let passive: BTreeSet<MachineId> = machine.passive().map(Peer::id).collect();
        assert_eq!(passive.len(), machine.passive.len());
        assert!(passive.len() <= machine.config.passive_max);
        assert!(passive.is_disjoint(&active) && !passive.contains(&id(0)));
        assert!(machine.passive().all(Peer::is_dialable));
        assert!(machine.requests.keys().all(|id| self.sessions.contains(id)));
        assert!(machine.dials.len() <= MAX_DIALS);
        assert!(machine.exchanges.len() <= MAX_EXCHANGES);
        assert!(machine.lost.len() <= MAX_LOST);
        assert!(machine.bootstrap.len() <= MAX_BOOTSTRAP);
        assert!(machine.sessions.len() <= MAX_SESSIONS);
        let (watches, favours) = machine.liveness.len();
        assert!(watches == active.len() && favours <= MAX_FAVOURS);
        let (tried, hearsay) = machine.book.len();
        assert!(tried <= MAX_TRIED && hearsay <= MAX_HEARSAY);
        assert!(machine.beyond.len() <= merge::MAX_BEYOND);
        assert!(machine.anchors.len() <= crate::cache::MAX_ANCHORS);
        assert!(machine.records.len() <= MAX_RECORDS);
    }
}

fn reply(accept: bool) -> Message {
    Message::NeighborReply { accept, entries: Vec::new() }
}

fn sent(outputs: &[Output], to: u64) -> Vec<&Message> {
    let to = id(to);
    let sends = outputs.iter().filter_map(|output| match output {
        Output::Send { to: receiver, message } if *receiver == to => Some(message),
        _ => None,
    });
    sends.collect()
}

#[test]
fn a_bootstrap_peer_is_dialled_then_joined_then_shuffled_with() {
    let mut world = World::new();
    let start = Input::Start { bootstrap: vec![address(1)], cached: Vec::new() };
    assert_eq!(world.handle(start), [Output::Dial(PeerAddr::unknown(address(1)))]);
    world.handle(Input::LocalAddresses(vec![address(0)]));
    let to = PeerAddr::unknown(address(1));
    assert_eq!(world.handle(Input::DialResult { to, result: Ok(id(1)) }), []);
    assert_eq!(sent(&world.up(1), 1), [&Message::Join]);
    assert_eq!(world.hear(1, reply(true)), [Output::NeighborUp(id(1))]);
    let outputs = world.advance(SECOND);
    let Some(Message::Shuffle { ttl: 1, entries, .. }) = sent(&outputs, 1).first() else {
        panic!("a shuffle soon after the first link: {outputs:?}");
    };
    assert_eq!(entries, &[peer(0)]);
}

#[test]
fn whoever_is_introduced_is_a_way_in_and_later_a_candidate() {
    let mut world = World::new();
    world.handle(Input::LocalAddresses(vec![address(0)]));
    // The session may be there already, or be announced later.
    world.up(1);
    assert_eq!(sent(&world.handle(Input::Introduce(peer(1))), 1), [&Message::Join]);
    assert_eq!(world.handle(Input::Introduce(peer(2))), [Output::Dial(peer(2).to_addr())]);
    assert_eq!(sent(&world.up(2), 2), [&Message::Join]);
    for n in 1..=2 {
        world.hear(n, reply(true));
    }
    for n in 3..=9 {
        world.up(n);
        world.handle(Input::Introduce(peer(n)));
        world.hear(n, reply(true));
    }
    let known = world.machine.passive().count() + world.machine.active().count();
    assert!(known >= 8, "{known} are known");
    world.handle(Input::Introduce(peer(0)));
}

#[test]
fn a_silent_bootstrap_address_is_tried_again_with_back_off() {
    let mut world = World::new();
    world.handle(Input::Start { bootstrap: vec![address(1)], cached: Vec::new() });
    let mut times = Vec::new();
    for _ in 0..400 {
        while let Some(to) = world.dials.pop() {
            times.push(world.now);
            let result = Err(DialFailure::Unreachable);
            world.handle(Input::DialResult { to, result });
        }
        world.advance(SECOND);
    }
    let pauses: Vec<u64> = times.windows(2).map(|w| w[1].since(w[0]).as_secs()).collect();
    assert!(pauses[0] <= 3 && pauses.iter().rev().take(2).all(|p| (47..=74).contains(p)));
    assert!((9..=14).contains(&times.len()), "{pauses:?}");
    // Its own address is not worth another try.
    let to = PeerAddr::unknown(address(1));
    world.advance(80 * SECOND);
    world.handle(Input::DialResult { to, result: Err(DialFailure::OwnAddress) });
    assert!(world.machine.bootstrap.is_empty() && world.machine.poll_timeout().is_none());
}

#[test]
fn cached_peers_are_dialled_without_any_bootstrap() {
    let mut world = World::new();
    let cached = (1..=20).map(peer).collect();
    let outputs = world.handle(Input::Start { bootstrap: Vec::new(), cached });
    assert_eq!(outputs.len(), 5, "as many as the target");
    let Some(to) = world.dials.pop() else { panic!("a dial") };
    let first = to.id.expect("a known peer");
    let outputs = world.handle(Input::Up {
        peer: Peer::new(first, to.addresses),
        path: Scope::Site,
        dialled: true,
    });
    let request = Output::Send { to: first, message: Message::Neighbor { high: true } };
    assert_eq!(outputs, [request]);
}

#[test]
fn a_join_is_forwarded_to_all_other_neighbours() {
    let mut world = World::new();
    world.link(1..=3);
    world.up(9);
    let outputs = world.hear(9, Message::Join);
    let Some(Message::NeighborReply { accept: true, entries }) = sent(&outputs, 9).pop() else {
        panic!("taken in: {outputs:?}");
    };
    assert_eq!(entries.iter().map(Peer::id).collect::<BTreeSet<_>>(), [1, 2, 3].map(id).into());
    for n in 1..=3 {
        let walk = Message::ForwardJoin { ttl: 6, joiner: peer(9) };
        assert_eq!(sent(&outputs, n), [&walk]);
    }
}

#[test]
fn a_refused_newcomer_goes_on_with_the_peers_that_it_was_told() {
    let mut world = World::new();
    world.handle(Input::Start { bootstrap: vec![address(1)], cached: Vec::new() });
    world.up(1);
    let to = PeerAddr::unknown(address(1));
    world.handle(Input::DialResult { to, result: Ok(id(1)) });
    let refusal = |n| Message::NeighborReply { accept: false, entries: vec![peer(n)] };
    assert_eq!(world.hear(1, refusal(7)), [Output::Dial(peer(7).to_addr())]);
    assert_eq!(world.hear(1, refusal(8)), [], "nobody asked");
}

#[test]
fn a_walk_ends_at_zero_by_linking_with_the_joiner() {
    let mut world = World::new();
    world.link(1..=6);
    let joiner = peer(50);
    let outputs = world.hear(1, Message::ForwardJoin { ttl: 3, joiner: joiner.clone() });
    assert_eq!(outputs.len(), 1, "passed on once: {outputs:?}");
    assert!(sent(&outputs, 1).is_empty(), "never back");
    assert!(world.machine.passive.contains(id(50)), "noted at the passive walk length");
    let outputs = world.hear(1, Message::ForwardJoin { ttl: 0, joiner: joiner.clone() });
    assert_eq!(outputs, [Output::Dial(joiner.to_addr())]);
    assert_eq!(sent(&world.up(50), 50), [&Message::Neighbor { high: true }]);
    world.hear(50, reply(true));
    assert!(world.machine.active.contains(id(50)) && !world.machine.passive.contains(id(50)));
}

#[test]
fn a_full_view_refuses_low_and_makes_room_for_high_priority() {
    let mut world = World::new();
    world.link(1..=8);
    world.up(20);
    let outputs = world.hear(20, Message::Neighbor { high: false });
    assert_eq!(sent(&outputs, 20), [&reply(false)]);
    assert!(world.machine.passive.contains(id(20)));
    let outputs = world.hear(20, Message::Neighbor { high: true });
    let Some(Message::NeighborReply { accept: true, entries }) = sent(&outputs, 20).pop() else {
        panic!("granted: {outputs:?}");
    };
    assert_eq!(entries.len(), 8, "who asks for a link that badly needs more peers");
    let demoted = outputs.iter().filter(|output| {
        matches!(output, Output::Send { message: Message::Disconnect { alive: true }, .. })
    });
    assert_eq!(demoted.count(), 1);
    assert_eq!(world.machine.active.len(), 8);
}

#[test]
fn a_lost_neighbour_is_replaced_at_once_and_gossip_about_it_is_not_believed() {
    let mut world = World::new();
    world.link(1..=5);
    world.machine.learn(Tick::ZERO, peer(30), Source::Gossip, &[]);
    let outputs = world.handle(Input::Down(id(2)));
    assert_eq!(outputs, [Output::NeighborDown(id(2)), Output::Dial(peer(30).to_addr())]);
    let shuffle = Message::Shuffle { id: 1, ttl: 1, entries: vec![peer(2), peer(31)] };
    world.hear(1, shuffle);
    assert!(!world.machine.passive.contains(id(2)) && world.machine.passive.contains(id(31)));
    world.up(2);
    assert!(world.machine.passive.contains(id(2)), "it is back");
}

#[test]
fn a_failed_candidate_leaves_the_passive_view_and_the_next_is_tried() {
    let mut world = World::new();
    let cached = (1..=7).map(peer).collect();
    world.handle(Input::Start { bootstrap: Vec::new(), cached });
    assert_eq!(world.dials.len(), 5);
    for _ in 0..7 {
        let Some(to) = world.dials.pop() else { panic!("a dial for each candidate") };
        world.handle(Input::DialResult { to, result: Err(DialFailure::Unreachable) });
    }
    assert_eq!((world.dials.len(), world.machine.passive.len()), (0, 0));
    world.advance(59 * SECOND);
    assert!(world.dials.is_empty(), "nobody left to try for now");
    world.advance(2 * SECOND);
    assert_eq!(world.dials.len(), 5, "they were reached once, and may be again");
}

#[test]
fn a_shuffle_reply_goes_back_the_way_the_shuffle_came() {
    let mut world = World::new();
    world.link([1, 2]);
    let outputs = world.hear(1, Message::Shuffle { id: 77, ttl: 4, entries: vec![peer(9)] });
    let messages = sent(&outputs, 2);
    let [Message::Shuffle { id: relayed, ttl: 3, .. }] = messages.as_slice() else {
        panic!("passed on: {outputs:?}");
    };
    let answer = |id| Message::ShuffleReply { id, entries: vec![peer(8)] };
    assert_eq!(world.hear(1, answer(*relayed)), [], "not asked of this one");
    let outputs = world.hear(2, answer(*relayed));
    assert_eq!(sent(&outputs, 1), [&answer(77)]);
    assert_eq!(world.hear(2, answer(*relayed)), [], "only once");
    assert_eq!(world.machine.metrics().refused_unsolicited.value(), 2);
}

#[test]
fn neighbour_messages_of_others_end_the_link_they_believe_in() {
    let mut world = World::new();
    world.link([1]);
    world.up(2);
    let shuffle = Message::Shuffle { id: 1, ttl: 1, entries: vec![peer(9)] };
    let outputs = world.hear(2, shuffle);
    assert_eq!(sent(&outputs, 2), [&Message::Disconnect { alive: true }]);
    assert!(!world.machine.passive.contains(id(9)));
    let outputs = world.hear(2, reply(true));
    assert_eq!(sent(&outputs, 2), [&Message::Disconnect { alive: true }], "never asked");
}

#[test]
fn leaving_tells_the_neighbours_and_stops_everything() {
    let mut world = World::new();
    world.link(1..=3);
    let outputs = world.handle(Input::Leave);
    for n in 1..=3 {
        assert_eq!(sent(&outputs, n), [&Message::Disconnect { alive: false }]);
    }
    assert_eq!(world.machine.poll_timeout(), None);
    assert_eq!(world.hear(1, Message::Join), []);
    assert!(world.advance(100 * SECOND).is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Start(Vec<u64>, Vec<u64>),
    Up(u64),
    Down(u64),
    Message(u64, Message),
    Dialled { place: usize, ok: bool, wrong: bool },
    Pass(u64),
}

fn peers(max: usize) -> impl Strategy<Value = Vec<Peer>> {
    prop::collection::vec((0_u64..40, 0_usize..3), 0..max).prop_map(|list| {
        let peer = |(n, count)| Peer::new(id(n), (0..count as u64).map(|k| address(n + 100 * k)));
        list.into_iter().map(peer).collect()
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let runs = prop_oneof![0_u64..3, Just(1 << 40)];
    prop_oneof![Just(Outcome::Unknown), Just(Outcome::Silent), runs.prop_map(Outcome::Alive)]
}

fn message() -> impl Strategy<Value = Message> {
    let ttl = 0..=MAX_WALK;
    prop_oneof![
        3 => Just(Message::Join),
        3 => any::<bool>().prop_map(|high| Message::Neighbor { high }),
        3 => (any::<bool>(), peers(4))
            .prop_map(|(accept, entries)| Message::NeighborReply { accept, entries }),
        1 => any::<bool>().prop_map(|alive| Message::Disconnect { alive }),
        3 => (ttl.clone(), 1_u64..40)
            .prop_map(|(ttl, n)| Message::ForwardJoin { ttl, joiner: peer(n) }),
        3 => (0_u64..30, ttl, peers(MAX_SHUFFLE_ENTRIES))
            .prop_map(|(id, ttl, entries)| Message::Shuffle { id, ttl, entries }),
        2 => (0_u64..30, peers(MAX_SHUFFLE_ENTRIES))
            .prop_map(|(id, entries)| Message::ShuffleReply { id, entries }),
        2 => (0_u64..30, prop::option::of(0_u64..3), any::<bool>())
            .prop_map(|(nonce, suspected, sample)| Message::Ping { nonce, suspected, sample }),
        4 => (0_u64..60, 0_u64..3, peers(3))
            .prop_map(|(nonce, incarnation, entries)| Message::Ack { nonce, incarnation, entries }),
        2 => (0_u64..30, 0_u64..40, prop::option::of(0_u64..3)).prop_map(
            |(nonce, target, suspected)| {
                Message::PingRequest { nonce, target: id(target), suspected }
            }
        ),
        2 => (0_u64..60, outcome())
            .prop_map(|(nonce, outcome)| Message::PingReport { nonce, outcome }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = || prop::collection::vec(1_u64..40, 0..10);
    prop_oneof![
        1 => (numbers(), numbers()).prop_map(|(a, b)| Step::Start(a, b)),
        6 => (0_u64..40).prop_map(Step::Up),
        3 => (0_u64..40).prop_map(Step::Down),
        20 => (0_u64..40, message()).prop_map(|(n, m)| Step::Message(n, m)),
        6 => (0_usize..8, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(place, ok, wrong)| Step::Dialled { place, ok, wrong }),
        4 => (0_u64..40_000).prop_map(Step::Pass),
    ]
}

fn apply(world: &mut World, step: Step) {
    match step {
        Step::Start(bootstrap, cached) => {
            let bootstrap = bootstrap.into_iter().map(address).collect();
            let cached = cached.into_iter().map(peer).collect();
            world.handle(Input::Start { bootstrap, cached });
        }
        // The transport has no session with itself.
        Step::Up(0) => {
            world.handle(Input::LocalAddresses(vec![address(0)]));
        }
        Step::Up(n) if world.sessions.contains(&id(n)) => {}
        Step::Up(n) => {
            world.up(n);
        }
        Step::Down(n) => {
            world.handle(Input::Down(id(n)));
        }
        Step::Message(n, message) => {
            world.hear(n, message);
        }
        Step::Dialled { place, ok, wrong } => {
            if world.dials.is_empty() {
                return;
            }
            let to = world.dials.swap_remove(place % world.dials.len());
            let reached = to.id.unwrap_or_else(|| id(u64::from(!wrong)));
            let result = if ok { Ok(reached) } else { Err(DialFailure::Unreachable) };
            world.handle(Input::DialResult { to, result });
        }
        Step::Pass(millis) => {
            world.advance(Duration::from_millis(millis));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn views_keep_their_invariants(
        steps in prop::collection::vec(step(), 0..300),
        alive in any::<bool>(),
    ) {
        let mut world = World::new();
        world.alive = alive;
        for step in steps {
            apply(&mut world, step);
        }
        // Whatever came, the timers come to rest.
        world.advance(600 * SECOND);
    }
}

//! Two machines over a model of the transport that loses sessions, holds frames back and blocks.

mod world;

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use world::{Expect, Op, World};
use x0x_core::{AgentId, Machine, MachineId, SeededRng, Tick};
use x0x_direct::{
    DirectConfig, DirectError, DirectMetrics, MAX_PAYLOAD, RefuseReason,
    state::{DirectMachine, Input, MAX_HELD_BYTES, MAX_HELD_MESSAGES, Output, Room, SendRequest},
    wire::{Ack, FrameIn, MAX_IN_FLIGHT_MESSAGES, MAX_REFUSALS, MessageIn, Refusal, Terms},
};

fn op() -> impl Strategy<Value = Op> {
    let end = 0_usize..2;
    prop_oneof![
        8 => (end.clone(), 0_usize..40, 0_u8..12)
            .prop_map(|(end, len, kind)| Op::Send { end, len, kind }),
        1 => (end.clone(), any::<prop::sample::Index>())
            .prop_map(|(end, which)| Op::Retry { end, which }),
        6 => (end.clone(), 1_usize..8).prop_map(|(end, count)| Op::Carry { end, count }),
        6 => (end.clone(), 1_usize..8).prop_map(|(end, count)| Op::Step { end, count }),
        2 => (end.clone(), 0_usize..6).prop_map(|(end, messages)| Op::Room { end, messages }),
        1 => end.clone().prop_map(|end| Op::Block { end }),
        1 => end.prop_map(|end| Op::Unblock { end }),
        1 => Just(Op::Disconnect),
        2 => Just(Op::Connect),
        1 => (1_u64..20_000).prop_map(|millis| Op::Advance { millis }),
    ]
}

proptest! {
    #[test]
    fn every_send_settles_once_and_every_message_arrives_at_most_once(
        ops in prop::collection::vec(op(), 0..250)
    ) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.finish();
        world.check();
    }
}

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn peer() -> MachineId {
    MachineId::new([9; 32])
}

/// A machine with agent 1, in a session with a peer that proved agent 2.
fn receiver() -> DirectMachine {
    let config = DirectConfig::new(vec![agent(1)]);
    let mut machine = DirectMachine::new(MachineId::new([1; 32]), config, metrics());
    up(&mut machine, 1);
    machine
}

fn metrics() -> std::sync::Arc<DirectMetrics> {
    std::sync::Arc::default()
}

fn up(machine: &mut DirectMachine, generation: u64) {
    let input = Input::Up { peer: peer(), generation, agents: vec![agent(2)] };
    machine.handle(Tick::ZERO, input);
}

fn message(seq: u64, id: u64, payload: Bytes) -> MessageIn {
    let id = u128::from(id).to_be_bytes();
    let (from, to, terms) = (agent(2), agent(1), Terms::default());
    MessageIn { epoch: 1, seq, id, from, to, payload, terms }
}

fn receive(machine: &mut DirectMachine, frame: FrameIn) {
    let input = Input::Received { peer: peer(), frame: frame.encode() };
    machine.handle(Tick::ZERO, input);
}

fn room(machine: &mut DirectMachine, messages: usize, bytes: usize) {
    machine.handle(Tick::ZERO, Input::Room(Room { messages, bytes }));
}

fn outputs(machine: &mut DirectMachine) -> Vec<Output> {
    std::iter::from_fn(|| poll(machine)).collect()
}

/// The next output; what is delivered is settled at once.
fn poll(machine: &mut DirectMachine) -> Option<Output> {
    let output = machine.poll_output()?;
    if let Output::Deliver { .. } | Output::Ignore = output {
        machine.handle(Tick::ZERO, Input::Settled(vec![Ok(())]));
    }
    Some(output)
}

fn acks(outputs: &[Output]) -> Vec<Ack> {
    let frames = outputs.iter().filter_map(|output| match output {
        Output::Transmit { frame, .. } => FrameIn::decode(frame.clone()).ok(),
        _ => None,
    });
    frames.filter_map(|f| if let FrameIn::Ack(ack) = f { Some(ack) } else { None }).collect()
}

fn request(ticket: u64, payload: Bytes) -> SendRequest {
    SendRequest {
        ticket,
        id: u128::from(ticket).to_be_bytes(),
        peer: peer(),
        from: agent(1),
        to: agent(2),
        payload,
        terms: Terms::default(),
        deadline: Tick::from_millis(30_000),
        connected: false,
    }
}

fn resolved(outputs: &[Output]) -> Vec<(u64, Result<(), DirectError>)> {
    let resolves = outputs.iter().filter_map(|output| match output {
        Output::Resolve { ticket, result } => Some((*ticket, result.map(|_| ()))),
        _ => None,
    });
    resolves.collect()
}

#[test]
fn a_batch_is_acknowledged_by_one_frame_after_its_delivery() {
    let mut machine = receiver();
    room(&mut machine, 100, 1000);
    for seq in 1..=32 {
        receive(&mut machine, FrameIn::Message(message(seq, seq, "x".into())));
    }
    let outputs = outputs(&mut machine);
    assert_eq!(outputs.len(), 33);
    let delivered = |output: &Output| matches!(output, Output::Deliver { .. });
    assert!(outputs[..32].iter().all(delivered), "deliveries come first");
    assert_eq!(acks(&outputs), [Ack { epoch: 1, through_seq: 32, refusals: Vec::new() }]);
}

/// What is held fills the peer's share; a retry of it needs no room.
#[test]
fn a_retry_of_what_is_held_is_not_refused_as_busy() {
    let mut machine = receiver();
    for seq in 1..=2 {
        let full = Bytes::from(vec![0; MAX_PAYLOAD]);
        receive(&mut machine, FrameIn::Message(message(seq, seq, full)));
    }
    machine.handle(Tick::ZERO, Input::Down(peer()));
    up(&mut machine, 2);
    for (seq, id) in [(1, 1), (2, 3)] {
        let again = MessageIn { epoch: 2, ..message(seq, id, "x".into()) };
        receive(&mut machine, FrameIn::Message(again));
    }
    let refusals = vec![Refusal { seq: 2, reason: RefuseReason::Busy }];
    assert_eq!(acks(&outputs(&mut machine)), [Ack { epoch: 2, through_seq: 0, refusals }]);
    room(&mut machine, 10, 4 * MAX_PAYLOAD);
    let outputs = outputs(&mut machine);
    let delivered = outputs.iter().filter(|output| matches!(output, Output::Deliver { .. }));
    assert_eq!(delivered.count(), 2, "each once");
    assert_eq!(acks(&outputs), [Ack { epoch: 2, through_seq: 2, refusals: Vec::new() }]);
    assert!(!machine.is_holding());
}

#[test]
fn nothing_is_acknowledged_before_the_inbox_has_room() {
    let mut machine = receiver();
    receive(&mut machine, FrameIn::Message(message(1, 1, vec![0; 10].into())));
    receive(&mut machine, FrameIn::Message(message(2, 2, "x".into())));
    assert!(outputs(&mut machine).is_empty() && machine.is_holding());
    room(&mut machine, 100, 9);
    assert!(outputs(&mut machine).is_empty(), "a small message does not overtake a large one");
    room(&mut machine, 1, 10);
    let first = outputs(&mut machine);
    assert_eq!((first.len(), acks(&first)[0].through_seq), (2, 1));
    room(&mut machine, 1, 1);
    assert_eq!(acks(&outputs(&mut machine))[0].through_seq, 2);
    assert!(!machine.is_holding());
}

#[test]
fn acknowledgements_are_handled_while_the_inbox_is_full() {
    let mut machine = receiver();
    receive(&mut machine, FrameIn::Message(message(1, 1, "held".into())));
    machine.handle(Tick::ZERO, Input::Send(request(1, "out".into())));
    assert_eq!(outputs(&mut machine).len(), 1, "the message goes out");
    receive(&mut machine, FrameIn::Ack(Ack { epoch: 1, through_seq: 1, ..Ack::default() }));
    assert_eq!(resolved(&outputs(&mut machine)), [(1, Ok(()))]);
    assert!(machine.is_holding());
}

#[test]
fn refusals_name_the_reason() {
    let metrics = metrics();
    let config = DirectConfig::new(vec![agent(1)]);
    let mut machine = DirectMachine::new(MachineId::new([1; 32]), config, metrics.clone());
    up(&mut machine, 1);
    room(&mut machine, 10, 100);
    let stranger = MessageIn { from: agent(3), ..message(1, 1, "x".into()) };
    let nobody = MessageIn { to: agent(3), ..message(2, 2, "x".into()) };
    let large = message(3, 3, vec![0; MAX_PAYLOAD + 1].into());
    for message in [stranger, nobody, large, message(4, 4, "fine".into())] {
        receive(&mut machine, FrameIn::Message(message));
    }
    let outputs = outputs(&mut machine);
    let expected =
        [RefuseReason::SenderNotProven, RefuseReason::UnknownRecipient, RefuseReason::TooLarge];
    let refusals: Vec<Refusal> =
        expected.into_iter().zip(1..).map(|(reason, seq)| Refusal { seq, reason }).collect();
    assert_eq!(acks(&outputs), [Ack { epoch: 1, through_seq: 4, refusals }]);
    assert_eq!(outputs.iter().filter(|o| matches!(o, Output::Deliver { .. })).count(), 1);
    assert_eq!(metrics.refused_sender_not_proven.value(), 1);
    assert_eq!(metrics.refused_unknown_recipient.value(), 1);
    assert_eq!(metrics.refused_too_large.value(), 1);
}

#[test]
fn a_retry_is_acknowledged_and_not_delivered_again_even_in_a_later_session() {
    let mut machine = receiver();
    room(&mut machine, 10, 100);
    receive(&mut machine, FrameIn::Message(message(1, 7, "x".into())));
    assert_eq!(outputs(&mut machine).len(), 2);
    machine.handle(Tick::ZERO, Input::Down(peer()));
    up(&mut machine, 2);
    receive(&mut machine, FrameIn::Message(message(1, 7, "x".into())));
    let again = outputs(&mut machine);
    assert_eq!((again.len(), acks(&again)[0].through_seq), (1, 1));
}

#[test]
fn frames_of_an_earlier_session_change_nothing() {
    let mut machine = receiver();
    machine.handle(Tick::ZERO, Input::Send(request(1, "a".into())));
    outputs(&mut machine);
    up(&mut machine, 2);
    assert_eq!(resolved(&outputs(&mut machine)), [(1, Err(DirectError::Unconfirmed))]);
    machine.handle(Tick::ZERO, Input::Send(request(2, "b".into())));
    outputs(&mut machine);
    receive(&mut machine, FrameIn::Ack(Ack { epoch: 1, through_seq: 1, ..Ack::default() }));
    assert!(outputs(&mut machine).is_empty(), "that answers the message before");
    receive(&mut machine, FrameIn::Ack(Ack { epoch: 2, through_seq: 1, ..Ack::default() }));
    assert_eq!(resolved(&outputs(&mut machine)), [(2, Ok(()))]);
}

#[test]
fn a_peer_that_breaks_the_protocol_is_disconnected_once() {
    let full = MAX_IN_FLIGHT_MESSAGES as u64;
    let gap = vec![message(1, 1, "x".into()), message(3, 3, "x".into())];
    let flood: Vec<_> = (1..=full + 1).map(|seq| message(seq, seq, "x".into())).collect();
    let mut cases: Vec<Vec<Bytes>> = [gap, flood]
        .map(|case| case.into_iter().map(|m| FrameIn::Message(m).encode()).collect())
        .into();
    cases.push(vec![Bytes::from_static(b"\xff\xff")]);
    cases.push(vec![FrameIn::Ack(Ack { epoch: 1, through_seq: 1, ..Ack::default() }).encode()]);
    for case in cases {
        let mut machine = receiver();
        for frame in case.into_iter().chain([Bytes::from_static(b"\xff")]) {
            machine.handle(Tick::ZERO, Input::Received { peer: peer(), frame });
        }
        let outputs = outputs(&mut machine);
        let ends = outputs.iter().filter(|o| matches!(o, Output::Disconnect(_))).count();
        assert_eq!(ends, 1);
    }
}

#[test]
fn sends_fail_openly() {
    let mut machine = receiver();
    machine.handle(Tick::ZERO, Input::Send(request(1, vec![0; MAX_PAYLOAD + 1].into())));
    let elsewhere = SendRequest { peer: MachineId::new([8; 32]), ..request(2, "x".into()) };
    machine.handle(Tick::ZERO, Input::Send(elsewhere.clone()));
    let coming = SendRequest { ticket: 3, connected: true, ..elsewhere };
    machine.handle(Tick::ZERO, Input::Send(coming));
    let late = SendRequest { deadline: Tick::ZERO, ..request(4, "x".into()) };
    machine.handle(Tick::ZERO, Input::Send(late));
    let too_large = DirectError::TooLarge { len: MAX_PAYLOAD + 1, max: MAX_PAYLOAD };
    let now =
        [(1, Err(too_large)), (2, Err(DirectError::NotConnected)), (4, Err(DirectError::Timeout))];
    assert_eq!(resolved(&outputs(&mut machine)), now);
    assert_eq!(machine.poll_timeout(), Some(Tick::from_millis(30_000)));
    machine.handle_timeout(Tick::from_millis(30_000));
    assert_eq!(resolved(&outputs(&mut machine)), [(3, Err(DirectError::Timeout))]);
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn a_send_before_the_session_is_announced_waits_for_it() {
    let config = DirectConfig::new(vec![agent(1)]);
    let mut machine = DirectMachine::new(MachineId::new([1; 32]), config, metrics());
    let early = SendRequest { connected: true, ..request(1, "x".into()) };
    machine.handle(Tick::ZERO, Input::Send(early));
    assert!(outputs(&mut machine).is_empty());
    up(&mut machine, 4);
    assert!(matches!(outputs(&mut machine)[..], [Output::Transmit { .. }]));
}

#[test]
fn a_blocked_frame_goes_first_when_the_peer_is_writable() {
    let mut machine = receiver();
    for ticket in 1..=3 {
        machine.handle(Tick::ZERO, Input::Send(request(ticket, "x".into())));
    }
    let Some(Output::Transmit { peer: to, frame }) = machine.poll_output() else {
        panic!("a message goes out")
    };
    machine.handle(Tick::ZERO, Input::Blocked { peer: to, frame: frame.clone() });
    assert!(outputs(&mut machine).is_empty());
    machine.handle(Tick::ZERO, Input::Writable(to));
    let sent = outputs(&mut machine);
    assert_eq!((sent.len(), &sent[0]), (3, &Output::Transmit { peer: to, frame }));
}

#[test]
fn agents_of_one_machine_take_the_same_way() {
    let config = DirectConfig::new(vec![agent(1), agent(2)]);
    let local = MachineId::new([1; 32]);
    let mut machine = DirectMachine::new(local, config, metrics());
    let to_self = |ticket, to| SendRequest { peer: local, to, ..request(ticket, "x".into()) };
    machine.handle(Tick::ZERO, Input::Send(to_self(1, agent(2))));
    machine.handle(Tick::ZERO, Input::Send(to_self(2, agent(5))));
    let unknown = Err(DirectError::Refused(RefuseReason::UnknownRecipient));
    assert_eq!(resolved(&outputs(&mut machine)), [(2, unknown)]);
    room(&mut machine, 1, 1);
    let outputs = outputs(&mut machine);
    assert!(matches!(outputs[0], Output::Deliver { machine, .. } if machine == local));
    assert_eq!(resolved(&outputs), [(1, Ok(()))]);
}

#[test]
fn a_closed_inbox_refuses_what_is_held_and_what_comes() {
    let mut machine = receiver();
    receive(&mut machine, FrameIn::Message(message(1, 1, "x".into())));
    machine.handle(Tick::ZERO, Input::InboxClosed);
    receive(&mut machine, FrameIn::Message(message(2, 2, "x".into())));
    let reason = RefuseReason::InboxClosed;
    let refusals = vec![Refusal { seq: 1, reason }, Refusal { seq: 2, reason }];
    let outputs = outputs(&mut machine);
    assert_eq!(acks(&outputs), [Ack { epoch: 1, through_seq: 2, refusals }]);
    assert_eq!(outputs.len(), 1);
}

#[test]
fn peers_take_turns_in_the_inbox() {
    let mut machine = receiver();
    let other = MachineId::new([8; 32]);
    let session = Input::Up { peer: other, generation: 2, agents: vec![agent(2)] };
    machine.handle(Tick::ZERO, session);
    for seq in 1..=50 {
        receive(&mut machine, FrameIn::Message(message(seq, seq, "x".into())));
    }
    let frame = FrameIn::Message(message(1, 1, "x".into())).encode();
    machine.handle(Tick::ZERO, Input::Received { peer: other, frame });
    room(&mut machine, 2, 2);
    let from = outputs(&mut machine).into_iter().filter_map(|output| match output {
        Output::Deliver { machine, .. } => Some(machine),
        _ => None,
    });
    assert_eq!(from.collect::<Vec<_>>(), [peer(), other]);
}

#[test]
fn an_unread_inbox_holds_a_window_of_a_peer_that_returns_and_all_else_goes_on() {
    let config = DirectConfig::new(vec![agent(1)]);
    let metrics = metrics();
    let mut machine = DirectMachine::new(MachineId::new([1; 32]), config, metrics.clone());
    let window = MAX_IN_FLIGHT_MESSAGES as u64;
    for session in 0..3 {
        machine.handle(Tick::ZERO, Input::Down(peer()));
        up(&mut machine, session + 1);
        for seq in 1..=window {
            receive(
                &mut machine,
                FrameIn::Message(message(seq, session * window + seq, "x".into())),
            );
        }
        let refused: usize = acks(&outputs(&mut machine)).iter().map(|a| a.refusals.len()).sum();
        assert_eq!(refused as u64, if session == 0 { 0 } else { window });
        assert_eq!((metrics.held.value(), metrics.broken_window.value()), (window, 0));
    }
    assert_eq!(metrics.refused_busy.value(), 2 * window);
    machine.handle(Tick::ZERO, Input::Send(request(1, "out".into())));
    assert_eq!(outputs(&mut machine).len(), 1);
    receive(&mut machine, FrameIn::Ack(Ack { epoch: 3, through_seq: 1, ..Ack::default() }));
    assert_eq!(resolved(&outputs(&mut machine)), [(1, Ok(()))], "answers are read");
    room(&mut machine, usize::MAX, usize::MAX);
    outputs(&mut machine);
    machine.handle(Tick::ZERO, Input::Down(peer()));
    up(&mut machine, 4);
    receive(&mut machine, FrameIn::Message(message(1, window + 1, "again".into())));
    let now = outputs(&mut machine);
    assert!(matches!(&now[0], Output::Deliver { message, .. } if message.payload() == "again"));
}

/// A hundred thousand frames that are partly right from peers that come and go.
#[test]
fn caps_hold_against_hostile_peers() {
    let mut rng = SeededRng::from_number(7);
    let config = DirectConfig::new(vec![agent(1)]);
    let metrics = metrics();
    let mut machine = DirectMachine::new(MachineId::new([1; 32]), config, metrics.clone());
    let mut seqs = [1_u64; 16];
    let mut now = Tick::ZERO;
    for n in 0..100_000_u64 {
        let index = rng.below(seqs.len());
        let peer = MachineId::new([index as u8 + 10; 32]);
        let frame = match rng.below(20) {
            0 => Bytes::from(rng.next_u64().to_le_bytes().to_vec()),
            1 => {
                let reason = RefuseReason::Other;
                let refusals = vec![Refusal { seq: rng.next_u64() >> 60, reason }; MAX_REFUSALS];
                FrameIn::Ack(Ack { epoch: 1, through_seq: 0, refusals }).encode()
            }
            kind => {
                let (from, to) = (agent(2 + u8::from(kind == 2)), agent(1 + u8::from(kind == 3)));
                let seq = if kind == 4 { rng.next_u64() | 1 } else { seqs[index] };
                let id = if kind == 5 { n / 3 } else { n };
                let payload = vec![0; if kind == 6 { 100_000 } else { 10 }];
                seqs[index] += 1;
                let message = MessageIn { from, to, ..message(seq, id, payload.into()) };
                FrameIn::Message(message).encode()
            }
        };
        machine.handle(now, Input::Received { peer, frame });
        if n % 10_000 == 0 {
            room(&mut machine, 1000, 1 << 20);
        }
        let held = usize::try_from(metrics.held.value()).expect("small");
        assert!(held <= MAX_HELD_MESSAGES && held * 10 <= MAX_HELD_BYTES);
        let mut polled = 0;
        let mut ended = rng.chance(0.001).then_some(peer);
        while let Some(output) = poll(&mut machine) {
            polled += 1;
            if let Output::Disconnect(peer) = output {
                ended = Some(peer);
            }
        }
        assert!(polled <= MAX_HELD_MESSAGES + MAX_IN_FLIGHT_MESSAGES);
        if let Some(peer) = ended {
            seqs[usize::from(peer.as_bytes()[0]) - 10] = 1;
            machine.handle(now, Input::Down(peer));
            machine.handle(now, Input::Up { peer, generation: n, agents: vec![agent(2)] });
        }
        now = now + Duration::from_micros(10);
    }
    assert!(metrics.delivered.value() > 1000, "honest frames came through");
    assert!(metrics.broken_sequence.value() > 0 && metrics.broken_malformed.value() > 0);
    assert!(metrics.refused_busy.value() > 0, "nobody empties the inbox fast enough");
    assert!(metrics.duplicates.value() > 0 && metrics.refused_sender_not_proven.value() > 0);
}

#[test]
fn a_run_without_trouble_delivers_everything() {
    let mut world = World::new();
    world.apply(Op::Connect);
    for _ in 0..60 {
        for _ in 0..5 {
            world.apply(Op::Send { end: 0, len: 20, kind: 9 });
            world.apply(Op::Send { end: 1, len: 20, kind: 9 });
        }
        world.finish();
    }
    world.check();
    assert_eq!(world.outcomes(Expect::Delivered), 600);
}

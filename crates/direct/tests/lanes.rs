//! The order of a lane, when messages of it fail before they are sent.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use x0x_core::{AgentId, Machine, MachineId, Tick};
use x0x_direct::{
    Admission, Admit, DirectConfig, DirectError, DirectMetrics, Lane, RefuseReason, Terms,
    state::{DirectMachine, Input, Output, SendRequest},
    wire::{Ack, FrameIn, Refusal, Verified},
};

const PEER: MachineId = MachineId::new([9; 32]);

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn at(millis: u64) -> Tick {
    Tick::from_millis(millis)
}

/// A sender whose window the plug fills, so that what follows it waits: three messages at most.
fn sender() -> DirectMachine {
    let mut config = DirectConfig::new(vec![agent(1)]);
    (config.window_messages, config.window_bytes) = (3, PLUG_BYTES);
    DirectMachine::new(MachineId::new([1; 32]), config, Arc::<DirectMetrics>::default())
}

fn up(machine: &mut DirectMachine, generation: u64) {
    machine.handle(at(0), Input::Up { peer: PEER, generation, agents: vec![agent(2)] });
}

const PLUG_BYTES: usize = 10;

/// The plug is the first message that is sent, and of no lane.
fn plug(machine: &mut DirectMachine) {
    up(machine, 1);
    send_bytes(machine, 1, Lane::None, at(60_000), PLUG_BYTES);
    assert_eq!(happened(machine), (vec![1], vec![]));
}

fn send(machine: &mut DirectMachine, ticket: u64, lane: Lane, deadline: Tick) {
    send_bytes(machine, ticket, lane, deadline, 1);
}

fn send_bytes(machine: &mut DirectMachine, ticket: u64, lane: Lane, deadline: Tick, len: usize) {
    let request = SendRequest {
        ticket,
        id: u128::from(ticket).to_be_bytes(),
        peer: PEER,
        from: agent(1),
        to: agent(2),
        payload: Bytes::from(vec![0; len]),
        terms: Terms { lane, ..Terms::default() },
        deadline,
        connected: false,
    };
    machine.handle(at(0), Input::Send(request));
}

/// Tickets that are sent now, and those that are settled.
type Happened = (Vec<u64>, Vec<(u64, Result<(), DirectError>)>);

fn happened(machine: &mut DirectMachine) -> Happened {
    let (mut sent, mut settled) = (Vec::new(), Vec::new());
    while let Some(output) = machine.poll_output() {
        match output {
            Output::Transmit { frame, .. } => match FrameIn::decode(frame).expect("it is whole") {
                FrameIn::Message(message) => {
                    sent.push(u128::from_be_bytes(message.id).try_into().expect("small"));
                }
                other => panic!("{other:?}"),
            },
            Output::Resolve { ticket, result } => settled.push((ticket, result.map(|_| ()))),
            other => panic!("{other:?}"),
        }
    }
    (sent, settled)
}

fn acknowledge(machine: &mut DirectMachine, epoch: u64, seq: u64, refused: bool) {
    let refusal = Refusal { seq, reason: RefuseReason::Busy };
    let refusals = if refused { vec![refusal] } else { Vec::new() };
    let ack = FrameIn::Ack(Ack { epoch, through_seq: seq, refusals });
    machine.handle(at(0), Input::Received { peer: PEER, frame: ack.encode() });
}

const BEHIND: Result<(), DirectError> = Err(DirectError::Behind);

#[test]
fn nothing_overtakes_a_message_that_waited_too_long() {
    let mut machine = sender();
    plug(&mut machine);
    send(&mut machine, 2, Lane::First, at(1000));
    send(&mut machine, 3, Lane::Next, at(60_000));
    machine.handle_timeout(at(2000));
    acknowledge(&mut machine, 1, 1, false);
    let settled = vec![(2, Err(DirectError::Timeout)), (3, BEHIND), (1, Ok(()))];
    assert_eq!(happened(&mut machine), (vec![], settled));
    send(&mut machine, 4, Lane::Next, at(60_000));
    send(&mut machine, 5, Lane::None, at(60_000));
    assert_eq!(happened(&mut machine), (vec![5], vec![(4, BEHIND)]), "others are not concerned");
    send(&mut machine, 6, Lane::First, at(60_000));
    send(&mut machine, 7, Lane::Next, at(60_000));
    assert_eq!(happened(&mut machine), (vec![6, 7], vec![]));
}

#[test]
fn nothing_overtakes_a_message_that_had_no_session() {
    let mut machine = sender();
    send(&mut machine, 1, Lane::First, at(60_000));
    up(&mut machine, 1);
    send(&mut machine, 2, Lane::Next, at(60_000));
    let settled = vec![(1, Err(DirectError::NotConnected)), (2, BEHIND)];
    assert_eq!(happened(&mut machine), (vec![], settled));
    send(&mut machine, 1, Lane::First, at(60_000));
    assert_eq!(happened(&mut machine), (vec![1], vec![]));
    machine.handle(at(0), Input::Down(PEER));
    up(&mut machine, 2);
    send(&mut machine, 2, Lane::Next, at(60_000));
    let settled = vec![(1, Err(DirectError::Unconfirmed)), (2, BEHIND)];
    assert_eq!(happened(&mut machine), (vec![], settled));
}

#[test]
fn nothing_overtakes_a_message_that_was_refused_in_an_earlier_session() {
    let mut machine = sender();
    up(&mut machine, 1);
    send(&mut machine, 1, Lane::First, at(60_000));
    assert_eq!(happened(&mut machine), (vec![1], vec![]));
    send_bytes(&mut machine, 2, Lane::Next, at(60_000), PLUG_BYTES);
    acknowledge(&mut machine, 1, 1, true);
    let refused = Err(DirectError::Refused(RefuseReason::Busy));
    assert_eq!(happened(&mut machine), (vec![], vec![(1, refused), (2, BEHIND)]));
    machine.handle(at(0), Input::Down(PEER));
    up(&mut machine, 2);
    send(&mut machine, 3, Lane::Next, at(60_000));
    assert_eq!(happened(&mut machine), (vec![], vec![(3, BEHIND)]));
}

#[test]
fn nothing_overtakes_a_message_for_which_there_was_no_room() {
    let mut machine = sender();
    plug(&mut machine);
    for (ticket, lane) in (2..=6).zip([Lane::First, Lane::Next, Lane::Next, Lane::Next, Lane::Next])
    {
        send(&mut machine, ticket, lane, at(60_000));
    }
    let (sent, settled) = happened(&mut machine);
    let limit = |error| matches!(error, Err(DirectError::Limit { .. }));
    assert!(sent.is_empty() && settled.len() == 2, "{settled:?}");
    assert!(limit(settled[0].1) && settled[1] == (6, BEHIND), "{settled:?}");
    acknowledge(&mut machine, 1, 1, false);
    assert_eq!(happened(&mut machine), (vec![2, 3, 4], vec![(1, Ok(()))]), "they came before");
}

/// Trust as the test has it: whether anything may be sent.
#[derive(Debug)]
struct Sends(AtomicBool);

impl Admission for Sends {
    fn admit(&self, _: Tick, _: &Verified, _: MachineId) -> Admit {
        Admit::Take
    }

    fn may_send(&self, _: &AgentId, _: &MachineId) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn what_waits_for_an_agent_that_is_blocked_is_not_sent() {
    let sends = Arc::new(Sends(AtomicBool::new(true)));
    let mut config = DirectConfig::new(vec![agent(1)]);
    (config.window_messages, config.window_bytes) = (3, PLUG_BYTES);
    let own = MachineId::new([1; 32]);
    let metrics = Arc::<DirectMetrics>::default();
    let mut machine = DirectMachine::with_admission(own, config, metrics.clone(), sends.clone());
    plug(&mut machine);
    send(&mut machine, 2, Lane::First, at(60_000));
    send(&mut machine, 3, Lane::Next, at(60_000));
    send(&mut machine, 4, Lane::None, at(60_000));
    sends.0.store(false, Ordering::Relaxed);
    let ack = Ack { epoch: 1, through_seq: 1, ..Ack::default() };
    let frame = FrameIn::Ack(ack).encode();
    machine.handle(at(0), Input::Received { peer: PEER, frame });
    let forbidden = Err(DirectError::Forbidden);
    let settled = vec![(1, Ok(())), (2, forbidden), (3, Err(DirectError::Behind)), (4, forbidden)];
    assert_eq!(happened(&mut machine), (vec![], settled));
    assert_eq!(metrics.forbidden.value(), 2);
    // Once it may, the lane begins anew.
    sends.0.store(true, Ordering::Relaxed);
    send(&mut machine, 5, Lane::Next, at(60_000));
    send(&mut machine, 6, Lane::First, at(60_000));
    assert_eq!(happened(&mut machine), (vec![6], vec![(5, Err(DirectError::Behind))]));
}

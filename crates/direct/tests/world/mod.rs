//! A model of two ends and the transport between them, with a record of what must hold.

use std::{collections::BTreeMap, collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{AgentId, Machine, MachineId, Tick};
use x0x_direct::{
    DirectConfig, DirectError, DirectMetrics, MessageId,
    state::{DirectMachine, Input, Output, Room, SendRequest},
};

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    /// An agent sends; kind 0 claims an agent that was not proven, kind 1 names an unknown
    /// recipient, kind 2 stays on the machine.
    Send { end: usize, len: usize, kind: u8 },
    /// An earlier message is sent again with its id.
    Retry { end: usize, which: proptest::sample::Index },
    /// Frames from this end arrive at the other one's transport.
    Carry { end: usize, count: usize },
    /// This end handles what its transport has for it.
    Step { end: usize, count: usize },
    /// The inbox of this end has this much room.
    Room { end: usize, messages: usize },
    /// The transport of this end takes nothing.
    Block { end: usize },
    /// It takes frames again.
    Unblock { end: usize },
    /// The session ends; frames on their way are lost.
    Disconnect,
    /// A session begins.
    Connect,
    /// Time passes.
    Advance { millis: u64 },
}

/// What a send came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// It must be with the receiver, once.
    Delivered,
    /// It must not.
    NotDelivered,
    /// Either.
    Unknown,
}

#[derive(Debug)]
struct Sent {
    id: MessageId,
    /// The same id was sent again.
    retried: bool,
    result: Option<Result<MessageId, DirectError>>,
}

struct End {
    machine: DirectMachine,
    events: VecDeque<Input>,
    link: VecDeque<Bytes>,
    blocked: bool,
    generation: u64,
    sent: Vec<Sent>,
    /// (From this end itself, id), in order.
    delivered: Vec<(bool, MessageId)>,
}

pub(crate) struct World {
    now: Tick,
    connected: bool,
    ends: [End; 2],
}

fn machine_id(end: usize) -> MachineId {
    MachineId::new([end as u8 + 1; 32])
}

fn agent(end: usize) -> AgentId {
    AgentId::new([end as u8 + 1; 32])
}

impl End {
    fn new(end: usize) -> Self {
        let mut config = DirectConfig::new(vec![agent(end)]);
        config.window_messages = 8;
        config.window_bytes = 120;
        let metrics = Arc::new(DirectMetrics::default());
        Self {
            machine: DirectMachine::new(machine_id(end), config, metrics),
            events: VecDeque::new(),
            link: VecDeque::new(),
            blocked: false,
            generation: 0,
            sent: Vec::new(),
            delivered: Vec::new(),
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self { now: Tick::ZERO, connected: false, ends: [End::new(0), End::new(1)] }
    }

    pub(crate) fn apply(&mut self, op: Op) {
        match op {
            Op::Send { end, len, kind } => {
                let id = (self.ends[end].sent.len() as u128 + 1).to_be_bytes();
                self.send(end, id, len, kind, false);
            }
            Op::Retry { end, which } => {
                if !self.ends[end].sent.is_empty() {
                    let index = which.index(self.ends[end].sent.len());
                    let id = self.ends[end].sent[index].id;
                    self.ends[end]
                        .sent
                        .iter_mut()
                        .filter(|s| s.id == id)
                        .for_each(|s| s.retried = true);
                    self.send(end, id, 5, 9, true);
                }
            }
            Op::Carry { end, count } => {
                for _ in 0..count {
                    if let Some(frame) = self.ends[end].link.pop_front() {
                        let input = Input::Received { peer: machine_id(end), frame };
                        self.ends[1 - end].events.push_back(input);
                    }
                }
            }
            Op::Step { end, count } => {
                for _ in 0..count {
                    if let Some(input) = self.ends[end].events.pop_front() {
                        self.handle(end, input);
                    }
                }
            }
            Op::Room { end, messages } => {
                self.handle(end, Input::Room(Room { messages, bytes: 10_000 }));
            }
            Op::Block { end } => self.ends[end].blocked = true,
            Op::Unblock { end } => {
                self.ends[end].blocked = false;
                if self.connected {
                    self.ends[end].events.push_back(Input::Writable(machine_id(1 - end)));
                }
            }
            Op::Disconnect => self.disconnect(),
            Op::Connect => {
                self.disconnect();
                self.connected = true;
                for end in 0..2 {
                    self.ends[end].generation += 1;
                    let (peer, agents) = (machine_id(1 - end), vec![agent(1 - end)]);
                    let generation = self.ends[end].generation;
                    self.ends[end].events.push_back(Input::Up { peer, generation, agents });
                }
            }
            Op::Advance { millis } => {
                self.now = self.now + Duration::from_millis(millis);
                for end in 0..2 {
                    self.ends[end].machine.handle_timeout(self.now);
                    self.poll(end);
                }
            }
        }
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            for end in 0..2 {
                self.ends[end].link.clear();
                self.ends[end].events.push_back(Input::Down(machine_id(1 - end)));
            }
        }
    }

    fn send(&mut self, end: usize, id: MessageId, len: usize, kind: u8, retried: bool) {
        let local = kind == 2;
        let to = if local { end } else { 1 - end };
        let request = SendRequest {
            ticket: self.ends[end].sent.len() as u64,
            id,
            peer: machine_id(to),
            from: if kind == 0 { AgentId::new([77; 32]) } else { agent(end) },
            to: if kind == 1 { AgentId::new([78; 32]) } else { agent(to) },
            payload: vec![0; len].into(),
            terms: x0x_direct::Terms::default(),
            deadline: self.now + Duration::from_secs(30),
            connected: self.connected,
        };
        self.ends[end].sent.push(Sent { id, retried, result: None });
        self.handle(end, Input::Send(request));
    }

    fn handle(&mut self, end: usize, input: Input) {
        self.ends[end].machine.handle(self.now, input);
        self.poll(end);
    }

    fn poll(&mut self, index: usize) {
        let (now, connected) = (self.now, self.connected);
        let end = &mut self.ends[index];
        while let Some(output) = end.machine.poll_output() {
            match output {
                Output::Transmit { peer, frame } => {
                    assert_eq!(peer, machine_id(1 - index));
                    if connected && !end.blocked {
                        end.link.push_back(frame);
                    } else {
                        end.machine.handle(now, Input::Blocked { peer, frame });
                    }
                }
                Output::Deliver { machine, message } => {
                    end.delivered.push((machine == machine_id(index), message.id()));
                    end.machine.handle(now, Input::Settled(vec![Ok(())]));
                }
                Output::Resolve { ticket, result } => {
                    let sent = &mut end.sent[usize::try_from(ticket).expect("small")];
                    assert!(sent.result.replace(result).is_none(), "settled twice");
                }
                output => panic!("an honest peer was treated as hostile: {output:?}"),
            }
        }
    }

    /// Lets everything come to rest over a session.
    pub(crate) fn finish(&mut self) {
        if !self.connected {
            self.apply(Op::Connect);
        }
        // Each round carries what the one before made possible; a window takes a few.
        for _ in 0..50 {
            for end in 0..2 {
                self.apply(Op::Unblock { end });
                self.apply(Op::Room { end, messages: 100 });
                self.apply(Op::Step { end, count: 1000 });
                self.apply(Op::Carry { end, count: 1000 });
            }
        }
    }

    pub(crate) fn check(&mut self) {
        self.apply(Op::Advance { millis: 31_000 });
        for index in 0..2 {
            assert_eq!(self.ends[index].machine.poll_timeout(), None);
            assert!(!self.ends[index].machine.is_holding(), "something was never delivered");
            let mut times: BTreeMap<MessageId, usize> = BTreeMap::new();
            let here = self.ends[index].delivered.iter().filter(|(local, _)| *local);
            let there = self.ends[1 - index].delivered.iter().filter(|(local, _)| !local);
            let there: Vec<MessageId> = there.map(|(_, id)| *id).collect();
            let here: Vec<MessageId> = here.map(|(_, id)| *id).collect();
            for place in [&here, &there] {
                let once: Vec<&MessageId> =
                    place.iter().filter(|id| !self.retried(index, **id)).collect();
                assert!(once.is_sorted(), "out of order");
                place.iter().for_each(|id| *times.entry(*id).or_default() += 1);
            }
            for sent in &self.ends[index].sent {
                let times = times.get(&sent.id).copied().unwrap_or_default();
                match expectation(sent) {
                    Expect::Delivered if sent.retried => assert!((1..=2).contains(&times)),
                    Expect::Delivered => assert_eq!(times, 1),
                    Expect::NotDelivered if !sent.retried => assert_eq!(times, 0),
                    // A retry of a local message goes to the other machine.
                    _ => assert!(times <= if sent.retried { 2 } else { 1 }),
                }
            }
            for place in [here, there] {
                let unique: std::collections::BTreeSet<_> = place.iter().collect();
                assert_eq!(unique.len(), place.len(), "delivered twice");
            }
        }
    }

    fn retried(&self, end: usize, id: MessageId) -> bool {
        self.ends[end].sent.iter().any(|sent| sent.id == id && sent.retried)
    }

    pub(crate) fn outcomes(&self, expect: Expect) -> usize {
        let all = self.ends.iter().flat_map(|end| &end.sent);
        all.filter(|sent| expectation(sent) == expect).count()
    }
}

fn expectation(sent: &Sent) -> Expect {
    match sent.result.expect("every send settles") {
        Ok(id) => {
            assert_eq!(id, sent.id);
            Expect::Delivered
        }
        Err(DirectError::Unconfirmed | DirectError::Timeout) => Expect::Unknown,
        Err(_) => Expect::NotDelivered,
    }
}

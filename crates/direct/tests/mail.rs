//! Letters and mail against a world that crashes: whatever was posted arrives once and in order, at
//! whichever step either end, its store or the session between them fails.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, Machine, MachineId, SeededRng, Tick};
use x0x_direct::{
    DirectConfig, DirectMetrics, Kind, Lane, MessageId, RefuseReason, Terms,
    outbox::{self, Entry, OutboxMachine, Outcome},
    state::{DirectMachine, Input, Output, Room, SendRequest},
};

/// Crashes of each run, and runs.
const CRASHES: usize = 40;
const RUNS: u64 = 40;

fn machine_id(end: usize) -> MachineId {
    MachineId::new([end as u8 + 1; 32])
}

fn agent(end: usize) -> AgentId {
    AgentId::new([end as u8 + 1; 32])
}

fn machine(end: usize) -> DirectMachine {
    let mut config = DirectConfig::new(vec![agent(end)]);
    config.window_messages = 6;
    DirectMachine::new(machine_id(end), config, Arc::<DirectMetrics>::default())
}

fn id(number: u64) -> MessageId {
    u128::from(number).to_be_bytes()
}

/// What survives a crash at the sender: letters that are posted and not recorded as received.
#[derive(Default)]
struct Posted {
    last: u64,
    pending: BTreeSet<u64>,
}

/// The sender's process.
struct Sender {
    machine: DirectMachine,
    outbox: OutboxMachine,
    tickets: u64,
    /// The batch on its way: letters by ticket, and what became of them.
    batch: BTreeMap<u64, u64>,
    outcomes: Vec<(u64, Outcome)>,
    /// Sends on their way to the machine.
    commands: VecDeque<SendRequest>,
    generation: u64,
}

/// The receiver's process.
struct Receiver {
    machine: DirectMachine,
    handed: Vec<MessageId>,
    committing: Option<Vec<MessageId>>,
    generation: u64,
}

struct World {
    rng: SeededRng,
    now: Tick,
    posted: Posted,
    /// What survives a crash at the receiver, in the order of commits.
    mail: Vec<MessageId>,
    sender: Sender,
    receiver: Receiver,
    connected: bool,
    /// Frames on their way from the sender, and to it.
    there: VecDeque<Bytes>,
    back: VecDeque<Bytes>,
}

impl Sender {
    fn new(posted: &Posted, now: Tick) -> Self {
        let mut outbox = OutboxMachine::default();
        for number in &posted.pending {
            outbox.handle(now, outbox::Input::Post(entry(*number)));
        }
        let (batch, outcomes) = (BTreeMap::new(), Vec::new());
        let (commands, generation) = (VecDeque::new(), 0);
        Self { machine: machine(0), outbox, tickets: 0, batch, outcomes, commands, generation }
    }
}

impl Receiver {
    fn new() -> Self {
        let mut machine = machine(1);
        machine.handle(Tick::ZERO, Input::Room(Room { messages: 20, bytes: 1000 }));
        Self { machine, handed: Vec::new(), committing: None, generation: 0 }
    }
}

fn entry(number: u64) -> Entry {
    let expires = Tick::from_millis(u64::MAX / 4000);
    Entry { number, id: id(number), to: agent(1), bytes: 10, expires }
}

impl World {
    fn new(seed: u64) -> Self {
        let posted = Posted::default();
        Self {
            rng: SeededRng::from_number(seed),
            now: Tick::ZERO,
            sender: Sender::new(&posted, Tick::ZERO),
            posted,
            mail: Vec::new(),
            receiver: Receiver::new(),
            connected: false,
            there: VecDeque::new(),
            back: VecDeque::new(),
        }
    }

    fn step(&mut self) {
        match self.rng.below(14) {
            0..3 => self.post(),
            3..5 => self.carry_there(),
            5..7 => self.carry_back(),
            7 => self.commit(),
            8 => self.connect(),
            9 => self.now = self.now + Duration::from_millis(self.rng.range(1, 2000)),
            10 => self.commit(),
            11..13 => self.command(),
            _ if self.rng.chance(0.2) => self.disconnect(),
            _ => {}
        }
        self.turn();
    }

    /// A send reaches the machine, in whichever session there is then.
    fn command(&mut self) {
        if let Some(request) = self.sender.commands.pop_front() {
            let request = SendRequest { connected: self.connected, ..request };
            self.sender.machine.handle(self.now, Input::Send(request));
        }
    }

    /// A letter is stored, which is when it counts as posted.
    fn post(&mut self) {
        self.posted.last += 1;
        self.posted.pending.insert(self.posted.last);
        let input = outbox::Input::Post(entry(self.posted.last));
        self.sender.outbox.handle(self.now, input);
    }

    fn carry_there(&mut self) {
        if let Some(frame) = self.there.pop_front() {
            let input = Input::Received { peer: machine_id(0), frame };
            self.receiver.machine.handle(self.now, input);
        }
    }

    fn carry_back(&mut self) {
        if let Some(frame) = self.back.pop_front() {
            let input = Input::Received { peer: machine_id(1), frame };
            self.sender.machine.handle(self.now, input);
        }
    }

    /// The receiver's commit ends: done, failed, or done and nobody hears of it.
    fn commit(&mut self) {
        let Some(ids) = self.receiver.committing.take() else { return };
        let count = ids.len();
        if self.rng.chance(0.2) {
            let refused = Err(RefuseReason::NotStored);
            // What waits behind a failed commit is refused with it.
            let behind = std::mem::take(&mut self.receiver.handed).len();
            let settled = Input::Settled(vec![refused; count + behind]);
            return self.receiver.machine.handle(self.now, settled);
        }
        for message in ids {
            if !self.mail.contains(&message) {
                self.mail.push(message);
            }
        }
        if self.rng.chance(0.05) {
            return self.crash_receiver();
        }
        self.receiver.machine.handle(self.now, Input::Settled(vec![Ok(()); count]));
    }

    fn connect(&mut self) {
        self.disconnect();
        self.connected = true;
        self.sender.generation += 1;
        self.receiver.generation += 1;
        let (generation, agents) = (self.sender.generation, vec![agent(1)]);
        let up = Input::Up { peer: machine_id(1), generation, agents };
        self.sender.machine.handle(self.now, up);
        let (generation, agents) = (self.receiver.generation, vec![agent(0)]);
        let up = Input::Up { peer: machine_id(0), generation, agents };
        self.receiver.machine.handle(self.now, up);
        self.sender.outbox.handle(self.now, outbox::Input::Reachable(agent(1)));
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.there.clear();
            self.back.clear();
            self.sender.machine.handle(self.now, Input::Down(machine_id(1)));
            self.receiver.machine.handle(self.now, Input::Down(machine_id(0)));
        }
    }

    fn crash_sender(&mut self) {
        self.disconnect();
        self.sender = Sender::new(&self.posted, self.now);
    }

    /// A commit that was on its way is either done or not.
    fn crash_receiver(&mut self) {
        if let Some(ids) = self.receiver.committing.take()
            && self.rng.chance(0.5)
        {
            let new: Vec<_> = ids.into_iter().filter(|id| !self.mail.contains(id)).collect();
            self.mail.extend(new);
        }
        self.disconnect();
        self.receiver = Receiver::new();
    }

    /// Both ends do what they can.
    fn turn(&mut self) {
        self.sender.machine.handle_timeout(self.now);
        self.sender.outbox.handle_timeout(self.now);
        self.poll_sender();
        self.receiver.machine.handle(self.now, Input::Room(Room { messages: 20, bytes: 1000 }));
        while let Some(output) = self.receiver.machine.poll_output() {
            match output {
                Output::Deliver { message, .. } => self.receiver.handed.push(message.id()),
                Output::Transmit { frame, .. } if self.connected => self.back.push_back(frame),
                Output::Transmit { peer, frame } => {
                    self.receiver.machine.handle(self.now, Input::Blocked { peer, frame });
                }
                output => panic!("{output:?}"),
            }
        }
        if self.receiver.committing.is_none() && !self.receiver.handed.is_empty() {
            self.receiver.committing = Some(std::mem::take(&mut self.receiver.handed));
        }
    }

    fn poll_sender(&mut self) {
        loop {
            while let Some(output) = self.sender.outbox.poll_output() {
                match output {
                    outbox::Output::Send { numbers, .. } => self.send(numbers),
                    outbox::Output::Settled { entry, outcome } => {
                        assert_eq!(outcome, Some(Outcome::Received), "nothing expires here");
                        // Recorded a moment later: a crash in between sends it again.
                        if self.rng.chance(0.9) {
                            self.posted.pending.remove(&entry.number);
                        }
                    }
                    output => panic!("{output:?}"),
                }
            }
            while let Some(output) = self.sender.machine.poll_output() {
                match output {
                    Output::Resolve { ticket, result } => {
                        let number = self.sender.batch.remove(&ticket).expect("it was sent");
                        let outcome = match result {
                            Ok(_) => Outcome::Received,
                            Err(_) => Outcome::Again,
                        };
                        self.sender.outcomes.push((number, outcome));
                    }
                    Output::Transmit { frame, .. } if self.connected => {
                        self.there.push_back(frame);
                    }
                    Output::Transmit { peer, frame } => {
                        self.sender.machine.handle(self.now, Input::Blocked { peer, frame });
                    }
                    output => panic!("{output:?}"),
                }
            }
            if !self.sender.batch.is_empty() || self.sender.outcomes.is_empty() {
                return;
            }
            let outcomes = std::mem::take(&mut self.sender.outcomes);
            let done = outbox::Input::Done { to: agent(1), outcomes };
            self.sender.outbox.handle(self.now, done);
        }
    }

    fn send(&mut self, numbers: Vec<u64>) {
        for (index, number) in numbers.into_iter().enumerate() {
            self.sender.tickets += 1;
            let ticket = self.sender.tickets;
            self.sender.batch.insert(ticket, number);
            let lane = if index == 0 { Lane::First } else { Lane::Next };
            let terms = Terms { kind: Kind::Mail, lane, ..Terms::default() };
            let request = SendRequest {
                ticket,
                id: id(number),
                peer: machine_id(1),
                from: agent(0),
                to: agent(1),
                payload: Bytes::from_static(b"0123456789"),
                terms,
                // Some give up while they wait, those behind them not.
                deadline: self.now + Duration::from_millis(self.rng.range(500, 20_000)),
                connected: false,
            };
            self.sender.commands.push_back(request);
        }
    }

    /// Everything comes to rest.
    fn finish(&mut self) {
        self.connect();
        for round in 0..3000 {
            self.now = self.now + Duration::from_millis(100);
            if self.rng.chance(0.01) {
                self.connect();
            }
            while !self.there.is_empty() || !self.back.is_empty() {
                self.carry_there();
                self.carry_back();
            }
            self.commit();
            while !self.sender.commands.is_empty() {
                self.command();
            }
            self.turn();
            if round > 100 && self.sender.outbox.is_empty() && self.receiver.committing.is_none() {
                return;
            }
        }
    }
}

#[test]
fn nothing_posted_is_lost_or_comes_twice_or_out_of_order() {
    let mut crashes = 0;
    let mut letters = 0;
    for seed in 0..RUNS {
        let mut world = World::new(seed);
        for _ in 0..CRASHES {
            for _ in 0..world.rng.range(1, 60) {
                world.step();
            }
            match world.rng.chance(0.5) {
                true => world.crash_sender(),
                false => world.crash_receiver(),
            }
            crashes += 1;
        }
        world.finish();
        let expected: Vec<MessageId> = (1..=world.posted.last).map(id).collect();
        assert_eq!(world.mail, expected, "seed {seed}");
        letters += world.posted.last;
    }
    assert!(crashes >= 1000 && letters > 5000, "{crashes} crashes, {letters} letters");
}

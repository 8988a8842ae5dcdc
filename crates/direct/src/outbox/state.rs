//! The machine: which letters are sent when.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeBounds,
    time::Duration,
};

use x0x_core::{AgentId, Machine, Tick};

use crate::wire::MessageId;

/// Most letters of one recipient that are on their way at once.
pub const MAX_BATCH_LETTERS: usize = 64;
/// Payload bytes after which no further letter joins those.
pub const MAX_BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// Most recipients to whom letters are on their way at once; the others wait for their turn.
pub const MAX_BATCHES: usize = 64;
/// Of those, who could not be reached before: each attempt may take as long as a dial, and must not
/// keep those waiting who can be reached.
pub const MAX_REPEATED_BATCHES: usize = 32;
/// Payload bytes on their way after which no further recipient joins.
pub const MAX_SENDING_BYTES: u64 = 32 * 1024 * 1024;

/// The first pause after a recipient could not be reached or had no room; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause. A session with the recipient ends it at once.
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// A letter that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the driver makes them")]
pub struct Entry {
    /// Its number; letters of one recipient are sent in this order.
    pub number: u64,
    /// Its id.
    pub id: MessageId,
    /// Its recipient.
    pub to: AgentId,
    /// Payload bytes.
    pub bytes: u64,
    /// When it is given up.
    pub expires: Tick,
}

/// What became of a letter that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The recipient's machine has stored it.
    Received,
    /// It is to be tried again.
    Again,
    /// The recipient will never take it.
    Never,
    /// Nothing may be sent to the recipient any more.
    Forbidden,
}

/// What the world tells the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// A letter was posted.
    Post(Entry),
    /// A session with this agent begins.
    Reachable(AgentId),
    /// What became of the letters of an [`Output::Send`]; those that are not named were not sent.
    Done {
        /// The recipient.
        to: AgentId,
        /// Numbers and outcomes.
        outcomes: Vec<(u64, Outcome)>,
    },
    /// A letter is taken back.
    Cancel {
        /// Its recipient.
        to: AgentId,
        /// Its number.
        number: u64,
    },
    /// Nothing may be sent to this agent any more: what waits for it is settled, and what is on its
    /// way once it is known whether it was received.
    Forbid(AgentId),
}

/// What the machine asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send these letters, in this order. [`Input::Done`] is the answer.
    Send {
        /// The recipient.
        to: AgentId,
        /// Numbers.
        numbers: Vec<u64>,
    },
    /// A letter was taken back before it was settled.
    Cancelled(Entry),
    /// A letter is settled: received, never taken, or expired (`None`).
    Settled {
        /// The letter.
        entry: Entry,
        /// What became of it.
        outcome: Option<Outcome>,
    },
}

/// Letters on their way to one recipient.
#[derive(Debug, Clone, Copy)]
struct OnWay {
    /// The highest of their numbers.
    through: u64,
    /// Payload bytes.
    bytes: u64,
    /// The attempt before this one failed.
    repeated: bool,
}

/// Whether a lane waits for its turn, and with whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    None,
    New,
    Repeated,
}

#[derive(Debug, Default)]
struct Lane {
    letters: BTreeMap<u64, Entry>,
    on_way: Option<OnWay>,
    turn: Turn,
    /// What is on its way is not to be sent again.
    forbidden: bool,
    /// When the next attempt is made, after one that failed.
    retry_at: Option<Tick>,
    failures: u32,
}

impl Lane {
    /// What is sent next, and its payload bytes.
    fn batch(&self) -> (Vec<u64>, u64) {
        let (mut numbers, mut bytes) = (Vec::new(), 0);
        for entry in self.letters.values().take(MAX_BATCH_LETTERS) {
            if bytes + entry.bytes > MAX_BATCH_BYTES && !numbers.is_empty() {
                break;
            }
            bytes += entry.bytes;
            numbers.push(entry.number);
        }
        (numbers, bytes)
    }
}

/// What is on its way to all recipients.
#[derive(Debug, Default)]
struct Sending {
    batches: usize,
    repeated: usize,
    bytes: u64,
}

impl Sending {
    const fn has_room(&self, bytes: u64, repeated: bool) -> bool {
        self.batches == 0
            || (self.batches < MAX_BATCHES
                && self.bytes + bytes <= MAX_SENDING_BYTES
                && !(repeated && self.repeated >= MAX_REPEATED_BATCHES))
    }

    const fn add(&mut self, batch: OnWay) {
        self.batches += 1;
        self.repeated += batch.repeated as usize;
        self.bytes += batch.bytes;
    }

    const fn remove(&mut self, batch: OnWay) {
        self.batches -= 1;
        self.repeated -= batch.repeated as usize;
        self.bytes -= batch.bytes;
    }
}

/// The letters that wait, by recipient. As large as what was posted, which the driver bounds.
#[derive(Debug, Default)]
pub struct OutboxMachine {
    lanes: BTreeMap<AgentId, Lane>,
    expiries: BTreeSet<(Tick, AgentId, u64)>,
    retries: BTreeSet<(Tick, AgentId)>,
    /// Recipients that wait for their turn, those first whose last attempt did not fail.
    new: VecDeque<AgentId>,
    repeated: VecDeque<AgentId>,
    sending: Sending,
    outputs: VecDeque<Output>,
}

impl OutboxMachine {
    /// Whether a letter is on its way.
    #[must_use]
    pub fn is_sending(&self, to: &AgentId, number: u64) -> bool {
        let on_way = self.lanes.get(to).and_then(|lane| lane.on_way);
        on_way.is_some_and(|batch| number <= batch.through)
    }

    /// What waits for a recipient or is on its way, in order.
    pub fn pending(&self, to: &AgentId) -> impl Iterator<Item = &Entry> {
        self.lanes.get(to).into_iter().flat_map(|lane| lane.letters.values())
    }

    /// Letters that wait or are on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.expiries.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expiries.is_empty()
    }

    /// Lets a recipient wait for its turn, if nothing forbids it, and sends what has its turn.
    fn send(&mut self, to: AgentId) {
        let Some(lane) = self.lanes.get_mut(&to) else { return };
        if lane.on_way.is_some() || lane.retry_at.is_some() {
            return;
        }
        let turn = if lane.failures > 0 { Turn::Repeated } else { Turn::New };
        if lane.turn == Turn::Repeated && turn == Turn::New {
            self.repeated.retain(|other| *other != to);
            lane.turn = Turn::None;
        }
        if lane.turn == Turn::None {
            lane.turn = turn;
            if turn == Turn::New { &mut self.new } else { &mut self.repeated }.push_back(to);
        }
        self.take_turns();
    }

    fn take_turns(&mut self) {
        loop {
            let (to, repeated) = match (self.new.front(), self.repeated.front()) {
                (Some(to), _) => (*to, false),
                (None, Some(to)) => (*to, true),
                (None, None) => return,
            };
            if let Some(lane) = self.lanes.get_mut(&to) {
                let (numbers, bytes) = lane.batch();
                if let Some(through) = numbers.last().copied() {
                    // Nobody overtakes, so that a large letter has its turn, too.
                    if !self.sending.has_room(bytes, repeated) {
                        return;
                    }
                    let batch = OnWay { through, bytes, repeated };
                    self.sending.add(batch);
                    (lane.on_way, lane.turn) = (Some(batch), Turn::None);
                    self.outputs.push_back(Output::Send { to, numbers });
                } else {
                    self.lanes.remove(&to);
                }
            }
            if repeated { &mut self.repeated } else { &mut self.new }.pop_front();
        }
    }

    fn take(&mut self, to: &AgentId, number: u64) -> Option<Entry> {
        let entry = self.lanes.get_mut(to)?.letters.remove(&number)?;
        self.expiries.remove(&(entry.expires, *to, number));
        Some(entry)
    }

    fn settle(&mut self, to: &AgentId, number: u64, outcome: Outcome) {
        if let Some(entry) = self.take(to, number) {
            self.outputs.push_back(Output::Settled { entry, outcome: Some(outcome) });
        }
    }

    fn done(&mut self, now: Tick, to: AgentId, outcomes: Vec<(u64, Outcome)>) {
        let mut progress = false;
        for (number, outcome) in outcomes {
            if outcome == Outcome::Again {
                continue;
            }
            progress = true;
            self.settle(&to, number, outcome);
        }
        let Some(lane) = self.lanes.get_mut(&to) else { return };
        let batch = lane.on_way.take();
        if let Some(batch) = batch {
            self.sending.remove(batch);
        }
        if progress {
            lane.failures = 0;
        } else {
            let pause = FIRST_PAUSE.saturating_mul(1 << lane.failures.min(16)).min(LAST_PAUSE);
            lane.failures = lane.failures.saturating_add(1);
            lane.retry_at = Some(now + pause);
            self.retries.insert((now + pause, to));
        }
        if std::mem::take(&mut lane.forbidden)
            && let Some(batch) = batch
        {
            self.forbid_letters(&to, ..=batch.through);
        }
        self.send(to);
        self.take_turns();
    }

    fn forbid(&mut self, to: &AgentId) {
        let Some(lane) = self.lanes.get_mut(to) else { return };
        match lane.on_way {
            Some(batch) => {
                lane.forbidden = true;
                self.forbid_letters(to, batch.through + 1..);
            }
            None => self.forbid_letters(to, ..),
        }
    }

    fn forbid_letters(&mut self, to: &AgentId, which: impl RangeBounds<u64>) {
        let Some(lane) = self.lanes.get(to) else { return };
        let numbers: Vec<u64> = lane.letters.range(which).map(|(number, _)| *number).collect();
        for number in numbers {
            self.settle(to, number, Outcome::Forbidden);
        }
    }

    fn retry(&mut self, to: AgentId) {
        let Some(lane) = self.lanes.get_mut(&to) else { return };
        if let Some(at) = lane.retry_at.take() {
            self.retries.remove(&(at, to));
        }
        self.send(to);
    }
}

impl Machine for OutboxMachine {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::Post(entry) => {
                self.expiries.insert((entry.expires, entry.to, entry.number));
                self.lanes.entry(entry.to).or_default().letters.insert(entry.number, entry);
                self.send(entry.to);
            }
            Input::Reachable(to) => {
                if let Some(lane) = self.lanes.get_mut(&to) {
                    lane.failures = 0;
                }
                self.retry(to);
            }
            Input::Done { to, outcomes } => self.done(now, to, outcomes),
            Input::Cancel { to, number } => {
                if let Some(entry) = self.take(&to, number) {
                    self.outputs.push_back(Output::Cancelled(entry));
                }
            }
            Input::Forbid(to) => self.forbid(&to),
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        while let Some((at, to, number)) = self.expiries.first().copied()
            && at <= now
        {
            match self.take(&to, number) {
                Some(entry) => self.outputs.push_back(Output::Settled { entry, outcome: None }),
                None => drop(self.expiries.remove(&(at, to, number))),
            }
        }
        while let Some((at, to)) = self.retries.first().copied()
            && at <= now
        {
            self.retries.remove(&(at, to));
            self.retry(to);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let expiry = self.expiries.first().map(|(at, ..)| *at);
        let retry = self.retries.first().map(|(at, _)| *at);
        expiry.into_iter().chain(retry).min()
    }
}

#[cfg(test)]
mod tests;

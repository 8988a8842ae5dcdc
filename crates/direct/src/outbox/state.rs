//! The machine: which letters are sent when.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use x0x_core::{AgentId, Machine, Tick};

use crate::wire::MessageId;

/// Most letters of one recipient that are on their way at once.
pub const MAX_BATCH_LETTERS: usize = 64;
/// Payload bytes after which no further letter joins those.
pub const MAX_BATCH_BYTES: u64 = 8 * 1024 * 1024;

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

#[derive(Debug, Default)]
struct Lane {
    letters: BTreeMap<u64, Entry>,
    /// Some are on their way.
    sending: bool,
    /// When the next attempt is made, after one that failed.
    retry_at: Option<Tick>,
    failures: u32,
}

/// The letters that wait, by recipient. As large as what was posted, which the driver bounds.
#[derive(Debug, Default)]
pub struct OutboxMachine {
    lanes: BTreeMap<AgentId, Lane>,
    expiries: BTreeSet<(Tick, AgentId, u64)>,
    retries: BTreeSet<(Tick, AgentId)>,
    outputs: VecDeque<Output>,
}

impl OutboxMachine {
    /// Whether a letter is on its way.
    #[must_use]
    pub fn is_sending(&self, to: &AgentId, number: u64) -> bool {
        self.lanes.get(to).is_some_and(|lane| {
            lane.sending && lane.letters.range(..=number).count() <= MAX_BATCH_LETTERS
        })
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

    /// Sends what is next, if nothing forbids it.
    fn send(&mut self, to: AgentId) {
        let Some(lane) = self.lanes.get_mut(&to) else { return };
        if lane.sending || lane.retry_at.is_some() {
            return;
        }
        let (mut numbers, mut bytes) = (Vec::new(), 0);
        for entry in lane.letters.values().take(MAX_BATCH_LETTERS) {
            if bytes + entry.bytes > MAX_BATCH_BYTES && !numbers.is_empty() {
                break;
            }
            bytes += entry.bytes;
            numbers.push(entry.number);
        }
        if numbers.is_empty() {
            self.lanes.remove(&to);
            return;
        }
        lane.sending = true;
        self.outputs.push_back(Output::Send { to, numbers });
    }

    fn take(&mut self, to: &AgentId, number: u64) -> Option<Entry> {
        let entry = self.lanes.get_mut(to)?.letters.remove(&number)?;
        self.expiries.remove(&(entry.expires, *to, number));
        Some(entry)
    }

    fn done(&mut self, now: Tick, to: AgentId, outcomes: Vec<(u64, Outcome)>) {
        let mut progress = false;
        for (number, outcome) in outcomes {
            if outcome == Outcome::Again {
                continue;
            }
            progress = true;
            if let Some(entry) = self.take(&to, number) {
                self.outputs.push_back(Output::Settled { entry, outcome: Some(outcome) });
            }
        }
        let Some(lane) = self.lanes.get_mut(&to) else { return };
        lane.sending = false;
        if progress {
            lane.failures = 0;
        } else {
            let pause = FIRST_PAUSE.saturating_mul(1 << lane.failures.min(16)).min(LAST_PAUSE);
            lane.failures = lane.failures.saturating_add(1);
            lane.retry_at = Some(now + pause);
            self.retries.insert((now + pause, to));
        }
        self.send(to);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agent(n: u8) -> AgentId {
        AgentId::new([n; 32])
    }

    fn at(secs: u64) -> Tick {
        Tick::from_millis(secs * 1000)
    }

    fn entry(number: u64, to: u8, expires: u64) -> Entry {
        let id = u128::from(number).to_be_bytes();
        Entry { number, id, to: agent(to), bytes: 10, expires: at(expires) }
    }

    fn outputs(machine: &mut OutboxMachine) -> Vec<Output> {
        std::iter::from_fn(|| machine.poll_output()).collect()
    }

    #[test]
    fn a_recipient_that_cannot_be_reached_is_tried_again_and_at_once_when_it_comes() {
        let mut machine = OutboxMachine::default();
        machine.handle(at(0), Input::Post(entry(1, 1, 1000)));
        machine.handle(at(0), Input::Post(entry(2, 1, 1000)));
        let send = |numbers: &[u64]| Output::Send { to: agent(1), numbers: numbers.to_vec() };
        assert_eq!(outputs(&mut machine), [send(&[1])]);
        let again = |number| Input::Done { to: agent(1), outcomes: vec![(number, Outcome::Again)] };
        machine.handle(at(0), again(1));
        assert_eq!(outputs(&mut machine), []);
        assert_eq!(machine.poll_timeout(), Some(Tick::from_millis(500)));
        machine.handle_timeout(at(1));
        assert_eq!(outputs(&mut machine), [send(&[1, 2])]);
        machine.handle(at(1), again(1));
        machine.handle(at(1), Input::Reachable(agent(1)));
        assert_eq!(outputs(&mut machine), [send(&[1, 2])]);
        let outcomes = vec![(1, Outcome::Received), (2, Outcome::Never)];
        machine.handle(at(2), Input::Done { to: agent(1), outcomes });
        assert_eq!(outputs(&mut machine).len(), 2);
        assert!(machine.is_empty() && machine.lanes.is_empty() && machine.retries.is_empty());
    }

    #[test]
    fn what_expires_or_is_cancelled_goes() {
        let mut machine = OutboxMachine::default();
        machine.handle(at(0), Input::Post(entry(1, 1, 5)));
        machine.handle(at(0), Input::Post(entry(2, 1, 900)));
        outputs(&mut machine);
        machine.handle(at(0), Input::Done { to: agent(1), outcomes: Vec::new() });
        machine.handle(at(1), Input::Cancel { to: agent(1), number: 2 });
        machine.handle_timeout(at(5));
        let expired = |output: &Output| matches!(output, Output::Settled { outcome: None, .. });
        assert_eq!(outputs(&mut machine).iter().filter(|output| expired(output)).count(), 1);
        assert_eq!((machine.len(), machine.poll_timeout()), (0, None));
    }

    proptest! {
        #[test]
        fn letters_are_settled_once_and_sent_in_order(
            ops in prop::collection::vec((0_u8..6, 1_u8..4, any::<u8>()), 1..300)
        ) {
            let mut machine = OutboxMachine::default();
            let (mut posted, mut gone) = (0, BTreeSet::new());
            let mut on_way: BTreeMap<AgentId, Vec<u64>> = BTreeMap::new();
            let mut last: BTreeMap<AgentId, u64> = BTreeMap::new();
            for (now, (op, to, choice)) in (0..).zip(ops) {
                machine.handle_timeout(at(now));
                match op {
                    0..3 => {
                        posted += 1;
                        let entry = entry(posted, to, now + 1 + u64::from(choice));
                        machine.handle(at(now), Input::Post(entry));
                    }
                    3 => machine.handle(at(now), Input::Reachable(agent(to))),
                    4 => {
                        let number = u64::from(choice) % (posted + 1);
                        let known = machine.lanes.get(&agent(to));
                        let known = known.is_some_and(|lane| lane.letters.contains_key(&number));
                        if known {
                            gone.insert(number);
                        }
                        machine.handle(at(now), Input::Cancel { to: agent(to), number });
                    }
                    _ => if let Some(numbers) = on_way.remove(&agent(to)) {
                        // A prefix arrives, as the lanes of the wire keep it.
                        let prefix = usize::from(choice) % (numbers.len() + 1);
                        let outcomes = numbers.iter().enumerate().map(|(n, number)| {
                            (*number, if n < prefix { Outcome::Received } else { Outcome::Again })
                        });
                        if prefix > 0 {
                            let before = last.insert(agent(to), numbers[prefix - 1]);
                            prop_assert!(before.is_none_or(|before| before < numbers[0]));
                        }
                        let outcomes = outcomes.collect();
                        machine.handle(at(now), Input::Done { to: agent(to), outcomes });
                    },
                }
                for output in outputs(&mut machine) {
                    match output {
                        Output::Send { to, numbers } => {
                            prop_assert!(numbers.is_sorted() && !numbers.is_empty());
                            prop_assert!(on_way.insert(to, numbers).is_none(), "one at a time");
                        }
                        Output::Cancelled(entry) => prop_assert!(gone.contains(&entry.number)),
                        Output::Settled { entry, .. } => prop_assert!(gone.insert(entry.number)),
                    }
                }
                prop_assert_eq!(machine.len() + gone.len(), usize::try_from(posted).expect("few"));
            }
        }
    }
}

//! Who is sent to when, and what becomes of letters.

use proptest::prelude::*;

use super::*;
use crate::fixtures::{agent, at, id};

fn entry(number: u64, to: u8, expires: u64) -> Entry {
    Entry { number, id: id(number), to: agent(to), bytes: 10, expires: at(expires) }
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

fn sent(outputs: &[Output]) -> Vec<AgentId> {
    let to = |output: &Output| if let Output::Send { to, .. } = output { Some(*to) } else { None };
    outputs.iter().filter_map(to).collect()
}

fn fail(machine: &mut OutboxMachine, now: Tick, to: AgentId) {
    machine.handle(now, Input::Done { to, outcomes: Vec::new() });
}

#[test]
fn so_many_recipients_are_sent_to_at_once_and_those_that_fail_leave_room_for_others() {
    let mut machine = OutboxMachine::default();
    for n in 1..=200 {
        machine.handle(at(0), Input::Post(entry(n.into(), n, 10_000)));
    }
    let mut gone = sent(&outputs(&mut machine));
    assert_eq!(gone.len(), MAX_BATCHES);
    let mut met = 0;
    while let Some(to) = gone.pop() {
        met += 1;
        fail(&mut machine, at(0), to);
        gone.extend(sent(&outputs(&mut machine)));
        assert!(gone.len() <= MAX_BATCHES);
    }
    assert_eq!(met, 200, "each has its turn");
    machine.handle_timeout(at(1));
    let repeated = sent(&outputs(&mut machine));
    assert_eq!(repeated.len(), MAX_REPEATED_BATCHES);
    machine.handle(at(1), Input::Post(entry(201, 201, 10_000)));
    assert_eq!(sent(&outputs(&mut machine)), [agent(201)], "does not wait behind them");
    let waiting = (1..=200).map(agent).find(|to| !repeated.contains(to)).expect("many wait");
    machine.handle(at(1), Input::Reachable(waiting));
    assert_eq!(sent(&outputs(&mut machine)), [waiting], "nor who arrives");
    fail(&mut machine, at(1), repeated[0]);
    assert_eq!(sent(&outputs(&mut machine)).len(), 1, "the next one's turn");
}

#[test]
fn so_many_bytes_are_on_their_way_at_once() {
    let mut machine = OutboxMachine::default();
    let large = |number: u64, to| Entry { bytes: 16 * 1024 * 1024, ..entry(number, to, 10_000) };
    for n in 1..=3 {
        machine.handle(at(0), Input::Post(large(n.into(), n)));
    }
    machine.handle(at(0), Input::Post(entry(4, 4, 10_000)));
    assert_eq!(sent(&outputs(&mut machine)), [agent(1), agent(2)]);
    fail(&mut machine, at(0), agent(2));
    assert_eq!(sent(&outputs(&mut machine)), [agent(3)], "in turn");
    fail(&mut machine, at(0), agent(1));
    assert_eq!(sent(&outputs(&mut machine)), [agent(4)]);
}

#[test]
fn what_waits_for_an_agent_that_may_not_be_written_to_is_settled() {
    let mut machine = OutboxMachine::default();
    let settled = |outputs: Vec<Output>| {
        let settled = outputs.into_iter().filter_map(|output| match output {
            Output::Settled { entry, outcome } => Some((entry.number, outcome)),
            _ => None,
        });
        settled.collect::<Vec<_>>()
    };
    let forbidden = Some(Outcome::Forbidden);
    machine.handle(at(0), Input::Post(entry(1, 1, 10_000)));
    machine.handle(at(0), Input::Post(entry(2, 1, 10_000)));
    machine.handle(at(0), Input::Post(entry(3, 2, 10_000)));
    outputs(&mut machine);
    machine.handle(at(0), Input::Forbid(agent(1)));
    assert_eq!(settled(outputs(&mut machine)), [(2, forbidden)], "the first is on its way");
    machine.handle(at(0), Input::Post(entry(4, 1, 10_000)));
    fail(&mut machine, at(0), agent(1));
    assert_eq!(settled(outputs(&mut machine)), [(1, forbidden)]);
    machine.handle(at(0), Input::Forbid(agent(1)));
    assert_eq!(settled(outputs(&mut machine)), [(4, forbidden)]);
    machine.handle(at(0), Input::Forbid(agent(2)));
    machine.handle(at(0), Input::Done { to: agent(2), outcomes: vec![(3, Outcome::Received)] });
    assert_eq!(settled(outputs(&mut machine)), [(3, Some(Outcome::Received))]);
    machine.handle_timeout(at(1));
    assert!(machine.is_empty() && machine.lanes.is_empty());
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

//! The machine against authors that keep to no rule: what it refuses, and what it holds at most.

use std::{convert::Infallible, time::Duration};

use proptest::prelude::*;
use x0x_core::DecodeError;

use super::*;
use crate::{
    config::{MAX_ACTORS, MAX_BARRED, MAX_PENDING, MAX_POLICY_CHANGES},
    testing::{Sample, SampleOp},
};

const OBJECT: TopicId = TopicId::new([9; 32]);
const WALL: u64 = 1_800_000_000_000;

fn agent(n: u64) -> AgentId {
    let mut id = [1; 32];
    id[..8].copy_from_slice(&n.to_be_bytes());
    AgentId::new(id)
}

fn machine(owner: Option<u64>, me: u64) -> ObjectMachine<Sample> {
    ObjectMachine::new(OBJECT, owner.map(agent), agent(me), Arc::default())
}

fn add(text: &str) -> Body {
    Body::Operation(Sample::encode_op(&SampleOp::Add(text.to_owned())).into())
}

fn entry(author: u64, seq: u64, operation: &OperationIn) -> Entry {
    let time = WallTime::from_millis(WALL + author);
    Entry { author: agent(author), epoch: 1, seq, time, payload: operation.encode() }
}

fn plain(author: u64, seq: u64) -> Entry {
    let operation = OperationIn { ahead: 0, deps: Vec::new(), body: add(&author.to_string()) };
    entry(author, seq, &operation)
}

fn hand(
    machine: &mut ObjectMachine<Sample>,
    entry: Entry,
) -> Vec<Output<crate::testing::SampleEvent>> {
    machine.handle(Tick::ZERO, Input::Entry(entry));
    std::iter::from_fn(|| machine.poll_output()).collect()
}

fn last_reason(machine: &ObjectMachine<Sample>) -> Option<Reason> {
    machine.refusals().last().map(|refusal| refusal.reason)
}

#[test]
fn of_ten_thousand_actors_the_earliest_count_on_every_replica() {
    let many = 10_000_u64;
    let (mut rising, mut falling) = (machine(None, 0), machine(None, 0));
    for n in 1..=many {
        hand(&mut rising, plain(n, 1));
    }
    for n in (1..=many).rev() {
        hand(&mut falling, plain(n, 1));
    }
    // Each displaced one makes it begin anew; its driver then reads the log again.
    while falling.rebuilding() {
        for n in (1..=many).rev() {
            hand(&mut falling, plain(n, 1));
        }
    }
    assert_eq!((rising.actors(), falling.actors()), (MAX_ACTORS, MAX_ACTORS));
    assert_eq!(rising.hash(), falling.hash());
    assert!(rising.is_settled() && rising.barred.len() <= MAX_BARRED);
}

#[test]
fn what_is_against_the_rules_is_skipped_with_its_reason() {
    let mut machine = machine(Some(1), 0);
    let tag = |n| Named::Tag(ActorTag::of(&agent(n), 1));
    let with = |ahead, deps: Vec<(Named, u64)>| OperationIn { ahead, deps, body: add("x") };
    let ten_years = 10 * 365 * 24 * 3600 * 1000;
    let change = PolicyChange::Rules { kind: 1, everyone: true };
    let change = OperationIn { ahead: 0, deps: Vec::new(), body: Body::Change(change) };
    let cases = [
        (entry(1, 1, &with(ten_years, Vec::new())), Reason::Time),
        (entry(1, 2, &with(0, vec![(Named::Before(0), 1)])), Reason::Reference),
        (entry(1, 3, &with(0, vec![(tag(1), 3)])), Reason::Reference),
        (entry(1, 4, &with(0, vec![(tag(2), 0)])), Reason::Reference),
        (Entry { payload: vec![0xff; 9].into(), ..plain(1, 5) }, Reason::Malformed),
        (plain(2, 1), Reason::NotWriter),
        (entry(3, 1, &change), Reason::NotWriter),
    ];
    for (entry, reason) in cases {
        hand(&mut machine, entry);
        assert_eq!(last_reason(&machine), Some(reason));
    }
    assert_eq!(machine.counts(), (0, 0, 7));
    hand(&mut machine, entry(1, 6, &change));
    assert_eq!(machine.counts().0, 1);
    let seen = OperationIn { deps: vec![(tag(1), 6)], ..change.clone() };
    hand(&mut machine, entry(3, 2, &seen));
    assert_eq!(last_reason(&machine), Some(Reason::Policy), "a writer who is not the owner");
}

#[test]
fn what_was_written_before_it_was_allowed_is_skipped_whenever_it_comes() {
    let allow = PolicyChange::Allow { agent: agent(2), admin: false };
    let allow = OperationIn { ahead: 0, deps: Vec::new(), body: Body::Change(allow) };
    let mut hashes = Vec::new();
    for order in [[0, 1], [1, 0]] {
        let mut machine = machine(Some(1), 0);
        let entries = [entry(1, 1, &allow), plain(2, 1)];
        order.into_iter().for_each(|at| drop(hand(&mut machine, entries[at].clone())));
        assert_eq!(machine.counts(), (1, 0, 1));
        hashes.push(machine.hash());
    }
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn a_removal_takes_back_what_the_owner_had_not_seen() {
    let tag = ActorTag::of(&agent(2), 1);
    let allow = PolicyChange::Rules { kind: 0, everyone: true };
    let cut = vec![Dot { actor: tag, seq: 1 }];
    let remove = PolicyChange::Remove { agent: agent(2), cut };
    let body = |change: PolicyChange| OperationIn {
        ahead: 0,
        deps: Vec::new(),
        body: Body::Change(change),
    };
    let seen = |text: &str| OperationIn {
        ahead: 0,
        deps: vec![(Named::Tag(ActorTag::of(&agent(1), 1)), 1)],
        body: add(text),
    };
    let log = [
        entry(1, 1, &body(allow)),
        entry(2, 1, &seen("stays")),
        entry(2, 2, &seen("goes")),
        entry(1, 2, &body(remove)),
    ];
    let mut machine = machine(Some(1), 0);
    let mut again = 0;
    for entry in log.clone() {
        let outputs = hand(&mut machine, entry);
        again += outputs.iter().filter(|output| matches!(output, Output::Reread)).count();
    }
    assert_eq!(again, 1);
    assert!(machine.state().elements.contains(&"goes".to_owned()), "shown until it is rebuilt");
    let outputs: Vec<_> = log.into_iter().flat_map(|entry| hand(&mut machine, entry)).collect();
    assert!(matches!(outputs.last(), Some(Output::Rebuilt)));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Changed(_))), "told once");
    assert!(machine.state().elements.contains(&"stays".to_owned()));
    assert!(!machine.state().elements.contains(&"goes".to_owned()));
    assert_eq!(last_reason(&machine), Some(Reason::Removed));
}

#[test]
fn what_waits_is_bounded_and_read_again() {
    let mut machine = machine(None, 0);
    let missing = (Named::Tag(ActorTag::of(&agent(99), 1)), 1);
    for seq in 1..=MAX_PENDING as u64 + 100 {
        let operation = OperationIn { ahead: 0, deps: vec![missing], body: add("x") };
        hand(&mut machine, entry(1, seq, &operation));
    }
    assert_eq!(machine.counts(), (0, MAX_PENDING, 0));
    assert!(!machine.is_settled());
    let at = machine.poll_timeout().expect("it reads again");
    machine.handle_timeout(at);
    assert!(matches!(machine.poll_output(), Some(Output::Reread)));
    hand(&mut machine, plain(99, 1));
    // What they waited for took the place of the last.
    assert_eq!(machine.counts(), (MAX_PENDING as u64, 0, 0));
    let last = machine.actors.seq(&ActorTag::of(&agent(1), 1));
    assert_eq!(last, MAX_PENDING as u64 - 1);
}

#[test]
fn an_own_write_is_later_than_what_is_here_and_tells_all_that_is() {
    let mut machine = machine(None, 1);
    let ahead = OperationIn { ahead: 5000, deps: Vec::new(), body: add("x") };
    hand(&mut machine, entry(2, 1, &ahead));
    let op = SampleOp::Add("y".to_owned());
    let now = WallTime::from_millis(WALL);
    let prepared = machine.prepare::<Infallible>(now, &op).expect("prepared");
    let written = OperationIn::decode(&prepared.payloads[0]).expect("decoded");
    let tag = ActorTag::of(&agent(2), 1);
    assert_eq!((written.ahead, written.deps), (5003, vec![(Named::Tag(tag), 1)]));
    let next = machine.prepare::<Infallible>(now, &op).expect("prepared");
    let next = OperationIn::decode(&next.payloads[0]).expect("decoded");
    assert_eq!((next.ahead, next.deps.len()), (5004, 0), "it was told once");
    machine.handle(Tick::ZERO, Input::NotAccepted);
    let again = machine.prepare::<Infallible>(now, &op).expect("prepared");
    assert_eq!(OperationIn::decode(&again.payloads[0]).expect("decoded").deps.len(), 1);
}

#[test]
fn the_answer_of_a_write_comes_in_whichever_order_the_log_tells() {
    for first in [true, false] {
        let mut machine = machine(None, 1);
        let op = SampleOp::Add("y".to_owned());
        let now = WallTime::from_millis(WALL);
        let prepared = machine.prepare::<Infallible>(now, &op).expect("prepared");
        let payload = prepared.payloads[0].clone();
        let accepted = Input::Accepted { write: Some(7), epoch: 1, seq: 1 };
        let entry = Entry { author: agent(1), epoch: 1, seq: 1, time: now, payload };
        let mut inputs = vec![accepted, Input::Entry(entry)];
        if first {
            inputs.reverse();
        }
        inputs.into_iter().for_each(|input| machine.handle(Tick::ZERO, input));
        let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
        let done = outputs.iter().filter(
            |output| matches!(output, Output::Done { write: 7, result: Ok(dot) } if dot.seq == 1),
        );
        assert_eq!(done.count(), 1);
    }
}

#[test]
fn a_rebuild_that_does_not_end_shows_what_is_there() {
    let mut machine = machine(None, 0);
    hand(&mut machine, plain(1, 1));
    machine.begin_rebuild(Dot { actor: ActorTag::of(&agent(1), 1), seq: 9 });
    assert!(machine.rebuilding());
    let at = machine.poll_timeout().expect("a deadline");
    assert!(at >= Tick::ZERO + Duration::from_secs(1));
    machine.handle_timeout(at);
    assert!(!machine.rebuilding());
}

#[test]
fn the_policys_history_is_bounded() {
    let mut machine = machine(Some(1), 1);
    let change = || PolicyChange::Allow { agent: agent(2), admin: false };
    for seq in 1..=MAX_POLICY_CHANGES as u64 {
        let operation = OperationIn { ahead: 0, deps: Vec::new(), body: Body::Change(change()) };
        hand(&mut machine, entry(1, seq, &operation));
    }
    let now = WallTime::from_millis(WALL);
    let refused = machine.prepare_change::<Infallible>(now, change());
    assert_eq!(refused, Err(crate::error::WriteError::Refused(Reason::Policy)));
    let one_more = OperationIn { ahead: 0, deps: Vec::new(), body: Body::Change(change()) };
    hand(&mut machine, entry(1, MAX_POLICY_CHANGES as u64 + 1, &one_more));
    assert_eq!(last_reason(&machine), Some(Reason::Policy));
}

/// What an author may try, in chains: a time ten years ahead, references that are none, what is no operation,
/// more than an operation holds, a hole, a policy that is not the author's or that it had not seen, and two
/// devices with one key, which write in epochs of their own.
fn hostile() -> Vec<Entry> {
    let owner = Named::Tag(ActorTag::of(&agent(1), 1));
    let of = |ahead, deps: Vec<(Named, u64)>, body| OperationIn { ahead, deps, body };
    let change = Body::Change;
    let allow = change(PolicyChange::Allow { agent: agent(2), admin: false });
    let rules = change(PolicyChange::Rules { kind: 0, everyone: true });
    let cut = vec![Dot { actor: ActorTag::of(&agent(2), 1), seq: 2 }];
    let remove = change(PolicyChange::Remove { agent: agent(2), cut });
    let mut entries = vec![
        entry(1, 1, &of(0, Vec::new(), allow)),
        entry(1, 2, &of(0, Vec::new(), add("owner"))),
        entry(1, 3, &of(0, Vec::new(), remove)),
        // It had not seen that it was allowed; then it had; then it is removed.
        plain(2, 1),
        entry(2, 2, &of(0, vec![(owner, 1)], add("allowed"))),
        entry(2, 3, &of(0, Vec::new(), add("removed"))),
        entry(2, 4, &of(10 * 365 * 24 * 3600 * 1000, Vec::new(), add("later"))),
        entry(3, 1, &of(0, vec![(owner, 1)], rules.clone())),
        entry(3, 2, &of(0, vec![(Named::Before(7), 1)], rules)),
        Entry { payload: vec![0xff; 9].into(), ..plain(3, 3) },
        Entry { payload: vec![b'*'; 1 << 20].into(), ..plain(3, 4) },
        plain(4, 2),
    ];
    for clone in [2, 3] {
        for seq in 1..=2 {
            let text = format!("device {clone}");
            let written = of(0, Vec::new(), add(&text));
            entries.push(Entry { epoch: clone, ..entry(1, seq, &written) });
        }
    }
    entries
}

#[test]
fn what_is_hostile_is_skipped_alike_in_every_order() {
    let mut rng = x0x_core::SeededRng::from_number(6);
    let mut results = Vec::new();
    for _ in 0..500 {
        let mut machine = machine(Some(1), 0);
        let mut entries = hostile();
        rng.shuffle(&mut entries);
        let mut again = true;
        while again {
            again = false;
            for entry in entries.clone() {
                let outputs = hand(&mut machine, entry);
                again |= outputs.iter().any(|output| matches!(output, Output::Reread));
            }
        }
        // What is behind the hole is waited for in a rebuild, too, but not for ever.
        if let Some(at) = machine.poll_timeout() {
            machine.handle_timeout(at);
        }
        results.push((machine.counts(), machine.hash(), machine.rebuilding()));
    }
    results.dedup();
    let [((applied, waiting, invalid), _, rebuilding)] = results[..] else {
        panic!("replicas differ: {results:?}");
    };
    assert_eq!((applied, waiting, invalid, rebuilding), (8, 1, 7, false));
}

/// A replica of five authors, each of which had seen those before it.
fn written_in_turn() -> Vec<u8> {
    let mut machine = machine(None, 0);
    for n in 1..=5 {
        let put = SampleOp::Put(format!("key {n}"), format!("value {n}"));
        let seen = |other| (Named::Tag(ActorTag::of(&agent(other), 1)), 1);
        let deps = (1..n).map(seen).collect();
        let body = Body::Operation(Sample::encode_op(&put).into());
        hand(&mut machine, entry(n, 1, &OperationIn { ahead: 0, deps, body }));
    }
    assert_eq!(machine.counts(), (5, 0, 0));
    machine.encode()
}

fn restore(object: TopicId, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let restored = ObjectMachine::<Sample>::restore(object, None, agent(0), Arc::default(), bytes);
    restored.map(|machine| machine.encode())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    /// Whatever is done to a snapshot: it is refused, or has the one form of what it says.
    #[test]
    fn a_snapshot_has_one_form(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut bytes = written_in_turn();
        for (at, value, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = value,
                // Numbers are mostly small.
                1 => bytes[at] = value % 6,
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, value % 6),
            }
        }
        if let Ok(again) = restore(OBJECT, &bytes) {
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn a_snapshot_that_was_made_up_is_refused_or_is_what_it_says() {
    let whole = written_in_turn();
    assert_eq!(restore(OBJECT, &whole).as_ref(), Ok(&whole));
    assert!(restore(TopicId::new([8; 32]), &whole).is_err(), "of another object");
    let vast = vec![0; crate::config::MAX_SNAPSHOT + 1];
    assert!(restore(OBJECT, &vast).is_err(), "too large to look at");
    (0..whole.len()).for_each(|end| assert!(restore(OBJECT, &whole[..end]).is_err(), "cut"));
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut altered = whole.clone();
            altered[at] ^= 1 << bit;
            // Nothing is taken for something else than it is, nor twice in different forms.
            if let Ok(again) = restore(OBJECT, &altered) {
                assert_eq!(again, altered, "byte {at}");
            }
        }
    }
}

#[test]
fn a_hash_is_kept_until_something_changes() {
    let mut machine = machine(None, 0);
    let empty = machine.hash();
    let missing = (Named::Tag(ActorTag::of(&agent(1), 1)), 1);
    hand(&mut machine, entry(2, 1, &OperationIn { ahead: 0, deps: vec![missing], body: add("b") }));
    assert_eq!((machine.hash(), machine.hash.get()), (empty, Some(&empty)), "it waits");
    hand(&mut machine, plain(1, 1));
    assert_eq!(machine.hash.get(), None);
    let two = machine.hash();
    assert_ne!(two, empty);
    machine.begin_rebuild(Dot { actor: ActorTag::of(&agent(1), 1), seq: 1 });
    assert_eq!(machine.hash.get(), None);
}

//! Places and jobs: nobody who stands still holds others up; disks that fail; a cancel at the last moment.

use super::*;
use crate::{
    config::{AcceptRule, JOBS_PER_PEER, MAX_ACCEPTED_BY_RULE, MAX_RECEIVING},
    error::ChangeTransferError,
    state::Changed,
};

fn id(n: usize) -> TransferId {
    TransferId::new([n as u8; 16])
}

fn run(machine: &mut FilesMachine, now: Tick, input: Input) -> Vec<Output> {
    machine.handle(now, input);
    std::iter::from_fn(|| machine.poll_output()).collect()
}

fn offer(machine: &mut FilesMachine, n: usize, peer: usize) {
    let offer = OfferIn {
        id: id(n),
        from: agent(peer),
        to: agent(0),
        name: "x".into(),
        size: 3 * GROUP,
        root: [1; 32],
        sha256: None,
        media_type: String::new(),
    };
    let frame = FrameIn::Offer(offer).encode();
    machine.handle(Tick::ZERO, Input::Frame { peer: host(peer), frame });
}

/// An offer of a peer in a session, accepted; what that leads to.
fn accept(machine: &mut FilesMachine, n: usize, peer: usize) -> Vec<Output> {
    offer(machine, n, peer);
    let change = Change::Accept { folder: None };
    run(machine, Tick::ZERO, Input::Change { ticket: 1, id: id(n), change });
    run(machine, Tick::ZERO, Input::Space { id: id(n), free: Ok(u64::MAX) })
}

fn opens(outputs: &[Output]) -> Vec<TransferId> {
    let opened = outputs.iter().filter_map(|output| match output {
        Output::Open(record) => Some(record.id),
        _ => None,
    });
    opened.collect()
}

fn up(machine: &mut FilesMachine, peer: usize) -> Vec<Output> {
    run(machine, Tick::ZERO, Input::Up { peer: host(peer), agents: vec![agent(peer)] })
}

fn opened(machine: &mut FilesMachine, n: usize) -> Vec<Output> {
    run(machine, Tick::ZERO, Input::Opened { id: id(n), result: Ok(RangeSet::new()) })
}

fn friends() -> FilesMachine {
    let policy = FakePolicy::new();
    (1..40).for_each(|n| policy.set(agent(n), Reason::Trusted));
    let mut config = config(0);
    config.accept = vec![AcceptRule { trusted: false, ..AcceptRule::trusted(u64::MAX) }];
    FilesMachine::new(config, Arc::new(policy), Arc::new(FilesMetrics::default()))
}

#[test]
fn receptions_that_cannot_move_give_their_places_to_those_that_can() {
    let mut machine = friends();
    up(&mut machine, 1);
    for n in 0..MAX_RECEIVING {
        assert_eq!(opens(&accept(&mut machine, n, 1)), vec![id(n)]);
        opened(&mut machine, n);
    }
    up(&mut machine, 2);
    assert_eq!(opens(&accept(&mut machine, 50, 2)), vec![], "all places are used");
    let outputs = run(&mut machine, Tick::ZERO, Input::Down(host(1)));
    assert_eq!(opens(&outputs), vec![id(50)]);
    assert_eq!(outputs.iter().filter(|o| matches!(o, Output::Close(_))).count(), 1);
    // So do those that stand still though their senders are there.
    opened(&mut machine, 50);
    for n in 60..60 + MAX_RECEIVING - 1 {
        assert_eq!(opens(&accept(&mut machine, n, 2)), vec![id(n)]);
        opened(&mut machine, n);
    }
    up(&mut machine, 3);
    assert_eq!(opens(&accept(&mut machine, 80, 3)), vec![]);
    let later = Tick::ZERO + Duration::from_secs(30);
    machine.handle_timeout(later);
    let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
    assert!(opens(&outputs).contains(&id(80)), "{outputs:?}");
    // Whoever comes back waits for a turn, and gets one.
    let status =
        Status { id: id(80), standing: Standing::Cancelled, verified: 0, reason: String::new() };
    let frame = FrameIn::Status(status).encode();
    let outputs = run(&mut machine, later, Input::Frame { peer: host(3), frame });
    assert_eq!(opens(&outputs).len(), 1);
}

#[test]
fn rules_accept_a_few_files_of_an_agent_at_a_time() {
    let policy = FakePolicy::new();
    policy.set(agent(1), Reason::Trusted);
    let mut config = config(0);
    config.accept = vec![AcceptRule::trusted(u64::MAX)];
    let metrics = Arc::new(FilesMetrics::default());
    let mut machine = FilesMachine::new(config, Arc::new(policy), metrics);
    up(&mut machine, 1);
    let count = MAX_ACCEPTED_BY_RULE + 3;
    let mut looked = Vec::new();
    for n in 0..count {
        offer(&mut machine, n, 1);
        while let Some(output) = machine.poll_output() {
            if let Output::LookForSpace { id, .. } = output {
                looked.push(id);
            }
        }
    }
    assert_eq!(looked, (0..MAX_ACCEPTED_BY_RULE).map(id).collect::<Vec<_>>());
    for n in 0..MAX_ACCEPTED_BY_RULE {
        run(&mut machine, Tick::ZERO, Input::Space { id: id(n), free: Ok(u64::MAX) });
    }
    let outputs = run(
        &mut machine,
        Tick::ZERO,
        Input::Change { ticket: 1, id: id(0), change: Change::Cancel },
    );
    let next = Output::LookForSpace { id: id(MAX_ACCEPTED_BY_RULE), folder: None };
    assert!(outputs.contains(&next), "{outputs:?}");
    // One for which there is no room is the user's to decide about.
    let full = Input::Space { id: id(MAX_ACCEPTED_BY_RULE), free: Ok(0) };
    run(&mut machine, Tick::ZERO, full);
    let outputs = run(
        &mut machine,
        Tick::ZERO,
        Input::Change { ticket: 1, id: id(1), change: Change::Cancel },
    );
    assert!(!outputs.contains(&next), "{outputs:?}");
}

#[test]
fn peers_that_take_nothing_stop_no_other() {
    let mut machine = friends();
    let want = |n| FrameIn::Want(Want { id: id(n), ranges: vec![(0, 100)], verified: 0 }).encode();
    for n in 1..30 {
        up(&mut machine, n);
        let mut record = outgoing(n as u8, 0, n);
        record.id = id(n);
        machine.handle(Tick::ZERO, Input::Send { ticket: 1, record: Box::new(record) });
        let prepared = Prepared { size: 100 * GROUP, root: [7; 32], sha256: [8; 32], modified: 1 };
        run(&mut machine, Tick::ZERO, Input::Prepared { id: id(n), result: Ok(prepared) });
        let outputs = run(&mut machine, Tick::ZERO, Input::Frame { peer: host(n), frame: want(n) });
        let served = outputs.iter().filter(|o| matches!(o, Output::Serve { .. })).count();
        assert_eq!(served, JOBS_PER_PEER, "machine {n} is served though nobody else is done");
    }
    // What did not go goes when the machine takes something again, and not before.
    let stalled = |left| Input::Served {
        peer: host(1),
        session: 1,
        id: id(1),
        sent: 0,
        left,
        result: Err(WorkError::Stalled),
    };
    assert_eq!(run(&mut machine, Tick::ZERO, stalled(3..8)), vec![]);
    assert_eq!(run(&mut machine, Tick::ZERO, stalled(8..16)), vec![]);
    let outputs = run(&mut machine, Tick::ZERO, Input::Writable(host(1)));
    let Some(Output::Serve { groups, .. }) = outputs.first() else { panic!("{outputs:?}") };
    assert_eq!(groups.clone(), 3..11);
}

#[test]
fn a_disk_that_fails_loses_nothing() {
    let mut machine = friends();
    up(&mut machine, 1);
    accept(&mut machine, 1, 1);
    opened(&mut machine, 1);
    let mut now = Tick::ZERO;
    let broken = || Err(WorkError::Disk("input/output error".into()));
    for attempt in 0..4 {
        let group = attempt % 3;
        let slice = SliceIn { id: id(1), group, proof: Bytes::new(), content: Bytes::new() };
        run(&mut machine, now, Input::Content { peer: host(1), frame: slice.encode() });
        let stored = Input::Stored { id: id(1), group, result: broken() };
        let outputs = run(&mut machine, now, stored);
        assert!(!outputs.iter().any(|output| matches!(output, Output::Discard(_))), "{outputs:?}");
        let info = machine.info(&id(1)).expect("known");
        assert_eq!((info.record.phase, info.waiting), (Phase::Active, Some(crate::Waiting::Disk)));
        assert_eq!(info.record.reason.as_deref(), Some("input/output error"));
        now = now + Duration::from_secs(4) * (1 << attempt.min(3));
        machine.handle_timeout(now);
        assert_eq!(machine.poll_output(), None, "it waits longer each time");
        now = now + Duration::from_secs(2) * (1 << attempt.min(3));
        machine.handle_timeout(now);
        let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
        assert_eq!(opens(&outputs), vec![id(1)]);
        run(&mut machine, now, Input::Opened { id: id(1), result: Ok(RangeSet::new()) });
    }
    assert_eq!(machine.info(&id(1)).expect("known").record.reason, None);
}

/// One whose groups are all there, about to get its name.
fn finishing() -> FilesMachine {
    let mut machine = friends();
    up(&mut machine, 1);
    accept(&mut machine, 1, 1);
    let whole = Input::Opened { id: id(1), result: Ok(RangeSet::of(0..3)) };
    assert!(run(&mut machine, Tick::ZERO, whole).contains(&Output::Finish(id(1))));
    machine
}

#[test]
fn a_cancel_while_the_file_gets_its_name_is_answered_by_what_came_first() {
    let cancel = || Input::Change { ticket: 7, id: id(1), change: Change::Cancel };
    let answer = |outputs: &[Output]| {
        outputs.iter().find_map(|output| match output {
            Output::Changed { ticket: 7, result } => Some(result.clone()),
            _ => None,
        })
    };
    let mut machine = finishing();
    assert_eq!(run(&mut machine, Tick::ZERO, cancel()), vec![Output::Close(id(1))]);
    let again = answer(&run(&mut machine, Tick::ZERO, cancel()));
    assert_eq!(again, Some(Err(ChangeTransferError::NotPossible(Phase::Active))));
    let stopped = Input::Finished { id: id(1), result: Err(WorkError::Disconnected) };
    let outputs = run(&mut machine, Tick::ZERO, stopped);
    assert_eq!(answer(&outputs), Some(Ok(Changed { told: true })));
    assert_eq!(machine.info(&id(1)).map(|info| info.record.phase), Some(Phase::Cancelled));

    let mut machine = finishing();
    run(&mut machine, Tick::ZERO, cancel());
    let named = Input::Finished { id: id(1), result: Ok("/out".into()) };
    let outputs = run(&mut machine, Tick::ZERO, named);
    let late = Err(ChangeTransferError::NotPossible(Phase::Complete));
    assert_eq!(answer(&outputs), Some(late));
    assert_eq!(machine.info(&id(1)).map(|info| info.record.phase), Some(Phase::Complete));

    // Nor does the sender take back what is there.
    let mut machine = finishing();
    let status =
        Status { id: id(1), standing: Standing::Cancelled, verified: 0, reason: String::new() };
    let frame = FrameIn::Status(status).encode();
    run(&mut machine, Tick::ZERO, Input::Frame { peer: host(1), frame });
    run(&mut machine, Tick::ZERO, Input::Finished { id: id(1), result: Ok("/out".into()) });
    assert_eq!(machine.info(&id(1)).map(|info| info.record.phase), Some(Phase::Complete));
}

//! Who may say what about a transfer: machines, trust, and what is answered.

use std::{collections::BTreeSet, sync::Mutex};

use x0x_trust::{Action, Decision, Policy};

use super::*;

/// Denies some agents, on one machine or on all; some others are strangers, and the rest contacts.
#[derive(Debug, Clone, Default)]
struct Denies(Arc<Mutex<BTreeSet<Denied>>>, Arc<Mutex<BTreeSet<AgentId>>>);

type Denied = (AgentId, Option<MachineId>);

impl Denies {
    fn deny(&self, agent: AgentId, machine: Option<MachineId>) {
        self.0.lock().expect("no panic").insert((agent, machine));
    }

    /// Makes a stranger of a contact.
    fn forget(&self, agent: AgentId) {
        self.1.lock().expect("no panic").insert(agent);
    }
}

impl Policy for Denies {
    fn decide(&self, agent: &AgentId, machine: Option<&MachineId>, action: Action) -> Decision {
        let denied = self.0.lock().expect("no panic");
        let reason = if denied.contains(&(*agent, None)) {
            Reason::Blocked
        } else if machine.is_some_and(|machine| denied.contains(&(*agent, Some(*machine)))) {
            Reason::WrongMachine
        } else if self.1.lock().expect("no panic").contains(agent) {
            Reason::Unknown
        } else {
            Reason::Known
        };
        Decision::of(reason, action)
    }
}

/// A machine under test, of agent 0.
struct End {
    machine: FilesMachine,
    policy: Denies,
    now: Tick,
}

const ID: TransferId = TransferId::new([1; 16]);

fn status(standing: Standing) -> FrameIn {
    FrameIn::Status(Status { id: ID, standing, verified: 0, reason: String::new() })
}

fn offer(size: u64) -> FrameIn {
    FrameIn::Offer(OfferIn {
        id: ID,
        from: agent(1),
        to: agent(0),
        name: "x".into(),
        size,
        root: [1; 32],
        sha256: None,
        media_type: String::new(),
    })
}

impl End {
    fn new() -> Self {
        let policy = Denies::default();
        let metrics = Arc::new(FilesMetrics::default());
        let machine = FilesMachine::new(config(0), Arc::new(policy.clone()), metrics);
        Self { machine, policy, now: Tick::ZERO }
    }

    fn handle(&mut self, input: Input) -> Vec<Output> {
        self.machine.handle(self.now, input);
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }

    fn up(&mut self, machine: usize, agents: &[usize]) -> Vec<Output> {
        let agents = agents.iter().map(|n| agent(*n)).collect();
        self.handle(Input::Up { peer: host(machine), agents })
    }

    /// What is answered to a frame of a machine.
    fn frame(&mut self, machine: usize, frame: FrameIn) -> Vec<(MachineId, FrameIn)> {
        let outputs = self.handle(Input::Frame { peer: host(machine), frame: frame.encode() });
        frames(&outputs)
    }

    fn phase(&self) -> Option<Phase> {
        self.machine.info(&ID).map(|info| info.record.phase)
    }

    /// Agent 1 sends from machine 1 and everything was asked for.
    fn receiving(&mut self) {
        self.up(1, &[1]);
        self.frame(1, offer(5 * GROUP));
        self.handle(Input::Change { ticket: 1, id: ID, change: Change::Accept { folder: None } });
        self.handle(Input::Space { id: ID, free: Ok(u64::MAX) });
        let outputs = self.handle(Input::Opened { id: ID, result: Ok(RangeSet::new()) });
        assert!(matches!(frames(&outputs)[..], [(_, FrameIn::Want(_))]));
    }

    /// A file for agent 1 was prepared.
    fn sending(&mut self) -> Vec<Output> {
        let record = outgoing(1, 0, 1);
        self.handle(Input::Send { ticket: 1, record: Box::new(record) });
        let prepared = Prepared { size: 5 * GROUP, root: [7; 32], sha256: [8; 32], modified: 1 };
        self.handle(Input::Prepared { id: ID, result: Ok(prepared) })
    }

    fn later(&mut self, time: Duration) -> Vec<Output> {
        self.now = self.now + time;
        self.machine.handle_timeout(self.now);
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }
}

fn frames(outputs: &[Output]) -> Vec<(MachineId, FrameIn)> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Transmit { peer, frame } => {
            Some((*peer, FrameIn::decode(frame.clone()).expect("well formed")))
        }
        _ => None,
    });
    sent.collect()
}

fn want() -> FrameIn {
    FrameIn::Want(Want { id: ID, ranges: vec![(0, 5)], verified: 0 })
}

#[test]
fn a_machine_that_the_agent_is_not_pinned_to_changes_nothing() {
    for standing in [Standing::Cancelled, Standing::Failed, Standing::Unknown, Standing::Paused] {
        let mut end = End::new();
        end.policy.deny(agent(1), Some(host(2)));
        end.receiving();
        assert_eq!(end.up(2, &[1]), vec![], "it learns of no transfer");
        assert_eq!(end.frame(2, status(standing)), vec![]);
        assert_eq!(end.frame(2, status(Standing::Active)), vec![]);
        assert_eq!(end.phase(), Some(Phase::Active), "{standing:?}");
        let mut end = End::new();
        end.policy.deny(agent(1), Some(host(2)));
        end.up(1, &[1]);
        end.sending();
        assert_eq!(end.up(2, &[1]), vec![], "nothing is offered to it");
        assert_eq!(end.frame(2, status(Standing::Rejected)), vec![]);
        assert_eq!(end.frame(2, want()), vec![]);
        assert_eq!(end.phase(), Some(Phase::Offered));
        end.frame(1, want());
        assert_eq!(end.phase(), Some(Phase::Active));
    }
}

#[test]
fn blocked_agents_meet_silence_about_what_was_there() {
    let mut end = End::new();
    end.receiving();
    end.policy.deny(agent(1), None);
    for frame in [status(Standing::Active), want()] {
        assert_eq!(end.frame(1, frame), vec![]);
    }
    let slice = SliceIn { id: ID, group: 0, proof: Bytes::new(), content: Bytes::new() };
    let outputs = end.handle(Input::Content { peer: host(1), frame: slice.encode() });
    assert_eq!(outputs, vec![], "what was asked for before is not stored");
    end.handle(Input::Down(host(1)));
    assert_eq!(end.up(1, &[1]), vec![]);
    let outputs = end.later(Duration::from_secs(300));
    assert_eq!(end.phase(), Some(Phase::Failed), "it ends of itself");
    assert_eq!(frames(&outputs), vec![], "without a word to the other end");
    assert!(matches!(end.frame(1, offer(5 * GROUP))[..], [(_, FrameIn::Status(ref told))]
        if told.standing == Standing::Offered));
    assert_eq!(end.phase(), Some(Phase::Failed));
    // A session that another agent has proven too is answered for that one.
    end.up(4, &[1, 3]);
    assert_eq!(end.frame(4, status(Standing::Active)), vec![]);
}

/// Everything that a sender may say of files that nobody has accepted.
fn says(end: &mut End) -> Vec<Vec<(MachineId, FrameIn)>> {
    let id = |n: u8| TransferId::new([n; 16]);
    let offer = |n: u8, size: u64| {
        let FrameIn::Offer(offer) = offer(size) else { panic!("an offer") };
        FrameIn::Offer(OfferIn { id: id(n), ..offer })
    };
    let status = |n: u8, standing| {
        FrameIn::Status(Status { id: id(n), standing, verified: 0, reason: String::new() })
    };
    let want = |n: u8| FrameIn::Want(Want { id: id(n), ranges: vec![(0, 5)], verified: 0 });
    let mut said = vec![];
    for n in 1..=6 {
        said.push(end.frame(1, offer(n, GROUP)));
        said.push(end.frame(1, status(n, Standing::Offered)));
        said.push(end.frame(1, want(n)));
    }
    for standing in [Standing::Paused, Standing::Active, Standing::Unknown, Standing::Complete] {
        said.push(end.frame(1, status(9, standing)));
        said.push(end.frame(1, status(1, Standing::Paused)));
        said.push(end.frame(1, status(1, Standing::Active)));
    }
    // One is offered again, one is taken back, which makes room for another.
    said.push(end.frame(1, offer(2, GROUP)));
    said.push(end.frame(1, status(3, Standing::Cancelled)));
    said.push(end.frame(1, offer(7, GROUP)));
    said.push(end.frame(1, offer(8, GROUP)));
    end.handle(Input::Down(host(1)));
    said.push(frames(&end.up(1, &[1])));
    said.extend((1..=8).map(|n| end.frame(1, offer(n, GROUP))));
    let burst = (0..3000).map(|_| end.frame(1, offer(2, GROUP)));
    said.extend(burst);
    said
}

#[test]
fn who_is_denied_hears_what_a_stranger_hears_whose_offers_lie_there() {
    let mut stranger = End::new();
    stranger.policy.forget(agent(1));
    stranger.up(1, &[1]);
    let heard = says(&mut stranger);
    assert!(heard.iter().flatten().count() > 500, "and there is much to hear");
    assert_eq!(stranger.machine.infos().len(), 4);
    for on in [None, Some(host(1))] {
        let mut denied = End::new();
        denied.policy.deny(agent(1), on);
        denied.up(1, &[1]);
        for (n, (told, expected)) in says(&mut denied).into_iter().zip(&heard).enumerate() {
            assert_eq!(&told, expected, "answer {n}");
        }
        assert!(denied.machine.infos().is_empty(), "nothing of it is kept");
    }
}

#[test]
fn an_agent_blocked_while_it_is_sent_to_gets_nothing_more() {
    let mut end = End::new();
    end.up(1, &[1]);
    end.sending();
    end.policy.deny(agent(1), None);
    assert_eq!(end.frame(1, want()), vec![]);
    let info = end.machine.info(&ID).expect("known");
    assert_eq!(info.record.phase, Phase::Failed);
    assert_eq!(info.record.reason.as_deref(), Some("the agent is blocked"));
}

#[test]
fn only_the_machine_that_offered_can_say_that_there_is_nothing() {
    let mut end = End::new();
    end.receiving();
    end.up(2, &[1]);
    end.frame(2, status(Standing::Unknown));
    assert_eq!(end.phase(), Some(Phase::Active));
    let slice = SliceIn { id: ID, group: 0, proof: Bytes::new(), content: Bytes::new() };
    let slice = |n| Input::Content { peer: host(n), frame: slice.clone().encode() };
    assert_eq!(end.handle(slice(2)), vec![], "nor is its content taken");
    assert!(matches!(end.handle(slice(1))[..], [Output::Store(_)]));
    // The agent moves there with its transfers.
    end.handle(Input::Down(host(1)));
    end.frame(2, offer(5 * GROUP));
    assert_eq!(end.machine.info(&ID).and_then(|info| info.record.machine), Some(host(2)));
    end.frame(2, status(Standing::Unknown));
    assert_eq!(end.phase(), Some(Phase::Cancelled));
}

#[test]
fn an_offer_goes_to_the_machine_that_came_up_until_one_accepts() {
    let mut end = End::new();
    end.up(1, &[1]);
    end.sending();
    let offered = frames(&end.up(2, &[1]));
    assert!(matches!(offered[..], [(peer, FrameIn::Offer(_))] if peer == host(2)), "{offered:?}");
    end.frame(1, want());
    let told = end.frame(2, want());
    let [(peer, FrameIn::Status(told))] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*peer, told.standing), (host(2), Standing::Cancelled));
    assert_eq!(end.frame(2, status(Standing::Rejected)), vec![]);
    assert_eq!(end.phase(), Some(Phase::Active), "it is the other one's by now");
    // When that one is gone, another may go on. One that heard of the end answers an offer with that.
    let offered = frames(&end.handle(Input::Down(host(1))));
    assert!(matches!(offered[..], [(peer, FrameIn::Offer(_))] if peer == host(2)), "{offered:?}");
    for standing in [Standing::Cancelled, Standing::Rejected, Standing::Failed] {
        assert_eq!(end.frame(2, status(standing)), vec![]);
        assert_eq!(end.phase(), Some(Phase::Active), "{standing:?} of one that does not have it");
    }
    let offered = frames(&end.up(3, &[1]));
    assert!(matches!(offered[..], [(peer, FrameIn::Offer(_))] if peer == host(3)), "{offered:?}");
    let outputs = end.handle(Input::Frame { peer: host(3), frame: want().encode() });
    assert!(outputs.iter().any(|output| matches!(output, Output::Serve { .. })), "{outputs:?}");
}

#[test]
fn a_machine_that_was_told_to_leave_it_does_not_end_it_while_the_other_is_away() {
    // Both machines of the recipient, as they are.
    let (mut sender, mut other) = (End::new(), End::new());
    sender.up(1, &[1]);
    sender.up(2, &[1]);
    let offers = frames(&sender.sending());
    let offer = |offers: &[(MachineId, FrameIn)]| {
        let mut to_other = offers.iter().filter(|(peer, _)| *peer == host(1));
        let Some((_, FrameIn::Offer(offer))) = to_other.next() else { panic!("{offers:?}") };
        FrameIn::Offer(OfferIn { from: agent(1), to: agent(0), ..offer.clone() })
    };
    other.up(1, &[1]);
    other.frame(1, offer(&offers));
    other.handle(Input::Change { ticket: 1, id: ID, change: Change::Accept { folder: None } });
    other.handle(Input::Space { id: ID, free: Ok(u64::MAX) });
    other.handle(Input::Opened { id: ID, result: Ok(RangeSet::new()) });
    sender.frame(2, want());
    let told = sender.frame(1, want());
    let [(_, told)] = &told[..] else { panic!("{told:?}") };
    other.frame(1, told.clone());
    assert_eq!(other.phase(), Some(Phase::Cancelled));
    // A session blips.
    let again = frames(&sender.handle(Input::Down(host(2))));
    let answers = other.frame(1, offer(&again));
    let [(_, answer @ FrameIn::Status(over))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(over.standing, Standing::Cancelled);
    sender.frame(1, answer.clone());
    assert_eq!(sender.phase(), Some(Phase::Active));
    sender.up(2, &[1]);
    let outputs = sender.handle(Input::Frame { peer: host(2), frame: want().encode() });
    assert!(outputs.iter().any(|output| matches!(output, Output::Serve { .. })), "{outputs:?}");
    sender.frame(2, status(Standing::Cancelled));
    assert_eq!(sender.phase(), Some(Phase::Cancelled), "that one may end it");
}

#[test]
fn a_peer_that_changes_its_mind_often_is_not_shown_as_often() {
    let mut end = End::new();
    end.receiving();
    let mut events = 0;
    for n in 0..1000 {
        let standing = if n % 2 < 1 { Standing::Paused } else { Standing::Active };
        let frame = status(if n < 500 { Standing::Paused } else { standing }).encode();
        let outputs = end.handle(Input::Frame { peer: host(1), frame });
        events += outputs.iter().filter(|output| matches!(output, Output::Event(_))).count();
    }
    assert!(events <= 2, "{events} events");
    end.frame(1, status(Standing::Paused));
    let outputs = end.later(Duration::from_secs(1));
    let shown = outputs.iter().find_map(|output| match output {
        Output::Event(event) => event.info().waiting,
        _ => None,
    });
    assert_eq!(shown, Some(crate::Waiting::PeerPaused), "but how it stands in the end is");
}

#[test]
fn a_sender_that_counts_it_as_complete_does_not_leave_it_waiting() {
    let mut end = End::new();
    end.receiving();
    end.frame(1, status(Standing::Complete));
    assert_eq!(end.phase(), Some(Phase::Failed));
}

#[test]
fn frames_that_come_too_fast_are_not_answered() {
    let mut end = End::new();
    end.up(1, &[1]);
    end.frame(1, offer(5 * GROUP));
    let answers = |frames: usize, end: &mut End, frame: FrameIn| -> usize {
        (0..frames).map(|_| end.frame(1, frame.clone()).len()).sum()
    };
    // An offer that is known is answered for nothing, so it has a rate like any other.
    assert!(answers(3000, &mut end, offer(5 * GROUP)) < 1000);
    end.later(Duration::from_secs(1000));
    let other = Status {
        id: TransferId::new([9; 16]),
        standing: Standing::Active,
        verified: 0,
        reason: String::new(),
    };
    assert!(answers(20_000, &mut end, FrameIn::Status(other)) < 10_000);
    assert_eq!(end.phase(), Some(Phase::Offered), "nothing is lost by it");
}

#[test]
fn what_trust_does_not_allow_any_more_ends_at_once() {
    let mut end = End::new();
    end.up(1, &[1]);
    end.sending();
    let outputs = end.handle(Input::Frame { peer: host(1), frame: want().encode() });
    assert!(outputs.iter().any(|output| matches!(output, Output::Serve { .. })), "{outputs:?}");
    // On that machine alone: what it wanted is not sent, and another one may go on.
    end.policy.deny(agent(1), Some(host(1)));
    end.handle(Input::Reconsider(Some(agent(1))));
    let served =
        |left| Input::Served { peer: host(1), session: 1, id: ID, sent: 0, left, result: Ok(()) };
    assert_eq!(end.handle(served(0..2)), vec![]);
    assert_eq!(end.phase(), Some(Phase::Active));
    end.policy.deny(agent(1), None);
    end.handle(Input::Reconsider(Some(agent(2))));
    assert_eq!(end.phase(), Some(Phase::Active), "another agent's is another matter");
    end.handle(Input::Reconsider(None));
    assert_eq!(end.phase(), Some(Phase::Failed));
    let info = end.machine.info(&ID).expect("known");
    assert_eq!(info.record.reason.as_deref(), Some("the agent is blocked"));
}

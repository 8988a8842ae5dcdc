use proptest::prelude::*;

use super::*;
use crate::fixtures::{WALL, agent, at, id, machine};

fn digest(n: u64) -> Digest {
    Digest::of(&n.to_be_bytes())
}

fn entry(number: u64, bytes: u64) -> PendingEntry {
    PendingEntry { number, id: id(number), bytes, expires_at: WALL + Duration::from_secs(number) }
}

fn depositor(peers: &[(u8, Standing)]) -> Depositor {
    let mut depositor = Depositor::new(LettersConfig::default(), Arc::default());
    for (peer, standing) in peers {
        let up = DepositorInput::Up { peer: machine(*peer), standing: *standing };
        depositor.handle(at(0), up);
    }
    depositor
}

fn outputs(depositor: &mut Depositor) -> Vec<DepositorOutput> {
    std::iter::from_fn(|| depositor.poll_output()).collect()
}

/// Finds an agent out of reach, and answers the look at what waits for it.
fn look(depositor: &mut Depositor, letters: &[PendingEntry], places: Option<[u8; 32]>) {
    depositor.handle(at(0), DepositorInput::Unreachable(agent(1)));
    assert_eq!(depositor.poll_timeout(), Some(at(5)));
    depositor.handle_timeout(at(4));
    assert_eq!(outputs(depositor), []);
    depositor.handle_timeout(at(5));
    assert_eq!(outputs(depositor), [DepositorOutput::Look(agent(1))]);
    let letters = letters.to_vec();
    depositor.handle(at(5), DepositorInput::Pending { to: agent(1), letters, places });
}

fn asked(outputs: &[DepositorOutput]) -> Vec<MachineId> {
    let peer = |output: &DepositorOutput| match output {
        DepositorOutput::Deposit { peer, .. } => Some(*peer),
        _ => None,
    };
    outputs.iter().filter_map(peer).collect()
}

/// Seals whatever is to be sealed, and lets every holder answer in some way.
fn run(
    depositor: &mut Depositor,
    now: Tick,
    answer: impl Fn(MachineId, u64) -> Option<Outcome>,
) -> Vec<(u64, Option<MessageId>)> {
    let mut sealed = Vec::new();
    let mut numbers = BTreeMap::new();
    while let Some(output) = depositor.poll_output() {
        match output {
            DepositorOutput::Seal { to, id, number, after } => {
                sealed.push((number, after.map(|after| after.id)));
                numbers.insert(digest(number), number);
                let digest = Some(digest(number));
                depositor.handle(now, DepositorInput::Sealed { to, id, digest });
            }
            DepositorOutput::Deposit { peer, digest, .. } => {
                if let Some(outcome) = answer(peer, numbers[&digest]) {
                    depositor.handle(now, DepositorInput::Deposited { peer, digest, outcome });
                }
            }
            _ => {}
        }
    }
    sealed
}

#[test]
fn what_is_posted_while_letters_are_left_is_looked_at_next_and_is_no_failure() {
    let mut depositor = depositor(&[(1, Standing::Stranger)]);
    look(&mut depositor, &[entry(1, 10)], Some([7; 32]));
    let places = Some([7; 32]);
    for number in 2..=20 {
        let now = at(5 * number);
        // Of three holders there is one: the lane has something to do, and lacks some.
        depositor.handle(at(5 * (number - 1)), DepositorInput::Posted(agent(1)));
        let sealed = run(&mut depositor, at(5 * (number - 1)), |_, _| Some(Outcome::Kept));
        assert_eq!(sealed.len(), 1, "{number}");
        assert_eq!(depositor.poll_timeout(), Some(now), "{number}");
        depositor.handle_timeout(now);
        assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(1))]);
        let letters = (1..=number).map(|number| entry(number, 10)).collect();
        depositor.handle(now, DepositorInput::Pending { to: agent(1), letters, places });
    }
    run(&mut depositor, at(100), |_, _| Some(Outcome::Kept));
    assert!(depositor.poll_timeout() <= Some(at(100) + 2 * FIRST_PAUSE), "one failure, not twenty");
}

#[test]
fn letters_are_left_in_order_each_naming_the_one_before() {
    let strangers = [1, 2, 3, 4].map(|n| (n, Standing::Stranger));
    let mut depositor = depositor(&strangers);
    look(&mut depositor, &[entry(1, 10), entry(2, 10), entry(3, 10)], Some([7; 32]));
    let sealed = run(&mut depositor, at(5), |_, _| Some(Outcome::Kept));
    assert_eq!(sealed, [(1, None), (2, Some(id(1))), (3, Some(id(2)))]);
    assert!((1..=3).all(|number| depositor.holders(&id(number)) == 3));
    assert_eq!(depositor.held_out().count(), 3);
    // A later look only takes what is new, and knows what goes before it.
    depositor.handle(at(6), DepositorInput::Posted(agent(1)));
    assert_eq!(depositor.poll_timeout(), Some(at(11)));
    depositor.handle_timeout(at(11));
    let letters = (1..=4).map(|number| entry(number, 10)).collect();
    let places = Some([7; 32]);
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(1))]);
    depositor.handle(at(11), DepositorInput::Pending { to: agent(1), letters, places });
    let sealed = run(&mut depositor, at(11), |_, _| Some(Outcome::Kept));
    assert_eq!(sealed, [(4, Some(id(3)))]);
}

#[test]
fn contacts_come_first_and_the_unwanted_never() {
    let mut depositor = depositor(&[
        (1, Standing::Stranger),
        (2, Standing::Contact),
        (3, Standing::Unwanted),
        (4, Standing::Stranger),
        (5, Standing::Contact),
    ]);
    look(&mut depositor, &[entry(1, 10)], Some([7; 32]));
    assert!(matches!(depositor.poll_output(), Some(DepositorOutput::Seal { number: 1, .. })));
    let sealed = |digest| DepositorInput::Sealed { to: agent(1), id: id(1), digest };
    depositor.handle(at(5), sealed(Some(digest(1))));
    let asked = asked(&outputs(&mut depositor));
    assert_eq!(asked.len(), 3);
    assert!(asked[..2].contains(&machine(2)) && asked[..2].contains(&machine(5)));
    assert!(!asked.contains(&machine(3)));
    // Two ends that rank by the same places think of the same machines.
    let best = [1, 4].map(machine).into_iter().max_by_key(|peer| place_rank(&[7; 32], peer));
    assert_eq!(asked.last().copied(), best);
}

#[test]
fn a_holder_that_refuses_or_is_silent_is_replaced() {
    let strangers = [1, 2, 3, 4, 5].map(|n| (n, Standing::Stranger));
    let mut depositor = depositor(&strangers);
    look(&mut depositor, &[entry(1, 10)], Some([7; 32]));
    run(&mut depositor, at(5), |peer, _| match peer.as_bytes()[0] {
        1 | 2 => Some(Outcome::Full),
        3 => None,
        _ => Some(Outcome::Kept),
    });
    assert_eq!(depositor.holders(&id(1)), 2);
    assert_eq!(depositor.poll_timeout(), Some(at(15)), "one is silent");
    depositor.handle_timeout(at(15));
    let last = outputs(&mut depositor);
    assert!(last.contains(&DepositorOutput::Release(digest(1))));
    assert!(last.contains(&DepositorOutput::Seek(agent(1))), "more holders are wanted");
    // A new machine is a reason to look again.
    let up = DepositorInput::Up { peer: machine(6), standing: Standing::Stranger };
    depositor.handle(at(16), up);
    assert_eq!(depositor.poll_timeout(), Some(at(16) + SOON));
    // An answer that nobody waits for changes nothing.
    let late =
        DepositorInput::Deposited { peer: machine(3), digest: digest(1), outcome: Outcome::Kept };
    depositor.handle(at(16), late);
    assert_eq!(depositor.holders(&id(1)), 2);
}

#[test]
fn nothing_overtakes_a_message_that_cannot_be_left() {
    let mut depositor = depositor(&[(1, Standing::Stranger)]);
    let large = entry(2, MAX_LETTER_PAYLOAD as u64 + 1);
    look(&mut depositor, &[entry(1, 10), large, entry(3, 10)], Some([7; 32]));
    let sealed = run(&mut depositor, at(5), |_, _| Some(Outcome::Kept));
    assert_eq!(sealed, [(1, None)]);
    assert_eq!(depositor.metrics.not_sealed.value(), 1);
    // Nor one that nobody wants to hold.
    let mut depositor = tests::depositor(&[(1, Standing::Stranger)]);
    look(&mut depositor, &[entry(1, 10), entry(2, 10)], Some([7; 32]));
    let sealed = run(&mut depositor, at(5), |_, _| Some(Outcome::TooMuch));
    assert_eq!(sealed, [(1, None)]);
    assert_eq!(depositor.holders(&id(1)), 0);
}

#[test]
fn nothing_overtakes_a_message_that_cannot_be_sealed_now() {
    let mut depositor = depositor(&[(1, Standing::Stranger)]);
    let letters = [entry(1, 10), entry(2, 10), entry(3, 10)];
    look(&mut depositor, &letters, Some([7; 32]));
    assert!(matches!(depositor.poll_output(), Some(DepositorOutput::Seal { number: 1, .. })));
    let unsealed = |number| DepositorInput::Unsealed { to: agent(1), id: id(number) };
    depositor.handle(at(5), unsealed(2));
    assert_eq!(depositor.poll_timeout(), None, "that was not asked for");
    depositor.handle(at(5), unsealed(1));
    let outputs = outputs(&mut depositor);
    let seals = |output: &DepositorOutput| matches!(output, DepositorOutput::Seal { .. });
    assert!(!outputs.iter().any(seals), "{outputs:?}");
    assert_eq!(depositor.poll_timeout(), Some(at(5) + FIRST_PAUSE), "it is tried again");
    depositor.handle_timeout(at(15));
    assert_eq!(depositor.poll_output(), Some(DepositorOutput::Look(agent(1))));
    let (letters, places) = (letters.to_vec(), Some([7; 32]));
    depositor.handle(at(15), DepositorInput::Pending { to: agent(1), letters, places });
    // A settled one is passed over.
    assert!(matches!(depositor.poll_output(), Some(DepositorOutput::Seal { number: 1, .. })));
    let settled = DepositorInput::Sealed { to: agent(1), id: id(1), digest: None };
    depositor.handle(at(15), settled);
    let sealed = run(&mut depositor, at(15), |_, _| Some(Outcome::Kept));
    assert_eq!(sealed, [(2, None), (3, Some(id(2)))]);
}

#[test]
fn a_mailbox_that_is_full_at_a_holder_hinders_no_other() {
    let mut depositor = depositor(&[(1, Standing::Stranger)]);
    look(&mut depositor, &[entry(1, 10)], Some([7; 32]));
    run(&mut depositor, at(5), |_, _| Some(Outcome::TooMuch));
    assert_eq!(depositor.holders(&id(1)), 0);
    depositor.handle(at(5), DepositorInput::Unreachable(agent(2)));
    depositor.handle_timeout(at(10));
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(2))]);
    let pending = |to, number| {
        let (letters, places) = (vec![entry(number, 10)], Some([8; 32]));
        DepositorInput::Pending { to, letters, places }
    };
    depositor.handle(at(10), pending(agent(2), 2));
    run(&mut depositor, at(10), |_, _| Some(Outcome::Kept));
    assert_eq!(depositor.holders(&id(2)), 1);
    // It is not asked for the first one again, until some time later.
    depositor.handle_timeout(at(15));
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(1))]);
    depositor.handle(at(15), pending(agent(1), 1));
    assert_eq!(run(&mut depositor, at(15), |_, _| Some(Outcome::Kept)), []);
    let later = at(15) + REFUSED_FOR;
    depositor.handle_timeout(later);
    depositor.handle(later, pending(agent(1), 1));
    run(&mut depositor, later, |_, _| Some(Outcome::Kept));
    assert_eq!(depositor.holders(&id(1)), 1);
}

#[test]
fn as_many_full_mailboxes_are_remembered_as_there_is_room_for() {
    let mut depositor = depositor(&[]);
    for n in 0..=MAX_FULL_TAGS as u64 {
        let mut to = [0; 32];
        to[..8].copy_from_slice(&n.to_be_bytes());
        depositor.full_tag(Tick::from_millis(n), AgentId::new(to), machine(1));
    }
    assert_eq!(depositor.full_tags.len(), MAX_FULL_TAGS);
    assert!(!depositor.full_tags.contains_key(&(AgentId::new([0; 32]), machine(1))), "the first");
    depositor.handle(at(5), DepositorInput::Down(machine(1)));
    assert!(depositor.full_tags.is_empty());
}

#[test]
fn without_a_mailbox_or_with_a_session_nothing_is_left() {
    let mut depositor = depositor(&[(1, Standing::Contact)]);
    look(&mut depositor, &[entry(1, 10)], None);
    assert_eq!(outputs(&mut depositor), []);
    assert_eq!(depositor.poll_timeout(), Some(at(5) + LAST_PAUSE));
    depositor.handle(at(6), DepositorInput::Reachable(agent(1)));
    assert_eq!((depositor.poll_timeout(), depositor.lanes.len()), (None, 0));
    // One that comes back while a letter is being left ends it.
    look(&mut depositor, &[entry(1, 10)], Some([7; 32]));
    assert!(matches!(depositor.poll_output(), Some(DepositorOutput::Seal { .. })));
    depositor.handle(at(6), DepositorInput::Reachable(agent(1)));
    let sealed = DepositorInput::Sealed { to: agent(1), id: id(1), digest: Some(digest(1)) };
    depositor.handle(at(6), sealed);
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Release(digest(1))]);
    let off = LettersConfig { deposits: false, ..LettersConfig::default() };
    let mut off = Depositor::new(off, Arc::default());
    off.handle(at(0), DepositorInput::Unreachable(agent(1)));
    assert_eq!(off.poll_timeout(), None);
}

#[test]
fn what_is_settled_is_withdrawn_where_it_can_be() {
    let mut depositor = depositor(&[(1, Standing::Contact), (2, Standing::Contact)]);
    look(&mut depositor, &[entry(1, 10)], Some([7; 32]));
    run(&mut depositor, at(5), |_, _| Some(Outcome::Kept));
    depositor.handle(at(6), DepositorInput::Down(machine(2)));
    depositor.handle(at(6), DepositorInput::Reachable(agent(1)));
    depositor.handle(at(7), DepositorInput::Settled(id(1)));
    let withdraw = DepositorOutput::Withdraw { peer: machine(1), to: agent(1), digest: digest(1) };
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Forget(id(1)), withdraw]);
    depositor.handle(at(7), DepositorInput::Settled(id(1)));
    assert_eq!(outputs(&mut depositor), []);
    let restored =
        DepositorInput::Restore { id: id(2), to: agent(1), holder: machine(1), digest: digest(2) };
    depositor.handle(at(8), restored);
    assert_eq!(depositor.holders(&id(2)), 1);
    // Its message was settled while nobody listened.
    depositor.handle_timeout(at(13));
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(1))]);
    let (letters, places) = (Vec::new(), Some([7; 32]));
    depositor.handle(at(13), DepositorInput::Pending { to: agent(1), letters, places });
    assert!(outputs(&mut depositor).contains(&DepositorOutput::Forget(id(2))));
    assert_eq!((depositor.held_out().count(), depositor.lanes.len()), (0, 0));
}

#[test]
fn a_letter_behind_one_that_is_taken_back_is_left_anew() {
    let mut depositor = depositor(&[(1, Standing::Contact)]);
    look(&mut depositor, &[entry(1, 10), entry(2, 10), entry(3, 10)], Some([7; 32]));
    run(&mut depositor, at(5), |_, _| Some(Outcome::Kept));
    depositor.handle(at(6), DepositorInput::Cancelled(id(2)));
    let held: Vec<_> = depositor.held_out().map(|(id, ..)| id).collect();
    assert_eq!(held, [id(1)]);
    outputs(&mut depositor);
    depositor.handle_timeout(at(7));
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(1))]);
    let (letters, places) = (vec![entry(1, 10), entry(3, 10)], Some([7; 32]));
    depositor.handle(at(7), DepositorInput::Pending { to: agent(1), letters, places });
    let sealed = run(&mut depositor, at(7), |_, _| Some(Outcome::Kept));
    assert_eq!(sealed, [(3, Some(id(1)))]);
}

proptest! {
    #[test]
    fn a_letter_never_has_a_holder_before_the_one_in_front_of_it(
        answers in prop::collection::vec(0_u8..5, 1..400),
        rounds in prop::collection::vec((0_u8..5, 0_u8..7), 1..60),
    ) {
        let mut depositor = depositor(&[1, 2, 3, 4].map(|n| (n, Standing::Stranger)));
        let mut answers = answers.into_iter().cycle();
        let mut sealed: BTreeMap<Digest, u64> = BTreeMap::new();
        let letters: Vec<PendingEntry> = (1..=6).map(|number| entry(number, 10)).collect();
        depositor.handle(at(0), DepositorInput::Unreachable(agent(1)));
        for (round, (op, peer)) in (1..).zip(rounds) {
            let now = at(round * 400);
            match op {
                0 => depositor.handle(now, DepositorInput::Down(machine(peer))),
                1 => {
                    let up = DepositorInput::Up { peer: machine(peer), standing: Standing::Contact };
                    depositor.handle(now, up);
                }
                2 => depositor.handle(now, DepositorInput::Posted(agent(1))),
                3 => depositor.handle(now, DepositorInput::Unreachable(agent(1))),
                _ => depositor.handle(now, DepositorInput::Reachable(agent(1))),
            }
            depositor.handle_timeout(now);
            while let Some(output) = depositor.poll_output() {
                match output {
                    DepositorOutput::Look(to) => {
                        let letters = letters.clone();
                        let places = Some([1; 32]);
                        depositor.handle(now, DepositorInput::Pending { to, letters, places });
                    }
                    DepositorOutput::Seal { to, id, number, after } => {
                        prop_assert_eq!(after.map(|after| after.id), (number > 1).then(|| self::id(number - 1)));
                        prop_assert!(number == 1 || depositor.holders(&self::id(number - 1)) > 0);
                        sealed.insert(digest(number), number);
                        let digest = Some(digest(number));
                        depositor.handle(now, DepositorInput::Sealed { to, id, digest });
                    }
                    DepositorOutput::Deposit { peer, digest, .. } => {
                        prop_assert!(sealed.contains_key(&digest), "its bytes are still there");
                        let outcome = match answers.next() {
                            Some(0) => continue,
                            Some(1) => Outcome::Full,
                            _ => Outcome::Kept,
                        };
                        let answer = DepositorInput::Deposited { peer, digest, outcome };
                        depositor.handle(now, answer);
                    }
                    _ => {}
                }
            }
            for number in 2..=6 {
                let (before, this) = (depositor.holders(&id(number - 1)), depositor.holders(&id(number)));
                prop_assert!(before > 0 || this == 0);
                prop_assert!(this <= LettersConfig::default().copies);
            }
        }
    }
}

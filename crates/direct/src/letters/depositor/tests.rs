use std::cmp::Reverse;

use proptest::prelude::*;

use super::{lane::FIRST_PAUSE, *};
use crate::fixtures::{WALL, agent, at, id, machine};

fn digest(n: u64) -> Digest {
    Digest::of(&n.to_be_bytes())
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn entry(number: u64, bytes: u64) -> PendingEntry {
    let expires_at = WALL + DAY * 20 + Duration::from_secs(number);
    PendingEntry { number, id: id(number), bytes, expires_at }
}

/// What opens the mailbox at a holder.
fn pickup(holder: MachineId) -> Pickup {
    Pickup::new(*holder.as_bytes())
}

/// What waits for an agent that gave a mailbox.
fn pending(to: u8, letters: &[PendingEntry], places: Option<[u8; 32]>) -> DepositorInput {
    let (to, letters) = (agent(to), letters.to_vec());
    DepositorInput::Pending { to, letters, granted: true, places }
}

/// A holder's answer; what it keeps, it keeps for a week.
fn answer(now: Tick, peer: MachineId, digest: Digest, outcome: Outcome) -> DepositorInput {
    let until = WALL + now.since(at(0)) + DAY * 7;
    DepositorInput::Deposited { peer, digest, outcome, pickup: pickup(peer), until }
}

fn depositor(peers: &[(u8, Standing)]) -> Depositor {
    let mut depositor = Depositor::new(LettersConfig::default(), Arc::default(), [1; 32]);
    depositor.handle(at(0), DepositorInput::Wall(WALL));
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
    depositor.handle(at(5), pending(1, letters, places));
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
    outcome: impl Fn(MachineId, u64) -> Option<Outcome>,
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
                if let Some(outcome) = outcome(peer, numbers[&digest]) {
                    depositor.handle(now, answer(now, peer, digest, outcome));
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
        let letters: Vec<_> = (1..=number).map(|number| entry(number, 10)).collect();
        depositor.handle(now, pending(1, &letters, places));
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
    let letters: Vec<_> = (1..=4).map(|number| entry(number, 10)).collect();
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(1))]);
    depositor.handle(at(11), pending(1, &letters, Some([7; 32])));
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
    let seek = DepositorOutput::Seek { places: [7; 32] };
    assert!(last.contains(&seek), "more holders are wanted");
    // A new machine is a reason to look again.
    let up = DepositorInput::Up { peer: machine(6), standing: Standing::Stranger };
    depositor.handle(at(16), up);
    assert_eq!(depositor.poll_timeout(), Some(at(16) + SOON));
    // An answer that nobody waits for changes nothing.
    depositor.handle(at(16), answer(at(16), machine(3), digest(1), Outcome::Kept));
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
    let why = [1, 2, 3].map(|number| depositor.not_left(&agent(1), number));
    assert_eq!(why, [None, Some(NotLeft::TooLarge), Some(NotLeft::BehindTooLarge)]);
    // Nor one that nobody wants to hold.
    let mut depositor = tests::depositor(&[(1, Standing::Stranger)]);
    look(&mut depositor, &[entry(1, 10), entry(2, 10)], Some([7; 32]));
    let sealed = run(&mut depositor, at(5), |_, _| Some(Outcome::TagFull));
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
    depositor.handle(at(15), pending(1, &letters, Some([7; 32])));
    // A settled one is passed over.
    assert!(matches!(depositor.poll_output(), Some(DepositorOutput::Seal { number: 1, .. })));
    let settled = DepositorInput::Sealed { to: agent(1), id: id(1), digest: None };
    depositor.handle(at(15), settled);
    let sealed = run(&mut depositor, at(15), |_, _| Some(Outcome::Kept));
    assert_eq!(sealed, [(2, None), (3, Some(id(2)))]);
}

/// One letter waits for each of two agents: who is asked to hold the second one's, after a holder
/// refused the first one's.
fn asked_after(outcome: Outcome) -> (Depositor, Vec<MachineId>) {
    let mut depositor = depositor(&[(1, Standing::Stranger)]);
    look(&mut depositor, &[entry(1, 10)], Some([7; 32]));
    run(&mut depositor, at(5), |_, _| Some(outcome));
    assert_eq!(depositor.holders(&id(1)), 0);
    depositor.handle(at(5), DepositorInput::Unreachable(agent(2)));
    depositor.handle_timeout(at(10));
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(2))]);
    depositor.handle(at(10), pending(2, &[entry(2, 10)], Some([8; 32])));
    let asked = std::cell::RefCell::new(Vec::new());
    run(&mut depositor, at(10), |peer, _| {
        asked.borrow_mut().push(peer);
        Some(Outcome::Kept)
    });
    (depositor, asked.into_inner())
}

#[test]
fn a_mailbox_that_is_full_at_a_holder_hinders_no_other() {
    let (mut depositor, asked) = asked_after(Outcome::TagFull);
    assert_eq!((asked, depositor.holders(&id(2))), (vec![machine(1)], 1));
    // It is not asked for the first one again, until some time later, nor is it when it comes back.
    depositor.handle(at(11), DepositorInput::Down(machine(1)));
    let up = DepositorInput::Up { peer: machine(1), standing: Standing::Stranger };
    depositor.handle(at(12), up);
    depositor.handle_timeout(at(15));
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(1))]);
    depositor.handle(at(15), pending(1, &[entry(1, 10)], Some([8; 32])));
    assert_eq!(run(&mut depositor, at(15), |_, _| Some(Outcome::Kept)), []);
    let later = at(15) + REFUSED_FOR;
    depositor.handle_timeout(later);
    depositor.handle(later, pending(1, &[entry(1, 10)], Some([8; 32])));
    run(&mut depositor, later, |_, _| Some(Outcome::Kept));
    assert_eq!(depositor.holders(&id(1)), 1);
}

#[test]
fn a_holder_at_which_the_share_of_the_day_is_used_is_asked_for_nobody() {
    let (mut depositor, asked) = asked_after(Outcome::ShareUsed);
    assert_eq!((asked, depositor.holders(&id(2))), (vec![], 0));
    let early = at(10) + REFUSED_FOR;
    let mut look_at = |now: Tick| {
        depositor.handle_timeout(now);
        if !outputs(&mut depositor).contains(&DepositorOutput::Look(agent(2))) {
            return None;
        }
        depositor.handle(now, pending(2, &[entry(2, 10)], Some([8; 32])));
        run(&mut depositor, now, |_, _| Some(Outcome::Kept));
        Some(depositor.holders(&id(2)))
    };
    assert_eq!(look_at(early), Some(0));
    assert_eq!(look_at(at(10) + SHARE_USED_FOR + LAST_PAUSE), Some(1));
}

#[test]
fn as_many_refusals_are_remembered_as_there_is_room_for() {
    let numbered = |n: u64| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        id
    };
    let mut depositor = depositor(&[]);
    for n in 0..=MAX_FULL_TAGS as u64 {
        depositor.full_tag(Tick::from_millis(n), AgentId::new(numbered(n)), machine(1));
    }
    assert_eq!(depositor.full_tags.len(), MAX_FULL_TAGS);
    assert!(!depositor.full_tags.contains_key(&(AgentId::new([0; 32]), machine(1))), "the first");
    for n in 0..=MAX_REFUSED as u64 {
        depositor.refused(at(100 + n), at(0), MachineId::new(numbered(n)));
    }
    assert_eq!(depositor.refused.len(), MAX_REFUSED);
    assert!(!depositor.refused.contains_key(&MachineId::new([0; 32])), "the first");
}

#[test]
fn of_strangers_one_is_taken_by_rank_and_the_others_by_lot() {
    const STRANGERS: u8 = 40;
    // Half of them are ground: they rank above all others.
    let mut ranked: Vec<u8> = (1..=STRANGERS).collect();
    ranked.sort_by_key(|n| Reverse(place_rank(&[7; 32], &machine(*n))));
    let ground: BTreeSet<MachineId> = ranked[..20].iter().map(|n| machine(*n)).collect();
    let strangers: Vec<_> = (1..=STRANGERS).map(|n| (n, Standing::Stranger)).collect();
    let asked = |seed: u8, places: Option<[u8; 32]>| {
        let mut depositor = depositor(&strangers);
        depositor.rng = SeededRng::from_seed([seed; 32]);
        look(&mut depositor, &[entry(1, 10)], places);
        run(&mut depositor, at(5), |_, _| Some(Outcome::Kept));
        let held = depositor.held_out.remove(&id(1)).expect("it has holders");
        held.copies.into_keys().collect::<BTreeSet<_>>()
    };
    let best = machine(ranked[0]);
    let mut all_ground = 0;
    for seed in 0..100 {
        let holders = asked(seed, Some([7; 32]));
        assert_eq!((holders.len(), holders.contains(&best)), (3, true));
        all_ground += usize::from(holders.is_subset(&ground));
    }
    assert!((10..40).contains(&all_ground), "a quarter, not all: {all_ground}");
    // Who does not know the ranks takes all by lot.
    let with_best = (0..100).filter(|seed| asked(*seed, None).contains(&best)).count();
    assert!(with_best < 20, "{with_best}");
}

#[test]
fn copies_are_believed_in_until_they_lapse_and_left_anew() {
    let mut depositor = depositor(&[(1, Standing::Contact)]);
    look(&mut depositor, &[entry(1, 10)], Some([7; 32]));
    run(&mut depositor, at(5), |_, _| Some(Outcome::Kept));
    assert_eq!(depositor.holders(&id(1)), 1);
    // The lane looks every ten minutes, finds nothing to do, and lacks two.
    let lapse = at(5) + DAY * 7;
    depositor.handle(lapse, DepositorInput::Wall(WALL + lapse.since(at(0))));
    depositor.handle_timeout(lapse);
    assert_eq!(depositor.holders(&id(1)), 0, "it is held no more");
    let outputs: Vec<_> = outputs(&mut depositor);
    assert!(outputs.contains(&DepositorOutput::Lapsed { id: id(1), holder: machine(1) }));
    assert_eq!(depositor.metrics.copies_lapsed.value(), 1);
    if !outputs.contains(&DepositorOutput::Look(agent(1))) {
        assert!(depositor.poll_timeout() <= Some(lapse + SOON));
        depositor.handle_timeout(lapse + SOON);
    }
    depositor.handle(lapse + SOON, pending(1, &[entry(1, 10)], Some([7; 32])));
    run(&mut depositor, lapse + SOON, |_, _| Some(Outcome::Kept));
    assert_eq!(depositor.holders(&id(1)), 1, "and left anew");
    // What a holder says is believed no further than the letter's time and what is usual.
    let held = &depositor.held_out[&id(1)].copies[&machine(1)];
    assert!(held.until <= entry(1, 10).expires_at);
    // A restart knows the deadline, too.
    let mut again = tests::depositor(&[]);
    again.handle(at(0), DepositorInput::Restore(*held));
    assert!(again.lapses.contains(&(held.until, id(1), machine(1))));
    // One that says it keeps nothing keeps nothing.
    let mut depositor = tests::depositor(&[(1, Standing::Contact)]);
    look(&mut depositor, &[entry(1, 10)], Some([7; 32]));
    let sealed = DepositorInput::Sealed { to: agent(1), id: id(1), digest: Some(digest(1)) };
    depositor.handle(at(5), sealed);
    let (peer, digest, outcome) = (machine(1), digest(1), Outcome::Kept);
    let (pickup, until) = (pickup(peer), WALL);
    let kept = DepositorInput::Deposited { peer, digest, outcome, pickup, until };
    depositor.handle(at(5), kept);
    assert_eq!(depositor.holders(&id(1)), 0);
}

#[test]
fn sessions_that_come_and_go_do_not_undo_the_pauses() {
    let mut depositor = depositor(&[]);
    for to in 1..=30 {
        depositor.handle(at(0), DepositorInput::Unreachable(agent(to)));
    }
    let (mut looks, mut seeks) = (0, 0);
    // Every second another machine comes, refuses, and goes.
    for second in 0..1800 {
        let mut id = [9; 32];
        id[..4].copy_from_slice(&u32::try_from(second).expect("few").to_be_bytes());
        let peer = MachineId::new(id);
        depositor.handle(at(second), DepositorInput::Up { peer, standing: Standing::Stranger });
        depositor.handle_timeout(at(second));
        while let Some(output) = depositor.poll_output() {
            match output {
                DepositorOutput::Look(to) => {
                    looks += 1;
                    let (letters, places) = (vec![entry(1, 10)], None);
                    let input = DepositorInput::Pending { to, letters, granted: true, places };
                    depositor.handle(at(second), input);
                }
                DepositorOutput::Seal { to, id, .. } => {
                    let digest = Some(digest(second * 1000 + u64::from(to.as_bytes()[0])));
                    let sealed = DepositorInput::Sealed { to, id, digest };
                    depositor.handle(at(second), sealed);
                }
                DepositorOutput::Deposit { peer, digest, .. } => {
                    let refused = answer(at(second), peer, digest, Outcome::Full);
                    depositor.handle(at(second), refused);
                }
                DepositorOutput::Seek { .. } => seeks += 1,
                _ => {}
            }
        }
        depositor.handle(at(second), DepositorInput::Down(peer));
    }
    assert!(seeks <= 4 + 1800 / 30, "{seeks} searches");
    assert!(looks <= 30 * (10 + 1800 / 75), "{looks} looks");
}

#[test]
fn without_a_mailbox_or_with_a_session_nothing_is_left() {
    let mut depositor = depositor(&[(1, Standing::Contact)]);
    depositor.handle(at(0), DepositorInput::Unreachable(agent(1)));
    depositor.handle_timeout(at(5));
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(1))]);
    let (to, letters) = (agent(1), vec![entry(1, 10)]);
    let without = DepositorInput::Pending { to, letters, granted: false, places: None };
    depositor.handle(at(5), without);
    assert_eq!(outputs(&mut depositor), []);
    assert_eq!(depositor.not_left(&agent(1), 1), Some(NotLeft::NoMailbox));
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
    let mut off = Depositor::new(off, Arc::default(), [1; 32]);
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
    let (peer, name) = (machine(1), digest(1));
    let withdraw = DepositorOutput::Withdraw { peer, pickup: pickup(peer), digest: name };
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Forget(id(1)), withdraw]);
    depositor.handle(at(7), DepositorInput::Settled(id(1)));
    assert_eq!(outputs(&mut depositor), []);
    let (holder, digest) = (machine(1), digest(2));
    let (pickup, until) = (pickup(holder), WALL + DAY);
    let restored = Deposit { id: id(2), to: agent(1), holder, digest, pickup, until };
    depositor.handle(at(8), DepositorInput::Restore(restored));
    assert_eq!(depositor.holders(&id(2)), 1);
    // Its message was settled while nobody listened.
    depositor.handle_timeout(at(13));
    assert_eq!(outputs(&mut depositor), [DepositorOutput::Look(agent(1))]);
    depositor.handle(at(13), pending(1, &[], Some([7; 32])));
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
    depositor.handle(at(7), pending(1, &[entry(1, 10), entry(3, 10)], Some([7; 32])));
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
                        let (letters, places) = (letters.clone(), Some([1; 32]));
                        let pending = DepositorInput::Pending { to, letters, granted: true, places };
                        depositor.handle(now, pending);
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
                        depositor.handle(now, answer(now, peer, digest, outcome));
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

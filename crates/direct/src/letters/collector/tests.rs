use std::sync::OnceLock;

use proptest::prelude::*;
use x0x_identity::{AgentBinding, SignedBinding, testing::key};

use super::{
    super::letter::{After, Draft},
    blame::MAX_LIES,
    *,
};
use crate::{
    fixtures::{WALL, at, id, machine},
    wire::Kind,
};

mod share;

const HOUR: Duration = Duration::from_secs(3600);

fn digest(n: u64) -> Digest {
    Digest::of(&n.to_be_bytes())
}

fn binding() -> AgentBinding {
    static BINDING: OnceLock<AgentBinding> = OnceLock::new();
    *BINDING.get_or_init(|| *SignedBinding::issue(&key(1), machine(77), WALL, HOUR * 200).binding())
}

fn sender() -> (AgentId, MachineId) {
    (binding().agent, binding().machine)
}

fn mailbox() -> Mailbox {
    let (from, machine) = sender();
    Mailbox { from, machine, period: 3 }
}

/// The `n`-th letter of a chain.
fn letter(n: u64, after: Option<u64>) -> Box<Opened> {
    let after = after.map(|n| After { id: id(n), expires_at: WALL + HOUR });
    let draft = Draft {
        id: id(n),
        to: AgentId::new([2; 32]),
        kind: Kind::Mail,
        reply_to: None,
        wants_read: false,
        sent_at: WALL,
        expires_at: WALL + HOUR * 2,
        after,
        payload: vec![0; 100].into(),
    };
    Box::new(Opened { draft, binding: binding() })
}

fn chained(n: u64) -> Box<Opened> {
    letter(n, (n > 1).then(|| n - 1))
}

fn collector() -> Collector {
    let mut collector = Collector::new(LettersConfig::default(), Arc::default());
    collector.handle(at(0), CollectorInput::Wall(WALL));
    collector
}

fn outputs(collector: &mut Collector) -> Vec<CollectorOutput> {
    std::iter::from_fn(|| collector.poll_output()).collect()
}

fn list(collector: &mut Collector, now: Tick, peer: u8, letters: impl IntoIterator<Item = u64>) {
    let letters = letters.into_iter().map(|n| (mailbox(), digest(n), true)).collect();
    listing(collector, now, peer, letters, false);
}

/// A list that was asked for.
fn listing(
    collector: &mut Collector,
    now: Tick,
    peer: u8,
    letters: Vec<(Mailbox, Digest, bool)>,
    more: bool,
) {
    let peer = machine(peer);
    collector.handle(now, CollectorInput::Asked { peer, frames: 1 });
    collector.handle(now, CollectorInput::Listed { peer, letters, more });
}

/// How a holder behaves towards fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Honest,
    Tampers,
    Withholds,
    Silent,
}

/// Runs until there is nothing to do; `has` is what the inbox has already.
fn run(
    collector: &mut Collector,
    now: Tick,
    way: impl Fn(MachineId, u64) -> Way,
    has: &mut Vec<u64>,
    most: u64,
) -> Vec<u64> {
    let mut delivered = Vec::new();
    let number = |digest: &Digest| (1..=most).find(|n| self::digest(*n) == *digest);
    while let Some(output) = collector.poll_output() {
        match output {
            CollectorOutput::Fetch { peer, digest, .. } => {
                let known = number(&digest);
                let input = match (known.map(|n| way(peer, n)), known) {
                    (Some(Way::Silent), _) => continue,
                    (Some(Way::Withholds), _) => CollectorInput::Missing { peer, digest },
                    (Some(Way::Honest), Some(n)) => {
                        CollectorInput::Opened { peer, digest, letter: chained(n) }
                    }
                    _ => CollectorInput::Tampered { peer, digest },
                };
                collector.handle(now, input);
            }
            CollectorOutput::Knows { from, id } => {
                let known = has.iter().any(|n| self::id(*n) == id);
                collector.handle(now, CollectorInput::Known { from, id, known });
            }
            CollectorOutput::Deliver(letter) => {
                let n = (1..=most).find(|n| id(*n) == letter.draft.id).expect("a letter");
                let taken = if has.contains(&n) { Taken::Duplicate } else { Taken::Stored };
                if taken == Taken::Stored {
                    has.push(n);
                    delivered.push(n);
                }
                let from = (letter.from(), letter.machine());
                let id = letter.draft.id;
                collector.handle(now, CollectorInput::Delivered { from, id, taken });
            }
            CollectorOutput::Ask(_) | CollectorOutput::Delete { .. } => {}
        }
    }
    delivered
}

fn up(collector: &mut Collector, now: Tick, peer: u8) {
    collector.handle(now, CollectorInput::Up(machine(peer)));
}

#[test]
fn letters_from_several_holders_arrive_once_in_order_and_are_deleted_everywhere() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    up(&mut collector, at(0), 2);
    let asks = [1, 2].map(|peer| CollectorOutput::Ask(machine(peer)));
    assert_eq!(outputs(&mut collector), asks);
    // The second holder has the beginning, the first the end; some both have.
    list(&mut collector, at(0), 1, (5..=20).rev());
    list(&mut collector, at(0), 2, 1..=12);
    let mut has = Vec::new();
    let delivered = run(&mut collector, at(0), |_, _| Way::Honest, &mut has, 20);
    assert_eq!(delivered, (1..=20).collect::<Vec<_>>());
    assert_eq!((collector.outstanding(), collector.waiting_bytes()), (0, 0));
    assert!(collector.lanes.is_empty() && collector.gaps.is_empty());
    // What is listed again is deleted again, and not fetched.
    list(&mut collector, at(1), 2, [5]);
    let delete =
        CollectorOutput::Delete { peer: machine(2), mailbox: mailbox(), digests: vec![digest(5)] };
    assert_eq!(outputs(&mut collector), [delete]);
}

#[test]
fn every_holder_is_told_to_delete() {
    let mut collector = collector();
    for peer in 1..=3 {
        up(&mut collector, at(0), peer);
        list(&mut collector, at(0), peer, [1]);
    }
    outputs(&mut collector);
    let letter = chained(1);
    collector.handle(at(0), CollectorInput::Opened { peer: machine(1), digest: digest(1), letter });
    assert!(matches!(outputs(&mut collector)[..], [CollectorOutput::Deliver(_)]));
    let (from, taken) = (sender(), Taken::Stored);
    collector.handle(at(0), CollectorInput::Delivered { from, id: id(1), taken });
    let deleted = outputs(&mut collector);
    let at_peer = |output: &CollectorOutput| match output {
        CollectorOutput::Delete { peer, .. } => Some(*peer),
        _ => None,
    };
    let peers: Vec<_> = deleted.iter().filter_map(at_peer).collect();
    assert_eq!(peers, [1, 2, 3].map(machine));
}

#[test]
fn a_holder_that_tampers_is_counted_and_asked_no_more() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    up(&mut collector, at(0), 2);
    list(&mut collector, at(0), 1, 1..=10);
    list(&mut collector, at(0), 2, 1..=10);
    let way = |peer, _| if peer == machine(1) { Way::Tampers } else { Way::Honest };
    let delivered = run(&mut collector, at(0), way, &mut Vec::new(), 10);
    assert_eq!(delivered, (1..=10).collect::<Vec<_>>(), "from the other one");
    assert!(collector.metrics.tampered.value() >= u64::from(MAX_LIES));
    list(&mut collector, at(1), 1, 11..=20);
    assert_eq!((outputs(&mut collector), collector.outstanding()), (vec![], 0));
    assert_eq!(collector.metrics.gaps.value(), 0);
}

#[test]
fn a_hole_is_waited_for_then_told() {
    let patience = LettersConfig::default().hole_patience;
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    list(&mut collector, at(0), 1, [1, 2, 3, 4, 5]);
    let way = |_, n| if n == 3 { Way::Withholds } else { Way::Honest };
    let mut has = Vec::new();
    assert_eq!(run(&mut collector, at(0), way, &mut has, 5), [1, 2]);
    assert_eq!(collector.metrics.withheld.value(), 1);
    let mut now = at(0);
    let mut rest = Vec::new();
    while rest.is_empty() {
        now = collector.poll_timeout().expect("it waits for something");
        collector.handle_timeout(now);
        rest = run(&mut collector, now, way, &mut has, 5);
    }
    assert_eq!((rest, now), (vec![4, 5], at(0) + patience));
    let gap = *collector.gaps().next().expect("a gap");
    assert_eq!((gap.from, gap.missing, gap.next), (sender().0, id(3), id(4)));
    assert_eq!(collector.gaps().count(), 1, "one hole is one gap");
}

#[test]
fn another_holder_or_the_sender_itself_closes_a_hole() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    list(&mut collector, at(0), 1, [2, 3]);
    let mut has = Vec::new();
    assert_eq!(run(&mut collector, at(0), |_, _| Way::Honest, &mut has, 9), Vec::<u64>::new());
    up(&mut collector, at(20), 2);
    list(&mut collector, at(20), 2, [1]);
    let delivered = run(&mut collector, at(20), |_, _| Way::Honest, &mut has, 9);
    assert_eq!(delivered, [1, 2, 3]);
    // The sender is back, and sends what the holders do not have.
    list(&mut collector, at(30), 1, [6]);
    assert_eq!(run(&mut collector, at(30), |_, _| Way::Honest, &mut has, 9), Vec::<u64>::new());
    has.push(5);
    let later = collector.poll_timeout().expect("it looks again");
    assert!(later <= at(35));
    collector.handle_timeout(later);
    assert_eq!(run(&mut collector, later, |_, _| Way::Honest, &mut has, 9), [6]);
    assert_eq!(collector.gaps().count(), 0);
    // One whose time is over is waited for by nobody.
    list(&mut collector, at(50), 1, [8]);
    collector.handle(at(50), CollectorInput::Wall(WALL + HOUR));
    assert_eq!(run(&mut collector, at(50), |_, _| Way::Honest, &mut has, 9), [8]);
    assert_eq!(collector.gaps().count(), 0);
}

#[test]
fn a_silent_holder_is_passed_over() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    up(&mut collector, at(0), 2);
    list(&mut collector, at(0), 1, 1..=3);
    list(&mut collector, at(0), 2, 1..=3);
    let way = |peer, _| if peer == machine(1) { Way::Silent } else { Way::Honest };
    let mut has = Vec::new();
    let mut delivered = run(&mut collector, at(0), way, &mut has, 3);
    let until = at(0) + FETCH_TIMEOUT;
    collector.handle_timeout(until);
    delivered.extend(run(&mut collector, until, way, &mut has, 3));
    assert_eq!(delivered, [1, 2, 3]);
    // One that goes away is not waited for.
    list(&mut collector, until, 1, [4]);
    assert!(matches!(outputs(&mut collector)[..], [CollectorOutput::Fetch { .. }]));
    collector.handle(until, CollectorInput::Down(machine(1)));
    assert_eq!(collector.outstanding(), 0);
}

/// Letters to deliver among outputs.
fn delivers(outputs: &[CollectorOutput]) -> Vec<MessageId> {
    let id = |output: &CollectorOutput| match output {
        CollectorOutput::Deliver(letter) => Some(letter.draft.id),
        _ => None,
    };
    outputs.iter().filter_map(id).collect()
}

fn give(collector: &mut Collector, now: Tick, peer: u8, n: u64) {
    let (peer, digest, letter) = (machine(peer), digest(n), chained(n));
    collector.handle(now, CollectorInput::Opened { peer, digest, letter });
}

fn delivered(collector: &mut Collector, now: Tick, n: u64, taken: Taken) {
    collector.handle(now, CollectorInput::Delivered { from: sender(), id: id(n), taken });
}

#[test]
fn an_inbox_without_room_keeps_the_order_and_takes_no_memory() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    list(&mut collector, at(0), 1, [1, 2]);
    outputs(&mut collector);
    give(&mut collector, at(0), 1, 2);
    give(&mut collector, at(0), 1, 1);
    assert_eq!(delivers(&outputs(&mut collector)), [id(1)]);
    delivered(&mut collector, at(0), 1, Taken::Busy);
    assert_eq!(outputs(&mut collector), []);
    assert_eq!((collector.waiting_bytes(), collector.outstanding()), (0, 2));
    // It is fetched again, and nothing else of that sender, later each time.
    let (peer, mailbox) = (machine(1), mailbox());
    let fetch = |n| CollectorOutput::Fetch { peer, mailbox, digest: digest(n) };
    let mut now = at(0);
    for pause in [5, 10, 20, 40, 80, 80] {
        let next = collector.poll_timeout().expect("it tries again");
        assert_eq!(next, now + Duration::from_secs(pause));
        now = next;
        collector.handle_timeout(now);
        assert_eq!(outputs(&mut collector), [fetch(1)]);
        give(&mut collector, now, 1, 1);
        assert_eq!(delivers(&outputs(&mut collector)), [id(1)]);
        delivered(&mut collector, now, 1, Taken::Busy);
    }
    now = now + Duration::from_secs(80);
    collector.handle_timeout(now);
    give(&mut collector, now, 1, 1);
    outputs(&mut collector);
    delivered(&mut collector, now, 1, Taken::Stored);
    assert!(outputs(&mut collector).contains(&fetch(2)));
    give(&mut collector, now, 1, 2);
    assert_eq!(delivers(&outputs(&mut collector)), [id(2)]);
}

#[test]
fn what_finds_no_room_until_its_time_is_over_is_deleted() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    list(&mut collector, at(0), 1, [1, 2]);
    let mut now = at(0);
    while collector.outstanding() > 0 {
        while let Some(output) = collector.poll_output() {
            match output {
                CollectorOutput::Fetch { digest, .. } => {
                    let n = if digest == self::digest(1) { 1 } else { 2 };
                    give(&mut collector, now, 1, n);
                }
                CollectorOutput::Deliver(letter) => {
                    let (from, id, taken) = (sender(), letter.draft.id, Taken::Busy);
                    collector.handle(now, CollectorInput::Delivered { from, id, taken });
                }
                CollectorOutput::Knows { from, id } => {
                    collector.handle(now, CollectorInput::Known { from, id, known: false });
                }
                _ => {}
            }
        }
        now = collector.poll_timeout().expect("it tries again").max(now);
        assert!(now <= at(0) + HOUR * 2, "the end of their time");
        collector.handle_timeout(now);
    }
    let is_delete = |output: &CollectorOutput| matches!(output, CollectorOutput::Delete { .. });
    let deleted = outputs(&mut collector).iter().filter(|output| is_delete(output)).count();
    assert_eq!((deleted, collector.metrics.lapsed.value()), (2, 2));
    assert!(collector.lanes.is_empty() && collector.fetching.is_empty());
}

#[test]
fn the_unwanted_is_deleted_unread_and_the_broken_too() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    outputs(&mut collector);
    let (peer, mailbox) = (machine(1), mailbox());
    let letters = vec![(mailbox, digest(1), false), (mailbox, digest(2), true)];
    listing(&mut collector, at(0), 1, letters, false);
    let expected = [
        CollectorOutput::Delete { peer, mailbox, digests: vec![digest(1)] },
        CollectorOutput::Fetch { peer, mailbox, digest: digest(2) },
    ];
    assert_eq!(outputs(&mut collector), expected);
    collector.handle(at(0), CollectorInput::Broken { peer, digest: digest(2) });
    let expected = [CollectorOutput::Delete { peer, mailbox, digests: vec![digest(2)] }];
    assert_eq!(outputs(&mut collector), expected);
    assert_eq!(collector.metrics.refused_letters.value(), 1);
}

#[test]
fn a_letter_listed_in_a_wrong_mailbox_is_still_fetched_from_the_right_one() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    up(&mut collector, at(0), 2);
    outputs(&mut collector);
    let (wrong, right) = (Mailbox { from: AgentId::new([0; 32]), ..mailbox() }, mailbox());
    let in_wrong = |n| (wrong, digest(n), true);
    // One that lies is first, and lists the true mailbox, too.
    let both = vec![in_wrong(1), (right, digest(1), true)];
    listing(&mut collector, at(0), 1, both, false);
    list(&mut collector, at(0), 2, [1]);
    let fetch = |peer, mailbox| {
        let peer = machine(peer);
        CollectorOutput::Fetch { peer, mailbox, digest: digest(1) }
    };
    assert_eq!(outputs(&mut collector), [fetch(1, wrong), fetch(2, right)]);
    let peer = machine(1);
    collector.handle(at(0), CollectorInput::Broken { peer, digest: digest(1) });
    let delete = CollectorOutput::Delete { peer, mailbox: wrong, digests: vec![digest(1)] };
    assert_eq!(outputs(&mut collector), [delete], "at the liar only");
    assert_eq!(collector.fetching(machine(2), digest(1)), Some(right));
    let letter = chained(1);
    collector.handle(at(0), CollectorInput::Opened { peer: machine(2), digest: digest(1), letter });
    assert_eq!(run(&mut collector, at(0), |_, _| Way::Honest, &mut Vec::new(), 1), [1]);
    // What breaks too often in one mailbox ends that mailbox there, and no other.
    listing(&mut collector, at(1), 1, (2..=20).map(in_wrong).collect(), false);
    for n in (2..=20).cycle().take(200) {
        collector.handle(at(1), CollectorInput::Broken { peer, digest: digest(n) });
    }
    assert!(collector.metrics.refused_letters.value() < 10);
    list(&mut collector, at(2), 1, [30]);
    assert_eq!(collector.fetching(peer, digest(30)), Some(right));
}

#[test]
fn lists_that_nobody_asked_for_are_dropped_and_the_rest_is_bounded() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    let peer = machine(1);
    let of = |n| (mailbox(), digest(n), true);
    assert!(!collector.expects(&peer));
    collector.handle(at(0), CollectorInput::Asked { peer, frames: 2 });
    for n in 0..5 {
        assert_eq!(collector.expects(&peer), n < 2, "what it owes, and no more");
        let letters = (n * 400..n * 400 + 400).map(of).collect();
        collector.handle(at(0), CollectorInput::Listed { peer, letters, more: false });
    }
    assert_eq!(collector.metrics.refused_unsolicited.value(), 3);
    assert_eq!(collector.outstanding(), MAX_OPEN);
    // It has none of them: it is asked no more.
    let way = |_, _| Way::Withholds;
    run(&mut collector, at(0), way, &mut Vec::new(), 1000);
    assert!(collector.metrics.withheld.value() < 40);
    assert_eq!(collector.outstanding(), 0);
    collector.handle_timeout(at(700));
    assert_eq!(outputs(&mut collector), []);
}

#[test]
fn who_has_more_is_asked_again_with_a_pause_and_only_for_progress() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    outputs(&mut collector);
    let of = |n| (mailbox(), digest(n), true);
    for round in 0..3 {
        let now = at(round * 5);
        listing(&mut collector, now, 1, vec![of(round + 1)], true);
        let taken = run(&mut collector, now, |_, _| Way::Honest, &mut vec![round], 9);
        assert_eq!(taken, [round + 1]);
        assert_eq!(collector.poll_timeout(), Some(at(round * 5 + 5)));
        collector.handle_timeout(at(round * 5 + 5));
        assert_eq!(outputs(&mut collector), [CollectorOutput::Ask(machine(1))]);
    }
    listing(&mut collector, at(15), 1, vec![of(8)], true);
    run(&mut collector, at(15), |_, _| Way::Withholds, &mut Vec::new(), 9);
    assert_eq!(collector.poll_timeout(), Some(at(615)), "nothing came of it");
}

#[test]
fn a_holder_that_is_gone_is_not_waited_for() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    outputs(&mut collector);
    listing(&mut collector, at(0), 1, vec![(mailbox(), digest(1), true)], true);
    assert!(matches!(outputs(&mut collector)[..], [CollectorOutput::Fetch { .. }]));
    let (peer, letter) = (machine(1), chained(1));
    collector.handle(at(0), CollectorInput::Opened { peer, digest: digest(1), letter });
    collector.handle(at(0), CollectorInput::Down(peer));
    // It is delivered only now.
    assert_eq!(run(&mut collector, at(1), |_, _| Way::Honest, &mut Vec::new(), 1), [1]);
    assert_eq!(collector.poll_timeout(), None);
    collector.handle_timeout(at(1000));
    assert_eq!((outputs(&mut collector), collector.poll_timeout()), (vec![], None));
}

#[test]
fn what_the_clock_forbids_is_set_aside_and_deleted_nowhere() {
    let mut collector = collector();
    for peer in [1, 2] {
        up(&mut collector, at(0), peer);
        list(&mut collector, at(0), peer, [1]);
    }
    outputs(&mut collector);
    let peer = machine(1);
    collector.handle(at(0), CollectorInput::Untimely { peer, digest: digest(1) });
    assert_eq!((outputs(&mut collector), collector.outstanding()), (vec![], 0));
    assert_eq!(collector.metrics.untimely.value(), 1);
    // The clock was set right.
    list(&mut collector, at(600), 1, [1]);
    assert_eq!(run(&mut collector, at(600), |_, _| Way::Honest, &mut Vec::new(), 1), [1]);
}

#[test]
fn a_circle_that_its_sender_made_ends() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    list(&mut collector, at(0), 1, [1, 2]);
    outputs(&mut collector);
    for (n, after) in [(1, 2), (2, 1)] {
        let letter = letter(n, Some(after));
        let opened = CollectorInput::Opened { peer: machine(1), digest: digest(n), letter };
        collector.handle(at(0), opened);
    }
    let mut has = Vec::new();
    assert_eq!(run(&mut collector, at(0), |_, _| Way::Honest, &mut has, 2), Vec::<u64>::new());
    let later = collector.poll_timeout().expect("it ends");
    collector.handle_timeout(later);
    assert_eq!(run(&mut collector, later, |_, _| Way::Honest, &mut has, 2), [1, 2]);
    assert!(collector.lanes.is_empty());
}

#[test]
fn a_flood_of_letters_is_bounded_and_asking_has_a_pace() {
    let mut collector = collector();
    for peer in 1..=20 {
        up(&mut collector, at(0), peer);
        let base = u64::from(peer) * 10_000;
        list(&mut collector, at(0), peer, base..base + 512);
    }
    assert!(collector.items.len() <= MAX_COLLECTED);
    let fetches = outputs(&mut collector);
    let fetches = fetches.iter().filter(|output| matches!(output, CollectorOutput::Fetch { .. }));
    assert!(fetches.count() <= 20 * FETCH_WINDOW);
    // A session that begins again and again is no reason to ask.
    let mut collector = tests::collector();
    for n in 0..100 {
        up(&mut collector, at(n), 1);
        list(&mut collector, at(n), 1, []);
        collector.handle(at(n), CollectorInput::Down(machine(1)));
    }
    assert_eq!(outputs(&mut collector).len(), 1);
    up(&mut collector, at(100), 1);
    assert_eq!(collector.poll_timeout(), Some(at(600)));
    collector.handle_timeout(at(600));
    assert_eq!(outputs(&mut collector), [CollectorOutput::Ask(machine(1))]);
    // One that does not answer is asked again, a few times.
    assert_eq!(collector.poll_timeout(), Some(at(615)));
    for n in 1..=10 {
        collector.handle_timeout(at(600 + 15 * n));
    }
    assert_eq!(outputs(&mut collector).len(), MAX_ASKED_AGAIN as usize);
}

proptest! {
    /// Whatever three holders do, each letter comes at most once; in order, where no gap is told; and
    /// all that an honest holder has comes.
    #[test]
    fn what_an_honest_holder_has_arrives_in_order(
        ways in prop::collection::vec(0_u8..4, 2..=2),
        orders in prop::collection::vec(any::<u64>(), 1..=3),
        had in 0_u64..5,
        most in 1_u64..25,
    ) {
        let mut collector = collector();
        let way = |peer: MachineId, _| match ways.get(usize::from(peer.as_bytes()[0]).wrapping_sub(2)) {
            Some(0) | None => Way::Honest,
            Some(1) => Way::Tampers,
            Some(2) => Way::Withholds,
            Some(_) => Way::Silent,
        };
        // The first `had` came over a session before.
        let had = had.min(most);
        let mut has: Vec<u64> = (1..=had).collect();
        let mut delivered = Vec::new();
        let mut rng = x0x_core::SeededRng::from_number(orders[0]);
        for peer in [2, 3, 1] {
            let mut listed: Vec<u64> = (had + 1..=most).collect();
            rng.shuffle(&mut listed);
            up(&mut collector, at(0), peer);
            list(&mut collector, at(0), peer, listed);
            delivered.extend(run(&mut collector, at(0), way, &mut has, most));
        }
        for _ in 0..50 {
            let Some(next) = collector.poll_timeout().filter(|next| *next < at(500)) else { break };
            collector.handle_timeout(next);
            delivered.extend(run(&mut collector, next, way, &mut has, most));
        }
        prop_assert_eq!(delivered, (had + 1..=most).collect::<Vec<_>>());
        prop_assert_eq!(collector.gaps().count(), 0);
        prop_assert_eq!((collector.outstanding(), collector.waiting_bytes()), (0, 0));
    }
}

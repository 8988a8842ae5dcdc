//! What one sender may have, whatever it leaves.

use super::*;

/// The `n`-th letter of some sender, which waits for one that nobody has.
fn stray(of: u8, n: u64, len: usize) -> (Mailbox, Box<Opened>) {
    let from = AgentId::new([of; 32]);
    let mut letter = letter(n, Some(1_000_000 + n));
    letter.draft.payload = vec![0; len].into();
    letter.draft.sent_at = WALL + Duration::from_millis(n);
    letter.binding.agent = from;
    (Mailbox { from, ..mailbox() }, letter)
}

#[test]
fn a_sender_past_its_share_of_memory_is_in_nobodys_way() {
    const LEN: usize = 256 * 1024;
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    let peer = machine(1);
    // Nine senders whose letters wait for what never comes would fill it all.
    for of in 10..19 {
        let letters = (0..40).map(|n| (stray(of, n, 0).0, digest(u64::from(of) * 100 + n), true));
        listing(&mut collector, at(0), 1, letters.collect(), false);
    }
    let mut fetched = 0;
    while let Some(output) = collector.poll_output() {
        match output {
            CollectorOutput::Fetch { mailbox, digest, .. } => {
                fetched += 1;
                let of = mailbox.from.as_bytes()[0];
                let is = |n: &u64| self::digest(u64::from(of) * 100 + n) == digest;
                let letter = stray(of, (0..40).find(is).expect("a letter"), LEN).1;
                collector.handle(at(0), CollectorInput::Opened { peer, digest, letter });
                let from = AgentId::new([of; 32]);
                let lanes = collector.lanes.iter().filter(|((agent, _), _)| *agent == from);
                let bytes: usize = lanes.map(|(_, lane)| lane.bytes()).sum();
                assert!(bytes <= MAX_SENDER_WAITING_BYTES);
                assert!(collector.waiting_bytes() <= MAX_WAITING_BYTES);
            }
            CollectorOutput::Knows { from, id } => {
                collector.handle(at(0), CollectorInput::Known { from, id, known: false });
            }
            _ => {}
        }
    }
    assert_eq!(fetched, 9 * 40, "each once");
    list(&mut collector, at(0), 1, 1..=3);
    assert_eq!(run(&mut collector, at(0), |_, _| Way::Honest, &mut Vec::new(), 3), [1, 2, 3]);
    // In the end all of them come, in the order in which they were written.
    let mut order: BTreeMap<AgentId, Vec<MessageId>> = BTreeMap::new();
    let now = at(0) + LettersConfig::default().hole_patience;
    collector.handle_timeout(now);
    while let Some(output) = collector.poll_output() {
        match output {
            CollectorOutput::Fetch { mailbox, digest, .. } => {
                let of = mailbox.from.as_bytes()[0];
                let is = |n: &u64| self::digest(u64::from(of) * 100 + n) == digest;
                let letter = stray(of, (0..40).find(is).expect("a letter"), LEN).1;
                collector.handle(now, CollectorInput::Opened { peer, digest, letter });
            }
            CollectorOutput::Deliver(letter) => {
                let (from, id) = ((letter.from(), sender().1), letter.draft.id);
                order.entry(from.0).or_default().push(id);
                let taken = Taken::Stored;
                collector.handle(now, CollectorInput::Delivered { from, id, taken });
            }
            _ => {}
        }
    }
    assert_eq!(order.len(), 9);
    assert!(order.values().all(|ids| ids.len() == 40 && ids.is_sorted()), "{order:?}");
    assert_eq!((collector.waiting_bytes(), collector.outstanding()), (0, 0));
}

#[test]
fn a_sender_past_its_share_of_what_is_remembered_is_in_nobodys_way() {
    let mut collector = collector();
    for peer in 1..=16 {
        up(&mut collector, at(0), peer);
        // Four senders could fill it all.
        let base = u64::from(peer) * 1000;
        let of = 10 + peer % 4;
        let letters = (base..base + 500).map(|n| (stray(of, n, 0).0, digest(n), true));
        listing(&mut collector, at(0), peer, letters.collect(), false);
    }
    assert_eq!(collector.items.len(), MAX_COLLECTED);
    // Who comes with few has a turn at once.
    up(&mut collector, at(0), 20);
    list(&mut collector, at(0), 20, 1..=100);
    assert_eq!(collector.items.len(), MAX_COLLECTED);
    let delivered = run(&mut collector, at(0), |_, _| Way::Honest, &mut Vec::new(), 100);
    assert_eq!(delivered, (1..=100).collect::<Vec<_>>());
}

#[test]
fn senders_have_their_turns_at_a_holder() {
    let mut collector = collector();
    up(&mut collector, at(0), 1);
    outputs(&mut collector);
    let mut letters: Vec<_> =
        (0..100).map(|n| (stray(1, n, 0).0, digest(1000 + n), true)).collect();
    letters.push((mailbox(), digest(1), true));
    listing(&mut collector, at(0), 1, letters, false);
    let fetches = outputs(&mut collector);
    let is_ours = |output: &CollectorOutput| matches!(output, CollectorOutput::Fetch { digest, .. } if *digest == self::digest(1));
    assert_eq!((fetches.len(), fetches.iter().any(is_ours)), (FETCH_WINDOW, true));
}

use proptest::prelude::*;
use x0x_identity::MailboxSecret;

use super::*;
use crate::fixtures::{WALL, at, machine};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn secret(n: u8) -> MailboxSecret {
    MailboxSecret::new([n; 32])
}

/// What opens the `n`-th mailbox at the holder under test.
fn pickup(n: u8) -> Pickup {
    secret(n).pickup(&machine(0))
}

fn sealed(n: u8, len: usize) -> Bytes {
    vec![n; len].into()
}

fn small() -> LettersConfig {
    LettersConfig {
        hold_bytes: 40_000,
        stranger_bytes: 15_000,
        tag_bytes: 25_000,
        tag_letters: 5,
        contact_daily: 30_000,
        stranger_daily: 12_000,
        ..LettersConfig::default()
    }
}

fn holder(config: LettersConfig) -> Holder {
    let mut holder = Holder::new(config, Arc::default());
    holder.handle(Tick::ZERO, HolderInput::Wall(WALL));
    holder
}

fn outputs(holder: &mut Holder) -> Vec<HolderOutput> {
    std::iter::from_fn(|| holder.poll_output()).collect()
}

fn frame(holder: &mut Holder, now: Tick, peer: u8, standing: Standing, frame: Frame) {
    holder.handle(now, HolderInput::Frame { peer: machine(peer), standing, frame });
}

/// Deposits a letter, stores what is to be stored, and tells the outcome.
fn deposit(
    holder: &mut Holder,
    now: Tick,
    from: (u8, Standing),
    to: u8,
    letter: &Bytes,
) -> Outcome {
    let (tag, sealed) = (pickup(to).tag(), letter.clone());
    let expires_at = WALL + WEEK * 2;
    frame(holder, now, from.0, from.1, Frame::Deposit { tag, expires_at, sealed });
    loop {
        match holder.poll_output().expect("an answer") {
            HolderOutput::Store { peer, held, .. } => {
                holder.handle(now, HolderInput::Stored { peer, held, kept: true });
            }
            HolderOutput::Send { frame: Frame::Deposited { digest, outcome, until }, .. } => {
                assert_eq!(digest, Digest::of(letter));
                let is_told = until == WALL + now.since(at(0)) + WEEK;
                assert_eq!(is_told, outcome == Outcome::Kept, "until when");
                return outcome;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn listed(holder: &mut Holder, now: Tick, pickups: Vec<Pickup>) -> Vec<Digest> {
    frame(holder, now, 9, Standing::Stranger, Frame::Ask(pickups));
    match outputs(holder).pop() {
        Some(HolderOutput::Send { frame: Frame::Listing { letters, .. }, .. }) => {
            letters.iter().map(|letter| letter.digest).collect()
        }
        other => panic!("unexpected {other:?}"),
    }
}

const CONTACT: (u8, Standing) = (1, Standing::Contact);
const STRANGER: (u8, Standing) = (2, Standing::Stranger);

#[test]
fn a_letter_is_listed_fetched_and_deleted_by_whoever_has_the_pickup() {
    let mut holder = holder(LettersConfig::default());
    let letter = sealed(1, 1000);
    let digest = Digest::of(&letter);
    assert_eq!(deposit(&mut holder, at(0), CONTACT, 1, &letter), Outcome::Kept);
    assert_eq!(deposit(&mut holder, at(0), CONTACT, 1, &letter), Outcome::Kept, "a repetition");
    assert_eq!(holder.held().0, 1);
    // Another holder's pickup, or another correspondent's, opens nothing.
    let elsewhere = secret(1).pickup(&machine(7));
    assert_eq!(listed(&mut holder, at(0), vec![elsewhere, pickup(2)]), []);
    assert_eq!(listed(&mut holder, at(0), vec![pickup(2), pickup(1)]), [digest]);
    for wrong in [elsewhere, pickup(2)] {
        let delete = Frame::Delete { pickup: wrong, digests: vec![digest] };
        frame(&mut holder, at(0), 9, Standing::Stranger, delete);
        assert_eq!(outputs(&mut holder), []);
        frame(&mut holder, at(0), 9, Standing::Stranger, Frame::Fetch { pickup: wrong, digest });
        let none = Frame::Fetched { digest, sealed: None };
        assert_eq!(outputs(&mut holder), [HolderOutput::Send { peer: machine(9), frame: none }]);
    }
    let pickup = pickup(1);
    frame(&mut holder, at(0), 9, Standing::Stranger, Frame::Fetch { pickup, digest });
    let load = HolderOutput::Load { peer: machine(9), tag: pickup.tag(), digest };
    assert_eq!(outputs(&mut holder), [load]);
    let loaded = HolderInput::Loaded { peer: machine(9), digest, sealed: Some(letter.clone()) };
    holder.handle(at(0), loaded);
    let given = Frame::Fetched { digest, sealed: Some(letter) };
    assert_eq!(outputs(&mut holder), [HolderOutput::Send { peer: machine(9), frame: given }]);
    let delete = Frame::Delete { pickup, digests: vec![digest, Digest::new([3; 32])] };
    frame(&mut holder, at(0), 9, Standing::Stranger, delete);
    assert_eq!(outputs(&mut holder), [HolderOutput::Remove(vec![(pickup.tag(), digest)])]);
    assert_eq!(holder.held(), (0, 0));
}

#[test]
fn the_unwanted_are_served_like_strangers() {
    let mut of_unwanted = holder(small());
    let mut of_stranger = holder(small());
    let letter = sealed(1, 1000);
    let (pickup, digest) = (pickup(1), Digest::of(&letter));
    for holder in [&mut of_unwanted, &mut of_stranger] {
        assert_eq!(deposit(holder, at(0), CONTACT, 1, &letter), Outcome::Kept);
    }
    for n in 2..9 {
        let letter = sealed(n, 4000);
        let left = deposit(&mut of_unwanted, at(0), (9, Standing::Unwanted), n, &letter);
        assert_eq!(left, deposit(&mut of_stranger, at(0), (9, Standing::Stranger), n, &letter));
    }
    assert!(of_unwanted.held().1 < 15_000, "and no more is kept of it");
    let asks = [
        Frame::Ask(vec![pickup, tests::pickup(2), tests::pickup(7)]),
        Frame::Fetch { pickup, digest },
        Frame::Delete { pickup, digests: vec![digest] },
        Frame::Fetch { pickup, digest },
    ];
    for ask in asks {
        frame(&mut of_unwanted, at(0), 9, Standing::Unwanted, ask.clone());
        frame(&mut of_stranger, at(0), 9, Standing::Stranger, ask);
        let told = outputs(&mut of_unwanted);
        assert!(!told.is_empty());
        assert_eq!(told, outputs(&mut of_stranger));
    }
    assert_eq!(of_unwanted.held(), of_stranger.held());
}

#[test]
fn after_a_restart_the_shares_of_mailboxes_and_strangers_still_count() {
    let mut before = holder(small());
    assert_eq!(deposit(&mut before, at(0), STRANGER, 1, &sealed(1, 11_000)), Outcome::Kept);
    assert_eq!(deposit(&mut before, at(0), STRANGER, 2, &sealed(2, 2000)), Outcome::ShareUsed);
    // What a machine left today is not stored, for the store would say who left letters. What it may
    // leave beyond its share ends where that of all strangers ends.
    let mut holder = holder(small());
    before.letters.values().for_each(|kept| holder.handle(at(0), HolderInput::Restore(kept.held)));
    assert_eq!(holder.held(), before.held());
    assert_eq!(deposit(&mut holder, at(0), STRANGER, 2, &sealed(2, 2000)), Outcome::Kept);
    assert_eq!(deposit(&mut holder, at(0), STRANGER, 2, &sealed(3, 2000)), Outcome::Full);
    assert!(holder.stranger_bytes <= small().stranger_bytes);
}

#[test]
fn every_share_is_bounded_and_nothing_accepted_is_pushed_out() {
    let mut holder = holder(small());
    for n in 0..5 {
        assert_eq!(deposit(&mut holder, at(0), CONTACT, 1, &sealed(n, 100)), Outcome::Kept);
    }
    let sixth = sealed(6, 100);
    assert_eq!(
        deposit(&mut holder, at(0), CONTACT, 1, &sixth),
        Outcome::TagFull,
        "letters of a tag"
    );
    assert_eq!(deposit(&mut holder, at(0), CONTACT, 2, &sealed(7, 24_900)), Outcome::TagFull);
    assert_eq!(deposit(&mut holder, at(0), CONTACT, 2, &sealed(7, 20_000)), Outcome::Kept);
    assert_eq!(
        deposit(&mut holder, at(0), CONTACT, 3, &sealed(8, 9000)),
        Outcome::ShareUsed,
        "the share of the day"
    );
    assert_eq!(deposit(&mut holder, at(0), STRANGER, 3, &sealed(9, 11_000)), Outcome::Kept);
    let other = (3, Standing::Stranger);
    assert_eq!(
        deposit(&mut holder, at(0), other, 4, &sealed(10, 4000)),
        Outcome::Full,
        "all strangers"
    );
    let day = at(24 * 3600);
    assert_eq!(deposit(&mut holder, day, CONTACT, 4, &sealed(11, 4000)), Outcome::Kept);
    assert_eq!(
        deposit(&mut holder, day, CONTACT, 4, &sealed(12, 9000)),
        Outcome::Full,
        "everybody"
    );
    assert_eq!(listed(&mut holder, day, vec![pickup(1)]).len(), 5);
    let off = LettersConfig { holds: false, ..small() };
    let mut off = tests::holder(off);
    assert_eq!(deposit(&mut off, at(0), CONTACT, 1, &sealed(1, 10)), Outcome::Refused);
}

#[test]
fn what_expires_or_is_not_stored_makes_room() {
    let mut holder = holder(small());
    assert_eq!(deposit(&mut holder, at(0), CONTACT, 1, &sealed(1, 1000)), Outcome::Kept);
    let week = at(7 * 24 * 3600);
    assert_eq!(holder.poll_timeout(), Some(week), "no longer than letters are kept here");
    assert_eq!(listed(&mut holder, week, vec![pickup(1)]), []);
    holder.handle_timeout(week);
    let gone = vec![(pickup(1).tag(), Digest::of(&sealed(1, 1000)))];
    assert_eq!(outputs(&mut holder), [HolderOutput::Remove(gone)]);
    assert_eq!((holder.held(), holder.poll_timeout()), ((0, 0), None));
    let (tag, expires_at) = (pickup(1).tag(), WALL + WEEK * 2);
    let letter = Frame::Deposit { tag, expires_at, sealed: sealed(2, 10) };
    frame(&mut holder, at(0), 1, Standing::Contact, letter);
    let Some(HolderOutput::Store { peer, held, .. }) = holder.poll_output() else {
        panic!("it is stored");
    };
    assert_eq!(listed(&mut holder, at(0), vec![pickup(1)]), [], "it is not acknowledged yet");
    holder.handle(at(0), HolderInput::Stored { peer, held, kept: false });
    let (digest, outcome, until) = (held.digest, Outcome::Full, WallTime::default());
    let refused = Frame::Deposited { digest, outcome, until };
    assert_eq!(outputs(&mut holder), [HolderOutput::Send { peer, frame: refused }]);
    assert_eq!(holder.held(), (0, 0));
}

#[test]
fn an_asker_has_a_rate_and_long_lists_are_told_in_parts() {
    let many = LettersConfig {
        tag_letters: 10_000,
        tag_bytes: 1 << 40,
        hold_bytes: 1 << 40,
        ..LettersConfig::default()
    };
    let mut holder = holder(many);
    for n in 0..MAX_LISTED as u64 + 10 {
        let digest = Digest::of(&n.to_be_bytes());
        let (tag, expires_at) = (pickup(1).tag(), WALL + WEEK);
        let held = Held { tag, digest, bytes: 10, expires_at, stranger: true };
        holder.handle(at(0), HolderInput::Restore(held));
    }
    let ask = || Frame::Ask(vec![pickup(1)]);
    frame(&mut holder, at(0), 9, Standing::Stranger, ask());
    match outputs(&mut holder).pop() {
        Some(HolderOutput::Send { frame: Frame::Listing { letters, more }, .. }) => {
            assert_eq!((letters.len(), more), (MAX_LISTED, true));
        }
        other => panic!("unexpected {other:?}"),
    }
    for _ in 0..1000 {
        frame(&mut holder, at(0), 9, Standing::Stranger, ask());
    }
    assert_eq!(outputs(&mut holder).len(), ASKS.0 as usize - 1);
    frame(&mut holder, at(0), 8, Standing::Stranger, ask());
    assert_eq!(outputs(&mut holder).len(), 1, "others are answered");
    // Letters that are read for one machine at once are bounded, too.
    let pickup = pickup(1);
    for n in 0..100_u64 {
        let digest = Digest::of(&n.to_be_bytes());
        frame(&mut holder, at(0), 8, Standing::Stranger, Frame::Fetch { pickup, digest });
    }
    assert_eq!(outputs(&mut holder).len(), MAX_LOADS);
}

#[test]
fn letters_being_read_are_bounded_in_bytes() {
    const LARGE: usize = 384 * 1024;
    let config = LettersConfig { tag_letters: 512, ..LettersConfig::default() };
    let mut holder = holder(config);
    let (pickup, name) = (pickup(1), |n: u64| Digest::of(&n.to_be_bytes()));
    for n in 0..20 {
        let (tag, expires_at) = (pickup.tag(), WALL + WEEK);
        let bytes = LARGE as u32;
        let held = Held { tag, digest: name(n), bytes, expires_at, stranger: true };
        holder.handle(at(0), HolderInput::Restore(held));
    }
    let fetch = |digest| Frame::Fetch { pickup, digest };
    // The same letter again and again is read once.
    for _ in 0..512 {
        frame(&mut holder, at(0), 9, Standing::Stranger, fetch(name(0)));
    }
    assert_eq!((outputs(&mut holder).len(), holder.loading(&machine(9))), (1, LARGE));
    assert_eq!(holder.metrics.refused_fetches.value(), 511);
    for peer in 9..100 {
        for n in 0..20 {
            frame(&mut holder, at(0), peer, Standing::Stranger, fetch(name(n)));
        }
        assert!(holder.loading(&machine(peer)) <= MAX_LOADING);
    }
    assert!(holder.loading <= MAX_LOADING_ALL && holder.loading + LARGE > MAX_LOADING_ALL);
    let sealed = Some(sealed(1, LARGE));
    let loaded = HolderInput::Loaded { peer: machine(9), digest: name(0), sealed };
    holder.handle(at(0), loaded);
    for peer in 9..100 {
        holder.handle(at(0), HolderInput::Down(machine(peer)));
    }
    assert_eq!(holder.loading, 0);
}

#[test]
fn machines_whose_share_is_counted_are_bounded() {
    let mut holder = holder(LettersConfig::default());
    for n in 0..MAX_DEPOSITORS as u64 + 5 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let (tag, expires_at) = (pickup(1).tag(), WALL + WEEK);
        let letter = Frame::Deposit { tag, expires_at, sealed: n.to_be_bytes().to_vec().into() };
        let (peer, standing) = (MachineId::new(id), Standing::Stranger);
        holder.handle(at(n), HolderInput::Frame { peer, standing, frame: letter });
        // It is not stored, so that the mailbox does not fill.
        for output in outputs(&mut holder) {
            if let HolderOutput::Store { peer, held, .. } = output {
                holder.handle(at(n), HolderInput::Stored { peer, held, kept: false });
            }
        }
        outputs(&mut holder);
    }
    assert_eq!(holder.daily.len(), MAX_DEPOSITORS);
    for n in 0..100 {
        holder.handle(at(9999), HolderInput::Down(machine(n)));
    }
    assert!(holder.peers.is_empty());
}

proptest! {
    #[test]
    fn accounts_stay_right_whatever_is_asked(
        ops in prop::collection::vec((0_u8..6, 0_u8..4, 0_u8..12, 0_u16..9000), 1..200)
    ) {
        let mut holder = holder(small());
        let mut stored: BTreeMap<(Tag, Digest), Bytes> = BTreeMap::new();
        let mut pending: Vec<(MachineId, Held, Bytes)> = Vec::new();
        for (now, (op, to, letter, len)) in (0..).zip(ops) {
            let now = at(now * 3000);
            holder.handle_timeout(now);
            let content = sealed(letter, usize::from(len) + 1);
            let digest = Digest::of(&content);
            let standing = [Standing::Contact, Standing::Stranger][usize::from(letter % 2)];
            match op {
                0..2 => {
                    let (tag, expires_at) = (pickup(to).tag(), WALL + WEEK);
                    let letter = Frame::Deposit { tag, expires_at, sealed: content };
                    frame(&mut holder, now, to + 1, standing, letter);
                }
                2 => if let Some((peer, held, content)) = pending.pop() {
                    let kept = len % 3 > 0;
                    if kept {
                        stored.insert((held.tag, held.digest), content);
                    }
                    holder.handle(now, HolderInput::Stored { peer, held, kept });
                },
                3 => {
                    let digests = stored.keys().map(|(_, digest)| *digest).take(2);
                    let delete = Frame::Delete { pickup: pickup(to), digests: digests.collect() };
                    frame(&mut holder, now, 9, standing, delete);
                }
                4 => {
                    let fetch = Frame::Fetch { pickup: pickup(to), digest };
                    frame(&mut holder, now, 9, standing, fetch);
                }
                _ => frame(&mut holder, now, 9, standing, Frame::Ask(vec![pickup(to)])),
            }
            for output in outputs(&mut holder) {
                match output {
                    HolderOutput::Store { peer, held, sealed } => {
                        pending.push((peer, held, sealed));
                    }
                    HolderOutput::Remove(gone) => for name in gone {
                        stored.remove(&name);
                    },
                    HolderOutput::Load { tag, digest, .. } => {
                        prop_assert!(stored.contains_key(&(tag, digest)));
                    }
                    HolderOutput::Send { frame: Frame::Listing { letters, .. }, .. } => {
                        for letter in letters {
                            prop_assert!(stored.contains_key(&(letter.tag, letter.digest)));
                        }
                    }
                    HolderOutput::Send { .. } => {}
                }
            }
            let config = small();
            let cost: u64 = holder.letters.values().map(|kept| kept.held.cost()).sum();
            prop_assert_eq!(cost, holder.bytes);
            prop_assert!(holder.bytes <= config.hold_bytes);
            prop_assert!(holder.stranger_bytes <= config.stranger_bytes);
            prop_assert_eq!(holder.letters.len(), holder.expiries.len());
            let acknowledged = holder.letters.values().filter(|kept| kept.stored).count();
            prop_assert!(acknowledged <= stored.len(), "what is acknowledged is stored");
        }
    }
}

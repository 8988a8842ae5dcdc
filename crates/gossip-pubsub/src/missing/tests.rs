//! Who is asked for what, and when.

use super::*;

fn key(n: u8) -> Key {
    (TopicId::new([1; 32]), (AgentId::new([n; 32]), 1))
}

fn peer(n: u8) -> MachineId {
    MachineId::new([n; 32])
}

fn report(n: u8, upto: u64, wait: Option<Duration>) -> Report {
    Report { peer: peer(n), upto, hops: 3, need_key: false, wait }
}

fn choose(table: &MissingTable, now: Tick, head: u64) -> Choice {
    table.choose(now, &key(1), head, (true, Duration::MAX), |_| Some((0, 0, 0)))
}

#[test]
fn one_link_at_a_time_is_asked_and_a_few_times_only() {
    let (mut table, limits) = (MissingTable::default(), Limits::default());
    let mut now = Tick::ZERO;
    assert!(table.note(now, key(1), report(1, 10, None), &limits));
    assert!(!table.note(now, key(1), report(2, 12, None), &limits) || table.due(now).is_some());
    let mut asked = Vec::new();
    while let Choice::Ask { peer, .. } = choose(&table, now, 0) {
        table.asked(&key(1), peer, (now, now + limits.ask_again));
        assert_eq!(table.due(now), None);
        asked.push(peer);
        now = now + limits.ask_again;
        assert_eq!(table.due(now), Some(key(1)));
    }
    assert_eq!(asked, [peer(1), peer(2), peer(1)]);
    assert_eq!(choose(&table, now, 0), Choice::GiveUp);
    // Progress begins the count anew.
    assert_eq!(table.progress(&key(1), 5, &peer(1), (now, now)), Progress::Some);
    assert!(matches!(choose(&table, now, 5), Choice::Ask { .. }));
    assert_eq!(
        table.progress(&key(1), 12, &peer(1), (now, now)),
        Progress::Done(Some((peer(1), 3)))
    );
    assert_eq!((table.len(), table.next_deadline()), (0, None));
}

#[test]
fn an_announcement_gives_the_tree_its_time_and_a_gap_does_not() {
    let (mut table, limits) = (MissingTable::default(), Limits::default());
    let (now, wait) = (Tick::ZERO, Duration::from_millis(300));
    assert!(!table.note(now, key(1), report(1, 10, Some(wait)), &limits));
    assert_eq!(table.due(now), None);
    assert_eq!(table.due(now + wait), Some(key(1)));
    let Choice::Ask { tree, .. } = choose(&table, now, 0) else { panic!("somebody") };
    assert!(tree);
    assert!(table.note(now, key(1), report(2, 10, None), &limits));
    assert_eq!(table.due(now), Some(key(1)));
}

#[test]
fn a_floor_is_asked_again_when_nobody_else_is_left_or_patience_ends() {
    let (mut table, limits) = (MissingTable::default(), Limits::default());
    let now = Tick::ZERO;
    table.note(now, key(1), report(1, 10, None), &limits);
    assert!(table.note_floor(
        now,
        key(1),
        report(1, 10, None),
        (0, 5, limits.gap_patience),
        &limits
    ));
    assert!(!table.note_floor(
        now,
        key(1),
        report(1, 10, None),
        (0, 5, limits.gap_patience),
        &limits
    ));
    table.suggest(&key(1), [peer(1), peer(2)].into_iter());
    assert!(matches!(choose(&table, now, 0), Choice::Ask { peer: p, .. } if p == peer(2)));
    for _ in 0..MAX_TRIES {
        table.asked(&key(1), peer(2), (now, now));
    }
    assert_eq!(choose(&table, now, 0), Choice::Wait(now + limits.gap_patience));
    let later = now + limits.gap_patience;
    assert!(matches!(choose(&table, later, 0), Choice::Ask { peer: p, .. } if p == peer(1)));
    table.remove_peer(&peer(2), now);
    assert!(matches!(choose(&table, now, 0), Choice::Ask { peer: p, .. } if p == peer(1)));
    assert!(table.floor(&key(1), &peer(1), 0).is_some_and(|floor| floor.first == 5));
    assert!(table.floor(&key(1), &peer(1), 3).is_none(), "of another head");
}

#[test]
fn the_table_and_each_link_s_part_of_it_are_bounded() {
    let limits = Limits { missing: 4, link_missing: 3, ..Limits::default() };
    let (mut table, now) = (MissingTable::default(), Tick::ZERO);
    let tell = |table: &mut MissingTable, from: u8, keys: std::ops::Range<u8>| {
        keys.for_each(|n| {
            table.note(now, key(n), report(from, 10, None), &limits);
        });
    };
    tell(&mut table, 1, 0..9);
    assert_eq!(table.len(), 3);
    tell(&mut table, 2, 20..29);
    assert_eq!((table.len(), table.owned_by(&peer(1)), table.owned_by(&peer(2))), (4, 2, 2));
    tell(&mut table, 3, 30..39);
    assert_eq!((table.len(), table.owned_by(&peer(3))), (4, 1), "everybody gets a share");
    assert_eq!(table.crowded.len(), 3);
    let left: Vec<Key> = table.entries.keys().copied().collect();
    left.iter().take(3).for_each(|key| table.remove(key));
    let room = table.take_crowded(&limits);
    assert_eq!(room.len(), 3, "all have room again");
    assert!(table.take_crowded(&limits).is_empty(), "told once");
    table.remove_topic(&key(0).0);
    assert_eq!((table.len(), table.owned.len(), table.deadlines.len()), (0, 0, 0));
}

#[test]
fn a_link_that_ends_leaves_its_ranges_to_those_who_told_of_them_too() {
    let (mut table, limits, now) = (MissingTable::default(), Limits::default(), Tick::ZERO);
    let wait = Some(Duration::from_secs(9));
    table.note(now, key(1), report(1, 10, wait), &limits);
    table.note(now, key(1), report(2, 7, wait), &limits);
    table.note(now, key(2), report(1, 10, wait), &limits);
    table.remove_peer(&peer(1), now);
    assert_eq!((table.owned_by(&peer(2)), table.due(now)), (1, Some(key(2))));
    assert_eq!(choose(&table, now, 7), Choice::GiveUp, "what only the other one claimed is gone");
}

#[test]
fn an_announcer_answers_for_its_own_word_and_makes_way_after_failing() {
    let (mut table, limits, now) = (MissingTable::default(), Limits::default(), Tick::ZERO);
    table.note(now, key(1), report(1, 5, None), &limits);
    table.note(now, key(1), report(2, u64::MAX, None), &limits);
    assert!(!table.is_promised(&key(1), 5, &peer(1)) && table.is_promised(&key(1), 5, &peer(2)));
    assert!(table.promised(&key(1), 5, &peer(2)).next().is_none());
    (3..=8).for_each(|n| {
        table.note(now, key(1), report(n, 9, None), &limits);
    });
    table.note(now, key(1), report(9, 9, None), &limits);
    assert!(!table.is_promised(&key(1), 5, &peer(9)), "none of them was tried");
    table.asked(&key(1), peer(2), (now, now));
    table.note(now, key(1), report(9, 9, None), &limits);
    assert!(table.is_promised(&key(1), 5, &peer(9)) && !table.is_promised(&key(1), 5, &peer(2)));
}

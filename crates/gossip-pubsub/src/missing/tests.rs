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
    table.choose(now, &key(1), head, &Limits::default(), |_| Some(0))
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
    assert_eq!(table.progress(&key(1), 5, now, now), Progress::Some);
    assert!(matches!(choose(&table, now, 5), Choice::Ask { .. }));
    assert_eq!(table.progress(&key(1), 12, now, now), Progress::Done(Some((peer(1), 3))));
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
    assert!(table.note_floor(now, key(1), report(1, 10, None), (0, 5), &limits));
    assert!(!table.note_floor(now, key(1), report(1, 10, None), (0, 5), &limits));
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
    let limits = Limits { missing: 3, link_missing: 2, ..Limits::default() };
    let (mut table, now) = (MissingTable::default(), Tick::ZERO);
    (0..9).for_each(|n| {
        table.note(now, key(n), report(1, 10, None), &limits);
    });
    assert_eq!(table.len(), 2);
    (0..9).for_each(|n| {
        table.note(now, key(n), report(2, 10, None), &limits);
    });
    assert_eq!(table.len(), 3);
    assert!(table.take_crowded(&limits).is_empty(), "no room yet");
    table.remove(&key(0));
    table.remove(&key(1));
    assert_eq!(table.take_crowded(&limits).len(), 1);
    table.remove_topic(&key(0).0);
    assert_eq!((table.len(), table.owned.len(), table.deadlines.len()), (0, 0, 0));
}

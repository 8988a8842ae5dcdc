//! The files of the tail: cut and damaged, full, taken and put back.

use std::{fs, path::PathBuf};

use x0x_core::{TopicId, WallTime};

use super::*;

fn change(n: u64) -> LogChange {
    LogChange::Reach { topic: TopicId::new([7; 32]), incarnation: 1, position: n }
}

fn config(dir: &tempfile::TempDir) -> StoreConfig {
    StoreConfig::at(dir.path().join("x0x.db"))
}

fn paths(dir: &tempfile::TempDir) -> [PathBuf; 2] {
    SUFFIXES.map(|suffix| file::with_suffix(&dir.path().join("x0x.db"), suffix))
}

/// Opened, with nothing left from before.
fn opened(dir: &tempfile::TempDir) -> Tail {
    let (tail, replayed) = Tail::open(&config(dir));
    assert!(replayed.is_empty());
    tail.replayed(0);
    tail
}

fn left(left: &[Left]) -> Vec<u64> {
    left.iter().flat_map(|left| positions(&left.changes)).collect()
}

fn positions(replayed: &[Replayed]) -> Vec<u64> {
    let position = |replayed: &Replayed| match replayed {
        Replayed::Other(LogChange::Reach { position, .. }) => *position,
        other => panic!("not what was written: {other:?}"),
    };
    replayed.iter().map(position).collect()
}

#[test]
fn what_was_not_applied_comes_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let tail = opened(&dir);
    assert_eq!(tail.append(&[change(1), change(2)]), Some(Appended::First));
    assert_eq!(tail.append(&[change(3)]), Some(Appended::More));
    let taken = tail.take().unwrap();
    assert_eq!(taken.changes.len(), 3);
    assert_eq!(tail.append(&[change(4)]), Some(Appended::First));
    drop(tail);
    // The first file was never emptied: it is read before the second, whichever is which.
    let (tail, replayed) = Tail::open(&config(&dir));
    assert_eq!(left(&replayed), [1, 2, 3, 4]);
    assert!(replayed[0].generation < replayed[1].generation);
    assert_eq!(tail.append(&[change(5)]), None, "what was left goes first");
    tail.done_through(1);
    tail.replayed(0);
    assert_eq!(tail.append(&[change(5)]), Some(Appended::First));
    drop(tail);
    assert_eq!(left(&Tail::open(&config(&dir)).1), [5]);
}

#[test]
fn applied_changes_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let tail = opened(&dir);
    for n in 0..10 {
        assert_eq!(tail.append(&[change(2 * n)]), Some(Appended::First));
        tail.take().unwrap();
        assert_eq!(tail.append(&[change(2 * n + 1)]), Some(Appended::First));
        tail.applied();
        tail.take().unwrap();
        tail.applied();
        assert!(tail.take().is_none());
    }
    assert!(paths(&dir).iter().all(|path| fs::metadata(path).unwrap().len() == 0));
}

#[test]
fn what_cannot_be_applied_stays_and_stops_the_tail() {
    let dir = tempfile::tempdir().unwrap();
    let tail = opened(&dir);
    tail.append(&[change(1)]).unwrap();
    let taken = tail.take().unwrap();
    tail.append(&[change(2)]).unwrap();
    tail.put_back(taken);
    assert_eq!(tail.append(&[change(3)]), None, "goes through the writer");
    tail.done_through(1);
    let all = tail.take().unwrap();
    assert_eq!(all.changes.len(), 2);
    tail.put_back(all);
    assert_eq!(tail.take().unwrap().changes.len(), 2);
    tail.applied();
    assert_eq!(tail.append(&[change(4)]), Some(Appended::First));
    drop(tail);
    assert_eq!(left(&Tail::open(&config(&dir)).1), [4]);
}

#[test]
fn what_follows_a_commit_through_the_writer_goes_that_way_too() {
    let dir = tempfile::tempdir().unwrap();
    let tail = opened(&dir);
    let many: Vec<_> = (0..=MAX_TAIL_CHANGES as u64).map(change).collect();
    assert_eq!(tail.append(&many), None);
    assert_eq!(tail.append(&[change(1)]), None);
    tail.done_through(1);
    assert_eq!(tail.append(&[change(2)]), None);
    tail.done_through(2);
    assert_eq!(tail.append(&[change(3)]), Some(Appended::First));
}

#[test]
fn a_cut_or_flipped_file_costs_whole_commits_from_there_on() {
    let dir = tempfile::tempdir().unwrap();
    let tail = opened(&dir);
    for n in 0..5 {
        tail.append(&[change(2 * n), change(2 * n + 1)]).unwrap();
    }
    drop(tail);
    let path = &paths(&dir)[0];
    let whole = fs::read(path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        for bytes in [&whole[..at], &flipped[..]] {
            let read = positions(&record::read_all(bytes).1);
            assert_eq!(read.len() % 2, 0, "commits are whole");
            // Flipping a bit of the generation changes nothing that is held.
            assert!(read.iter().copied().eq(0..read.len() as u64));
        }
    }
    assert_eq!(record::read_all(&whole).1.len(), 10);
}

#[test]
fn every_kind_of_change_is_read_back() {
    let topic = TopicId::new([1; 32]);
    let author = AgentId::new([2; 32]);
    let changes = [
        LogChange::EvictTo { topic, position: 3 },
        LogChange::Remove { topic, position: u64::MAX },
        LogChange::Replace { topic, position: 6 },
        LogChange::Reach { topic, incarnation: 9, position: 4 },
        LogChange::Block { topic, author },
        LogChange::DropTopic { topic },
        LogChange::Expire { before: WallTime::from_millis(5) },
    ];
    let mut buffer = Vec::new();
    record::begin(&mut buffer, 8);
    record::add(&mut buffer, &changes, &mut BTreeSet::new());
    let (generation, replayed) = record::read_all(&buffer);
    assert_eq!(generation, 8);
    let read: Vec<_> = replayed
        .iter()
        .map(|replayed| match replayed {
            Replayed::Other(change) => format!("{change:?}"),
            Replayed::Append(_) => panic!("no run was written"),
        })
        .collect();
    assert_eq!(read, changes.map(|change| format!("{change:?}")));
}

#[test]
fn a_second_process_and_the_safer_durability_do_without() {
    let dir = tempfile::tempdir().unwrap();
    let tail = opened(&dir);
    tail.append(&[change(1)]).unwrap();
    let (second, replayed) = Tail::open(&config(&dir));
    assert!(replayed.is_empty());
    second.replayed(0);
    assert_eq!(second.append(&[change(2)]), None);
    drop((tail, second));
    let power = StoreConfig { durability: Durability::Power, ..config(&dir) };
    let (tail, replayed) = Tail::open(&power);
    assert_eq!(left(&replayed), [1], "what was left is still read");
    tail.replayed(0);
    assert_eq!(tail.append(&[change(2)]), None);
    drop(tail);
    assert!(Tail::open(&power).1.is_empty(), "and only once");
}

/// Makes a file one that cannot be cut or written.
fn spoil(tail: &Tail, path: &Path, spoiled: bool) {
    let file = OpenOptions::new().read(true).write(!spoiled).open(path).unwrap();
    let mut state = tail.state();
    let active = state.active;
    let files = state.files.as_mut().unwrap();
    let len = files[active].len;
    files[active].file = file;
    if !spoiled {
        files[active].cut(len).unwrap();
    }
}

#[test]
fn what_is_in_a_spoiled_file_outlives_the_batch_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let tail = opened(&dir);
    tail.append(&[change(1)]).unwrap();
    tail.take().unwrap();
    tail.append(&[change(2)]).unwrap();
    let path = &paths(&dir)[1];
    spoil(&tail, path, true);
    assert_eq!(tail.append(&[change(3)]), None, "goes through the writer");
    tail.applied();
    let held = |path: &PathBuf| positions(&record::read_all(&fs::read(path).unwrap()).1);
    assert_eq!(held(path), [2], "not in the tables yet");

    assert_eq!(tail.take().unwrap().changes.len(), 1);
    tail.applied();
    tail.done_through(1);
    assert_eq!(tail.append(&[change(4)]), None, "until the file can be emptied");
    tail.done_through(1);
    assert!(tail.take().is_none());
    assert_eq!(tail.append(&[change(4)]), None);
    tail.done_through(1);
    spoil(&tail, path, false);
    assert!(tail.take().is_none());
    assert_eq!(tail.append(&[change(5)]), Some(Appended::First));
    assert_eq!(held(path), [5]);
}

#[test]
fn no_two_batches_are_of_one_generation() {
    let dir = tempfile::tempdir().unwrap();
    let tail = opened(&dir);
    let mut last = 0;
    let mut take = |tail: &Tail| {
        let taken = tail.take().unwrap();
        assert!(taken.generation > last, "{} after {last}", taken.generation);
        last = taken.generation;
        taken
    };
    tail.append(&[change(1)]).unwrap();
    let first = take(&tail);
    tail.append(&[change(2)]).unwrap();
    tail.put_back(first);
    take(&tail);
    tail.applied();
    tail.append(&[change(3)]).unwrap();
    let third = take(&tail);
    assert_eq!(third.changes.len(), 1);
    tail.applied();
    drop(tail);
    // The files are empty: only the tables know how far the numbers were.
    let (tail, replayed) = Tail::open(&config(&dir));
    assert!(replayed.is_empty());
    tail.replayed(third.generation);
    tail.append(&[change(4)]).unwrap();
    take(&tail);
}

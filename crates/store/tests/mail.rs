//! Mail and letters in a real file.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{path::Path, time::Duration};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, WallTime};
use x0x_direct::{
    DirectMessage, Unread,
    mail::{
        Consumer, HistoryEntry, HistoryPlace, HistoryQuery, Letter, LetterState, MailChange,
        MailError, MailOutcome, MailStore as _, Retention,
    },
};
use x0x_store::{Durability, SqliteStore, StoreConfig};

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn at(secs: u64) -> WallTime {
    WallTime::from_millis(secs * 1000)
}

fn message(n: u64, text: &str) -> DirectMessage {
    DirectMessage {
        id: u128::from(n).to_be_bytes(),
        from: agent(1),
        to: agent(2),
        machine: MachineId::new([3; 32]),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        received_at: at(n),
        number: 0,
        reply_to: n.is_multiple_of(2).then_some([7; 16]),
        wants_read: n.is_multiple_of(3),
        from_stranger: n == 3,
    }
}

fn letter(n: u64, text: &str) -> Letter {
    Letter {
        number: 0,
        id: u128::from(n).to_be_bytes(),
        from: agent(2),
        to: agent(1),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        reply_to: None,
        wants_read: true,
        is_read_note: false,
        posted_at: at(n),
        expires_at: at(n + 100),
        state: LetterState::Queued,
        changed_at: at(n),
    }
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(StoreConfig::at(path)).await.unwrap()
}

async fn commit(store: &SqliteStore, changes: Vec<MailChange>) -> Vec<MailOutcome> {
    use x0x_direct::mail::MailStore;
    MailStore::commit(store, changes).await.unwrap()
}

async fn receive(store: &SqliteStore, numbers: std::ops::RangeInclusive<u64>) {
    let changes = numbers.map(|n| MailChange::Receive(message(n, &format!("text {n}"))));
    commit(store, changes.collect()).await;
}

#[tokio::test]
async fn mail_is_kept_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let store = open(&path).await;
    receive(&store, 1..=3).await;
    let changes = vec![
        MailChange::Receive(message(2, "again")),
        MailChange::Receive(message(4, "four")),
        MailChange::Seen(2),
        MailChange::Consumer { name: "a".into(), record: Bytes::from_static(b"record") },
    ];
    let outcomes = commit(&store, changes).await;
    let expected =
        [MailOutcome::Duplicate, MailOutcome::Stored(4), MailOutcome::Done, MailOutcome::Done];
    assert_eq!(outcomes, expected);
    store.close().await.unwrap();

    let store = open(&path).await;
    let stored = x0x_direct::mail::MailStore::load(&store).await.unwrap();
    assert_eq!((stored.last, stored.floor, stored.seen), (4, 0, 2));
    let unread = |number, bytes| {
        let (from, machine) = (agent(1), MachineId::new([3; 32]));
        Unread { number, from, machine, bytes }
    };
    assert_eq!(stored.unread, [unread(3, 6), unread(4, 4)]);
    assert_eq!(stored.consumers, [("a".to_owned(), Bytes::from_static(b"record"))]);
    let mail = store.mail(1, 10, u64::MAX).await.unwrap();
    let expected: Vec<DirectMessage> = [(2, "text 2"), (3, "text 3"), (4, "four")]
        .map(|(n, text)| DirectMessage { number: n, ..message(n, text) })
        .to_vec();
    assert_eq!(mail, expected);
    assert_eq!(store.mail(0, 2, u64::MAX).await.unwrap().len(), 2);
    assert_eq!(store.mail(0, 10, 7).await.unwrap().len(), 2, "bytes end a page");
    assert_eq!(store.mail_by_number(vec![4, 9, 1]).await.unwrap().len(), 2);
    let again = commit(&store, vec![MailChange::Receive(message(1, "late"))]).await;
    assert_eq!(again, [MailOutcome::Duplicate], "known after a restart");
    store.close().await.unwrap();
}

#[tokio::test]
async fn letters_come_further_and_never_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let store = open(&path).await;
    let posts = (1..=3).map(|n| MailChange::Post(letter(n, "hello"))).collect();
    assert_eq!(commit(&store, posts).await.len(), 3);
    assert_eq!(
        commit(&store, vec![MailChange::Post(letter(2, "x"))]).await,
        [MailOutcome::Duplicate]
    );
    let advance = |n: u64, by, state| MailChange::Advance {
        id: u128::from(n).to_be_bytes(),
        by,
        state,
        at: at(50),
    };
    let changes = vec![
        advance(1, None, LetterState::Received),
        advance(1, Some(agent(9)), LetterState::Read),
        advance(1, Some(agent(1)), LetterState::Read),
        advance(1, None, LetterState::Cancelled),
        advance(2, None, LetterState::Cancelled),
        advance(8, None, LetterState::Read),
    ];
    let expected = [
        MailOutcome::Stored(1),
        MailOutcome::Missing,
        MailOutcome::Stored(1),
        MailOutcome::Missing,
        MailOutcome::Stored(2),
        MailOutcome::Missing,
    ];
    assert_eq!(commit(&store, changes).await, expected);
    store.close().await.unwrap();
    let store = open(&path).await;
    let stored = x0x_direct::mail::MailStore::load(&store).await.unwrap();
    let pending: Vec<u64> = stored.pending.iter().map(|letter| letter.number).collect();
    assert_eq!(pending, [3], "what is settled is not sent again");
    let found = store.letter(1_u128.to_be_bytes()).await.unwrap().unwrap();
    assert_eq!(
        (found.state, found.changed_at, &found.payload[..]),
        (LetterState::Read, at(50), &b"hello"[..])
    );
    assert_eq!(store.letters(vec![3, 4]).await.unwrap().len(), 1);
    store.close().await.unwrap();
}

fn texts(found: &[HistoryEntry]) -> Vec<String> {
    let text = |entry: &HistoryEntry| match entry {
        HistoryEntry::Received(message) => {
            format!("< {}", String::from_utf8_lossy(&message.payload))
        }
        HistoryEntry::Sent(letter) => format!("> {}", String::from_utf8_lossy(&letter.payload)),
    };
    found.iter().map(text).collect()
}

#[tokio::test]
async fn history_is_searched_by_words() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("x0x.db")).await;
    commit(
        &store,
        vec![
            MailChange::Receive(message(1, "Grüße aus Bremen")),
            MailChange::Receive(message(2, "the ship sails")),
            MailChange::Receive(DirectMessage {
                payload: Bytes::from_static(&[0xff; 9]),
                ..message(3, "")
            }),
            MailChange::Post(letter(4, "which ship? \"that\" one")),
        ],
    )
    .await;
    let search = |words: &[&str]| HistoryQuery {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        limit: 10,
        ..HistoryQuery::default()
    };
    let find = async |query| texts(&store.history(query).await.unwrap().entries);
    assert_eq!(find(search(&["ship"])).await, ["> which ship? \"that\" one", "< the ship sails"]);
    assert_eq!(find(search(&["SHIP", "sails"])).await, ["< the ship sails"]);
    assert_eq!(find(search(&["grusse"])).await, [""; 0], "another spelling");
    assert_eq!(find(search(&["bremen"])).await.len(), 1);
    for hostile in ["\"", "ship OR 1", "*", "body:ship", "NEAR(", "'; DROP TABLE mail"] {
        // Whatever it finds, it is no query language.
        store.history(search(&[hostile])).await.unwrap();
    }
    assert_eq!(find(search(&[])).await.len(), 4);
    // What comes later is found, too.
    commit(&store, vec![MailChange::Receive(message(9, "another ship"))]).await;
    assert_eq!(find(search(&["ship"])).await.len(), 3);
    let with = HistoryQuery { agent: Some(agent(8)), limit: 10, ..HistoryQuery::default() };
    assert!(find(with).await.is_empty());
    let old = HistoryQuery { before: Some(at(3)), limit: 1, ..HistoryQuery::default() };
    assert_eq!(find(old).await, ["< the ship sails"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn history_ends_at_its_bytes_and_goes_on_before_that() {
    const LARGE: usize = 3 * 1024 * 1024;

    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("x0x.db")).await;
    let text = "x".repeat(LARGE);
    let mut changes: Vec<_> = (1..=5).map(|n| MailChange::Receive(message(n, &text))).collect();
    // Between the messages, one that comes after the end of the page, and must not be told before those it hides.
    changes.push(MailChange::Post(Letter { posted_at: at(2), ..letter(50, "early") }));
    changes.push(MailChange::Post(Letter { posted_at: at(5), ..letter(51, "late") }));
    commit(&store, changes).await;
    let (mut from, mut times) = (Some(HistoryPlace::START), Vec::new());
    while from.is_some() {
        let query = HistoryQuery { from, limit: 100, ..HistoryQuery::default() };
        let page = store.history(query).await.unwrap();
        let bytes: usize = page.entries.iter().map(|entry| entry.payload().len()).sum();
        assert!(bytes < 3 * LARGE);
        times.extend(page.entries.iter().map(HistoryEntry::time));
        from = page.next;
    }
    assert_eq!(times, [5, 5, 4, 3, 2, 2, 1].map(at));
    store.close().await.unwrap();
}

/// Ten messages of one moment, after which the clock was set back, and read notes between them.
#[tokio::test]
async fn pages_of_history_leave_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("x0x.db")).await;
    let came = |n: u64, second: u64| {
        MailChange::Receive(DirectMessage { received_at: at(second), ..message(n, &n.to_string()) })
    };
    let posted = |n: u64, is_read_note: bool| {
        MailChange::Post(Letter { posted_at: at(7), is_read_note, ..letter(n, &n.to_string()) })
    };
    let mut changes: Vec<_> = (1..=10).map(|n| came(n, 7)).collect();
    changes.extend((11..=14).map(|n| came(n, 3)));
    changes.extend((20..=29).map(|n| posted(n, n % 2 == 0)));
    commit(&store, changes).await;
    for limit in [1, 2, 3, 50] {
        let (mut from, mut found) = (None, Vec::new());
        loop {
            let query = HistoryQuery { from, limit, ..HistoryQuery::default() };
            let page = store.history(query).await.unwrap();
            assert!(page.entries.len() <= limit);
            found.extend(texts(&page.entries));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        found.sort_unstable();
        let mut expected: Vec<String> = (1..=14).map(|n| format!("< {n}")).collect();
        expected.extend((20..=29).filter(|n| n % 2 == 1).map(|n| format!("> {n}")));
        expected.sort_unstable();
        assert_eq!(found, expected, "{limit} a page");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_not_kept_goes_and_is_still_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let store = open(&path).await;
    receive(&store, 1..=1000).await;
    let posts = (1..=600).map(|n| MailChange::Post(letter(n, "hello"))).collect();
    commit(&store, posts).await;
    let done = (1..=500).map(|n: u64| MailChange::Advance {
        id: u128::from(n).to_be_bytes(),
        by: None,
        state: LetterState::Received,
        at: at(n),
    });
    commit(&store, done.collect()).await;
    let all = HistoryQuery { words: vec!["text".into()], limit: 2000, ..HistoryQuery::default() };
    assert_eq!(store.history(all.clone()).await.unwrap().entries.len(), 1000);
    let mut retention = Retention::default();
    retention.messages = 300;
    commit(&store, vec![MailChange::Prune { retention, now: at(1000) }]).await;
    // Pruning goes on beside other work.
    for _ in 0..100 {
        if store.mail(0, 1, u64::MAX).await.unwrap()[0].number == 701 {
            break;
        }
        commit(&store, vec![MailChange::Seen(0)]).await;
    }
    let kept = store.mail(0, 2000, u64::MAX).await.unwrap();
    assert_eq!((kept.len(), kept[0].number), (300, 701));
    assert_eq!(store.history(all).await.unwrap().entries.len(), 300);
    assert!(store.letter(1_u128.to_be_bytes()).await.unwrap().is_none());
    assert!(store.letter(550_u128.to_be_bytes()).await.unwrap().is_some(), "it is pending");
    let again = commit(&store, vec![MailChange::Receive(message(5, "late"))]).await;
    assert_eq!(again, [MailOutcome::Duplicate], "a late retry is known");
    store.close().await.unwrap();
    let store = open(&path).await;
    let stored = x0x_direct::mail::MailStore::load(&store).await.unwrap();
    assert_eq!((stored.last, stored.floor), (1000, 700));
    retention.age = Duration::from_secs(10);
    commit(&store, vec![MailChange::Prune { retention, now: at(1000) }]).await;
    for _ in 0..100 {
        if store.mail(0, 1, u64::MAX).await.unwrap()[0].number == 990 {
            return store.close().await.unwrap();
        }
        commit(&store, vec![MailChange::Seen(0)]).await;
    }
    panic!("the old does not go");
}

/// Prunes until nothing more goes.
async fn prune(store: &SqliteStore, retention: Retention) {
    commit(store, vec![MailChange::Prune { retention, now: at(0) }]).await;
    for _ in 0..20 {
        commit(store, vec![MailChange::Seen(0)]).await;
    }
}

fn from(sender: u8, stranger: bool, n: u64) -> MailChange {
    let text = format!("text {n}");
    MailChange::Receive(DirectMessage {
        from: agent(sender),
        from_stranger: stranger,
        ..message(n, &text)
    })
}

async fn kept(store: &SqliteStore) -> Vec<u64> {
    store.mail(0, 10_000, u64::MAX).await.unwrap().iter().map(|mail| mail.number).collect()
}

#[tokio::test]
async fn a_flood_of_strangers_never_pushes_out_what_a_contact_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let store = open(&path).await;
    commit(&store, (1..=50).map(|n| from(1, false, n)).collect()).await;
    commit(&store, (51..=1500).map(|n| from(8, true, n)).collect()).await;
    // Somebody has had all of it, so that it is no share of unread mail that holds them back.
    commit(&store, vec![MailChange::Seen(1500)]).await;
    let words = HistoryQuery { words: vec!["text".into()], limit: 2000, ..HistoryQuery::default() };
    assert_eq!(store.history(words.clone()).await.unwrap().entries.len(), 1500);
    let mut retention = Retention::default();
    retention.messages = 400;
    prune(&store, retention).await;
    let expected: Vec<u64> = (1..=50).chain(1401..=1500).collect();
    assert_eq!(kept(&store).await, expected, "strangers have a quarter");
    assert_eq!(store.history(words).await.unwrap().entries.len(), 150);
    let again = commit(&store, vec![from(8, true, 60)]).await;
    assert_eq!(again, [MailOutcome::Duplicate], "a late retry is known");
    // The counts are those of the file after a restart, too.
    store.close().await.unwrap();
    let store = open(&path).await;
    commit(&store, (1501..=1600).map(|n| from(9, true, n)).collect()).await;
    prune(&store, retention).await;
    assert_eq!(kept(&store).await.len(), 150);
    // By their bytes no less.
    retention.bytes = 4 * 150;
    prune(&store, retention).await;
    let left = kept(&store).await;
    assert_eq!((left.len(), left[49], left[50]), (66, 50, 1585), "16 of 9 bytes, and no contact's");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_a_consumer_has_not_acknowledged_goes_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("x0x.db")).await;
    commit(&store, (1..=100).map(|n| from(1, false, n)).collect()).await;
    commit(&store, (101..=150).map(|n| from(8, true, n)).collect()).await;
    commit(&store, (151..=200).map(|n| from(1, false, n)).collect()).await;
    let consumer = |name: &str, cursor| MailChange::Consumer {
        name: name.into(),
        record: Consumer::new(cursor, at(0)).encode(),
    };
    commit(&store, vec![MailChange::Seen(200), consumer("a", 20), consumer("b", 90)]).await;
    let mut retention = Retention::default();
    for (messages, first, first_of_stranger) in [(190, 8, 104), (180, 16, 106)] {
        retention.messages = messages;
        prune(&store, retention).await;
        let expected: Vec<u64> = (first..=100).chain(first_of_stranger..=200).collect();
        assert_eq!(kept(&store).await, expected, "a quarter, and what all have acknowledged");
    }
    retention.messages = 140;
    prune(&store, retention).await;
    let expected: Vec<u64> = (21..=100).chain(141..=200).collect();
    assert_eq!(kept(&store).await, expected, "then what a stranger left");
    retention.messages = 100;
    prune(&store, retention).await;
    let expected: Vec<u64> = (51..=100).chain(151..=200).collect();
    assert_eq!(kept(&store).await, expected, "then the oldest");
    store.close().await.unwrap();
}

/// The oldest of what was read goes before anything that nobody was handed, strangers' included.
#[tokio::test]
async fn what_nobody_was_handed_goes_last_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("x0x.db")).await;
    commit(&store, (1..=100).map(|n| from(1, false, n)).collect()).await;
    commit(&store, (101..=110).map(|n| from(8, true, n)).collect()).await;
    commit(&store, (111..=160).map(|n| from(1, false, n)).collect()).await;
    let lagging =
        MailChange::Consumer { name: "lagging".into(), record: Consumer::new(0, at(0)).encode() };
    commit(&store, vec![MailChange::Seen(100), lagging]).await;
    let mut retention = Retention::default();
    retention.messages = 80;
    prune(&store, retention).await;
    let expected: Vec<u64> = (81..=160).collect();
    assert_eq!(kept(&store).await, expected, "no stranger's");
    retention.messages = 40;
    prune(&store, retention).await;
    let expected: Vec<u64> = (121..=160).collect();
    assert_eq!(kept(&store).await, expected, "where there is nothing else");
    store.close().await.unwrap();
}

#[tokio::test]
async fn mail_that_is_flushed_is_kept_as_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = StoreConfig::at(dir.path().join("x0x.db"));
    config.mail_durability = Durability::Power;
    let store = SqliteStore::open(config).await.unwrap();
    receive(&store, 1..=3).await;
    commit(&store, vec![MailChange::Seen(1), MailChange::Post(letter(4, "four"))]).await;
    assert_eq!(kept(&store).await, [1, 2, 3]);
    assert!(store.letter(4_u128.to_be_bytes()).await.unwrap().is_some());
    store.close().await.unwrap();
}

#[tokio::test]
async fn damage_is_told_from_mail() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let store = open(&path).await;
    receive(&store, 1..=3).await;
    store.close().await.unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute("UPDATE mail SET payload = x'66616c7365' WHERE number = 2", []).unwrap();
    drop(file);
    let store = open(&path).await;
    let numbers: Vec<u64> =
        store.mail(0, 10, u64::MAX).await.unwrap().iter().map(|mail| mail.number).collect();
    assert_eq!(numbers, [1, 3], "a row that was changed is not mail");
    store.close().await.unwrap();
    // A file that is lost is followed by greater numbers.
    std::fs::write(&path, [0; 8192]).unwrap();
    for suffix in ["-wal", "-shm", "-tail0", "-tail1"] {
        let _ = std::fs::remove_file(dir.path().join(format!("x0x.db{suffix}")));
    }
    let store = open(&path).await;
    let outcomes = commit(&store, vec![MailChange::Receive(message(4, "four"))]).await;
    assert!(
        matches!(outcomes[..], [MailOutcome::Stored(number)] if number > 1 << 40),
        "{outcomes:?}"
    );
    store.close().await.unwrap();
    assert_eq!(store.letter([0; 16]).await, Err(MailError::Closed));
}

/// A bit of the file flips somewhere: what is read is what was written, or nothing.
#[tokio::test]
async fn a_flipped_bit_never_makes_other_mail() {
    let seed: u64 = std::env::var("X0X_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    println!("X0X_SEED={seed}");
    let mut rng = x0x_core::SeededRng::from_number(seed);
    let dir = tempfile::tempdir().unwrap();
    let pristine = dir.path().join("pristine.db");
    let store = open(&pristine).await;
    receive(&store, 1..=200).await;
    commit(&store, (1..=50).map(|n| MailChange::Post(letter(n, "to be sent"))).collect()).await;
    let mail = store.mail(0, 1000, u64::MAX).await.unwrap();
    store.close().await.unwrap();
    let whole = std::fs::read(&pristine).unwrap();
    let (mut fewer, mut anew) = (0, 0);
    for round in 0..40 {
        let path = dir.path().join(format!("{round}.db"));
        let mut bytes = whole.clone();
        // What is before that names the file and its schema.
        let at = usize::try_from(rng.range(4096, whole.len() as u64)).unwrap();
        bytes[at] ^= 1 << rng.below(8);
        std::fs::write(&path, bytes).unwrap();
        let store = open(&path).await;
        match store.mail(0, 1000, u64::MAX).await {
            Ok(read) => {
                assert!(read.iter().all(|one| mail.contains(one)), "byte {at}");
                fewer += usize::from(read.len() < mail.len());
            }
            Err(_) => anew += 1,
        }
        for n in 1..=50_u64 {
            if let Ok(Some(read)) = store.letter(u128::from(n).to_be_bytes()).await {
                let posted = letter(n, "to be sent");
                assert_eq!((read.to, read.payload), (posted.to, posted.payload), "byte {at}");
            }
        }
        // The store goes on, in this file or in a new one.
        let next = vec![MailChange::Receive(message(1000, "next"))];
        let stored = match store.commit(next.clone()).await {
            Err(_) => commit(&store, next).await,
            Ok(stored) => stored,
        };
        assert!(matches!(stored[..], [MailOutcome::Stored(_)]), "byte {at}: {stored:?}");
        store.close().await.unwrap();
    }
    assert!(fewer + anew > 0, "{fewer} lack some, {anew} begun anew");
}

//! What is left of the mail and of replicated objects when a page of its file is damaged.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{collections::BTreeSet, path::Path};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, WallTime};
use x0x_direct::{
    DirectMessage,
    mail::{Letter, LetterState, MailChange, MailOutcome, MailStore as _},
};
use x0x_gossip_crdt::{CrdtStore, Descriptor, Saved};
use x0x_gossip_pubsub::Cursor;
use x0x_store::{SqliteStore, StoreConfig};

const MESSAGES: u64 = 600;
const PAGE: usize = 4096;

fn text(n: u64) -> String {
    format!("<text {n}> {}", "x".repeat(200))
}

fn message(n: u64) -> DirectMessage {
    DirectMessage {
        id: u128::from(n).to_be_bytes(),
        from: AgentId::new([1; 32]),
        to: AgentId::new([2; 32]),
        machine: MachineId::new([3; 32]),
        payload: text(n).into(),
        received_at: WallTime::from_millis(n),
        number: 0,
        reply_to: None,
        wants_read: false,
        from_stranger: n.is_multiple_of(2),
    }
}

fn letter() -> Letter {
    let at = WallTime::from_millis(1);
    Letter {
        number: 0,
        id: [9; 16],
        from: AgentId::new([2; 32]),
        to: AgentId::new([1; 32]),
        payload: Bytes::from_static(b"still to be sent"),
        reply_to: None,
        wants_read: false,
        is_read_note: false,
        posted_at: at,
        expires_at: at,
        state: LetterState::Queued,
        changed_at: at,
    }
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(StoreConfig::at(path)).await.unwrap()
}

async fn commit(store: &SqliteStore, changes: Vec<MailChange>) -> Vec<MailOutcome> {
    store.commit(changes).await.unwrap()
}

/// A file with mail, a letter and a consumer.
async fn written(path: &Path) {
    let store = open(path).await;
    commit(&store, (1..=MESSAGES).map(|n| MailChange::Receive(message(n))).collect()).await;
    let record = Bytes::from_static(b"record");
    let consumer = MailChange::Consumer { name: "reader".into(), record };
    commit(&store, vec![MailChange::Post(letter()), consumer, MailChange::Seen(100)]).await;
    store.close().await.unwrap();
}

/// Overwrites the page that holds a message, which is not the root of its table.
fn damage(path: &Path, n: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    let sought = text(n);
    let at = bytes.windows(sought.len()).position(|found| found == sought.as_bytes()).unwrap();
    let page = at / PAGE * PAGE;
    bytes[page..page + PAGE].fill(0xff);
    std::fs::write(path, bytes).unwrap();
}

async fn numbers(store: &SqliteStore) -> BTreeSet<u64> {
    let mail = store.mail(0, 10_000, u64::MAX).await.unwrap();
    assert!(mail.iter().all(|one| one.payload == text(one.number)));
    mail.iter().map(|one| one.number).collect()
}

#[tokio::test]
async fn a_damaged_page_costs_what_is_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    written(&path).await;
    let hit = [200, 210, 400, MESSAGES];
    for n in hit {
        // Some are on one page, which is damaged once.
        if std::fs::read(&path).unwrap().windows(16).any(|at| text(n).as_bytes().starts_with(at)) {
            damage(&path, n);
        }
    }
    let store = open(&path).await;
    let kept = numbers(&store).await;
    assert_eq!(store.metrics().files_damaged.value(), 1, "the damage is met");
    assert!(hit.iter().all(|n| !kept.contains(n)));
    assert!(kept.len() as u64 > MESSAGES - 80, "{} kept", kept.len());
    assert!(kept.contains(&1) && kept.contains(&300) && kept.contains(&500));
    assert!(path.with_file_name("x0x.db.corrupt-1").exists());
    let carried = store.metrics().rows_carried.value();
    assert_eq!(carried, kept.len() as u64 + 2, "and the letter and the consumer");
    assert_eq!(store.letter([9; 16]).await.unwrap().unwrap().payload, letter().payload);

    // Numbers go on, and what was seen stays seen.
    let next = commit(&store, vec![MailChange::Receive(message(MESSAGES + 1))]).await;
    assert_eq!(next, [MailOutcome::Stored(MESSAGES + 1)]);
    let known = commit(&store, vec![MailChange::Receive(message(300))]).await;
    assert_eq!(known, [MailOutcome::Duplicate], "what was carried over does not come twice");
    store.close().await.unwrap();
    let store = open(&path).await;
    let stored = x0x_direct::mail::MailStore::load(&store).await.unwrap();
    assert_eq!((stored.last, stored.floor, stored.seen), (MESSAGES + 1, 0, 100));
    assert_eq!(stored.consumers.len(), 1);
    assert_eq!(stored.unread.len(), kept.range(101..).count() + 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_file_cut_short_costs_what_was_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    written(&path).await;
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(length * 2 / 3).unwrap();
    let store = open(&path).await;
    let kept = numbers(&store).await;
    assert!(kept.len() as u64 > MESSAGES / 4, "{} kept", kept.len());
    let outcomes = commit(&store, vec![MailChange::Receive(message(MESSAGES + 9))]).await;
    let [MailOutcome::Stored(next)] = outcomes[..] else { panic!("{outcomes:?}") };
    assert!(next > *kept.last().unwrap(), "numbers rise");
    store.close().await.unwrap();
}

#[tokio::test]
async fn objects_survive_a_damaged_page_of_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    written(&path).await;
    let store = open(&path).await;
    let objects: Vec<Descriptor> =
        (0..5).map(|n| Descriptor::open("sample/1", &format!("object {n}"))).collect();
    let replica = |n: usize| -> Bytes {
        let text = format!("<replica {n}> ");
        text.repeat(20_000 / text.len()).into()
    };
    for (n, object) in objects.iter().enumerate() {
        store.remember(object.clone()).await.unwrap();
        let saved = Saved::new(Some(Cursor::new(7, 9)), replica(n));
        store.save(object.id(), saved).await.unwrap();
    }
    store.close().await.unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let sought = "<replica 2> ".repeat(PAGE / 12 - 2);
    let at = bytes.windows(sought.len()).position(|found| found == sought.as_bytes()).unwrap();
    let page = at.div_ceil(PAGE) * PAGE;
    bytes[page..page + 8].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    // One in the file of mail, which is met.
    damage(&path, 200);
    let store = open(&path).await;
    assert!(store.mail(0, 10_000, u64::MAX).await.is_ok(), "the damage is met");
    let mut known = store.objects().await.unwrap();
    known.sort_by_key(|object| objects.iter().position(|other| other == object));
    assert_eq!(known, objects, "all of them are known");
    for (n, object) in objects.iter().enumerate() {
        let loaded = CrdtStore::load(&store, object.id()).await.unwrap();
        if n == 2 {
            assert_eq!(loaded, None, "it reads its log from the beginning");
        } else {
            // The log that it had read is gone with the file.
            assert_eq!(loaded, Some(Saved::new(None, replica(n))));
        }
    }
    store.close().await.unwrap();
}

/// Overwrites each page but the first in turn. Whatever the start of an agent reads first is answered, with what
/// is left of the mail; and another start finds the same.
#[tokio::test]
async fn no_damaged_page_keeps_the_rest_from_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    let whole = {
        let store = open(&path).await;
        let changes = (1..=40).map(|n| MailChange::Receive(message(n))).collect();
        commit(&store, changes).await;
        store.close().await.unwrap();
        std::fs::read(&path).unwrap()
    };
    let (mut all, mut lost) = (0, 0);
    for page in 1..whole.len() / PAGE {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x0x.db");
        let mut bytes = whole.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        let store = open(&path).await;
        let stored = x0x_direct::mail::MailStore::load(&store).await;
        assert!(stored.is_ok(), "page {page}: {stored:?}");
        let sealed = x0x_direct::letters::LetterStore::load(&store).await;
        assert!(sealed.is_ok(), "page {page}");
        let kept = numbers(&store).await;
        store.close().await.unwrap();
        let store = open(&path).await;
        assert_eq!(numbers(&store).await, kept, "page {page}");
        store.close().await.unwrap();
        all += 1;
        lost += 40 - kept.len();
    }
    println!("{all} pages damaged in turn, {lost} of {} messages lost", all * 40);
    assert!(lost < all * 8, "{lost} lost with {all} pages");
}

#[tokio::test]
async fn a_replacement_that_was_cut_off_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x0x.db");
    written(&path).await;
    damage(&path, 200);
    // As a crash leaves it in the middle: set aside, and nothing in its place but a part.
    std::fs::rename(&path, path.with_file_name("x0x.db.corrupt-1")).unwrap();
    std::fs::write(path.with_file_name("x0x.db.new"), b"a part").unwrap();
    let store = open(&path).await;
    let kept = numbers(&store).await;
    assert!(kept.len() as u64 > MESSAGES - 80, "{} kept", kept.len());
    assert!(!path.with_file_name("x0x.db.new").exists());
    store.close().await.unwrap();
}

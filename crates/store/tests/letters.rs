//! Sealed letters on disk: what is committed is there after a restart, and what is damaged is left out.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, WallTime};
use x0x_direct::{
    DirectMessage,
    letters::{Deposit, Digest, Grant, Held, LetterChange, LetterStore, Met, StoredLetters},
    mail::{MailChange, MailStore},
};
use x0x_identity::{
    Pickup, Tag, mailbox_period,
    testing::{kem_key, key},
};
use x0x_store::{SqliteStore, StoreConfig};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(StoreConfig::at(folder.join("x0x.db"))).await.expect("it opens")
}

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn held(n: u8) -> (Held, Bytes) {
    let sealed: Bytes = vec![n; 20_000].into();
    let held = Held {
        tag: Tag::new([n; 32]),
        digest: Digest::of(&sealed),
        bytes: 20_000,
        expires_at: NOW + Duration::from_secs(n.into()),
        stranger: n.is_multiple_of(2),
    };
    (held, sealed)
}

fn grant(secret: u8) -> Grant {
    Grant {
        owner: agent(1),
        correspondent: agent(2),
        period: mailbox_period(NOW),
        kem: kem_key(1).public_key().clone(),
        machine: MachineId::new([9; 32]),
        secret: key(1).mailboxes().secret(&agent(secret), &MachineId::new([9; 32]), 1),
        places: Some([secret; 32]),
    }
}

fn deposit(id: u8, holder: u8) -> Deposit {
    let (holder, digest) = (MachineId::new([holder; 32]), Digest::new([id; 32]));
    let (pickup, until) = (Pickup::new([id; 32]), NOW + Duration::from_secs(id.into()));
    Deposit { id: [id; 16], to: agent(9), holder, digest, pickup, until }
}

fn met(agent: u8, machine: u8) -> Met {
    Met { agent: self::agent(agent), machine: MachineId::new([machine; 32]), at: NOW }
}

async fn load(store: &SqliteStore) -> StoredLetters {
    LetterStore::load(store).await.expect("it can be read")
}

#[tokio::test]
async fn everything_outlives_a_restart_until_it_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    let ((one, first), (two, second)) = (held(1), held(2));
    let changes = vec![
        LetterChange::Hold { held: one, sealed: first.clone() },
        LetterChange::Hold { held: two, sealed: second },
        LetterChange::Grant(grant(3)),
        LetterChange::Grant(grant(4)),
        LetterChange::Met(met(5, 1)),
        LetterChange::Met(met(6, 1)),
        LetterChange::Met(met(6, 2)),
        LetterChange::Deposited(deposit(7, 1)),
        LetterChange::Deposited(deposit(7, 2)),
        LetterChange::Deposited(deposit(8, 1)),
        LetterChange::Deposited(deposit(8, 2)),
    ];
    // Repeating them changes nothing.
    for _ in 0..2 {
        LetterStore::commit(&store, changes.clone()).await.expect("they are committed");
    }
    store.close().await.expect("it closes");

    let store = open(dir.path()).await;
    let stored = load(&store).await;
    assert_eq!(stored.held, [one, two]);
    assert_eq!(stored.grants, [grant(4)]);
    assert_eq!(stored.met, [met(5, 1), met(6, 1), met(6, 2)]);
    assert_eq!(stored.deposits, [deposit(7, 1), deposit(7, 2), deposit(8, 1), deposit(8, 2)]);
    assert_eq!(store.sealed(one.tag, one.digest).await, Ok(Some(first)));
    assert_eq!(store.sealed(two.tag, one.digest).await, Ok(None));
    let changes = vec![
        LetterChange::Remove { tag: one.tag, digest: one.digest },
        LetterChange::DropGrant(agent(1)),
        LetterChange::DropMet { agent: agent(6), machine: MachineId::new([1; 32]) },
        LetterChange::Settled([7; 16]),
        LetterChange::Lapsed { id: [8; 16], holder: MachineId::new([2; 32]) },
    ];
    LetterStore::commit(&store, changes).await.expect("they are committed");
    let stored = load(&store).await;
    assert_eq!((stored.held, stored.grants), (vec![two], vec![]));
    assert_eq!(stored.met, [met(5, 1), met(6, 2)]);
    assert_eq!(stored.deposits, [deposit(8, 1)]);
}

#[tokio::test]
async fn mail_that_came_is_known_by_machine_and_id() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    let machine = MachineId::new([3; 32]);
    let message = DirectMessage {
        id: [1; 16],
        from: agent(1),
        to: agent(2),
        machine,
        payload: "x".into(),
        received_at: NOW,
        number: 0,
        reply_to: None,
        wants_read: false,
        from_stranger: false,
    };
    MailStore::commit(&store, vec![MailChange::Receive(message)]).await.expect("it is committed");
    assert_eq!(store.has_mail(machine, [1; 16]).await, Ok(true));
    assert_eq!(store.has_mail(machine, [2; 16]).await, Ok(false));
    assert_eq!(store.has_mail(MachineId::new([4; 32]), [1; 16]).await, Ok(false));
}

#[tokio::test]
async fn damaged_rows_are_left_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    let (held, sealed) = held(1);
    let change = LetterChange::Hold { held, sealed };
    LetterStore::commit(&store, vec![change]).await.expect("it is committed");
    store.close().await.expect("it closes");
    let file = rusqlite::Connection::open(dir.path().join("x0x.db")).expect("a database");
    file.execute("UPDATE held SET sealed = zeroblob(20000)", []).expect("changed");
    file.execute("INSERT INTO mailbox VALUES (x'01', x'ff')", []).expect("changed");
    file.execute("INSERT INTO correspondent VALUES (x'01', x'02', 5)", []).expect("changed");
    drop(file);
    let store = open(dir.path()).await;
    let stored = load(&store).await;
    assert_eq!((stored.grants.len(), stored.met.len()), (0, 0));
    assert_eq!(store.sealed(held.tag, held.digest).await, Ok(None));
    assert!(store.metrics().rows_damaged.value() >= 3);
}

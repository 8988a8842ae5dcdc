//! Readers over a store in memory.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use x0x_core::{MachineId, SystemClock, WallTime};
use x0x_direct::{
    Quotas, Standing, Standings, Unread,
    mail::{
        HistoryPage, HistoryQuery, Letter, MailChange, MailOutcome, MemoryMailStore, Retention,
        StoredMail,
    },
};
use x0x_transport::BoxFuture;
use x0x_trust::Trust;

use super::*;

#[derive(Debug)]
struct Everybody;

impl Standings for Everybody {
    fn standing(&self, _: &AgentId, _: &MachineId) -> Standing {
        Standing::Contact
    }

    fn may_send(&self, _: &AgentId, _: &MachineId) -> bool {
        true
    }
}

fn mailbox(store: Arc<dyn MailStore>, admittance: Admittance, last: u64) -> Mailbox {
    Mailbox::new(store, admittance, last, Arc::default())
}

struct Desk {
    mailbox: Mailbox,
    gate: Gate,
}

impl Desk {
    fn new() -> Self {
        let admittance = Admittance::new(Arc::new(Everybody), Quotas::default());
        let mailbox = mailbox(Arc::new(MemoryMailStore::default()), admittance, 0);
        let trust = Trust::in_memory(Arc::new(SystemClock::new()));
        Self { mailbox, gate: Gate::new(trust, AgentId::new([9; 32]), 0) }
    }

    fn reader(&self) -> DirectEvents {
        self.mailbox.reader(self.gate.clone())
    }

    /// A message comes: stored, or passing by.
    async fn comes(&self, n: u64, stored: bool, len: usize) {
        let mut message = DirectMessage {
            id: u128::from(n).to_be_bytes(),
            from: AgentId::new([1; 32]),
            to: AgentId::new([2; 32]),
            machine: MachineId::new([3; 32]),
            payload: Bytes::from(vec![0; len]),
            received_at: WallTime::default(),
            number: 0,
            reply_to: None,
            wants_read: false,
            from_stranger: false,
        };
        if stored {
            let change = MailChange::Receive(message.clone());
            let outcomes = self.mailbox.store().commit(vec![change]).await.expect("it is stored");
            let [MailOutcome::Stored(number)] = outcomes[..] else { panic!("{outcomes:?}") };
            message.number = number;
        }
        self.mailbox.push(message);
    }
}

async fn take(reader: &mut DirectEvents) -> u128 {
    match reader.next().await {
        Some(DirectEvent::Message(message)) => u128::from_be_bytes(message.id),
        other => panic!("expected a message, got {other:?}"),
    }
}

#[tokio::test]
async fn a_reader_sees_what_nobody_has_read_and_then_what_comes() {
    let desk = Desk::new();
    let many = MAX_MAILBOX_MESSAGES as u64 + 500;
    for n in 1..=many {
        desk.comes(n, true, 10).await;
    }
    let mut reader = desk.reader();
    for n in 1..=many {
        assert_eq!(take(&mut reader).await, u128::from(n), "from the store, then from memory");
    }
    assert!(reader.next().now_or_never().is_none());
    desk.comes(many + 1, true, 10).await;
    assert_eq!(take(&mut reader).await, u128::from(many + 1));
    assert!(desk.reader().next().now_or_never().is_none(), "all of it was read");
    let mut resumed = desk.reader().resume_after(many - 2);
    assert_eq!(take(&mut resumed).await, u128::from(many - 1));
    desk.mailbox.close();
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn a_slow_reader_goes_on_in_the_store_and_is_told_what_was_never_there() {
    let desk = Desk::new();
    let mut reader = desk.reader();
    desk.comes(1, true, 10).await;
    desk.comes(2, false, 10).await;
    assert_eq!((take(&mut reader).await, take(&mut reader).await), (1, 2));
    assert!(desk.reader().next().now_or_never().is_none(), "somebody has had both");
    for n in 3..13 {
        desk.comes(n, false, 10).await;
    }
    for n in 13..13 + MAX_MAILBOX_MESSAGES as u64 {
        desk.comes(n, true, 10).await;
    }
    for n in 13..13 + MAX_MAILBOX_MESSAGES as u64 {
        match reader.next().await {
            Some(DirectEvent::Lagged { missed }) => {
                assert_eq!(missed, 10, "the ones that were never stored");
                assert_eq!(take(&mut reader).await, u128::from(n));
            }
            Some(DirectEvent::Message(message)) => {
                assert_eq!(message.id, u128::from(n).to_be_bytes());
            }
            None => panic!("the mailbox is open"),
        }
    }
}

#[tokio::test]
async fn what_was_pruned_is_counted() {
    let desk = Desk::new();
    for n in 1..=100 {
        desk.comes(n, true, 10).await;
    }
    let mut retention = Retention::default();
    retention.messages = 30;
    let prune = MailChange::Prune { retention, now: WallTime::default() };
    desk.mailbox.store().commit(vec![prune]).await.expect("it is pruned");
    // As after a restart: nothing is in memory.
    let store = Arc::clone(desk.mailbox.store());
    let admittance = Admittance::new(Arc::new(Everybody), Quotas::default());
    let desk = Desk { mailbox: mailbox(store, admittance, 100), gate: desk.gate };
    let mut reader = desk.reader().resume_after(20);
    assert!(matches!(reader.next().await, Some(DirectEvent::Lagged { missed: 50 })));
    for n in 71..=100 {
        assert_eq!(take(&mut reader).await, n);
    }
    let mut stranger = desk.reader().resume_after(5000);
    assert!(matches!(stranger.next().await, Some(DirectEvent::Lagged { missed: 70 })));
}

#[tokio::test]
async fn an_answer_comes_to_who_asked_and_from_nobody_else() {
    let desk = Desk::new();
    let asked = 7_u128.to_be_bytes();
    let answer = desk.mailbox.answer_to(asked, AgentId::new([1; 32])).expect("room");
    assert!(desk.mailbox.answer_to(asked, AgentId::new([1; 32])).is_none(), "asked twice");
    let message = |from: u8| DirectMessage {
        id: [from; 16],
        from: AgentId::new([from; 32]),
        to: AgentId::new([2; 32]),
        machine: MachineId::new([3; 32]),
        payload: Bytes::new(),
        received_at: WallTime::default(),
        number: 0,
        reply_to: Some(asked),
        wants_read: false,
        from_stranger: false,
    };
    desk.mailbox.push(message(5));
    desk.mailbox.push(message(1));
    assert_eq!(answer.await.expect("it is answered").id, [1; 16]);
}

/// A store whose pages cannot be read so many times.
#[derive(Debug)]
struct Failing {
    inner: MemoryMailStore,
    failures: AtomicU32,
}

impl MailStore for Failing {
    fn load(&self) -> BoxFuture<'_, Result<StoredMail, MailError>> {
        self.inner.load()
    }

    fn commit(
        &self,
        changes: Vec<MailChange>,
    ) -> BoxFuture<'_, Result<Vec<MailOutcome>, MailError>> {
        self.inner.commit(changes)
    }

    fn mail(
        &self,
        after: u64,
        limit: usize,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Vec<DirectMessage>, MailError>> {
        let left = self.failures.load(Ordering::Relaxed);
        if left > 0 {
            self.failures.store(left - 1, Ordering::Relaxed);
            return Box::pin(std::future::ready(Err(MailError::Failed("a bad sector".into()))));
        }
        self.inner.mail(after, limit, bytes)
    }

    fn mail_by_number(
        &self,
        numbers: Vec<u64>,
    ) -> BoxFuture<'_, Result<Vec<DirectMessage>, MailError>> {
        self.inner.mail_by_number(numbers)
    }

    fn letters(&self, numbers: Vec<u64>) -> BoxFuture<'_, Result<Vec<Letter>, MailError>> {
        self.inner.letters(numbers)
    }

    fn letter(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Letter>, MailError>> {
        self.inner.letter(id)
    }

    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<HistoryPage, MailError>> {
        self.inner.history(query)
    }
}

/// More mail than memory keeps, in a store that fails so many times, and a reader at its beginning.
async fn failing(failures: u32, count: u64) -> (Desk, DirectEvents) {
    let failures = AtomicU32::new(failures);
    let store = Arc::new(Failing { inner: MemoryMailStore::default(), failures });
    let admittance = Admittance::new(Arc::new(Everybody), Quotas::default());
    let desk = Desk { mailbox: mailbox(store, admittance, 0), gate: Desk::new().gate };
    for n in 1..=count {
        desk.comes(n, true, 10).await;
    }
    let reader = desk.reader();
    (desk, reader)
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_be_read_is_tried_again() {
    let many = MAX_MAILBOX_MESSAGES as u64 + 100;
    let (_desk, mut reader) = failing(READ_RETRIES, many).await;
    // As a stream does that sends signs of life: what it waits for is dropped and begun anew.
    let mut first = None;
    while first.is_none() {
        let next = tokio::time::timeout(READ_PAUSE / 3, reader.next());
        first = next.await.ok().flatten();
    }
    assert!(matches!(first, Some(DirectEvent::Message(message)) if message.number == 1));
    for n in 2..=many {
        assert_eq!(take(&mut reader).await, u128::from(n), "nothing is skipped");
    }
}

#[tokio::test(start_paused = true)]
async fn what_stays_unreadable_is_told_and_what_memory_has_is_not_skipped() {
    let many = MAX_MAILBOX_MESSAGES as u64 + 100;
    let (_desk, mut reader) = failing(READ_RETRIES + 1, many).await;
    assert!(matches!(reader.next().await, Some(DirectEvent::Lagged { missed: 100 })));
    for n in 101..=many {
        assert_eq!(take(&mut reader).await, u128::from(n));
    }
}

#[tokio::test]
async fn a_reader_that_begins_late_leaves_what_is_before_it_unread() {
    let desk = Desk::new();
    let unread = |number| {
        let (from, machine) = (AgentId::new([1; 32]), MachineId::new([3; 32]));
        Unread { number, from, machine, bytes: 10 }
    };
    desk.mailbox.0.admittance.restore(0, (1..=20).map(unread));
    for n in 1..=20 {
        desk.comes(n, true, 10).await;
    }
    let mut late = desk.reader().resume_after(15);
    for n in 16..=20 {
        assert_eq!(take(&mut late).await, n);
    }
    assert_eq!(desk.mailbox.seen(), 0, "nobody has read the first");
    let mut first = desk.reader();
    for n in 1..=20 {
        assert_eq!(take(&mut first).await, n);
    }
    assert_eq!(desk.mailbox.seen(), 20);
}

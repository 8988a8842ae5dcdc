//! Consumers over a store in memory, which may have no room.

use std::sync::atomic::AtomicBool;

use x0x_core::{AgentId, MachineId, SystemClock, Tick};
use x0x_direct::{
    Admission as _, Admit, Admittance, DirectMessage, Quotas, Standing, Standings,
    mail::{
        HistoryPage, HistoryQuery, Letter, MailOutcome, MailStore, MemoryMailStore, StoredMail,
    },
    wire::{MessageIn, Terms},
};
use x0x_transport::BoxFuture;
use x0x_trust::Trust;

use super::*;

const OWN: AgentId = AgentId::new([9; 32]);
const LEASE: Option<Lease> = Some(Lease::of(Duration::from_secs(30)));

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

/// A store that may be full.
#[derive(Debug, Default)]
struct Filling {
    inner: MemoryMailStore,
    full: AtomicBool,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, MailError>>;

impl MailStore for Filling {
    fn load(&self) -> Answer<'_, StoredMail> {
        self.inner.load()
    }

    fn commit(&self, changes: Vec<MailChange>) -> Answer<'_, Vec<MailOutcome>> {
        if self.full.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(MailError::Full)));
        }
        self.inner.commit(changes)
    }

    fn mail(&self, after: u64, limit: usize, bytes: u64) -> Answer<'_, Vec<DirectMessage>> {
        self.inner.mail(after, limit, bytes)
    }

    fn mail_by_number(&self, numbers: Vec<u64>) -> Answer<'_, Vec<DirectMessage>> {
        self.inner.mail_by_number(numbers)
    }

    fn letters(&self, numbers: Vec<u64>) -> Answer<'_, Vec<Letter>> {
        self.inner.letters(numbers)
    }

    fn letter(&self, id: x0x_direct::MessageId) -> Answer<'_, Option<Letter>> {
        self.inner.letter(id)
    }

    fn history(&self, query: HistoryQuery) -> Answer<'_, HistoryPage> {
        self.inner.history(query)
    }
}

struct Desk {
    store: Arc<Filling>,
    admittance: Admittance,
    consumers: Consumers,
    gate: Gate,
}

impl Desk {
    fn new() -> Self {
        let store = Arc::new(Filling::default());
        let admittance = Admittance::new(Arc::new(Everybody), Quotas::default());
        let mailbox = Mailbox::new(Arc::clone(&store) as _, admittance.clone(), 0, Arc::default());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let gate = Gate::new(Trust::in_memory(Arc::clone(&clock)), OWN, 0);
        Self { store, admittance, consumers: Consumers::new(mailbox, Vec::new(), 0, clock), gate }
    }

    /// A message is admitted, stored and told of.
    async fn comes(&self, n: u64) {
        let (from, machine) = (AgentId::new([1; 32]), MachineId::new([3; 32]));
        let id = u128::from(n).to_be_bytes();
        let (payload, terms) = (Bytes::from_static(b"hello"), Terms::default());
        let message = MessageIn { epoch: 1, seq: 1, id, from, to: OWN, payload, terms };
        let message = message.verify(&[from], &[OWN]).expect("it is proven");
        assert_eq!(self.admittance.admit(Tick::ZERO, &message, machine), Admit::Take);
        let mut message = DirectMessage {
            id,
            from,
            to: OWN,
            machine,
            payload: message.payload().clone(),
            received_at: WallTime::default(),
            number: 0,
            reply_to: None,
            wants_read: false,
            from_stranger: false,
        };
        let change = MailChange::Receive(message.clone());
        let outcomes = self.store.commit(vec![change]).await.expect("there is room");
        let [MailOutcome::Stored(number)] = outcomes[..] else { panic!("{outcomes:?}") };
        self.admittance.settle(Some(number));
        message.number = number;
        self.consumers.mailbox.push(message);
    }

    async fn take(&self, name: &str, lease: Option<Lease>) -> Result<Vec<u64>, InboxError> {
        self.consumers.create(name, Begin::Oldest, lease.is_none()).await?;
        let taken = self.consumers.take(name, 100, lease.as_ref(), &self.gate).await?;
        Ok(taken.messages.iter().map(|message| message.number).collect())
    }
}

#[tokio::test]
async fn a_consumer_at_the_latest_leaves_older_mail_unread() {
    let desk = Desk::new();
    for n in 1..=3 {
        desk.comes(n).await;
    }
    desk.consumers.create("new", Begin::Latest, false).await.expect("made");
    desk.comes(4).await;
    assert_eq!(desk.take("new", None).await, Ok(vec![4]));
    assert_eq!(desk.consumers.mailbox.seen(), 0, "nobody was handed the first");
    assert_eq!(desk.admittance.unread().messages, 3, "the fourth counts no more");
    assert_eq!(desk.consumers.ack("new", &Ack::Numbers(vec![4]), &None).await, Ok(vec![4]));
    assert_eq!(desk.take("old", None).await, Ok(vec![1, 2, 3, 4]));
    assert_eq!(desk.consumers.mailbox.seen(), 4);
}

#[tokio::test]
async fn who_wants_order_gets_nothing_behind_what_another_works_on() {
    let desk = Desk::new();
    for n in 1..=3 {
        desk.comes(n).await;
    }
    let one = async |lease| {
        let taken =
            desk.consumers.take("w", 1, Some(&lease), &desk.gate).await.expect("it is there");
        taken.messages.iter().map(|message| message.number).collect::<Vec<u64>>()
    };
    desk.consumers.create("w", Begin::Oldest, false).await.expect("made");
    let hour = Duration::from_secs(3600);
    assert_eq!(one(Lease::in_order(hour)).await, [1]);
    assert_eq!(one(Lease::in_order(hour)).await, [0; 0], "the first is with somebody");
    assert_eq!(one(Lease::of(hour)).await, [2], "who asks for no order is not held up");
    assert_eq!(desk.consumers.ack("w", &Ack::Numbers(vec![1]), &None).await, Ok(vec![1]));
    assert_eq!(one(Lease::in_order(hour)).await, [0; 0]);
    assert_eq!(desk.consumers.ack("w", &Ack::Numbers(vec![2]), &None).await, Ok(vec![2]));
    assert_eq!(one(Lease::in_order(hour)).await, [3]);
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_new_consumer_from_looking() {
    let desk = Desk::new();
    desk.comes(1).await;
    desk.store.full.store(true, Ordering::Relaxed);
    assert_eq!(desk.take("a", None).await, Ok(vec![1]));
    assert_eq!(desk.take("a", LEASE).await, Err(InboxError::Store(MailError::Full)));
    assert_eq!(desk.take("b", LEASE).await, Err(InboxError::Store(MailError::Full)));
    desk.store.full.store(false, Ordering::Relaxed);
    assert_eq!(desk.take("a", LEASE).await, Ok(vec![1]));
}

#[tokio::test]
async fn a_look_makes_no_consumer() {
    let desk = Desk::new();
    for n in 1..=3 {
        desk.comes(n).await;
    }
    let look = async |limit| {
        let taken = desk.consumers.peek("typo", limit, &desk.gate).await.expect("mail");
        let numbers: Vec<u64> = taken.messages.iter().map(|message| message.number).collect();
        (numbers, taken.more)
    };
    assert_eq!(look(2).await, (vec![1, 2], true));
    assert_eq!(look(3).await, (vec![1, 2, 3], false));
    assert!(desk.consumers.list().await.is_empty());
    assert_eq!(desk.admittance.unread().messages, 0, "somebody was handed them");
    let unknown = desk.consumers.ack("typo", &Ack::Through(3), &None).await;
    assert_eq!(unknown, Err(InboxError::NotFound));
    let nameless = desk.consumers.peek("no name", 2, &desk.gate).await.map(|_| ());
    assert_eq!(nameless, Err(InboxError::Name));
}

/// Whoever says that it needs nothing up to a place makes room for its senders.
#[tokio::test]
async fn what_a_consumer_passes_over_counts_against_nobody() {
    let desk = Desk::new();
    for n in 1..=5 {
        desk.comes(n).await;
    }
    desk.consumers.create("a", Begin::Oldest, false).await.expect("made");
    let acked = desk.consumers.ack("a", &Ack::Through(3), &None).await;
    assert_eq!(acked, Ok(vec![1, 2, 3]));
    assert_eq!((desk.admittance.unread().messages, desk.consumers.mailbox.seen()), (2, 3));
    let (before, after) =
        desk.consumers.go_to("a", |consumer| consumer.seek(5, 5)).await.expect("it is there");
    assert_eq!((before, after, desk.admittance.unread().messages), (3, 5, 0));
}

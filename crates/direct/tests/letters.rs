//! Letters between whole services, over real sessions in memory and in virtual time: honest holders,
//! and some that are not.

mod faulty;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use faulty::{FaultyLetters, FaultyMail, Hostile, Way};
use tokio::time::timeout;
use x0x_core::{AgentId, Clock, MachineId, PeerAddr, Protocol};
use x0x_direct::{
    Admittance, Direct, DirectConfig, DirectMessage, Inbox, Kind, Lane, Mailing, Quotas, Standing,
    Standings, Terms,
    letters::{
        Digest, LetterStore, Letters, LettersConfig, LettersParts, Places, Trusts,
        wire::{Frame, Outcome as Answer},
    },
    mail::{Letter, LetterState, MailStore},
    outbox::{Courier, Outbox, Outcome},
};
use x0x_identity::MailboxSecret;
use x0x_transport::{
    BoxFuture, InboundEvent, Node, Transport,
    testing::{
        LinkModel, MemoryNetwork, TokioClock, address, agent_key, eventually, key, machine, node,
    },
};

const RECIPIENT: u64 = 1;
const SENDER: u64 = 2;
/// Sealing and signing take their time without optimisation.
const LETTERS: u128 = 20;

fn agent(n: u64) -> AgentId {
    key(agent_key(n)).public_key().agent_id()
}

/// Some are blocked, all others strangers.
#[derive(Debug, Clone, Default)]
struct Opinions(Arc<Mutex<BTreeSet<AgentId>>>);

impl Opinions {
    fn block(&self, agent: AgentId) {
        self.0.lock().expect("no test panics with it").insert(agent);
    }

    fn of(&self, agent: &AgentId) -> Standing {
        let blocked = self.0.lock().expect("no test panics with it").contains(agent);
        if blocked { Standing::Unwanted } else { Standing::Stranger }
    }
}

impl Standings for Opinions {
    fn standing(&self, agent: &AgentId, _: &MachineId) -> Standing {
        self.of(agent)
    }

    fn may_send(&self, agent: &AgentId, _: &MachineId) -> bool {
        self.of(agent) != Standing::Unwanted
    }
}

impl Trusts for Opinions {
    fn standing(&self, agent: &AgentId, _: Option<&MachineId>) -> Standing {
        self.of(agent)
    }
}

/// Sessions are made by the tests.
#[derive(Debug)]
struct Nowhere;

impl Places for Nowhere {
    fn meet(&self, _: [u8; 32]) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Sends where there is a session.
#[derive(Debug)]
struct Carrier {
    direct: Direct,
    letters: Arc<OnceLock<Letters>>,
}

impl Courier for Carrier {
    fn carry(&self, to: AgentId, letters: Vec<Letter>) -> BoxFuture<'static, Vec<(u64, Outcome)>> {
        let (direct, waits) = (self.direct.clone(), Arc::clone(&self.letters));
        Box::pin(async move {
            let Some(machine) = direct.machine_of(to) else {
                if let Some(letters) = waits.get() {
                    letters.unreachable(to);
                }
                return Vec::new();
            };
            let mut outcomes = Vec::new();
            for letter in letters {
                let lane = if outcomes.is_empty() { Lane::First } else { Lane::Next };
                let terms = Terms { kind: Kind::Mail, lane, ..Terms::default() };
                let Letter { number, id, from, to, payload, .. } = letter;
                let sending = direct.queue_as(id, machine, (from, to), payload, terms).await;
                let received = match sending {
                    Ok(sending) => sending.await.is_ok(),
                    Err(_) => false,
                };
                if !received {
                    break;
                }
                outcomes.push((number, Outcome::Received));
            }
            outcomes
        })
    }
}

/// What outlives a run of a machine.
#[derive(Clone)]
struct Disk {
    mail: Arc<FaultyMail>,
    letters: Arc<FaultyLetters>,
    opinions: Opinions,
}

impl Disk {
    fn new() -> Self {
        let mail = Arc::<FaultyMail>::default();
        let letters = Arc::new(FaultyLetters::beside(&mail));
        Self { mail, letters, opinions: Opinions::default() }
    }
}

struct Peer {
    n: u64,
    node: Arc<Node>,
    direct: Direct,
    inbox: Inbox,
    outbox: Outbox,
    letters: Letters,
    disk: Disk,
    clock: Arc<TokioClock>,
}

impl Peer {
    async fn start(network: &MemoryNetwork, clock: &Arc<TokioClock>, n: u64, disk: Disk) -> Self {
        let node = Arc::new(node(network, n));
        let transport: Arc<dyn Transport> = Arc::<Node>::clone(&node);
        let stored = MailStore::load(&*disk.mail).await.expect("memory");
        let admittance = Admittance::new(Arc::new(disk.opinions.clone()), Quotas::default());
        admittance.restore(stored.seen, stored.unread);
        let mailing = Mailing::new(Arc::clone(&disk.mail) as _, admittance);
        let config = DirectConfig::new(vec![agent(n)]);
        let at: Arc<dyn Clock> = Arc::<TokioClock>::clone(clock);
        let started = Direct::start_with_mail(
            Arc::clone(&transport),
            config,
            Arc::clone(&at),
            mailing.clone(),
        );
        let (direct, inbox) = started.expect("nobody else did");
        let itself = Arc::<OnceLock<Letters>>::default();
        let carrier = Carrier { direct: direct.clone(), letters: Arc::clone(&itself) };
        let carrier = Arc::new(carrier);
        let outbox = Outbox::start(mailing.clone(), carrier, stored.pending, Arc::clone(&at));
        let parts = LettersParts {
            key: key(agent_key(n)),
            generation: 0,
            direct: direct.clone(),
            outbox: outbox.clone(),
            mailing,
            store: Arc::clone(&disk.letters) as _,
            stored: LetterStore::load(&*disk.letters).await.expect("memory"),
            trusts: Arc::new(disk.opinions.clone()),
            places: Arc::new(Nowhere),
            clock: at,
            config: LettersConfig::default(),
        };
        let letters = Letters::start(transport, parts).expect("nobody else did");
        let _ = itself.set(letters.clone());
        let clock = Arc::clone(clock);
        Self { n, node, direct, inbox, outbox, letters, disk, clock }
    }

    async fn meet(&self, other: u64) {
        let dialled = PeerAddr::known(machine(other), [address(other)]);
        self.node.connect(dialled).await.expect("the network is up");
    }

    async fn post(&self, to: u64, number: u128) {
        let letter = Letter {
            number: 0,
            id: number.to_be_bytes(),
            from: agent(self.n),
            to: agent(to),
            payload: text(number),
            reply_to: None,
            wants_read: false,
            is_read_note: false,
            posted_at: self.clock.wall(),
            expires_at: self.clock.wall() + Duration::from_secs(3 * 24 * 3600),
            state: LetterState::Queued,
            changed_at: self.clock.wall(),
        };
        self.outbox.post(letter).await.expect("it is posted");
    }

    async fn held_by(&self, number: u128) -> usize {
        self.letters.holders(number.to_be_bytes()).await
    }

    /// Ends, as a process does; what it stored stays.
    async fn stop(self) -> Disk {
        self.letters.shutdown().await;
        self.outbox.close();
        self.direct.close();
        self.node.shutdown().await;
        self.disk
    }

    async fn receive(&mut self, count: u128) -> Vec<DirectMessage> {
        let mut received = Vec::new();
        while (received.len() as u128) < count {
            let next = timeout(Duration::from_secs(600), self.inbox.next()).await;
            received.push(next.expect("in time").expect("it is open"));
        }
        received
    }
}

fn text(number: u128) -> Bytes {
    format!("number {number}").into_bytes().into()
}

struct World {
    network: MemoryNetwork,
    clock: Arc<TokioClock>,
}

impl World {
    fn new() -> Self {
        let network = MemoryNetwork::new(1, LinkModel::default());
        Self { network, clock: Arc::new(TokioClock::new()) }
    }

    async fn start(&self, n: u64, disk: Disk) -> Peer {
        Peer::start(&self.network, &self.clock, n, disk).await
    }

    /// The recipient and the sender, who have met each other.
    async fn pair(&self) -> (Peer, Peer) {
        let recipient = self.start(RECIPIENT, Disk::new()).await;
        let sender = self.start(SENDER, Disk::new()).await;
        sender.meet(RECIPIENT).await;
        let both = async || {
            sender.letters.status().await.mailboxes == 1
                && recipient.letters.status().await.mailboxes == 1
        };
        eventually("both have mailboxes of each other", both).await;
        (recipient, sender)
    }
}

async fn post_all(sender: &Peer, numbers: std::ops::RangeInclusive<u128>, holders: usize) {
    for number in numbers.clone() {
        sender.post(RECIPIENT, number).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for number in numbers {
        let held = async || sender.held_by(number).await >= holders;
        eventually("holders have it", held).await;
    }
}

fn numbers(received: &[DirectMessage]) -> Vec<u128> {
    received.iter().map(|message| u128::from_be_bytes(message.id)).collect()
}

#[tokio::test(start_paused = true)]
async fn letters_arrive_once_in_order_from_holders() {
    let world = World::new();
    let (recipient, sender) = world.pair().await;
    let away = recipient.stop().await;
    let mut holders = Vec::new();
    for n in 10..14 {
        holders.push(world.start(n, Disk::new()).await);
        sender.meet(n).await;
    }
    post_all(&sender, 1..=LETTERS, 3).await;
    let gone = sender.stop().await;
    // Ten minutes, and a restart of one holder, whose store has what it acknowledged.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let disk = holders.remove(0).stop().await;
    holders.push(world.start(10, disk).await);

    let mut recipient = world.start(RECIPIENT, away).await;
    for n in 10..14 {
        recipient.meet(n).await;
    }
    let received = recipient.receive(LETTERS).await;
    assert_eq!(numbers(&received), (1..=LETTERS).collect::<Vec<_>>());
    for (message, number) in received.iter().zip(1..) {
        assert_eq!((message.from, message.to), (agent(SENDER), agent(RECIPIENT)));
        assert_eq!((message.machine, &message.payload), (machine(SENDER), &text(number)));
    }
    let forgotten = async || {
        for holder in &holders {
            if holder.letters.status().await.held > 0 {
                return false;
            }
        }
        true
    };
    eventually("holders forget what was received", forgotten).await;
    // The sender is back: what it sends again is known, and it learns so.
    let sender = world.start(SENDER, gone).await;
    assert_eq!(sender.held_by(7).await, 3, "it remembers who has what");
    sender.meet(RECIPIENT).await;
    eventually("all is received", async || sender.outbox.waiting() == 0).await;
    sender.post(RECIPIENT, LETTERS + 1).await;
    assert_eq!(numbers(&recipient.receive(1).await), [LETTERS + 1], "and nothing came twice");
    assert_eq!(recipient.letters.metrics().gaps.value(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_honest_holder_among_hostile_ones_is_enough() {
    let ways = [
        Way::Tampers,
        Way::Withholds,
        Way::Hides,
        Way::Silent,
        Way::Floods,
        Way::Replays,
        Way::Mislabels,
    ];
    for (way, first) in ways.into_iter().zip((20..).step_by(10)) {
        let world = World::new();
        let (recipient, sender) = world.pair().await;
        let away = recipient.stop().await;
        let _hostile: Vec<_> =
            (first..first + 2).map(|n| Hostile::start(&world.network, n, way)).collect();
        let honest = world.start(first + 2, Disk::new()).await;
        for n in first..first + 3 {
            sender.meet(n).await;
        }
        post_all(&sender, 1..=8, 3).await;
        drop(sender.stop().await);
        let mut recipient = world.start(RECIPIENT, away).await;
        for n in first..first + 3 {
            recipient.meet(n).await;
        }
        let received = recipient.receive(8).await;
        assert_eq!(numbers(&received), (1..=8).collect::<Vec<_>>(), "{way:?}");
        let metrics = recipient.letters.metrics();
        assert_eq!(metrics.gaps.value(), 0, "{way:?}");
        match way {
            Way::Tampers | Way::Floods => assert!(metrics.tampered.value() > 0, "{way:?}"),
            Way::Withholds => assert!(metrics.withheld.value() > 0, "{way:?}"),
            _ => {}
        }
        eventually("the honest one forgets", async || honest.letters.status().await.held == 0)
            .await;
        // What comes again is not delivered again.
        tokio::time::sleep(Duration::from_secs(1300)).await;
        assert!(recipient.inbox.try_next().is_none(), "{way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_holders_withhold_one_it_is_told_and_the_rest_arrives() {
    let world = World::new();
    let (recipient, sender) = world.pair().await;
    let away = recipient.stop().await;
    let _hostile = Hostile::start(&world.network, 20, Way::Hides);
    sender.meet(20).await;
    post_all(&sender, 1..=20, 1).await;
    let gone = sender.stop().await;
    let mut recipient = world.start(RECIPIENT, away).await;
    recipient.meet(20).await;
    tokio::time::sleep(Duration::from_secs(1200)).await;
    let mut received = Vec::new();
    while let Some(message) = recipient.inbox.try_next() {
        received.push(u128::from_be_bytes(message.id));
    }
    let missing: Vec<u128> = (1..=20).filter(|number| !received.contains(number)).collect();
    assert!(!missing.is_empty() && received.is_sorted(), "{received:?}");
    let gaps = recipient.letters.status().await.gaps;
    assert_eq!(recipient.letters.metrics().gaps.value(), gaps.len() as u64);
    for gap in &gaps {
        assert_eq!(gap.from, agent(SENDER));
        assert!(missing.contains(&u128::from_be_bytes(gap.missing)));
        assert!(received.contains(&u128::from_be_bytes(gap.next)));
    }
    let told = missing.iter().filter(|number| received.contains(&(**number + 1))).count();
    assert_eq!(gaps.len(), told, "each hole is told once");
    // The sender brings what was withheld.
    let sender = world.start(SENDER, gone).await;
    sender.meet(RECIPIENT).await;
    eventually("all is received", async || sender.outbox.waiting() == 0).await;
    let rest = numbers(&recipient.receive(missing.len() as u128).await);
    assert_eq!(rest, missing);
}

#[tokio::test(start_paused = true)]
async fn the_blocked_leave_nothing_and_their_letters_are_deleted_unread() {
    let world = World::new();
    let (recipient, sender) = world.pair().await;
    let away = recipient.stop().await;
    let holder = world.start(10, Disk::new()).await;
    sender.meet(10).await;
    post_all(&sender, 1..=3, 1).await;
    drop(sender.stop().await);
    away.opinions.block(agent(SENDER));
    let mut recipient = world.start(RECIPIENT, away).await;
    recipient.meet(10).await;
    eventually("they are deleted", async || holder.letters.status().await.held == 0).await;
    assert!(recipient.inbox.try_next().is_none());
    let metrics = recipient.letters.metrics();
    assert_eq!((metrics.unwanted.value(), metrics.opened.value()), (3, 0));
}

/// Who is blocked is given a mailbox, may leave letters for others and fetches its own, as a stranger does: what it
/// is told tells it nothing.
#[tokio::test(start_paused = true)]
async fn the_blocked_hear_what_strangers_hear() {
    let mut heard = Vec::new();
    for blocked in [false, true] {
        let world = World::new();
        let holder = world.start(10, Disk::new()).await;
        if blocked {
            holder.disk.opinions.block(agent(SENDER));
        }
        let (recipient, sender) = world.pair().await;
        drop(recipient.stop().await);
        sender.meet(10).await;
        let granted = async || sender.letters.metrics().grants_taken.value() >= 2;
        eventually("a mailbox of the recipient, and one of the holder", granted).await;
        post_all(&sender, 1..=3, 1).await;
        let metrics = sender.letters.metrics();
        eventually("it is asked for letters", async || metrics.asks_answered.value() > 0).await;
        heard.push((metrics.grants_taken.value(), metrics.copies_refused.value()));
        assert_eq!(holder.letters.status().await.held, 3, "what is between others");
    }
    assert_eq!(heard[0], heard[1]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sealed_now_is_left_later_and_in_order() {
    let world = World::new();
    let (recipient, sender) = world.pair().await;
    let away = recipient.stop().await;
    let holder = world.start(10, Disk::new()).await;
    sender.meet(10).await;
    sender.disk.mail.fails.store(true, Ordering::Relaxed);
    for number in 1..=5 {
        sender.post(RECIPIENT, number).await;
    }
    // The store cannot say what there is to seal.
    let failed = async || sender.disk.mail.failures.load(Ordering::Relaxed) > 0;
    eventually("a message is not sealed", failed).await;
    assert_eq!(holder.letters.status().await.held, 0);
    sender.disk.mail.fails.store(false, Ordering::Relaxed);
    for number in 1..=5 {
        eventually("it is left", async || sender.held_by(number).await == 1).await;
    }
    drop(sender.stop().await);
    let mut recipient = world.start(RECIPIENT, away).await;
    recipient.meet(10).await;
    assert_eq!(numbers(&recipient.receive(5).await), [1, 2, 3, 4, 5]);
    assert_eq!(recipient.letters.metrics().gaps.value(), 0);
}

#[tokio::test(start_paused = true)]
async fn deletions_that_the_store_refuses_are_made_later() {
    let world = World::new();
    let (recipient, sender) = world.pair().await;
    let away = recipient.stop().await;
    let holder = world.start(10, Disk::new()).await;
    sender.meet(10).await;
    post_all(&sender, 1..=5, 1).await;
    drop(sender.stop().await);
    holder.disk.letters.fails.store(true, Ordering::Relaxed);
    let mut recipient = world.start(RECIPIENT, away).await;
    recipient.meet(10).await;
    recipient.receive(5).await;
    let forgotten = async || holder.letters.status().await.held == 0;
    eventually("the holder forgets them", forgotten).await;
    let metrics = Arc::clone(holder.letters.metrics());
    eventually("the store refuses", async || metrics.records_failed.value() > 1).await;
    let stored = async || holder.disk.letters.load().await.expect("memory").held.len();
    assert_eq!(stored().await, 5, "nothing could be deleted");
    holder.disk.letters.fails.store(false, Ordering::Relaxed);
    eventually("they are deleted", async || stored().await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn deletions_that_had_no_room_are_found_again() {
    const MANY: usize = 5000;
    let world = World::new();
    let holder = world.start(10, Disk::new()).await;
    let greedy = node(&world.network, 30);
    let mut inbound = greedy.inbound(Protocol::Letters).expect("its own");
    let dialled = PeerAddr::known(machine(10), [address(10)]);
    greedy.connect(dialled).await.expect("the network is up");
    let mut left = BTreeMap::<u8, Vec<Digest>>::new();
    let pickup = |n: u8| MailboxSecret::new([n; 32]).pickup(&machine(10));
    for number in 0..MANY as u64 {
        let mailbox = (number % 16) as u8;
        let (tag, sealed) = (pickup(mailbox).tag(), Bytes::copy_from_slice(&number.to_be_bytes()));
        let expires_at = world.clock.wall() + Duration::from_secs(3600);
        left.entry(mailbox).or_default().push(Digest::of(&sealed));
        let deposit = Frame::Deposit { tag, expires_at, sealed }.encode();
        greedy.try_send(machine(10), Protocol::Letters, deposit).expect("there is room");
        while let Ok(Some(event)) = timeout(Duration::from_secs(60), inbound.recv()).await {
            if let InboundEvent::Message { message, .. } = event
                && let Ok(Frame::Deposited { outcome, .. }) = Frame::decode(&message)
            {
                assert_eq!(outcome, Answer::Kept);
                break;
            }
        }
    }
    assert_eq!(holder.letters.status().await.held, MANY);
    // The store takes no deletion while all are deleted.
    holder.disk.letters.fails.store(true, Ordering::Relaxed);
    for (mailbox, digests) in left {
        for digests in digests.chunks(64) {
            let digests = digests.to_vec();
            let delete = Frame::Delete { pickup: pickup(mailbox), digests }.encode();
            greedy.try_send(machine(10), Protocol::Letters, delete).expect("there is room");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let metrics = Arc::clone(holder.letters.metrics());
    eventually("all are deleted", async || holder.letters.status().await.held == 0).await;
    assert!(metrics.records_dropped.value() > 0, "not all of it had room");
    let stored = async || holder.disk.letters.load().await.expect("memory").held.len();
    assert_eq!(stored().await, MANY);
    holder.disk.letters.fails.store(false, Ordering::Relaxed);
    eventually("the store has none", async || stored().await == 0).await;
    assert!(metrics.swept.value() > 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_fetches_and_does_not_read_takes_no_memory() {
    const LARGE: usize = 380 * 1024;
    let world = World::new();
    let holder = world.start(10, Disk::new()).await;
    let greedy = node(&world.network, 30);
    let mut inbound = greedy.inbound(Protocol::Letters).expect("its own");
    let dialled = PeerAddr::known(machine(10), [address(10)]);
    greedy.connect(dialled).await.expect("the network is up");
    let pickup = MailboxSecret::new([7; 32]).pickup(&machine(10));
    let mut digests = Vec::new();
    for n in 0..8 {
        let sealed = Bytes::from(vec![n; LARGE]);
        digests.push(Digest::of(&sealed));
        let expires_at = world.clock.wall() + Duration::from_secs(3600);
        let deposit = Frame::Deposit { tag: pickup.tag(), expires_at, sealed }.encode();
        greedy.try_send(machine(10), Protocol::Letters, deposit).expect("there is room");
        let count = usize::from(n) + 1;
        let kept = async || holder.letters.status().await.held == count;
        eventually("it is kept", kept).await;
    }
    let metrics = Arc::clone(holder.letters.metrics());
    let fetch = |digest| Frame::Fetch { pickup, digest }.encode();
    // What comes back is not read.
    for round in 0..200 {
        let digest = digests[round % digests.len()];
        let _ = greedy.try_send(machine(10), Protocol::Letters, fetch(digest));
        tokio::time::sleep(Duration::from_millis(50)).await;
        if metrics.refused_fetches_slow.value() > 0 {
            break;
        }
    }
    assert!(metrics.refused_fetches_slow.value() > 0, "{:?}", metrics.snapshot());
    let given = metrics.letters_served.value();
    // As many as the queues of both ends have room for.
    assert!(given < 128, "{given} are on their way");
    // Once it reads, it is given more.
    let reads = async || {
        while timeout(Duration::from_millis(500), inbound.recv()).await.is_ok() {}
        let _ = greedy.try_send(machine(10), Protocol::Letters, fetch(digests[0]));
        metrics.letters_served.value() > given + 5
    };
    eventually("it is served again", reads).await;
}

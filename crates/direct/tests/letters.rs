//! Letters between whole services, over real sessions in memory and in virtual time: honest holders,
//! and some that are not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::timeout;
use x0x_core::{AgentId, Clock, MachineId, PeerAddr, Protocol};
use x0x_direct::{
    Admittance, Direct, DirectConfig, DirectMessage, Inbox, Kind, Lane, Mailing, Quotas, Standing,
    Standings, Terms,
    letters::{
        Digest, LetterStore, Letters, LettersConfig, LettersParts, MemoryLetterStore, Places,
        Trusts,
        wire::{Frame, Listed, Outcome as Answer},
    },
    mail::{Letter, LetterState, MailStore, MemoryMailStore},
    outbox::{Courier, Outbox, Outcome},
};
use x0x_identity::Tag;
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
    mail: Arc<MemoryMailStore>,
    letters: Arc<MemoryLetterStore>,
    opinions: Opinions,
}

impl Disk {
    fn new() -> Self {
        let mail = Arc::<MemoryMailStore>::default();
        let letters = Arc::new(MemoryLetterStore::new(Arc::clone(&mail)));
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

/// A holder that takes everything and does what it likes with it.
struct Hostile {
    node: Arc<Node>,
    kept: BTreeMap<(Tag, Digest), Bytes>,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Gives letters with a bit changed.
    Tampers,
    /// Lists them all and has none.
    Withholds,
    /// Lists every other.
    Hides,
    /// Does not answer.
    Silent,
    /// Lists what never was, in everybody's name, and answers for others.
    Floods,
    /// Gives out old letters again.
    Replays,
    /// Lists them in all mailboxes but their own.
    Mislabels,
}

impl Hostile {
    fn start(network: &MemoryNetwork, n: u64, way: Way) -> tokio::task::JoinHandle<()> {
        let node = Arc::new(node(network, n));
        let mut hostile = Self { node, kept: BTreeMap::new(), way };
        tokio::spawn(async move {
            let mut inbound = hostile.node.inbound(Protocol::Letters).expect("its own");
            while let Some(event) = inbound.recv().await {
                if let InboundEvent::Message { peer, message } = event {
                    for answer in hostile.answers(Frame::decode(&message).expect("honest peers")) {
                        let _ = hostile.node.try_send(peer, Protocol::Letters, answer.encode());
                    }
                }
            }
        })
    }

    fn answers(&mut self, frame: Frame) -> Vec<Frame> {
        match frame {
            Frame::Deposit { tag, sealed, .. } => {
                let digest = Digest::of(&sealed);
                self.kept.insert((tag, digest), sealed);
                vec![Frame::Deposited { digest, outcome: Answer::Kept }]
            }
            Frame::Ask(pickups) => {
                let tags: BTreeSet<Tag> = pickups.iter().map(|pickup| pickup.tag()).collect();
                let mut letters: Vec<Listed> = self
                    .kept
                    .iter()
                    .filter(|((tag, _), _)| tags.contains(tag))
                    .map(|((tag, digest), sealed)| Listed {
                        tag: *tag,
                        digest: *digest,
                        bytes: sealed.len() as u32,
                    })
                    .collect();
                match self.way {
                    Way::Silent => return Vec::new(),
                    Way::Hides => {
                        letters.retain(|letter| letter.digest.as_bytes()[0].is_multiple_of(2))
                    }
                    Way::Floods => {
                        let tag = *tags.first().expect("it asks for something");
                        letters.extend((0..400_u64).map(|n| Listed {
                            tag,
                            digest: Digest::of(&n.to_be_bytes()),
                            bytes: 1,
                        }));
                    }
                    Way::Mislabels => {
                        let elsewhere = |letter: &Listed| {
                            let Listed { tag: own, digest, bytes } = *letter;
                            let others = tags.iter().filter(move |tag| **tag != own);
                            let listed = others.map(move |tag| Listed { tag: *tag, digest, bytes });
                            listed.collect::<Vec<_>>()
                        };
                        letters = letters.iter().flat_map(elsewhere).collect();
                    }
                    _ => {}
                }
                vec![Frame::Listing { letters, more: self.way == Way::Floods }]
            }
            Frame::Fetch { pickup, digest } => self.fetched(pickup.tag(), digest),
            _ => Vec::new(),
        }
    }

    fn fetched(&self, tag: Tag, digest: Digest) -> Vec<Frame> {
        let whole = self.kept.get(&(tag, digest)).cloned();
        let changed = |sealed: &Bytes| {
            let mut sealed = sealed.to_vec();
            let last = sealed.len() - 1;
            sealed[last] ^= 1;
            Bytes::from(sealed)
        };
        let sealed = match self.way {
            Way::Silent => return Vec::new(),
            Way::Withholds => None,
            Way::Tampers => whole.as_ref().map(changed),
            Way::Floods => Some("what never was".into()),
            Way::Hides | Way::Replays => whole,
            Way::Mislabels => {
                let mut kept = self.kept.iter();
                kept.find(|((_, name), _)| *name == digest).map(|(_, sealed)| sealed.clone())
            }
        };
        let answer = Frame::Fetched { digest, sealed };
        vec![answer.clone(), answer]
    }
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
    // A holder takes nothing from those that it blocked.
    holder.disk.opinions.block(agent(RECIPIENT));
    recipient.post(SENDER, 50).await;
    let refused = async || recipient.letters.metrics().copies_refused.value() > 0;
    eventually("it is refused", refused).await;
    assert_eq!(holder.letters.status().await.held, 0);
}

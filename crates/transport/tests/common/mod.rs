//! The race of two machines that dial each other, over any engine.

use std::{
    collections::BTreeSet,
    future::Future,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use x0x_core::{Clock, MachineId, PeerAddr, Protocol, SeededRng};
use x0x_transport::{
    InboundEvent, Node, SessionConfig, Side, Transport, error::DialError, link::Engine, testing,
};

/// Two machines, the test machines 1 and 2, that can reach each other.
pub(crate) trait World {
    /// What carries their links.
    type Engine: Engine;

    /// A new engine of one end (0 or 1), also after it vanished.
    fn engine(&self, end: usize) -> impl Future<Output = Self::Engine>;

    /// The clock of the nodes: a [`testing::TokioClock`], whose wall time the bindings are made for.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Within what time the dials begin: a few round trips, so that they cross.
    fn spread(&self) -> Duration {
        Duration::from_millis(20)
    }

    /// For how long an agreement must hold: longer than what could still upset it.
    fn patience(&self) -> Duration {
        Duration::from_millis(1500)
    }

    /// Breaks the links that are up.
    fn break_links(&self);

    /// One end's process dies, if possible without a word.
    fn vanish(&self, end: usize, node: Node) -> impl Future<Output = ()>;
}

/// What may happen besides the dials.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// Links break.
    pub(crate) losses: bool,
    /// One end is restarted.
    pub(crate) restarts: bool,
}

/// The seeds to run: those of the range, or the one in `X0X_SEED`.
pub(crate) fn seeds(range: Range<u64>) -> Vec<u64> {
    match std::env::var("X0X_SEED") {
        Ok(seed) => vec![seed.parse().expect("X0X_SEED is a number")],
        Err(_) => range.collect(),
    }
}

/// Tells the seed when a test fails.
pub(crate) struct Seed(pub(crate) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with X0X_SEED={}", self.0);
        }
    }
}

const REQUEST: u8 = 0;
const ACK: u8 = 1;

/// What one end saw, over all its runs.
#[derive(Debug, Default)]
struct Record {
    /// Accepted by `send`.
    sent: Vec<u64>,
    acked: BTreeSet<u64>,
    /// In order of arrival.
    received: Vec<u64>,
    up: bool,
    generation: u64,
}

/// One end: a node and its request and acknowledgement service.
struct Member {
    node: Node,
    peer: MachineId,
    record: Arc<Mutex<Record>>,
}

fn message(kind: u8, id: u64) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(kind);
    message.put_u64(id);
    message.freeze()
}

impl Member {
    async fn start<W: World>(world: &W, end: usize, run: u64, record: Arc<Mutex<Record>>) -> Self {
        let n = end as u64 + 1;
        let engine = world.engine(end).await;
        let hello = testing::hello(n, run);
        let node = Node::start(engine, SessionConfig::default(), hello, world.clock());
        let peer = testing::machine(3 - n);
        {
            let mut record = record.lock().expect("no panic");
            (record.up, record.generation) = (false, 0);
        }
        tokio::spawn(serve(node.clone(), record.clone()));
        Self { node, peer, record }
    }

    /// Connects for as long as it takes, as a layer above would.
    async fn connect(self: Arc<Self>, to: PeerAddr) {
        for _ in 0..200 {
            match self.node.connect(to.clone()).await {
                Ok(_) | Err(DialError::Closed) => return,
                Err(DialError::BackingOff { retry_in_ms }) => {
                    tokio::time::sleep(Duration::from_millis(retry_in_ms)).await;
                }
                Err(error @ DialError::PeerMisbehaved(_)) => panic!("refused: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        panic!("cannot connect to {to:?}");
    }

    /// Sends one request if there is a session.
    async fn request(&self, id: u64) -> bool {
        let sent = self.node.send(self.peer, Protocol::Direct, message(REQUEST, id)).await.is_ok();
        if sent {
            self.record.lock().expect("no panic").sent.push(id);
        }
        sent
    }

    fn acked(&self, id: u64) -> bool {
        self.record.lock().expect("no panic").acked.contains(&id)
    }

    fn addr(&self, of: &Self) -> PeerAddr {
        PeerAddr::known(self.peer, of.node.local_addresses())
    }
}

/// Records what arrives, acknowledges requests, and checks the order of events.
async fn serve(node: Node, record: Arc<Mutex<Record>>) {
    let mut inbound = node.inbound(Protocol::Direct).expect("first taker");
    while let Some(event) = inbound.recv().await {
        let ack = {
            let mut record = record.lock().expect("no panic");
            match event {
                InboundEvent::Up(session) => {
                    assert!(!record.up, "up twice");
                    assert!(session.generation > record.generation, "an older session");
                    (record.up, record.generation) = (true, session.generation);
                    None
                }
                InboundEvent::Down(_) => {
                    assert!(record.up, "down without up");
                    record.up = false;
                    None
                }
                InboundEvent::Message { peer, message } => {
                    assert!(record.up, "message outside of a session");
                    let id = u64::from_be_bytes(message[1..].try_into().expect("nine bytes"));
                    if message[0] == REQUEST {
                        record.received.push(id);
                        Some((peer, id))
                    } else {
                        record.acked.insert(id);
                        None
                    }
                }
                _ => None,
            }
        };
        if let Some((peer, id)) = ack {
            // The session may be gone by now.
            let _ = node.send(peer, Protocol::Direct, message(ACK, id)).await;
        }
    }
}

/// Whether both ends agree on one session: opposite sides, and pings that only the same link's
/// session answers.
async fn agree(a: &Member, b: &Member) -> Option<(u64, u64)> {
    let (of_a, of_b) = (a.node.sessions(), b.node.sessions());
    assert!(of_a.len() <= 1 && of_b.len() <= 1, "more than one session");
    let (of_a, of_b) = (of_a.first()?, of_b.first()?);
    if (of_a.side == Side::Dialer) == (of_b.side == Side::Dialer) {
        return None;
    }
    for member in [a, b] {
        let ping = member.node.ping(member.peer);
        tokio::time::timeout(Duration::from_secs(2), ping).await.ok()?.ok()?;
    }
    Some((of_a.generation, of_b.generation))
}

/// What the nodes of a race counted by its end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) duplicates: u64,
    pub(crate) replaced: u64,
    pub(crate) lost: u64,
    /// Races with more than one session.
    pub(crate) disturbed: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.duplicates += other.duplicates;
        self.replaced += other.replaced;
        self.lost += other.lost;
        self.disturbed += other.disturbed;
    }
}

/// Up to four dials from both ends at random times, with traffic from the first moment, and with
/// faults. Ends with one session that both ends agree on, and nothing acknowledged lost.
pub(crate) async fn race<W: World>(world: &W, seed: u64, faults: Faults) -> Counts {
    let mut rng = SeededRng::from_number(seed ^ 0x5eed);
    let records = [Arc::<Mutex<Record>>::default(), Arc::default()];
    let mut members = [
        Arc::new(Member::start(world, 0, 0, records[0].clone()).await),
        Arc::new(Member::start(world, 1, 0, records[1].clone()).await),
    ];
    let mut dials = Vec::new();
    for dial in 0..2 + rng.below(3) {
        // One from each end, then from either.
        let end = if dial < 2 { dial } else { rng.below(2) };
        let (member, to) = (members[end].clone(), members[end].addr(&members[1 - end]));
        let delay = Duration::from_micros(rng.range(0, world.spread().as_micros() as u64));
        dials.push(tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            member.connect(to).await;
        }));
    }
    let traffic: Vec<_> = members.iter().map(|member| tokio::spawn(chat(member.clone()))).collect();
    if faults.losses && rng.chance(0.5) {
        tokio::time::sleep(Duration::from_micros(rng.range(0, 40_000))).await;
        world.break_links();
    }
    if faults.restarts && rng.chance(0.5) {
        tokio::time::sleep(Duration::from_micros(rng.range(0, 40_000))).await;
        let end = rng.below(2);
        world.vanish(end, members[end].node.clone()).await;
        let member = Member::start(world, end, 1, records[end].clone()).await;
        members[end] = Arc::new(member);
        let (again, to) = (members[end].clone(), members[end].addr(&members[1 - end]));
        dials.push(tokio::spawn(again.connect(to)));
    }
    for task in dials.into_iter().chain(traffic) {
        task.await.expect("a task of the race panicked");
    }
    settle(&members, world.patience()).await;
    let disturbed = faults.restarts
        || members.iter().any(|member| member.node.metrics().sessions_opened.value() > 1);
    check_records(&records, &members, disturbed).await;
    let mut counts = Counts { disturbed: u64::from(disturbed), ..Counts::default() };
    for member in &members {
        let metrics = member.node.metrics();
        counts.duplicates += metrics.links_duplicate.value();
        counts.replaced += metrics.sessions_replaced.value();
        counts.lost += metrics.sessions_lost.value();
    }
    for member in &members {
        member.node.shutdown().await;
    }
    counts
}

/// Sends ten requests, each as soon as there is a session, for a second at most.
async fn chat(member: Arc<Member>) {
    let mut id = 0;
    for _ in 0..500 {
        if id == 10 {
            return;
        }
        if member.request(id).await {
            id += 1;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for agreement that lasts.
async fn settle(members: &[Arc<Member>; 2], patience: Duration) {
    let [a, b] = members;
    testing::eventually("both ends agree on a session", async || {
        let Some(before) = agree(a, b).await else { return false };
        tokio::time::sleep(patience).await;
        agree(a, b).await == Some(before)
    })
    .await;
}

async fn check_records(
    records: &[Arc<Mutex<Record>>; 2],
    members: &[Arc<Member>; 2],
    disturbed: bool,
) {
    for member in members {
        for id in 100..105 {
            assert!(member.request(id).await, "the agreed session takes messages");
        }
        testing::eventually("the agreed session acknowledges", async || {
            (100..105).all(|id| member.acked(id))
        })
        .await;
    }
    for (end, record) in records.iter().enumerate() {
        let record = record.lock().expect("no panic");
        let received = &records[1 - end].lock().expect("no panic").received;
        assert!(
            record.acked.iter().all(|id| received.contains(id)),
            "an acknowledged message is lost"
        );
        // What is in flight when a session ends may be lost; within one session nothing is.
        if !disturbed {
            assert_eq!(&record.sent, received, "all that was sent arrives once and in order");
        }
    }
}

//! What a hostile peer may send, with the counter that must notice it. The same frames are injected
//! into the machine, over the in-memory transport and over QUIC.

use bytes::Bytes;
use prost::Message as _;
use x0x_core::{AgentId, TopicId, WallTime};
use x0x_identity::SecretKey;

use crate::{
    config::{MAX_FRAME, MAX_PAYLOAD},
    retention::{Retention, epoch_at},
    run::{Entry, EntryHash, NetworkId, Run, RunBody, UnsignedRun},
    time::HybridTime,
    wire::{
        self, EntryWire, FrameKind, PublishWire, RunWire, SubscriptionsWire, TopicHeads, WantIn,
    },
};

/// One attack.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostileCase {
    /// What it is.
    pub name: &'static str,
    /// The frames to send, in order. All but the last may be honest.
    pub frames: Vec<Bytes>,
    /// The name of the counter that must grow by at least one.
    pub counter: &'static str,
    /// The payloads that must be delivered nevertheless, in order; nothing else may be.
    pub delivered: Vec<Bytes>,
}

/// Makes runs of one author, honest or not.
#[derive(Debug, Clone)]
pub struct RunForge {
    /// The author's key.
    pub key: SecretKey,
    /// The network that runs claim.
    pub network: NetworkId,
    /// The topic that runs claim.
    pub topic: TopicId,
    /// The epoch that runs claim.
    pub epoch: u64,
    /// The wall-clock time that runs claim.
    pub wall: WallTime,
}

impl RunForge {
    /// A forge for an author whose log begins now.
    #[must_use]
    pub fn new(key: SecretKey, network: NetworkId, topic: TopicId, wall: WallTime) -> Self {
        Self { key, network, topic, epoch: epoch_at(wall, 1), wall }
    }

    /// The same author in the epoch of a retention class.
    #[must_use]
    pub fn of_class(mut self, retention: Retention) -> Self {
        self.epoch = retention.epoch(self.epoch);
        self
    }

    /// The author.
    #[must_use]
    pub fn author(&self) -> AgentId {
        self.key.public_key().agent_id()
    }

    /// A signed run that follows `prev`, or begins the log.
    ///
    /// # Panics
    /// When a run of these payloads cannot exist, such as an empty one.
    #[must_use]
    pub fn run(&self, prev: Option<&Run>, payloads: &[&[u8]]) -> Run {
        let first_seq = prev.map_or(1, |run| run.body().last_seq() + 1);
        let hash = prev.map_or(EntryHash::GENESIS, Run::hash);
        self.run_at(first_seq, hash, payloads)
    }

    /// A signed run at any place.
    ///
    /// # Panics
    /// When a run of these payloads cannot exist, such as an empty one.
    #[must_use]
    pub fn run_at(&self, first_seq: u64, prev: EntryHash, payloads: &[&[u8]]) -> Run {
        let start = HybridTime::from_wall(self.wall).as_u64() + first_seq;
        let entries = (start..).zip(payloads).map(|(time, payload)| Entry {
            time: HybridTime::from_u64(time),
            payload: Bytes::copy_from_slice(payload),
        });
        let body = RunBody {
            network: self.network,
            topic: self.topic,
            author: self.author(),
            epoch: self.epoch,
            first_seq,
            prev,
            entries: entries.collect(),
        };
        UnsignedRun(body).sign(&self.key).expect("a run within its bounds")
    }

    /// The publish frame of an encoded run, with this author's key.
    #[must_use]
    pub fn frame(&self, encoded: &Bytes) -> Bytes {
        publish(encoded.clone(), wire::copy(self.key.public_key().as_bytes()))
    }
}

/// The publish frame of an encoded run, whose sender says that it has nothing older.
#[must_use]
pub fn floor_frame(forge: &RunForge, encoded: &Bytes) -> Bytes {
    let author_key = wire::copy(forge.key.public_key().as_bytes());
    wire::encode(FrameKind::Publish(PublishWire {
        run: encoded.clone(),
        author_key,
        floor: true,
        removed: false,
        hops: 1,
    }))
}

/// A frame that subscribes a topic as a peer without anything of it.
#[must_use]
pub fn subscribe_frame(topic: TopicId) -> Bytes {
    let heads = TopicHeads { topic, heads: Vec::new(), fingerprint: [0; 16], chains: 0 };
    let wire =
        SubscriptionsWire { set: true, add: vec![heads.encode()], ..SubscriptionsWire::default() };
    wire::encode(FrameKind::Subscriptions(wire))
}

/// A frame that asks for an author's entries again.
#[must_use]
pub fn want_frame(topic: TopicId, author: AgentId, epoch: u64, from_seq: u64) -> Bytes {
    WantIn { topic, author, epoch, from_seq, need_key: false }.encode()
}

fn publish(run: Bytes, author_key: Bytes) -> Bytes {
    wire::encode(FrameKind::Publish(PublishWire {
        run,
        author_key,
        hops: 1,
        ..PublishWire::default()
    }))
}

/// A run's wire form, altered.
fn altered(run: &Run, alter: impl FnOnce(&mut RunWire)) -> Bytes {
    let mut wire = RunWire::decode(run.encoded().clone()).expect("an encoded run");
    alter(&mut wire);
    wire.encode_to_vec().into()
}

/// The attacks of one hostile peer on a topic. Each has an author of its own, whose key comes from
/// `keys`, so that they do not disturb each other. Together they stay below the misbehaviour at
/// which a peer is disconnected.
#[must_use]
pub fn hostile_cases(
    network: &str,
    topic: TopicId,
    wall: WallTime,
    mut keys: impl FnMut() -> SecretKey,
) -> Vec<HostileCase> {
    let network = NetworkId::from_name(network);
    let mut forge = || RunForge::new(keys(), network, topic, wall);
    let mut cases = forged(&mut forge);
    cases.extend(misplaced(&mut forge));
    cases.extend(malformed(&mut forge));
    cases
}

/// Runs that their author did not sign as they are.
fn forged(forge: &mut impl FnMut() -> RunForge) -> Vec<HostileCase> {
    let one = |name, counter, frame| HostileCase {
        name,
        frames: vec![frame],
        counter,
        delivered: Vec::new(),
    };
    let author = forge();
    let run = author.run(None, &[b"pay 1", b"pay 2"]);
    let payload = altered(&run, |wire| wire.entries[0].payload = Bytes::from_static(b"pay 9"));
    let header = altered(&run, |wire| wire.entries[1].time_delta += 1);
    let unsigned = altered(&run, |wire| wire.signature = Bytes::new());
    let signature = altered(&run, |wire| {
        let mut bytes = wire.signature.to_vec();
        bytes[7] ^= 1;
        wire.signature = bytes.into();
    });
    let stranger = forge();
    let wrong_key =
        publish(run.encoded().clone(), wire::copy(stranger.key.public_key().as_bytes()));
    // The wrong key comes first: once the author's key is known, it is not taken from a frame.
    vec![
        one("key not matching author", "pubsub_refused_key", wrong_key),
        one("altered payload", "pubsub_refused_signature", author.frame(&payload)),
        one("altered header", "pubsub_refused_signature", author.frame(&header)),
        one("unsigned", "pubsub_refused_unsigned", author.frame(&unsigned)),
        one("bad signature", "pubsub_refused_signature", author.frame(&signature)),
    ]
}

/// Signed runs in the wrong place.
fn misplaced(forge: &mut impl FnMut() -> RunForge) -> Vec<HostileCase> {
    let replayed = forge();
    let once = replayed.frame(replayed.run(None, &[b"once"]).encoded());
    let chained = forge();
    let first = chained.run(None, &[b"first"]);
    let astray = chained.run_at(2, EntryHash::GENESIS, &[b"astray"]);
    let overlapping = forge();
    let begin = overlapping.run(None, &[b"1", b"2"]);
    let whole = overlapping.run(None, &[b"1", b"2", b"3"]);
    let faced = forge();
    let said = faced.run(None, &[b"yes"]);
    let denied = faced.run(None, &[b"no"]);
    let mut foreign = forge();
    foreign.network = NetworkId::from_name("another network");
    let mut early = forge();
    early.wall = early.wall + std::time::Duration::from_secs(3600);
    let mut late = forge();
    late.wall = WallTime::from_millis(late.wall.as_millis() - 48 * 3600 * 1000);
    late.epoch = epoch_at(late.wall, 1);
    let one = |name, counter, author: &RunForge| HostileCase {
        name,
        frames: vec![author.frame(author.run(None, &[b"nowhere"]).encoded())],
        counter,
        delivered: Vec::new(),
    };
    let two = |name, counter, author: &RunForge, runs: [&Run; 2]| HostileCase {
        name,
        frames: runs.iter().map(|run| author.frame(run.encoded())).collect(),
        counter,
        delivered: runs[0].body().entries().iter().map(|entry| entry.payload.clone()).collect(),
    };
    vec![
        HostileCase {
            name: "replayed",
            frames: vec![once.clone(), once],
            counter: "pubsub_duplicates",
            delivered: vec![Bytes::from_static(b"once")],
        },
        two("mis-chained", "pubsub_refused_mischained", &chained, [&first, &astray]),
        two("overlapping", "pubsub_refused_overlap", &overlapping, [&begin, &whole]),
        two("equivocating author", "pubsub_equivocations", &faced, [&said, &denied]),
        one("wrong network", "pubsub_refused_network", &foreign),
        one("from the future", "pubsub_refused_future", &early),
        one("expired", "pubsub_refused_expired", &late),
    ]
}

/// Frames beyond the format.
fn malformed(forge: &mut impl FnMut() -> RunForge) -> Vec<HostileCase> {
    let one = |name, counter, frame| HostileCase {
        name,
        frames: vec![frame],
        counter,
        delivered: Vec::new(),
    };
    let author = forge();
    let run = author.run(None, &[b"small"]);
    let large = altered(&run, |wire| wire.entries[0].payload = vec![0; MAX_PAYLOAD + 1].into());
    let entry = EntryWire { time_delta: 1, class: 0, payload: Bytes::new() };
    let many = altered(&run, |wire| wire.entries = vec![entry; 65]);
    let appended = [&run.encoded()[..], &[0x7a, 1, 0]].concat();
    debug_assert!(large.len() < MAX_FRAME);
    vec![
        one("oversized payload", "pubsub_refused_oversized", author.frame(&large)),
        one("too many entries", "pubsub_refused_oversized", author.frame(&many)),
        one("unsigned bytes", "pubsub_refused_malformed", author.frame(&appended.into())),
    ]
}

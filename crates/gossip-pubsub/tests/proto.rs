//! The documented schema and the code agree: what machines send, the schema describes completely.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use protox::prost_reflect::{DescriptorPool, DynamicMessage, Kind, ReflectMessage, Value};
use x0x_core::{Machine as _, MachineId, PeerAddr, Tick, TopicId, WallTime};
use x0x_gossip_pubsub::{
    FrameIn, Input, Limits, NetworkId, Output, PubSubMachine, PubSubMetrics, Run, Start,
    SubscriptionId, testing::RunForge, topic_id,
};
use x0x_identity::testing::key;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");
const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);

/// Message, field, number, type.
const FIELDS: &[(&str, &str, u32, &str)] = &[
    ("Frame", "subscriptions", 1, "Subscriptions"),
    ("Frame", "publish", 2, "Publish"),
    ("Frame", "want", 3, "Want"),
    ("Frame", "announce", 4, "Announce"),
    ("Frame", "prune", 5, "Prune"),
    ("Frame", "graft", 6, "Graft"),
    ("Frame", "digest", 7, "Digest"),
    ("Frame", "heads", 8, "Heads"),
    ("Frame", "ranges", 9, "Ranges"),
    ("Frame", "find_peers", 10, "FindPeers"),
    ("Frame", "peers_found", 11, "PeersFound"),
    ("Subscriptions", "set", 1, "bool"),
    ("Subscriptions", "add", 2, "TopicHeads"),
    ("Subscriptions", "remove", 3, "bytes"),
    ("Subscriptions", "again", 4, "bool"),
    ("Subscriptions", "leave", 5, "bool"),
    ("TopicHeads", "topic", 1, "bytes"),
    ("TopicHeads", "heads", 2, "Head"),
    ("TopicHeads", "fingerprint", 3, "bytes"),
    ("TopicHeads", "chains", 4, "uint32"),
    ("Head", "author", 1, "bytes"),
    ("Head", "epoch", 2, "uint64"),
    ("Head", "seq", 3, "uint64"),
    ("Head", "gone", 4, "bool"),
    ("Publish", "run", 1, "Run"),
    ("Publish", "author_key", 2, "bytes"),
    ("Publish", "floor", 3, "bool"),
    ("Publish", "hops", 4, "uint32"),
    ("Publish", "removed", 5, "bool"),
    ("Want", "topic", 1, "bytes"),
    ("Want", "author", 2, "bytes"),
    ("Want", "epoch", 3, "uint64"),
    ("Want", "from_seq", 4, "uint64"),
    ("Want", "need_key", 5, "bool"),
    ("Announce", "topics", 1, "TopicAnnounce"),
    ("TopicAnnounce", "topic", 1, "bytes"),
    ("TopicAnnounce", "heads", 2, "Announced"),
    ("Announced", "author", 1, "bytes"),
    ("Announced", "epoch", 2, "uint64"),
    ("Announced", "seq", 3, "uint64"),
    ("Announced", "hops", 4, "uint32"),
    ("Announced", "pull", 5, "bool"),
    ("Prune", "topic", 1, "bytes"),
    ("Prune", "author", 2, "bytes"),
    ("Prune", "epoch", 3, "uint64"),
    ("Prune", "tree", 4, "bool"),
    ("Graft", "topic", 1, "bytes"),
    ("Graft", "author", 2, "bytes"),
    ("Graft", "epoch", 3, "uint64"),
    ("Graft", "from_seq", 4, "uint64"),
    ("Graft", "tree", 5, "bool"),
    ("Digest", "topic", 1, "bytes"),
    ("Digest", "fingerprint", 2, "bytes"),
    ("Digest", "chains", 3, "uint32"),
    ("Heads", "topic", 1, "bytes"),
    ("Heads", "heads", 2, "Head"),
    ("Heads", "reply", 3, "bool"),
    ("Ranges", "topic", 1, "bytes"),
    ("Ranges", "ranges", 2, "Range"),
    ("Range", "end_author", 1, "bytes"),
    ("Range", "end_epoch", 2, "uint64"),
    ("Range", "mode", 3, "uint32"),
    ("Range", "fingerprint", 4, "bytes"),
    ("Range", "heads", 5, "Head"),
    ("FindPeers", "topic", 1, "bytes"),
    ("FindPeers", "id", 2, "uint64"),
    ("FindPeers", "ttl", 3, "uint32"),
    ("PeersFound", "topic", 1, "bytes"),
    ("PeersFound", "id", 2, "uint64"),
    ("PeersFound", "peers", 3, "FoundPeer"),
    ("FoundPeer", "peer", 1, "bytes"),
    ("FoundPeer", "addresses", 2, "string"),
    ("Run", "network", 1, "bytes"),
    ("Run", "topic", 2, "bytes"),
    ("Run", "author", 3, "bytes"),
    ("Run", "epoch", 4, "uint64"),
    ("Run", "first_seq", 5, "uint64"),
    ("Run", "prev", 6, "bytes"),
    ("Run", "entries", 7, "Entry"),
    ("Run", "signature", 8, "bytes"),
    ("Entry", "time_delta", 1, "uint64"),
    ("Entry", "class", 2, "uint32"),
    ("Entry", "payload", 3, "bytes"),
];

/// Fields that are always at their default here, so that machines never send them.
const NEVER_SENT: &[(&str, &str)] = &[("Entry", "class")];

fn schema() -> DescriptorPool {
    let files = protox::compile(["pubsub.proto"], [SCHEMA]).expect("the schema compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete")
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.name().to_owned(),
        Kind::Bytes => "bytes".into(),
        Kind::Bool => "bool".into(),
        Kind::Uint64 => "uint64".into(),
        Kind::Uint32 => "uint32".into(),
        Kind::String => "string".into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_schema_has_exactly_the_fields_of_the_code() {
    let found: Vec<_> = schema()
        .all_messages()
        .flat_map(|message| message.fields().collect::<Vec<_>>())
        .map(|field| {
            let message = field.parent_message().name().to_owned();
            (message, field.name().to_owned(), field.number(), kind_name(&field.kind()))
        })
        .collect();
    let expected: Vec<_> = FIELDS
        .iter()
        .map(|(message, field, number, kind)| {
            ((*message).to_owned(), (*field).to_owned(), *number, (*kind).to_owned())
        })
        .collect();
    assert_eq!(found, expected);
}

/// Notes every field that is set, and fails on bytes that the schema does not know.
fn walk(message: &DynamicMessage, seen: &mut BTreeSet<(String, String)>) {
    let descriptor = message.descriptor();
    assert_eq!(message.unknown_fields().count(), 0, "{}", descriptor.name());
    for (field, value) in message.fields() {
        seen.insert((descriptor.name().to_owned(), field.name().to_owned()));
        match value {
            Value::Message(inner) => walk(inner, seen),
            Value::List(items) => {
                items.iter().filter_map(Value::as_message).for_each(|item| walk(item, seen));
            }
            _ => {}
        }
    }
}

/// Machines that are all linked, and every frame that one of them sends.
struct Net {
    machines: Vec<PubSubMachine>,
    now: Tick,
    frames: Vec<Bytes>,
    queue: VecDeque<(usize, usize, Bytes)>,
}

fn id(n: usize) -> MachineId {
    MachineId::new([u8::try_from(n).expect("small"); 32])
}

impl Net {
    fn new(limits: impl IntoIterator<Item = Limits>) -> Self {
        let machine = |(n, limits)| {
            let public = key(n).public_key().clone();
            let metrics = Arc::new(PubSubMetrics::default());
            PubSubMachine::new(NetworkId::from_name("schema"), public, limits, metrics)
        };
        let machines = (1..).zip(limits).map(machine).collect();
        let (now, frames, queue) = (Tick::ZERO, Vec::new(), VecDeque::new());
        let mut net = Self { machines, now, frames, queue };
        (0..net.machines.len()).for_each(|n| net.input(n, Input::Wall(WALL)));
        net
    }

    fn link(&mut self, a: usize, b: usize) {
        self.input(a, Input::LinkUp(id(b)));
        self.input(b, Input::LinkUp(id(a)));
        self.settle();
    }

    fn input(&mut self, n: usize, input: Input) {
        self.machines[n].handle(self.now, input);
        self.outputs(n);
    }

    fn outputs(&mut self, n: usize) {
        while let Some(output) = self.machines[n].poll_output() {
            match output {
                Output::Send { peer, message } => {
                    self.frames.push(message.clone());
                    self.queue.push_back((n, usize::from(peer.as_bytes()[0]), message));
                }
                Output::Verify(pending) => {
                    let checked = Input::Verified(pending.verify());
                    self.machines[n].handle(self.now, checked);
                }
                _ => {}
            }
        }
    }

    fn settle(&mut self) {
        while let Some((from, to, message)) = self.queue.pop_front() {
            if to < self.machines.len() {
                self.input(to, Input::Frame { peer: id(from), message });
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        for n in 0..self.machines.len() {
            self.machines[n].handle_timeout(self.now);
            self.outputs(n);
        }
        self.settle();
    }

    fn subscribe(&mut self, n: usize, topic: TopicId) -> SubscriptionId {
        let now = self.now;
        let id = self.machines[n].subscribe(now, topic, Start::Retained).expect("room");
        self.outputs(n);
        self.settle();
        id
    }

    fn signed(&mut self, n: usize, run: Run) {
        self.input(n, Input::Signed(Arc::new(run)));
        self.settle();
    }
}

fn forge(n: u64, topic: TopicId) -> RunForge {
    RunForge::new(key(n), NetworkId::from_name("schema"), topic, WALL)
}

/// A late joiner of a log without its beginning, a key that is unknown, a session that waited.
fn late_joiner() -> Vec<Bytes> {
    let topic = topic_id("t");
    let mut limits = Limits::default();
    (limits.topic_entries, limits.links) = (1, 1);
    let mut net = Net::new([limits, Limits::default()]);
    let author = forge(1, topic);
    let first = author.run(None, &[b"one"]);
    let second = author.run(Some(&first), &[b"two"]);
    net.subscribe(0, topic);
    // Of another author nothing is left but its head.
    net.signed(0, forge(9, topic).run(None, &[b"gone"]));
    net.signed(0, first);
    net.signed(0, second);
    let subscription = net.subscribe(1, topic);
    net.link(0, 1);
    net.input(1, Input::Unsubscribe(subscription));
    net.subscribe(1, topic_id("other"));
    // A run whose author is unknown makes the want that also asks for the key.
    let stranger = forge(4, topic_id("other"));
    let frame = stranger.frame(stranger.run(None, &[b"x"]).encoded());
    net.input(1, Input::Frame { peer: id(0), message: keyless(&frame) });
    net.settle();
    net.input(0, Input::LinkUp(id(7)));
    net.input(0, Input::LinkLeft(id(1)));
    net.frames
}

/// Three machines with a cycle of links: announcements, prune, graft, comparison.
fn tree() -> Vec<Bytes> {
    let topic = topic_id("t");
    let mut net = Net::new(vec![Limits::default(); 3]);
    (0..3).for_each(|n| {
        net.subscribe(n, topic);
    });
    [(0, 1), (1, 2), (2, 0)].into_iter().for_each(|(a, b)| net.link(a, b));
    let author = forge(1, topic);
    let small = author.run(None, &[b"small"]);
    net.signed(0, small.clone());
    let large = author.run(Some(&small), &[&[7; 60_000]]);
    net.signed(0, large.clone());
    // The link between the others is lazy now: what only one of them has is announced, and asked for.
    net.input(0, Input::LinkDown(id(2)));
    net.input(2, Input::LinkDown(id(0)));
    net.signed(0, author.run(Some(&large), &[b"next"]));
    (0..100).for_each(|_| net.advance(Duration::from_secs(1)));
    // Runs that nobody was told of are found by comparison.
    let lost = forge(9, topic).run(None, &[b"lost"]);
    net.input(1, Input::Signed(Arc::new(lost)));
    net.queue.clear();
    (0..100).for_each(|_| net.advance(Duration::from_secs(1)));
    net.frames
}

/// A line of subscribers: one at its end looks for more than its neighbour.
fn line() -> Vec<Bytes> {
    let topic = topic_id("t");
    let mut net = Net::new(vec![Limits::default(); 3]);
    (0..3).for_each(|n| {
        net.subscribe(n, topic);
    });
    [(0, 1), (1, 2)].into_iter().for_each(|(a, b)| net.link(a, b));
    let listens = "192.0.2.7:4000".parse().expect("an address");
    net.input(1, Input::Address(PeerAddr::known(id(2), [listens])));
    net.advance(Duration::from_secs(3));
    net.frames
}

/// More chains than fit a list.
fn many_authors() -> Vec<Bytes> {
    let topic = topic_id("t");
    let mut net = Net::new(vec![Limits::default(); 2]);
    net.subscribe(0, topic);
    net.link(0, 1);
    for n in 20..30 {
        for epoch in 0..32 {
            let author = RunForge { epoch, ..forge(n, topic) };
            let message = author.frame(author.run(None, &[b"x"]).encoded());
            net.input(0, Input::Frame { peer: id(1), message });
        }
    }
    net.subscribe(1, topic);
    net.advance(Duration::from_secs(1));
    net.frames
}

#[test]
fn what_machines_send_the_schema_decodes() {
    let frames = [late_joiner(), tree(), line(), many_authors()].concat();
    let pool = schema();
    let descriptor = pool.get_message_by_name("x0x.pubsub.v1.Frame").expect("in the schema");
    let mut seen = BTreeSet::new();
    for frame in frames {
        let message = DynamicMessage::decode(descriptor.clone(), &frame[..]).expect("decodes");
        walk(&message, &mut seen);
        assert!(FrameIn::decode(frame).is_ok());
    }
    for (message, field, ..) in FIELDS {
        let sent = seen.contains(&((*message).to_owned(), (*field).to_owned()));
        assert_eq!(sent, !NEVER_SENT.contains(&(message, field)), "{message}.{field}");
    }
}

/// A publish frame of a small run without its author's key.
fn keyless(frame: &Bytes) -> Bytes {
    // Tag and outer length in two bytes, then the run with its tag and length in two bytes, the key,
    // and the number of hops.
    let run = 3 + usize::from(frame[4] & 0x7f) + (usize::from(frame[5]) << 7) + 3;
    let body = [&frame[3..run], &frame[frame.len() - 2..]].concat();
    let byte = |n: usize| u8::try_from(n).expect("a byte");
    let varint = [byte(body.len() & 0x7f | 0x80), byte(body.len() >> 7)];
    [&frame[..1], &varint, &body[..]].concat().into()
}

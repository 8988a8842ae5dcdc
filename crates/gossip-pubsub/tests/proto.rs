//! The documented schema and the code agree: what machines send, the schema describes completely.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use protox::prost_reflect::{DescriptorPool, DynamicMessage, Kind, ReflectMessage, Value};
use x0x_core::{Machine as _, MachineId, Tick, WallTime};
use x0x_gossip_pubsub::{
    FrameIn, Input, Limits, NetworkId, Output, PubSubMachine, PubSubMetrics, Start,
    testing::RunForge, topic_id,
};
use x0x_identity::testing::key;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");
const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);

/// Message, field, number, type.
const FIELDS: &[(&str, &str, u32, &str)] = &[
    ("Frame", "subscriptions", 1, "Subscriptions"),
    ("Frame", "publish", 2, "Publish"),
    ("Frame", "want", 3, "Want"),
    ("Subscriptions", "set", 1, "bool"),
    ("Subscriptions", "add", 2, "TopicHeads"),
    ("Subscriptions", "remove", 3, "bytes"),
    ("Subscriptions", "again", 4, "bool"),
    ("TopicHeads", "topic", 1, "bytes"),
    ("TopicHeads", "heads", 2, "Head"),
    ("Head", "author", 1, "bytes"),
    ("Head", "epoch", 2, "uint64"),
    ("Head", "seq", 3, "uint64"),
    ("Publish", "run", 1, "Run"),
    ("Publish", "author_key", 2, "bytes"),
    ("Publish", "floor", 3, "bool"),
    ("Want", "topic", 1, "bytes"),
    ("Want", "author", 2, "bytes"),
    ("Want", "epoch", 3, "uint64"),
    ("Want", "from_seq", 4, "uint64"),
    ("Want", "need_key", 5, "bool"),
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

struct Machine(PubSubMachine);

impl Machine {
    fn new(n: u64, limits: Limits) -> Self {
        let (network, key) = (NetworkId::from_name("schema"), key(n).public_key().clone());
        let metrics = Arc::new(PubSubMetrics::default());
        let mut machine = Self(PubSubMachine::new(network, key, limits, metrics));
        machine.input(Input::Wall(WALL));
        machine
    }

    /// The frames that an input makes it send.
    fn input(&mut self, input: Input) -> Vec<Bytes> {
        self.0.handle(Tick::ZERO, input);
        let mut sent = Vec::new();
        while let Some(output) = self.0.poll_output() {
            match output {
                Output::Send { message, .. } => sent.push(message),
                Output::Verify(pending) => {
                    self.0.handle(Tick::ZERO, Input::Verified(pending.verify()));
                }
                _ => {}
            }
        }
        sent
    }
}

#[test]
fn what_machines_send_the_schema_decodes() {
    let topic = topic_id("t");
    let mut limits = Limits::default();
    limits.topic_entries = 1;
    let (mut a, mut b) = (Machine::new(1, limits), Machine::new(2, Limits::default()));
    let [at_a, at_b] = [1, 2].map(|n| MachineId::new([n; 32]));
    let forge = RunForge::new(key(1), NetworkId::from_name("schema"), topic, WALL);
    let first = forge.run(None, &[b"one"]);
    let second = forge.run(Some(&first), &[b"two"]);
    let third = forge.run(Some(&second), &[b"three"]);

    // One run is retained, so it goes out as a floor with its key; then the next is missed.
    a.0.subscribe(Tick::ZERO, topic, Start::Retained).expect("room");
    a.input(Input::Signed(first));
    a.input(Input::Signed(second.clone()));
    let b_subscribed = b.0.subscribe(Tick::ZERO, topic, Start::Retained).expect("room");
    let mut frames = a.input(Input::LinkUp(at_b));
    let from_b = b.input(Input::LinkUp(at_a));
    for frame in from_b.iter().cloned() {
        frames.extend(a.input(Input::Frame { peer: at_b, message: frame }));
    }
    frames.extend(from_b);
    let keyless = {
        let mut fresh = Machine::new(3, Limits::default());
        fresh.0.subscribe(Tick::ZERO, topic, Start::Retained).expect("room");
        fresh.input(Input::LinkUp(at_a));
        let plain = a.input(Input::Signed(third)).pop().expect("sent to b");
        fresh.input(Input::Frame { peer: at_a, message: plain })
    };
    frames.extend(keyless);
    // A first run whose key is unknown makes the want that also asks for the key.
    let other = RunForge::new(key(4), forge.network, topic, WALL);
    let frame = other.frame(other.run(None, &[b"x"]).encoded());
    let bare = Bytes::copy_from_slice(&frame[..frame.len() - x0x_identity::PUBLIC_KEY_LEN - 3]);
    frames.extend(b.input(Input::Frame { peer: at_a, message: shorten(&bare) }));
    frames.extend(b.input(Input::Unsubscribe(b_subscribed)));
    // A session that waited for another to end is asked for its subscriptions.
    let mut limits = Limits::default();
    limits.links = 1;
    let mut full = Machine::new(5, limits);
    full.input(Input::LinkUp(at_a));
    full.input(Input::LinkUp(at_b));
    frames.extend(full.input(Input::LinkDown(at_a)));

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

/// Corrects the outer length of a publish frame whose key was cut off.
fn shorten(frame: &Bytes) -> Bytes {
    // Tag, then the outer length in two bytes: a run of one entry takes more than 127 bytes and
    // less than 16 KiB.
    let body = &frame[3..];
    let len = body.len();
    let byte = |n: usize| u8::try_from(n).expect("a byte");
    let varint = [byte(len & 0x7f | 0x80), byte(len >> 7)];
    [&frame[..1], &varint, body].concat().into()
}

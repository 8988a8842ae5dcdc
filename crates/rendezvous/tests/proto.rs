//! The documented schema and the code agree: what the code encodes, the schema describes completely.

use std::{net::SocketAddr, time::Duration};

use protox::prost_reflect::{DescriptorPool, DynamicMessage, Kind, Value};
use x0x_core::{MachineId, TopicId, UserId, WallTime};
use x0x_identity::{SignedBinding, testing::key};
use x0x_rendezvous::{
    Announcement, Frame, LookupKey, Referral, SignedRecord, Stamp, Subject, open, seal,
};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");

/// Message, field, number, type.
const FIELDS: &[(&str, &str, u32, &str)] = &[
    ("AgentAnnouncement", "agent_id", 1, "bytes"),
    ("AgentAnnouncement", "machine_id", 2, "bytes"),
    ("AgentAnnouncement", "user_id", 3, "optional bytes"),
    ("AgentAnnouncement", "addresses", 4, "repeated Address"),
    ("AgentAnnouncement", "announced_at_ms", 5, "uint64"),
    ("AgentAnnouncement", "counter", 6, "uint64"),
    ("AgentAnnouncement", "binding", 7, "bytes"),
    ("Address", "ip", 1, "bytes"),
    ("Address", "port", 2, "uint32"),
    ("Frame", "lookup", 1, "optional Lookup"),
    ("Frame", "found", 2, "optional Found"),
    ("Frame", "store", 3, "optional Store"),
    ("Frame", "stored", 4, "optional Stored"),
    ("Lookup", "key", 1, "bytes"),
    ("Lookup", "id", 2, "uint64"),
    ("Lookup", "hops", 3, "uint32"),
    ("Found", "key", 1, "bytes"),
    ("Found", "id", 2, "uint64"),
    ("Found", "sealed", 3, "repeated bytes"),
    ("Found", "referrals", 4, "repeated Referral"),
    ("Found", "holds", 5, "bool"),
    ("Referral", "machine_id", 1, "bytes"),
    ("Referral", "addresses", 2, "repeated bytes"),
    ("Store", "key", 1, "bytes"),
    ("Store", "topic", 2, "bool"),
    ("Store", "sealed", 3, "bytes"),
    ("Store", "lifetime_s", 4, "uint32"),
    ("Stored", "key", 1, "bytes"),
    ("Stored", "kept", 2, "bool"),
    ("SignedRecord", "body", 1, "bytes"),
    ("SignedRecord", "agent_key", 2, "bytes"),
    ("SignedRecord", "signature", 3, "bytes"),
    ("Record", "agent_id", 1, "bytes"),
    ("Record", "machine_id", 2, "bytes"),
    ("Record", "topic_id", 3, "optional bytes"),
    ("Record", "addresses", 4, "repeated bytes"),
    ("Record", "announced_at_ms", 5, "uint64"),
    ("Record", "counter", 6, "uint64"),
    ("Record", "not_after_ms", 7, "uint64"),
    ("Record", "generation", 8, "uint64"),
];

fn schema() -> DescriptorPool {
    let files = protox::compile(["rendezvous.proto"], [SCHEMA]).expect("the schema compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete")
}

fn type_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.name().to_owned(),
        other => format!("{other:?}"),
    }
}

fn field<'a>(message: &'a DynamicMessage, name: &str) -> std::borrow::Cow<'a, Value> {
    message.get_field_by_name(name).expect("in the schema")
}

#[test]
fn the_schema_has_exactly_the_fields_of_the_code() {
    let mut found = Vec::new();
    for message in schema().all_messages() {
        for field in message.fields() {
            let label = match (field.is_list(), field.containing_oneof().is_some()) {
                (true, _) => "repeated ",
                (false, true) => "optional ",
                (false, false) => "",
            };
            let kind = format!("{label}{}", type_name(&field.kind()));
            let name = (message.name().to_owned(), field.name().to_owned());
            found.push((name.0, name.1, field.number(), kind));
        }
    }
    let expected: Vec<_> = FIELDS
        .iter()
        .map(|&(message, field, number, kind)| {
            (message.to_owned(), field.to_owned(), number, kind.to_owned())
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn what_the_code_encodes_the_schema_decodes() {
    let now = WallTime::from_millis(1_800_000_000_000);
    let (agent, machine) = (key(1), key(2).public_key().machine_id());
    let binding = SignedBinding::issue(&agent, machine, now, Duration::from_secs(60));
    let sent = Announcement {
        agent: agent.public_key().agent_id(),
        machine,
        user: Some(UserId::new([9; 32])),
        addresses: vec![SocketAddr::from(([192, 0, 2, 1], 5483))],
        stamp: Stamp { announced_at: now, counter: 4 },
    };

    let descriptor =
        schema().get_message_by_name("x0x.rendezvous.v1.AgentAnnouncement").expect("in the schema");
    let decoded = DynamicMessage::decode(descriptor, &sent.encode(&binding)[..]).expect("decodes");
    assert_eq!(decoded.unknown_fields().count(), 0);

    let bytes = |name| field(&decoded, name).as_bytes().expect("bytes").to_vec();
    assert_eq!(bytes("agent_id"), sent.agent.as_bytes());
    assert_eq!(bytes("machine_id"), machine.as_bytes());
    assert_eq!(bytes("user_id"), [9; 32]);
    assert_eq!(bytes("binding"), binding.encode());
    assert_eq!(*field(&decoded, "announced_at_ms"), Value::U64(now.as_millis()));
    assert_eq!(*field(&decoded, "counter"), Value::U64(4));

    let addresses = field(&decoded, "addresses");
    let [address] = addresses.as_list().expect("a list") else { panic!("one address") };
    let address = address.as_message().expect("a message");
    assert_eq!(address.unknown_fields().count(), 0);
    assert_eq!(field(address, "ip").as_bytes().expect("bytes")[..], [192, 0, 2, 1]);
    assert_eq!(*field(address, "port"), Value::U32(5483));
}

/// Decodes by the schema and fails on anything that it does not know.
fn decode(name: &str, bytes: &[u8]) -> DynamicMessage {
    let full = format!("x0x.rendezvous.v1.{name}");
    let descriptor = schema().get_message_by_name(&full).expect("in the schema");
    let message = DynamicMessage::decode(descriptor, bytes).expect("decodes");
    known(&message);
    message
}

fn known(message: &DynamicMessage) {
    assert_eq!(message.unknown_fields().count(), 0);
    for (_, value) in message.fields() {
        match value {
            Value::Message(inner) => known(inner),
            Value::List(list) => list.iter().filter_map(Value::as_message).for_each(known),
            _ => {}
        }
    }
}

#[test]
fn frames_decode_by_the_schema_and_by_the_code() {
    let key = LookupKey::new([1; 32]);
    let address = SocketAddr::from(([192, 0, 2, 1], 5483));
    let referral = Referral { machine: MachineId::new([2; 32]), addresses: vec![address] };
    for frame in [
        Frame::Lookup { key, id: 7, hops: 3 },
        Frame::Found {
            key,
            id: 7,
            sealed: vec![vec![3; 9].into()],
            referrals: vec![referral],
            holds: true,
        },
        Frame::Store {
            key,
            topic: true,
            sealed: vec![4; 9].into(),
            lifetime: Duration::from_secs(60),
        },
        Frame::Stored { key, kept: true },
    ] {
        decode("Frame", &frame.encode());
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }
}

#[test]
fn records_decode_by_the_schema() {
    let now = WallTime::from_millis(1_800_000_000_000);
    let subject = Subject::Topic(TopicId::new([5; 32]));
    let address = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 5483));
    let stamp = Stamp { announced_at: now, counter: 4 };
    let machine = MachineId::new([2; 32]);
    let record = SignedRecord::issue(&key(1), machine, 5, subject, &[address], stamp);
    let signed = decode("SignedRecord", &record.encode());
    let body = field(&signed, "body").as_bytes().expect("bytes").clone();
    let body = decode("Record", &body);
    assert_eq!(field(&body, "topic_id").as_bytes().expect("bytes")[..], [5; 32]);
    assert_eq!(*field(&body, "counter"), Value::U64(4));
    assert_eq!(*field(&body, "generation"), Value::U64(5));

    let sealed = seal(&subject, 9, &record.encode());
    let opened = open(&subject, 9, &sealed).expect("its own seal");
    let received = SignedRecord::decode(&opened).expect("well-formed");
    assert_eq!(received.verify(&subject, now), Ok(record));
}

/// Values that must never change, as the documentation derives them.
#[test]
fn keys_and_seals_are_as_documented() {
    let subject = Subject::Agent([7; 32].into());
    let mut input = vec![1];
    input.extend_from_slice(&[7; 32]);
    input.extend_from_slice(&20_833_u64.to_be_bytes());
    let mut key = blake3::derive_key("x0x rendezvous lookup key 1", &input);
    key[31] &= 0xfe;
    assert_eq!(LookupKey::of(&subject, 20_833), LookupKey::new(key));
    let topic = [&[2], &input[1..]].concat();
    let mut topic_key = blake3::derive_key("x0x rendezvous lookup key 1", &topic);
    topic_key[31] |= 1;
    let topic = Subject::Topic([7; 32].into());
    assert_eq!(LookupKey::of(&topic, 20_833), LookupKey::new(topic_key));
    // The bytes of the distance are those of the key where the other id is all zeros.
    let (near, far) = (MachineId::new(key), MachineId::new(key.map(|byte| !byte)));
    let distance = |machine| LookupKey::new(key).distance(&machine);
    assert!(distance(near) < distance(MachineId::new([0; 32])) && distance(far) > distance(near));
    let seal_key = blake3::derive_key("x0x rendezvous seal 1", &input);
    let salt = blake3::keyed_hash(&seal_key, b"text");
    assert_eq!(seal(&subject, 20_833, b"text")[..16], salt.as_bytes()[..16]);
}

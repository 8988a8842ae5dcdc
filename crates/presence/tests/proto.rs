//! The documented schema and the code agree: what the code encodes, the schema describes completely.

use std::time::Duration;

use protox::prost_reflect::{DescriptorPool, DynamicMessage, Kind, Value};
use x0x_core::{AgentId, MachineId, WallTime};
use x0x_identity::testing::key;
use x0x_presence::{Beacon, Frame, LocalSession, SessionId, Sighting, SignedQuery};
use zeroize::Zeroizing;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");
const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

/// Message, field, number, type.
const FIELDS: &[(&str, &str, u32, &str)] = &[
    ("Frame", "interest", 1, "Interest"),
    ("Frame", "beacons", 2, "Beacons"),
    ("Frame", "want", 3, "Want"),
    ("Frame", "record", 4, "bytes"),
    ("Frame", "walk", 5, "Walk"),
    ("Frame", "answer", 6, "Answer"),
    ("Interest", "tags", 1, "bytes"),
    ("Beacons", "beacons", 1, "repeated Beacon"),
    ("Beacon", "session", 1, "bytes"),
    ("Beacon", "index", 2, "uint32"),
    ("Beacon", "value", 3, "bytes"),
    ("Want", "sessions", 1, "repeated bytes"),
    ("Walk", "query", 1, "bytes"),
    ("Walk", "ttl", 2, "uint32"),
    ("Answer", "walk", 1, "bytes"),
    ("Answer", "sightings", 2, "repeated Sighting"),
    ("Sighting", "record", 1, "bytes"),
    ("Sighting", "beacon", 2, "Beacon"),
    ("Signed", "body", 1, "bytes"),
    ("Signed", "agent_key", 2, "bytes"),
    ("Signed", "signature", 3, "bytes"),
    ("Session", "agent_id", 1, "bytes"),
    ("Session", "machine_id", 2, "bytes"),
    ("Session", "started_ms", 3, "uint64"),
    ("Session", "period_ms", 4, "uint32"),
    ("Session", "length", 5, "uint32"),
    ("Session", "anchor", 6, "bytes"),
    ("Session", "farewell", 7, "bytes"),
    ("Session", "shared", 8, "bool"),
    ("Query", "id", 1, "bytes"),
    ("Query", "targets", 2, "repeated bytes"),
    ("Query", "asked_at_ms", 3, "uint64"),
];

fn schema() -> DescriptorPool {
    let files = protox::compile(["presence.proto"], [SCHEMA]).expect("the schema compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete")
}

#[test]
fn the_schema_has_exactly_the_fields_of_the_code() {
    let mut found = Vec::new();
    for message in schema().all_messages() {
        for field in message.fields() {
            let label = if field.is_list() { "repeated " } else { "" };
            let kind = match field.kind() {
                Kind::Message(message) => message.name().to_owned(),
                other => format!("{other:?}"),
            };
            let kind = format!("{label}{kind}");
            found.push((message.name().to_owned(), field.name().to_owned(), field.number(), kind));
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

fn session() -> LocalSession {
    let machine = MachineId::new([2; 32]);
    let secret = Zeroizing::new([3; 32]);
    LocalSession::begin(&key(1), machine, &secret, NOW, Duration::from_secs(30), true)
}

/// Decodes by the schema and fails on anything that it does not know.
fn decode(name: &str, bytes: &[u8]) -> DynamicMessage {
    let full = format!("x0x.presence.v1.{name}");
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

fn bytes(message: &DynamicMessage, name: &str) -> Vec<u8> {
    let value = message.get_field_by_name(name).expect("in the schema");
    value.as_bytes().expect("bytes").to_vec()
}

#[test]
fn frames_decode_by_the_schema() {
    let record = session().signed().clone();
    let beacon = Beacon { session: SessionId([8; 8]), index: 7, value: [9; 32] };
    let query = SignedQuery::ask(&key(1), [4; 16], &[AgentId::new([5; 32])], NOW);
    let sighting = Sighting { record: record.encode(), beacon };
    for frame in [
        Frame::Interest(vec![[1; 8], [2; 8]]),
        Frame::Beacons(vec![beacon, beacon]),
        Frame::Want(vec![SessionId([8; 8])]),
        Frame::Record(record),
        Frame::Walk(query, 3),
        Frame::Answer([4; 16], vec![sighting]),
    ] {
        decode("Frame", &frame.encode());
        Frame::decode(&frame.encode()).expect("its own form");
    }
}

#[test]
fn signed_bodies_decode_by_the_schema() {
    let session = session();
    let signed = decode("Signed", &session.signed().encode());
    let body = decode("Session", &bytes(&signed, "body"));
    assert_eq!(bytes(&body, "agent_id"), key(1).public_key().agent_id().as_bytes());
    assert_eq!(bytes(&body, "anchor"), session.signed().session().anchor());
    assert_eq!(*body.get_field_by_name("period_ms").expect("known"), Value::U32(30_000));

    let query = SignedQuery::ask(&key(1), [4; 16], &[AgentId::new([5; 32])], NOW);
    let signed = decode("Signed", &query.encode());
    let body = decode("Query", &bytes(&signed, "body"));
    assert_eq!(bytes(&body, "id"), [4; 16]);
    assert_eq!(*body.get_field_by_name("asked_at_ms").expect("known"), Value::U64(NOW.as_millis()));
}

#[test]
fn chains_are_as_documented() {
    // The anchor of the secret 03 03 ..., 2880 steps on: must never change.
    let mut value = [3; 32];
    for _ in 0..2880 {
        value = *blake3::keyed_hash(b"x0x presence beacon chain step 1", &value).as_bytes();
    }
    assert_eq!(session().signed().session().anchor(), value);
}

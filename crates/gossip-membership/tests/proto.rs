//! The documented schema and the code agree: what the code encodes, the schema describes completely.

use protox::prost_reflect::{DescriptorPool, DynamicMessage, Kind, ReflectMessage, Value};
use x0x_core::MachineId;
use x0x_gossip_membership::{Hint, Message, Outcome, Peer};
use x0x_transport::{ReachClass, testing};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");

/// Message, field, number; the types follow from what decodes.
const FIELDS: &[(&str, &str, u32)] = &[
    ("Frame", "join", 1),
    ("Frame", "forward_join", 2),
    ("Frame", "neighbor", 3),
    ("Frame", "neighbor_reply", 4),
    ("Frame", "shuffle", 5),
    ("Frame", "shuffle_reply", 6),
    ("Frame", "disconnect", 7),
    ("Frame", "ping", 8),
    ("Frame", "ack", 9),
    ("Frame", "ping_request", 10),
    ("Frame", "ping_report", 11),
    ("Frame", "record", 12),
    ("ForwardJoin", "ttl", 1),
    ("ForwardJoin", "joiner", 2),
    ("Neighbor", "high", 1),
    ("NeighborReply", "accept", 1),
    ("NeighborReply", "entries", 2),
    ("Shuffle", "id", 1),
    ("Shuffle", "ttl", 2),
    ("Shuffle", "entries", 3),
    ("ShuffleReply", "id", 1),
    ("ShuffleReply", "entries", 2),
    ("Disconnect", "alive", 1),
    ("Ping", "nonce", 1),
    ("Ping", "suspected", 2),
    ("Ping", "sample", 3),
    ("Ack", "nonce", 1),
    ("Ack", "incarnation", 2),
    ("Ack", "entries", 3),
    ("PingRequest", "nonce", 1),
    ("PingRequest", "target", 2),
    ("PingRequest", "suspected", 3),
    ("PingReport", "nonce", 1),
    ("PingReport", "outcome", 2),
    ("PingReport", "incarnation", 3),
    ("Peer", "id", 1),
    ("Peer", "addresses", 2),
    ("Peer", "reach", 3),
    ("Peer", "record", 4),
    ("SignedRecord", "body", 1),
    ("SignedRecord", "key", 2),
    ("SignedRecord", "signature", 3),
    ("Record", "machine", 1),
    ("Record", "addresses", 2),
    ("Record", "reach", 3),
    ("Record", "seq", 4),
    ("Record", "not_after_ms", 5),
];

fn schema() -> DescriptorPool {
    let files = protox::compile(["membership.proto"], [SCHEMA]).expect("the schema compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete")
}

#[test]
fn the_schema_has_exactly_the_fields_of_the_code() {
    let mut found = Vec::new();
    for message in schema().all_messages() {
        let fields = message.fields();
        found.extend(fields.map(|f| (message.name().to_owned(), f.name().to_owned(), f.number())));
    }
    let expected = FIELDS.iter().map(|(m, f, n)| ((*m).to_owned(), (*f).to_owned(), *n));
    assert_eq!(found, expected.collect::<Vec<_>>());
}

/// The body of an encoded message by the schema, all of whose bytes the schema knows.
fn body(pool: &DescriptorPool, message: &Message, kind: &str) -> DynamicMessage {
    let frame = pool.get_message_by_name("x0x.membership.v1.Frame").expect("in the schema");
    let decoded = DynamicMessage::decode(frame, message.encode()).expect("decodes");
    assert_eq!(decoded.unknown_fields().count(), 0);
    let body = decoded.get_field_by_name(kind).expect("in the schema").into_owned();
    let body = body.as_message().expect("a message").clone();
    assert_eq!(body.unknown_fields().count(), 0, "{kind}");
    for field in body.descriptor().fields().filter(|f| f.kind() != Kind::Bool) {
        assert!(body.has_field(&field), "{kind}.{}", field.name());
    }
    body
}

fn value(message: &DynamicMessage, field: &str) -> Value {
    message.get_field_by_name(field).expect("in the schema").into_owned()
}

fn check_peer(peer: &Value) {
    let peer = peer.as_message().expect("a message");
    assert_eq!(peer.unknown_fields().count(), 0);
    assert_eq!(value(peer, "id"), Value::Bytes(vec![1; 32].into()));
    let addresses = value(peer, "addresses");
    let lengths: Vec<usize> = addresses
        .as_list()
        .expect("a list")
        .iter()
        .map(|address| address.as_bytes().expect("bytes").len())
        .collect();
    assert_eq!(lengths, [6, 18]);
    assert_eq!(value(peer, "reach"), Value::U32(3));
    assert_eq!(value(peer, "record"), Value::Bytes(vec![9; 16].into()));
}

#[test]
fn what_the_code_encodes_the_schema_decodes() {
    let pool = schema();
    let addresses = ["192.0.2.1:1", "[2001:db8::1]:2"].map(|a| a.parse().expect("an address"));
    let hint = Hint::new(ReachClass::RelayOnly, Some([9; 16]));
    let peer = Peer::new(MachineId::new([1; 32]), addresses).with_hint(hint);

    body(&pool, &Message::Join, "join");
    let walk = Message::ForwardJoin { ttl: 6, joiner: peer.clone() };
    let walk = body(&pool, &walk, "forward_join");
    assert_eq!(value(&walk, "ttl"), Value::U32(6));
    check_peer(&value(&walk, "joiner"));

    let shuffle = Message::Shuffle { id: 300, ttl: 2, entries: vec![peer.clone()] };
    let shuffle = body(&pool, &shuffle, "shuffle");
    assert_eq!((value(&shuffle, "id"), value(&shuffle, "ttl")), (Value::U64(300), Value::U32(2)));
    check_peer(&value(&shuffle, "entries").as_list().expect("a list")[0]);
    let reply = Message::ShuffleReply { id: 300, entries: vec![peer.clone()] };
    let reply = body(&pool, &reply, "shuffle_reply");
    assert_eq!(value(&reply, "id"), Value::U64(300));
    check_peer(&value(&reply, "entries").as_list().expect("a list")[0]);

    for flag in [false, true] {
        let flags = [
            (Message::Neighbor { high: flag }, "neighbor", "high"),
            (
                Message::NeighborReply { accept: flag, entries: vec![peer.clone()] },
                "neighbor_reply",
                "accept",
            ),
            (Message::Disconnect { alive: flag }, "disconnect", "alive"),
        ];
        for (message, kind, field) in flags {
            assert_eq!(value(&body(&pool, &message, kind), field), Value::Bool(flag));
        }
    }

    let ping = Message::Ping { nonce: 7, suspected: Some(0), sample: true };
    let ping = body(&pool, &ping, "ping");
    assert_eq!((value(&ping, "nonce"), value(&ping, "suspected")), (Value::U64(7), Value::U64(0)));
    let ack = Message::Ack { nonce: 7, incarnation: 8, entries: vec![peer] };
    let ack = body(&pool, &ack, "ack");
    assert_eq!(value(&ack, "incarnation"), Value::U64(8));
    check_peer(&value(&ack, "entries").as_list().expect("a list")[0]);
    let target = MachineId::new([3; 32]);
    let request = Message::PingRequest { nonce: 7, target, suspected: Some(9) };
    let request = body(&pool, &request, "ping_request");
    assert_eq!(value(&request, "target"), Value::Bytes(vec![3; 32].into()));
    for (outcome, number) in [(Outcome::Silent, 1), (Outcome::Alive(5), 2)] {
        let report = Message::PingReport { nonce: 7, outcome }.encode();
        let frame = pool.get_message_by_name("x0x.membership.v1.Frame").expect("in the schema");
        let frame = DynamicMessage::decode(frame, report).expect("decodes");
        let report = value(&frame, "ping_report");
        let report = report.as_message().expect("a message");
        assert_eq!(value(report, "outcome"), Value::U32(number));
        assert_eq!(value(report, "incarnation"), Value::U64(if number == 2 { 5 } else { 0 }));
    }
}

#[test]
fn the_schema_reads_a_signed_record() {
    let pool = schema();
    let record = testing::record(1, ReachClass::Public, testing::EPOCH);
    let frame = pool.get_message_by_name("x0x.membership.v1.Frame").expect("in the schema");
    let frame = DynamicMessage::decode(frame, Message::Record(record.clone()).encode());
    let Value::Bytes(bytes) = value(&frame.expect("decodes"), "record") else { panic!("bytes") };
    assert_eq!(bytes, record.encode());
    let read = |kind: &str, bytes: bytes::Bytes| {
        let descriptor = pool.get_message_by_name(&format!("x0x.membership.v1.{kind}"));
        let read = DynamicMessage::decode(descriptor.expect("in the schema"), bytes);
        let read = read.expect("decodes");
        assert_eq!(read.unknown_fields().count(), 0);
        read
    };
    let signed = read("SignedRecord", bytes);
    let Value::Bytes(body) = value(&signed, "body") else { panic!("bytes") };
    let body = read("Record", body);
    assert_eq!(value(&body, "seq"), Value::U64(testing::EPOCH.as_millis()));
    let day = 24 * 3600 * 1000;
    assert_eq!(value(&body, "not_after_ms"), Value::U64(testing::EPOCH.as_millis() + day));
    assert_eq!(
        value(&body, "machine"),
        Value::Bytes(testing::machine(1).as_bytes().to_vec().into())
    );
    assert_eq!(value(&body, "reach"), Value::U32(1));
}

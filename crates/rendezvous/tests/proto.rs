//! The documented schema and the code agree: what the code encodes, the schema describes completely.

use std::{net::SocketAddr, time::Duration};

use protox::prost_reflect::{DescriptorPool, DynamicMessage, Kind, Value};
use x0x_core::{UserId, WallTime};
use x0x_identity::{SignedBinding, testing::key};
use x0x_rendezvous::{Announcement, Stamp};

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

//! The documented schema and the code agree: what the code encodes, the schema describes completely.

use std::time::Duration;

use protox::prost_reflect::{DescriptorPool, DynamicMessage, Kind, Value};
use x0x_core::WallTime;
use x0x_identity::{SecretKey, SignedBinding};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");

/// Message, field, number, type.
const FIELDS: &[(&str, &str, u32, Kind)] = &[
    ("AgentBinding", "agent_id", 1, Kind::Bytes),
    ("AgentBinding", "machine_id", 2, Kind::Bytes),
    ("AgentBinding", "not_before_ms", 3, Kind::Uint64),
    ("AgentBinding", "not_after_ms", 4, Kind::Uint64),
    ("SignedAgentBinding", "body", 1, Kind::Bytes),
    ("SignedAgentBinding", "agent_key", 2, Kind::Bytes),
    ("SignedAgentBinding", "signature", 3, Kind::Bytes),
];

fn schema() -> DescriptorPool {
    let files = protox::compile(["identity.proto"], [SCHEMA]).expect("the schema compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete")
}

/// Decodes with the schema; every byte must belong to a field that the schema knows.
fn decode(pool: &DescriptorPool, message: &str, bytes: &[u8]) -> DynamicMessage {
    let descriptor =
        pool.get_message_by_name(&format!("x0x.identity.v1.{message}")).expect("in the schema");
    let decoded = DynamicMessage::decode(descriptor, bytes).expect("decodes");
    assert_eq!(decoded.unknown_fields().count(), 0, "{message}");
    decoded
}

fn bytes_of(message: &DynamicMessage, field: &str) -> Vec<u8> {
    let value = message.get_field_by_name(field).expect("in the schema").into_owned();
    value.as_bytes().expect("bytes").to_vec()
}

#[test]
fn the_schema_has_exactly_the_fields_of_the_code() {
    let mut found = Vec::new();
    for message in schema().all_messages() {
        for field in message.fields() {
            found.push((
                message.name().to_owned(),
                field.name().to_owned(),
                field.number(),
                field.kind(),
            ));
        }
    }
    let expected: Vec<_> = FIELDS
        .iter()
        .map(|(message, field, number, kind)| {
            ((*message).to_owned(), (*field).to_owned(), *number, kind.clone())
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn what_the_code_encodes_the_schema_decodes() {
    let pool = schema();
    let agent = SecretKey::from_seed([1; 32]);
    let machine = SecretKey::from_seed([2; 32]).public_key().machine_id();
    let now = WallTime::from_millis(1_800_000_000_000);
    let issued = SignedBinding::issue(&agent, machine, now, Duration::from_secs(60));

    let envelope = decode(&pool, "SignedAgentBinding", &issued.encode());
    assert_eq!(bytes_of(&envelope, "agent_key"), agent.public_key().as_bytes());
    assert_eq!(bytes_of(&envelope, "signature").len(), x0x_identity::SIGNATURE_LEN);

    let body = decode(&pool, "AgentBinding", &bytes_of(&envelope, "body"));
    assert_eq!(bytes_of(&body, "agent_id"), agent.public_key().agent_id().as_bytes());
    assert_eq!(bytes_of(&body, "machine_id"), machine.as_bytes());
    let number = |field| body.get_field_by_name(field).expect("in the schema").into_owned();
    assert_eq!(number("not_before_ms"), Value::U64(now.as_millis()));
    assert_eq!(number("not_after_ms"), Value::U64(now.as_millis() + 60_000));
}

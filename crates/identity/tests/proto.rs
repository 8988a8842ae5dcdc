//! The documented schema and the code agree: what the code encodes, the schema describes completely.

use std::time::Duration;

use bytes::Bytes;
use protox::prost_reflect::{DescriptorPool, DynamicMessage, Value};
use x0x_core::WallTime;
use x0x_identity::{
    AcceptedCertificate, AgentLink, Audience, Card, LINK_PREFIX, Notice, SIGNATURE_LEN, SecretKey,
    Service, SignedBinding, SignedCard, SignedCertificate, SignedRevocation,
    testing::{kem_key, key},
};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");
const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn schema() -> DescriptorPool {
    let files = protox::compile(["identity.proto"], [SCHEMA]).expect("the schema compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete")
}

/// Decodes with the schema: every byte must belong to a field that it knows, and every field that it
/// knows must be there, since the test fills them all.
fn decode(pool: &DescriptorPool, message: &str, bytes: &[u8], absent: &[&str]) -> DynamicMessage {
    let descriptor =
        pool.get_message_by_name(&format!("x0x.identity.v1.{message}")).expect("in the schema");
    let decoded = DynamicMessage::decode(descriptor.clone(), bytes).expect("decodes");
    assert_eq!(decoded.unknown_fields().count(), 0, "{message}");
    for field in descriptor.fields() {
        let expected = !absent.contains(&field.name());
        assert_eq!(decoded.has_field(&field), expected, "{message}.{}", field.name());
    }
    decoded
}

fn bytes_of(message: &DynamicMessage, field: &str) -> Bytes {
    let value = message.get_field_by_name(field).expect("in the schema").into_owned();
    value.as_bytes().expect("bytes").clone()
}

fn number_of(message: &DynamicMessage, field: &str) -> Value {
    message.get_field_by_name(field).expect("in the schema").into_owned()
}

/// The body of a signed message, whose other two fields are looked at.
fn body(
    pool: &DescriptorPool,
    message: &str,
    key_field: &str,
    signer: &SecretKey,
    bytes: &[u8],
) -> Bytes {
    let envelope = decode(pool, message, bytes, &[]);
    assert_eq!(bytes_of(&envelope, key_field), signer.public_key().as_bytes()[..], "{message}");
    assert_eq!(bytes_of(&envelope, "signature").len(), SIGNATURE_LEN, "{message}");
    let field = if message == "AcceptedAgentCertificate" { "certificate" } else { "body" };
    bytes_of(&envelope, field)
}

fn certificate() -> SignedCertificate {
    SignedCertificate::issue(&key(50), key(1).public_key().agent_id(), NOW, HOUR)
}

fn card() -> Card {
    Card {
        agent: key(1).public_key().agent_id(),
        machine: key(100).public_key().machine_id(),
        display_name: "Ada".to_owned(),
        addresses: vec!["192.0.2.1:5483".parse().expect("an address")],
        kem_key: Some(kem_key(1).public_key().clone()),
        certificate: Some(certificate()),
        services: vec![Service {
            name: "presence".to_owned(),
            description: "whether it is there".to_owned(),
            audience: Audience::Known,
        }],
        issued_at: NOW,
        expires_at: NOW + HOUR,
    }
}

#[test]
fn bindings() {
    let pool = schema();
    let machine = key(100).public_key().machine_id();
    let issued = SignedBinding::issue_moved(&key(1), machine, 9, NOW, HOUR).encode();
    let body = body(&pool, "SignedAgentBinding", "agent_key", &key(1), &issued);
    let body = decode(&pool, "AgentBinding", &body, &[]);
    assert_eq!(bytes_of(&body, "agent_id"), key(1).public_key().agent_id().as_bytes()[..]);
    assert_eq!(bytes_of(&body, "machine_id"), machine.as_bytes()[..]);
    assert_eq!(number_of(&body, "not_before_ms"), Value::U64(NOW.as_millis()));
    assert_eq!(number_of(&body, "not_after_ms"), Value::U64(NOW.as_millis() + 3_600_000));
    assert_eq!(number_of(&body, "generation"), Value::U64(9));
}

#[test]
fn certificates_and_revocations() {
    let pool = schema();
    let accepted = AcceptedCertificate::accept(&key(1), certificate()).expect("its own");
    let inner = body(&pool, "AcceptedAgentCertificate", "agent_key", &key(1), &accepted.encode());
    let inner = body(&pool, "SignedAgentCertificate", "user_key", &key(50), &inner);
    let inner = decode(&pool, "AgentCertificate", &inner, &[]);
    assert_eq!(bytes_of(&inner, "user_id"), key(50).public_key().user_id().as_bytes()[..]);
    assert_eq!(bytes_of(&inner, "agent_id"), key(1).public_key().agent_id().as_bytes()[..]);
    assert_eq!(number_of(&inner, "serial"), Value::U64(NOW.as_millis()));
    assert_eq!(number_of(&inner, "not_before_ms"), Value::U64(NOW.as_millis()));
    assert_eq!(number_of(&inner, "not_after_ms"), Value::U64(NOW.as_millis() + 3_600_000));

    let issued = SignedRevocation::of_certified(&key(50), &accepted, NOW, "lost").expect("short");
    let inner = body(&pool, "SignedRevocation", "key", &key(50), &issued.encode());
    let inner = decode(&pool, "Revocation", &inner, &[]);
    assert_eq!(number_of(&inner, "subject"), Value::U32(2));
    assert_eq!(bytes_of(&inner, "subject_id"), key(1).public_key().agent_id().as_bytes()[..]);
    assert_eq!(number_of(&inner, "revoked_at_ms"), Value::U64(NOW.as_millis()));
    assert_eq!(number_of(&inner, "reason"), Value::String("lost".to_owned()));
    assert_eq!(bytes_of(&inner, "certificate"), accepted.encode());
}

#[test]
fn cards_and_links() {
    let pool = schema();
    let card = card();
    let agent = SignedCard::of_agent(&key(1), card.clone()).expect("short texts");
    let machine = SignedCard::of_machine(&key(100), card.clone()).expect("short texts");
    let inner = body(&pool, "SignedAgentCard", "agent_key", &key(1), &agent.encode());
    let inner = decode(&pool, "Card", &inner, &[]);
    let certificate = card.certificate.as_ref().expect("there").encode();
    assert!(bytes_of(&inner, "certificate") == certificate, "the same certificate");
    assert_eq!(number_of(&inner, "display_name"), Value::String("Ada".to_owned()));
    assert_eq!(number_of(&inner, "expires_at_ms"), Value::U64(NOW.as_millis() + 3_600_000));
    let encoded = machine.encode();
    let inner = body(&pool, "SignedIntroduction", "machine_key", &key(100), &encoded);
    decode(&pool, "Card", &inner, &["certificate"]);

    let Card { agent: agent_id, machine: machine_id, addresses, .. } = card;
    let short = AgentLink { agent: agent_id, machine: machine_id, addresses };
    let link = |text: &str, absent: &[&str]| {
        let encoded = text.strip_prefix(LINK_PREFIX).expect("a link");
        let bytes = data_encoding::BASE64URL_NOPAD.decode(encoded.as_bytes()).expect("base64url");
        decode(&pool, "Link", &bytes, absent)
    };
    let inner = link(&agent.to_link(), &["short", "introduction"]);
    assert_eq!(bytes_of(&inner, "card"), agent.encode());
    let inner = link(&machine.to_link(), &["short", "card"]);
    assert_eq!(bytes_of(&inner, "introduction"), machine.encode());
    let inner = link(&short.to_text(), &["card", "introduction"]);
    let inner = number_of(&inner, "short");
    let inner = inner.as_message().expect("a message");
    assert_eq!(inner.unknown_fields().count(), 0);
    assert_eq!(bytes_of(inner, "agent_id"), agent_id.as_bytes()[..]);
    assert_eq!(bytes_of(inner, "machine_id"), machine_id.as_bytes()[..]);
    assert_eq!(bytes_of(inner, "checksum").len(), 4);
}

#[test]
fn notices() {
    let pool = schema();
    let machine = key(100).public_key().machine_id();
    let binding = SignedBinding::issue(&key(1), machine, NOW, HOUR);
    let certificate = certificate();
    let notice = Notice::Agent { binding: binding.clone(), certificate: Some(certificate.clone()) };
    let decoded = decode(&pool, "Notice", &notice.encode(), &["revocation"]);
    assert!(bytes_of(&decoded, "binding") == binding.encode());
    assert!(bytes_of(&decoded, "certificate") == certificate.encode());
    let revocation = SignedRevocation::of_agent(&key(1), NOW, "").expect("short");
    let notice = Notice::Revocation(revocation.clone()).encode();
    let decoded = decode(&pool, "Notice", &notice, &["binding", "certificate"]);
    assert!(bytes_of(&decoded, "revocation") == revocation.encode());
}

#[cfg(feature = "fs")]
#[test]
fn exported_keys() {
    let keys = x0x_identity::AgentKeys {
        agent: key(1),
        kem: kem_key(1),
        generation: 1,
        certificate: None,
    };
    let file = keys.export("correct horse").expect("exported");
    let message = file.strip_prefix(b"x0x agent keys, version 1\n").expect("the line");
    let decoded = decode(&schema(), "AgentKeysFile", message, &[]);
    assert_eq!(number_of(&decoded, "memory_kib"), Value::U32(64 * 1024));
    assert_eq!(bytes_of(&decoded, "salt").len(), 16);
    assert_eq!(bytes_of(&decoded, "sealed").len(), 54 + 86 + 8 + 16);
}

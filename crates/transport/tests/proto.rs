//! The documented schema and the code agree: what the code encodes, the schema describes completely.

use protox::prost_reflect::{DescriptorPool, DynamicMessage, Kind, Value};
use x0x_core::MachineId;
use x0x_transport::wire::{
    ControlOut, DialBack, DialBackStep, HelloOut, NetworkTag, Offer, Punch, Refusal, RelayRefusal,
    RelayStep,
};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");

/// Message, field, number, type; `None` for a message.
const FIELDS: &[(&str, &str, u32, Option<Kind>)] = &[
    ("Offer", "round", 1, Some(Kind::Bytes)),
    ("Offer", "peer", 2, Some(Kind::Bytes)),
    ("Offer", "seed", 3, Some(Kind::Bytes)),
    ("Offer", "addresses", 4, Some(Kind::Bytes)),
    ("Offer", "wait_ms", 5, Some(Kind::Uint32)),
    ("Refuse", "round", 1, Some(Kind::Bytes)),
    ("Refuse", "peer", 2, Some(Kind::Bytes)),
    ("Refuse", "why", 3, Some(Kind::Uint32)),
    ("DialBack", "round", 1, Some(Kind::Bytes)),
    ("DialBack", "seed", 2, Some(Kind::Bytes)),
    ("DialBack", "address", 3, Some(Kind::Bytes)),
    ("RelayOpen", "context", 1, Some(Kind::Uint32)),
    ("RelayOpen", "target", 2, Some(Kind::Bytes)),
    ("RelayIncoming", "context", 1, Some(Kind::Uint32)),
    ("RelayIncoming", "from", 2, Some(Kind::Bytes)),
    ("RelayOk", "context", 1, Some(Kind::Uint32)),
    ("RelayClose", "context", 1, Some(Kind::Uint32)),
    ("RelayClose", "from_relay", 2, Some(Kind::Bool)),
    ("RelayClose", "why", 3, Some(Kind::Uint32)),
    ("Control", "hello", 1, None),
    ("Control", "keep", 2, None),
    ("Control", "ping", 3, None),
    ("Control", "pong", 4, None),
    ("Control", "observed", 5, None),
    ("Control", "punch_ask", 6, None),
    ("Control", "punch_forward", 7, None),
    ("Control", "punch_accept", 8, None),
    ("Control", "punch_refuse", 9, None),
    ("Control", "relay_open", 10, None),
    ("Control", "relay_incoming", 11, None),
    ("Control", "relay_ok", 12, None),
    ("Control", "relay_close", 13, None),
    ("Control", "dial_back_ask", 20, None),
    ("Control", "dial_back_forward", 21, None),
    ("Hello", "version", 1, Some(Kind::Uint32)),
    ("Hello", "network", 2, Some(Kind::Bytes)),
    ("Hello", "instance", 3, Some(Kind::Bytes)),
    ("Hello", "bindings", 4, Some(Kind::Bytes)),
    ("Hello", "listen", 5, Some(Kind::Bytes)),
    ("Hello", "replace", 6, Some(Kind::Bool)),
    ("Keep", "number", 1, Some(Kind::Uint64)),
    ("Ping", "nonce", 1, Some(Kind::Fixed64)),
    ("Pong", "nonce", 1, Some(Kind::Fixed64)),
    ("Observed", "seq", 1, Some(Kind::Uint64)),
    ("Observed", "address", 2, Some(Kind::Bytes)),
];

fn schema() -> DescriptorPool {
    let files = protox::compile(["transport.proto"], [SCHEMA]).expect("the schema compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete")
}

#[test]
fn the_schema_has_exactly_the_fields_of_the_code() {
    let mut found = Vec::new();
    for message in schema().all_messages() {
        for field in message.fields() {
            let kind = Some(field.kind()).filter(|kind| kind.as_message().is_none());
            found.push((message.name().to_owned(), field.name().to_owned(), field.number(), kind));
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

/// Decodes with the schema; every byte must belong to a field that the schema knows. Gives the one
/// field that is set, and its value.
fn decode(message: &ControlOut) -> (String, Value) {
    let control = schema().get_message_by_name("x0x.transport.v1.Control").expect("in the schema");
    let decoded = DynamicMessage::decode(control, message.encode()).expect("decodes");
    assert_eq!(decoded.unknown_fields().count(), 0);
    let fields: Vec<_> = decoded.fields().map(|(f, v)| (f.name().to_owned(), v.clone())).collect();
    let [(name, value)] = fields.try_into().expect("one kind");
    let inner = value.as_message().expect("a message");
    assert_eq!(inner.unknown_fields().count(), 0, "{name}");
    (name, value)
}

fn field(message: &Value, name: &str) -> Value {
    let message = message.as_message().expect("a message");
    message.get_field_by_name(name).expect("in the schema").into_owned()
}

#[test]
fn what_the_code_encodes_the_schema_decodes() {
    let address = "192.0.2.1:9000".parse().expect("an address");
    let packed = Value::Bytes(vec![192, 0, 2, 1, 0x23, 0x28].into());
    let mut hello = HelloOut::new(NetworkTag::of("test"), [7; 16]);
    hello.listen_addresses = vec![address];
    hello.bindings = vec![vec![1, 2, 3].into()];
    hello.replace = true;
    let (name, value) = decode(&ControlOut::Hello(hello));
    assert_eq!(name, "hello");
    assert_eq!(field(&value, "version"), Value::U32(1));
    assert_eq!(field(&value, "instance"), Value::Bytes(vec![7; 16].into()));
    assert_eq!(field(&value, "listen"), Value::List(vec![packed.clone()]));
    assert_eq!(field(&value, "bindings"), Value::List(vec![Value::Bytes(vec![1, 2, 3].into())]));
    assert_eq!(field(&value, "replace"), Value::Bool(true));

    let (name, value) = decode(&ControlOut::Keep(5));
    assert_eq!((name.as_str(), field(&value, "number")), ("keep", Value::U64(5)));
    let (name, value) = decode(&ControlOut::Ping(9));
    assert_eq!((name.as_str(), field(&value, "nonce")), ("ping", Value::U64(9)));
    let (name, value) = decode(&ControlOut::Pong(9));
    assert_eq!((name.as_str(), field(&value, "nonce")), ("pong", Value::U64(9)));
    let (name, value) = decode(&ControlOut::Observed { seq: 4, address });
    assert_eq!((name.as_str(), field(&value, "seq")), ("observed", Value::U64(4)));
    assert_eq!(field(&value, "address"), packed);

    let peer = MachineId::new([8; 32]);
    let mut offer = Offer::new([6; 16], peer, [5; 32], vec![address; 8]);
    offer.wait_ms = 70;
    for (kind, punch) in [
        ("punch_ask", Punch::Ask(offer.clone())),
        ("punch_forward", Punch::Forward(offer.clone())),
        ("punch_accept", Punch::Accept(offer)),
    ] {
        let (name, value) = decode(&ControlOut::Punch(punch));
        assert_eq!((name.as_str(), field(&value, "wait_ms")), (kind, Value::U32(70)));
        assert_eq!(field(&value, "addresses"), Value::List(vec![packed.clone(); 8]));
        assert_eq!(field(&value, "seed"), Value::Bytes(vec![5; 32].into()));
    }
    let ask = DialBack { round: [6; 16], seed: [5; 32], address };
    for (kind, step) in [
        ("dial_back_ask", DialBackStep::Ask(ask)),
        ("dial_back_forward", DialBackStep::Forward(ask)),
    ] {
        let (name, value) = decode(&ControlOut::DialBack(step));
        assert_eq!((name.as_str(), field(&value, "address")), (kind, packed.clone()));
        assert_eq!(field(&value, "seed"), Value::Bytes(vec![5; 32].into()));
    }
    let refuse = Punch::Refuse { round: [6; 16], peer, why: Refusal::Rate };
    let (name, value) = decode(&ControlOut::Punch(refuse));
    assert_eq!((name.as_str(), field(&value, "why")), ("punch_refuse", Value::U32(2)));
    assert_eq!(field(&value, "peer"), Value::Bytes(vec![8; 32].into()));
}

#[test]
fn steps_of_relays_are_as_the_schema_says() {
    let machine = MachineId::new([8; 32]);
    let bytes = Value::Bytes(vec![8; 32].into());
    let why = RelayRefusal::Nested;
    for (kind, step, name, expected) in [
        ("relay_open", RelayStep::Open { context: 6, target: machine }, "target", bytes.clone()),
        ("relay_incoming", RelayStep::Incoming { context: 6, from: machine }, "from", bytes),
        ("relay_ok", RelayStep::Ok { context: 6 }, "context", Value::U32(6)),
        (
            "relay_close",
            RelayStep::Close { context: 6, from_relay: true, why },
            "why",
            Value::U32(4),
        ),
    ] {
        let (found, value) = decode(&ControlOut::Relay(step));
        assert_eq!((found.as_str(), field(&value, "context")), (kind, Value::U32(6)));
        assert_eq!(field(&value, name), expected, "{kind}");
    }
    let step = RelayStep::Close { context: 6, from_relay: true, why };
    let (_, value) = decode(&ControlOut::Relay(step));
    assert_eq!(field(&value, "from_relay"), Value::Bool(true));
}

//! The wire format: golden vectors, the published schema, refusals, and any bytes at all.

use bytes::Bytes;
use proptest::prelude::*;
use protox::{
    prost::Message as _,
    prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _},
};
use x0x_core::{AgentId, DecodeError};
use x0x_direct::{
    RefuseReason,
    wire::{
        Ack, FrameIn, Kind, Lane, MAX_ACK, MAX_FRAME, MAX_MESSAGE_OVERHEAD, MAX_PAYLOAD,
        MAX_REFUSALS, MessageIn, Refusal, Terms,
    },
};

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn message(payload: impl Into<Bytes>) -> MessageIn {
    MessageIn {
        epoch: 5,
        seq: 300,
        id: [0xab; 16],
        from: agent(1),
        to: agent(2),
        payload: payload.into(),
        terms: Terms::default(),
    }
}

fn ack() -> Ack {
    let refusals = vec![
        Refusal { seq: 9, reason: RefuseReason::UnknownRecipient },
        Refusal { seq: 301, reason: RefuseReason::InboxClosed },
    ];
    Ack { epoch: 5, through_seq: 300, refusals }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_vectors() {
    let bytes = FrameIn::Message(message("hi")).encode();
    let expected = [
        "0a5f",
        "0805",
        "10ac02",
        "1a10abababababababababababababababab",
        "2220",
        &"01".repeat(32),
        "2a20",
        &"02".repeat(32),
        "32026869",
    ];
    assert_eq!(hex(&bytes), expected.concat());
    assert_eq!(FrameIn::decode(bytes), Ok(FrameIn::Message(message("hi"))));

    let bytes = FrameIn::Ack(ack()).encode();
    assert_eq!(hex(&bytes), "1212080510ac021a04080910011a0508ad021004");
    assert_eq!(FrameIn::decode(bytes), Ok(FrameIn::Ack(ack())));
}

/// The published schema reads what the code writes, field by field, and knows no field more.
#[test]
fn the_schema_agrees_with_the_code() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");
    let files = protox::compile(["direct.proto"], [folder]).expect("the schema is valid");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete");
    let schema = pool.get_message_by_name("x0x.direct.v1.Frame").expect("it has frames");
    let terms =
        Terms { kind: Kind::Read, lane: Lane::First, reply_to: Some([7; 16]), wants_read: true };
    let message = MessageIn { terms, ..message("hi") };
    for frame in [FrameIn::Message(message), FrameIn::Ack(ack())] {
        let bytes = frame.encode();
        let read = DynamicMessage::decode(schema.clone(), &bytes[..]).expect("the schema reads it");
        assert_eq!(read.encode_to_vec(), bytes);
        let (field, body) = read.fields().next().expect("a body");
        let body = body.as_message().expect("a message");
        assert_eq!(body.unknown_fields().count(), 0);
        assert_eq!(body.fields().count(), body.descriptor().fields().len());
        match field.name() {
            "message" => {
                let text =
                    |name: &str| body.get_field_by_name(name).map(|value| value.into_owned());
                assert_eq!(text("seq").and_then(|v| v.as_u64()), Some(300));
                assert_eq!(
                    text("from").and_then(|v| v.as_bytes().cloned()),
                    Some([1; 32].to_vec().into())
                );
                assert_eq!(text("payload").and_then(|v| v.as_bytes().cloned()), Some("hi".into()));
            }
            name => assert_eq!(name, "ack"),
        }
    }
    let reasons = pool.get_enum_by_name("x0x.direct.v1.Reason").expect("it has reasons");
    assert_eq!(reasons.values().len(), 7);
}

#[test]
fn wrong_shapes_are_refused() {
    let frame = |tag: u8, body: &[u8]| {
        let mut bytes = vec![tag];
        let mut len = body.len();
        while len > 0x7f {
            bytes.push(0x80 | (len & 0x7f) as u8);
            len >>= 7;
        }
        bytes.push(len as u8);
        bytes.extend_from_slice(body);
        FrameIn::decode(bytes.into())
    };
    assert_eq!(frame(0x0a, b""), Err(DecodeError::Field("seq")));
    assert_eq!(frame(0x0a, b"\x10\x01"), Err(DecodeError::Field("id")));
    assert_eq!(frame(0x0a, b"\x08"), Err(DecodeError::Malformed));
    let many = b"\x1a\x00".repeat(MAX_REFUSALS + 1);
    assert_eq!(frame(0x12, &many), Err(DecodeError::Field("refusals")));
    let huge = vec![0; MAX_ACK + 1];
    let error = DecodeError::TooLarge { len: MAX_ACK + 1, max: MAX_ACK };
    assert_eq!(frame(0x12, &huge), Err(error));
    assert_eq!(frame(0x1a, b"later"), Ok(FrameIn::Unknown));
    assert_eq!(FrameIn::decode(Bytes::new()), Ok(FrameIn::Unknown));
    let whole = Bytes::from(vec![0; MAX_FRAME + 1]);
    let error = DecodeError::TooLarge { len: MAX_FRAME + 1, max: MAX_FRAME };
    assert_eq!(FrameIn::decode(whole), Err(error));
    let unknown = FrameIn::Ack(Ack {
        refusals: vec![Refusal { seq: 1, reason: RefuseReason::Other }],
        ..Ack::default()
    });
    assert_eq!(frame(0x12, b"\x1a\x04\x08\x01\x10\x63"), Ok(unknown), "a reason of later times");
}

#[test]
fn the_largest_payload_fits_a_frame_and_one_byte_more_is_refused() {
    let bytes = FrameIn::Message(message(vec![7; MAX_PAYLOAD])).encode();
    assert!(bytes.len() <= MAX_FRAME);
    let Ok(FrameIn::Message(read)) = FrameIn::decode(bytes) else { panic!("it is well formed") };
    assert!(read.verify(&[agent(1)], &[agent(2)]).is_ok());
    let bytes = FrameIn::Message(message(vec![7; MAX_PAYLOAD + 1])).encode();
    let Ok(FrameIn::Message(read)) = FrameIn::decode(bytes) else { panic!("it is well formed") };
    assert_eq!(read.verify(&[agent(1)], &[agent(2)]), Err(RefuseReason::TooLarge));
}

/// A payload may share the memory of its frame, so a frame must not be much larger.
#[test]
fn a_frame_padded_with_unknown_fields_is_refused() {
    let padded = |payload: usize, padding: usize| {
        let mut bytes = FrameIn::Message(message(vec![7; payload])).encode().to_vec();
        let overhead = bytes.len() - payload;
        // Field 15 of the frame, after its body.
        let padding = padding - overhead - 3;
        bytes.extend([0x7a, 0x80 | (padding & 0x7f) as u8, (padding >> 7) as u8]);
        bytes.resize(bytes.len() + padding, 0);
        FrameIn::decode(bytes.into())
    };
    for payload in [1, 100_000] {
        assert!(padded(payload, MAX_MESSAGE_OVERHEAD).is_ok(), "fields of later versions");
        let len = MAX_MESSAGE_OVERHEAD + 1;
        let error = DecodeError::TooLarge { len, max: MAX_MESSAGE_OVERHEAD };
        assert_eq!(padded(payload, len), Err(error));
    }
    // The other way to grow a frame: a body that a second one replaces.
    let mut twice = FrameIn::Message(message(vec![7; 1000])).encode().to_vec();
    twice.extend(FrameIn::Message(message("x")).encode());
    assert!(matches!(FrameIn::decode(twice.into()), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn a_small_payload_does_not_keep_the_memory_that_its_frame_came_in() {
    for (len, shared) in [(1, false), (64 * 1024, false), (64 * 1024 + 1, true)] {
        let frame = FrameIn::Message(message(vec![7; len])).encode();
        let Ok(FrameIn::Message(read)) = FrameIn::decode(frame.clone()) else { panic!("it is") };
        assert_eq!(read.payload.len(), len);
        let within = frame.as_ptr_range().contains(&read.payload.as_ptr());
        assert_eq!(within, shared, "{len} bytes");
    }
}

#[test]
fn sender_and_recipient_are_verified() {
    let verify = |proven, local| message("x").verify(&[agent(proven)], &[agent(local)]);
    assert_eq!(verify(3, 2), Err(RefuseReason::SenderNotProven));
    assert_eq!(verify(1, 3), Err(RefuseReason::UnknownRecipient));
    let verified = verify(1, 2).expect("both are known");
    assert_eq!((verified.from(), verified.to(), verified.id()), (agent(1), agent(2), [0xab; 16]));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(frame) = FrameIn::decode(bytes.into()) {
            prop_assert_eq!(FrameIn::decode(frame.clone().encode()), Ok(frame));
        }
    }

    #[test]
    fn messages_round_trip(
        epoch: u64, seq in 1_u64.., id: [u8; 16], from: [u8; 32], to: [u8; 32],
        payload in prop::collection::vec(any::<u8>(), 0..300),
        kind in prop::sample::select(vec![Kind::Mail, Kind::Session, Kind::Read]),
        lane in prop::sample::select(vec![Lane::None, Lane::Next, Lane::First]),
        reply_to: Option<[u8; 16]>, wants_read: bool,
    ) {
        let (from, to, payload) = (from.into(), to.into(), payload.into());
        let terms = Terms { kind, lane, reply_to, wants_read };
        let frame = FrameIn::Message(MessageIn { epoch, seq, id, from, to, payload, terms });
        prop_assert_eq!(FrameIn::decode(frame.clone().encode()), Ok(frame));
    }
}

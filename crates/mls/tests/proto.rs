//! The published schema reads what the code writes, and knows no field more.

use bytes::Bytes;
use prost::Message as _;
use protox::prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _};
use x0x_core::{DecodeError, WallTime};
use x0x_identity::testing;
use x0x_mls::{EntryWire, FrameIn, FrameKind, GroupId, MAX_FRAME, Suite, issue_credential};

/// A frame of every field, in hexadecimal: golden.
const FRAME: &str = concat!(
    "0802122007070707070707070707070707070707070707070707070707070707",
    "0707070718ac022220080808080808080808080808080808080808080808080808",
    "08080808080808082a2009090909090909090909090909090909090909090909",
    "09090909090909090909320268693803"
);

fn frame() -> FrameIn {
    let bytes: Vec<u8> = (0..FRAME.len() / 2)
        .map(|n| u8::from_str_radix(&FRAME[2 * n..2 * n + 2], 16).expect("hexadecimal"))
        .collect();
    FrameIn::decode(&bytes).expect("golden")
}

fn check(name: &str, bytes: &[u8]) -> DynamicMessage {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");
    let files = protox::compile(["mls.proto"], [folder]).expect("the schema is valid");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete");
    let schema = pool.get_message_by_name(&format!("x0x.mls.v1.{name}")).expect("it is there");
    let read = DynamicMessage::decode(schema, bytes).expect("the schema reads it");
    assert_eq!(read.unknown_fields().count(), 0);
    assert_eq!(read.fields().count(), read.descriptor().fields().len(), "{name}");
    assert_eq!(read.encode_to_vec(), bytes);
    read
}

#[test]
fn the_schema_agrees_with_the_code() {
    check("Frame", &frame().encode());
    let entry = EntryWire {
        message: "m".into(),
        tree_hash: Bytes::from_static(&[1; 32]),
        commit: Bytes::from_static(&[2; 32]),
    };
    check("Entry", &entry.encode_to_vec());
    let now = WallTime::from_millis(1_800_000_000_000);
    let validity = std::time::Duration::from_secs(1);
    let credential = issue_credential(&testing::key(1), Suite::Hybrid, b"leaf", now, validity);
    let read = check("SignedCredential", &credential);
    let body = read.get_field_by_name("body").expect("a body");
    check("CredentialBody", body.as_bytes().expect("bytes"));
}

#[test]
fn frames_keep_their_form() {
    let frame = frame();
    assert_eq!((frame.kind, frame.group), (FrameKind::Commit, GroupId([7; 32])));
    assert_eq!((frame.epoch, frame.state, frame.child), (300, [8; 32], [9; 32]));
    assert_eq!((frame.body.as_ref(), frame.rank), (b"hi".as_slice(), 3));
    let written: String = frame.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, FRAME);
}

#[test]
fn wrong_shapes_are_refused() {
    let bytes = frame().encode();
    for cut in 0..bytes.len() {
        assert_ne!(FrameIn::decode(&bytes[..cut]).as_ref(), Ok(&frame()), "{cut}");
    }
    let huge = vec![0; MAX_FRAME + 1];
    let error = DecodeError::TooLarge { len: MAX_FRAME + 1, max: MAX_FRAME };
    assert_eq!(FrameIn::decode(&huge), Err(error));
    assert_eq!(FrameIn::decode(&[8, 9]), Err(DecodeError::Field("kind")));
    let ranked = |rank: &[u8]| FrameIn::decode(&[&bytes[..bytes.len() - 2], rank].concat());
    assert_eq!(ranked(&[0x38, 0xff, 3]).map(|frame| frame.rank), Ok(511));
    assert_eq!(ranked(&[0x38, 0x80, 4]), Err(DecodeError::Field("rank")));
    let entry = EntryWire { commit: "short".into(), ..EntryWire::default() };
    assert_eq!(EntryWire::read(&entry.encode_to_vec()), Err(DecodeError::Field("commit")));
}

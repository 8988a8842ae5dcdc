//! The wire format: golden vectors, the published schema, refusals, and any bytes at all.

use bytes::Bytes;
use proptest::prelude::*;
use protox::{
    prost::Message as _,
    prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _},
};
use x0x_core::{AgentId, DecodeError};
use x0x_files::{
    TransferId,
    tree::{GROUP_LEN, small_root},
    wire::{
        FrameIn, MAX_FRAME, MAX_MEDIA_TYPE, MAX_OFFERED_NAME, MAX_RANGES, MAX_REASON, MAX_SLICE,
        OfferError, OfferIn, SliceIn, Standing, Status, Want,
    },
};

const ID: TransferId = TransferId::new([0xab; 16]);

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn offer() -> OfferIn {
    OfferIn {
        id: ID,
        from: agent(1),
        to: agent(2),
        name: "a.txt".into(),
        size: 300,
        root: [3; 32],
        sha256: Some([4; 32]),
        media_type: "text/plain".into(),
    }
}

fn want() -> Want {
    Want { id: ID, ranges: vec![(0, 5), (300, 1)], verified: 7 }
}

fn status() -> Status {
    Status { id: ID, standing: Standing::Rejected, verified: 9, reason: "no".into() }
}

fn slice() -> SliceIn {
    SliceIn { id: ID, group: 300, proof: vec![5; 64].into(), content: Bytes::from_static(b"hi") }
}

fn frames() -> [FrameIn; 3] {
    [FrameIn::Offer(offer()), FrameIn::Want(want()), FrameIn::Status(status())]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_vectors() {
    let id = format!("0a10{}", "ab".repeat(16));
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    let hashes = format!("3220{}3a20{}", "03".repeat(32), "04".repeat(32));
    let expected = [
        format!("0ab001{id}1220{one}1a20{two}2205612e74787428ac02{hashes}420a746578742f706c61696e"),
        format!("121f{id}12021005120508ac0210011807"),
        format!("1a1a{id}1006180922026e6f"),
    ];
    for (frame, expected) in frames().into_iter().zip(expected) {
        let bytes = frame.clone().encode();
        assert_eq!(hex(&bytes), expected);
        assert_eq!(FrameIn::decode(bytes), Ok(frame));
    }
    let bytes = slice().encode();
    assert_eq!(hex(&bytes), format!("{id}10ac021a40{}22026869", "05".repeat(64)));
    assert_eq!(SliceIn::decode(bytes), Ok(slice()));
}

/// The published schema reads what the code writes, field by field, and knows no field more.
#[test]
fn the_schema_agrees_with_the_code() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");
    let files = protox::compile(["files.proto"], [folder]).expect("the schema is valid");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete");
    let named = |name| pool.get_message_by_name(name).expect("it is there");
    let schema = named("x0x.files.v1.Frame");
    for frame in frames() {
        let bytes = frame.encode();
        let read = DynamicMessage::decode(schema.clone(), &bytes[..]).expect("the schema reads it");
        assert_eq!(read.encode_to_vec(), bytes);
        let (_, body) = read.fields().next().expect("a body");
        let body = body.as_message().expect("a message");
        assert_eq!(body.unknown_fields().count(), 0);
        assert_eq!(body.fields().count(), body.descriptor().fields().count());
    }
    let bytes = slice().encode();
    let read = DynamicMessage::decode(named("x0x.files.v1.Slice"), &bytes[..]).expect("it reads");
    assert_eq!((read.encode_to_vec(), read.unknown_fields().count()), (bytes.to_vec(), 0));
    assert_eq!(schema.fields().count(), 3);
}

#[test]
fn limits_hold_at_their_borders() {
    let refused = |frame: FrameIn| FrameIn::decode(frame.encode()).expect_err("over the limit");
    let mut long = offer();
    long.name = "n".repeat(MAX_OFFERED_NAME);
    long.media_type = "m".repeat(MAX_MEDIA_TYPE);
    assert!(FrameIn::decode(FrameIn::Offer(long.clone()).encode()).is_ok());
    let name = OfferIn { name: "n".repeat(MAX_OFFERED_NAME + 1), ..offer() };
    assert_eq!(refused(FrameIn::Offer(name)), DecodeError::Field("name"));
    let media = OfferIn { media_type: "m".repeat(MAX_MEDIA_TYPE + 1), ..offer() };
    assert_eq!(refused(FrameIn::Offer(media)), DecodeError::Field("media_type"));
    let ranges = |count| Want { ranges: vec![(u64::MAX - 1, 1); count], ..want() };
    let most = FrameIn::Want(ranges(MAX_RANGES)).encode();
    assert!(most.len() <= MAX_FRAME && FrameIn::decode(most).is_ok());
    assert_eq!(refused(FrameIn::Want(ranges(MAX_RANGES + 1))), DecodeError::Field("ranges"));
    let over = Want { ranges: vec![(u64::MAX, 1)], ..want() };
    assert_eq!(refused(FrameIn::Want(over)), DecodeError::Field("ranges"));
    let large = FrameIn::decode(vec![0; MAX_FRAME + 1].into());
    assert!(matches!(large, Err(DecodeError::TooLarge { .. })));

    let status = Status { reason: "é".repeat(MAX_REASON), ..status() };
    let Ok(FrameIn::Status(read)) = FrameIn::decode(FrameIn::Status(status).encode()) else {
        panic!("a long reason is cut off");
    };
    assert_eq!(read.reason.len(), MAX_REASON);

    let content = |len: usize| SliceIn { content: vec![1; len].into(), ..slice() };
    assert!(SliceIn::decode(content(GROUP_LEN).encode()).is_ok());
    assert_eq!(
        SliceIn::decode(content(GROUP_LEN + 1).encode()),
        Err(DecodeError::Field("content"))
    );
    let large = SliceIn::decode(vec![0; MAX_SLICE + 1].into());
    assert!(matches!(large, Err(DecodeError::TooLarge { .. })));
}

#[test]
fn offers_and_slices_are_verified() {
    let (from, to) = ([agent(1)], [agent(2)]);
    let hostile =
        OfferIn { name: "../../.x\u{202e}".into(), media_type: "\u{1b}[".into(), ..offer() };
    let verified = hostile.clone().verify(&from, &to).expect("its agents are right").into_inner();
    assert_eq!((&*verified.name, &*verified.media_type), ("x", ""));
    assert_eq!(hostile.clone().verify(&to, &to), Err(OfferError::NotProven));
    assert_eq!(hostile.verify(&from, &from), Err(OfferError::UnknownRecipient));

    let one = SliceIn { group: 0, proof: Bytes::new(), ..slice() };
    let root = small_root(b"hi");
    assert!(one.clone().verify(&root, 2).is_ok());
    assert!(one.clone().verify(&root, 3).is_err() && one.verify(&[0; 32], 2).is_err());
}

#[test]
fn unknown_kinds_are_skipped() {
    assert_eq!(FrameIn::decode(Bytes::from_static(&[0x7a, 1, 0])), Ok(FrameIn::Unknown));
    assert_eq!(FrameIn::decode(Bytes::new()), Ok(FrameIn::Unknown));
    let id = [&[0x0a, 0x10][..], &[0xab; 16]].concat();
    let later = [&[0x1a, 20][..], &id, &[0x10, 99]].concat();
    let Ok(FrameIn::Status(status)) = FrameIn::decode(later.into()) else { panic!("it decodes") };
    assert_eq!(status.standing, Standing::Unknown);
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(frame) = FrameIn::decode(bytes.clone().into()) {
            let again = FrameIn::decode(frame.clone().encode());
            prop_assert_eq!(again, Ok(frame));
        }
        if let Ok(slice) = SliceIn::decode(bytes.into()) {
            let again = SliceIn::decode(slice.clone().encode());
            prop_assert_eq!(again, Ok(slice.clone()));
            prop_assert!(slice.verify(&[1; 32], 5).is_err());
        }
    }
}

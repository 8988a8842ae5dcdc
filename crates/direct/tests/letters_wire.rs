//! The wire format of letters: golden vectors, the published schema, refusals, and any bytes at all.

use bytes::Bytes;
use proptest::prelude::*;
use protox::{
    prost::Message as _,
    prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _},
};
use x0x_core::{AgentId, DecodeError, MachineId, WallTime};
use x0x_direct::letters::{
    Digest, Grant, MAX_SEALED,
    wire::{Frame, Listed, MAX_ASKED, MAX_DELETED, MAX_FRAME, MAX_LISTED, Outcome},
};
use x0x_identity::{
    Pickup, Tag, mailbox_period,
    testing::{kem_key, key},
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn machine(n: u8) -> MachineId {
    MachineId::new([n; 32])
}

fn grant() -> Grant {
    let period = mailbox_period(NOW);
    let boxes = key(1).mailboxes();
    Grant {
        owner: agent(1),
        correspondent: agent(2),
        period,
        kem: kem_key(1).public_key().clone(),
        machine: machine(9),
        secret: boxes.secret(&agent(2), &machine(9), period),
        places: Some(boxes.places(period)),
    }
}

fn frames() -> Vec<Frame> {
    let (tag, digest, pickup) = (Tag::new([4; 32]), Digest::new([5; 32]), Pickup::new([6; 32]));
    vec![
        Frame::grant(grant()),
        Frame::Deposit { tag, expires_at: NOW, sealed: "sealed".into() },
        Frame::Deposited { digest, outcome: Outcome::ShareUsed, until: NOW },
        Frame::Ask(vec![pickup, Pickup::new([7; 32])]),
        Frame::Listing { letters: vec![Listed { tag, digest, bytes: 1000 }], more: true },
        Frame::Fetch { pickup, digest },
        Frame::Fetched { digest, sealed: Some("sealed".into()) },
        Frame::Delete { pickup, digests: vec![digest] },
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_vectors() {
    let [_, deposit, deposited, .., delete] = &frames()[..] else { unreachable!("eight frames") };
    let expected = ["1231", "0a20", &"04".repeat(32), "1080a0f1c2b134", "1a06", "7365616c6564"];
    assert_eq!(hex(&deposit.encode()), expected.concat());
    let expected = ["1a2b", "0a20", &"05".repeat(32), "1004", "1880a0f1c2b134"];
    assert_eq!(hex(&deposited.encode()), expected.concat());
    let expected = ["4244", "0a20", &"06".repeat(32), "1220", &"05".repeat(32)];
    assert_eq!(hex(&delete.encode()), expected.concat());
    for frame in frames() {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }
    for grant in [grant(), Grant { places: None, ..grant() }] {
        assert_eq!(Grant::decode(&grant.encode()), Ok(grant));
    }
}

/// The published schema reads what the code writes, field by field, and knows no field more.
#[test]
fn the_schema_agrees_with_the_code() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");
    let files = protox::compile(["letters.proto"], [folder]).expect("the schema is valid");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete");
    let schema = pool.get_message_by_name("x0x.letters.v1.Frame").expect("it has frames");
    let mut kinds = Vec::new();
    for frame in frames() {
        let bytes = frame.encode();
        let read = DynamicMessage::decode(schema.clone(), &bytes[..]).expect("the schema reads it");
        assert_eq!(read.encode_to_vec(), bytes);
        let (field, body) = read.fields().next().expect("a kind");
        let body = body.as_message().expect("a message");
        assert_eq!(body.unknown_fields().count(), 0);
        assert_eq!(body.fields().count(), body.descriptor().fields().len(), "{}", field.name());
        kinds.push(field.name().to_owned());
    }
    let named: Vec<String> = schema.fields().map(|field| field.name().to_owned()).collect();
    assert_eq!(kinds, named);
    let outcomes = pool.get_enum_by_name("x0x.letters.v1.Outcome").expect("it has outcomes");
    assert_eq!(outcomes.values().len(), 5);
}

#[test]
fn wrong_shapes_are_refused() {
    let decode = |frame: &Frame| Frame::decode(&frame.encode());
    let (digest, pickup) = (Digest::new([5; 32]), Pickup::new([6; 32]));
    let empty = Frame::Fetched { digest, sealed: Some(Bytes::new()) };
    assert_eq!(decode(&empty), Err(DecodeError::Field("sealed")));
    let sealed = Some(vec![0; MAX_SEALED + 1].into());
    assert_eq!(decode(&Frame::Fetched { digest, sealed }), Err(DecodeError::Field("sealed")));
    let sealed = Some(vec![0; MAX_SEALED].into());
    assert!(decode(&Frame::Fetched { digest, sealed }).is_ok());
    assert_eq!(
        decode(&Frame::Ask(vec![pickup; MAX_ASKED + 1])),
        Err(DecodeError::Field("pickups"))
    );
    let many = Frame::Delete { pickup, digests: vec![digest; MAX_DELETED + 1] };
    assert_eq!(decode(&many), Err(DecodeError::Field("digests")));
    let listed =
        |n: u64| Listed { tag: Tag::new([1; 32]), digest: Digest::of(&n.to_be_bytes()), bytes: 10 };
    let list = |letters| decode(&Frame::Listing { letters, more: false });
    assert!(list((0..MAX_LISTED as u64).map(listed).collect()).is_ok());
    let many = (0..=MAX_LISTED as u64).map(listed).collect();
    assert_eq!(list(many), Err(DecodeError::Field("letters")));
    assert_eq!(list(vec![listed(1), listed(1)]), Err(DecodeError::Field("letters")));
    let large = Listed { bytes: MAX_SEALED as u32 + 1, ..listed(1) };
    assert_eq!(list(vec![large]), Err(DecodeError::Field("letters")));
    let beyond = Frame::Fetched { digest, sealed: Some(vec![0; MAX_FRAME].into()) }.encode();
    let error = DecodeError::TooLarge { len: beyond.len(), max: MAX_FRAME };
    assert_eq!(Frame::decode(&beyond), Err(error));
    assert_eq!(Frame::decode(&Bytes::new()), Ok(Frame::Unknown));
    assert_eq!(Frame::decode(&Bytes::from_static(b"\x4a\x05later")), Ok(Frame::Unknown));
    // Only what carries a letter may be large.
    let mut padded = frames()[3].encode().to_vec();
    padded.extend_from_slice(&[0x7a, 0x80, 0x80, 0x04]);
    padded.resize(padded.len() + 64 * 1024, 0);
    assert!(matches!(Frame::decode(&padded.into()), Err(DecodeError::TooLarge { .. })));
    // That is seen before anything is decoded: in this, nothing but the size is right.
    let [small, max] = [64 * 1024, MAX_FRAME];
    for first in [0x0a_u8, 0x2a, 0xff] {
        let wrong = Bytes::from([vec![first], vec![0xff; max - 1]].concat());
        assert_eq!(Frame::decode(&wrong), Err(DecodeError::TooLarge { len: max, max: small }));
    }
    // A letter in front makes no room for what is behind it.
    let [_, deposit, ..] = &frames()[..] else { unreachable!("eight frames") };
    let mut behind = deposit.encode().to_vec();
    behind.resize(behind.len() + small + 1, 0x2a);
    let len = behind.len();
    assert_eq!(Frame::decode(&behind.into()), Err(DecodeError::TooLarge { len, max: small }));
}

#[test]
fn a_grant_counts_from_its_owner_for_an_agent_of_this_machine() {
    let decode = |grant: Grant| match Frame::decode(&Frame::grant(grant).encode()) {
        Ok(Frame::Grant(grant)) => grant,
        other => panic!("unexpected {other:?}"),
    };
    let verify = |grant: Grant, proven: &[AgentId]| {
        decode(grant).verify(proven, (agent(2), machine(9)), NOW)
    };
    assert_eq!(verify(grant(), &[agent(3), agent(1)]), Some(grant()));
    assert_eq!(verify(grant(), &[agent(3)]), None, "not proven");
    let other = Grant { correspondent: agent(4), ..grant() };
    assert_eq!(verify(other, &[agent(1)]), None, "for somebody else");
    let elsewhere = Grant { machine: machine(8), ..grant() };
    assert_eq!(verify(elsewhere, &[agent(1)]), None, "for another machine of it");
    let itself = Grant { owner: agent(2), ..grant() };
    assert_eq!(verify(itself, &[agent(2)]), None, "its own");
    let old = Grant { period: grant().period - 2, ..grant() };
    assert_eq!(verify(old, &[agent(1)]), None, "of another time");
    let mut key = Frame::grant(grant()).encode().to_vec();
    let at = key.windows(2).position(|pair| pair == [0x22, 0xa0]).expect("the KEM key") + 3;
    key[at..at + 1184].fill(0xff);
    assert_eq!(Frame::decode(&key.into()), Err(DecodeError::Field("kem_key")));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(frame) = Frame::decode(&bytes.into())
            && frame != Frame::Unknown
        {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn changed_frames_are_decoded_or_refused(which in 0_usize..8, at: u16, bits in 1_u8..) {
        let mut bytes = frames()[which].encode().to_vec();
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= bits;
        let _ = Frame::decode(&bytes.into());
    }
}

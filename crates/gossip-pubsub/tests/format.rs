//! The run format: golden vectors, round trips and refusals.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use x0x_core::{AgentId, TopicId, WallTime};
use x0x_gossip_pubsub::{
    FrameIn, Limits, MAX_PAYLOAD, MAX_RUN_BYTES, NetworkId, Publisher, Run, RunIn, VerifyError,
    WireError, epoch_at, testing::RunForge, topic_id,
};
use x0x_identity::{SIGNATURE_LEN, testing};

const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);

fn forge() -> RunForge {
    RunForge::new(testing::key(7), NetworkId::from_name("golden"), topic_id("golden"), WALL)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An entry's hash, computed from the documented layout and not by the crate.
fn entry_hash(forge: &RunForge, seq: u64, prev: &[u8; 32], time: u64, payload: &[u8]) -> [u8; 32] {
    let mut header = Vec::new();
    header.extend_from_slice(forge.network.as_bytes());
    header.extend_from_slice(forge.topic.as_bytes());
    header.extend_from_slice(forge.author().as_bytes());
    header.extend_from_slice(&forge.epoch.to_be_bytes());
    header.extend_from_slice(&seq.to_be_bytes());
    header.extend_from_slice(prev);
    header.extend_from_slice(&time.to_be_bytes());
    header.push(0);
    header.extend_from_slice(blake3::hash(payload).as_bytes());
    assert_eq!(header.len(), 185);
    let mut key = [0; 32];
    key[..18].copy_from_slice(b"x0x/pubsub/entry/1");
    *blake3::keyed_hash(&key, &header).as_bytes()
}

#[test]
fn a_run_with_its_fields_in_another_order_is_refused() {
    let run = forge().run(None, &[b"hello"]);
    // Network and topic are the first fields, 34 bytes each.
    let mut swapped = run.encoded().to_vec();
    swapped[..68].rotate_left(34);
    assert!(matches!(RunIn::decode(swapped.into()), Err(WireError::Malformed(_))));
    // Within the entry: its time delta, one tag and a varint, and then its payload.
    let mut swapped = run.encoded().to_vec();
    let payload = swapped.windows(5).position(|bytes| bytes == b"hello").expect("in it");
    let time = (0..payload).rev().find(|at| swapped[*at] == 0x08).expect("the time's tag");
    swapped[time..payload + 5].rotate_left(payload - 2 - time);
    assert!(matches!(RunIn::decode(swapped.into()), Err(WireError::Malformed(_))));
}

/// These values may change only together with the protocol's number.
#[test]
fn golden_vectors() {
    let forge = forge();
    let first = forge.run(None, &[b"", b"hello"]);
    let second = forge.run(Some(&first), &[&[0xa5; 300]]);
    // Signatures are hedged, so the golden encoding is that of everything before them.
    let encoded = second.encoded();
    let unsigned = &encoded[..encoded.len() - SIGNATURE_LEN - 3];
    let vectors = [
        hex(forge.topic.as_bytes()),
        hex(forge.network.as_bytes()),
        hex(first.hash().as_bytes()),
        hex(second.hash().as_bytes()),
        unsigned.len().to_string(),
        blake3::hash(unsigned).to_string(),
        hex(&unsigned[..4]),
    ];
    assert_eq!(vectors, GOLDEN);
    let time = WALL.as_millis() << 16;
    let one = entry_hash(&forge, 1, &[0; 32], time + 1, b"");
    let two = entry_hash(&forge, 2, &one, time + 2, b"hello");
    let three = entry_hash(&forge, 3, &two, time + 3, &[0xa5; 300]);
    assert_eq!((first.hash().as_bytes(), second.hash().as_bytes()), (&two, &three));
}

/// Topic, network, hash of entry 2, hash of entry 3; of the encoded run before its signature the
/// length, BLAKE3 and first bytes.
const GOLDEN: [&str; 7] = [
    "db1440536679db2561350422736de00b6a25bb4b08c39591521ac12cc3ab02d5",
    "959b35b144ad5fc34feee6af786ef515fedd05f49ddd45ed88d997ec06554b04",
    "9f5cc7f06eeefdb2ca4759ceda4e1785b6c1a825b93acea136097a8738d840eb",
    "af6b7fa6a861e63b3514e0a4570e3f01350c12862fa1d819891be56d770c0cb5",
    "464",
    "ca070cb4ce3e19d4e0f8783c1dbfdcc61ce42f21511eb1ed5939f796f5c05414",
    "0a20959b",
];

#[test]
fn a_signature_binds_network_topic_author_epoch_and_place() {
    let forge = forge();
    let run = forge.run(None, &[b"x", b"y"]);
    let public = forge.key.public_key();
    let decode = |bytes: &[u8]| RunIn::decode(Bytes::copy_from_slice(bytes));
    assert!(decode(run.encoded()).unwrap().verify(public).is_ok());
    let stranger = testing::key(8);
    let mismatch = decode(run.encoded()).unwrap().verify(stranger.public_key());
    assert_eq!(mismatch.unwrap_err(), VerifyError::KeyMismatch);
    // Any changed byte is refused, in decoding or in verifying.
    for at in (0..run.encoded().len()).step_by(41) {
        let mut bytes = run.encoded().to_vec();
        bytes[at] ^= 4;
        let refused = decode(&bytes).map_or(true, |run| run.verify(public).is_err());
        assert!(refused, "byte {at}");
    }
}

fn publisher(limits: Limits) -> (Publisher, TopicId) {
    let author = testing::key(7).public_key().agent_id();
    let network = NetworkId::from_name("golden");
    (Publisher::new(network, author, epoch_at(WALL, 3), limits), topic_id("p"))
}

/// Signs everything that is queued.
fn sign_all(publisher: &mut Publisher) -> Vec<Run> {
    let key = testing::key(7);
    std::iter::from_fn(|| {
        let run = publisher.next_run()?.sign(&key).expect("the author's key");
        publisher.signed(&run);
        Some(run)
    })
    .collect()
}

#[test]
fn runs_are_cut_by_entries_and_by_bytes() {
    let (mut publisher, topic) = publisher(Limits::default());
    for _ in 0..130 {
        publisher.publish(WALL, topic, Bytes::from_static(b"small")).unwrap();
    }
    for _ in 0..10 {
        publisher.publish(WALL, topic, vec![1; MAX_PAYLOAD].into()).unwrap();
    }
    let runs = sign_all(&mut publisher);
    let counts: Vec<_> = runs.iter().map(|run| run.body().entries().len()).collect();
    assert_eq!(counts, [64, 64, 5, 3, 3, 1]);
    assert!(runs.iter().all(|run| run.encoded().len() <= MAX_RUN_BYTES));
    assert_eq!(publisher.pending(), 0);
}

#[test]
fn topics_take_turns_at_the_signer() {
    let (mut publisher, a) = publisher(Limits::default());
    let b = topic_id("other");
    for _ in 0..200 {
        publisher.publish(WALL, a, Bytes::new()).unwrap();
    }
    publisher.publish(WALL, b, Bytes::new()).unwrap();
    let topics: Vec<_> = sign_all(&mut publisher).iter().map(|run| run.body().topic()).collect();
    assert_eq!(topics, [a, b, a, a, a]);
}

#[test]
fn a_forgotten_topic_continues_in_a_later_epoch() {
    let mut limits = Limits::default();
    limits.published_topics = 1;
    let (mut publisher, a) = publisher(limits);
    let b = topic_id("other");
    let mut epochs = Vec::new();
    for topic in [a, b, a] {
        assert_eq!(publisher.publish(WALL, topic, Bytes::new()), Ok(1));
        epochs.push(sign_all(&mut publisher)[0].body().epoch());
    }
    assert!(epochs.is_sorted() && epochs[0] < epochs[1] && epochs[1] < epochs[2]);
}

#[test]
fn busy_is_said_at_every_cap_and_nothing_is_given_a_number() {
    let mut limits = Limits::default();
    limits.pending_topic_entries = 2;
    limits.pending_entries = 3;
    limits.pending_bytes = 100;
    let (mut publisher, a) = publisher(limits);
    let b = topic_id("other");
    let tiny = || Bytes::from_static(b"x");
    let busy = Err(x0x_gossip_pubsub::PublishError::Busy);
    assert_eq!(publisher.publish(WALL, a, tiny()), Ok(1));
    assert_eq!(publisher.publish(WALL, a, tiny()), Ok(2));
    assert_eq!(publisher.publish(WALL, a, tiny()), busy, "topic");
    assert_eq!(publisher.publish(WALL, b, vec![0; 99].into()), busy, "bytes");
    assert_eq!(publisher.publish(WALL, b, tiny()), Ok(1));
    assert_eq!(publisher.publish(WALL, topic_id("c"), tiny()), busy, "all");
    publisher.set_congested(a, true);
    sign_all(&mut publisher);
    assert_eq!(publisher.publish(WALL, a, tiny()), busy, "link");
    publisher.set_congested(a, false);
    assert_eq!(publisher.publish(WALL, a, tiny()), Ok(3));
    publisher.close();
    assert!(publisher.publish(WALL, a, tiny()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chains_round_trip(sizes in prop::collection::vec(0_usize..2000, 1..150), step in 0_u64..3) {
        let (mut publisher, topic) = publisher(Limits::default());
        let payload = |n: usize, size: usize| Bytes::from(vec![u8::try_from(n % 251).expect("a byte"); size]);
        for (n, size) in sizes.iter().enumerate() {
            let wall = WALL + Duration::from_millis(step * n as u64);
            publisher.publish(wall, topic, payload(n, *size)).unwrap();
        }
        let key = testing::key(7);
        let (mut n, mut last) = (0, None);
        for sent in sign_all(&mut publisher) {
            let run = RunIn::decode(sent.encoded().clone()).unwrap().verify(key.public_key()).unwrap();
            prop_assert_eq!(run.body(), sent.body());
            prop_assert_eq!(run.hash(), sent.hash());
            prop_assert_eq!(run.encoded(), sent.encoded());
            prop_assert_eq!(run.body().first_seq(), n as u64 + 1);
            for entry in run.body().entries() {
                prop_assert_eq!(&entry.payload, &payload(n, sizes[n]));
                prop_assert!(Some(entry.time) > last);
                last = Some(entry.time);
                n += 1;
            }
        }
        prop_assert_eq!(n, sizes.len());
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = FrameIn::decode(bytes.clone().into());
        let _ = RunIn::decode(bytes.into());
    }

    #[test]
    fn altered_frames_never_panic(at in 0_usize..3600, mask in 1_u8.., cut in 0_usize..3600) {
        let forge = forge();
        let mut frame = forge.frame(forge.run(None, &[b"one", b"two"]).encoded()).to_vec();
        let at = at % frame.len();
        frame[at] ^= mask;
        let _ = FrameIn::decode(frame.clone().into());
        frame.truncate(cut);
        let _ = FrameIn::decode(frame.into());
    }
}

#[test]
fn repeated_items_are_counted_before_they_are_decoded() {
    // A run of 100,000 empty entries takes 200 kB on the wire and would take megabytes decoded.
    let run: Vec<u8> = [0x3a, 0].repeat(100_000);
    let error = RunIn::decode(run.into()).unwrap_err();
    assert!(matches!(error, WireError::Oversized { what: "run entries", .. }), "{error}");
    let mut inner: Vec<u8> = [0x1a, 0].repeat(100_000);
    let mut frame = vec![0x0a, 0xc0, 0x9a, 0x0c];
    frame.append(&mut inner);
    let error = FrameIn::decode(frame.into()).unwrap_err();
    assert!(matches!(error, WireError::Oversized { what: "topics", .. }), "{error}");
    let twice = [0x12, 0, 0x12, 0];
    assert!(FrameIn::decode(Bytes::copy_from_slice(&twice)).is_err());
    let unknown = [0x7a, 2, 1, 2];
    assert!(matches!(FrameIn::decode(Bytes::copy_from_slice(&unknown)), Ok(FrameIn::Unknown)));
    assert!(matches!(
        FrameIn::decode(vec![0; 2 * 1024 * 1024].into()),
        Err(WireError::Oversized { what: "frame", .. })
    ));
}

#[test]
fn ids_are_shown_and_compared() {
    assert_ne!(NetworkId::from_name("a"), NetworkId::from_name("b"));
    assert!(format!("{:?}", NetworkId::from_name("a")).starts_with("NetworkId("));
    assert_eq!(AgentId::new([0; 32]), AgentId::new([0; 32]));
}

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

/// These values may change only together with the protocol's number.
#[test]
fn golden_vectors() {
    let forge = forge();
    assert_eq!(hex(forge.topic.as_bytes()), "TOPIC");
    assert_eq!(hex(forge.network.as_bytes()), "NETWORK");
    let first = forge.run(None, &[b"", b"hello"]);
    assert_eq!(hex(first.hash().as_bytes()), "FIRST");
    let second = forge.run(Some(&first), &[&[0xa5; 300]]);
    assert_eq!(hex(second.hash().as_bytes()), "SECOND");
    // Signatures are hedged, so the golden encoding is that of everything before them.
    let encoded = second.encoded();
    let unsigned = &encoded[..encoded.len() - SIGNATURE_LEN - 3];
    assert_eq!(unsigned.len(), 470);
    assert_eq!(blake3::hash(unsigned).to_string(), "ENCODED");
    assert_eq!(hex(&unsigned[..36]), "HEAD");
}

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
        let payload = |n: usize, size: usize| Bytes::from(vec![u8::try_from(n % 251).unwrap(); size]);
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

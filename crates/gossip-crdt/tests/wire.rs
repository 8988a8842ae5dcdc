//! Operations on the wire: the documented schema, golden bytes, sizes.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use proptest::prelude::*;
use protox::prost_reflect::{DescriptorPool, DynamicMessage};
use x0x_core::{AgentId, Machine as _, Tick, TopicId, WallTime};
use x0x_gossip_crdt::{
    Entry, Input, ObjectMachine, OperationIn,
    kv::{KvOp, KvStore, Put},
    testing::{Sample, SampleOp},
};
use x0x_gossip_pubsub::{NetworkId, Retention, testing::RunForge};

const OBJECT: TopicId = TopicId::new([9; 32]);
const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);
/// What pubsub adds to the entry of a full run: number, time, class and length, and its part of the
/// signature and of what the run says once.
const SHARED: usize = 4 + 8 + (3309 + 5 * 34 + 40) / 64;

type Replica = ObjectMachine<Sample>;

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

/// Replicas that all get everything at once.
struct Room {
    replicas: BTreeMap<u8, (Replica, u64)>,
}

impl Room {
    fn new(agents: u8) -> Self {
        let replica = |n| ObjectMachine::new(OBJECT, None, agent(n), Arc::default());
        Self { replicas: (1..=agents).map(|n| (n, (replica(n), 0))).collect() }
    }

    /// Writes, and returns the payload with the operation.
    fn write(&mut self, n: u8, op: &SampleOp) -> bytes::Bytes {
        let (writer, seq) = self.replicas.get_mut(&n).expect("it is there");
        let prepared = writer.prepare::<Infallible>(WALL, op).expect("it is prepared");
        let mut entries = Vec::new();
        for payload in prepared.payloads {
            *seq += 1;
            let accepted = Input::Accepted { write: None, epoch: 1, seq: *seq };
            writer.handle(Tick::ZERO, accepted);
            entries.push(Entry { author: agent(n), epoch: 1, seq: *seq, time: WALL, payload });
        }
        for (replica, _) in self.replicas.values_mut() {
            for entry in &entries {
                replica.handle(Tick::ZERO, Input::Entry(entry.clone()));
            }
            while replica.poll_output().is_some() {}
        }
        entries.pop().expect("there is one").payload
    }
}

#[test]
fn a_usual_operation_takes_less_than_120_bytes_beside_its_value() {
    let mut room = Room::new(8);
    let value = "v".repeat(100);
    let op = SampleOp::Put("key-0".to_owned(), value.clone());
    let mut sizes = Vec::new();
    for round in 0..4 {
        for n in 1..=8 {
            let size = room.write(n, &op).len() - value.len() + SHARED;
            // In the first two rounds they name each other.
            if round > 1 {
                sizes.push(size);
            }
        }
    }
    // Seven others went on before each.
    let most = sizes.iter().max().copied().expect("some");
    assert!(most <= 120, "{most} bytes");
    let hashes: Vec<_> = room.replicas.values().map(|(replica, _)| replica.hash()).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
}

/// Bytes that each of some puts takes in the log beside its key and value, in runs of so many.
fn bytes_of_a_put(in_run: u64) -> u64 {
    let mut store: ObjectMachine<KvStore> =
        ObjectMachine::new(OBJECT, None, agent(1), Arc::default());
    let mut content = 0;
    let payloads: Vec<_> = (1..=in_run)
        .map(|seq| {
            let (key, value) = (format!("key-{seq:03}"), "v".repeat(100));
            content += (key.len() + value.len()) as u64;
            let op = KvOp::Put(Put::new(key, value));
            let mut prepared = store.prepare::<Infallible>(WALL, &op).expect("it is prepared");
            store.handle(Tick::ZERO, Input::Accepted { write: None, epoch: 1, seq });
            let payload = prepared.payloads.pop().expect("there is one");
            let (author, epoch) = (agent(1), 1);
            let entry = Entry { author, epoch, seq, time: WALL, payload: payload.clone() };
            store.handle(Tick::ZERO, Input::Entry(entry));
            payload
        })
        .collect();
    let network = NetworkId::from_name("wire");
    let forge = RunForge::new(x0x_identity::testing::key(7), network, OBJECT, WALL);
    let payloads: Vec<&[u8]> = payloads.iter().map(|payload| &payload[..]).collect();
    let run = forge.of_class(Retention::Durable).run(None, &payloads);
    (run.encoded().len() as u64 - content).div_ceil(in_run)
}

/// The figures in `docs/objects-figures.md`.
#[test]
fn a_put_in_a_signed_run_takes_as_many_bytes_as_documented() {
    assert_eq!([64, 8, 1].map(bytes_of_a_put), [71, 450, 3482]);
}

#[test]
fn the_schema_describes_what_is_sent() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");
    let files = protox::compile(["crdt.proto"], [folder]).expect("the schema is valid");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete");
    let schema = pool.get_message_by_name("x0x.crdt.v1.Operation").expect("it is there");
    let mut room = Room::new(3);
    let op = SampleOp::Title("title".to_owned());
    let mut seen = std::collections::BTreeSet::new();
    for n in [1, 2, 3, 1, 2, 3] {
        let payload = room.write(n, &op);
        let message = DynamicMessage::decode(schema.clone(), &payload[..]).expect("it decodes");
        assert_eq!(message.unknown_fields().count(), 0);
        seen.extend(message.fields().map(|(field, _)| field.name().to_owned()));
    }
    let all = ["ahead", "known", "named", "named_seqs", "operation"];
    assert!(all.iter().all(|field| seen.contains(*field)), "{seen:?}");
    assert_eq!(schema.fields().count(), 8);
}

#[test]
fn bytes_are_as_they_were() {
    let mut room = Room::new(2);
    let first = room.write(1, &SampleOp::Add("a".to_owned()));
    assert_eq!(data_encoding(&first), "2a03030161");
    let second = room.write(2, &SampleOp::Remove("a".to_owned()));
    let tag = "3c18d6cdfb5e72ae2c4cd5b4c8f1ed0a";
    let text = data_encoding(&second);
    assert!(text.starts_with("08011a10") && text.ends_with("2201012a03040161"), "{text}");
    assert_eq!(text.len(), 8 + tag.len() + 16);
}

fn data_encoding(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let payload = bytes::Bytes::from(bytes.clone());
        if let Ok(operation) = OperationIn::decode(&payload) {
            prop_assert_eq!(OperationIn::decode(&operation.encode()), Ok(operation));
        }
        let mut machine = Replica::new(OBJECT, None, agent(1), Arc::default());
        let entry = Entry { author: agent(2), epoch: 1, seq: 1, time: WALL, payload };
        machine.handle(Tick::ZERO, Input::Entry(entry));
        drop(Replica::restore(OBJECT, None, agent(1), Arc::default(), &bytes));
        let stored: Vec<u8> = [2].into_iter().chain(bytes).collect();
        drop(Replica::load(OBJECT, None, agent(1), Arc::default(), &stored));
    }

    #[test]
    fn no_damaged_replica_panics(at in 0_usize..400, to: u8) {
        let mut room = Room::new(3);
        for n in [1, 2, 3, 1] {
            room.write(n, &SampleOp::Put("a".to_owned(), "b".to_owned()));
        }
        let mut bytes = room.replicas[&1].0.encode();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(machine) = Replica::restore(OBJECT, None, agent(1), Arc::default(), &bytes) {
            prop_assert_eq!(machine.encode(), bytes);
        }
    }
}

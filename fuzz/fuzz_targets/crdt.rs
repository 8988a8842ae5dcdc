//! Operations of replicated objects: none panics, and what is decoded encodes to the same operation; a
//! replica takes any list of them. The input is a list of payloads, each after a byte that says who
//! writes and a two-byte length.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::{AgentId, Machine, Tick, TopicId, WallTime};
use x0x_gossip_crdt::{Entry, Input, ObjectMachine, OperationIn, testing::Sample};

fuzz_target!(|data: &[u8]| {
    let (object, owner) = (TopicId::new([9; 32]), AgentId::new([0; 32]));
    let new = || ObjectMachine::<Sample>::new(object, Some(owner), owner, Arc::default());
    let (mut machine, mut rest) = (new(), data);
    let mut seqs = [0_u64; 4];
    while let [who, high, low, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (payload, tail) = tail.split_at(len);
        rest = tail;
        let payload = Bytes::copy_from_slice(payload);
        if let Ok(operation) = OperationIn::decode(&payload) {
            assert_eq!(OperationIn::decode(&operation.encode()), Ok(operation));
        }
        let index = usize::from(*who % 4);
        seqs[index] += 1;
        let author = AgentId::new([*who % 4; 32]);
        let time = WallTime::from_millis(1_800_000_000_000);
        let entry = Entry { author, epoch: 1, seq: seqs[index], time, payload };
        machine.handle(Tick::ZERO, Input::Entry(entry));
        while machine.poll_output().is_some() {}
    }
    let encoded = machine.encode();
    let again = ObjectMachine::<Sample>::restore(object, Some(owner), owner, Arc::default(), &encoded);
    assert_eq!(again.expect("what was encoded is decoded").encode(), encoded);
});

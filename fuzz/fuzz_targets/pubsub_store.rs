//! What a store gives back of a topic: whatever its bytes, it is checked without a panic, and no run
//! is taken whose author did not sign it. The input is a list of runs, each after a two-byte length.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::TopicId;
use x0x_gossip_pubsub::{NetworkId, StoredRun, StoredTopic};

fuzz_target!(|data: &[u8]| {
    let mut stored = StoredTopic::default();
    let mut rest = data;
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let (run, tail) = tail.split_at(tail.len().min(usize::from(u16::from_be_bytes(*len))));
        rest = tail;
        let position = stored.runs.len() as u64;
        let run = Bytes::copy_from_slice(run);
        stored.runs.push(StoredRun { position, missed: 0, begins: position == 0, run });
    }
    stored.end = stored.runs.len() as u64;
    let restored = stored.check(NetworkId::from_name("fuzz"), TopicId::new([0; 32]));
    assert_eq!(restored.runs(), 0, "nobody signed anything");
});

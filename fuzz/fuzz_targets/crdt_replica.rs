//! Stored replicas: none panics, and what is taken encodes to the same bytes.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use x0x_core::{AgentId, TopicId};
use x0x_gossip_crdt::{ObjectMachine, testing::Sample};

fuzz_target!(|data: &[u8]| {
    let me = AgentId::new([1; 32]);
    let object = TopicId::new([9; 32]);
    if let Ok(machine) = ObjectMachine::<Sample>::restore(object, None, me, Arc::default(), data) {
        assert_eq!(machine.encode(), data);
    }
    if let Ok(machine) = ObjectMachine::<Sample>::load(object, Some(me), me, Arc::default(), data) {
        // What was stored is stored again.
        drop(machine.save());
    }
});

//! Operations and states of task lists and key-value stores: what decodes is within bounds, and encodes to
//! what decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0x_gossip_crdt::{Decoder, Encoder, Object, kv::KvStore, tasks::TaskList};

fn check<T: Object>(bytes: &[u8]) {
    if let Ok(op) = T::decode_op(bytes) {
        let again = T::encode_op(&op);
        let decoded = T::decode_op(&again).expect("what was decoded can be encoded");
        assert_eq!(T::encode_op(&decoded), again);
    }
    let mut decoder = Decoder::new(bytes);
    if let Ok(state) = T::decode_state(&mut decoder) {
        let used = bytes.len() - decoder.left();
        let mut encoder = Encoder::new();
        state.encode_state(&mut encoder);
        assert_eq!(encoder.finish(), &bytes[..used], "a state has one encoding");
    }
}

fuzz_target!(|bytes: &[u8]| {
    check::<TaskList>(bytes);
    check::<KvStore>(bytes);
});

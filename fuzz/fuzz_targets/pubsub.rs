//! Frames and runs of topic logs: none panics, and no run verifies that its author did not sign.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_gossip_pubsub::{FrameIn, MAX_FRAME, RunIn};
use x0x_identity::SecretKey;

fuzz_target!(|data: &[u8]| {
    let data = Bytes::copy_from_slice(data);
    if FrameIn::decode(data.clone()).is_ok() {
        assert!(data.len() <= MAX_FRAME);
    }
    if let Ok(run) = RunIn::decode(data) {
        let stranger = SecretKey::from_seed([7; 32]);
        assert!(run.verify(stranger.public_key()).is_err());
    }
});

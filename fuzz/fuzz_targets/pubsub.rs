//! Frames and runs of topic logs: none panics, and no run verifies that its author did not sign.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_gossip_pubsub::{FrameIn, MAX_FRAME, RunIn};
use x0x_identity::SecretKey;

static STRANGER: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_seed([7; 32]));

fuzz_target!(|data: &[u8]| {
    let data = Bytes::copy_from_slice(data);
    if FrameIn::decode(data.clone()).is_ok() {
        assert!(data.len() <= MAX_FRAME);
    }
    if let Ok(run) = RunIn::decode(data) {
        assert!(run.verify(STRANGER.public_key()).is_err());
    }
});

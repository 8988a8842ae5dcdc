//! Frames of direct messages: whatever decodes is encoded to what decodes to the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_direct::wire::{FrameIn, MAX_PAYLOAD};

fuzz_target!(|data: &[u8]| {
    let Ok(frame) = FrameIn::decode(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(FrameIn::decode(frame.clone().encode()).as_ref(), Ok(&frame));
    if let FrameIn::Message(message) = frame {
        let (from, to) = (message.from, message.to);
        assert!(message.clone().verify(&[], &[to]).is_err());
        assert!(message.clone().verify(&[from], &[]).is_err());
        if let Ok(verified) = message.verify(&[from], &[to]) {
            assert!(verified.payload().len() <= MAX_PAYLOAD);
        }
    }
});

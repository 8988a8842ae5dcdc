//! Frames and records of rendezvous: what decodes survives a round trip, and no record verifies that its
//! agent did not sign.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::{AgentId, WallTime};
use x0x_rendezvous::{Frame, MAX_FRAME, MAX_RECORD, SignedRecord, Subject};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(record) = SignedRecord::decode(&bytes) {
        assert!(data.len() <= MAX_RECORD);
        let subject = Subject::Agent(AgentId::new([7; 32]));
        assert!(record.verify(&subject, WallTime::from_millis(1_800_000_000_000)).is_err());
    }
    let Ok(frame) = Frame::decode(&bytes) else { return };
    assert!(data.len() <= MAX_FRAME);
    let again = Frame::decode(&frame.encode()).expect("what decodes is encoded well");
    if frame != Frame::Unknown {
        assert_eq!(again, frame);
    }
});

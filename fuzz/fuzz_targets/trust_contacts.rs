//! contacts.json: whatever is in the file, it is damaged or it is read, and what is read can be written
//! and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0x_trust::{MAX_CONTACTS, MAX_REVOCATIONS, decode, encode};

fuzz_target!(|data: &[u8]| {
    let Ok(state) = decode(data) else { return };
    assert!(state.contacts().count() <= MAX_CONTACTS);
    assert!(state.revocations().count() <= MAX_REVOCATIONS);
    let written = encode(&state).expect("what was read can be written");
    let again = decode(&written).expect("what was written can be read");
    assert_eq!(encode(&again).ok(), Some(written));
});

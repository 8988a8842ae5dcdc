//! Signed bindings: none is accepted that the agent did not sign, and none panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0x_core::{MachineId, WallTime};
use x0x_identity::{MAX_SIGNED_BINDING, SignedBinding};

fuzz_target!(|data: &[u8]| {
    let Ok(binding) = SignedBinding::decode(data) else { return };
    assert!(data.len() <= MAX_SIGNED_BINDING);
    let now = WallTime::from_millis(1_800_000_000_000);
    let _ = binding.verify(MachineId::new([0; 32]), now);
});

//! Control messages, the hello among them: no hello of another network is accepted, and none panics.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::{MachineId, WallTime};
use x0x_transport::{
    MAX_AGENTS,
    wire::{ControlIn, NetworkTag},
};

fuzz_target!(|data: &[u8]| {
    let data = Bytes::copy_from_slice(data);
    let _ = ControlIn::decode(&data, false);
    if let Ok(ControlIn::Hello(hello)) = ControlIn::decode(&data, true) {
        let machine = MachineId::new([0; 32]);
        let now = WallTime::from_millis(1_800_000_000_000);
        if let Ok(hello) = hello.verify(NetworkTag::of("fuzz"), machine, now, &x0x_identity::AcceptAll) {
            assert!(hello.agents.len() <= MAX_AGENTS);
        }
    }
});

//! Membership messages: what is verified is encoded to what verifies to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0x_core::MachineId;
use x0x_gossip_membership::MessageIn;

fuzz_target!(|data: &[u8]| {
    let local = MachineId::new([0; 32]);
    let Some(verified) = MessageIn::decode(data).ok().and_then(|m| m.verify(local).ok()) else {
        return;
    };
    let encoded = verified.message.encode();
    let again = MessageIn::decode(&encoded).expect("our own encoding is well-formed");
    let again = again.verify(local).expect("and it verifies");
    assert_eq!(again.message, verified.message);
});

//! Agreements to send at once, as a hostile session may bring them: nothing grows without bound, and no packet goes
//! where nobody may send.
#![no_main]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::{Machine, MachineId, Scope, Tick};
use x0x_transport::{
    punch::{Input, MAX_ROUNDS, Output, Place, Punches, Received},
    wire::{ControlIn, ControlOut, Punch},
};

fuzz_target!(|data: &[u8]| {
    let at = |text: &str| text.parse().expect("an address");
    let place = |n: u8| {
        let observed = Some(at("203.0.113.9:4000"));
        Place::new(MachineId::new([n; 32]), at("198.51.100.7:5483"), observed, Duration::ZERO)
    };
    let mut punches = Punches::new(MachineId::new([0; 32]), Arc::default());
    let own = vec![at("192.0.2.1:5483")];
    let mut rounds = 0_usize;
    for (n, message) in data.split(|byte| *byte == 0xff).enumerate() {
        let now = Tick::from_millis(n as u64 * 100);
        let Ok(ControlIn::Punch(punch)) = ControlIn::decode(&Bytes::copy_from_slice(message), false)
        else {
            continue;
        };
        let Ok(ControlIn::Punch(again)) =
            ControlIn::decode(&ControlOut::Punch((*punch).clone()).encode(), false)
        else {
            panic!("what was read is written");
        };
        assert_eq!(punch, again);
        let peer = matches!(*punch, Punch::Ask(_)).then(|| place(2));
        let received = Received::new(place(1), *punch, peer, true, own.clone(), [7; 32]);
        punches.handle(now, Input::Received(Box::new(received)));
        punches.handle_timeout(now);
        while let Some(output) = punches.poll_output() {
            match output {
                Output::Probe { address, .. } => {
                    assert_eq!(Scope::of(address.ip()), Some(Scope::Global));
                }
                Output::Open(_) => rounds += 1,
                Output::Close(_) => rounds -= 1,
                _ => {}
            }
        }
        assert!(rounds <= MAX_ROUNDS);
    }
});

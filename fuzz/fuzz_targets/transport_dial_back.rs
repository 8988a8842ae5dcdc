//! Questions whether machines are reachable, as a hostile session may bring them: no probe goes where nobody may
//! send, and few go anywhere.
#![no_main]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::{Machine, MachineId, Scope, Tick};
use x0x_transport::{
    dialback::{DialBacks, Input, MAX_PROBES, Output},
    punch::Place,
    wire::{ControlIn, ControlOut, DialBackStep},
};

fuzz_target!(|data: &[u8]| {
    let at = |text: &str| text.parse().expect("an address");
    let place = |n: u8, address: &str| {
        Place::new(MachineId::new([n; 32]), at(address), Some(at("203.0.113.9:4000")), Duration::ZERO)
    };
    let (from, other) = (place(1, "198.51.100.7:5483"), place(2, "192.0.2.7:5483"));
    let mut machine = DialBacks::new(Arc::default());
    let mut open = 0_usize;
    for (n, message) in data.split(|byte| *byte == 0xff).enumerate() {
        let now = Tick::from_millis(n as u64 * 100);
        let message = Bytes::copy_from_slice(message);
        let Ok(ControlIn::DialBack(step)) = ControlIn::decode(&message, false) else { continue };
        let again = ControlIn::decode(&ControlOut::DialBack(*step).encode(), false);
        assert!(matches!(again, Ok(ControlIn::DialBack(again)) if again == step));
        let sessions = vec![from, other];
        machine.handle(now, Input::Received { from, step: *step, sessions, pick: n as u64 });
        machine.handle_timeout(now);
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Probe { address, .. } => {
                    assert_eq!(Scope::of(address.ip()), Some(Scope::Global));
                }
                Output::Send { to, step: DialBackStep::Forward(ask) } => {
                    assert!(to == other.machine && ask.address.ip() == from.address.ip());
                }
                Output::Open(_) => open += 1,
                Output::Close(_) => open -= 1,
                _ => {}
            }
        }
        assert!(open <= MAX_PROBES);
    }
});

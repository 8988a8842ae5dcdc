//! Datagrams and steps of relays, as a hostile session may send them: what is read is written the same, nothing grows
//! without bound, and nobody is joined with himself or with the relay.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::{Machine, MachineId, Tick};
use x0x_transport::{
    relay::{
        Input, Output, Received, RelayConfig, Relays,
        packet::{Assembly, MAX_INCOMPLETE, MAX_PACKET, RelayedIn, encode},
    },
    wire::{ControlIn, ControlOut},
};

fuzz_target!(|data: &[u8]| {
    datagrams(data);
    let local = MachineId::new([0; 32]);
    let config = RelayConfig::default();
    let most = config.max_contexts;
    let mut relays = Relays::new(local, config, Arc::default());
    let mut joined = 0_usize;
    for (n, message) in data.split(|byte| *byte == 0xff).enumerate() {
        let Ok(ControlIn::Relay(step)) =
            ControlIn::decode(&Bytes::copy_from_slice(message), false)
        else {
            continue;
        };
        let Ok(ControlIn::Relay(again)) =
            ControlIn::decode(&ControlOut::Relay(step).encode(), false)
        else {
            panic!("what was read is written");
        };
        assert_eq!(step, again);
        let now = Tick::from_millis(n as u64 * 100);
        let from = MachineId::new([1 + (n % 3) as u8; 32]);
        relays.handle(now, Input::Received(Received::new(from, step)));
        relays.handle_timeout(now);
        while let Some(output) = relays.poll_output() {
            match output {
                Output::Join { legs, .. } => {
                    joined += 1;
                    assert!(legs[0].0 != legs[1].0 && legs.iter().all(|leg| leg.0 != local));
                }
                Output::Part(_) => joined -= 1,
                _ => {}
            }
        }
        assert!(joined <= most);
    }
});

fn datagrams(data: &[u8]) {
    let mut assembly = Assembly::default();
    for datagram in data.chunks(64) {
        let datagram = Bytes::copy_from_slice(datagram);
        let Some(read) = RelayedIn::decode(&datagram) else { continue };
        let again = encode(read.from_relay, read.context, read.piece, &read.payload);
        assert_eq!(again, datagram);
        if let Some(packet) = assembly.take(read.piece, read.payload) {
            assert!(!packet.is_empty() && packet.len() <= MAX_PACKET);
        }
        assert!(assembly.len() <= MAX_INCOMPLETE);
    }
}

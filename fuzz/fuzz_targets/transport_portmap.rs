//! Answers of gateways: whatever they say, only an address on the internet is believed, and not for long.
#![no_main]

use std::{net::Ipv4Addr, sync::Arc};

use libfuzzer_sys::fuzz_target;
use x0x_core::{Machine, Scope, Tick};
use x0x_transport::portmap::{Input, LIFETIME, Output, PortMap, Way};

fuzz_target!(|data: &[u8]| {
    let mut machine = PortMap::new(5483, Arc::default());
    let way = Way { gateway: Ipv4Addr::new(192, 168, 1, 1), own: Ipv4Addr::new(192, 168, 1, 7) };
    machine.handle(Tick::ZERO, Input::Way { way: Some(way), nonce: [0; 12] });
    for packet in data.chunks(60) {
        machine.handle(Tick::ZERO, Input::Received(packet.to_vec()));
        while let Some(output) = machine.poll_output() {
            if let Output::Lease(Some(lease)) = output {
                assert_eq!(Scope::of(lease.external.ip()), Some(Scope::Global));
                assert!(lease.until.since(Tick::ZERO) <= LIFETIME);
            }
        }
    }
});

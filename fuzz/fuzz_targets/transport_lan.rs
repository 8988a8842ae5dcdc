//! Packets of multicast DNS, as anybody on a link may send them: none panics, and nobody is sent off the link.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use x0x_transport::{
    interfaces::{Interface, Network},
    lan::wire::{MAX_SERVICES, PacketIn, Tag},
};

fuzz_target!(|data: &[u8]| {
    let own: IpAddr = [10, 0, 0, 1].into();
    let network = Network::new([Interface::new(2, own, 24)]);
    match PacketIn::decode(data) {
        Ok(PacketIn::Question(known)) => assert!(known.len() <= MAX_SERVICES),
        Ok(PacketIn::Services(all)) => {
            assert!(all.len() <= MAX_SERVICES);
            for service in all {
                if let Ok(find) = service.verify(Tag::of("fuzz"), &network) {
                    assert!(find.addresses.iter().all(|at| network.is_on_link(at.ip())));
                }
            }
        }
        _ => {}
    }
});

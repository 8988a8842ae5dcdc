//! The overlay machine against three peers that send any messages: it never panics, falls silent after
//! each input, and its views stay within their caps. The input is a list of messages, each after a byte
//! that says who sends it or what else happens, and a length.
#![no_main]

use std::{net::SocketAddr, time::Duration};

use libfuzzer_sys::fuzz_target;
use x0x_core::{Machine, MachineId, Scope, Tick};
use x0x_gossip_membership::{
    DialFailure, HyParView, Input, MAX_ACTIVE, MAX_PASSIVE, MessageIn, Output, OverlayConfig, Peer,
};

/// More outputs than this from one input is a livelock.
const MAX_OUTPUTS: usize = 100_000;

fn drain(machine: &mut HyParView, now: Tick) {
    for count in 0.. {
        assert!(count < MAX_OUTPUTS, "the machine never falls silent");
        match machine.poll_output() {
            None => break,
            Some(Output::Dial(to)) => {
                let result = Err(DialFailure::Unreachable);
                machine.handle(now, Input::DialResult { to, result });
            }
            Some(_) => {}
        }
    }
    assert!(machine.active().count() <= MAX_ACTIVE);
    assert!(machine.passive().count() <= MAX_PASSIVE);
}

fuzz_target!(|data: &[u8]| {
    let local = MachineId::new([9; 32]);
    let config = OverlayConfig::default();
    let mut machine = HyParView::new(local, config, [7; 32]).expect("the defaults are valid");
    let mut now = Tick::ZERO;
    let peers = [1_u8, 2, 3].map(|number| {
        let address = SocketAddr::from(([198, 51, number, 1], 5483));
        Peer::new(MachineId::new([number; 32]), [address])
    });
    let up = |peer: &Peer| Input::Up { peer: peer.clone(), path: Scope::Global, dialled: false };
    peers.iter().for_each(|peer| machine.handle(now, up(peer)));
    let mut rest = data;
    while let Some(([kind, high, low], tail)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (message, tail) = tail.split_at(tail.len().min(len));
        rest = tail;
        let peer = &peers[usize::from(kind & 3) % peers.len()];
        match kind >> 2 {
            0 => machine.handle(now, Input::Down(peer.id())),
            1 => machine.handle(now, up(peer)),
            2 => {
                now = now + Duration::from_millis(len as u64);
                machine.handle_timeout(now);
            }
            _ => {
                let verified = MessageIn::decode(message).and_then(|m| m.verify(local));
                if let Ok(verified) = verified {
                    let (peer, message) = (peer.id(), verified.message);
                    machine.handle(now, Input::Message { peer, message });
                }
            }
        }
        drain(&mut machine, now);
    }
});

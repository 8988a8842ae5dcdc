//! The pubsub machine against two peers that send any frames: it never panics, falls silent after each
//! input, and asks to end a session at most once. The input is a list of frames, each after a byte that
//! says who sends it or what else happens, and a two-byte length.
#![no_main]

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::{Machine, MachineId, Tick, TopicId, WallTime};
use x0x_gossip_pubsub::{Input, Limits, NetworkId, Output, PubSubMachine, Start};
use x0x_identity::SecretKey;

static KEY: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_seed([7; 32]));

/// More outputs than this from one input is a livelock.
const MAX_OUTPUTS: usize = 100_000;

fn drain(machine: &mut PubSubMachine, now: Tick, ends: &mut usize) {
    for count in 0.. {
        assert!(count < MAX_OUTPUTS, "the machine never falls silent");
        match machine.poll_output() {
            None => return,
            Some(Output::Verify(pending)) => machine.handle(now, Input::Verified(pending.verify())),
            Some(Output::Disconnect(_)) => *ends += 1,
            Some(_) => {}
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let network = NetworkId::from_name("fuzz");
    let limits = Limits::default();
    let key = KEY.public_key().clone();
    let mut machine = PubSubMachine::new(network, key, limits, Arc::default());
    let peers = [MachineId::new([1; 32]), MachineId::new([2; 32])];
    let (mut now, mut ends) = (Tick::ZERO, 0);
    machine.handle(now, Input::Wall(WallTime::from_millis(1_800_000_000_000)));
    // An id of zero bytes is easy to guess for the fuzzer.
    let subscribed = machine.subscribe(now, TopicId::new([0; 32]), Start::Retained);
    assert!(subscribed.is_ok());
    peers.iter().for_each(|peer| machine.handle(now, Input::LinkUp(*peer)));
    let mut rest = data;
    while let Some(([kind, high, low], tail)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (frame, tail) = tail.split_at(tail.len().min(len));
        rest = tail;
        let peer = peers[usize::from(kind & 1)];
        match kind >> 1 {
            0 => machine.handle(now, Input::SendRefused(peer)),
            1 => machine.handle(now, Input::Writable(peer)),
            2 => {
                now = now + Duration::from_millis(len as u64);
                machine.handle_timeout(now);
            }
            3 => machine.handle(now, Input::LinkLeft(peer)),
            4 => machine.handle(now, Input::LinkUp(peer)),
            _ => {
                let message = Bytes::copy_from_slice(frame);
                machine.handle(now, Input::Frame { peer, message });
            }
        }
        drain(&mut machine, now, &mut ends);
    }
});

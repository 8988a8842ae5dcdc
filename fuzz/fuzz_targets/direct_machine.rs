//! The direct-message machine against a peer that sends anything: it never panics, what it holds is
//! bounded, and a broken session is reported once. The input is a list of frames, each after a
//! two-byte length.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::{AgentId, Machine, MachineId, Tick};
use x0x_direct::{
    DirectConfig, RefuseReason,
    state::{DirectMachine, Input, MAX_HELD_MESSAGES, Output, Room},
};

fuzz_target!(|data: &[u8]| {
    let peer = MachineId::new([2; 32]);
    let metrics = std::sync::Arc::<x0x_direct::DirectMetrics>::default();
    // Ids of zero bytes are easy to guess for the fuzzer.
    let agent = AgentId::new([0; 32]);
    let config = DirectConfig::new(vec![agent]);
    let mut machine = DirectMachine::new(MachineId::new([1; 32]), config, metrics.clone());
    machine.handle(Tick::ZERO, Input::Up { peer, generation: 1, agents: vec![agent] });
    let mut ends = 0;
    let mut rest = data;
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let (frame, tail) = tail.split_at(tail.len().min(usize::from(u16::from_be_bytes(*len))));
        rest = tail;
        if frame.is_empty() {
            let room = Room { messages: 3, bytes: 1000 };
            machine.handle(Tick::ZERO, Input::Room(room));
        } else {
            let frame = Bytes::copy_from_slice(frame);
            machine.handle(Tick::ZERO, Input::Received { peer, frame });
        }
        while let Some(output) = machine.poll_output() {
            ends += usize::from(matches!(output, Output::Disconnect(_)));
            if let Output::Deliver { .. } | Output::Ignore = output {
                // Some of it cannot be stored.
                let taken = if rest.len() % 3 == 0 { Err(RefuseReason::NotStored) } else { Ok(()) };
                machine.handle(Tick::ZERO, Input::Settled(vec![taken]));
            }
        }
    }
    assert!(ends <= 1);
    assert!(metrics.held.value() <= MAX_HELD_MESSAGES as u64);
});

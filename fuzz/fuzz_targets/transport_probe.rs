//! Probe packets, as the socket and the prober take them: nothing that the keys did not make is answered, and
//! an answer is never larger than its question.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use x0x_core::{Machine, SeededRng, Tick};
use x0x_transport::sock::{
    FlowKeys, PROBE_LEN, ProbeIn, Prober,
    packet::{FLOW_SECRET_LEN, Probe, Step},
    prober::{Input, Output},
};

fuzz_target!(|data: &[u8]| {
    let keys = |first| FlowKeys::new(&[7; FLOW_SECRET_LEN], first);
    let mut prober = Prober::new(SeededRng::from_number(1), Arc::default());
    prober.handle(Tick::ZERO, Input::Open(keys(false)));
    let from = "192.0.2.1:9".parse().expect("an address");
    for (n, packet) in data.chunks(PROBE_LEN).enumerate() {
        let Some(packet) = ProbeIn::decode(packet) else { continue };
        let genuine = packet.verify(&keys(false)).is_some();
        prober.handle(Tick::from_millis(n as u64), Input::Received { from, packet });
        let sent = std::iter::from_fn(|| prober.poll_output())
            .filter(|output| matches!(output, Output::Send { .. }))
            .count();
        assert!(sent <= usize::from(genuine));
    }
    // What the peer makes of the same bytes is answered.
    if let Some((nonce, _)) = data.split_first_chunk::<8>() {
        let probe = Probe::new(Step::Probe, 0, u64::from_be_bytes(*nonce), from);
        let packet = ProbeIn::decode(&probe.encode(&keys(true))).expect("well-formed");
        prober.handle(Tick::from_millis(1 << 20), Input::Received { from, packet });
        assert!(matches!(prober.poll_output(), Some(Output::Send { .. })));
    }
});

//! The machines of letters against a peer that sends anything: they never panic, and what they keep is
//! bounded. The input is a list of frames, each after a two-byte length; an empty one lets time pass.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::{AgentId, Machine, MachineId, Tick, WallTime};
use x0x_direct::{
    Standing,
    letters::{
        Collector, CollectorInput, CollectorOutput, Depositor, DepositorInput, Digest, Holder,
        HolderInput, HolderOutput, LettersConfig, LettersMetrics, Mailbox, wire::Frame,
    },
};
use x0x_identity::Pickup;

fuzz_target!(|data: &[u8]| {
    let peer = MachineId::new([2; 32]);
    let metrics = std::sync::Arc::<LettersMetrics>::default();
    let mut config = LettersConfig::default();
    (config.hold_bytes, config.stranger_bytes) = (20_000, 10_000);
    let mut holder = Holder::new(config.clone(), metrics.clone());
    let mut depositor = Depositor::new(config.clone(), metrics.clone(), [1; 32]);
    let mut collector = Collector::new(config, metrics);
    let mut now = Tick::ZERO;
    collector.handle(now, CollectorInput::Up(peer));
    depositor.handle(now, DepositorInput::Up { peer, standing: Standing::Stranger });
    let mut rest = data;
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let (frame, tail) = tail.split_at(tail.len().min(usize::from(u16::from_be_bytes(*len))));
        rest = tail;
        let wall = WallTime::from_millis(1_800_000_000_000 + now.as_micros() / 1000);
        holder.handle(now, HolderInput::Wall(wall));
        depositor.handle(now, DepositorInput::Wall(wall));
        collector.handle(now, CollectorInput::Wall(wall));
        if frame.is_empty() {
            now = now + std::time::Duration::from_secs(7);
            holder.handle_timeout(now);
            depositor.handle_timeout(now);
            collector.handle_timeout(now);
        }
        match Frame::decode(&Bytes::copy_from_slice(frame)) {
            Ok(Frame::Deposited { digest, outcome, until }) => {
                let pickup = Pickup::new([4; 32]);
                let input = DepositorInput::Deposited { peer, digest, outcome, pickup, until };
                depositor.handle(now, input);
            }
            Ok(Frame::Listing { letters, more }) => {
                let from = AgentId::new([3; 32]);
                let mailbox = Mailbox { from, machine: MachineId::new([5; 32]), period: 1 };
                let letters = letters.iter().map(|it| (mailbox, it.digest, it.bytes % 2 == 0));
                let letters = letters.collect();
                collector.handle(now, CollectorInput::Listed { peer, letters, more });
            }
            Ok(Frame::Fetched { digest, sealed }) => {
                let input = match sealed {
                    None => CollectorInput::Missing { peer, digest },
                    Some(sealed) if Digest::of(&sealed) == digest => {
                        CollectorInput::Broken { peer, digest }
                    }
                    Some(_) => CollectorInput::Tampered { peer, digest },
                };
                collector.handle(now, input);
            }
            Ok(frame) => {
                let standing = Standing::Stranger;
                holder.handle(now, HolderInput::Frame { peer, standing, frame });
            }
            Err(_) => {}
        }
        while let Some(output) = holder.poll_output() {
            if let HolderOutput::Store { peer, held, .. } = output {
                let kept = rest.len() % 3 > 0;
                holder.handle(now, HolderInput::Stored { peer, held, kept });
            }
        }
        while let Some(output) = collector.poll_output() {
            assert!(!matches!(output, CollectorOutput::Deliver(_)), "nothing was opened");
        }
        assert!(holder.held().1 <= 20_000);
        assert!(depositor.poll_output().is_none());
    }
});

//! A stream of packets, as a hostile machine may write it: packets come out whole and bounded, however the bytes are
//! cut, and the stream ends at the first length that no packet has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0x_transport::sock::stream::{MAX_PACKET, Packets, append};

fuzz_target!(|data: &[u8]| {
    let Some((cut, stream)) = data.split_first() else { return };
    let read = |size: usize| {
        let (mut packets, mut got) = (Packets::default(), Vec::new());
        for chunk in stream.chunks(size) {
            packets.push(chunk);
            loop {
                match packets.next_packet() {
                    Ok(Some(packet)) => got.push(packet),
                    Ok(None) => break,
                    Err(bad) => return (got, Some(bad)),
                }
            }
        }
        (got, None)
    };
    let (got, bad) = read(usize::from(*cut) + 1);
    assert_eq!((&got, bad), (&read(stream.len().max(1)).0, read(stream.len().max(1)).1));
    let mut written = Vec::new();
    for packet in &got {
        assert!((1..=MAX_PACKET).contains(&packet.len()) && append(&mut written, packet));
    }
    assert!(stream.starts_with(&written));
});

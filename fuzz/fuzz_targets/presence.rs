//! Frames, records and queries of presence: nothing panics, and what verifies was signed by the agent
//! that it names.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::WallTime;
use x0x_presence::{
    Frame, FrameIn, MAX_BEACONS, MAX_FRAME, MAX_INTEREST, MAX_SIGHTINGS, MAX_WANTED, SignedQuery,
    SignedSession,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(session) = SignedSession::decode(&bytes) {
        drop(session.verify(NOW));
    }
    if let Ok(query) = SignedQuery::decode(&bytes) {
        drop(query.verify(NOW));
    }
    let Ok(frame) = Frame::decode(&bytes) else { return };
    assert!(data.len() <= MAX_FRAME);
    match frame {
        FrameIn::Interest(tags) => assert!(tags.len() <= MAX_INTEREST),
        FrameIn::Beacons(beacons) => assert!(beacons.len() <= MAX_BEACONS),
        FrameIn::Want(wanted) => assert!(wanted.len() <= MAX_WANTED),
        FrameIn::Record(record) => drop(record.verify(NOW)),
        FrameIn::Walk(query, _) => drop(query.verify(NOW)),
        FrameIn::Answer(_, sightings) => assert!(sightings.len() <= MAX_SIGHTINGS),
        _ => {}
    }
});

//! Announcements: none panics, and none is accepted from another author than it names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0x_core::WallTime;
use x0x_rendezvous::{Announcement, MAX_ANNOUNCEMENT};

fuzz_target!(|data: &[u8]| {
    let Ok(announcement) = Announcement::decode(data) else { return };
    assert!(data.len() <= MAX_ANNOUNCEMENT);
    let author = announcement.claimed_agent();
    let now = WallTime::from_millis(1_800_000_000_000);
    if let Ok((announcement, _)) = announcement.verify(author, now) {
        assert_eq!(announcement.agent, author);
    }
});

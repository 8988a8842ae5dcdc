//! Frames, entries, credentials and key packages of encrypted groups: what decodes survives a round trip,
//! and nothing that a stranger writes is accepted by a member.
#![no_main]

use std::{cell::RefCell, sync::Arc};

use libfuzzer_sys::fuzz_target;
use x0x_core::WallTime;
use x0x_identity::SecretKey;
use x0x_mls::{
    EntryWire, FrameIn, GroupId, Groups, LeafCredentialIn, MlsGroups, Suite, testing::MemoryStore,
    verify_key_package,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

thread_local! {
    static MEMBER: RefCell<(Groups<MemoryStore>, GroupId)> = RefCell::new(member());
}

fn member() -> (Groups<MemoryStore>, GroupId) {
    let key = Arc::new(SecretKey::from_seed([7; 32]));
    let mut groups = Groups::open(MemoryStore::new(), key, NOW).expect("opens");
    let group = groups.create(Suite::Hybrid).expect("creates");
    (groups, group)
}

fuzz_target!(|data: &[u8]| {
    assert!(verify_key_package(data, NOW).is_err());
    if let Ok(credential) = LeafCredentialIn::decode(data) {
        assert!(credential.verify(Suite::Hybrid, b"leaf", None).is_err());
    }
    let _ = EntryWire::read(data);
    MEMBER.with_borrow_mut(|(groups, group)| {
        assert!(groups.join(data, None).is_err());
        assert!(groups.join_external(data, None).is_err());
        if let Ok(mut frame) = FrameIn::decode(data) {
            assert_eq!(FrameIn::decode(&frame.encode()).as_ref(), Ok(&frame));
            frame.group = *group;
            let _ = groups.process(&frame.encode());
        }
        assert_eq!(groups.members(*group).expect("a member").1.len(), 1);
    });
});

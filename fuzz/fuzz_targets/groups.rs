//! Operations, statements, invite links, cards, messages, log items and questions: what decodes is not taken unless it
//! was signed, and a group is the same after whatever strangers write.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use x0x_core::WallTime;
use x0x_groups::{
    CardIn, Chain, CourierFrame, GroupPolicy, Handover, InviteLink, Log, LogItem, MemberItem, OperationIn,
    Profile, PublicMessageIn, StatementIn, found, read_stamp,
};
use x0x_identity::SecretKey;

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

thread_local! {
    static GROUP: RefCell<(Chain, Log)> = RefCell::new(group());
}

fn group() -> (Chain, Log) {
    let key = SecretKey::from_seed([7; 32]);
    let profile = Profile { name: "group".into(), ..Profile::default() };
    let policy = GroupPolicy::PRIVATE_SECURE;
    let keys = Some(x0x_mls::GroupId([1; 32]));
    let chain = Chain::new(found(&key, [1; 32], policy, profile, keys, "", NOW)).expect("founds");
    let log = Log::of(chain.view()).expect("founded");
    (chain, log)
}

fuzz_target!(|data: &[u8]| {
    GROUP.with_borrow_mut(|(chain, log)| {
        if let Ok(read) = OperationIn::decode(data)
            && let Ok(operation) = read.verify()
        {
            let _ = chain.offer(operation);
        }
        assert_eq!(chain.len(), 1);
        let _ = log.open(data);
    });
    if let Ok(read) = StatementIn::decode(data) {
        let _ = read.verify();
    }
    if let Ok(read) = CardIn::decode(data) {
        let _ = read.verify(NOW);
    }
    if let Ok(read) = PublicMessageIn::decode(data) {
        let _ = read.verify();
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(link) = InviteLink::parse(text)
    {
        assert_eq!(InviteLink::parse(&link.to_text()), Ok(link));
    }
    if let Ok(item) = LogItem::decode(data) {
        assert_eq!(LogItem::decode(&item.encode()), Ok(item));
    }
    if let Ok(item) = MemberItem::decode(&data.to_vec().into()) {
        assert_eq!(MemberItem::decode(&item.encode().into()), Ok(item));
    }
    if let Ok(frame) = CourierFrame::decode(data.to_vec().into())
        && let Some(again) = frame.encode()
    {
        // A reason is cut to its length when it is written.
        let again = CourierFrame::decode(again).expect("as it was written");
        assert_eq!((again.number, again.from, again.to), (frame.number, frame.from, frame.to));
    }
    let _ = Handover::read(data);
    let _ = read_stamp(data);
});

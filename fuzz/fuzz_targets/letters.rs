//! Frames of letters, and sealed letters: what decodes survives a round trip, and no letter opens that
//! its sender did not sign, whatever is in the box.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::{AgentId, MachineId, WallTime};
use x0x_direct::letters::{
    LETTER_DOMAIN, MAX_SEALED, open,
    wire::{Frame, MAX_FRAME},
};
use x0x_identity::{KemSecret, MailboxSecret};

fuzz_target!(|data: &[u8]| {
    let now = WallTime::from_millis(1_800_000_000_000);
    let (from, to) = (AgentId::new([1; 32]), AgentId::new([2; 32]));
    let (key, secret) = (KemSecret::from_seed([7; 64]), MailboxSecret::new([8; 32]));
    let machine = MachineId::new([3; 32]);
    let opens = |sealed: &[u8]| open(sealed, (&key, &secret), (&from, &machine), &to, now).is_ok();
    assert!(!opens(data));
    // The fuzzer cannot seal: what it writes is sealed for it, as a correspondent could.
    if data.first().is_some_and(|first| first % 2 == 1) {
        let aad = [*from.as_bytes(), *to.as_bytes()].concat();
        let info = secret.seal_info(LETTER_DOMAIN);
        let sealed = key.public_key().seal(&info, &aad, &data[1..]);
        let sealed = sealed.expect("inputs are small");
        assert!(sealed.len() > MAX_SEALED || !opens(&sealed));
    }
    let bytes = Bytes::copy_from_slice(data);
    let Ok(frame) = Frame::decode(&bytes) else { return };
    assert!(data.len() <= MAX_FRAME);
    if frame != Frame::Unknown {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }
});

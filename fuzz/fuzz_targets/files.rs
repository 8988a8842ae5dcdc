//! Control frames of files: whatever decodes is encoded to what decodes to the same, and what an offer
//! is verified to has a name that is safe.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_files::{safe_name, wire::FrameIn};

fuzz_target!(|data: &[u8]| {
    let Ok(frame) = FrameIn::decode(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(FrameIn::decode(frame.clone().encode()).as_ref(), Ok(&frame));
    if let FrameIn::Offer(offer) = frame {
        let (from, to) = (offer.from, offer.to);
        assert!(offer.clone().verify(&[], &[to]).is_err());
        assert!(offer.clone().verify(&[from], &[]).is_err());
        if let Ok(offer) = offer.verify(&[from], &[to]) {
            let name = offer.into_inner().name;
            assert!(!name.is_empty() && !name.contains(['/', '\\', '\0']) && !name.starts_with('.'));
            assert_eq!(safe_name(&name), name);
        }
    }
});

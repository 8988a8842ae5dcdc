//! Groups of files: the first bytes say of what file, the rest is a frame. What verifies is what was
//! asked for, in length at least.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_files::{tree, wire::SliceIn};

fuzz_target!(|data: &[u8]| {
    let Some((size, frame)) = data.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    let Ok(slice) = SliceIn::decode(Bytes::copy_from_slice(frame)) else { return };
    assert_eq!(SliceIn::decode(slice.clone().encode()).as_ref(), Ok(&slice));
    // Small files are within reach of a fuzzer: the root of what it sent.
    let root = tree::small_root(&slice.content);
    let group = slice.group;
    if let Ok(verified) = slice.verify(&root, size) {
        assert_eq!(verified.content().len(), tree::group_len(size, group));
    }
});

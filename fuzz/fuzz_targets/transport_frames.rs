//! The framing of a stream: it yields the same frames whatever chunks the bytes arrive in. The first
//! byte chooses the stream class, the second the size of the chunks.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use x0x_core::StreamClass;
use x0x_transport::frame::{Frame, FrameDecoder, FrameError};

fuzz_target!(|data: &[u8]| {
    let Some(([class, size], stream)) = data.split_first_chunk::<2>() else { return };
    let class = StreamClass::ALL[usize::from(*class) % StreamClass::ALL.len()];
    let stream = Bytes::copy_from_slice(stream);
    let whole = frames(class, &stream, stream.len());
    assert_eq!(whole, frames(class, &stream, usize::from(*size)));
});

fn frames(
    class: StreamClass,
    stream: &Bytes,
    size: usize,
) -> (Vec<Frame>, u64, Option<FrameError>) {
    let mut decoder = FrameDecoder::new(class);
    let mut frames = Vec::new();
    let mut stream = stream.clone();
    while !stream.is_empty() {
        decoder.push(stream.split_to(size.clamp(1, stream.len())));
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    assert!(frame.message.len() <= class.max_message());
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => return (frames, decoder.take_skipped(), Some(error)),
            }
        }
    }
    let skipped = decoder.take_skipped();
    (frames, skipped, None)
}

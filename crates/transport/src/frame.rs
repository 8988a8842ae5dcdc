//! Framing of a class stream: many messages, back to back, on one long-lived byte stream.
//!
//! ```text
//! stream = class (1 byte) frame*
//! frame  = length (LEB128, at most 4 bytes) protocol (1 byte) message (length bytes)
//! ```
//!
//! The length counts the message alone. A protocol number that this build does not know is skipped
//! and counted, so that a newer peer can speak to an older one; a known protocol on another class's
//! stream is a violation.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use x0x_core::{Protocol, StreamClass};

/// 4 × 7 bits reach 256 MiB, above every class's largest message.
const MAX_VARINT: usize = 4;
/// How far memory for a message may run ahead of the bytes that arrived, next to a quarter of these.
const READ_AHEAD: usize = 64 * 1024;
/// The same for bulk messages: a group of a file and its proof, so that it never has to move.
const BULK_READ_AHEAD: usize = 136 * 1024;
/// A message of which this much is missing is read where it belongs, and not copied from elsewhere.
const MIN_FILL: usize = 4 * 1024;
/// Messages up to this size are copied next to their header: one chunk costs the stream below less
/// than two. Larger ones are handed on as they are.
const MAX_COPIED: usize = 1024;

/// Bytes of a message that a stream may hold before all of it arrived, without asking.
pub const FREE_ASSEMBLY: usize = 256 * 1024;

/// Memory for such a part: one more read may come on top, and memory runs ahead of the bytes.
pub const MAX_PARTIAL: usize = (FREE_ASSEMBLY + READ_AHEAD) / 4 * 5 + 2 * READ_AHEAD;

/// A large message that arrived in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assembling {
    /// Its whole length, as the peer announced it.
    pub len: usize,
    /// Bytes that arrived.
    pub arrived: usize,
}

/// One message and the protocol that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// Whose message.
    pub protocol: Protocol,
    /// The message.
    pub message: Bytes,
}

/// The peer broke the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is over the class's limit, or not a number of at most four bytes.
    #[error("frame exceeds the limit of {max} bytes")]
    TooLarge {
        /// Bytes allowed on this stream.
        max: usize,
    },
    /// A protocol of another stream class.
    #[error("protocol {protocol:?} on the {class:?} stream")]
    WrongClass {
        /// The protocol named by the frame.
        protocol: Protocol,
        /// The class of the stream.
        class: StreamClass,
    },
}

/// Takes a stream apart into frames, whatever the chunks it arrives in.
///
/// A message inside one chunk is a slice of it. One that spans chunks is copied once, into memory
/// that grows with the bytes that arrived, never with the length that the peer announced.
#[derive(Debug)]
pub struct FrameDecoder {
    class: StreamClass,
    chunk: Bytes,
    state: State,
    skipped: u64,
}

#[derive(Debug)]
enum State {
    Header(HeaderIn),
    /// `len` is the length that the peer announced.
    Message {
        protocol: Protocol,
        len: usize,
        partial: Vec<u8>,
    },
    Skip {
        remaining: usize,
    },
}

/// The header bytes seen so far.
#[derive(Debug, Clone, Copy, Default)]
struct HeaderIn {
    length: usize,
    /// Bytes of the length so far; complete once `done`.
    bytes: usize,
    done: bool,
}

impl FrameDecoder {
    /// A decoder for the bytes after the class byte.
    #[must_use]
    pub fn new(class: StreamClass) -> Self {
        Self { class, chunk: Bytes::new(), state: State::Header(HeaderIn::default()), skipped: 0 }
    }

    /// Which class of stream it takes apart.
    #[must_use]
    pub const fn class(&self) -> StreamClass {
        self.class
    }

    /// Frames skipped since the last call, because their protocol is unknown to this build.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// Gives the next bytes of the stream. Call [`next_frame`](Self::next_frame) until it is empty
    /// before the next chunk.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "the last chunk is taken apart first");
        self.chunk = chunk;
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`]: the stream is unusable from here on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            match &mut self.state {
                State::Header(header) => {
                    if !self.chunk.has_remaining() {
                        return Ok(None);
                    }
                    let byte = self.chunk.get_u8();
                    let max = self.class.max_message();
                    if !header.done {
                        header.push(byte, max)?;
                        continue;
                    }
                    self.state = Self::body(self.class, header.length, byte)?;
                }
                State::Skip { remaining } => {
                    let step = self.chunk.len().min(*remaining);
                    self.chunk.advance(step);
                    *remaining -= step;
                    if *remaining > 0 {
                        return Ok(None);
                    }
                    self.skipped += 1;
                    self.state = State::Header(HeaderIn::default());
                }
                State::Message { protocol, len, partial } => {
                    let protocol = *protocol;
                    let ahead = read_ahead(self.class);
                    let Some(message) = take_message(&mut self.chunk, *len, partial, ahead) else {
                        return Ok(None);
                    };
                    self.state = State::Header(HeaderIn::default());
                    return Ok(Some(Frame { protocol, message }));
                }
            }
        }
    }

    /// The message that is being put together, once more than [`FREE_ASSEMBLY`] of it is held.
    #[must_use]
    pub fn assembling(&self) -> Option<Assembling> {
        match &self.state {
            State::Message { len, partial, .. } if partial.len() > FREE_ASSEMBLY => {
                Some(Assembling { len: *len, arrived: partial.len() })
            }
            _ => None,
        }
    }

    /// Where the next bytes of a large message belong, and how many there is room for, so that they can be
    /// put there instead of being [pushed](Self::push). [`next_frame`](Self::next_frame) comes after it.
    pub fn fill(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let ahead = read_ahead(self.class);
        match &mut self.state {
            State::Message { len, partial, .. }
                if !self.chunk.has_remaining() && *len - partial.len() >= MIN_FILL =>
            {
                let remaining = *len - partial.len();
                grow(partial, remaining, ahead);
                let room = (partial.capacity() - partial.len()).min(remaining);
                Some((partial, room))
            }
            _ => None,
        }
    }

    fn body(class: StreamClass, length: usize, protocol: u8) -> Result<State, FrameError> {
        let Some(protocol) = Protocol::from_wire(protocol) else {
            return Ok(State::Skip { remaining: length });
        };
        if protocol.class() != class {
            return Err(FrameError::WrongClass { protocol, class });
        }
        Ok(State::Message { protocol, len: length, partial: Vec::new() })
    }
}

impl HeaderIn {
    fn push(&mut self, byte: u8, max: usize) -> Result<(), FrameError> {
        self.length |= usize::from(byte & 0x7f) << (7 * self.bytes);
        self.bytes += 1;
        self.done = byte & 0x80 == 0;
        if self.length > max || (!self.done && self.bytes == MAX_VARINT) {
            return Err(FrameError::TooLarge { max });
        }
        Ok(())
    }
}

const fn read_ahead(class: StreamClass) -> usize {
    match class {
        StreamClass::Bulk => BULK_READ_AHEAD,
        _ => READ_AHEAD,
    }
}

/// Makes room for more of a message of which some is missing, if there is none.
fn grow(partial: &mut Vec<u8>, remaining: usize, ahead: usize) {
    if partial.len() == partial.capacity() {
        partial.reserve_exact((ahead + partial.len() / 4).min(remaining));
    }
}

/// Takes the rest of a message from the chunk: a slice when all of it is there, else its copy in
/// `partial` goes on.
fn take_message(
    chunk: &mut Bytes,
    len: usize,
    partial: &mut Vec<u8>,
    ahead: usize,
) -> Option<Bytes> {
    if partial.is_empty() && chunk.len() >= len {
        return Some(chunk.split_to(len));
    }
    while partial.len() < len && chunk.has_remaining() {
        let remaining = len - partial.len();
        grow(partial, remaining, ahead);
        let room = partial.capacity() - partial.len();
        let step = chunk.len().min(remaining).min(room);
        partial.extend_from_slice(&chunk[..step]);
        chunk.advance(step);
    }
    (partial.len() == len).then(|| std::mem::take(partial).into())
}

/// Puts frames together for one write: small messages are gathered with their headers, large ones
/// stay where they are.
#[derive(Debug, Default)]
pub struct FrameEncoder {
    gathered: BytesMut,
    chunks: Vec<Bytes>,
}

impl FrameEncoder {
    /// Begins a stream.
    pub fn class(&mut self, class: StreamClass) {
        self.gathered.put_u8(class as u8);
    }

    /// Appends a frame. The caller checked the message against the class's limit.
    pub fn frame(&mut self, protocol: Protocol, message: Bytes) {
        debug_assert!(message.len() <= protocol.class().max_message(), "checked when queued");
        let mut length = message.len();
        while length >= 0x80 {
            self.gathered.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        self.gathered.put_u8(length as u8);
        self.gathered.put_u8(protocol as u8);
        if message.len() <= MAX_COPIED {
            self.gathered.extend_from_slice(&message);
        } else {
            self.flush();
            self.chunks.push(message);
        }
    }

    /// The bytes to write, in order. Cleared by the next [`clear`](Self::clear).
    pub fn chunks(&mut self) -> &mut [Bytes] {
        self.flush();
        &mut self.chunks
    }

    /// Forgets what was written.
    pub fn clear(&mut self) {
        self.chunks.clear();
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            self.chunks.push(self.gathered.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(frames: &[Frame]) -> Bytes {
        let mut encoder = FrameEncoder::default();
        for frame in frames {
            encoder.frame(frame.protocol, frame.message.clone());
        }
        encoder.chunks().iter().flatten().copied().collect()
    }

    fn decode(
        class: StreamClass,
        stream: &Bytes,
        mut cut: impl FnMut() -> usize,
    ) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = FrameDecoder::new(class);
        let (mut rest, mut frames) = (stream.clone(), Vec::new());
        while !rest.is_empty() {
            let step = cut().clamp(1, rest.len());
            decoder.push(rest.split_to(step));
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    fn control_frame() -> impl Strategy<Value = Frame> {
        let protocol = prop_oneof![Just(Protocol::Control), Just(Protocol::Membership)];
        let sizes = prop_oneof![0_usize..200, 1000_usize..1100, 16_000_usize..17_000];
        (protocol, sizes, any::<u8>())
            .prop_map(|(protocol, len, byte)| Frame { protocol, message: vec![byte; len].into() })
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_frames(
            frames in prop::collection::vec(control_frame(), 0..20),
            cuts in prop::collection::vec(1_usize..5000, 1..40),
        ) {
            let mut cuts = cuts.into_iter().cycle();
            let stream = encode(&frames);
            let decoded = decode(StreamClass::Control, &stream, || cuts.next().unwrap_or(1));
            prop_assert_eq!(decoded, Ok(frames));
        }

        #[test]
        fn hostile_bytes_never_panic_nor_reserve_much(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
            cut in 1_usize..100,
        ) {
            let mut decoder = FrameDecoder::new(StreamClass::Direct);
            let mut arrived = 0;
            for chunk in bytes.chunks(cut) {
                arrived += chunk.len();
                decoder.push(Bytes::copy_from_slice(chunk));
                loop {
                    match decoder.next_frame() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                if let State::Message { partial, .. } = &decoder.state {
                    prop_assert!(partial.capacity() <= arrived + arrived / 4 + READ_AHEAD);
                }
            }
        }
    }

    #[test]
    fn lengths_over_the_class_limit_are_refused_at_the_header() {
        let max = StreamClass::Control.max_message();
        let refused = Err(FrameError::TooLarge { max });
        // 64 KiB + 1, then a length that never ends.
        for header in [&[0x81, 0x80, 0x04][..], &[0x80; 5], &[0xff; 4]] {
            let stream = Bytes::copy_from_slice(header);
            assert_eq!(decode(StreamClass::Control, &stream, || 1), refused);
        }
        let largest = Frame { protocol: Protocol::Control, message: vec![7; max].into() };
        let stream = encode(std::slice::from_ref(&largest));
        assert_eq!(decode(StreamClass::Control, &stream, || 999), Ok(vec![largest]));
    }

    #[test]
    fn unknown_protocols_are_skipped_and_misplaced_ones_refused() {
        let known = Frame { protocol: Protocol::Direct, message: Bytes::from_static(b"known") };
        let mut stream = vec![3, 200, 1, 2, 3];
        stream.extend_from_slice(&encode(std::slice::from_ref(&known)));
        for cut in 1..8 {
            let mut decoder = FrameDecoder::new(StreamClass::Direct);
            let mut frames = Vec::new();
            for chunk in stream.chunks(cut) {
                decoder.push(Bytes::copy_from_slice(chunk));
                while let Ok(Some(frame)) = decoder.next_frame() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, std::slice::from_ref(&known));
            assert_eq!((decoder.take_skipped(), decoder.take_skipped()), (1, 0));
        }
        let misplaced =
            FrameError::WrongClass { protocol: Protocol::Direct, class: StreamClass::Gossip };
        assert_eq!(decode(StreamClass::Gossip, &encode(&[known]), || 64), Err(misplaced));
    }

    #[test]
    fn large_messages_are_read_where_they_belong() {
        for class in [StreamClass::Direct, StreamClass::Bulk] {
            let protocol = Protocol::ALL.into_iter().find(|p| p.class() == class);
            let protocol = protocol.expect("each class has one");
            let message: Bytes = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
            let frame = Frame { protocol, message };
            let mut stream = encode(&[frame.clone(), frame.clone()]);
            let mut decoder = FrameDecoder::new(class);
            let mut found = Vec::new();
            while !stream.is_empty() {
                if let Some((partial, room)) = decoder.fill() {
                    assert!(room > 0 && partial.capacity() <= MAX_PARTIAL);
                    let step = room.min(stream.len()).min(45_000);
                    partial.extend_from_slice(&stream.split_to(step));
                } else {
                    decoder.push(stream.split_to(stream.len().min(3000)));
                }
                while let Some(frame) = decoder.next_frame().expect("valid") {
                    found.push(frame);
                }
            }
            assert_eq!(found, [frame.clone(), frame]);
        }
    }

    #[test]
    fn a_message_inside_a_chunk_is_not_copied() {
        let chunk = encode(&[Frame { protocol: Protocol::Direct, message: vec![1; 600].into() }]);
        let within = chunk.as_ptr_range();
        let mut decoder = FrameDecoder::new(StreamClass::Direct);
        decoder.push(chunk);
        let frame = decoder.next_frame().expect("valid").expect("whole");
        assert!(within.contains(&frame.message.as_ptr()));
    }
}

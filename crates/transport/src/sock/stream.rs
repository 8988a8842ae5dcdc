//! Packets in a stream of bytes: each after its length in two bytes.
//!
//! A stream stands in for a path of UDP packets where these do not pass. What is in the packets is what would
//! have gone over UDP: QUIC, which is authenticated and encrypted between its ends, and probes.

use bytes::{Buf, Bytes, BytesMut};

/// Largest packet that a stream carries: what an Ethernet frame does.
pub const MAX_PACKET: usize = 1500;
/// Bytes before each packet.
pub const HEADER: usize = 2;
/// Most bytes that are taken from a stream at once.
pub const MAX_READ: usize = 16 << 10;

/// The other end sent a length that no packet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {0} bytes in a stream")]
pub struct BadLength(pub usize);

/// Appends a packet to what is to be written. False for one that is empty or too large, which is left out.
pub fn append(stream: &mut Vec<u8>, packet: &[u8]) -> bool {
    let length = u16::try_from(packet.len()).ok();
    let length = length.filter(|length| (1..=MAX_PACKET).contains(&usize::from(*length)));
    let Some(length) = length else { return false };
    stream.extend_from_slice(&length.to_be_bytes());
    stream.extend_from_slice(packet);
    true
}

/// Takes packets out of what was read. It keeps less than one packet beyond what is pushed into it.
#[derive(Debug, Default)]
pub struct Packets(BytesMut);

impl Packets {
    /// Takes the next bytes of the stream; take all packets out before the next call.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole packet, if there is one.
    ///
    /// # Errors
    /// [`BadLength`]: the stream is of no use any more.
    pub fn next_packet(&mut self) -> Result<Option<Bytes>, BadLength> {
        let Some((header, rest)) = self.0.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*header));
        if !(1..=MAX_PACKET).contains(&length) {
            return Err(BadLength(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.0.advance(HEADER);
        // A copy: a packet that waits does not keep the whole buffer.
        Ok(Some(Bytes::copy_from_slice(&self.0.split_to(length))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_packet_is_neither_written_nor_read() {
        let mut stream = Vec::new();
        assert!(!append(&mut stream, &[]) && !append(&mut stream, &[0; MAX_PACKET + 1]));
        assert!(stream.is_empty() && append(&mut stream, &[7; MAX_PACKET]));
        for (bytes, length) in [([0, 0, 1], 0), ([0xff, 0xff, 1], 0xffff), ([5, 0xdd, 1], 1501)] {
            let mut packets = Packets::default();
            packets.push(&bytes);
            assert_eq!(packets.next_packet(), Err(BadLength(length)));
        }
    }

    proptest! {
        #[test]
        fn packets_come_whole_however_the_stream_is_cut(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..20),
            cuts in prop::collection::vec(1..30_usize, 1..60),
        ) {
            let mut stream = Vec::new();
            prop_assert!(sent.iter().all(|packet| append(&mut stream, packet)));
            let (mut packets, mut got, mut rest) = (Packets::default(), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                packets.push(now);
                while let Some(packet) = packets.next_packet()? {
                    got.push(packet.to_vec());
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, sent);
            prop_assert!(packets.0.is_empty());
        }
    }
}

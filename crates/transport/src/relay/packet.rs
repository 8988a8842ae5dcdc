//! Datagrams between a machine and its relay: a packet of an inner connection, whole or one of two parts.
//!
//! ```text
//! kind (1) context (4) [number (2)] payload
//! ```
//!
//! The kind says who sends, the relay or an end: each end of a session may be the other's relay, so that the
//! names of contexts alone do not tell. A packet is parted when the carrier does not take it whole and every QUIC
//! path has to (RFC 9000 §14); of a larger one the loss tells its sender the size of the path. A sender that came
//! from another path still makes packets of that path's size, of which a loss would cost it a second: these are
//! all parted.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::ContextId;

/// Bytes before a whole packet.
pub const HEADER: usize = 5;
/// Bytes before a part.
pub const PART_HEADER: usize = HEADER + 2;
/// What every QUIC path carries; and so the largest packet that a relay parts, and the smallest that a sender from
/// another path does.
pub const MAX_PARTED: usize = 1200;
/// Largest packet that is carried.
pub const MAX_PACKET: usize = 1500;
/// Most packets of one context of which one part has come; the oldest gives way.
pub const MAX_INCOMPLETE: usize = 4;

const FROM_RELAY: u8 = 0x01;
const WHOLE: u8 = 0x10;
const FIRST: u8 = 0x12;
const SECOND: u8 = 0x14;

/// Which piece of a packet a datagram carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Piece {
    /// All of it.
    Whole,
    /// The first part of the packet of this number.
    First(u16),
    /// Its second part.
    Second(u16),
}

/// A datagram of a session: well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayedIn {
    /// Whether the sender is the relay of the context.
    pub from_relay: bool,
    /// The context.
    pub context: ContextId,
    /// What is in it.
    pub piece: Piece,
    /// The bytes.
    pub payload: Bytes,
}

impl RelayedIn {
    /// Reads a datagram; `None` for any that is not of this form.
    #[must_use]
    pub fn decode(datagram: &Bytes) -> Option<Self> {
        let (head, _) = datagram.split_first_chunk::<HEADER>()?;
        let [kind, context @ ..] = *head;
        let (piece, header) = match kind & !FROM_RELAY {
            WHOLE => (Piece::Whole, HEADER),
            part @ (FIRST | SECOND) => {
                let number = datagram.get(HEADER..PART_HEADER)?.try_into().ok()?;
                let number = u16::from_be_bytes(number);
                let piece = if part == FIRST { Piece::First } else { Piece::Second };
                (piece(number), PART_HEADER)
            }
            _ => return None,
        };
        let len = datagram.len() - header;
        let most = if piece == Piece::Whole { MAX_PACKET } else { MAX_PARTED };
        (1..=most).contains(&len).then(|| Self {
            from_relay: kind & FROM_RELAY != 0,
            context: ContextId::from_be_bytes(context),
            piece,
            payload: datagram.slice(header..),
        })
    }
}

/// A datagram with a piece of a packet.
#[must_use]
pub fn encode(from_relay: bool, context: ContextId, piece: Piece, payload: &[u8]) -> Bytes {
    let (kind, number) = match piece {
        Piece::Whole => (WHOLE, None),
        Piece::First(number) => (FIRST, Some(number)),
        Piece::Second(number) => (SECOND, Some(number)),
    };
    let mut datagram = BytesMut::with_capacity(PART_HEADER + payload.len());
    datagram.put_u8(kind | if from_relay { FROM_RELAY } else { 0 });
    datagram.put_u32(context);
    number.into_iter().for_each(|number| datagram.put_u16(number));
    datagram.put_slice(payload);
    datagram.freeze()
}

/// The two parts of a packet; `None` of one that has no two bytes.
#[must_use]
pub fn halves(packet: &[u8], number: u16) -> Option<[(Piece, &[u8]); 2]> {
    let (first, second) = packet.split_at(packet.len().div_ceil(2));
    let parts = [(Piece::First(number), first), (Piece::Second(number), second)];
    (!second.is_empty()).then_some(parts)
}

/// Packets of one context of which one part has come.
#[derive(Debug, Default)]
pub struct Assembly(VecDeque<(u16, Piece, Bytes)>);

impl Assembly {
    /// Takes a piece, and gives the packet that it completes. The parts may come in either order.
    pub fn take(&mut self, piece: Piece, payload: Bytes) -> Option<Bytes> {
        let (number, other) = match piece {
            Piece::Whole => return Some(payload),
            Piece::First(number) => (number, Piece::Second(number)),
            Piece::Second(number) => (number, Piece::First(number)),
        };
        let matching = self.0.iter().position(|(n, kept, _)| *n == number && *kept == other);
        let Some((_, _, kept)) = matching.and_then(|at| self.0.remove(at)) else {
            self.0.retain(|(n, ..)| *n != number);
            if self.0.len() >= MAX_INCOMPLETE {
                self.0.pop_front();
            }
            self.0.push_back((number, piece, payload));
            return None;
        };
        let [first, second] =
            if matches!(piece, Piece::First(_)) { [payload, kept] } else { [kept, payload] };
        (first.len() + second.len() <= MAX_PACKET).then(|| [first, second].concat().into())
    }

    /// How many packets wait for their other part.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            from_relay: bool,
            context: u32,
            number: u16,
            payload in prop::collection::vec(any::<u8>(), 1..MAX_PARTED),
        ) {
            for piece in [Piece::Whole, Piece::First(number), Piece::Second(number)] {
                let payload = Bytes::from(payload.clone());
                let datagram = encode(from_relay, context, piece, &payload);
                let expected = RelayedIn { from_relay, context, piece, payload };
                prop_assert_eq!(RelayedIn::decode(&datagram), Some(expected));
            }
        }

        #[test]
        fn nothing_else_panics(datagram in prop::collection::vec(any::<u8>(), 0..64)) {
            let datagram = Bytes::from(datagram);
            if let Some(read) = RelayedIn::decode(&datagram) {
                let again = encode(read.from_relay, read.context, read.piece, &read.payload);
                prop_assert_eq!(again, datagram);
            }
        }

        #[test]
        fn two_parts_make_a_packet_in_either_order(
            packet in prop::collection::vec(any::<u8>(), 2..=MAX_PACKET),
            number: u16,
            turned: bool,
        ) {
            let mut parts = halves(&packet, number).expect("two bytes");
            if turned {
                parts.reverse();
            }
            let mut assembly = Assembly::default();
            let [one, two] = parts.map(|(piece, bytes)| (piece, Bytes::copy_from_slice(bytes)));
            prop_assert_eq!(assembly.take(one.0, one.1), None);
            prop_assert_eq!(assembly.take(two.0, two.1), Some(Bytes::from(packet)));
            prop_assert!(assembly.is_empty());
        }
    }

    /// By hand, from docs/protocol/relay.md.
    #[test]
    fn the_layout_is_as_documented() {
        assert_eq!(encode(false, 0x0102_0304, Piece::Whole, b"x")[..], [0x10, 1, 2, 3, 4, b'x']);
        let part = encode(true, 6, Piece::Second(0x0708), b"yz");
        assert_eq!(part[..], [0x15, 0, 0, 0, 6, 7, 8, b'y', b'z']);
        assert_eq!(encode(true, 6, Piece::First(1), b"y")[0], 0x13);
    }

    #[test]
    fn parts_without_their_other_are_bounded() {
        let mut assembly = Assembly::default();
        for number in 0..100 {
            assert_eq!(assembly.take(Piece::First(number), Bytes::from_static(b"a")), None);
            assert!(assembly.len() <= MAX_INCOMPLETE);
        }
        assert_eq!(assembly.take(Piece::Second(95), Bytes::from_static(b"b")), None, "evicted");
        let whole = assembly.take(Piece::Second(98), Bytes::from_static(b"b"));
        assert_eq!(whole, Some(Bytes::from_static(b"ab")));
        assert_eq!(halves(&[7], 1), None);
    }
}

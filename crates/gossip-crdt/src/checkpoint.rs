//! Checkpoints as they travel: an operation of the owner says what is covered, and the entries just
//! before it in its chain carry the replica there, in pieces.

use bytes::{Bytes, BytesMut};
use x0x_core::DecodeError;

use crate::{
    codec::{Decoder, Encoder},
    config::{MAX_ACTORS, MAX_CHAIN_OPS, MAX_CHECKPOINT, MAX_PIECE, MAX_PIECES},
    dot::{ActorTag, Dot},
};

/// What the owner says of a replica, for those who do not hold what made it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Its place among the checkpoints that it stands on, from 1.
    pub number: u64,
    /// The one before it; none of the first.
    pub before: Option<Dot>,
    /// The hash of the replica.
    pub hash: [u8; 32],
    /// How many of the entries just before carry it.
    pub pieces: u32,
    /// The operations that it covers, by the last of each actor, in the order of their tags.
    pub cover: Vec<Dot>,
}

impl Checkpoint {
    /// The last operation of an actor that it covers; 0 when none is.
    #[must_use]
    pub fn covers(&self, actor: &ActorTag) -> u64 {
        covered(&self.cover, actor)
    }

    /// Whether all that another one covers is covered.
    pub(crate) fn contains(&self, other: &[Dot]) -> bool {
        other.iter().all(|dot| self.covers(&dot.actor) >= dot.seq)
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.number(self.number);
        if let Some(before) = self.before {
            encoder.dot(before);
        }
        encoder.raw(&self.hash);
        encoder.number(self.pieces.into());
        encoder.count(self.cover.len());
        self.cover.iter().for_each(|dot| encoder.dot(*dot));
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let number = decoder.number()?;
        let before = match number {
            0 => return Err(DecodeError::Field("checkpoint")),
            1 => None,
            _ => Some(decoder.dot()?),
        };
        let hash = decoder.raw(32)?.try_into().map_err(|_| DecodeError::Malformed)?;
        let pieces = decoder.number32()?;
        let count = decoder.count(ActorTag::LEN + 1)?;
        if pieces == 0 || pieces > MAX_PIECES || count > MAX_ACTORS {
            return Err(DecodeError::Field("checkpoint"));
        }
        let mut cover: Vec<Dot> = Vec::new();
        for _ in 0..count {
            let dot = decoder.dot()?;
            let sorted = cover.last().is_none_or(|last| last.actor < dot.actor);
            if !sorted || dot.seq == 0 || dot.seq > MAX_CHAIN_OPS {
                return Err(DecodeError::Field("cover"));
            }
            cover.push(dot);
        }
        Ok(Self { number, before, hash, pieces, cover })
    }
}

/// The last operation of an actor in a list of dots that is sorted by actor; 0 when there is none.
pub(crate) fn covered(cover: &[Dot], actor: &ActorTag) -> u64 {
    let place = cover.binary_search_by(|dot| dot.actor.cmp(actor)).ok();
    place.and_then(|place| cover.get(place)).map_or(0, |dot| dot.seq)
}

/// Cuts a replica into what single entries carry; none when it is too large.
pub(crate) fn cut(replica: &Bytes) -> Option<Vec<Bytes>> {
    if replica.is_empty() || replica.len() > MAX_CHECKPOINT {
        return None;
    }
    let ends = (0..replica.len()).step_by(MAX_PIECE);
    Some(ends.map(|at| replica.slice(at..replica.len().min(at + MAX_PIECE))).collect())
}

/// The pieces of one checkpoint as they come, in any order: at most [`MAX_CHECKPOINT`] bytes.
#[derive(Debug, Clone)]
pub(crate) struct Pieces {
    actor: ActorTag,
    first: u64,
    held: Vec<Option<Bytes>>,
    missing: usize,
    broken: bool,
}

impl Pieces {
    /// Of the checkpoint with this name.
    pub(crate) fn of(at: Dot, checkpoint: &Checkpoint) -> Self {
        let count = checkpoint.pieces.min(MAX_PIECES) as usize;
        let first = at.seq.saturating_sub(count as u64);
        Self { actor: at.actor, first, held: vec![None; count], missing: count, broken: first == 0 }
    }

    /// Looks at an entry; what is in a piece's place and is none breaks them all.
    pub(crate) fn offer(&mut self, dot: Dot, piece: Option<&Bytes>) {
        if dot.actor != self.actor || dot.seq < self.first {
            return;
        }
        let place = usize::try_from(dot.seq - self.first).unwrap_or(usize::MAX);
        let Some(slot) = self.held.get_mut(place) else { return };
        match piece {
            None => self.broken = true,
            Some(piece) if slot.is_none() => {
                *slot = Some(piece.clone());
                self.missing -= 1;
            }
            Some(_) => {}
        }
    }

    /// What they make: none while some are missing, and an error when they never make anything.
    pub(crate) fn joined(&self) -> Option<Result<Bytes, DecodeError>> {
        if self.broken {
            return Some(Err(DecodeError::Malformed));
        }
        if self.missing > 0 {
            return None;
        }
        let mut joined = BytesMut::new();
        self.held.iter().flatten().for_each(|piece| joined.extend_from_slice(piece));
        Some(Ok(joined.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(n: u8, seq: u64) -> Dot {
        Dot { actor: ActorTag::new([n; 16]), seq }
    }

    fn some(pieces: u32) -> Checkpoint {
        let cover = vec![dot(1, 9), dot(2, 5)];
        Checkpoint { number: 2, before: Some(dot(1, 3)), hash: [7; 32], pieces, cover }
    }

    fn decode(checkpoint: &Checkpoint) -> Result<Checkpoint, DecodeError> {
        let mut encoder = Encoder::new();
        checkpoint.encode(&mut encoder);
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(&bytes);
        let decoded = Checkpoint::decode(&mut decoder)?;
        decoder.finish()?;
        Ok(decoded)
    }

    #[test]
    fn checkpoints_come_back_and_are_checked() {
        let first = Checkpoint { number: 1, before: None, ..some(1) };
        for checkpoint in [some(1), some(MAX_PIECES), first] {
            assert_eq!(decode(&checkpoint), Ok(checkpoint));
        }
        let bad = [
            some(0),
            some(MAX_PIECES + 1),
            Checkpoint { number: 0, before: None, ..some(1) },
            Checkpoint { cover: vec![dot(2, 1), dot(1, 1)], ..some(1) },
            Checkpoint { cover: vec![dot(1, 1), dot(1, 2)], ..some(1) },
            Checkpoint { cover: vec![dot(1, 0)], ..some(1) },
        ];
        bad.iter().for_each(|bad| assert!(decode(bad).is_err(), "{bad:?}"));
        assert_eq!([1, 2, 3].map(|n| some(1).covers(&dot(n, 0).actor)), [9, 5, 0]);
        assert!(some(1).contains(&[dot(1, 9)]) && !some(1).contains(&[dot(2, 6)]));
    }

    #[test]
    fn pieces_make_what_was_cut_in_any_order() {
        let replica = Bytes::from(vec![3; 2 * MAX_PIECE + 10]);
        let cut = cut(&replica).expect("it is small enough");
        assert_eq!(cut.iter().map(Bytes::len).collect::<Vec<_>>(), [MAX_PIECE, MAX_PIECE, 10]);
        assert!(super::cut(&Bytes::from(vec![0; MAX_CHECKPOINT + 1])).is_none());
        let at = dot(1, 20);
        let mut pieces = Pieces::of(at, &some(3));
        for place in [2, 0, 0, 1] {
            assert!(pieces.joined().is_none());
            let seq = 17 + place as u64;
            pieces.offer(Dot { seq, ..at }, cut.get(place));
            pieces.offer(dot(2, seq), None);
            pieces.offer(Dot { seq: 16, ..at }, None);
            pieces.offer(at, None);
        }
        assert_eq!(pieces.joined(), Some(Ok(replica)));
        pieces.offer(Dot { seq: 18, ..at }, None);
        assert!(matches!(pieces.joined(), Some(Err(_))), "it was none");
        assert!(
            matches!(Pieces::of(dot(1, 3), &some(3)).joined(), Some(Err(_))),
            "before the first"
        );
    }
}

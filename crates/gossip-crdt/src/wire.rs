//! Operations as they travel: the payload of a topic's entry. The entry itself says who wrote it, when,
//! and its place in the author's chain, so that the payload does not.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use x0x_core::{DecodeError, decode_bounded};
use x0x_gossip_pubsub::MAX_PAYLOAD;

use crate::{
    checkpoint::Checkpoint,
    codec::{Decoder, Encoder},
    config::{MAX_DEPS, MAX_OP, MAX_PIECE},
    dot::{ActorTag, Dot},
    policy::{PolicyChange, decode_change, encode_change},
};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperationWire {
    /// Milliseconds that it is later than its entry.
    #[prost(uint64, tag = "1")]
    pub(crate) ahead: u64,
    /// Pairs: which of the actors that the chain named before, and how far.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) known: Vec<u64>,
    /// Tags of actors, one after the other.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) named: Bytes,
    /// How far, for each of them.
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) named_seqs: Vec<u64>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub(crate) operation: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub(crate) change: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub(crate) checkpoint: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    pub(crate) piece: Option<Bytes>,
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// It says only what its author had seen.
    Context,
    /// An operation of the object's type.
    Operation(Bytes),
    /// A change of the policy.
    Change(PolicyChange),
    /// A checkpoint; the entries just before carry it.
    Checkpoint(Arc<Checkpoint>),
    /// A part of the next checkpoint.
    Piece(Bytes),
}

/// An actor that an operation depends on, as it is named there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Named {
    /// By its place among those that the chain named before, from 0.
    Before(u64),
    /// By its tag.
    Tag(ActorTag),
}

/// An operation as somebody sent it: within its bounds, nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationIn {
    pub(crate) ahead: u64,
    pub(crate) deps: Vec<(Named, u64)>,
    pub(crate) body: Body,
}

impl OperationIn {
    /// Decodes the payload of an entry.
    ///
    /// # Errors
    /// [`DecodeError`]: its author sent something that no honest author sends.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let wire: OperationWire = decode_bounded(payload.clone(), MAX_PAYLOAD)?;
        let (pairs, odd) = wire.known.as_chunks::<2>();
        let (tags, cut) = wire.named.as_chunks::<{ ActorTag::LEN }>();
        if !odd.is_empty() || !cut.is_empty() || tags.len() != wire.named_seqs.len() {
            return Err(DecodeError::Field("dependencies"));
        }
        if pairs.len() + tags.len() > MAX_DEPS {
            return Err(DecodeError::Field("dependencies"));
        }
        let known = pairs.iter().map(|[place, seq]| (Named::Before(*place), *seq));
        let named = tags.iter().map(|tag| Named::Tag(ActorTag::new(*tag))).zip(wire.named_seqs);
        let body = match (wire.operation, wire.change, wire.checkpoint, wire.piece) {
            (None, None, None, None) => Body::Context,
            (Some(operation), None, None, None) if operation.len() <= MAX_OP => {
                Body::Operation(operation)
            }
            (None, Some(change), None, None) => Body::Change(whole(&change, decode_change)?),
            (None, None, Some(checkpoint), None) => {
                Body::Checkpoint(Arc::new(whole(&checkpoint, Checkpoint::decode)?))
            }
            (None, None, None, Some(piece)) if piece.len() <= MAX_PIECE => Body::Piece(piece),
            _ => return Err(DecodeError::Field("operation")),
        };
        Ok(Self { ahead: wire.ahead, deps: known.chain(named).collect(), body })
    }

    /// What it does.
    #[must_use]
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// The operations that it depends on, as they are named, with their places in their chains.
    #[must_use]
    pub fn deps(&self) -> &[(Named, u64)] {
        &self.deps
    }

    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut wire = OperationWire { ahead: self.ahead, ..OperationWire::default() };
        let mut named = Vec::new();
        for (name, seq) in &self.deps {
            match name {
                Named::Before(place) => wire.known.extend([*place, *seq]),
                Named::Tag(tag) => {
                    named.extend_from_slice(tag.as_bytes());
                    wire.named_seqs.push(*seq);
                }
            }
        }
        wire.named = named.into();
        match &self.body {
            Body::Context => {}
            Body::Operation(operation) => wire.operation = Some(operation.clone()),
            Body::Change(change) => {
                let mut encoder = Encoder::new();
                encode_change(&mut encoder, change);
                wire.change = Some(encoder.finish().into());
            }
            Body::Checkpoint(checkpoint) => {
                let mut encoder = Encoder::new();
                checkpoint.encode(&mut encoder);
                wire.checkpoint = Some(encoder.finish().into());
            }
            Body::Piece(piece) => wire.piece = Some(piece.clone()),
        }
        wire.encode_to_vec().into()
    }
}

/// Decodes bytes that hold nothing else.
fn whole<T>(
    bytes: &[u8],
    decode: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let decoded = decode(&mut decoder)?;
    decoder.finish()?;
    Ok(decoded)
}

/// An operation whose references are resolved: all that its chain says of it.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) ahead: u64,
    pub(crate) deps: Vec<Dot>,
    pub(crate) body: Body,
}

#[cfg(test)]
mod tests {
    use super::*;
    use x0x_core::AgentId;

    #[test]
    fn operations_come_back_and_are_small() {
        let tag = ActorTag::of(&AgentId::new([7; 32]), 3);
        let deps = vec![(Named::Before(0), 9), (Named::Tag(tag), 300)];
        let change = PolicyChange::Remove {
            agent: AgentId::new([1; 32]),
            cut: vec![Dot { actor: tag, seq: 5 }],
        };
        let cover = vec![Dot { actor: tag, seq: 5 }];
        let checkpoint = Checkpoint { number: 1, before: None, hash: [1; 32], pieces: 1, cover };
        let bodies = [
            Body::Context,
            Body::Operation("x".into()),
            Body::Change(change),
            Body::Checkpoint(Arc::new(checkpoint)),
            Body::Piece("x".into()),
        ];
        for body in bodies {
            let operation = OperationIn { ahead: 5, deps: deps.clone(), body };
            assert_eq!(OperationIn::decode(&operation.encode()), Ok(operation));
        }
        let plain = OperationIn { ahead: 0, deps: Vec::new(), body: Body::Operation("x".into()) };
        assert_eq!(plain.encode().len(), 3);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let odd = OperationWire { known: vec![1], ..OperationWire::default() };
        let cut = OperationWire { named: vec![0; 15].into(), ..OperationWire::default() };
        let both = OperationWire {
            operation: Some(Bytes::new()),
            change: Some(Bytes::new()),
            ..OperationWire::default()
        };
        let many = OperationWire { known: vec![0; 2 * MAX_DEPS + 2], ..OperationWire::default() };
        let piece = OperationWire {
            piece: Some(vec![0; MAX_PIECE + 1].into()),
            ..OperationWire::default()
        };
        for wire in [odd, cut, both, many, piece] {
            assert!(OperationIn::decode(&wire.encode_to_vec().into()).is_err(), "{wire:?}");
        }
        assert!(OperationIn::decode(&vec![0; MAX_PAYLOAD + 1].into()).is_err());
    }
}

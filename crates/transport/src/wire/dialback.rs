//! Messages with which a machine asks, by way of a peer, to be probed by a third one.

use std::net::SocketAddr;

use bytes::Bytes;
use x0x_core::{DecodeError, fixed_bytes};

use super::{RoundId, pack, proto, unpack};

/// A question whether an address of the asker's is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialBack {
    /// Random number of the question.
    pub round: RoundId,
    /// What the key of the probe is made from.
    pub seed: [u8; 32],
    /// Which address.
    pub address: SocketAddr,
}

/// A step of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialBackStep {
    /// To a peer: have somebody else probe this address of the sender's.
    Ask(DialBack),
    /// To that somebody: probe this address.
    Forward(DialBack),
}

impl DialBackStep {
    pub(super) fn to_proto(self) -> proto::Kind {
        let ask = |ask: DialBack| proto::DialBack {
            round: Bytes::copy_from_slice(&ask.round),
            seed: Bytes::copy_from_slice(&ask.seed),
            address: pack(ask.address),
        };
        match self {
            Self::Ask(step) => proto::Kind::DialBackAsk(ask(step)),
            Self::Forward(step) => proto::Kind::DialBackForward(ask(step)),
        }
    }
}

impl DialBack {
    pub(super) fn from_proto(ask: &proto::DialBack) -> Result<Self, DecodeError> {
        Ok(Self {
            round: fixed_bytes(&ask.round, "round")?,
            seed: fixed_bytes(&ask.seed, "seed")?,
            address: unpack(&ask.address)?,
        })
    }
}

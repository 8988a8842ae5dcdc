//! Messages with which two machines agree, by way of a third one, to send to each other at once.

use std::net::SocketAddr;

use bytes::Bytes;
use x0x_core::{DecodeError, MAX_ADDRESSES, MachineId, fixed_bytes};

use super::{pack, proto, unpack};

/// Longest wait that is asked of a machine before its first packet, in milliseconds.
pub const MAX_WAIT_MS: u32 = 2000;

/// Random number of one agreement.
pub type RoundId = [u8; 16];

/// What one end of an agreement tells the other. The machine between them fills in what it knows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// Which agreement.
    pub round: RoundId,
    /// The other end, seen from whom this is sent to or comes from.
    pub peer: MachineId,
    /// Half of what the key of the probes is made from.
    pub seed: [u8; 32],
    /// Where the sending end may be; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
    /// How long the receiver waits before its first packet, in milliseconds: until the answer has
    /// arrived at the other end.
    pub wait_ms: u32,
}

impl Offer {
    /// An offer without a wait.
    #[must_use]
    pub fn new(
        round: RoundId,
        peer: MachineId,
        seed: [u8; 32],
        addresses: Vec<SocketAddr>,
    ) -> Self {
        Self { round, peer, seed, addresses, wait_ms: 0 }
    }
}

/// Why there is no agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not say, or in a word of a later version.
    Unknown,
    /// The machine that was asked has no session with the other end.
    NotConnected,
    /// Too many were asked for.
    Rate,
    /// The other end does not want to.
    Unwilling,
}

impl Refusal {
    const fn number(self) -> u32 {
        self as u32
    }

    const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::NotConnected,
            2 => Self::Rate,
            3 => Self::Unwilling,
            _ => Self::Unknown,
        }
    }
}

/// A step of an agreement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Punch {
    /// To the machine between: bring this before the peer.
    Ask(Offer),
    /// From it, to the peer.
    Forward(Offer),
    /// The peer's answer, to the machine between and on to whoever asked.
    Accept(Offer),
    /// There is none, the same way.
    Refuse {
        /// Which agreement.
        round: RoundId,
        /// The other end, as in an [`Offer`].
        peer: MachineId,
        /// Why.
        why: Refusal,
    },
}

impl Punch {
    pub(super) fn to_proto(&self) -> proto::Kind {
        let offer = |offer: &Offer| proto::Offer {
            round: Bytes::copy_from_slice(&offer.round),
            peer: Bytes::copy_from_slice(offer.peer.as_bytes()),
            seed: Bytes::copy_from_slice(&offer.seed),
            addresses: offer.addresses.iter().take(MAX_ADDRESSES).map(|a| pack(*a)).collect(),
            wait_ms: offer.wait_ms,
        };
        match self {
            Self::Ask(ask) => proto::Kind::PunchAsk(offer(ask)),
            Self::Forward(forward) => proto::Kind::PunchForward(offer(forward)),
            Self::Accept(accept) => proto::Kind::PunchAccept(offer(accept)),
            Self::Refuse { round, peer, why } => proto::Kind::PunchRefuse(proto::Refuse {
                round: Bytes::copy_from_slice(round),
                peer: Bytes::copy_from_slice(peer.as_bytes()),
                why: why.number(),
            }),
        }
    }

    pub(super) fn refuse_from_proto(refuse: &proto::Refuse) -> Result<Self, DecodeError> {
        Ok(Self::Refuse {
            round: fixed_bytes(&refuse.round, "round")?,
            peer: MachineId::new(fixed_bytes(&refuse.peer, "peer")?),
            why: Refusal::from_number(refuse.why),
        })
    }
}

impl Offer {
    pub(super) fn from_proto(offer: &proto::Offer) -> Result<Self, DecodeError> {
        if offer.addresses.len() > MAX_ADDRESSES {
            return Err(DecodeError::Field("addresses"));
        }
        Ok(Self {
            round: fixed_bytes(&offer.round, "round")?,
            peer: MachineId::new(fixed_bytes(&offer.peer, "peer")?),
            seed: fixed_bytes(&offer.seed, "seed")?,
            addresses: offer.addresses.iter().map(|a| unpack(a)).collect::<Result<_, _>>()?,
            wait_ms: offer.wait_ms.min(MAX_WAIT_MS),
        })
    }
}

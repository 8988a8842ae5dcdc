//! Messages with which two machines are joined by way of a third one.

use bytes::Bytes;
use x0x_core::{DecodeError, MachineId, fixed_bytes};

use super::proto;

/// Names a context between a relay and one of the two machines that it joins. Even from the machine that
/// asked, odd from the relay.
pub type ContextId = u32;

/// Why a context is refused, or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayRefusal {
    /// It does not say, or in a word of a later version.
    Unknown,
    /// The relay has no session with the other machine, or has it no longer.
    NotConnected,
    /// There are too many, or too many were asked for.
    Limit,
    /// One of the three does not want to.
    Unwilling,
    /// A session that would carry it is relayed itself.
    Nested,
    /// Nothing was sent on it for long.
    Idle,
    /// Whoever asked for it, or was asked, needs it no more.
    Over,
}

impl RelayRefusal {
    const fn number(self) -> u32 {
        self as u32
    }

    const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::NotConnected,
            2 => Self::Limit,
            3 => Self::Unwilling,
            4 => Self::Nested,
            5 => Self::Idle,
            6 => Self::Over,
            _ => Self::Unknown,
        }
    }
}

/// A step in the life of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayStep {
    /// To the relay: join this machine with another one.
    Open {
        /// The sender's name of it; even.
        context: ContextId,
        /// With whom.
        target: MachineId,
    },
    /// From the relay: another machine asks for that.
    Incoming {
        /// The relay's name of it; odd.
        context: ContextId,
        /// Who asks.
        from: MachineId,
    },
    /// Packets may flow: from the machine that was asked to the relay, and from there to the one that asked.
    Ok {
        /// Which one, by the name that the receiver knows.
        context: ContextId,
    },
    /// It is refused, or over.
    Close {
        /// Which one.
        context: ContextId,
        /// Whether the sender is its relay. Each end of a session may be the other's relay.
        from_relay: bool,
        /// Why.
        why: RelayRefusal,
    },
}

impl RelayStep {
    pub(super) fn to_proto(self) -> proto::Kind {
        match self {
            Self::Open { context, target } => proto::Kind::RelayOpen(proto::RelayOpen {
                context,
                target: Bytes::copy_from_slice(target.as_bytes()),
            }),
            Self::Incoming { context, from } => proto::Kind::RelayIncoming(proto::RelayIncoming {
                context,
                from: Bytes::copy_from_slice(from.as_bytes()),
            }),
            Self::Ok { context } => proto::Kind::RelayOk(proto::RelayOk { context }),
            Self::Close { context, from_relay, why } => {
                let why = why.number();
                proto::Kind::RelayClose(proto::RelayClose { context, from_relay, why })
            }
        }
    }

    pub(super) fn open_from_proto(open: &proto::RelayOpen) -> Result<Self, DecodeError> {
        let target = MachineId::new(fixed_bytes(&open.target, "target")?);
        Ok(Self::Open { context: checked(open.context, 0)?, target })
    }

    pub(super) fn incoming_from_proto(
        incoming: &proto::RelayIncoming,
    ) -> Result<Self, DecodeError> {
        let from = MachineId::new(fixed_bytes(&incoming.from, "from")?);
        Ok(Self::Incoming { context: checked(incoming.context, 1)?, from })
    }

    pub(super) const fn ok_from_proto(ok: proto::RelayOk) -> Self {
        Self::Ok { context: ok.context }
    }

    pub(super) const fn close_from_proto(close: proto::RelayClose) -> Self {
        let why = RelayRefusal::from_number(close.why);
        Self::Close { context: close.context, from_relay: close.from_relay, why }
    }
}

/// A name of which the parity says who made it.
fn checked(context: ContextId, parity: u32) -> Result<ContextId, DecodeError> {
    match context % 2 == parity && context > 1 {
        true => Ok(context),
        false => Err(DecodeError::Field("context")),
    }
}

//! Messages of the control stream, frame headers and close codes.

use std::fmt;

/// Why a connection is closed: the QUIC application error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum CloseCode {
    /// The machine is going away.
    Shutdown = 0,
    /// The arbiter keeps another connection to the same peer.
    Duplicate = 1,
    /// The peer broke a rule of the protocol.
    Misbehaved = 2,
    /// Another network id or protocol version.
    WrongNetwork = 3,
    /// Too many sessions.
    Limit = 4,
    /// The layer above asked for it.
    Disconnected = 5,
    /// The hello or the keep did not arrive in time.
    Timeout = 6,
}

impl CloseCode {
    /// The code with this number; an unknown number reads as [`CloseCode::Misbehaved`].
    #[must_use]
    pub fn from_wire(number: u64) -> Self {
        match number {
            0 => Self::Shutdown,
            1 => Self::Duplicate,
            3 => Self::WrongNetwork,
            4 => Self::Limit,
            5 => Self::Disconnected,
            6 => Self::Timeout,
            _ => Self::Misbehaved,
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "shutdown",
            Self::Duplicate => "duplicate connection",
            Self::Misbehaved => "protocol violation",
            Self::WrongNetwork => "wrong network",
            Self::Limit => "limit reached",
            Self::Disconnected => "disconnected",
            Self::Timeout => "timeout",
        })
    }
}

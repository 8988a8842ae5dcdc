//! One error type per public operation.

use x0x_core::Protocol;

/// A session could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No address to dial was given.
    #[error("no address to dial")]
    NoAddress,
    /// The address belongs to this machine itself.
    #[error("the address belongs to this machine")]
    OwnAddress,
    /// Nothing answered in time at any address.
    #[error("no answer in time")]
    Timeout,
    /// The peer answered and was refused: wrong identity, wrong network, no common key exchange, or
    /// a broken hello.
    #[error("peer refused: {0}")]
    PeerMisbehaved(&'static str),
    /// The peer closed the connection while it was being set up.
    #[error("closed by the peer: {0}")]
    ClosedByPeer(String),
    /// The peer was tried and failed a moment ago; it is tried again after a back-off.
    #[error("peer failed recently; next attempt in {retry_in_ms} ms")]
    BackingOff {
        /// Milliseconds until a dial is made again.
        retry_in_ms: u64,
    },
    /// Too many sessions or dials at once.
    #[error("limit reached: {what} (at most {max})")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The cap.
        max: usize,
    },
    /// The transport was shut down.
    #[error("transport is closed")]
    Closed,
}

/// A message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No session with that peer.
    #[error("not connected to the peer")]
    NotConnected,
    /// The peer's queue of this stream class is full.
    #[error("the peer is slow: its queue is full")]
    Busy,
    /// Larger than the stream class carries.
    #[error("message of {len} bytes exceeds the limit of {max}")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The transport speaks this protocol itself.
    #[error("protocol {0:?} belongs to the transport")]
    Reserved(Protocol),
}

/// The protocol's receiver was taken before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receiver of protocol {0:?} was taken already")]
pub struct InboundTaken(pub Protocol);

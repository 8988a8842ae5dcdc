//! What may go wrong with a send, and who is at fault.

/// Why the receiver would not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RefuseReason {
    /// No such agent on that machine.
    #[error("unknown recipient")]
    UnknownRecipient,
    /// The sending agent was not proven in the hello of this session.
    #[error("sender agent not proven in this session")]
    SenderNotProven,
    /// The payload is longer than [`crate::MAX_PAYLOAD`].
    #[error("payload too large")]
    TooLarge,
    /// Nobody reads the inbox any more.
    #[error("inbox closed")]
    InboxClosed,
    /// The receiver holds as much as it can for an inbox that is not emptied fast enough. Trying
    /// again later may succeed.
    #[error("recipient busy")]
    Busy,
    /// The receiver could not store it: its disk is full or fails. Trying again later may succeed.
    #[error("recipient could not store it")]
    NotStored,
    /// A reason that this version does not know.
    #[error("other reason")]
    Other,
}

/// A direct message was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectError {
    /// No session with that machine; nothing was sent.
    #[error("not connected to the machine")]
    NotConnected,
    /// The caller's payload is over the limit; nothing was sent.
    #[error("payload of {len} bytes exceeds the limit of {max}")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The receiver answered that it does not take the message.
    #[error("refused by the receiver: {0}")]
    Refused(RefuseReason),
    /// The session ended before an answer came: the receiver may or may not have the message.
    /// Sending again with the same id delivers it at most once.
    #[error("session ended before the message was acknowledged")]
    Unconfirmed,
    /// No acknowledgement in time: the receiver may or may not have the message, as with
    /// [`DirectError::Unconfirmed`].
    #[error("no acknowledgement in time")]
    Timeout,
    /// Too many messages wait for this machine; nothing was sent.
    #[error("limit reached: {what} (at most {max})")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The cap.
        max: usize,
    },
    /// An earlier message of the same lane failed; nothing was sent. The sender begins the lane again
    /// with that one.
    #[error("behind a message of its lane that was not taken")]
    Behind,
    /// The recipient was blocked or revoked here while the message waited for its turn; nothing was sent.
    #[error("nothing may be sent to the agent any more")]
    Forbidden,
    /// The service was shut down; the receiver may or may not have the message.
    #[error("direct messaging is closed")]
    Closed,
}

impl DirectError {
    /// The receiver is alive and has no room for the message now: a later try may succeed.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Refused(RefuseReason::Busy | RefuseReason::NotStored))
    }
}

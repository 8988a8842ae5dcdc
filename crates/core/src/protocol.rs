//! The registry of protocols that share a session, and the stream class each travels in.

/// A protocol spoken between two machines. The number is its id on the wire; a number is never
/// reused for another meaning, and an incompatible change takes a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Protocol {
    /// Session control: hello, keep, observed addresses (`/x0x/control/1`).
    Control = 0,
    /// Overlay membership: HyParView (`/x0x/membership/1`).
    Membership = 1,
    /// Topic logs and their dissemination (`/x0x/pubsub/1`).
    Pubsub = 2,
    /// Direct messages and their acknowledgements (`/x0x/direct/1`).
    Direct = 3,
    /// Who is there: beacons and walks (`/x0x/presence/1`).
    Presence = 4,
    /// Finding agents and topics by id (`/x0x/rendezvous/1`).
    Rendezvous = 5,
    /// Offers of files and what is asked of them (`/x0x/files/1`).
    Files = 6,
    /// The content of files (`/x0x/files/1`).
    FileContent = 7,
    /// Sealed letters for those who are not there, kept by others (`/x0x/letters/1`).
    Letters = 8,
    /// What agents ask each other about named groups (`/x0x/groups/1`).
    Groups = 9,
}

/// Streams of one session, by urgency. A class has its own stream, queue and priority, so that a
/// large transfer never delays a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum StreamClass {
    /// Session control and membership: small, never waits.
    Control = 0,
    /// Direct messages: the sender waits when the receiver is busy.
    Direct = 1,
    /// Gossip: `try_send` tells the machine when a peer is slow.
    Gossip = 2,
    /// Files and snapshots: whatever is left.
    Bulk = 3,
}

impl StreamClass {
    /// All classes, most urgent first.
    pub const ALL: [Self; 4] = [Self::Control, Self::Direct, Self::Gossip, Self::Bulk];

    /// The class with this wire number.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u8 == number)
    }

    /// Largest message of this class in bytes.
    #[must_use]
    pub const fn max_message(self) -> usize {
        match self {
            Self::Control => 64 * 1024,
            // 16 MiB of payload and its header.
            Self::Direct => 16 * 1024 * 1024 + 4096,
            Self::Gossip => 1024 * 1024,
            Self::Bulk => 4 * 1024 * 1024,
        }
    }
}

impl Protocol {
    /// All protocols of this build, in order of their wire numbers.
    pub const ALL: [Self; 10] = [
        Self::Control,
        Self::Membership,
        Self::Pubsub,
        Self::Direct,
        Self::Presence,
        Self::Rendezvous,
        Self::Files,
        Self::FileContent,
        Self::Letters,
        Self::Groups,
    ];

    /// The protocol with this wire number.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| *protocol as u8 == number)
    }

    /// The stream class that carries this protocol.
    #[must_use]
    pub const fn class(self) -> StreamClass {
        match self {
            Self::Control | Self::Membership => StreamClass::Control,
            Self::Pubsub | Self::Presence | Self::Rendezvous => StreamClass::Gossip,
            Self::Direct | Self::Files | Self::Groups => StreamClass::Direct,
            Self::FileContent | Self::Letters => StreamClass::Bulk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_numbers_round_trip() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::from_wire(protocol as u8), Some(protocol));
        }
        for class in StreamClass::ALL {
            assert_eq!(StreamClass::from_wire(class as u8), Some(class));
        }
        assert_eq!(Protocol::from_wire(200), None);
        assert_eq!(StreamClass::from_wire(9), None);
    }
}

//! What stands between a machine and the internet, and which pairs of it meet.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// What stands before a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Nothing: the machine has a public address
    None,
    /// A router that lets everybody in who knows the port
    FullCone,
    /// A router that lets in the hosts to which the machine has sent
    AddressRestricted,
    /// A router that lets in the ports to which it has sent: the usual one
    PortRestricted,
    /// A router that uses another port for each destination
    Symmetric,
    /// A home router behind the provider's
    Cgnat,
    /// A network that drops UDP
    UdpBlocked,
    /// A public address behind a firewall that lets in answers alone
    Firewall,
    /// The usual router, from which machines may ask for a port
    PortMapping,
}

impl Kind {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 9] = [
        Self::None,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::Cgnat,
        Self::UdpBlocked,
        Self::Firewall,
        Self::PortMapping,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::Cgnat => "cgnat",
            Self::UdpBlocked => "udp-blocked",
            Self::Firewall => "firewall",
            Self::PortMapping => "port-mapping",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the packets of a pair's session go over in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    Direct,
    Relayed,
    /// By a relay to which an end has a stream over TCP.
    RelayedTcp,
    /// There is no session.
    Nothing,
}

impl Way {
    /// Whether it is what was expected. A pair that does better is a mistake in the table, which then promises too
    /// little.
    pub(crate) fn meets(self, expected: Self) -> bool {
        self == expected
    }

    pub(crate) const fn letter(self) -> char {
        match self {
            Self::Direct => 'D',
            Self::Relayed => 'R',
            Self::RelayedTcp => 'T',
            Self::Nothing => '-',
        }
    }
}

/// What becomes of each pair, rows and columns in the order of [`Kind::ALL`]: direct, relayed, or relayed over TCP.
/// Another port for each destination does not go with letting in only known ports: such pairs need a relay.
/// Where UDP is blocked they need one that takes streams.
const EXPECTED: [&[u8; 9]; 9] = [
    b"DDDDDDTDD",
    b"DDDDDDTDD",
    b"DDDDDDTDD",
    b"DDDDRDTDD",
    b"DDDRRRTRD",
    b"DDDDRDTDD",
    b"TTTTTTTTT",
    b"DDDDRDTDD",
    b"DDDDDDTDD",
];

/// What becomes of a pair.
pub(crate) fn expected(a: Kind, b: Kind) -> Way {
    match EXPECTED[a as usize][b as usize] {
        b'D' => Way::Direct,
        b'R' => Way::Relayed,
        b'T' => Way::RelayedTcp,
        _ => Way::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_the_same_of_both_ends() {
        for (row, a) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(a as usize, row);
            for b in Kind::ALL {
                assert_eq!(expected(a, b), expected(b, a), "{a} and {b}");
            }
        }
        assert_eq!(expected(Kind::PortRestricted, Kind::Cgnat), Way::Direct);
        assert_eq!(expected(Kind::Symmetric, Kind::Symmetric), Way::Relayed);
        assert_eq!(expected(Kind::None, Kind::UdpBlocked), Way::RelayedTcp);
        assert_eq!(expected(Kind::Firewall, Kind::PortRestricted), Way::Direct);
    }

    #[test]
    fn neither_better_nor_worse_is_as_expected() {
        let all = [Way::Direct, Way::Relayed, Way::RelayedTcp, Way::Nothing];
        for way in all {
            for expected in all {
                assert_eq!(way.meets(expected), way == expected);
            }
        }
    }
}

//! Whether machines without UDP are taken over TCP.

use std::fmt;

use serde::Deserialize;

use super::RoleName;

/// The key `tcp` of the table `[relay]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum TcpRelay {
    /// What the role says: bootstrap nodes take them at the number of their UDP port, others do not.
    #[default]
    #[serde(skip)]
    ByRole,
    /// At the number of the UDP port, or not at all.
    Switch(bool),
    /// At this port; 0 is the number of the UDP port.
    Port(u16),
}

impl TcpRelay {
    /// The port at which a machine with this role listens, 0 for the number of its UDP port.
    #[must_use]
    pub fn port(self, role: RoleName) -> Option<u16> {
        match self {
            Self::ByRole => (role == RoleName::Bootstrap).then_some(0),
            Self::Switch(on) => on.then_some(0),
            Self::Port(port) => Some(port),
        }
    }
}

/// As a line of the file; none for what is not said there.
impl fmt::Display for TcpRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByRole => Ok(()),
            Self::Switch(on) => writeln!(f, "tcp = {on}"),
            Self::Port(port) => writeln!(f, "tcp = {port}"),
        }
    }
}

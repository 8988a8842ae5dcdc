//! Where a machine may be reached.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::MachineId;

/// Most addresses kept for one peer; further ones are ignored.
pub const MAX_ADDRESSES: usize = 8;

/// A machine id, if known, with the UDP addresses where its QUIC endpoint may answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerAddr {
    /// The expected identity. `None` on first contact by address alone.
    pub id: Option<MachineId>,
    /// Candidate addresses, best first; at most [`MAX_ADDRESSES`] are used.
    pub addresses: Vec<SocketAddr>,
}

impl PeerAddr {
    /// An address whose owner is not known yet, such as a bootstrap hint.
    #[must_use]
    pub fn unknown(address: SocketAddr) -> Self {
        Self { id: None, addresses: vec![address] }
    }

    /// A known machine at the given addresses, cut to [`MAX_ADDRESSES`].
    #[must_use]
    pub fn known(id: MachineId, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut unique = Vec::new();
        for address in addresses {
            if unique.len() < MAX_ADDRESSES && !unique.contains(&address) {
                unique.push(address);
            }
        }
        Self { id: Some(id), addresses: unique }
    }
}

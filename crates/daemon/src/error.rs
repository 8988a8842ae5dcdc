//! Why a daemon does not start.

use std::{io, net::SocketAddr};

use crate::files::{FileError, LockError};

/// A daemon that did not start. The text is meant for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another daemon uses the data directory, or its lock cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The API's address is taken or not of this machine.
    #[error("cannot listen for the API at {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The agent does not start.
    #[error("cannot start the agent: {0}")]
    Agent(#[from] x0x_agent::StartError),
}

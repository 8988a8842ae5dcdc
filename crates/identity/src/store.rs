//! The keys of one installation and where they are kept.

#[cfg(feature = "fs")]
mod file;
#[cfg(all(test, unix, feature = "fs"))]
mod tests;

#[cfg(feature = "fs")]
pub use file::{IdentityStore, MACHINE_FILE, Replace, StoreError};

use crate::{AcceptedCertificate, KemSecret, SecretKey};

/// The keys that a node works with.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Authenticates this machine to its peers. Stays on the machine.
    pub machine: SecretKey,
    /// Signs what the agent says. Portable.
    pub agent: SecretKey,
    /// Opens sealed boxes addressed to the agent. Portable.
    pub agent_kem: KemSecret,
    /// The person or organisation behind the agent. Opt-in: only ever made on request.
    pub user: Option<SecretKey>,
    /// How often the agent was moved: the generation of its bindings.
    pub generation: u64,
    /// The last certificate of the user for the agent, which the agent has accepted. Perhaps expired:
    /// whoever shows it renews it first.
    pub certificate: Option<AcceptedCertificate>,
}

impl Identity {
    /// New keys that are kept nowhere, for nodes that do not outlive their process.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self {
            machine: SecretKey::generate(),
            agent: SecretKey::generate(),
            agent_kem: KemSecret::generate(),
            user: None,
            generation: 0,
            certificate: None,
        }
    }
}

//! Mailboxes: places at other machines where letters for an agent wait, which do not tell whose they
//! are.
//!
//! An agent gives each correspondent on each machine a [`MailboxSecret`] of its own. From it both
//! compute, for each holder, a [`Pickup`] and its hash, the [`Tag`] under which letters lie: whoever
//! shows the pickup may have them. A pickup is of no use at another holder, and neither the tags of two
//! holders nor those of two correspondents can be put together. The secret goes into the seal of each
//! letter, too: who seals one was given it, in a session that proved the agent and the machine.
//!
//! Everything follows from the agent's key by HKDF-SHA256 (RFC 5869), so that an agent finds its
//! mailboxes wherever its key is. Secrets change with each [period](mailbox_period).

use std::{fmt, time::Duration};

use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use x0x_core::{AgentId, MachineId, WallTime};
use zeroize::{Zeroize, Zeroizing};

use crate::sealed::{KEM_SEED_LEN, KemSecret};

#[cfg(test)]
mod tests;

/// How long the secrets of a mailbox are handed out.
pub const MAILBOX_PERIOD: Duration = Duration::from_secs(30 * 24 * 3600);

const ROOT: &[u8] = b"x0x.identity.mailboxes.1";
const SECRET: &[u8] = b"secret";
const KEM: &[u8] = b"kem";
const PLACES: &[u8] = b"places";
const PICKUP: &[u8] = b"x0x.identity.mailbox.pickup.1";
const SEAL: &[u8] = b"x0x.identity.mailbox.seal.1";
const TAG: &[u8] = b"x0x.identity.mailbox.tag.1";

/// The number of the period of a time.
#[must_use]
pub const fn mailbox_period(at: WallTime) -> u64 {
    at.as_secs() / MAILBOX_PERIOD.as_secs()
}

/// When a period ends.
#[must_use]
pub const fn mailbox_period_end(period: u64) -> WallTime {
    let end = period.saturating_add(1).saturating_mul(MAILBOX_PERIOD.as_secs());
    WallTime::from_millis(end.saturating_mul(1000))
}

/// All mailboxes of one agent. Erased when it is dropped.
#[derive(Clone)]
pub struct Mailboxes(Zeroizing<[u8; 32]>);

impl Mailboxes {
    pub(crate) fn of_seed(seed: &[u8; 32]) -> Self {
        let mut root = Zeroizing::new([0; 32]);
        expand(Some(ROOT), seed, &[], root.as_mut_slice());
        Self(root)
    }

    /// What a correspondent on a machine is given in a period.
    #[must_use]
    pub fn secret(
        &self,
        correspondent: &AgentId,
        machine: &MachineId,
        period: u64,
    ) -> MailboxSecret {
        let mut secret = Zeroizing::new([0; 32]);
        let info: [&[u8]; 4] =
            [SECRET, &period.to_be_bytes(), correspondent.as_bytes(), machine.as_bytes()];
        expand(None, self.0.as_slice(), &info, secret.as_mut_slice());
        MailboxSecret(secret)
    }

    /// The key to which letters of a period are sealed.
    #[must_use]
    pub fn kem(&self, period: u64) -> KemSecret {
        let mut seed = [0; KEM_SEED_LEN];
        expand(None, self.0.as_slice(), &[KEM, &period.to_be_bytes()], &mut seed);
        let key = KemSecret::from_seed(seed);
        seed.zeroize();
        key
    }

    /// By what machines are ranked as places for letters of a period: the same for all contacts, and
    /// known to them alone.
    #[must_use]
    pub fn places(&self, period: u64) -> [u8; 32] {
        let mut places = [0; 32];
        expand(None, self.0.as_slice(), &[PLACES, &period.to_be_bytes()], &mut places);
        places
    }
}

impl fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mailboxes(..)")
    }
}

/// HKDF of a key, as long as `out`.
fn expand(salt: Option<&[u8]>, key: &[u8], info: &[&[u8]], out: &mut [u8]) {
    let hkdf = Hkdf::<Sha256>::new(salt, key);
    hkdf.expand_multi_info(info, out).expect("64 bytes are within the reach of HKDF-SHA256");
}

/// What a correspondent of an agent needs to leave letters for it, and what the agent needs to fetch
/// them. Erased when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct MailboxSecret(Zeroizing<[u8; 32]>);

impl MailboxSecret {
    /// As received.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The raw bytes, for the correspondent alone.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The `info` of boxes with letters for the mailbox: a purpose, and a key that only the two who
    /// know the secret can derive. Holders cannot: a pickup tells nothing of it.
    #[must_use]
    pub fn seal_info(&self, purpose: &str) -> Zeroizing<Vec<u8>> {
        let mut key = Zeroizing::new([0; 32]);
        expand(None, self.0.as_slice(), &[SEAL], key.as_mut_slice());
        // The full capacity at once: growing would leave a copy of the key behind.
        let mut info = Zeroizing::new(Vec::with_capacity(purpose.len() + key.len()));
        info.extend_from_slice(purpose.as_bytes());
        info.extend_from_slice(key.as_slice());
        info
    }

    /// What opens the mailbox at a holder.
    #[must_use]
    pub fn pickup(&self, holder: &MachineId) -> Pickup {
        let mut pickup = [0; 32];
        expand(None, self.0.as_slice(), &[PICKUP, holder.as_bytes()], &mut pickup);
        Pickup(pickup)
    }
}

impl fmt::Debug for MailboxSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailboxSecret(..)")
    }
}

/// What opens a mailbox at one holder, and nowhere else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pickup([u8; 32]);

impl Pickup {
    /// As received.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes, for the holder alone.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What it opens.
    #[must_use]
    pub fn tag(&self) -> Tag {
        Tag(Sha256::new().chain_update(TAG).chain_update(self.0).finalize().into())
    }
}

impl fmt::Debug for Pickup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pickup(..)")
    }
}

x0x_core::bytes32! {
    /// Under which letters lie at a holder.
    Tag
}

//! Seeded keys: the same number gives the same key in every run. Never for real use.

use sha2::{Digest, Sha256};

use crate::{KemSecret, SecretKey};

/// The `n`-th test key.
#[must_use]
pub fn key(n: u64) -> SecretKey {
    SecretKey::from_seed(digest("signing", n))
}

/// The `n`-th test key for sealed boxes.
#[must_use]
pub fn kem_key(n: u64) -> KemSecret {
    let mut seed = [0; crate::KEM_SEED_LEN];
    let (d, z) = seed.split_at_mut(32);
    d.copy_from_slice(&digest("kem d", n));
    z.copy_from_slice(&digest("kem z", n));
    KemSecret::from_seed(seed)
}

fn digest(purpose: &str, n: u64) -> [u8; 32] {
    Sha256::new()
        .chain_update("x0x test key ")
        .chain_update(purpose)
        .chain_update(n.to_be_bytes())
        .finalize()
        .into()
}

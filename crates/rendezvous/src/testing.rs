//! What tests and simulators of finding share.

use std::net::SocketAddr;

use x0x_core::{MachineId, SeededRng};

use crate::{
    frame::{MAX_REFERRALS, Referral},
    key::LookupKey,
};

/// A machine id, evenly spread as hashes are.
#[must_use]
pub fn random_machine(rng: &mut SeededRng) -> MachineId {
    let mut id = [0; 32];
    for chunk in id.chunks_exact_mut(8) {
        chunk.copy_from_slice(&rng.next_u64().to_be_bytes());
    }
    MachineId::new(id)
}

/// What a liar names: machines that do not exist, nearer to the key than any that does, and each in another
/// network.
#[must_use]
pub fn invented(rng: &mut SeededRng, key: &LookupKey) -> Vec<Referral> {
    let referral = |_| {
        let mut id = *random_machine(rng).as_bytes();
        id[..8].copy_from_slice(&key.as_bytes()[..8]);
        let [.., a, b, c] = id;
        let ip = [30 + a % 20, b, c, 1];
        Referral { machine: MachineId::new(id), addresses: vec![SocketAddr::from((ip, 9))] }
    };
    (0..MAX_REFERRALS).map(referral).collect()
}

//! Keys that need not travel, for simulations of many machines in one process.

use x0x_identity::PublicKey;

use super::PubSubMachine;

impl PubSubMachine {
    /// Takes an author's key as known, so that the machines of one process share one decoded key.
    /// Beyond [`Limits::keys`](crate::Limits::keys) the least recently used key is forgotten.
    pub fn know(&mut self, key: PublicKey) {
        if self.keys.len() >= self.limits.keys {
            self.keys.pop_lru();
        }
        self.keys.put(key.agent_id(), key);
    }
}

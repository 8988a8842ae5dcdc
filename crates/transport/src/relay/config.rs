//! Whether and how much a machine relays, with the reasons for the defaults.

/// Limits of a relay.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Whether this machine forwards packets for others. Off where traffic costs: on a metered network, on a
    /// battery.
    pub enabled: bool,
    /// Whether this machine has its own packets forwarded by others, when it cannot reach a peer otherwise.
    pub use_others: bool,
    /// Most contexts that it forwards for.
    pub max_contexts: usize,
    /// Most of these that one machine asked for: one for each of as many peers.
    pub max_contexts_per_client: usize,
    /// Most between the same two machines that one of them asked for: one in use, those that it has just
    /// left, and no more.
    pub max_contexts_per_pair: usize,
    /// Bytes a second for the machine that asked, both directions together: messages and a file now and then.
    pub client_rate: u64,
    /// Bytes for it at once after a quiet time: a handshake takes 14 KB.
    pub client_burst: u64,
    /// Bytes for it on one day.
    pub client_daily: u64,
    /// Bytes a second for all together.
    pub total_rate: u64,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            use_others: true,
            max_contexts: 1024,
            max_contexts_per_client: 64,
            max_contexts_per_pair: 4,
            client_rate: 1 << 20,
            client_burst: 256 << 10,
            client_daily: 2 << 30,
            total_rate: 20 << 20,
        }
    }
}

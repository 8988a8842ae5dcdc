//! Starting the layers, the lowest first.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, MachineId, SystemClock};
use x0x_direct::{Direct, DirectConfig, Inbox};
use x0x_gossip_membership::{Membership, MembershipConfig};
use x0x_gossip_pubsub::{Gossip, PubSubConfig};
use x0x_identity::{Identity, IdentityStore, SecretKey, SignedBinding};
use x0x_rendezvous::{Discovery, DiscoveryConfig, DiscoveryIdentity};
use x0x_transport::{
    LocalHello, Node, SessionConfig, Transport,
    quic::{QuicConfig, QuicEngine},
};

use crate::{Agent, AgentConfig, StartError, agent::Inner, mailbox::Mailbox};

/// How long a session binding is valid. It is renewed after half of this.
const BINDING_VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Starts an [`Agent`].
#[derive(Debug)]
pub struct AgentBuilder {
    config: AgentConfig,
    clock: Arc<dyn Clock>,
}

impl AgentBuilder {
    pub(crate) fn new(config: AgentConfig) -> Self {
        Self { config, clock: Arc::new(SystemClock::new()) }
    }

    /// Uses another clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}
